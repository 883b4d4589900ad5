import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from maskdecay.codecs._escapes import MAX_SYMBOL, pack_escapes, unpack_escapes


def arrays(*values: list[int]) -> list[np.ndarray]:
    return [np.array(v, np.int32) for v in values]


@pytest.mark.parametrize(
    ("symbol", "data"),
    [
        (3, [0]),
        (-3, [1]),
        (4, [2]),
        (66, [126]),
        (-66, [127]),
        (67, [128, 1]),
        (MAX_SYMBOL, [0xFA, 0xFF, 0xFF, 0xFF, 0x07]),  # 2^31 - 6
    ],
)
def test_bytes_by_hand_around_a_table_of_minus_2_to_2(symbol: int, data: list[int]) -> None:
    assert pack_escapes(*arrays([symbol], [-2], [3])) == bytes(data)


@given(
    st.lists(
        st.tuples(st.integers(-MAX_SYMBOL, MAX_SYMBOL), st.integers(-600, 600), st.integers(1, 600)).filter(
            lambda case: not case[1] <= case[0] < case[1] + case[2]
        )
    )
)
def test_round_trip(cases: list[tuple[int, int, int]]) -> None:
    symbols, first, escape = arrays([c[0] for c in cases], [c[1] for c in cases], [c[1] + c[2] for c in cases])
    assert unpack_escapes(pack_escapes(symbols, first, escape), first, escape).tolist() == symbols.tolist()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "0 bytes at its end do not hold 2"),
        ([1], "1 bytes at its end do not hold 2"),
        ([1, 1, 1], "3 bytes at its end do not hold 2"),
        ([1, 1, 128], "3 bytes at its end do not hold 2"),
        ([1, 129], "2 bytes at its end do not hold 2"),
        ([1, 129, 0], "padded"),
        ([1, 129, 128, 128, 128, 128, 1], "takes 6 bytes"),
        ([1, 255, 255, 255, 255, 127], "out of range"),
    ],
)
def test_damage_is_named(data: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unpack_escapes(bytes(data), *arrays([-2, -2], [3, 3]))


@given(st.binary(max_size=30), st.integers(0, 8))
def test_any_bytes_are_refused_or_are_what_would_be_written(data: bytes, count: int) -> None:
    first, escape = arrays([-2] * count, [3] * count)
    try:
        symbols = unpack_escapes(data, first, escape)
    except ValueError:
        return
    assert pack_escapes(symbols, first, escape) == data
