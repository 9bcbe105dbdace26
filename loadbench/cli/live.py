"""What a run shows while it goes on: a live table to a person, plain lines to a pipe, JSON lines to a program.

Progress goes to stderr, results to stdout; JSON lines all go to stdout.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import click

from loadbench.session import Observer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from loadbench.engine import Progress
    from loadbench.plan import Plan, PlannedLevel
    from loadbench.scenario import Level

_LINE_EVERY_S = 5.0
_RATE_OVER_S = 3.0


class View(Observer, Protocol):
    """An observer that also opens and closes."""

    def opening(self, facts: Mapping[str, Any], lines: Sequence[str], plan: Plan) -> None: ...
    def close(self) -> None: ...
    def summary(self, summary: Mapping[str, Any]) -> None: ...


def view(*, as_json: bool, quiet: bool, progress: bool) -> View:
    """The view for this user: `--json`, `--quiet`, a terminal, or a pipe."""
    if as_json:
        return JsonLines()
    if quiet:
        return Silent()
    return Table() if progress and sys.stderr.isatty() else Lines()


class Silent:
    """Nothing but errors, and they are not a view's."""

    def opening(self, facts: Mapping[str, Any], lines: Sequence[str], plan: Plan) -> None: ...
    def note(self, text: str) -> None: ...
    def probed(self, probe: Mapping[str, Any]) -> None: ...
    def began(self, progress: Progress, planned: PlannedLevel) -> None: ...
    def tick(self, progress: Progress, text_events: int) -> None: ...
    def ended(self, progress: Progress, facts: Mapping[str, Any]) -> None: ...
    def skipped(self, level: Level, reason: str) -> None: ...
    def summary(self, summary: Mapping[str, Any]) -> None: ...
    def close(self) -> None: ...


class JsonLines(Silent):
    """One JSON object a line on stdout, each with its `event`; the last one is the summary."""

    def _say(self, event: str, **fields: Any) -> None:
        import orjson

        sys.stdout.buffer.write(orjson.dumps({"event": event, **fields}, option=orjson.OPT_APPEND_NEWLINE))
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

    def summary(self, summary: Mapping[str, Any]) -> None:
        self._say("summary", summary=summary)


class Lines(Silent):
    """Plain lines on stderr, for a pipe, a log or CI."""

    def __init__(self) -> None:
        self._speed = _Speed()
        self._levels = (0, 0)
        self._said_s = 0.0

    def _say(self, text: str) -> None:
        click.echo(text, err=True)

    def opening(self, facts: Mapping[str, Any], lines: Sequence[str], plan: Plan) -> None:
        self._levels = (0, len(plan.levels))
        for line in lines:
            self._say(line)

    def note(self, text: str) -> None:
        self._say(text)

    def probed(self, probe: Mapping[str, Any]) -> None:
        self._say(_probe_line(probe))

    def began(self, progress: Progress, planned: PlannedLevel) -> None:
        self._levels = (self._levels[0] + 1, self._levels[1])
        self._speed = _Speed()
        self._said_s = time.monotonic()

    def tick(self, progress: Progress, text_events: int) -> None:
        per_s = self._speed.tokens_per_s(text_events)
        if time.monotonic() - self._said_s >= _LINE_EVERY_S:
            self._said_s = time.monotonic()
            self._say(f"{self._place(progress)}  {_state(progress, per_s)}")

    def ended(self, progress: Progress, facts: Mapping[str, Any]) -> None:
        words = [f"{progress.completed} completed", *_failures(progress), f"TTFT {_ttft(progress)}"]
        ending = "" if facts["status"] == "complete" else f"  {facts['status']}: {facts['reason']}"
        self._say(f"{self._place(progress)}  {facts['duration_s']:.1f} s, {', '.join(words)}{ending}")

    def skipped(self, level: Level, reason: str) -> None:
        self._levels = (self._levels[0] + 1, self._levels[1])
        self._say(f"[{self._levels[0]}/{self._levels[1]}] {level.id}  skipped: {reason}")

    def _place(self, progress: Progress) -> str:
        return f"[{self._levels[0]}/{self._levels[1]}] {progress.level.id}"


