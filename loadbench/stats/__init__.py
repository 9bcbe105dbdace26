"""How sure a figure is: intervals of percentiles, means, shares, rates and ratios (docs/statistics.md).

All intervals are two-sided, at 95 % unless a `tail` says otherwise. A bound that does not exist is None, never a guess.
docs/statistics.md has each formula in words, its source, and the simulation that checks it.

Here: quantiles of the normal and of Student's distribution, for any tail (a Bonferroni-adjusted one is small);
estimates that know how far off they may be (the difference of two that are logarithms is the ratio of two figures);
percentiles by nearest rank, each with its order-statistic interval, which is right for independent values.

blocks.py   requests that depend on each other, gaps and runs that come in clusters
shares.py   Wilson, Newcombe, McNemar; the load at which a share crosses what is wanted
scaling.py  what more load buys: efficiency, knees, whether a server answers one by one
usl.py      the Universal Scalability Law, fitted
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from operator import mul
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

# What each side of an interval may miss.
TAIL = 0.025
# The normal quantile of 1 - TAIL.
Z = 1.959963984540054
# Degrees of freedom from which the expansion around the normal quantile is exact to 6 digits.
_MANY = 200


@lru_cache(maxsize=1024)
def normal(tail: float = TAIL) -> float:
    """The normal quantile of 1 - tail.

    >>> round(normal(0.025), 6), round(normal(0.005), 6)
    (1.959964, 2.575829)
    """
    return NormalDist().inv_cdf(1 - tail)


@lru_cache(maxsize=4096)
def student(freedom: float, tail: float = TAIL) -> float:
    """Student's t quantile of 1 - tail; freedom need not be whole, and counts as 1 below that.

    Source: Abramowitz & Stegun 26.7.3 and 26.7.4 (the distribution as a finite sum for whole degrees of freedom),
    inverted by bisection; between whole ones linear in 1/freedom; 26.7.5 (Cornish-Fisher) above 200.

    >>> [round(student(n), 3) for n in (1, 4, 9, 30, 1000)], round(student(4, 0.005), 3)
    ([12.706, 2.776, 2.262, 2.042, 1.962], 4.604)
    """
    if freedom >= _MANY:
        z = normal(tail)
        return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    low = max(1, math.floor(freedom))
    if freedom <= low:
        return _whole(low, tail)
    share = (1 / low - 1 / freedom) / (1 / low - 1 / (low + 1))
    return _whole(low, tail) * (1 - share) + _whole(low + 1, tail) * share


@lru_cache(maxsize=4096)
def _whole(freedom: int, tail: float) -> float:
    low, high = 0.0, math.pi / 2
    for _ in range(60):  # halved so often, the interval is below a float's last digit
        middle = (low + high) / 2
        if _within(middle, freedom) < 1 - 2 * tail:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def _within(angle: float, freedom: int) -> float:
    """P(|T| < sqrt(freedom) * tan(angle))."""
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = freedom % 2
    term, total = 1.0, 0.0
    if odd:
        term = cosine
    for k in range(odd + 1, freedom, 2):
        total += term
        term *= cosine * cosine * k / (k + 1)
    if odd:
        return 2 / math.pi * (angle + sine * total)
    return sine * total


Bounds = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with the variance of its error.

    Attributes:
        value: The figure; a logarithm where ratios are wanted.
        variance: Of `value`, not of what it was computed from.
        freedom: Degrees of freedom of `variance`.
    """

    value: float
    variance: float
    freedom: float


def difference(base: Estimate, new: Estimate, tail: float = TAIL) -> Bounds:
    """Interval of new - base, two independent estimates.

    Source: Welch 1947, Satterthwaite 1946.

    >>> low, high = difference(Estimate(0.0, 0.01, 9), Estimate(0.5, 0.01, 9))
    >>> round(low, 3), round(high, 3)
    (0.203, 0.797)
    """
    variance = base.variance + new.variance
    squares = base.variance**2 / base.freedom + new.variance**2 / new.freedom
    half = 0.0
    if squares > 0:
        half = student(variance**2 / squares, tail) * math.sqrt(variance)
    return new.value - base.value - half, new.value - base.value + half


def one_sample(values: Sequence[float]) -> Estimate | None:
    """The mean of independent values, as of runs, with its variance; None below two of them."""
    n = len(values)
    if n < 2:
        return None
    mean = math.fsum(values) / n
    squares = math.fsum((value - mean) ** 2 for value in values)
    return Estimate(mean, squares / (n - 1) / n, n - 1)


def mover(values: Sequence[float], bounds: Sequence[Bounds], weights: Sequence[float]) -> Bounds:
    """Interval of a weighted sum of independent figures, from the interval of each, symmetric or not.

    With weights (-1, 1) of two logarithms it is that of the log ratio of the second to the first.

    Source: Zou & Donner 2008, Statistics in Medicine 27:1693 (method of variance estimates recovery).

    >>> mover([0.0, 1.0], [(-3.0, 3.0), (-3.0, 5.0)], (-1, 1))
    (-4.0, 6.0)
    """
    total = math.fsum(map(mul, weights, values))
    down = up = 0.0
    for value, (low, high), weight in zip(values, bounds, weights, strict=True):
        under, over = value - low, high - value
        if weight < 0:
            under, over = over, under
        down += (weight * under) ** 2
        up += (weight * over) ** 2
    return total - math.sqrt(down), total + math.sqrt(up)


# -- percentiles


