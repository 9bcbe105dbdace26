"""Which load a search tries next: a pure function of the loads that were tried, so that a search can be resumed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loadbench.metrics.searched import Tried, zones

LOWEST_RATE = 1 / 64
"""Of the first rate: how far down a search goes for a rate that meets the SLO."""
CONFIRMED = 2
"""Probes that the answer must meet, the one that found it among them."""

By = Literal["concurrency", "rate"]


@dataclass(frozen=True, slots=True)
class Grid:
    """The loads of a search.

    Attributes:
        by: Streams at once, which are whole, or requests per second.
        start: The first load.
        most: The highest.
        within: How near the lowest load that fails must be to the answer, as a share of it; one stream is near enough.
    """

    by: By
    start: float
    most: float
    within: float = 0.05

    @property
    def most_streams(self) -> int:
        """Streams that this machine must be able to open; 0 where requests start at a rate."""
        return int(self.most) if self.by == "concurrency" else 0

    @property
    def most_per_s(self) -> float:
        """Most requests started in a second; 0 where none start at a rate."""
        return float(self.most) if self.by == "rate" else 0.0

    @property
    def lowest(self) -> float:
        return 1 if self.by == "concurrency" else _short(self.start * LOWEST_RATE)

    def doubled(self, load: float) -> float:
        return min(2 * load, self.most)

    def halved(self, load: float) -> float:
        half = load // 2 if self.by == "concurrency" else _short(load / 2)
        return max(half, self.lowest)

    def between(self, low: float, high: float) -> float | None:
        """A load in the middle; None where the two are neighbours.

        >>> Grid("concurrency", 1, 1024).between(8, 16), Grid("concurrency", 1, 1024).between(8, 9)
        (12, None)
        >>> Grid("rate", 1, 1024).between(4.0, 8.0), Grid("rate", 1, 1024).between(4.0, 4.2)
        (5.66, None)
        """
        if high <= low * (1 + self.within) * (1 + 1e-9):
            return None
        if self.by == "concurrency":
            middle: float = math.floor((low + high) / 2)
        else:
            middle = _short(math.sqrt(low * high))
        return middle if low < middle < high else None


def bracket(tried: Sequence[Tried]) -> tuple[float | None, float | None]:
    """The highest load that surely met the SLO, and the lowest that surely missed it; None where there is none.

    >>> bracket([Tried(8, "met"), Tried(16, "not met"), Tried(12, "undecided")])
    (8, 16)
    """
    found = zones(tried)
    return found.meets, found.misses


def following(tried: Sequence[Tried], grid: Grid) -> float | None:
    """The load to try next; None where the search is over.

    It doubles until a load does not surely meet the SLO (or halves until one does), bisects until the two are
    neighbours, and measures the answer once more. If that fails, the search goes on below it. Where loads above the
    answer are undecided, it then looks for the lowest one that misses it.

    >>> following([], Grid("concurrency", 1, 1024))
    1
    >>> following([Tried(1, "met"), Tried(2, "not met")], Grid("concurrency", 1, 1024))
    1
    """
    for_answer = _towards_answer(tried, grid)
    return _towards_misses(tried, grid) if for_answer is None else for_answer


def found(tried: Sequence[Tried], grid: Grid) -> float | None:
    """The answer, confirmed; None while it is not, and where no load met the SLO."""
    return None if _towards_answer(tried, grid) is not None else zones(tried).meets


def is_confirming(tried: Sequence[Tried], load: float) -> bool:
    """Whether a probe of this load asks for the second time whether it meets the SLO."""
    return any(one.load == load and one.verdict == "met" for one in tried)


def contradictions(tried: Sequence[Tried]) -> list[float]:
    """Loads that met the SLO although they, or lower ones, did not surely meet it another time."""
    doubtful = _doubtful(tried)
    return sorted({one.load for one in tried if one.verdict == "met" and doubtful is not None and one.load >= doubtful})


def _towards_answer(tried: Sequence[Tried], grid: Grid) -> float | None:
    low, high = zones(tried).meets, _doubtful(tried)
    if low is None:
        if high is None:
            return grid.start
        return None if high <= grid.lowest else grid.halved(high)
    if high is None and low < grid.most:
        return grid.doubled(low)
    middle = None if high is None else grid.between(low, high)
    if middle is not None:
        return middle
    met = sum(one.load == low for one in tried)
    return low if met < CONFIRMED else None


def _towards_misses(tried: Sequence[Tried], grid: Grid) -> float | None:
    zone = zones(tried)
    if not zone.undecided:
        return None
    top = zone.undecided[-1]
    if zone.misses is None:
        return grid.doubled(top) if top < grid.most else None
    return grid.between(top, zone.misses)


def _doubtful(tried: Sequence[Tried]) -> float | None:
    """The lowest load that did not surely meet the SLO."""
    return min((one.load for one in tried if one.verdict != "met"), default=None)


def _short(rate: float) -> float:
    """A rate that reads well, in three digits."""
    return float(f"{rate:.3g}")
