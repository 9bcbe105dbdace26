"""Repeats until the mean of runs is known well enough: a run's schedule, asked after each round through all levels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from loadbench.engine import Progress
from loadbench.figures import in_words
from loadbench.metrics import level as levels
from loadbench.metrics import repeats
from loadbench.record import Result, Results
from loadbench.runner.plan import PlannedLevel
from loadbench.scenario import LEAST_REPEATS, Level, Scenario
from loadbench.store import LevelData

Record = MutableMapping[str, Any]
FIGURES = ("output_tokens_per_s", "ttft_p50", "e2e_p50")
"""Of which the widths of intervals end the repeats."""


def begun(asked: Scenario) -> Record:
    """What run.json says under `until` at the start; the schedule fills it."""
    return {"wanted": asked.until, "least": LEAST_REPEATS, "most": asked.repeats, "reached": None, "runs": []}


@dataclass(slots=True)
class Rounds:
    """What runs in turns decide together: a round is the last one of all of them, or of none."""

    runs: list[Precise] = field(default_factory=list)
    _decided: dict[int, bool] = field(default_factory=dict)  # by the number of the round that would begin

    def over(self, number: int) -> bool:
        if number not in self._decided:  # whoever comes second has more to go by
            found = [run.concludes() for run in self.runs]  # each of them tells
            self._decided[number] = all(found)
        return self._decided[number]


@dataclass(slots=True)
class Precise:
    """A schedule that measures all levels in rounds, and ends after one in which each mean is known well enough.

    Known well enough is a mean over runs whose 95 % interval (`metrics.repeats.over_runs`) is no further from it than
    `wanted`, of tokens/s and of the median latency, at every load. All loads stop together, so that their runs stay in
    turns. A load that failed or was skipped once is not waited for any more.

    Attributes:
        levels: The plan's, in rounds.
        record: run.json's `until`. Figures that are in it count, as those of a run that is continued.
        tell: Told after each round how well the worst mean is known.
        rounds: Shared by runs that take turns; unset, this run decides alone.
    """

    levels: Sequence[PlannedLevel]
    record: Record
    tell: Callable[[str], None]
    streamed: bool = True
    rounds: Rounds = field(default_factory=Rounds)
    _given: int = 0
    _results: list[Result] = field(default_factory=list)
    _lost: set[tuple[Any, ...]] = field(default_factory=set)  # loads that are not waited for

    def __post_init__(self) -> None:
        self.rounds.runs.append(self)

    def following(self) -> PlannedLevel | None:
        if self._given == len(self.levels):
            self._conclude()
            return None
        planned = self.levels[self._given]
        level = planned.level
        begins_round = self._given == 0 or level.repeat > self.levels[self._given - 1].level.repeat
        measured = any(row["level"] == level.id for row in self.record["runs"])
        if begins_round and not measured and self.rounds.over(level.repeat):
            return None
        self._given += 1
        self._results = []
        return planned

    def concludes(self) -> bool:
        """Whether this run needs no further round: all is known well enough, or nothing is left to wait for."""
        return self._conclude() or self._lost >= {_key(one.level) for one in self.levels}

    def left(self) -> int:
        return len(self.levels) - self._given + 1

    def heard(self, result: Result) -> None:
        self._results.append(result)

    def has_enough(self, progress: Progress) -> bool:
        return False

    def ended(self, progress: Progress, facts: Mapping[str, Any]) -> None:
        """Keep the level's figures in the record, which the run folder writes together with the level."""
        level = progress.level
        if facts["status"] != "complete":
            if facts["status"] != "interrupted":
                self._lost.add(_key(level))
            return
        known = {"id": level.id, "model": level.model, **level.load_facts, **facts}
        data = LevelData(known, Results.from_results(self._results), {}, True)
        found = repeats.figures(levels.summary(data, [], streamed=self.streamed))
        self.record["runs"].append({"level": level.id, "model": level.model, **level.load_facts, **found})

    def skipped(self, planned: PlannedLevel, reason: str) -> None:
        self._lost.add(_key(planned.level))

    def _conclude(self) -> bool:
        """Whether all means are known well enough by now; says how well the worst one is."""
        rows = {row["level"]: row for row in self.record["runs"]}  # of a level that was measured again, the last
        grouped: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
        for row in rows.values():
            grouped.setdefault(tuple(row[name] for name in _LOAD), []).append(row)
        grouped = {load: runs for load, runs in grouped.items() if load not in self._lost}
        widths = []
        for runs in grouped.values():
            if len(runs) < LEAST_REPEATS:
                return False
            for figure in (name for name in FIGURES if name in runs[0]):
                half = repeats.over_runs([run[figure] for run in runs]).half_width
                if half is not None:  # of a figure that no server told, no run says more
                    widths.append((half, f"{in_words(figure)} of {runs[0]['level']}"))
        if not widths:
            return False
        half, where = max(widths)
        runs_each = min(map(len, grouped.values()))
        reached = bool(half <= self.record["wanted"])
        ends = f"{100 * self.record['wanted']:g} % is wanted" + (": enough" if reached else "")
        self.tell(f"after {runs_each} runs the least known mean is {where}, to {100 * half:.2g} %; {ends}")
        self.record["reached"] = reached
        return reached


_LOAD = ("model", "concurrency", "request_rate_per_s", "shape")


def _key(level: Level) -> tuple[Any, ...]:
    return tuple(getattr(level, name) for name in _LOAD)