def rank(p: float, n: int) -> int:
    """The 1-based rank of the p-quantile of n values: ceil(p*n), at least 1.

    p is taken as the decimal that is written, so that no binary rounding lifts a rank: 0.07*100 is 7, not 8.

    >>> rank(0.95, 20), rank(0.07, 100), rank(0.99, 160), rank(0.5, 1)
    (19, 7, 159, 1)
    """
    if not 0 < p <= 1 or n < 1:
        raise ValueError(f"no rank for p = {p}, n = {n}")
    return math.ceil(Fraction(repr(p)) * n)


def percentile(ascending: NDArray[np.number], p: float) -> float | None:
    """The nearest-rank percentile of sorted values: always one of them. None without values.

    >>> percentile(np.array([1.0, 2.0, 39.06]), 0.95)
    39.06
    """
    return float(ascending[rank(p, len(ascending)) - 1]) if len(ascending) else None


def needed(p: float, tail: float = TAIL) -> int:
    """The smallest n for which the percentile's interval exists.

    >>> [needed(p) for p in (0.5, 0.9, 0.95, 0.99, 0.999)]
    [6, 36, 72, 368, 3688]
    """
    rarer = min(p, 1 - p)
    return math.ceil(math.log(tail) / math.log1p(-rarer))


def needed_within(p: float, margin: float, tail: float = TAIL) -> int:
    """How many independent values place a percentile within p ± margin of the distribution.

    Source: Reddi et al., MLPerf Inference Benchmark, section III.D (their table IV: 99 % confidence, tail = 0.005).

    >>> needed_within(0.99, 0.0005, tail=0.005)
    262742
    """
    return round(normal(tail) ** 2 * p * (1 - p) / margin**2)


@lru_cache(maxsize=16384)
def _ranks(p: float, n: int, tail: float) -> tuple[int, int]:
    """The ranks of `interval_ranks`; one that does not exist is 0 or n + 1."""
    # 12 standard deviations to each side hold all but 1e-30 of the mass, so that n = 20 million costs 50,000 terms.
    reach = 12 * math.sqrt(n * p * (1 - p)) + 30
    first, last = max(0, math.floor(n * p - reach)), min(n, math.ceil(n * p + reach))
    successes = np.arange(first, last, dtype=np.float64)
    ratios = np.log((n - successes) / (successes + 1)) + math.log(p) - math.log1p(-p)
    log_mass = np.concatenate(([0.0], np.cumsum(ratios)))
    mass = np.exp(log_mass - log_mass.max())
    cumulative = np.cumsum(mass)
    cumulative /= cumulative[-1]
    lower = first + int(np.searchsorted(cumulative, tail, side="right"))
    upper = first + int(np.searchsorted(cumulative, 1 - tail, side="left")) + 1
    return lower, upper


def interval_ranks(p: float, n: int, tail: float = TAIL) -> tuple[int, int] | None:
    """Ranks (lower, upper), 1-based, of the two values that enclose the p-quantile with confidence 1 - 2*tail.

    Exact binomial, at most `tail` missed on each side; None where either rank lies outside 1..n.

    Source: Hahn & Meeker, Statistical Intervals: P(lower <= rank < upper) = B(upper-1; n, p) - B(lower-1; n, p).

    >>> interval_ranks(0.5, 6), interval_ranks(0.5, 5), interval_ranks(0.99, 367), interval_ranks(0.99, 368)
    ((1, 6), None, None, (360, 368))
    """
    if n < 1:
        return None
    lower, upper = _ranks(p, n, tail)
    if lower < 1 or upper > n:
        return None
    return lower, upper


def interval(
    ascending: NDArray[np.number], p: float, independent: int | None = None, tail: float = TAIL
) -> tuple[float, float] | None:
    """The interval of a percentile: two of the sorted values. Right for independent values, else too narrow.

    Args:
        ascending: The values, sorted.
        p: The percentile as a fraction.
        independent: How many independent values they are worth, where fewer than there are (`independent_requests`,
            `independent_gaps`).
        tail: What each side may miss.
    """
    low, high = ends(ascending, p, independent, tail)
    if low is None or high is None:
        return None
    return low, high


def ends(
    ascending: NDArray[np.number], p: float, independent: int | None = None, tail: float = TAIL
) -> tuple[float | None, float | None]:
    """As `interval`, each end by itself: of too few values for a p95 its lower bound may exist, and none above it.

    >>> ends(np.arange(1.0, 61.0), 0.95), ends(np.arange(1.0, 73.0), 0.95), ends(np.arange(5.0), 0.5)
    ((53.0, None), (64.0, 72.0), (None, None))
    """
    n = worth = len(ascending)
    if independent is not None:
        worth = min(independent, n)
    if worth < 1:
        return None, None
    lower, upper = _ranks(p, worth, tail)
    low = high = None
    # The same shares of the values, outward, where they are worth fewer than they are.
    if lower >= 1:
        low = float(ascending[(lower - 1) * n // worth])
    if upper <= worth:
        high = float(ascending[-(-upper * n // worth) - 1])
    return low, high


# Modified z beyond which a value is flagged [Iglewicz & Hoaglin 1993].
OUTLIER_Z = 3.5


def outliers(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Flags of the values whose modified z, by the median absolute deviation, exceeds 3.5. Flagged, never dropped.

    Where more than half of the values are equal the mean absolute deviation stands in; where all are, none is flagged.

    >>> outliers(np.array([10.0, 11.0, 9.0, 10.5, 9.5, 40.0])).tolist()
    [False, False, False, False, False, True]
    """
    if not len(values):
        return np.zeros(0, dtype=np.bool_)
    away = np.abs(values - np.median(values))
    # What makes either deviation the standard deviation, were the values normal.
    scale = float(np.median(away)) / 0.6745 or float(away.mean()) * 1.253314
    return (away > OUTLIER_Z * scale) & (scale > 0)
