"""A metric over many requests: its distribution with intervals, its spectrum; the gaps of all of them, and stalls."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from msgspec import UNSET, UnsetType

from loadbench.figures import PERCENTILES
from loadbench.metrics.request import Requests
from loadbench.stats import Bounds, ends, percentile
from loadbench.stats.blocks import (
    Worth,
    independent_gaps,
    is_dependent,
    mean_interval,
    percentile_worth,
    ratio_interval,
)
from loadbench.store.histogram import Histogram
from loadbench.store.record import Counts, Flags, Reals, Results
from loadbench.store.schema import Lag
from loadbench.store.summary import Distribution, Interval, Spectrum, Stall, Stalls, rounded, significant

# Gaps that are worked on at once; keeps what a sum needs at 20 MB however long the run.
BLOCK = 1_000_000
NS_PER_MS = 1e6
US_PER_MS = 1e3


def gap_sizes(results: Results) -> Counts:
    """Number of gaps of each request."""
    return np.diff(results.gap_offsets)


def ascending_gaps(results: Results, chosen: Flags) -> Counts:
    """The gaps of the chosen requests in us, sorted."""
    picked = results.gaps_us.copy() if chosen.all() else results.gaps_us[np.repeat(chosen, gap_sizes(results))]
    picked.sort()
    return picked


def gap_sums(results: Results, of: Callable[[Counts], Counts | Flags]) -> Counts:
    """Per request, the sum of a function of its gaps; 0 where it has none.

    Args:
        of: From gaps in us to as many whole numbers or flags.
    """
    offsets = results.gap_offsets
    found = np.zeros(len(results), dtype=np.int64)
    row = 0
    while row < len(results):
        beyond = max(row + 1, int(np.searchsorted(offsets, offsets[row] + BLOCK, side="right")) - 1)
        values = of(results.gaps_us[offsets[row] : offsets[beyond]])
        running = np.zeros(len(values) + 1, dtype=np.int64)
        np.cumsum(values, out=running[1:])
        found[row:beyond] = np.diff(running[offsets[row : beyond + 1] - offsets[row]])
        row = beyond
    return found


def distribution(
    values: Reals, per_unit: float = NS_PER_MS, *, saturated: bool = False, total: int | UnsetType | None = UNSET
) -> Distribution:
    """A metric over requests.

    Requests of one run resemble their neighbours (they share a queue, a cache, a machine): where that is clear, the
    intervals rest on as many requests as those would be worth if they did not (`blocks.percentile_worth`). Where
    it is not clear, `ci95_in_doubt` has the percentiles whose interval may be too narrow. Of too few requests for both
    ends of an interval one may exist; the other is None.

    Args:
        values: One value a request, in the order of start; NaN (undefined) is left out and not counted in n.
        per_unit: Divides each value: 1e6 turns ns into ms.
        saturated: Requests depend so strongly that no interval can be trusted (`window.dependence`): there is none.
        total: The sum, of what is counted.
    """
    known = values[~np.isnan(values)]
    ascending = np.sort(known) / per_unit
    mean = float(ascending.mean()) if len(ascending) else None
    if saturated:
        return _distribution(ascending, mean, {}, total=total)
    clear = is_dependent(known)
    worth = {name: percentile_worth(known, p, clear=clear) for name, p in PERCENTILES.items()}
    of_mean = None
    if np.isfinite(known).all():
        of_mean = mean_interval(known / per_unit)
    return _distribution(ascending, mean, worth, of_mean=of_mean, total=total)


def of_gaps(results: Results, chosen: Flags, ascending: Counts) -> Distribution:
    """The inter-token latencies of the chosen requests, in ms. Its n counts gaps.

    Its intervals know that the gaps of one request resemble each other: they rest on as many gaps as those of
    different requests would be worth (`blocks.independent_gaps`). Each percentile is over all gaps.

    Args:
        ascending: Those gaps, sorted (`ascending_gaps`).
    """
    sizes = gap_sizes(results)
    with_gaps = chosen & (sizes > 0)
    worth = {}
    for name, p in PERCENTILES.items():
        at = percentile(ascending, p)
        if at is not None:
            below = gap_sums(results, partial(np.greater, at))[with_gaps]
            at_most = gap_sums(results, partial(np.greater_equal, at))[with_gaps]
            worth[name] = Worth(independent_gaps(below, at_most, sizes[with_gaps]))
    mean = None
    if len(ascending):
        mean = float(ascending.sum(dtype=np.int64)) / len(ascending) / US_PER_MS
    totals = gap_sums(results, np.asarray)[with_gaps] / US_PER_MS
    of_mean = ratio_interval(totals, sizes[with_gaps])
    return _distribution(ascending, mean, worth, per_unit=US_PER_MS, of_mean=of_mean)


def without_intervals(ascending: Reals, per_unit: float = 1.0) -> Distribution:
    """Sorted values whose dependence cannot be computed: no percentile has an interval."""
    mean = float(ascending.mean()) / per_unit if len(ascending) else None
    return _distribution(ascending, mean, {}, per_unit=per_unit)


def _distribution(
    ascending: Reals | Counts,
    mean: float | None,
    worth: Mapping[str, Worth],
    *,
    per_unit: float = 1.0,
    of_mean: Bounds | None = None,
    total: int | UnsetType | None = UNSET,
) -> Distribution:
    """
    Args:
        worth: By percentile, how many independent values these are worth; a percentile without one has no interval.
    """

    def shown(value: float | None) -> float | None:
        return None if value is None else rounded(value / per_unit)

    ci95: dict[str, Interval | None] = {"mean": [rounded(end) for end in of_mean] if of_mean else None}
    doubtful = []
    for name, p in PERCENTILES.items():
        own = worth.get(name, Worth(0))
        low, high = ends(ascending, p, own.requests)
        known = low is not None or high is not None
        ci95[name] = [shown(low), shown(high)] if known else None
        if known and own.doubtful:
            doubtful.append(name)
    return Distribution(
        n=len(ascending),
        mean=rounded(mean),
        **{name: shown(percentile(ascending, p)) for name, p in PERCENTILES.items()},
        max=shown(float(ascending[-1])) if len(ascending) else None,
        ci95=ci95,
        ci95_in_doubt=doubtful or UNSET,
        total=total,
    )


def of_histogram(histogram: Histogram) -> Distribution:
    """In ms, of values that were kept in a histogram alone; it has no intervals."""
    us: dict[str, float | None] = {name: histogram.percentile(p) for name, p in PERCENTILES.items()}
    return _of_us(int(histogram.count), {"mean": histogram.mean, **us, "max": histogram.max})


def of_facts(lag: Lag | None) -> Distribution | None:
    """In ms, from the figures in us that a level's facts carry."""
    if lag is None or not lag.n:
        return None
    return _of_us(lag.n, {name: getattr(lag, name) for name in ("mean", *PERCENTILES, "max")})


