import struct
import sys

import constriction
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from maskdecay.codecs import _rans
from maskdecay.codecs._gaussian import gaussian_tables, table_scales
from maskdecay.codecs._rans import decode, encode
from maskdecay.codecs._tables import Tables, integer_frequencies, make_tables

BACKENDS = ("numba", "numpy")
TINY = make_tables([-1, 0], [np.array([16384, 32768, 16383, 1]), np.array([65535, 1])])


def gaussian_case(count: int, median_scale: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Symbols and table indices as a network would give them."""
    rng = np.random.default_rng(seed)
    indices = np.clip(rng.normal(np.log(median_scale / 0.11) * 40.06, 40, count), 0, 255).astype(np.int32)
    return np.round(rng.normal(0, table_scales()[indices])).astype(np.int32), indices


def read_as_documented(data: bytes, indices: list[int], tables: Tables) -> list[int]:
    """The decoder that the docstring describes, one integer at a time; for streams without escapes."""
    lanes = 1 if len(indices) < 4096 else 2
    words = list(struct.unpack(f"<{len(data) // 4}I", data))
    states = [words.pop(0) + (words.pop(0) << 32) for _ in range(lanes)]
    symbols = []
    for i, t in enumerate(indices):
        x, sums = states[i % lanes], tables.cumulative[tables.bounds[t] : tables.bounds[t + 1]].tolist()
        slot = max(k for k, start in enumerate(sums) if start <= x % 2**16)
        x = (sums[slot + 1] - sums[slot]) * (x // 2**16) + x % 2**16 - sums[slot]
        states[i % lanes] = x if x >= 2**31 else x * 2**32 + words.pop(0)
        symbols.append(int(tables.first[t]) + slot)
    assert states == [2**31] * lanes
    assert words == []
    return symbols


SHARES = st.lists(st.integers(0, 1000), min_size=1, max_size=40).map(lambda values: [*values, 1])
SYMBOLS = st.one_of(st.integers(-100, 100), st.integers(-(2**30), 2**30))


@settings(deadline=None)  # numba may compile
@given(
    st.lists(st.tuples(st.integers(-50, 50), SHARES), min_size=1, max_size=5),
    st.lists(st.tuples(SYMBOLS, st.integers(0, 4)), max_size=60),
    st.sampled_from([1, 1, 1, 200]),  # long ones have two lanes
)
def test_round_trip_and_both_backends_write_the_same(
    rows: list[tuple[int, list[int]]], pairs: list[tuple[int, int]], repeats: int
) -> None:
    tables = make_tables([f for f, _ in rows], [integer_frequencies(np.array(row, float)) for _, row in rows])
    symbols = np.array([symbol for symbol, _ in pairs] * repeats, np.int32)
    indices = np.array([index % len(rows) for _, index in pairs] * repeats, np.int32)
    streams = [encode(symbols, indices, tables, backend=backend) for backend in BACKENDS]
    assert streams[0] == streams[1]
    for backend in BACKENDS:
        assert decode(streams[0], indices, tables, backend=backend).tolist() == symbols.tolist()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("symbols", "indices", "expected"),
    [  # a change of any of these breaks every file
        ([], [], ""),
        ([0], [0], "0040000001000000"),  # 2^31 * 2 + 2^14
        ([-1, 0, 1, 0, 0], [0, 0, 0, 1, 0], "1600ae0020000000"),
        ([5, -70], [0, 0], "ffff008000000000ffff0000068901"),
    ],
)
def test_golden_bytes(backend: _rans.Backend, symbols: list[int], indices: list[int], expected: str) -> None:
    data = encode(np.array(symbols, int), np.array(indices, int), TINY, backend=backend)
    assert data.hex() == expected
    assert decode(data, np.array(indices, int), TINY, backend=backend).tolist() == symbols


@pytest.mark.parametrize("count", [1, 7, 4095, 4096, 4097])
def test_the_stream_is_the_documented_one(count: int) -> None:
    symbols, indices = gaussian_case(count, 1.0)
    tables = gaussian_tables()
    outside = (symbols < tables.first[indices]) | (symbols >= tables.escape[indices])
    symbols[outside] = 0
    data = encode(symbols, indices, tables)
    assert read_as_documented(data, indices.tolist(), tables) == symbols.tolist()


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_slot_of_every_gaussian_table(backend: _rans.Backend) -> None:
    tables = gaussian_tables()
    widths = tables.escape - tables.first + 2  # and one beyond on either side
    indices = np.repeat(np.arange(256, dtype=np.int32), widths)
    symbols = np.concatenate([np.arange(f - 1, e + 1) for f, e in zip(tables.first, tables.escape, strict=True)])
    data = encode(symbols, indices, tables, backend=backend)
    assert decode(data, indices, tables, backend=backend).tolist() == symbols.tolist()


@pytest.mark.parametrize("median_scale", [0.2, 1.35, 20.0])
def test_size_is_the_ideal_within_three_per_mille(median_scale: float) -> None:
    symbols, indices = gaussian_case(40_000, median_scale)
    data = encode(symbols, indices, gaussian_tables())
    scales = table_scales()[indices]
    bits = constriction.stream.model.QuantizedGaussian(-600, 600)
    coder = constriction.stream.stack.AnsCoder()
    coder.encode_reverse(symbols, bits, np.zeros(len(symbols)), scales)
    assert len(data) <= 1.003 * coder.num_valid_bits() / 8 + 16
    frequency = integer_bits(symbols, indices)
    assert frequency / 8 <= len(data) <= 1.0005 * frequency / 8 + 17


def integer_bits(symbols: np.ndarray, indices: np.ndarray) -> float:
    """Bits by the tables' own frequencies; escapes 8 bits more."""
    tables = gaussian_tables()
    inside = (symbols >= tables.first[indices]) & (symbols < tables.escape[indices])
    slots = np.where(inside, symbols, tables.escape[indices]) - tables.first[indices] + tables.bounds[indices]
    frequencies = np.diff(tables.cumulative.astype(int))[slots]
    return float(-np.log2(frequencies / 65536).sum() + 8 * (~inside).sum())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("count", [3, 300, 5000])
def test_truncated_and_extended_streams_are_refused(backend: _rans.Backend, count: int) -> None:
    symbols, indices = gaussian_case(count, 1.0)
    symbols[1] = 10_000  # escapes
    data = encode(symbols, indices, gaussian_tables())
    for length in {*range(20), *range(20, len(data), len(data) // 20 + 1), *range(len(data) - 9, len(data))}:
        if 0 <= length < len(data):
            with pytest.raises(ValueError, match="the stream is"):
                decode(data[:length], indices, gaussian_tables(), backend=backend)
    for extra in (b"\0", b"\xff", b"\0\0\0\0", data):
        with pytest.raises(ValueError, match="the stream is"):
            decode(data + extra, indices, gaussian_tables(), backend=backend)


def decode_or_message(data: bytes, indices: np.ndarray, backend: _rans.Backend) -> list[int] | str:
    try:
        symbols = decode(data, indices, gaussian_tables(), backend=backend)
    except ValueError as error:
        return str(error)
    assert symbols.shape == indices.shape
    return symbols.tolist()


@settings(deadline=None)
@given(st.sampled_from([50, 4500]), st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_gives_as_many_symbols(count: int, position: int, change: int) -> None:
    symbols, indices = gaussian_case(count, 1.0)
    data = bytearray(encode(symbols, indices, gaussian_tables()))
    data[position % len(data)] ^= change
    first, second = (decode_or_message(bytes(data), indices, backend) for backend in BACKENDS)
    assert first == second
    assert first != symbols.tolist()


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from([0, 1, 9, 4096]), st.integers(0, 255))
def test_any_bytes_are_refused_or_are_a_stream(data: bytes, count: int, index: int) -> None:
    indices = np.full(count, index, np.int32)
    first, second = (decode_or_message(data, indices, backend) for backend in BACKENDS)
    assert first == second
    if isinstance(first, list):
        assert encode(np.array(first, int), indices, gaussian_tables()) == data


@pytest.mark.parametrize(
    ("symbols", "indices", "message"),
    [
        ([1, 2], [0], "2 symbols with 1 table indices"),
        ([1], [2], "from 2 to 2; there are 2 tables"),
        ([1, 1], [0, -1], "from -1 to 0; there are 2 tables"),
        ([2**30 + 1], [0], "they may reach to"),
        ([-(2**40)], [0], "they may reach to"),
    ],
)
def test_what_cannot_be_coded_is_refused(symbols: list[int], indices: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode(np.array(symbols), np.array(indices), TINY)


def test_decoding_checks_indices_and_emptiness() -> None:
    with pytest.raises(ValueError, match="there are 2 tables"):
        decode(b"\0" * 8, np.array([2]), TINY)
    with pytest.raises(ValueError, match="there are no symbols in it"):
        decode(b"\0", np.array([], int), TINY)


def test_without_numba_numpy_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "maskdecay.codecs._rans_numba", raising=False)
    monkeypatch.delattr("maskdecay.codecs._rans_numba", raising=False)
    _rans._default_kernels.cache_clear()
    try:
        assert _rans._kernels(None).__name__.endswith("_rans_numpy")
    finally:
        _rans._default_kernels.cache_clear()


def test_slices_and_other_integer_types_are_taken() -> None:
    symbols, indices = gaussian_case(100, 1.0)
    expected = encode(symbols, indices, gaussian_tables())
    wide = np.repeat(symbols.astype(np.int64), 2)[::2]
    assert encode(wide, indices.astype(np.uint8), gaussian_tables()) == expected
