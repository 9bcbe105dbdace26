"""Requests of one run share a queue, a cache, a machine: intervals from blocks of neighbours, in closed form.

The variance of a mean is that of the means of all overlapping blocks of neighbours, which is the variance that a
moving-block bootstrap comes to without drawing once. Blocks know what lies within them, so that short runs see too
little: where each value clearly resembles the one before, the variance of a series with that memory is the least. A
dependence that lasts much longer than a block (a queue near saturation) still makes an interval too narrow;
docs/statistics.md has the figures.

Source: Künsch 1989 (moving blocks); Meketon & Schmeiser 1984 (overlapping batch means, the factors and the degrees of
freedom); Kendall 1954 (the memory's bias); Woodruff 1952 with Korn & Graubard 1998 (percentiles by effective sample
size).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from loadbench.intervals.quantiles import TAIL, normal, student
from loadbench.intervals.ranks import interval, needed, rank
from loadbench.intervals.ratios import Bounds, Estimate
from loadbench.intervals.shares import wilson

Reals = NDArray[np.float64]

FEWEST_BLOCKS = 4
SLICES = 64
"""Equal slices of a window that a rate's variance is taken from: finer ones make its blocks of time too short."""


def block_length(n: int) -> int:
    """Requests a block: about 3*n^(1/3), but at least four blocks fit side by side.

    >>> [block_length(n) for n in (6, 60, 200, 1000, 100_000)]
    [1, 12, 18, 30, 139]
    """
    return max(1, min(round(3 * math.cbrt(n)), n // FEWEST_BLOCKS))


def mean_variance(values: NDArray[np.number], length: int | None = None) -> Estimate | None:
    """The mean of values in the order of start, with its variance by overlapping blocks; None below 4 values.

    Args:
        values: In order; NaN must be left out before.
        length: Of a block; `block_length` by default, with the memory of neighbours as the least.
    """
    n = len(values)
    if n < FEWEST_BLOCKS or (length or 1) > n // 2:
        return None
    least = _memory_variance(values) if length is None else 0.0
    length = block_length(n) if length is None else length
    mean = float(values.mean())
    sums = np.concatenate(([0.0], np.cumsum(values - mean)))
    blocks = (sums[length:] - sums[:-length]) / length
    variance = length * float(np.square(blocks).sum()) / ((n - length) * (n - length + 1))
    return Estimate(mean, max(variance, least), min(1.5 * (n / length - 1), n - 1))


def mean_interval(values: NDArray[np.number], tail: float = TAIL) -> Bounds | None:
    """Interval of the mean of values in the order of start; never narrower than for independent ones.

    >>> mean_interval(np.array([3.0] * 10))
    (3.0, 3.0)
    """
    estimate = mean_variance(values)
    if estimate is None:
        return None
    n = len(values)
    half = max(
        student(estimate.freedom, tail) * math.sqrt(estimate.variance),
        student(n - 1, tail) * float(values.std(ddof=1)) / math.sqrt(n),
    )
    return estimate.value - half, estimate.value + half


def independent_requests(values: NDArray[np.number], p: float, tail: float = TAIL) -> int:
    """How many independent values those of a run's requests are worth around one percentile.

    n over the design effect (never below 1): the variance of the share of values on one side of the percentile, by
    blocks, over that of independent ones; once with the values that equal it and once without. And over Student's
    widening, for there are few blocks.

    Args:
        values: In the order of start, without NaN.
        p: The percentile as a fraction.
        tail: What each side of the interval may miss.

    >>> slow, quick = [2.0] * 50, [1.0] * 50
    >>> independent_requests(np.array((slow + quick) * 5), 0.5), independent_requests(np.array([1.0, 2.0] * 250), 0.5)
    (7, 460)
    """
    n = len(values)
    if n < needed(0.5):
        return 0
    place = rank(p, n) - 1
    at = np.partition(values, place)[place]
    return _worth([values < at, values <= at], tail)


def percentile_interval(values: NDArray[np.number], p: float, tail: float = TAIL) -> Bounds | None:
    """Interval of a percentile of values in the order of start: two of them; None where they are worth too few.

    Never narrower than the order-statistic interval of independent values.
    """
    return interval(np.sort(values), p, independent_requests(values, p, tail), tail)


def share_interval(flags: NDArray[np.bool_], tail: float = TAIL) -> Bounds | None:
    """Wilson's interval of the share of flags, in the order of start, with n as many as they are worth."""
    n = len(flags)
    worth = _worth([flags], tail) if n >= needed(0.5) else n
    return wilson(float(flags.mean()) * worth, worth, tail) if n and worth else None


def rate_variance(amounts: Reals, seconds: float, dependent_s: float = 0.0) -> Estimate | None:
    """A rate per second with its variance, by blocks of time; None where four blocks do not fit.

    Args:
        amounts: What flowed in each of SLICES equal slices of the window, in order.
        seconds: Length of the window.
        dependent_s: How long what flows depends on what flowed, about the time a request takes: the shortest block.
    """
    slices = len(amounts)
    if slices < FEWEST_BLOCKS or not seconds > 0:
        return None
    length = max(block_length(slices), math.ceil(dependent_s * slices / seconds))
    if length > slices // FEWEST_BLOCKS:
        return None
    estimate = mean_variance(amounts, length)
    if estimate is None:
        return None
    per_s = slices / seconds
    return Estimate(estimate.value * per_s, estimate.variance * per_s**2, estimate.freedom)


def rate_interval(amounts: Reals, seconds: float, dependent_s: float = 0.0, tail: float = TAIL) -> Bounds | None:
    """Interval of a rate per second, see `rate_variance`; its lower end is never below 0.

    >>> rate_interval(np.array([50.0] * 40), 20.0)
    (100.0, 100.0)
    """
    estimate = rate_variance(amounts, seconds, dependent_s)
    if estimate is None:
        return None
    half = student(estimate.freedom, tail) * math.sqrt(estimate.variance)
    return max(0.0, estimate.value - half), estimate.value + half


def _memory_variance(values: NDArray[np.number]) -> float:
    """Variance of the mean of a series in which each value resembles the one before (AR(1)); 0 where none clearly does.

    Clearly: by more than 1.96 standard errors of independent values, which they reach once in 40 times.
    """
    n = len(values)
    away = values - values.mean()
    squares = float(np.square(away).sum())
    memory = float((away[1:] * away[:-1]).sum()) / squares if squares > 0 else 0.0
    if memory * math.sqrt(n) < normal():
        return 0.0
    memory = min(memory + (1 + 3 * memory) / n, 1 - 1 / n)
    return squares / (n - 1) / n * (1 + memory) / (1 - memory)


def _worth(sides: list[NDArray[np.bool_]], tail: float) -> int:
    n = len(sides[0])
    effects, freedom = [1.0], float(n - 1)
    for hits in sides:
        share = float(hits.mean())
        estimate = mean_variance(hits.astype(np.float64))
        if estimate is not None and 0 < share < 1:
            effects.append(estimate.variance * n / (share * (1 - share)))
            freedom = estimate.freedom
    return int(n / max(effects) / (student(freedom, tail) / normal(tail)) ** 2)
