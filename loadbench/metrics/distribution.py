"""A metric over many requests: n, mean, percentiles by nearest rank, and the 95 % interval of each percentile."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadbench import stats
from loadbench.figures import PERCENTILES
from loadbench.metrics import gaps
from loadbench.metrics.request import Flags
from loadbench.record import Results
from loadbench.store.histogram import Histogram

NS_PER_MS = 1e6
US_PER_MS = 1e3


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
    values: NDArray[np.float64], per_unit: float = NS_PER_MS, *, saturated: bool = False
) -> dict[str, Any]:
    """The metric object of summary.json: {"n", "mean", "p50" … "p999", "max", "ci95": {"p50": [lo, hi] | null, …}}.

    Requests of one run resemble their neighbours (they share a queue, a cache, a machine): where that is clear, the
    intervals rest on as many requests as those would be worth if they did not (`stats.percentile_worth`). Where it
    is not clear, "ci95_in_doubt" has the percentiles whose interval may be too narrow. Of too few requests for both
    ends of an interval one may exist; the other is None.

    Args:
        values: One value a request, in the order of start; NaN (undefined) is left out and not counted in n.
        per_unit: Divides each value: 1e6 turns ns into ms.
        saturated: Requests depend so strongly that no interval can be trusted (`dependence`): there is none.
    """
    known = values[~np.isnan(values)]
    ascending = np.sort(known) / per_unit
    mean = float(ascending.mean()) if len(ascending) else None
    if saturated:
        return _object(ascending, mean, dict.fromkeys(PERCENTILES, stats.Worth(0)))
    clear = stats.is_dependent(known)
    worth = {name: stats.percentile_worth(known, p, clear=clear) for name, p in PERCENTILES.items()}
    bounds = None
    if np.isfinite(known).all():
        bounds = stats.mean_interval(known / per_unit)
    return _object(ascending, mean, worth, of_mean=bounds)


def of_gaps(results: Results, chosen: Flags, ascending: NDArray[np.int64]) -> dict[str, Any]:
    """The metric object of the inter-token latencies of the chosen requests, in ms. Its n counts gaps.

    Its intervals know that the gaps of one request resemble each other: they rest on as many gaps as those of
    different requests would be worth (`stats.independent_gaps`). Each percentile is over all gaps.

    Args:
        ascending: Those gaps, sorted (`gaps.ascending`).
    """
    sizes = gaps.sizes(results)
    with_gaps = chosen & (sizes > 0)
    worth = {}
    for name, p in PERCENTILES.items():
        at = stats.percentile(ascending, p)
        if at is not None:
            below, at_most = (gaps.sums(results, partial(of, at)) for of in (np.greater, np.greater_equal))
            gaps_worth = stats.independent_gaps(below[with_gaps], at_most[with_gaps], sizes[with_gaps])
            worth[name] = stats.Worth(gaps_worth)
    mean = float(ascending.sum(dtype=np.int64)) / len(ascending) / US_PER_MS if len(ascending) else None
    totals = gaps.sums(results, np.asarray)[with_gaps] / US_PER_MS
    return _object(ascending, mean, worth, US_PER_MS, stats.ratio_interval(totals, sizes[with_gaps]))


def without_intervals(ascending: NDArray[np.float64], per_unit: float = 1.0) -> dict[str, Any]:
    """The metric object of sorted values whose dependence nobody knows: no percentile has an interval."""
    mean = float(ascending.mean()) / per_unit if len(ascending) else None
    return _object(ascending, mean, dict.fromkeys(PERCENTILES, stats.Worth(0)), per_unit)


def of_histogram(histogram: Histogram) -> dict[str, Any]:
    """The metric object in ms of values that were kept in a histogram alone; it has no intervals."""
    if not histogram.count:
        return _object(np.zeros(0), None, {})
    found: dict[str, Any] = {"n": int(histogram.count), "mean": _ms(histogram.mean), "max": _ms(histogram.max)}
    found |= {name: _ms(histogram.percentile(p)) for name, p in PERCENTILES.items()}
    return found | {"ci95": dict.fromkeys(("mean", *PERCENTILES))}


def of_facts(known: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The metric object in ms from the figures {"n", "p50", "p99", "p999", "max"} in us that a level's facts carry."""
    if not known or not known.get("n"):
        return None
    found: dict[str, Any] = {name: _ms(known.get(name)) for name in ("mean", *PERCENTILES, "max")}
    return found | {"n": int(known["n"]), "ci95": dict.fromkeys(("mean", *PERCENTILES))}


def _object(
    ascending: NDArray[Any],
    mean: float | None,
    worth: Mapping[str, stats.Worth],
    per_unit: float = 1.0,
    of_mean: stats.Bounds | None = None,
) -> dict[str, Any]:
    def shown(value: float | None) -> float | None:
        return None if value is None else rounded(value / per_unit)

    found: dict[str, Any] = {"n": len(ascending), "mean": rounded(mean)}
    found |= {name: shown(stats.percentile(ascending, p)) for name, p in PERCENTILES.items()}
    found["max"] = shown(float(ascending[-1])) if len(ascending) else None
    found["ci95"] = {"mean": [rounded(end) for end in of_mean] if of_mean else None}
    for name, p in PERCENTILES.items():
        low, high = stats.ends(ascending, p, worth[name].requests if name in worth else 0)
        found["ci95"][name] = None if low is None and high is None else [shown(low), shown(high)]
    doubtful = [name for name, one in worth.items() if one.doubtful and found["ci95"][name] is not None]
    if doubtful:
        found["ci95_in_doubt"] = doubtful
    return found


def _ms(us: float | None) -> float | None:
    return None if us is None else rounded(us / US_PER_MS)
