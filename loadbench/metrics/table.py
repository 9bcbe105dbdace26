"""A level taken apart: by prompt, and by input length. Outliers are flagged, never dropped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadbench import stats
from loadbench.metrics.distribution import NS_PER_MS, rounded
from loadbench.metrics.request import Requests
from loadbench.record import Results

MOST_PROMPTS = 200
"""Rows of a level's table; distinct prompts would make it as long as the requests. Those with the worst E2E stay."""
FEWEST_FOR_OUTLIERS = 5
MOST_LENGTHS = 4


def prompts(results: Results, requests: Requests) -> tuple[list[dict[str, Any]], int]:
    """One row a prompt, by id, over the population; and how many prompts were left out (beyond MOST_PROMPTS).

    `outliers` counts the requests whose E2E is far from that of the same prompt (modified z by MAD); None below 5.
    """
    rows = np.flatnonzero(requests.population)
    codes: dict[str, int] = {}
    group = np.fromiter((codes.setdefault(results.prompt[row], len(codes)) for row in rows), np.int64, len(rows))
    names = list(codes)
    table = [
        {
            "prompt": names[number],
            "n": len(members),
            "ttft_median_ms": _median_ms(requests.ttft[members]),
            "e2e_median_ms": _median_ms(requests.e2e[members]),
            "e2e_worst_ms": rounded(float(requests.e2e[members].max()) / NS_PER_MS),
            "output_tokens_median": _median(requests.tokens[members]),
            "outliers": _outliers(requests.e2e[members]),
        }
        for number, members in _worst_groups(rows, group, len(names), requests.e2e)
    ]
    return sorted(table, key=lambda row: str(row["prompt"])), max(0, len(names) - MOST_PROMPTS)


def input_lengths(results: Results, requests: Requests) -> list[dict[str, Any]]:
    """TTFT and E2E by input tokens, shortest first; empty where the server counted none.

    Up to 4 different lengths have a row each, more are put into quarters.
    """
    rows = np.flatnonzero(requests.population & ~np.isnan(results.input_tokens))
    lengths = results.input_tokens[rows]
    distinct = np.unique(lengths)
    if len(distinct) > MOST_LENGTHS:
        ascending = np.sort(lengths)
        edges = [stats.percentile(ascending, p) for p in (0.25, 0.5, 0.75, 1.0)]
        distinct = np.unique([edge for edge in edges if edge is not None])
    quarter = np.searchsorted(distinct, lengths)
    return [_length_row(lengths[quarter == q], rows[quarter == q], requests) for q in range(len(distinct))]


def _length_row(lengths: NDArray[np.float64], members: NDArray[np.intp], requests: Requests) -> dict[str, Any]:
    return {
        "from_tokens": int(lengths.min()),
        "to_tokens": int(lengths.max()),
        "n": len(members),
        "ttft_median_ms": _median_ms(requests.ttft[members]),
        "e2e_median_ms": _median_ms(requests.e2e[members]),
        "outliers": _outliers(requests.e2e[members]),
    }


def _worst_groups(
    rows: NDArray[np.intp], group: NDArray[np.int64], groups: int, e2e: NDArray[np.float64]
) -> Sequence[tuple[int, NDArray[np.intp]]]:
    """Number and rows of the groups with the longest E2E."""
    worst = np.zeros(groups)
    np.maximum.at(worst, group, np.nan_to_num(e2e[rows]))
    chosen = np.argsort(-worst, kind="stable")[:MOST_PROMPTS]
    order = np.argsort(group, kind="stable")
    ends = np.cumsum(np.bincount(group, minlength=groups))
    starts = np.concatenate(([0], ends[:-1]))
    return [(int(number), rows[order[starts[number] : ends[number]]]) for number in chosen]


def _outliers(values: NDArray[np.float64]) -> int | None:
    values = values[~np.isnan(values)]
    return int(stats.outliers(values).sum()) if len(values) >= FEWEST_FOR_OUTLIERS else None


def _median(values: NDArray[np.float64]) -> float | None:
    return stats.percentile(np.sort(values[~np.isnan(values)]), 0.5)


def _median_ms(values: NDArray[np.float64]) -> float | None:
    median = _median(values)
    return None if median is None else rounded(median / NS_PER_MS)
