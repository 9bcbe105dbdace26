"""Gaps between tokens: those of one request resemble each other, so that requests are what is counted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from loadbench.intervals.quantiles import TAIL, normal, student
from loadbench.intervals.ranks import needed


def independent_gaps(
    below: NDArray[np.int64], at_most: NDArray[np.int64], sizes: NDArray[np.int64], tail: float = TAIL
) -> int:
    """How many independent values the gaps of some requests are worth around one percentile.

    Gaps of one request resemble each other; treated as independent their 95 % interval covers 55 % (METRICS.md §5).
    The variance of the share of gaps on one side of the percentile is taken between requests, as for a cluster sample:
    once with the gaps that equal it and once without, for where many are equal (a server that writes by a clock) one
    of the two shares may be 0 or 1 and vary not at all.

    Args:
        below: Gaps below the percentile, per request.
        at_most: Gaps at or below the percentile, per request.
        sizes: Gaps per request, all > 0.
        tail: What each side of the interval may miss.

    Returns:
        n divided by the design effect (never below 1) and by Student's widening for few requests; 0 below 6 requests.
    Source: Woodruff 1952; Korn & Graubard 1998 (effective sample size in an exact binomial interval).
    """
    requests, n = len(sizes), int(sizes.sum())
    if requests < needed(0.5):
        return 0
    effect = max(1.0, _design_effect(below, sizes), _design_effect(at_most, sizes))
    return int(n / effect / (student(requests - 1, tail) / normal(tail)) ** 2)


def _design_effect(hits: NDArray[np.int64], sizes: NDArray[np.int64]) -> float:
    """Variance of a share over clusters, over that of as many independent trials; 1 where all or none are hits."""
    clusters, n = len(sizes), int(sizes.sum())
    share = float(hits.sum()) / n
    between = float(np.square(hits - share * sizes).sum()) * clusters / (clusters - 1) / n**2
    alone = share * (1 - share) / n
    return between / alone if alone > 0 else 1.0
