"""What comes in clusters: gaps between tokens, which resemble those of their request, and requests of several runs.

Of gaps requests are what is counted, and these resemble their neighbours, as everywhere else.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from loadbench.stats.blocks import mean_variance, reach, widening
from loadbench.stats.quantiles import TAIL
from loadbench.stats.ranks import needed


def independent_gaps(
    below: NDArray[np.int64], at_most: NDArray[np.int64], sizes: NDArray[np.int64], tail: float = TAIL
) -> int:
    """How many independent values the gaps of some requests are worth around one percentile.

    Gaps of one request resemble each other; treated as independent their 95 % interval covers 55 % (METRICS.md §5).
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
