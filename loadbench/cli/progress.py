"""How far a run is while it goes on: its levels by model, a search, the time left, what goes wrong."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, NamedTuple

from loadbench.cli.lines import Facts, Speed, failures, timed
from loadbench.engine import Progress
from loadbench.metrics import gates, machine
from loadbench.runner.plan import Plan, PlannedLevel
from loadbench.scenario import Level
from loadbench.store import summary
from loadbench.store.schema import ScenarioFacts

State = Literal["to come", "present", "complete", "failed", "interrupted", "skipped"]
_MOST_COUNTS = 240  # moments that a trace keeps; with more, each second one goes
_SHORTEST_S = 0.2  # what is shorter, at a level's end, is no piece of its own: its speed would be accidental
_CHECK_EVERY = 4  # ticks
_LEAST_DONE = 0.05  # of a level, from which on its own speed tells how long it takes


# -- a level


class _Counts(NamedTuple):
    """What a level counted up to a moment; the times (TTFT, or E2E of whole answers) are of requests that ended."""

    at_s: float
    tokens: int
    times_us: int
    requests: int


class Trace:
    """A level over its time, in little memory.

    >>> trace = Trace(0.0)
    >>> for second, tokens in enumerate((0, 40, 80), 1):
    ...     trace.add(float(second), tokens, times_us=0, requests=0)
    >>> trace.tokens_per_s(10), trace.tokens_per_s(1), trace.times_us(2)
    ([0.0, 40.0, 40.0], [26.666666666666668], [None, None])
    """

    def __init__(self, began_s: float) -> None:
        self._counts = [_Counts(began_s, 0, 0, 0)]

    def add(self, at_s: float, tokens: int, times_us: int, requests: int) -> None:
        """Take down the counts so far."""
        last_s = self._counts[-1].at_s
        if at_s <= last_s:
            return
        if len(self._counts) > 1 and at_s - last_s < _SHORTEST_S:
            self._counts.pop()
        self._counts.append(_Counts(at_s, tokens, times_us, requests))
        if len(self._counts) > _MOST_COUNTS:
            self._counts = self._sampled(_MOST_COUNTS // 2)

    def _sampled(self, pieces: int) -> list[_Counts]:
        """The counts at the ends of at most `pieces` pieces of the level's time, of like length."""
        last = len(self._counts) - 1
        pieces = min(pieces, last)
        return [self._counts[last * number // max(1, pieces)] for number in range(pieces + 1)]

    # The counts are read while the run goes on: a sum may lag behind its number by one request, hence max().

    def tokens_per_s(self, pieces: int) -> list[float]:
        counts = self._sampled(pieces)
        return [max(0, b.tokens - a.tokens) / max(b.at_s - a.at_s, 1e-9) for a, b in pairwise(counts)]

    def times_us(self, pieces: int) -> list[float | None]:
        """Means; None where no request ended."""
        means: list[float | None] = []
        for a, b in pairwise(self._sampled(pieces)):
            requests = b.requests - a.requests
            means.append(max(0, b.times_us - a.times_us) / requests if requests > 0 else None)
        return means


@dataclass(frozen=True, slots=True)
class Figures:
    """A level's figures at a moment; `timed` is what the two times are of: TTFT, or E2E of whole answers."""

    completed: int
    failed: int
    tokens_per_s: float
    timed: str
    p50_us: int | None
    p95_us: int | None


@dataclass(slots=True)
class Row:
    """One level; `note` is a search's verdict on it, or why it was left out."""

    level: Level
    state: State = "to come"
    figures: Figures | None = None
    trace: Trace | None = None
    note: str = ""

    @property
    def name(self) -> str:
        """Its load, as `c4`, `c4#2`, `c1#end`."""
        return self.level.id.removeprefix(f"{self.level.model}@")

    @property
    def over(self) -> bool:
        return self.state not in ("to come", "present")

    def measured(self, progress: Progress, at_s: float, text_events: int, per_s: float) -> None:
        name, times = timed(progress)
        if self.trace is not None:
            self.trace.add(at_s, text_events, times.sum, times.count)
        p50_us, p95_us = times.percentile(0.5), times.percentile(0.95)
        self.figures = Figures(progress.completed, progress.failed, per_s, name, p50_us, p95_us)


# -- the run


@dataclass(frozen=True, slots=True)
class Search:
    """How far a search for one model's capacity is.

    Attributes:
        bracket: The highest load that meets the SLO, and the lowest above it that does not.
        found: The answer, once a second probe confirmed it.
        step: The last one, in words.
    """

    bracket: tuple[float | None, float | None]
    found: float | None
    step: str


@dataclass(slots=True)
class RunProgress:
    """A run as far as it went.

    Attributes:
        models: In the order of their turns.
        budget_s: How long it all may take, where that is limited.
        rows: By level id, in the order of the run; a search's grow as it goes.
        searches: By model; empty where the levels are planned.
        present: The level that goes on, or was the last one.
    """

    plan: Plan
    models: list[str]
    budget_s: float | None = None
    rows: dict[str, Row] = field(default_factory=dict)
    searches: dict[str, Search] = field(default_factory=dict)
    present: Progress | None = None
    began_s: float | None = None
    _speed: Speed = field(default_factory=Speed)
    _to_come_s: dict[str, float] = field(default_factory=dict)  # as planned, by level id
    _planned_s: float = 0.0  # of the levels that are done
    _took_s: float = 0.0

    def __post_init__(self) -> None:
        for one in self.plan.levels:
            self._to_come_s[one.level.id] = one.shortest_s
            self._add(Row(one.level))

    def _add(self, row: Row) -> None:
        self.rows[row.level.id] = row
        if row.level.model not in self.models:
            self.models.append(row.level.model)

    @property
    def is_search(self) -> bool:
        return not self.plan.levels

    def by_model(self) -> dict[str, list[Row]]:
        rows: dict[str, list[Row]] = {model: [] for model in self.models}
        for row in self.rows.values():
            rows[row.level.model].append(row)
        return rows

    def expects(self, levels: Sequence[PlannedLevel]) -> None:
        self._to_come_s.update({one.level.id: one.shortest_s for one in levels})

    def began(self, progress: Progress) -> None:
        now_s = time.monotonic()
        if self.began_s is None:
            self.began_s = now_s
        self.present, self._speed = progress, Speed()
        self._add(Row(progress.level, "present", trace=Trace(now_s)))

    def tick(self, progress: Progress, text_events: int) -> None:
        self.present, now_s = progress, time.monotonic()
        self.rows[progress.level.id].measured(progress, now_s, text_events, self._speed.tokens_per_s(text_events))

    def ended(self, progress: Progress, facts: Facts) -> None:
        self._planned_s += self._to_come_s.pop(progress.level.id, 0.0)
        self._took_s += (progress.ended_ns - progress.began_ns) / 1e9
        row = self.rows[progress.level.id]
        row.state = facts["status"]
        per_s = progress.text_events / max(facts["duration_s"], 1e-9)
        row.measured(progress, time.monotonic(), progress.text_events, per_s)

    def skipped(self, level: Level, reason: str) -> None:
        self._to_come_s.pop(level.id, None)
        self._add(Row(level, "skipped", note=f"skipped: {reason}"))

    def step(self, model: str, step: Facts, text: str) -> None:
        low, high = step.get("bracket") or (None, None)
        self.searches[model] = Search(bracket=(low, high), found=step.get("found"), step=text)
        if (row := self.rows.get(step["level"])) is not None:
            row.note = step["verdict"]

    # -- the time left: the plan's estimate, corrected by the levels that are done

    def level_left_s(self, progress: Progress) -> float | None:
        """What is left of the present level, its drain not counted; None where nothing tells it yet."""
        whole_s, so_far_s = self._level_s(progress)
        return None if whole_s is None else max(0.0, whole_s - so_far_s)

    def left_s(self, progress: Progress | None) -> float:
        """What is left of the run: of the present level, where there is one, and of those to come."""
        rest_s = sum(self._to_come_s.values())
        planned_s, took_s, left_s = self._planned_s, self._took_s, 0.0
        if progress is not None:
            level_planned_s = self._to_come_s.get(progress.level.id, 0.0)
            whole_s, so_far_s = self._level_s(progress)
            if whole_s is None:
                whole_s = max(level_planned_s, so_far_s)
            left_s = max(0.0, whole_s - so_far_s)
            rest_s -= level_planned_s
            planned_s += level_planned_s
            took_s += whole_s
        slower = took_s / planned_s if planned_s else 1.0
        return left_s + slower * rest_s

    def _level_s(self, progress: Progress) -> tuple[float | None, float]:
        """How long the present level takes in all, and has taken so far."""
        done, now_ns = share_done(progress), time.perf_counter_ns()
        so_far_s = (now_ns - progress.began_ns) / 1e9 if progress.began_ns else 0.0
        if done > _LEAST_DONE and progress.measured_from_ns is not None:
            measured_s = (now_ns - progress.measured_from_ns) / 1e9
            return so_far_s - measured_s + measured_s / done, so_far_s
        planned_s = self._to_come_s.get(progress.level.id)
        return None if planned_s is None else max(planned_s, so_far_s), so_far_s


def share_done(progress: Progress) -> float:
    """How much of a level is done, 0 to 1; warm-up and drain are no part of it."""
    limits, done = progress.limits, 0.0
    if limits.requests:
        done = (progress.ended + progress.dropped) / limits.requests
    if limits.duration_s and progress.measured_from_ns is not None:
        done = max(done, (time.perf_counter_ns() - progress.measured_from_ns) / 1e9 / limits.duration_s)
    return min(1.0, done)


# -- what goes wrong


class Warnings:
    """What goes wrong at each level, in the order it came up; the report says it all again, with more exactness."""

    def __init__(self) -> None:
        self._requests: dict[str, str] = {}  # by level
        self._others: dict[str, tuple[str, str]] = {}  # by subject: the level at which it was seen last, and the words
        self._first: Facts | None = None  # sample of server and machine of the present level
        self._last: Facts | None = None
        self._level = ""
        self._ticks = 0

    def sampled(self, sample: Facts) -> None:
        """Keep a sample of server and machine; looked at with the next tick."""
        self._last = sample

    def check(self, progress: Progress, *, last: bool = False) -> None:
        """See what goes wrong now; all of it, whatever the tick, where the level is over."""
        level = progress.level.id
        if level != self._level:
            self._level, self._first, self._ticks = level, None, 0
        if text := ", ".join(failures(progress)):
            kind, _, message = (progress.last_error or "").partition(": ")
            if kind:
                only = len(progress.errors) == 1 and message
                text += f"; last: {message if only else progress.last_error}"
            self._requests[level] = text
        self._ticks += 1
        if not last and self._ticks % _CHECK_EVERY:
            return
        # Lag alone is no fault, and what was merged is known at the end.
        seen = summary.Level(client_wait_share=progress.client_wait_share)
        self._note(level, "client", gates.starved(seen, ScenarioFacts()))
        sample = self._last
        if sample is None or sample.get("level") != level or not sample.get("server"):
            return  # of a server elsewhere this machine says nothing
        if self._first is None:
            self._first = sample
            return
        samples = machine.typed((self._first, sample))
        seen = summary.Level(others_cpu_share=machine.others_cpu_share(samples, os.cpu_count()))
        self._note(level, "others", gates.others(seen, ScenarioFacts()))
        if machine.throttled(samples, machine.server_gpus(samples)):
            self._others["heat"] = level, "the processor or the GPU was throttled: too hot, or short of power"

    def _note(self, level: str, subject: str, warning: summary.Finding | None) -> None:
        if warning is not None:
            self._others[subject] = level, warning.text
        elif self._others.get(subject, ("", ""))[0] == level:
            del self._others[subject]

    def lines(self) -> list[tuple[str, str]]:
        """Level id and words of each, the most telling last: where there is no room, the first ones go."""
        return [*self._others.values(), *self._requests.items()]
