import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from maskdecay.profiling import LayerFigures, Reason
from maskdecay.profiling._reasons import CAUSES, find_reasons, lost_ms


def layer(path: str, macs: int, ms: float, bound: str = "arithmetic", moved: int = 100) -> LayerFigures:
    return LayerFigures(
        path=path, kind="Conv2d", macs=macs, bytes=moved, fresh=0, operations=1, median_ms=ms, bound=bound
    )


BEFORE = [layer("kept", 100, 8.0), layer("bytes", 800, 8.0), layer("good", 800, 8.0), layer("relu", 0, 4.0)]
AFTER = [
    layer("kept", 100, 8.0),
    layer("bytes", 200, 6.0, "memory", moved=50),
    layer("good", 100, 1.0),
    layer("relu", 0, 2.0, "allocation", moved=50),
]


def test_lost_time_is_what_the_mac_ratio_does_not_explain():
    assert lost_ms(BEFORE, AFTER, 4.0) == {"kept": 6.0, "bytes": 4.0, "relu": 1.0}
    assert lost_ms([], AFTER[:1], 4.0) == {"kept": 8.0}


def test_reasons_by_hand():
    kept, moved, fresh = find_reasons(BEFORE, AFTER, 4.0, {})
    assert (kept.cause, kept.lost_ms, kept.share, kept.layers) == (
        "not narrowed",
        6.0,
        pytest.approx(6 / 11),
        ("kept",),
    )
    assert (moved.cause, moved.lost_ms, moved.mac_ratio, moved.byte_ratio) == ("memory", 4.0, 4.0, 2.0)
    assert moved.speedup == pytest.approx(8 / 6)
    assert (fresh.cause, fresh.mac_ratio) == ("allocation", None)
    assert str(moved).startswith(
        "memory: 4 ms, 36% of what was lost, in bytes (MACs 1 : 4.00, bytes 1 : 2.00, time 1 : 1.33)"
    )


def test_a_width_that_the_device_dislikes_is_named_with_its_remedy():
    (width, *_) = find_reasons(BEFORE[1:2], AFTER[1:2], 4.0, {"bytes": 16})
    assert width.cause == "width"
    assert width.detail.endswith("round the plan's widths up, multiple_of=16")


def test_many_layers_are_cut_short_in_words_only():
    before = [layer(f"l{n}", 100, 4.0) for n in range(5)]
    (reason,) = find_reasons(before, before, 2.0, {})
    assert "in l0, l1, l2 and 2 more" in str(reason)
    assert len(reason.layers) == 5


def test_lists_from_json_become_tuples():
    plain = find_reasons(BEFORE, AFTER, 4.0, {})[0]
    assert Reason.from_dict(json.loads(json.dumps(asdict(plain)))) == plain


@given(st.lists(st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)), min_size=1, max_size=8), st.floats(1, 50))
def test_shares_add_up_and_nothing_is_counted_twice(times, ratio):
    before = [layer(str(n), 100, old) for n, (old, _) in enumerate(times)]
    after = [replace(b, median_ms=new, macs=50) for b, (_, new) in zip(before, times, strict=True)]
    reasons = find_reasons(before, after, ratio, {})
    lost = lost_ms(before, after, ratio)
    assert sorted(path for reason in reasons for path in reason.layers) == sorted(lost)
    assert sum(reason.lost_ms for reason in reasons) == pytest.approx(sum(lost.values()))
    assert all(reason.cause in CAUSES for reason in reasons)
    assert [r.lost_ms for r in reasons] == sorted((r.lost_ms for r in reasons), reverse=True)
