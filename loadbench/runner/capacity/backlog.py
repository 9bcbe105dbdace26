"""Open loop: whether a backlog grows, so that each request stays longer than the one before.

Above what a server can do, its backlog grows for as long as the load lasts, and so does the time that a request spends
there: an SLO that is met after a minute is missed after an hour.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadbench import stats

FEWEST = 40
"""Requests below which nothing is said."""
BATCHES = 20
TAIL = 0.001
TREND = 0.05
"""As TAIL, for the question whether a load may be said to be met: a server that keeps up is asked again later."""
GROWTH = 1.5
"""Least ratio of the last batch to the first: what grows by less may be a server that fills up."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """A backlog that grows.

    Attributes:
        slope: Seconds that a request stays longer, for each second that passes; of a line through the batches.
        first_s, last_s: How long requests stayed in the first and the last batch.
    """

    slope: float
    first_s: float
    last_s: float


def backlog(due_s: NDArray[np.float64], stay_s: NDArray[np.float64], tail: float = TAIL) -> Backlog | None:
    """The backlog that requests show; None where none grows, or too few requests say.

    A queue wanders: one that is long now stays long for a while, so that a line through its lengths is steep by chance
    far more often than its t test says. What does not depend on the past is by how much it grows. So 20 batches of
    successive requests are made, and Student's t is taken of the growth from each to the next: one side, at 0.1 %.

    Args:
        due_s: When each request was due, ascending.
        stay_s: From then to its end.
        tail: How often a server that keeps up may be said to have one.

    >>> at = np.arange(200.0)
    >>> backlog(at, 1 + 0.1 * at)
    Backlog(slope=0.1, first_s=1.45, last_s=20.45)
    >>> backlog(at, np.ones(200))
    """
    if len(due_s) < FEWEST or due_s[-1] <= due_s[0]:
        return None
    x, y = _batches(due_s), _batches(stay_s)
    growth = np.diff(y)
    error = float(growth.std(ddof=1)) / math.sqrt(len(growth))
    if growth.mean() <= stats.student(len(growth) - 1, tail) * error or y[-1] < GROWTH * y[0]:
        return None
    away = x - x.mean()
    slope = float(away @ y / (away @ away))
    return Backlog(round(slope, 6), round(float(y[0]), 6), round(float(y[-1]), 6))


def is_steady(due_s: NDArray[np.float64], stay_s: NDArray[np.float64], after: int = 0) -> bool:
    """Whether neither the time that requests stay nor the number in flight grows, as far as anybody can tell.

    Args:
        due_s: When each request was due, ascending.
        stay_s: From then to its end.
        after: The first requests, which are in flight with the others but were the warm-up.

    >>> at = np.arange(200.0)
    >>> is_steady(at, np.ones(200)), is_steady(at, 1 + 0.1 * at)
    (True, False)
    """
    begun, ended = np.arange(1.0, len(due_s) + 1), np.searchsorted(np.sort(due_s + stay_s), due_s, side="right")
    return all(backlog(due_s[after:], series[after:], TREND) is None for series in (stay_s, begun - ended))


def _batches(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The means of 20 batches of successive values, whose sizes differ by one at most."""
    sizes = np.full(BATCHES, len(values) // BATCHES)
    sizes[: len(values) % BATCHES] += 1
    means: NDArray[np.float64] = np.add.reduceat(values, np.cumsum(sizes) - sizes) / sizes
    return means
