"""A metric over many requests: its distribution with intervals, its spectrum, and the gaps of all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from msgspec import UNSET, UnsetType

from loadbench import stats
from loadbench.figures import PERCENTILES
from loadbench.store.histogram import Histogram
from loadbench.store.record import Counts, Flags, Reals, Results
from loadbench.store.schema import Lag
from loadbench.store.summary import Distribution, Interval, Spectrum

BLOCK = 1_000_000
"""Gaps that are worked on at once; keeps what a sum needs at 20 MB however long the run."""


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


def rounded(value: float | None, digits: int = 3) -> float | None:
    """A plain float for JSON; None for None, NaN and infinities.

    >>> rounded(1.23456), rounded(float("nan")), rounded(None)
    (1.235, None, None)
    """
    return round(float(value), digits) if value is not None and np.isfinite(value) else None


def significant(value: float | None, digits: int = 6) -> float | None:
    """A plain float of so many significant digits, for what may be small: one answer in 20 minutes is 0.000833333/s.

    >>> significant(1 / 1200), significant(48_000.1234), significant(0.0), significant(float("inf"))
    (0.000833333, 48000.1, 0.0, None)
    """
    return float(f"{value:.{digits}g}") if value is not None and np.isfinite(value) else None


def distribution(
    values: Reals, per_unit: float = NS_PER_MS, *, saturated: bool = False, total: int | UnsetType | None = UNSET
) -> Distribution:
    """A metric over requests.

    Requests of one run resemble their neighbours (they share a queue, a cache, a machine): where that is clear, the
    intervals rest on as many requests as those would be worth if they did not (`stats.percentile_worth`). Where it is
    not clear, `ci95_in_doubt` has the percentiles whose interval may be too narrow. Of too few requests for both ends
    of an interval one may exist; the other is None.

    Args:
        values: One value a request, in the order of start; NaN (undefined) is left out and not counted in n.
        per_unit: Divides each value: 1e6 turns ns into ms.
        saturated: Requests depend so strongly that no interval can be trusted (`dependence`): there is none.
        total: The sum, of what is counted.
    """
    known = values[~np.isnan(values)]
    ascending = np.sort(known) / per_unit
    mean = float(ascending.mean()) if len(ascending) else None
    if saturated:
        return _distribution(ascending, mean, {}, total=total)
    clear = stats.is_dependent(known)
    worth = {name: stats.percentile_worth(known, p, clear=clear) for name, p in PERCENTILES.items()}
    of_mean = None
    if np.isfinite(known).all():
        of_mean = stats.mean_interval(known / per_unit)
    return _distribution(ascending, mean, worth, of_mean=of_mean, total=total)


def of_gaps(results: Results, chosen: Flags, ascending: Counts) -> Distribution:
    """The inter-token latencies of the chosen requests, in ms. Its n counts gaps.

    Its intervals know that the gaps of one request resemble each other: they rest on as many gaps as those of
    different requests would be worth (`stats.independent_gaps`). Each percentile is over all gaps.

    Args:
        ascending: Those gaps, sorted (`ascending_gaps`).
    """
    sizes = gap_sizes(results)
    with_gaps = chosen & (sizes > 0)
    worth = {}
    for name, p in PERCENTILES.items():
        at = stats.percentile(ascending, p)
        if at is not None:
            below = gap_sums(results, partial(np.greater, at))[with_gaps]
            at_most = gap_sums(results, partial(np.greater_equal, at))[with_gaps]
            worth[name] = stats.Worth(stats.independent_gaps(below, at_most, sizes[with_gaps]))
    mean = None
    if len(ascending):
        mean = float(ascending.sum(dtype=np.int64)) / len(ascending) / US_PER_MS
    totals = gap_sums(results, np.asarray)[with_gaps] / US_PER_MS
    of_mean = stats.ratio_interval(totals, sizes[with_gaps])
    return _distribution(ascending, mean, worth, per_unit=US_PER_MS, of_mean=of_mean)


def without_intervals(ascending: Reals, per_unit: float = 1.0) -> Distribution:
    """Sorted values whose dependence nobody knows: no percentile has an interval."""
    mean = float(ascending.mean()) / per_unit if len(ascending) else None
    return _distribution(ascending, mean, {}, per_unit=per_unit)


def of_histogram(histogram: Histogram) -> Distribution:
    """In ms, of values that were kept in a histogram alone; it has no intervals."""
    return Distribution(
        n=int(histogram.count),
        mean=_ms(histogram.mean),
        p50=_ms(histogram.percentile(0.5)),
        p90=_ms(histogram.percentile(0.9)),
        p95=_ms(histogram.percentile(0.95)),
        p99=_ms(histogram.percentile(0.99)),
        p999=_ms(histogram.percentile(0.999)),
        max=_ms(histogram.max),
        ci95=dict.fromkeys(("mean", *PERCENTILES)),
    )


def of_facts(known: Lag | None) -> Distribution | None:
    """In ms, from the figures in us that a level's facts carry."""
    if known is None or not known.n:
        return None
    return Distribution(
        n=known.n,
        mean=_ms(known.mean),
        p50=_ms(known.p50),
        p90=_ms(known.p90),
        p95=_ms(known.p95),
        p99=_ms(known.p99),
        p999=_ms(known.p999),
        max=_ms(known.max),
        ci95=dict.fromkeys(("mean", *PERCENTILES)),
    )


