"""Which levels a run measures: a fixed list, or what somebody decides from the levels before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from loadbench.engine import Progress
from loadbench.record import Result
from loadbench.runner.plan import PlannedLevel


class Schedule(Protocol):
    """Decides what a run does next. It is asked for one level at a time, and told how that one goes."""

    def following(self) -> PlannedLevel | None:
        """The next level; None where the run is over."""

    def left(self) -> int:
        """How many levels share what is left of the budget of time, the one that was just given among them."""

    def heard(self, result: Result) -> None:
        """A request of the level ended. Called between two arrivals: it must be quick."""

    def has_enough(self, progress: Progress) -> bool:
        """Whether the level may end early. Asked about twice a second, in a thread: it may take some milliseconds."""

    def ended(self, progress: Progress, facts: dict[str, Any]) -> None:
        """The level is over; `facts` become its entry in run.json, written together with all else that is there.

        They may be added to: a schedule that ended a level early says so there.
        """

    def skipped(self, planned: PlannedLevel, reason: str) -> None:
        """The level was not run."""


class Fixed:
    """The levels of a plan, one after the other, each to its end."""

    def __init__(self, levels: Sequence[PlannedLevel]) -> None:
        self._levels = levels
        self._given = 0

    def following(self) -> PlannedLevel | None:
        if self._given == len(self._levels):
            return None
        self._given += 1
        return self._levels[self._given - 1]

    def left(self) -> int:
        return len(self._levels) - self._given + 1

    def heard(self, result: Result) -> None: ...

    def has_enough(self, progress: Progress) -> bool:
        return False

    def ended(self, progress: Progress, facts: Mapping[str, Any]) -> None: ...
    def skipped(self, planned: PlannedLevel, reason: str) -> None: ...
