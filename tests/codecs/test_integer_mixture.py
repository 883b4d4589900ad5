import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from maskdecay.codecs._integer_mixture import Bins, IntegerMixtures, intervals, mixture_tables
from maskdecay.codecs._logistic_mixture import LogisticMixture
from maskdecay.codecs._rans_intervals import IntervalReader, JointReader, encode_intervals


def random_case(count: int, tau: int, seed: int, components: int = 5) -> tuple[IntegerMixtures, Bins, np.ndarray]:
    """Mixtures, bins and symbols that are mostly likely ones."""
    rng = np.random.default_rng(seed)
    shape = (count, components)
    centre = rng.integers(0, 256, (count, 1))
    mixtures = IntegerMixtures(
        rng.integers(-300, 300, shape).astype(np.int32),
        (32 * centre + rng.normal(0, 200, shape)).astype(np.int32),
        rng.integers(0, 64, shape).astype(np.int32),
    )
    first = rng.integers(-tau, 1, count).astype(np.int32)
    width = 2 * tau + 1
    counts = ((255 + tau - first) // width + 1).astype(np.int32)
    symbols = np.clip((centre[:, 0] + rng.normal(0, 4, count) - first + tau) // width, 0, counts - 1)
    return mixtures, Bins(first, counts, width), symbols.astype(np.int32)


def interval_as_documented(mixtures: IntegerMixtures, bins: Bins, i: int, symbol: int) -> tuple[int, int]:
    """What the module's docstring says, in Python's integers."""
    tables = mixture_tables()
    logits = mixtures.logits[i].tolist()
    e = [int(tables.exp[min(max(logits) - logit, 511)]) for logit in logits]
    weights = [2**14 * value // sum(e) for value in e]
    weights[logits.index(max(logits))] += 2**14 - sum(weights)
    c = int(bins.counts[i])

    def start(j: int) -> int:
        if j in (0, c):
            return j // c * 2**24
        edge = 32 * int(bins.first[i]) + 32 * j * bins.width - 16 * bins.width
        total = 0
        for weight, mean, scale in zip(weights, mixtures.means[i].tolist(), mixtures.scales[i].tolist(), strict=True):
            u = min(max((edge - mean) * int(tables.inverse[scale]) + 2**28, 0), 2**29 - 1)
            low, high = (int(entry) for entry in tables.sigmoid[u // 2**18 : u // 2**18 + 2])
            total += weight * (low + u % 2**18 * (high - low) // 2**18)
        return ((2**24 - c) * total + 2**37) // 2**38 + j

    return start(symbol), start(symbol + 1) - start(symbol)


def to_float(mixtures: IntegerMixtures) -> LogisticMixture:
    logits, means, scales = (torch.from_numpy(part.astype(np.float64)) for part in mixtures)
    return LogisticMixture(logits / 32, means / 32, (scales / 6 - 4) * math.log(2))


def test_tables_agree_with_floats() -> None:
    exp, inverse, sigmoid = mixture_tables()
    assert np.abs(exp - 2**20 * np.exp(-np.arange(512) / 32)).max() <= 0.5001
    assert np.abs(inverse * 2.0 ** (np.arange(64) / 6 - 4) / 2**19 - 1).max() < 1e-4
    assert np.abs(sigmoid - 2**24 / (1 + np.exp(16 - np.arange(2049) / 64))).max() < 2.001
    assert (np.diff(sigmoid) >= 0).all()


@pytest.mark.parametrize("tau", [0, 1, 5, 127])
def test_intervals_are_as_documented(tau: int) -> None:
    mixtures, bins, symbols = random_case(50, tau, seed=tau)
    starts, lengths = intervals(mixtures, bins, symbols)
    expected = [interval_as_documented(mixtures, bins, i, int(symbols[i])) for i in range(50)]
    assert list(zip(starts.tolist(), lengths.tolist(), strict=True)) == expected


@settings(deadline=None)
@given(st.integers(0, 127), st.integers(0, 99))
def test_bins_cover_everything_once(tau: int, seed: int) -> None:
    mixtures, bins, _ = random_case(1, tau, seed)
    count = int(bins.counts[0])
    spread = IntegerMixtures(*(np.repeat(part, count, 0) for part in mixtures))
    each = Bins(np.repeat(bins.first, count), np.repeat(bins.counts, count), bins.width)
    starts, lengths = intervals(spread, each, np.arange(count, dtype=np.int32))
    assert starts[0] == 0
    assert lengths.min() >= 1
    assert (starts[1:] == starts[:-1] + lengths[:-1]).all()
    assert starts[-1] + lengths[-1] == 1 << 24


@pytest.mark.parametrize("tau", [0, 2, 30])
def test_probabilities_are_those_of_the_float_mixture(tau: int) -> None:
    mixtures, bins, symbols = random_case(4000, tau, seed=1)
    found = -np.log2(intervals(mixtures, bins, symbols)[1] / 2**24)
    highest = torch.from_numpy(bins.counts.astype(np.int64) - 1)
    first = torch.from_numpy(bins.first.astype(np.int64))
    float_mixture = to_float(mixtures).quantised(tau, first, torch.zeros_like(first), highest)
    expected = float_mixture.bits(torch.from_numpy(symbols.astype(np.int64))).numpy()
    likely = expected < 8  # components of a weight of some 2^-14 are coarse
    assert likely.mean() > 0.7
    assert np.abs(found - expected)[likely].max() < 0.05
    assert found[likely].mean() == pytest.approx(expected[likely].mean(), abs=1e-3)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 127), st.integers(0, 300), st.integers(0, 99), st.integers(1, 7))
def test_round_trip_in_portions(tau: int, count: int, seed: int, portions: int) -> None:
    mixtures, bins, symbols = random_case(count, tau, seed)
    rng = np.random.default_rng(seed)
    odd = rng.random(count) < 0.1  # some that no one expects
    symbols = np.where(odd, rng.integers(0, np.maximum(bins.counts, 1)), symbols).astype(np.int32)
    reader = IntervalReader(encode_intervals(*intervals(mixtures, bins, symbols)))
    for part in np.array_split(np.arange(count), portions):
        some = IntegerMixtures(*(array[part] for array in mixtures))
        assert (reader.read(some, Bins(bins.first[part], bins.counts[part], bins.width)) == symbols[part]).all()
    reader.finish()


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=5), st.integers(0, 99))
def test_streams_read_in_turns(counts: list[int], seed: int) -> None:
    cases = [random_case(count, 1, seed + k) for k, count in enumerate(counts)]
    readers = [IntervalReader(encode_intervals(*intervals(*case))) for case in cases]
    joint, rng = JointReader(readers), np.random.default_rng(seed)
    cuts = np.sort([[0, *rng.integers(0, count + 1, 2), count] for count in counts])
    for turn in range(3):
        parts = [slice(own[turn], own[turn + 1]) for own in cuts]
        columns = [(*mixtures, bins.first, bins.counts, symbols) for mixtures, bins, symbols in cases]
        own = [[column[part] for column in case] for case, part in zip(columns, parts, strict=True)]
        *mixtures, first, many, symbols = (np.concatenate(column) for column in zip(*own, strict=True))
        bins = Bins(first, many, 3)
        assert (joint.read(IntegerMixtures(*mixtures), bins, cuts[:, turn + 1] - cuts[:, turn]) == symbols).all()
    joint.close()
    for reader in readers:
        reader.finish()


def test_streams_read_in_turns_that_end_or_do_not_fit() -> None:
    (mixtures, bins, symbols), one = random_case(400, 0, seed=4), np.array([400])
    data = encode_intervals(*intervals(mixtures, bins, symbols))
    with pytest.raises(ValueError, match="too short"):
        JointReader([IntervalReader(data[:-8])]).read(mixtures, bins, one)
    with pytest.raises(ValueError, match=r"400 mixtures for \[399\] symbols of 1 streams"):
        JointReader([IntervalReader(data)]).read(mixtures, bins, one - 1)


def test_golden_bytes() -> None:
    """A change breaks every file."""
    mixtures, bins, symbols = random_case(40, 1, seed=0)
    assert encode_intervals(*intervals(mixtures, bins, symbols)).hex() == GOLDEN


def test_stream_is_as_long_as_its_bits() -> None:
    mixtures, bins, symbols = random_case(20000, 0, seed=2)
    starts, lengths = intervals(mixtures, bins, symbols)
    ideal = -np.log2(lengths / 2**24).sum() / 8
    assert len(encode_intervals(starts, lengths)) == pytest.approx(ideal, abs=12, rel=1e-4)


def test_certain_symbols_cost_nothing() -> None:
    mixtures, bins, symbols = random_case(1000, 127, seed=0)
    sure = Bins(bins.first, np.ones(1000, np.int32), 255)
    data = encode_intervals(*intervals(mixtures, sure, 0 * symbols))
    assert len(data) == 8
    reader = IntervalReader(data)
    assert (reader.read(mixtures, sure) == 0).all()
    reader.finish()


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.integers(0, 255))
def test_damaged_streams_end(place: int, byte: int) -> None:
    mixtures, bins, symbols = random_case(400, 0, seed=4)
    data = bytearray(encode_intervals(*intervals(mixtures, bins, symbols)))
    data[place % len(data)] ^= byte
    found = read_all(bytes(data), mixtures, bins)
    assert byte == 0 or found is None or (found != symbols).any()


def read_all(data: bytes, mixtures: IntegerMixtures, bins: Bins) -> np.ndarray | None:
    """The symbols, or None where the stream is refused."""
    try:
        reader = IntervalReader(data)
        found = reader.read(mixtures, bins)
        reader.finish()
    except ValueError:
        return None
    return found


@pytest.mark.parametrize(("data", "message"), [(bytes(8), "begins with"), (bytes(6), "whole"), (bytes(4), "no state")])
def test_no_stream(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IntervalReader(data)


def test_short_and_long_streams() -> None:
    mixtures, bins, symbols = random_case(400, 0, seed=4)
    data = encode_intervals(*intervals(mixtures, bins, symbols))
    with pytest.raises(ValueError, match="too short"):
        IntervalReader(data[:-8]).read(mixtures, bins)
    long = IntervalReader(data + b"\0" * 4)
    long.read(mixtures, bins)
    with pytest.raises(ValueError, match="too long"):
        long.finish()


def test_bad_arguments() -> None:
    mixtures, bins, symbols = random_case(4, 0, seed=0)
    with pytest.raises(ValueError, match="not all in the bins"):
        intervals(mixtures, bins, symbols + np.int32(10000))
    with pytest.raises(ValueError, match="a scale of"):
        intervals(mixtures._replace(scales=mixtures.scales + np.int32(64)), bins, symbols)
    with pytest.raises(ValueError, match="must be int32"):
        intervals(mixtures._replace(means=mixtures.means[:, :2]), bins, symbols)
    with pytest.raises(ValueError, match="it is odd"):
        intervals(mixtures, bins._replace(width=2), symbols)


GOLDEN = "01c1c344e7010000ab6c470481b1a20ccd5ca32dfabff342380b64682892ee39bb546dbd"