def _distribution(
    ascending: Reals | Counts,
    mean: float | None,
    worth: Mapping[str, stats.Worth],
    *,
    per_unit: float = 1.0,
    of_mean: stats.Bounds | None = None,
    total: int | UnsetType | None = UNSET,
) -> Distribution:
    """
    Args:
        worth: By percentile, how many independent values these are worth; none where it is not there.
    """

    def shown(value: float | None) -> float | None:
        return None if value is None else rounded(value / per_unit)

    ci95: dict[str, Interval | None] = {"mean": [rounded(end) for end in of_mean] if of_mean else None}
    doubtful = []
    for name, p in PERCENTILES.items():
        own = worth.get(name, stats.Worth(0))
        low, high = stats.ends(ascending, p, own.requests)
        known = low is not None or high is not None
        ci95[name] = [shown(low), shown(high)] if known else None
        if known and own.doubtful:
            doubtful.append(name)
    return Distribution(
        n=len(ascending),
        mean=rounded(mean),
        **{name: shown(stats.percentile(ascending, p)) for name, p in PERCENTILES.items()},
        max=shown(float(ascending[-1])) if len(ascending) else None,
        ci95=ci95,
        ci95_in_doubt=doubtful or UNSET,
        total=total,
    )


def _ms(us: float | None) -> float | None:
    return None if us is None else rounded(us / US_PER_MS)


STEPS_PER_DOUBLING = 4
"""Points between one in 2 and one in 4: they lie evenly on the axis, and a million requests have 84."""

NAMED = (10, 20, 100, 1000)
"""p90, p95, p99, p99.9."""


def spectrum(ascending: Reals | Counts, per_unit: float = NS_PER_MS) -> Spectrum | None:
    """Percentiles up to the last request, on HdrHistogram's axis: one in how many took longer; None of no values.

    All but one in x requests took at most so long, x = 1 / (1 - p). Values are measured ones, by nearest rank. The last
    point is the maximum, at one in n.

    Args:
        ascending: Values of which none is NaN, sorted.
        per_unit: Divides each value: 1e6 turns ns into ms.

    >>> spectrum(np.array([1e6, 2e6, 3e6, 9e6])).ms[-1]
    9.0
    """
    n = len(ascending)
    if not n:
        return None
    at = _places(n)
    ranks = [min(max(math.ceil(round((1 - 1 / x) * n, 9)), 1), n) for x in at]
    values = [float(ascending[rank - 1]) / per_unit for rank in ranks] + [float(ascending[-1]) / per_unit]
    return Spectrum(one_in=[*(_short(x) for x in at), float(n)], ms=[rounded(value) or 0.0 for value in values])


def spectrum_of_values(values: Reals) -> Spectrum | None:
    """Of durations in ns, one a request in any order; NaN (undefined) is left out."""
    return spectrum(np.sort(values[~np.isnan(values)]))


def spectrum_of_histogram(histogram: Histogram) -> Spectrum | None:
    """Of what was kept in a histogram alone."""
    n = histogram.count
    if not n:
        return None
    at = _places(n)
    found = [histogram.percentile(1 - 1 / x) for x in at] + [histogram.max]
    return Spectrum(one_in=[*(_short(x) for x in at), float(n)], ms=[_ms(us) or 0.0 for us in found])


def _places(n: int) -> list[float]:
    """Places on the axis from 1 on, below n: evenly, and those of the percentiles that have names."""
    steps = math.ceil(STEPS_PER_DOUBLING * math.log2(n)) if n > 1 else 0
    even = (2.0 ** (k / STEPS_PER_DOUBLING) for k in range(steps))
    return sorted({*even, *(float(x) for x in NAMED if x < n)})


def _short(x: float) -> float:
    return float(f"{x:.6g}")
