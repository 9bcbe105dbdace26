"""What is known of a run while it goes on: its levels by model, their figures, the bracket of a search."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from loadbench.cli.live.clock import TimeLeft
from loadbench.cli.live.plain import Speed
from loadbench.cli.live.trace import Trace
from loadbench.cli.live.words import timed

if TYPE_CHECKING:
    from loadbench.engine import Progress
    from loadbench.runner.plan import Plan
    from loadbench.scenario import Level

State = Literal["to come", "present", "complete", "failed", "interrupted", "skipped"]


@dataclass(frozen=True, slots=True)
class Figures:
    """A level's figures at a moment.

    Attributes:
        timed: What the two times are of: TTFT, or E2E of whole answers.
    """

    completed: int
    failed: int
    tokens_per_s: float
    timed: str
    p50_us: int | None
    p95_us: int | None


@dataclass(slots=True)
class Row:
    """One level.

    Attributes:
        name: Its load, as `c4`, `c4#2`, `c1#end`.
        note: A search's verdict on it, or why it was left out.
    """

    level: Level
    state: State = "to come"
    figures: Figures | None = None
    trace: Trace | None = None
    note: str = ""

    @property
    def name(self) -> str:
        return self.level.id.removeprefix(f"{self.level.model}@")


@dataclass(slots=True)
class Search:
    """What a search found out about one model so far.

    Attributes:
        bracket: The highest load that meets the SLO, and the lowest above it that does not.
        found: The answer, once a second probe confirmed it.
        step: The last one, in words.
    """

    bracket: tuple[float | None, float | None] = (None, None)
    found: float | None = None
    step: str = ""


@dataclass(slots=True)
class Course:
    """A run as far as it went.

    Attributes:
        rows: By level id, in the order of the run; a search's grow as it goes.
        models: In the order of their turns.
        searches: By model; empty where the levels are planned.
        budget_s: How long it all may take, where that is given.
        present: The level that goes on, or was the last one.
    """

    plan: Plan
    models: list[str]
    budget_s: float | None = None
    rows: dict[str, Row] = field(default_factory=dict)
    searches: dict[str, Search] = field(default_factory=dict)
    present: Progress | None = None
    began_s: float | None = None
    clock: TimeLeft = field(init=False)
    _speed: Speed = field(default_factory=Speed)

    def __post_init__(self) -> None:
        self.clock = TimeLeft(self.plan)
        for one in self.plan.levels:
            self.rows[one.level.id] = Row(one.level)
        known = (row.level.model for row in self.rows.values())
        self.models = list(dict.fromkeys([*self.models, *known]))

    @property
    def is_search(self) -> bool:
        return not self.plan.levels

    @property
    def over(self) -> int:
        """How many levels are done or left out."""
        return sum(row.state not in ("to come", "present") for row in self.rows.values())

    def by_model(self) -> dict[str, list[Row]]:
        """Each model's levels."""
        found: dict[str, list[Row]] = {model: [] for model in self.models}
        for row in self.rows.values():
            found[row.level.model].append(row)
        return found

    def began(self, progress: Progress) -> None:
        now_s = time.monotonic()
        if self.began_s is None:
            self.began_s = now_s
        self.present, self._speed = progress, Speed()
        self.rows[progress.level.id] = Row(progress.level, "present", trace=Trace(now_s))
        if progress.level.model not in self.models:
            self.models.append(progress.level.model)

    def tick(self, progress: Progress, text_events: int) -> None:
        self.present, row = progress, self.rows[progress.level.id]
        _, times = timed(progress)
        if row.trace is not None:
            row.trace.look(time.monotonic(), text_events, times.sum, times.count)
        row.figures = _figures(progress, self._speed.tokens_per_s(text_events))

    def ended(self, progress: Progress, facts: Mapping[str, Any]) -> None:
        self.clock.done(progress)
        row = self.rows[progress.level.id]
        row.state = facts["status"]
        _, times = timed(progress)
        if row.trace is not None:
            row.trace.look(time.monotonic(), progress.text_events, times.sum, times.count)
        row.figures = _figures(progress, progress.text_events / max(facts["duration_s"], 1e-9))

    def skipped(self, level: Level, reason: str) -> None:
        self.clock.skipped(level.id)
        self.rows[level.id] = Row(level, "skipped", note=f"skipped: {reason}")
        if level.model not in self.models:
            self.models.append(level.model)

    def step(self, model: str, step: Mapping[str, Any], text: str) -> None:
        low, high = step.get("bracket") or (None, None)
        self.searches[model] = Search((low, high), step.get("found"), text)
        if (row := self.rows.get(step["level"])) is not None:
            row.note = step["verdict"]


def _figures(progress: Progress, per_s: float) -> Figures:
    name, times = timed(progress)
    return Figures(progress.completed, progress.failed, per_s, name, times.percentile(0.5), times.percentile(0.95))