def _of_us(n: int, us: Mapping[str, float | None]) -> Distribution:
    ms = {name: None if value is None else rounded(value / US_PER_MS) for name, value in us.items()}
    return Distribution(n=n, **ms, ci95=dict.fromkeys(("mean", *PERCENTILES)), ci95_in_doubt=UNSET, total=UNSET)


# -- percentiles up to the last request

# Points between one in 2 and one in 4: they lie evenly on the axis, and a million requests have 84.
STEPS_PER_DOUBLING = 4
# p90, p95, p99, p99.9.
NAMED = (10, 20, 100, 1000)


def spectrum(values: Reals | Counts, per_unit: float = NS_PER_MS) -> Spectrum | None:
    """Percentiles up to the last request, on HdrHistogram's axis: one in how many took longer; None of no values.

    All but one in x requests took at most so long, x = 1 / (1 - p). Values are measured ones, by nearest rank. The last
    point is the maximum, at one in n.

    Args:
        values: In any order; NaN (undefined) is left out.
        per_unit: Divides each value: 1e6 turns ns into ms.

    >>> spectrum(np.array([9e6, 1e6, 2e6, 3e6])).ms[-1]
    9.0
    """
    ascending = np.sort(values[~np.isnan(values)])
    n = len(ascending)
    if not n:
        return None
    at = _places(n)
    ranks = [min(max(math.ceil(round((1 - 1 / x) * n, 9)), 1), n) for x in at]
    return _spectrum(
        n, at, [*(float(ascending[rank - 1]) / per_unit for rank in ranks), float(ascending[-1]) / per_unit]
    )


