"""When requests start: pure functions of their arguments, in ns since the level began.

Open loop: `constant` and `poisson` give every start of a request rate, without end. Closed loop: `start_offsets_ns`
gives the first start of each slot; every later one is due when its slot comes free.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import count

import numpy as np

_NS_PER_S = 1_000_000_000
_BLOCK = 1024  # gaps drawn at a time: one call of the generator for each costs ten times as much
_BETWEEN_STARTS_NS = 50_000
_ALL_STARTED_NS = 100_000_000


def constant(rate_per_s: float) -> Iterator[int]:
    """Due times in ns of requests that start at equal gaps: 0, 1/r, 2/r, …, each rounded by itself, so without drift.

    Raises:
        ValueError: If the rate is not above 0 and finite.

    >>> from itertools import islice
    >>> list(islice(constant(3), 4))
    [0, 333333333, 666666667, 1000000000]
    """
    rate_per_s = _checked(rate_per_s)
    return (round(number * _NS_PER_S / rate_per_s) for number in count())


def poisson(rate_per_s: float, rng: np.random.Generator) -> Iterator[int]:
    """Due times in ns of independent requests: gaps are exponential with mean 1/r, and so is the time to the first.

    Args:
        rate_per_s: Mean number of starts in a second.
        rng: The randomness; the same seed gives the same times.
    Raises:
        ValueError: If the rate is not above 0 and finite.
    """
    return _poisson(_NS_PER_S / _checked(rate_per_s), rng)


def _poisson(mean_gap_ns: float, rng: np.random.Generator) -> Iterator[int]:
    at_ns = 0
    while True:
        # Gaps, not times, are rounded: a sum of integers stays exact however long the run.
        for gap_ns in np.rint(rng.exponential(mean_gap_ns, _BLOCK)).astype(np.int64).tolist():
            at_ns += gap_ns
            yield at_ns


def start_offsets_ns(slots: int) -> list[int]:
    """First starts in ns of a closed loop's slots: 50 us apart, all within 100 ms.

    512 connects and request builds at one instant keep the client busy for 40 ms, which the first tokens would show.

    >>> start_offsets_ns(4)
    [0, 50000, 100000, 150000]
    """
    spread_ns = min(slots * _BETWEEN_STARTS_NS, _ALL_STARTED_NS)
    return [number * spread_ns // slots for number in range(slots)]


def _checked(rate_per_s: float) -> float:
    rate_per_s = float(rate_per_s)
    if not (math.isfinite(rate_per_s) and rate_per_s > 0):
        raise ValueError(f"a request rate of {rate_per_s:g} per s: give a number above 0")
    return rate_per_s
