"""A rate by a target: the encoder network runs once, priors and coder (and decoder) for six or seven rates."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

from ._rates import MAX_RATE, check_rate

Trial = TypeVar("Trial")


def check_choice(rate: int | None, target_bpp: float | None, target_psnr: float | None) -> None:
    """Raise ValueError unless at most one is given, and in its range."""
    given = [
        name
        for name, value in (("rate", rate), ("target_bpp", target_bpp), ("target_psnr", target_psnr))
        if value is not None
    ]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} exclude each other; give one of them")
    if rate is not None:
        check_rate(rate)
    for name, target in (("target_bpp", target_bpp), ("target_psnr", target_psnr)):
        if target is not None and not (target > 0 and math.isfinite(target)):
            raise ValueError(f"{name}={target} must be positive")


def highest_rate(code: Callable[[int], Trial], fits: Callable[[Trial], bool]) -> tuple[Trial, bool]:
    """The highest rate whose trial fits, by bisection; for limits on size.

    Args:
        code: tries a rate of 0..63.
        fits: true up to some rate, and false from there on.

    Returns:
        The trial, and whether it fits; where none does, rate 0's.
    """
    return _last(lambda position: code(position), fits)


def lowest_rate(code: Callable[[int], Trial], fits: Callable[[Trial], bool]) -> tuple[Trial, bool]:
    """The lowest rate whose trial fits; for limits on quality. Where none does, rate 63's; see `highest_rate`."""
    return _last(lambda position: code(MAX_RATE - position), fits)


def _last(code: Callable[[int], Trial], fits: Callable[[Trial], bool]) -> tuple[Trial, bool]:
    """The last position of 0..63 that fits, where the first ones do."""
    best = code(0)
    if not fits(best):
        return best, False
    low, high = 0, MAX_RATE + 1
    while high - low > 1:
        middle = (low + high) // 2
        trial = code(middle)
        if fits(trial):
            best, low = trial, middle
        else:
            high = middle
    return best, True
