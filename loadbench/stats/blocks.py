"""Requests of one run share a queue, a cache, a machine: intervals that know it, in closed form.

Two estimates of the variance of a mean of neighbours. That of a series in which each value remembers the one before
(AR(1)) needs few values. That of the means of all overlapping blocks, which is what a moving-block bootstrap comes to
without drawing once, sees any dependence that fits into a block, but is rough, for there are few blocks: it counts
where it is clearly the larger. A dependence that lasts much longer than a block (a queue near saturation) still makes
an interval too narrow; docs/statistics.md has the figures.

Gaps between tokens come in clusters, since they resemble those of their request, and so do requests of several runs:
there the requests, or the runs, are what is counted.

Source: Künsch 1989 (moving blocks); Meketon & Schmeiser 1984 (overlapping batch means, the factors and the degrees of
freedom); Kendall 1954 (the memory's bias); Woodruff 1952 with Korn & Graubard 1998 (percentiles by effective sample
size).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadbench.stats import TAIL, Bounds, Estimate, interval, needed, normal, rank, student
from loadbench.stats.shares import wilson

Reals = NDArray[np.float64]

FEWEST_BLOCKS = 4
# Values whose dependence can be clear by their ranks.
FEWEST = 20
# The chance at which dependence is clear, of all values and of those beyond a percentile: 5 % together.
EVIDENCE = 0.025
# Flags up to which their runs are counted exactly; of more the normal distribution says the same.
MOST_COUNTED = 50
# Equal slices of a window that a rate's variance is taken from: finer ones make its blocks of time too short.
SLICES = 64


def block_length(n: int) -> int:
    """Requests a block: about 3*n^(1/3), but at least four blocks fit side by side.

    >>> [block_length(n) for n in (6, 60, 200, 1000, 100_000)]
    [1, 12, 18, 30, 139]
    """
    return max(1, min(round(3 * math.cbrt(n)), n // FEWEST_BLOCKS))


def mean_variance(values: NDArray[np.number]) -> Estimate | None:
    """The mean of values in the order of start, with its variance, never below that of independent ones.

    None below 4 values.

    Args:
        values: In order; NaN must be left out before.
    """
    n = len(values)
    if n < FEWEST_BLOCKS:
        return None
    memory, blocks = _by_memory(values), _by_blocks(values, block_length(n))
    if blocks.variance > memory.variance * reach(blocks.freedom):
        return blocks
    return memory


def mean_interval(values: NDArray[np.number], tail: float = TAIL) -> Bounds | None:
    """Interval of the mean of values in the order of start; never narrower than for independent ones.

    >>> mean_interval(np.array([3.0] * 10))
    (3.0, 3.0)
    """
    estimate = mean_variance(values)
    if estimate is None:
        return None
    half = student(estimate.freedom, tail) * math.sqrt(estimate.variance)
    return estimate.value - half, estimate.value + half


@dataclass(frozen=True, slots=True)
class Worth:
    """How many independent values those of a run's requests are worth around one percentile.

    Attributes:
        requests: All of them, unless they clearly depend on each other.
        doubtful: Whether what all values say of that, and those around this percentile, do not agree: then an interval
            of so many may be too narrow.
    """

    requests: int
    doubtful: bool = False


def independent_requests(values: NDArray[np.number], p: float, tail: float = TAIL) -> int:
    """How many independent values those of a run's requests are worth around one percentile (`percentile_worth`).

    >>> slow, quick = [2.0] * 50, [1.0] * 50
    >>> independent_requests(np.array((slow + quick) * 5), 0.5), independent_requests(np.array([1.0, 2.0] * 250), 0.5)
    (4, 500)
    """
    return percentile_worth(values, p, tail).requests


def percentile_worth(values: NDArray[np.number], p: float, tail: float = TAIL, clear: bool | None = None) -> Worth:
    """What the values of a run's requests are worth around one percentile; none below 6.

    All of them, unless it is clear (5 %) that they depend on each other: the ranks of all values resemble their
    neighbours' (`is_dependent`), or those beyond the percentile come together. Else n over the design effect: the
    variance of the share of values on one side of the percentile, over that of independent ones; once with the values
    that equal it and once without. And over Student's widening, for that variance is itself an estimate.

    Args:
        values: In the order of start, without NaN.
        p: The percentile as a fraction.
        tail: What each side of the interval may miss.
        clear: What `is_dependent` says of the values, where that is known.
    """
    n = len(values)
    if n < needed(0.5):
        return Worth(0)
    if clear is None:
        clear = is_dependent(values)
    place = rank(p, n) - 1
    at = np.partition(values, place)[place]
    worth, suspected = float(n), False
    for hits in (values < at, values <= at):
        share = float(hits.mean())
        estimate, alone = mean_variance(hits.astype(np.float64)), share * (1 - share) / n
        if estimate is None or not alone > 0:
            continue
        suspected |= estimate.variance > alone * reach(estimate.freedom)
        if clear or _together(hits) < EVIDENCE:
            clear = True
            worth = min(worth, n * min(1.0, alone / estimate.variance) / widening(estimate.freedom, tail))
    return Worth(int(worth), clear != suspected)


def is_dependent(values: NDArray[np.number]) -> bool:
    """Whether values in the order of start clearly depend on each other, by the variance of their mean rank.

    Of independent values it is said of about 1 in 40; never of fewer than 20. Ranks, since a heavy tail would hide what
    the others do.
    """
    if len(values) < FEWEST:
        return False
    ranks = _mid_ranks(values)
    estimate = mean_variance(ranks)
    if estimate is None:
        return False
    alone = float(ranks.var(ddof=1)) / len(ranks)
    return estimate.variance > alone * reach(estimate.freedom, normal(EVIDENCE))


def _mid_ranks(values: NDArray[np.number]) -> Reals:
    """The rank of each value; of equal ones the middle, or their order in time would look like a trend."""
    order = np.argsort(values)
    ascending = values[order]
    begins = np.flatnonzero(np.concatenate(([True], ascending[1:] != ascending[:-1])))
    sizes = np.diff(np.append(begins, len(values)))
    ranks = np.empty(len(values))
    ranks[order] = np.repeat(begins + (sizes - 1) / 2, sizes)
    return ranks


def neighbours(values: NDArray[np.number]) -> float | None:
    """The correlation of each finite value with the next; None where they are all alike, or fewer than 4.

    >>> round(neighbours(np.repeat([1.0, 2.0], 50)), 2), neighbours(np.ones(9))
    (0.97, None)
    """
    known = values[np.isfinite(values)]
    if len(known) < FEWEST_BLOCKS:
        return None
    away = known - known.mean()
    squares = float(np.square(away).sum())
    if not squares > 0:
        return None
    return float((away[1:] * away[:-1]).sum()) / squares


def percentile_interval(values: NDArray[np.number], p: float, tail: float = TAIL) -> Bounds | None:
    """Interval of a percentile of values in the order of start: two of them; None where they are worth too few.

    Never narrower than the order-statistic interval of independent values.
    """
    return interval(np.sort(values), p, independent_requests(values, p, tail), tail)


def share_interval(flags: NDArray[np.bool_], of: int | None = None, tail: float = TAIL) -> Bounds | None:
    """Wilson's interval of the share of flags, in the order of start, with n as many as they are worth.

    Args:
        of: What the share is of, where that is more than there are flags: requests that were never sent are misses.
    """
    n = max(of or 0, len(flags))
    if not len(flags):
        return wilson(0, n, tail)
    effective = independent_flags(flags, tail) * n / len(flags)
    return wilson(int(flags.sum()) / n * effective, effective, tail)


def ratio_interval(amounts: Reals, sizes: NDArray[np.number], tail: float = TAIL) -> Bounds | None:
    """Interval of sum(amounts) / sum(sizes) over requests in the order of start: of a mean over all their tokens.

    Source: Cochran 1977, section 11.8 (the variance of a ratio over clusters).

    >>> ratio_interval(np.array([20.0, 40.0, 60.0, 80.0]), np.array([1, 2, 3, 4]))
    (20.0, 20.0)
    """
    total = float(sizes.sum())
    if not total > 0:
        return None
    ratio = float(amounts.sum()) / total
    estimate = mean_variance(amounts - ratio * sizes)
    if estimate is None:
        return None
    half = student(estimate.freedom, tail) * math.sqrt(estimate.variance) * len(sizes) / total
    return ratio - half, ratio + half


def independent_flags(flags: NDArray[np.bool_], tail: float = TAIL) -> int:
    """How many independent flags these are worth, in the order of start: failures that come together are fewer.

    >>> independent_flags(np.arange(400) % 10 == 0), independent_flags(np.arange(400) < 40)
    (400, 1)
    """
    n = len(flags)
    estimate = mean_variance(flags.astype(np.float64))
    if estimate is None:
        return n
    share = float(flags.mean())
    alone = share * (1 - share) / n
    # What lies above it by no more than chance allows is no dependence.
    if not estimate.variance > alone * reach(estimate.freedom) > 0:
        return n
    return max(1, int(n * alone / estimate.variance / widening(estimate.freedom, tail)))


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
    estimate = _by_blocks(amounts, length)
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


def _by_blocks(values: NDArray[np.number], length: int) -> Estimate:
    n, mean = len(values), float(values.mean())
    sums = np.concatenate(([0.0], np.cumsum(values - mean)))
    blocks = (sums[length:] - sums[:-length]) / length
    # Divided so that it is unbiased for independent values. Blocks that overlap are worth half as many again as those
    # side by side.
    variance = length * float(np.square(blocks).sum()) / ((n - length) * (n - length + 1))
    return Estimate(mean, variance, min(1.5 * (n / length - 1), n - 1))


def _by_memory(values: NDArray[np.number]) -> Estimate:
    """As of a series in which each value remembers a part of the one before; never below that of independent values.

    The degrees of freedom are those of the spread, of as many values as it is worth, and of the memory together.
    """
    n, mean = len(values), float(values.mean())
    away = values - mean
    squares = float(np.square(away).sum())
    if not squares > 0:
        return Estimate(mean, 0.0, n - 1)
    memory = float((away[1:] * away[:-1]).sum()) / squares
    # Of so few values it comes out too small by about that much (Kendall 1954).
    memory = min(max(0.0, memory + (1 + 3 * memory) / n), 1 - 1 / n)
    longer = (1 + memory) / (1 - memory)
    freedom = 2 / (2 * longer / n + 4 / ((1 - memory**2) * n))
    return Estimate(mean, squares / (n - 1) / n * longer, max(1.0, freedom))


def reach(freedom: float, z: float = 1.0) -> float:
    """What a variance with these degrees of freedom exceeds by chance, once in six times (Wilson & Hilferty 1931).

    Args:
        z: The normal quantile, for another chance than one in six.

    >>> round(reach(1), 2), round(reach(100), 2)
    (1.95, 1.14)
    """
    return float((1 - 2 / (9 * freedom) + z * math.sqrt(2 / (9 * freedom))) ** 3)


def _together(flags: NDArray[np.bool_]) -> float:
    """The chance that these flags, in random order, form this few runs of neighbours or fewer.

    Source: Wald & Wolfowitz 1940 (the runs of one kind are hypergeometric).
    """
    n, of = len(flags), int(flags.sum())
    if 2 * of > n:
        flags, of = ~flags, n - of
    if of < 2:
        return 1.0
    runs = int(flags[0]) + int((flags[1:] & ~flags[:-1]).sum())
    others = n - of
    if of > MOST_COUNTED:
        mean = of * (others + 1) / n
        variance = of * (of - 1) * others * (others + 1) / (n * n * (n - 1))
        return 0.5 * math.erfc((mean - runs - 0.5) / math.sqrt(2 * variance))
    ways = 0
    for r in range(1, runs + 1):
        ways += math.comb(of - 1, r - 1) * math.comb(others + 1, r)
    return ways / math.comb(n, of)


def widening(freedom: float, tail: float = TAIL) -> float:
    """By how much fewer values a variance of so many degrees of freedom makes of those that it was estimated from.

    >>> round(widening(5), 3), round(widening(1000), 3)
    (1.72, 1.002)
    """
    return (student(freedom, tail) / normal(tail)) ** 2


def independent_gaps(
    below: NDArray[np.int64], at_most: NDArray[np.int64], sizes: NDArray[np.int64], tail: float = TAIL
) -> int:
    """How many independent values the gaps of some requests are worth around one percentile.

    Gaps of one request resemble each other; taken as independent, their 95 % interval covers 55 %.
    The variance of the share of gaps on one side of the percentile is taken between requests, as for a cluster sample,
    with what a request shares with its neighbours (`mean_variance`): once with the gaps that equal it and once without,
    for where many are equal (a server that writes by a clock) one of the two shares may be 0 or 1 and vary not at all.

    Args:
        below: Gaps below the percentile, per request, in the order of start.
        at_most: Gaps at or below the percentile, per request.
        sizes: Gaps per request, all > 0.
        tail: What each side of the interval may miss.

    Returns:
        n divided by the design effect (never below 1) and by Student's widening, for that variance is itself an
        estimate; 0 below 6 requests.
    Source: Woodruff 1952; Korn & Graubard 1998 (effective sample size in an exact binomial interval); Cochran 1977,
    section 11.8 (the variance of a ratio over clusters).
    """
    requests, n = len(sizes), int(sizes.sum())
    if requests < needed(0.5):
        return 0
    worth = n / widening(requests - 1, tail)
    for hits in (below, at_most):
        share = float(hits.sum()) / n
        estimate = mean_variance(hits - share * sizes)
        if estimate is not None and 0 < share < 1:
            effect = max(1.0, estimate.variance * requests**2 / n / (share * (1 - share)))
            worth = min(worth, n / effect / widening(estimate.freedom, tail))
    return int(worth)


def independent_in_runs(hits: Sequence[int], sizes: Sequence[int], worth: float, tail: float = TAIL) -> float:
    """How many independent requests those of several runs are worth, for the share of hits of them all.

    As many as they are worth within their runs, unless the runs' shares differ by clearly more than that allows: one
    run in which many fail says little of the next one. Then it is the variance between runs, with Student's widening.

    Args:
        hits: Of each run.
        sizes: Requests of each run, all > 0.
        worth: Independent requests that all of them are worth within their runs.
        tail: What each side of the interval may miss.
    Source: Cochran 1977, section 11.8 (the variance of a ratio over clusters).

    >>> independent_in_runs([5, 4, 6], [100] * 3, 300.0), round(independent_in_runs([15, 0, 0], [100] * 3, 300.0), 1)
    (300.0, 3.9)
    """
    runs, n = len(hits), sum(sizes)
    share = sum(hits) / n
    if runs < 2 or not 0 < share < 1:
        return worth
    squares = sum((hit - share * size) ** 2 for hit, size in zip(hits, sizes, strict=True))
    between, within = squares * runs / (runs - 1) / n**2, share * (1 - share) / worth
    if between <= within * reach(runs - 1):
        return worth
    return min(worth, share * (1 - share) / between / widening(runs - 1, tail))
