"""When requests start: pure functions of their arguments, in ns since the level began.

Open loop: `constant` and `poisson` give every start of a request rate, without end; `shaped` and `shaped_poisson` those
of a rate that changes, `replay` those of a trace, to their end. Closed loop: `start_offsets_ns` gives the first start
of each slot; every later one is due when its slot comes free, or when its user has paused.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import count

import numpy as np

from loadbench.scenario.loads import Piece

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


def shaped(pieces: Sequence[Piece]) -> Iterator[int]:
    """Due times in ns at equal shares of a changing rate: where its integral reaches 0, 1, 2, …, each by itself.

    The integral starts at the level's beginning; the last start lies before the end of the last piece.

    >>> [round(due_ns / 1e9, 3) for due_ns in shaped([Piece(2.0, 0.0, 4.0)])]  # the integral is t squared
    [0.0, 1.0, 1.414, 1.732]
    """
    return _shaped(pieces, count())


def shaped_poisson(pieces: Sequence[Piece], rng: np.random.Generator) -> Iterator[int]:
    """Due times in ns of a Poisson process whose rate changes: one of rate 1, on the time scale of the integral.

    Source: time change of a Poisson process, Cinlar 1975, "Introduction to Stochastic Processes", section 4.7.
    """
    return _shaped(pieces, _unit_poisson(rng))


def _unit_poisson(rng: np.random.Generator) -> Iterator[float]:
    passed = 0.0
    while True:
        for gap in rng.exponential(1.0, _BLOCK).tolist():
            passed += gap
            yield passed


def _shaped(pieces: Sequence[Piece], passed: Iterable[float]) -> Iterator[int]:
    """The times at which the integral of the rate reaches what ascends in `passed`."""
    numbers = iter(passed)
    number = next(numbers)
    began_s = before = 0.0
    for piece in pieces:
        while number - before < piece.requests:
            yield round((began_s + _after_s(piece, number - before)) * _NS_PER_S)
            number = next(numbers)
        began_s += piece.duration_s
        before += piece.requests


def _after_s(piece: Piece, requests: float) -> float:
    """Seconds into a piece at which this many requests were due: the integral's inverse.

    The root of a*t + (b - a)/(2*T)*t**2 = n, in the form that loses no digits as b nears a.
    """
    if requests <= 0:
        return 0.0
    slope = (piece.to_per_s - piece.from_per_s) / piece.duration_s
    root = math.sqrt(max(0.0, piece.from_per_s**2 + 2 * slope * requests))
    return min(2 * requests / (piece.from_per_s + root), piece.duration_s)


def replay(at_s: Iterable[float]) -> Iterator[int]:
    """Due times in ns of requests that were recorded, in seconds since the level began, ascending.

    >>> list(replay([0, 0.25, 0.25, 3]))
    [0, 250000000, 250000000, 3000000000]
    """
    return (round(second * _NS_PER_S) for second in at_s)


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
