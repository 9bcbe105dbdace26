"""The views that are no picture: silence, plain lines for a pipe, JSON lines for a program.

Progress goes to stderr, results to stdout; JSON lines all go to stdout.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import click

from loadbench.cli.harmless import data, harmless
from loadbench.cli.live.words import failures, is_news, probe_line, state, took
from loadbench.runner.session import Observer

if TYPE_CHECKING:
    from loadbench.engine import Progress
    from loadbench.runner.plan import Plan, PlannedLevel
    from loadbench.scenario import Level

_LINE_EVERY_S = 5.0
_RATE_OVER_S = 3.0


class View(Observer, Protocol):
    """An observer that also opens and closes."""

    def opening(self, facts: Mapping[str, Any], lines: Sequence[str], plan: Plan) -> None: ...
    def sampled(self, sample: Mapping[str, Any]) -> None:
        """A sample of server and machine was taken. Called between two arrivals: it must be quick."""

    def step(self, model: str, step: Mapping[str, Any], text: str) -> None: ...
    def close(self) -> None: ...
    def summary(self, summary: Mapping[str, Any]) -> None: ...
    def compared(self, document: Mapping[str, Any]) -> None:
        """Two runs that took turns were compared."""


class Silent:
    """Nothing but errors, and they are not a view's."""

    def opening(self, facts: Mapping[str, Any], lines: Sequence[str], plan: Plan) -> None: ...
    def note(self, text: str) -> None: ...
    def probed(self, probe: Mapping[str, Any]) -> None: ...
    def began(self, progress: Progress, planned: PlannedLevel) -> None: ...
    def tick(self, progress: Progress, text_events: int) -> None: ...
    def sampled(self, sample: Mapping[str, Any]) -> None: ...
    def ended(self, progress: Progress, facts: Mapping[str, Any]) -> None: ...
    def skipped(self, level: Level, reason: str) -> None: ...
    def step(self, model: str, step: Mapping[str, Any], text: str) -> None: ...
    def summary(self, summary: Mapping[str, Any]) -> None: ...
    def compared(self, document: Mapping[str, Any]) -> None: ...
    def close(self) -> None: ...


class JsonLines(Silent):
    """One JSON object a line on stdout, each with its `event`; the last one is the summary."""

    def _say(self, event: str, **fields: Any) -> None:
        sys.stdout.buffer.write(data({"event": event, **fields}).encode() + b"\n")
        sys.stdout.buffer.flush()

    def opening(self, facts: Mapping[str, Any], lines: Sequence[str], plan: Plan) -> None:
        levels = [one.level.id for one in plan.levels]
        self._say(
            "plan", **facts, levels=levels, shortest_s=plan.shortest_s, longest_s=plan.longest_s, cuts=list(plan.cuts)
        )

    def note(self, text: str) -> None:
        self._say("note", text=text)

    def probed(self, probe: Mapping[str, Any]) -> None:
        self._say("probe", **probe)

    def began(self, progress: Progress, planned: PlannedLevel) -> None:
        self._say("level_began", level=progress.level.id, attempt=progress.attempt)

    def tick(self, progress: Progress, text_events: int) -> None:
        ttft = progress.histograms["ttft"]
        self._say(
            "progress",
            level=progress.level.id,
            phase=progress.phase,
            in_flight=progress.in_flight,
            ended=progress.ended,
            completed=progress.completed,
            failed=progress.failed,
            dropped=progress.dropped,
            text_events=text_events,
            ttft_p50_us=ttft.percentile(0.5),
            ttft_p95_us=ttft.percentile(0.95),
        )

    def ended(self, progress: Progress, facts: Mapping[str, Any]) -> None:
        self._say("level_ended", level=progress.level.id, status=facts["status"], reason=facts["reason"])

    def skipped(self, level: Level, reason: str) -> None:
        self._say("level_skipped", level=level.id, reason=reason)

    def step(self, model: str, step: Mapping[str, Any], text: str) -> None:
        self._say("step", model=model, **step)

    def summary(self, summary: Mapping[str, Any]) -> None:
        self._say("summary", summary=summary)

    def compared(self, document: Mapping[str, Any]) -> None:
        self._say("compared", **document)


class Lines(Silent):
    """Plain lines on stderr, for a pipe, a log or CI."""

    def __init__(self) -> None:
        self._speed = Speed()
        self._levels = (0, 0)
        self._said_s = 0.0

    def _say(self, text: str) -> None:
        click.echo(harmless(text), err=True)

    def opening(self, facts: Mapping[str, Any], lines: Sequence[str], plan: Plan) -> None:
        self._levels = (0, len(plan.levels))
        for line in lines:
            self._say(line)

    def note(self, text: str) -> None:
        self._say(text)

    def probed(self, probe: Mapping[str, Any]) -> None:
        if is_news(probe):
            self._say(probe_line(probe))

    def began(self, progress: Progress, planned: PlannedLevel) -> None:
        self._levels = (self._levels[0] + 1, self._levels[1])
        self._speed = Speed()
        self._said_s = time.monotonic()

    def tick(self, progress: Progress, text_events: int) -> None:
        per_s = self._speed.tokens_per_s(text_events)
        if time.monotonic() - self._said_s >= _LINE_EVERY_S:
            self._said_s = time.monotonic()
            self._say(f"{self._place(progress)}  {state(progress, per_s)}")

    def ended(self, progress: Progress, facts: Mapping[str, Any]) -> None:
        words = [f"{progress.completed} completed", *failures(progress), took(progress)]
        ending = "" if facts["status"] == "complete" else f"  {facts['status']}: {facts['reason']}"
        self._say(f"{self._place(progress)}  {facts['duration_s']:.1f} s, {', '.join(words)}{ending}")

    def skipped(self, level: Level, reason: str) -> None:
        self._levels = (self._levels[0] + 1, self._levels[1])
        self._say(f"{self._count()} {level.id}  skipped: {reason}")

    def step(self, model: str, step: Mapping[str, Any], text: str) -> None:
        self._say(text)

    def _place(self, progress: Progress) -> str:
        return f"{self._count()} {progress.level.id}"

    def _count(self) -> str:
        """As `[3/8]`; `[3]` where a search has no number of levels yet."""
        return f"[{self._levels[0]}/{self._levels[1]}]" if self._levels[1] else f"[{self._levels[0]}]"


class Speed:
    """Text events per second over the last few seconds."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, int]] = [(time.monotonic(), 0)]

    def tokens_per_s(self, text_events: int) -> float:
        now = time.monotonic()
        self._seen.append((now, text_events))
        while len(self._seen) > 2 and now - self._seen[1][0] > _RATE_OVER_S:
            self._seen.pop(0)
        (then, before), (now, after) = self._seen[0], self._seen[-1]
        return max(0.0, (after - before) / max(now - then, 1e-9))
