"""The view that is no picture: plain lines on stderr, for a pipe. Results go to stdout."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from loadbench.cli.harmless import harmless
from loadbench.cli.live.words import failures, is_news, probe_line, state, took
from loadbench.runner.view import Silent

if TYPE_CHECKING:
    from loadbench.engine import Progress
    from loadbench.runner.plan import Plan, PlannedLevel
    from loadbench.scenario import Level

_LINE_EVERY_S = 5.0
_RATE_OVER_S = 3.0


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
