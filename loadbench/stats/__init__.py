"""How sure a figure is: intervals of percentiles, means, shares, rates and ratios (METRICS.md §4, §5).

All intervals are two-sided, at 95 % unless a `tail` says otherwise. A bound that does not exist is None, never a guess.
docs/statistics.md has each formula in words, its source, and the simulation that checks it.

quantiles.py  of the normal and Student's distribution
ranks.py      percentiles by nearest rank, and their order-statistic intervals
blocks.py     requests that depend on each other: blocks over the order of start
clusters.py   gaps that resemble those of the same request, shares of several runs
shares.py     Wilson, Newcombe, McNemar
logistic.py   the load at which a share crosses what is wanted
ratios.py     the ratio of two estimates, each with its own doubt
outliers.py   the modified z
"""

from loadbench.stats.blocks import (
    SLICES,
    Worth,
    block_length,
    independent_flags,
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
from loadbench.stats.clusters import independent_gaps, independent_in_runs
from loadbench.stats.logistic import Crossing, crossing
from loadbench.stats.outliers import OUTLIER_Z, outliers
from loadbench.stats.quantiles import TAIL, Z, normal, student
from loadbench.stats.ranks import ends, interval, interval_ranks, needed, needed_within, percentile, rank
from loadbench.stats.ratios import Bounds, Estimate, difference, mover, one_sample
from loadbench.stats.shares import flawless, mcnemar, newcombe, newcombe_paired, wilson

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
