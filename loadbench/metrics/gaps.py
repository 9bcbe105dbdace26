"""The gaps of a level, tens of millions of them: picked and summed without copies of copies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadbench.metrics.request import Flags
from loadbench.record import Results

BLOCK = 1_000_000
"""Gaps that are worked on at once; keeps what a sum needs at 20 MB however long the run."""


def sizes(results: Results) -> NDArray[np.int64]:
    """Number of gaps of each request."""
    return np.diff(results.gap_offsets)


def ascending(results: Results, chosen: Flags) -> NDArray[np.int64]:
    """The gaps of the chosen requests in us, sorted."""
    picked = of_requests(results, chosen)
    picked.sort()
    return picked


def of_requests(results: Results, chosen: Flags) -> NDArray[np.int64]:
    """The gaps of the chosen requests in us, request after request; a copy."""
    return results.gaps_us.copy() if chosen.all() else results.gaps_us[np.repeat(chosen, sizes(results))]


def sums(results: Results, of: Callable[[NDArray[np.int64]], NDArray[Any]]) -> NDArray[np.int64]:
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