def spectrum_of_histogram(histogram: Histogram) -> Spectrum | None:
    """Of what was kept in a histogram alone."""
    at = _places(histogram.count)
    us = [*(histogram.percentile(1 - 1 / x) for x in at), histogram.max]
    return _spectrum(histogram.count, at, [(value or 0) / US_PER_MS for value in us]) if histogram.count else None


def _spectrum(n: int, at: list[float], ms: list[float]) -> Spectrum:
    one_in = [significant(x) or 0.0 for x in at]
    return Spectrum(one_in=[*one_in, float(n)], ms=[rounded(value) or 0.0 for value in ms])


def _places(n: int) -> list[float]:
    """Places on the axis from 1 on, below n: evenly, and those of the percentiles that have names."""
    steps = math.ceil(STEPS_PER_DOUBLING * math.log2(n)) if n > 1 else 0
    even = (2.0 ** (k / STEPS_PER_DOUBLING) for k in range(steps))
    return sorted({*even, *(float(x) for x in NAMED if x < n)})


# -- stalls: gaps far longer than the level's usual one

# Times the median gap of the level.
STALL_THRESHOLD = 10.0
# Stalls that are listed with the time when they ended.
MOST_PLACES = 12
# No gap below 10 ms is one: nobody sees it, and where events come in bursts the median gap is next to nothing.
SHORTEST_US = 10_000


def stalls(results: Results, requests: Requests, ascending: Counts, threshold: float) -> Stalls | None:
    """How many stalls there are, and the longest ones; None where there are no gaps.

    Of a level without one all but how many there are is None.

    Args:
        ascending: The gaps of the requests that count, in us, sorted.
        threshold: Times the median gap.
    """
    if not len(ascending):
        return None
    limit_us = max(threshold * float(ascending[(len(ascending) - 1) // 2]), SHORTEST_US)
    threshold_ms = rounded(limit_us / US_PER_MS)
    places = np.flatnonzero(results.gaps_us > limit_us)
    rows = np.searchsorted(results.gap_offsets, places, side="right") - 1
    counted = requests.population[rows]
    places, rows = places[counted], rows[counted]
    if not len(places):
        return Stalls(n=0, threshold_ms=threshold_ms, requests=0)
    # In a timeline the longest ones stand beside what else happened then.
    order = np.argsort(-results.gaps_us[places], kind="stable")[:MOST_PLACES]
    longest = []
    for row, place in zip(rows[order].tolist(), places[order].tolist(), strict=True):
        before_us = int(results.gaps_us[results.gap_offsets[row] : place + 1].sum())
        ended_s = (float(results.first_token[row]) / NS_PER_MS + before_us / US_PER_MS) / 1000
        ms = rounded(int(results.gaps_us[place]) / US_PER_MS)
        longest.append(Stall(at_s=rounded(ended_s), ms=ms, request=int(results.request[row])))
    return Stalls(
        n=len(places),
        threshold_ms=threshold_ms,
        requests=len(np.unique(rows)),
        longest_ms=longest[0].ms,
        longest_request=longest[0].request,
        longest_prompt=results.prompt[int(rows[order[0]])],
        at_s=longest[0].at_s,
        longest=longest,
    )


def stalls_of_histogram(histogram: Histogram, threshold: float) -> Stalls | None:
    """Of gaps that were kept in a histogram alone: how many stalls and how long, not whose."""
    median = histogram.percentile(0.5)
    if median is None:
        return None
    limit_us = max(threshold * float(median), SHORTEST_US)
    n = histogram.above(int(limit_us))
    longest_ms = rounded((histogram.max or 0) / US_PER_MS) if n else None
    return Stalls(n=n, threshold_ms=rounded(limit_us / US_PER_MS), longest_ms=longest_ms)
