"""How sure a figure is: intervals of percentiles, means, shares, rates and ratios (METRICS.md §4, §5).

All intervals are two-sided, at 95 % unless a `tail` says otherwise. A bound that does not exist is None, never a guess.
docs/statistics.md has each formula in words, its source, and the simulation that checks it.

estimates.py  quantiles of the normal and Student's distribution; estimates, their differences; percentiles by nearest
              rank, their order-statistic intervals; outliers
blocks.py     requests that depend on each other, gaps and runs that come in clusters
shares.py     Wilson, Newcombe, McNemar; the load at which a share crosses what is wanted
scaling.py    what more load buys: efficiency, knees, whether a server answers one by one
usl.py        the Universal Scalability Law, fitted
"""

from loadbench.stats.blocks import (
    SLICES,
    Worth,
    block_length,
    independent_flags,
    independent_gaps,
    independent_in_runs,
    independent_requests,
    is_dependent,
    mean_interval,
    mean_variance,
    neighbours,
    percentile_interval,
    percentile_worth,
    rate_interval,
    rate_variance,
    ratio_interval,
    share_interval,
)
from loadbench.stats.estimates import (
    OUTLIER_Z,
    TAIL,
    Bounds,
    Estimate,
    Z,
    difference,
    ends,
    interval,
    interval_ranks,
    mover,
    needed,
    needed_within,
    normal,
    one_sample,
    outliers,
    percentile,
    rank,
    student,
)
from loadbench.stats.shares import Crossing, crossing, flawless, mcnemar, newcombe, newcombe_paired, wilson

__all__ = [
    "OUTLIER_Z",
    "SLICES",
    "TAIL",
    "Bounds",
    "Crossing",
    "Estimate",
    "Worth",
    "Z",
    "block_length",
    "crossing",
    "difference",
    "ends",
    "flawless",
    "independent_flags",
    "independent_gaps",
    "independent_in_runs",
    "independent_requests",
    "interval",
    "interval_ranks",
    "is_dependent",
    "mcnemar",
    "mean_interval",
    "mean_variance",
    "mover",
    "needed",
    "needed_within",
    "neighbours",
    "newcombe",
    "newcombe_paired",
    "normal",
    "one_sample",
    "outliers",
    "percentile",
    "percentile_interval",
    "percentile_worth",
    "rank",
    "rate_interval",
    "rate_variance",
    "ratio_interval",
    "share_interval",
    "student",
    "wilson",
]
