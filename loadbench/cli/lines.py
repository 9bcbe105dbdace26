"""The view that is no picture: plain lines on stderr, for a pipe. Results go to stdout."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from loadbench.runner.watch import View, expected_s
from loadbench.text import harmless, size

if TYPE_CHECKING:
    from loadbench.engine import Progress
    from loadbench.runner.plan import Plan, PlannedLevel
    from loadbench.scenario import Level
    from loadbench.store.histogram import Histogram

Facts = Mapping[str, Any]
"""Part of a JSON document, as it goes into the run folder."""
_LINE_EVERY_S = 5.0
_MINUTES_FROM_S = 90.0
_RATE_OVER_S = 3.0


class Lines(View):
    """Plain lines on stderr, for a pipe, a log or CI."""

    def __init__(self) -> None:
        self._speed = Speed()
        self._level = self._levels = 0
        self._written_s = 0.0
        self._quarters = 0  # of a download

    def note(self, text: str) -> None:
        click.echo(harmless(text), err=True)

    def opening(self, facts: Facts, lines: Sequence[str], plan: Plan) -> None:
        self._level, self._levels = 0, len(plan.levels)
        for line in lines:
            self.note(line)

    def fetching(self, what: str, done_bytes: int, whole_bytes: int) -> None:
        quarters = 4 * done_bytes // whole_bytes
        if quarters > self._quarters:
            self._quarters = quarters
            self.note(f"{what}: {size(done_bytes)} of {size(whole_bytes)}")

    def probed(self, probe: Facts) -> None:
        if is_news(probe):
            self.note(probe_line(probe))

    def expects(self, levels: Sequence[PlannedLevel]) -> None:
        self.note(expected_line(levels))

    def began(self, progress: Progress, planned: PlannedLevel) -> None:
        self._level += 1
        self._speed = Speed()
        self._written_s = time.monotonic()

    def tick(self, progress: Progress, text_events: int) -> None:
        per_s = self._speed.tokens_per_s(text_events)
        if time.monotonic() - self._written_s < _LINE_EVERY_S:
            return
        self._written_s = time.monotonic()
        requests = progress.limits.requests
        done = f"{progress.ended}/{requests}" if requests else str(progress.ended)
        words = [progress.phase, f"{progress.in_flight} in flight", f"{done} done", f"{per_s:,.0f} tokens/s"]
        self._level_line(progress.level, ", ".join([*words, percentiles(progress), *failures(progress)]))

    def ended(self, progress: Progress, facts: Facts) -> None:
        words = [f"{progress.completed} completed", *failures(progress), percentiles(progress)]
        ending = "" if facts["status"] == "complete" else f"  {facts['status']}: {facts['reason']}"
        self._level_line(progress.level, f"{facts['duration_s']:.1f} s, {', '.join(words)}{ending}")

    def skipped(self, level: Level, reason: str) -> None:
        self._level += 1
        self._level_line(level, f"skipped: {reason}")

    def step(self, model: str, step: Facts, text: str) -> None:
        self.note(text)

    def _level_line(self, level: Level, text: str) -> None:
        """As `[3/8] m@c4  ...`; `[3]` where a search has no number of levels yet."""
        count = f"{self._level}/{self._levels}" if self._levels else str(self._level)
        self.note(f"[{count}] {level.id}  {text}")


class Speed:
    """Text events per second over the last few seconds."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, int]] = [(time.monotonic(), 0)]

    def tokens_per_s(self, text_events: int) -> float:
        now = time.monotonic()
        self._seen.append((now, text_events))
        while len(self._seen) > 2 and now - self._seen[1][0] > _RATE_OVER_S:
            self._seen.pop(0)
        then, before = self._seen[0]
        return max(0.0, (text_events - before) / max(now - then, 1e-9))


# -- words


def timed(progress: Progress) -> tuple[str, Histogram]:
    """How long answers took: their TTFT; E2E where answers come whole."""
    name = "ttft" if progress.histograms["ttft"].count or not progress.histograms["e2e"].count else "e2e"
    return name.upper(), progress.histograms[name]


def percentiles(progress: Progress) -> str:
    """As `TTFT p50 43 ms, p95 44 ms`."""
    name, times = timed(progress)
    return f"{name} p50 {_milliseconds(times.percentile(0.5))}, p95 {_milliseconds(times.percentile(0.95))}"


def _milliseconds(us: float | None) -> str:
    """As `43 ms`; from a second on as `1.20 s`."""
    if us is None:
        return "-"
    if us < 1000:
        return f"{us / 1000:.1f} ms"
    return f"{us / 1000:,.0f} ms" if us < 1_000_000 else f"{us / 1e6:,.2f} s"


def failures(progress: Progress) -> list[str]:
    """How many requests failed, by kind, and how many were dropped."""
    words = [f"{n} {kind}" for kind, n in sorted(progress.errors.items())]
    if progress.dropped:
        words.append(f"{progress.dropped} dropped")
    return words


def expected_line(levels: Sequence[PlannedLevel]) -> str:
    """How long a model's levels take, by its first answers."""
    levels_in_words = "its level takes" if len(levels) == 1 else f"its {len(levels)} levels take"
    return f"{levels[0].level.model}: at that speed {levels_in_words} {about(*expected_s(levels))}"


def about(shortest_s: float, longest_s: float) -> str:
    """A length of time that is estimated.

    >>> about(61, 84), about(300, 900), about(80, 200)
    ('about 61 to 84 s', 'about 5 to 15 min', 'about 80 s to 3 min')
    """
    lengths = []
    for seconds in (shortest_s, longest_s):
        is_long = seconds >= _MINUTES_FROM_S
        lengths.append((f"{seconds / 60:.0f}", "min") if is_long else (f"{seconds:.0f}", "s"))
    (low, low_unit), (high, high_unit) = lengths
    if low_unit != high_unit:
        return f"about {low} {low_unit} to {high} {high_unit}"
    return f"about {low} {low_unit}" if low == high else f"about {low} to {high} {high_unit}"


def is_news(probe: Facts) -> bool:
    """Whether a person wants to see it now: that a model answers, or that it does not any more."""
    return probe["purpose"] == "first" or bool(probe["error"])


def probe_line(probe: Facts) -> str:
    """What came of a probe, in words."""
    if probe["error"]:
        return f"{probe['model']}: does not answer: {probe['error']}: {probe['error_message']}"
    if probe["ttft_ms"] is None:
        return f"{probe['model']}: answers, whole after {_milliseconds(probe['e2e_ms'] * 1000)}"
    return f"{probe['model']}: answers, first token after {_milliseconds(probe['ttft_ms'] * 1000)}"
