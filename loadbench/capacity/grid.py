"""Which load a search tries next: a pure function of the loads that were tried, so that a search can be resumed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

LOWEST_RATE = 1 / 64
"""Of the first rate: how far down a search goes for a rate that meets the SLO."""
CONFIRMED = 2
"""Probes that the answer must meet, the one that found it among them."""

By = Literal["concurrency", "rate"]


@dataclass(frozen=True, slots=True)
class Tried:
    """A load that was measured, and whether it met the SLO."""

    load: float
    met: bool


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
    """The highest load that met the SLO below all that did not, and the lowest that did not; None where there is none.

    A load that met it once and once did not counts as one that did not.

    >>> bracket([Tried(8, True), Tried(16, False), Tried(12, False)])
    (8, 12)
    """
    high = min((one.load for one in tried if not one.met), default=None)
    low = max((one.load for one in tried if one.met and (high is None or one.load < high)), default=None)
    return low, high


def following(tried: Sequence[Tried], grid: Grid) -> float | None:
    """The load to try next; None where the search is over.

    It doubles until a load fails (or halves until one does not), bisects until the two are neighbours, and measures
    the answer once more. If it then fails, the search goes on below it.

    >>> following([], Grid("concurrency", 1, 1024))
    1
    >>> following([Tried(1, True), Tried(2, False)], Grid("concurrency", 1, 1024))
    1
    """
    low, high = bracket(tried)
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


def found(tried: Sequence[Tried], grid: Grid) -> float | None:
    """The answer of a search that is over; None while it is not, and where no load met the SLO."""
    return None if following(tried, grid) is not None else bracket(tried)[0]


def contradictions(tried: Sequence[Tried]) -> list[float]:
    """Loads that met the SLO although they, or lower ones, did not meet it another time."""
    high = bracket(tried)[1]
    return sorted({one.load for one in tried if one.met and high is not None and one.load >= high})


def _short(rate: float) -> float:
    """A rate that reads well, in three digits."""
    return float(f"{rate:.3g}")
