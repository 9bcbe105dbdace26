"""A level's percentiles from the median to the last request, on HdrHistogram's axis: one in how many took longer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadbench.metrics.distribution import NS_PER_MS, US_PER_MS, rounded
from loadbench.store.histogram import Histogram

STEPS_PER_DOUBLING = 4
"""Points between one in 2 and one in 4: they lie evenly on the axis, and a million requests have 84."""

NAMED = (10, 20, 100, 1000)
"""p90, p95, p99, p99.9."""

Spectrum = dict[str, list[float]]


def spectrum(ascending: NDArray[Any], per_unit: float = NS_PER_MS) -> Spectrum | None:
    """{"one_in": [...], "ms": [...]}: all but one in x requests took at most so long, x = 1 / (1 - p); None of none.

    Values are measured ones, by nearest rank. The last point is the maximum, at one in n.

    Args:
        ascending: Values of which none is NaN, sorted.
        per_unit: Divides each value: 1e6 turns ns into ms.

    >>> spectrum(np.array([1e6, 2e6, 3e6, 9e6]))["ms"][-1]
    9.0
    """
    n = len(ascending)
    if not n:
        return None
    at = _places(n)
    ranks = [min(max(math.ceil(round((1 - 1 / x) * n, 9)), 1), n) for x in at]
    values = [float(ascending[rank - 1]) / per_unit for rank in ranks] + [float(ascending[-1]) / per_unit]
    return {"one_in": [*(_short(x) for x in at), float(n)], "ms": [rounded(value) or 0.0 for value in values]}


def of_values(values: NDArray[np.float64]) -> Spectrum | None:
    """The spectrum of durations in ns, one a request in any order; NaN (undefined) is left out."""
    return spectrum(np.sort(values[~np.isnan(values)]))


def of_histogram(histogram: Histogram) -> Spectrum | None:
    """The spectrum of what was kept in a histogram alone."""
    n = histogram.count
    if not n:
        return None
    at = _places(n)
    found = [histogram.percentile(1 - 1 / x) for x in at] + [histogram.max]
    values = [rounded((us or 0) / US_PER_MS) or 0.0 for us in found]
    return {"one_in": [*(_short(x) for x in at), float(n)], "ms": values}


def _places(n: int) -> list[float]:
    """Places on the axis from 1 on, below n: evenly, and those of the percentiles that have names."""
    steps = math.ceil(STEPS_PER_DOUBLING * math.log2(n)) if n > 1 else 0
    even = (2.0 ** (k / STEPS_PER_DOUBLING) for k in range(steps))
    return sorted({*even, *(float(x) for x in NAMED if x < n)})


def _short(x: float) -> float:
    return float(f"{x:.6g}")