class Table(Silent):
    """A live table on a terminal: levels done, the present one, those to come."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(stderr=True)
        self._live: Live | None = None
        self._plan: Plan | None = None
        self._rows: dict[str, list[str]] = {}
        self._speed = _Speed()
        self._clock = _TimeLeft()
        self._present: PlannedLevel | None = None

    def opening(self, facts: Mapping[str, Any], lines: Sequence[str], plan: Plan) -> None:
        from rich.live import Live

        self._plan = plan
        self._clock = _TimeLeft(plan)
        for line in lines:
            self._console.print(line, markup=False, highlight=False)
        self._console.print()
        # Drawn from the run's own ticks: a refresh thread of rich's would fight the reader for the GIL.
        self._live = Live(self._render(""), console=self._console, auto_refresh=False, transient=True)

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, style="yellow")

    def probed(self, probe: Mapping[str, Any]) -> None:
        self._console.print(_probe_line(probe), markup=False, highlight=False, style="red" if probe["error"] else "dim")

    def began(self, progress: Progress, planned: PlannedLevel) -> None:
        self._speed, self._present = _Speed(), planned
        if self._live is not None and not self._live.is_started:
            self._live.start()
        self.tick(progress, 0)

    def tick(self, progress: Progress, text_events: int) -> None:
        if self._live is None:
            return
        self._rows[progress.level.id] = self._cells(progress, self._speed.tokens_per_s(text_events))
        left = self._clock.left(progress)
        footer = progress.phase + (f" · last error: {progress.last_error}" if progress.last_error else "")
        self._live.update(self._render(f"{footer} · {left}"), refresh=True)

    def ended(self, progress: Progress, facts: Mapping[str, Any]) -> None:
        self._clock.done(progress)
        whole_s = max(facts["duration_s"], 1e-9)
        cells = self._cells(progress, progress.text_events / whole_s)
        mark = "[green]✓[/]" if facts["status"] == "complete" else f"[red]{facts['status']}[/]"
        self._rows[progress.level.id] = [cells[0], mark, *cells[2:]]

    def skipped(self, level: Level, reason: str) -> None:
        from rich.markup import escape

        self._rows[level.id] = [escape(level.id), "[yellow]skipped[/]", "", "", "", "", ""]
        self.note(f"{level.id} skipped: {reason}")

    def close(self) -> None:
        if self._live is not None and self._live.is_started:
            self._live.stop()

    def _cells(self, progress: Progress, per_s: float) -> list[str]:
        from rich.markup import escape

        ttft = progress.histograms["ttft"]
        return [
            escape(progress.level.id),
            _bar(_share(progress)),
            str(progress.in_flight),
            str(progress.completed),
            f"[red]{progress.failed}[/]" if progress.failed else "0",
            f"{per_s:,.0f}",
            f"{_ms(ttft.percentile(0.5))} / {_ms(ttft.percentile(0.95))}",
        ]

    def _render(self, footer: str) -> RenderableType:
        from rich import box
        from rich.console import Group
        from rich.table import Table as Grid
        from rich.text import Text

        grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        grid.add_column("level", no_wrap=True, overflow="ellipsis", max_width=30)
        grid.add_column("", min_width=9)
        for name in ("open", "done", "fail", "tok/s", "TTFT p50/p95"):
            grid.add_column(name, justify="right", no_wrap=True)
        levels = [one.level.id for one in self._plan.levels] if self._plan else []
        for level in self._shown(levels):
            grid.add_row(
                *self._rows.get(level, [Text(level), "", "", "", "", "", ""]),
                style=None if level in self._rows else "dim",
            )
        return Group(grid, Text(footer, style="dim", no_wrap=True, overflow="ellipsis"))

    def _shown(self, levels: Sequence[str]) -> Sequence[str]:
        """The levels around the present one that fit the screen."""
        room = max(3, self._console.height - 6)
        present = self._present.level.id if self._present else None
        at = levels.index(present) if present in levels else 0
        first = max(0, min(at - room // 2, len(levels) - room))
        return levels[first : first + room]


class _Speed:
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


class _TimeLeft:
    """How long a run will still take: the plan's estimate, corrected by the levels that are done."""

    def __init__(self, plan: Plan | None = None) -> None:
        self._to_come = {one.level.id: one.shortest_s for one in plan.levels} if plan else {}
        self._planned_s = self._took_s = 0.0

    def done(self, progress: Progress) -> None:
        self._planned_s += self._to_come.pop(progress.level.id, 0.0)
        self._took_s += (progress.ended_ns - progress.began_ns) / 1e9

    def left(self, progress: Progress) -> str:
        share = _share(progress)
        here_s = (time.perf_counter_ns() - progress.began_ns) / 1e9 if progress.began_ns else 0.0
        planned_s = self._to_come.get(progress.level.id, 0.0)
        level_s = here_s / share if share > 0.05 else max(planned_s, here_s)
        ratio = (self._took_s + level_s) / max(self._planned_s + planned_s, 1e-9)
        rest_s = sum(s for level, s in self._to_come.items() if level != progress.level.id)
        left_s = max(0.0, level_s - here_s) + ratio * rest_s
        return f"about {left_s // 60:.0f}:{left_s % 60:02.0f} left"


def _share(progress: Progress) -> float:
    """How much of a level is done, 0 to 1."""
    limits, shares = progress.limits, [0.0]
    if limits.requests:
        shares.append((progress.ended + progress.dropped) / limits.requests)
    if limits.duration_s and progress.measured_from_ns is not None:
        shares.append((time.perf_counter_ns() - progress.measured_from_ns) / 1e9 / limits.duration_s)
    return min(1.0, max(shares))


def _bar(share: float, width: int = 9) -> str:
    full = round(share * width)
    return f"[cyan]{'━' * full}[/][bright_black]{'━' * (width - full)}[/]"


def _ms(us: int | None) -> str:
    if us is None:
        return "-"
    return f"{us / 1000:,.0f} ms" if us < 1_000_000 else f"{us / 1e6:,.2f} s"


def _ttft(progress: Progress) -> str:
    ttft = progress.histograms["ttft"]
    return f"p50 {_ms(ttft.percentile(0.5))}, p95 {_ms(ttft.percentile(0.95))}"


def _failures(progress: Progress) -> list[str]:
    words = [f"{n} {kind}" for kind, n in sorted(progress.errors.items())]
    return words + ([f"{progress.dropped} dropped"] if progress.dropped else [])


def _state(progress: Progress, per_s: float) -> str:
    done = f"{progress.ended}/{progress.limits.requests}" if progress.limits.requests else str(progress.ended)
    words = [progress.phase, f"{progress.in_flight} in flight", f"{done} done", f"{per_s:,.0f} tokens/s"]
    return ", ".join([*words, f"TTFT {_ttft(progress)}", *_failures(progress)])


def _probe_line(probe: Mapping[str, Any]) -> str:
    if probe["error"]:
        return f"{probe['model']}: does not answer: {probe['error']}: {probe['error_message']}"
    return f"{probe['model']}: answers, first token after {_ms(round(probe['ttft_ms'] * 1000))}"
