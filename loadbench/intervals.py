"""How sure a figure is: percentiles by nearest rank, their order-statistic intervals, Wilson's for shares, outliers.

All intervals are two-sided at 95 % (METRICS.md §4, §5). A bound that does not exist is None, never a guess.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

TAIL = 0.025
"""What each side of an interval may miss."""
Z = 1.959963984540054
"""The normal quantile of 1 - TAIL."""
OUTLIER_Z = 3.5
"""Modified z beyond which a value is flagged [Iglewicz & Hoaglin 1993]."""


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


def needed(p: float) -> int:
    """The smallest n for which the percentile's interval exists.

    >>> [needed(p) for p in (0.5, 0.9, 0.95, 0.99, 0.999)]
    [6, 36, 72, 368, 3688]
    """
    rarer = min(p, 1 - p)
    return math.ceil(math.log(TAIL) / math.log1p(-rarer))


@lru_cache(maxsize=4096)
def interval_ranks(p: float, n: int) -> tuple[int, int] | None:
    """Ranks (lower, upper), 1-based, of the two values that enclose the p-quantile with 95 % confidence.

    Exact binomial, at most 2.5 % missed on each side; None where either rank lies outside 1..n.

    Source: Hahn & Meeker, Statistical Intervals: P(lower <= rank < upper) = B(upper-1; n, p) - B(lower-1; n, p).

    >>> interval_ranks(0.5, 6), interval_ranks(0.5, 5), interval_ranks(0.99, 367), interval_ranks(0.99, 368)
    ((1, 6), None, None, (360, 368))
    """
    if n < 1:
        return None
    # 12 standard deviations to each side hold all but 1e-30 of the mass, so that n = 20 million costs 50,000 terms.
    reach = 12 * math.sqrt(n * p * (1 - p)) + 30
    first, last = max(0, math.floor(n * p - reach)), min(n, math.ceil(n * p + reach))
    successes = np.arange(first, last, dtype=np.float64)
    ratios = np.log((n - successes) / (successes + 1)) + math.log(p) - math.log1p(-p)
    log_mass = np.concatenate(([0.0], np.cumsum(ratios)))
    mass = np.exp(log_mass - log_mass.max())
    cumulative = np.cumsum(mass)
    cumulative /= cumulative[-1]
    lower = first + int(np.searchsorted(cumulative, TAIL, side="right"))
    upper = first + int(np.searchsorted(cumulative, 1 - TAIL, side="left")) + 1
    return (lower, upper) if lower >= 1 and upper <= n else None


def interval(ascending: NDArray[np.number], p: float, independent: int | None = None) -> tuple[float, float] | None:
    """The 95 % interval of a percentile: two of the sorted values. Right for independent values, else too narrow.

    Args:
        ascending: The values, sorted.
        p: The percentile as a fraction.
        independent: How many independent values they are worth, where fewer than there are (`independent_gaps`).
    """
    n = len(ascending)
    worth = n if independent is None else min(independent, n)
    ranks = interval_ranks(p, worth)
    if ranks is None:
        return None
    lower, upper = ranks
    if worth < n:  # the same shares of the values, outward
        lower, upper = (lower - 1) * n // worth + 1, -(-upper * n // worth)
    return float(ascending[lower - 1]), float(ascending[upper - 1])


def independent_gaps(below: NDArray[np.int64], at_most: NDArray[np.int64], sizes: NDArray[np.int64]) -> int:
    """How many independent values the gaps of some requests are worth around one percentile.

    Gaps of one request resemble each other; treated as independent their 95 % interval covers 55 % (METRICS.md §5).
    The variance of the share of gaps on one side of the percentile is taken between requests, as for a cluster sample:
    once with the gaps that equal it and once without, for where many are equal (a server that writes by a clock) one
    of the two shares may be 0 or 1 and vary not at all.

    Args:
        below: Gaps below the percentile, per request.
        at_most: Gaps at or below the percentile, per request.
        sizes: Gaps per request, all > 0.

    Returns:
        n divided by the design effect (never below 1) and by Student's widening for few requests; 0 below 6 requests.
    Source: Woodruff 1952; Korn & Graubard 1998 (effective sample size in an exact binomial interval).
    """
    requests, n = len(sizes), int(sizes.sum())
    if requests < needed(0.5):
        return 0
    effect = max(1.0, _design_effect(below, sizes), _design_effect(at_most, sizes))
    return int(n / effect / (_student(requests - 1) / Z) ** 2)


def _design_effect(hits: NDArray[np.int64], sizes: NDArray[np.int64]) -> float:
    """Variance of a share over clusters, over that of as many independent trials; 1 where all or none are hits."""
    clusters, n = len(sizes), int(sizes.sum())
    share = float(hits.sum()) / n
    between = float(np.square(hits - share * sizes).sum()) * clusters / (clusters - 1) / n**2
    alone = share * (1 - share) / n
    return between / alone if alone > 0 else 1.0


def _student(freedom: int) -> float:
    """Student's t quantile of 1 - TAIL, within 1 % from 5 degrees of freedom on (Cornish-Fisher)."""
    return Z + (Z**3 + Z) / (4 * freedom) + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * freedom**2)


def wilson(hits: int, n: int) -> tuple[float, float] | None:
    """Wilson's 95 % interval of a share; None without trials.

    >>> [round(bound, 4) for bound in wilson(0, 40)]
    [0.0, 0.0876]
    """
    if n < 1:
        return None
    share = hits / n
    middle = share + Z**2 / (2 * n)
    half = Z * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    low, high = (middle - half) / (1 + Z**2 / n), (middle + half) / (1 + Z**2 / n)
    return 0.0 if hits == 0 else low, 1.0 if hits == n else high


def outliers(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Flags of the values whose modified z, by the median absolute deviation, exceeds 3.5. Flagged, never dropped.

    Where more than half of the values are equal the mean absolute deviation stands in; where all are, none is flagged.

    >>> outliers(np.array([10.0, 11.0, 9.0, 10.5, 9.5, 40.0])).tolist()
    [False, False, False, False, False, True]
    """
    if not len(values):
        return np.zeros(0, dtype=np.bool_)
    away = np.abs(values - np.median(values))
    scale = float(np.median(away)) / 0.6745 or float(away.mean()) * 1.253314
    return away > OUTLIER_Z * scale if scale else np.zeros(len(values), dtype=np.bool_)
