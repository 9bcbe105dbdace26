"""Stalls: gaps that are far longer than the level's usual one, and where the longest was."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadbench.metrics.distribution import NS_PER_MS, US_PER_MS, rounded
from loadbench.metrics.request import Requests
from loadbench.record import Results
from loadbench.store.histogram import Histogram

THRESHOLD = 10.0
"""Times the median gap of the level."""
MOST_PLACES = 12
"""Stalls of which it is told when they were."""
SHORTEST_US = 10_000
"""No gap below 10 ms is one: nobody sees it, and where events come in bursts the median gap is next to nothing."""


def stalls(
    results: Results, requests: Requests, ascending: NDArray[np.int64], threshold: float | None = None
) -> dict[str, Any] | None:
    """The stalls of a level whose gaps were kept; None where there are no gaps.

    {"n", "threshold_ms", "requests": how many had one, "longest_ms", "longest_request", "longest_prompt", "at_s": when
    the longest ended, since the level began, "longest": the 12 longest of them, {"at_s", "ms", "request"}, longest
    first}; all but the first three are None without a stall.

    Args:
        ascending: The gaps of the requests that count, in us, sorted.
        threshold: Times the median gap, 10 by default.
    """
    if not len(ascending):
        return None
    limit_us = _limit_us(float(ascending[(len(ascending) - 1) // 2]), threshold)
    n = len(ascending) - int(np.searchsorted(ascending, limit_us, side="right"))
    found = _found(n, limit_us)
    if not n:
        return found | {"requests": 0}
    longest_us = int(ascending[-1])
    of_row = _rows(results, np.flatnonzero(results.gaps_us > limit_us))
    places = np.flatnonzero(results.gaps_us == longest_us)
    row, place = next(
        (int(row), int(place))
        for row, place in zip(_rows(results, places), places, strict=True)
        if requests.population[row]
    )
    return found | {
        "requests": len(np.unique(of_row[requests.population[of_row]])),
        "longest_ms": rounded(longest_us / US_PER_MS),
        "longest_request": int(results.request[row]),
        "longest_prompt": results.prompt[row],
        "at_s": _ended_s(results, row, place),
        "longest": _longest(results, requests, limit_us),
    }


def of_histogram(histogram: Histogram, threshold: float | None = None) -> dict[str, Any] | None:
    """The stalls of gaps that were kept in a histogram alone: how many and how long, not whose."""
    median = histogram.percentile(0.5)
    if median is None:
        return None
    limit_us = _limit_us(float(median), threshold)
    n = histogram.above(int(limit_us))
    return _found(n, limit_us) | {"longest_ms": rounded((histogram.max or 0) / US_PER_MS) if n else None}


def _longest(results: Results, requests: Requests, limit_us: float) -> list[dict[str, Any]]:
    """The longest stalls and when each ended: in a timeline they stand beside what else happened then."""
    over = np.flatnonzero(results.gaps_us > limit_us)
    rows = _rows(results, over)
    counted = requests.population[rows]
    over, rows = over[counted], rows[counted]
    first = np.argsort(-results.gaps_us[over], kind="stable")[:MOST_PLACES]
    return [
        {
            "at_s": _ended_s(results, int(rows[i]), int(over[i])),
            "ms": rounded(int(results.gaps_us[over[i]]) / US_PER_MS),
            "request": int(results.request[rows[i]]),
        }
        for i in first
    ]


def _ended_s(results: Results, row: int, place: int) -> float | None:
    """When a gap ended, in s since the level began."""
    before_us = int(results.gaps_us[results.gap_offsets[row] : place + 1].sum())
    return rounded((float(results.first_token[row]) / NS_PER_MS + before_us / US_PER_MS) / 1000)


def _rows(results: Results, places: NDArray[np.intp]) -> NDArray[np.intp]:
    """Which request each of the flat gaps belongs to."""
    return np.searchsorted(results.gap_offsets, places, side="right") - 1


def _limit_us(median_us: float, threshold: float | None) -> float:
    return max((threshold or THRESHOLD) * median_us, SHORTEST_US)


def _found(n: int, limit_us: float) -> dict[str, Any]:
    nobody = dict.fromkeys(("requests", "longest_ms", "longest_request", "longest_prompt", "at_s", "longest"))
    return {"n": n, "threshold_ms": rounded(limit_us / US_PER_MS), **nobody}
