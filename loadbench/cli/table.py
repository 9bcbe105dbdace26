"""A live table on a terminal: levels done, the present one, those to come, and the time left."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table as Grid
from rich.text import Text

from loadbench.cli.live import Silent, Speed, harmless, is_news, probe_line

if TYPE_CHECKING:
    from loadbench.engine import Progress
    from loadbench.plan import Plan, PlannedLevel
    from loadbench.scenario import Level

_BAR_WIDTH = 9
_FIGURES = (" " * _BAR_WIDTH, "open", "done", "fail", "tok/s", "TTFT p50/p95")
_EMPTY = [Text()] * len(_FIGURES)
_GAP = 2  # between columns


class Table(Silent):
    """A live table on a terminal: levels done, the present one, those to come."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._live: Live | None = None
        self._plan: Plan | None = None
        self._rows: dict[str, list[Text]] = {}
        self._speed = Speed()
        self._clock = _TimeLeft()
        self._present: PlannedLevel | None = None

    def opening(self, facts: Mapping[str, Any], lines: Sequence[str], plan: Plan) -> None:
        self._plan = plan
        self._clock = _TimeLeft(plan)
        for line in lines:
            self._say(line)
        self._console.print()
        # Drawn from the run's own ticks: a refresh thread of rich's would fight the reader for the GIL.
        self._live = Live(self._render(""), console=self._console, auto_refresh=False, transient=True)

    def _say(self, line: str, style: str = "") -> None:
        # As a Text: print's own style and markup would hold for the live table too, which is drawn again below it.
        self._console.print(Text(harmless(line), style=style))

    def note(self, text: str) -> None:
        self._say(text, "yellow")

    def probed(self, probe: Mapping[str, Any]) -> None:
        if is_news(probe):
            self._say(probe_line(probe), "red" if probe["error"] else "dim")

    def began(self, progress: Progress, planned: PlannedLevel) -> None:
        self._speed, self._present = Speed(), planned
        if self._live is not None and not self._live.is_started:
            self._live.start()
        self.tick(progress, 0)

    def tick(self, progress: Progress, text_events: int) -> None:
        if self._live is None:
            return
        self._rows[progress.level.id] = self._cells(progress, self._speed.tokens_per_s(text_events))
        left = f" · {self._clock.left(progress)}" if self._plan and self._plan.levels else ""
        footer = progress.phase + left
        footer += f" · last error: {harmless(progress.last_error)}" if progress.last_error else ""
        self._live.update(self._render(footer), refresh=True)

    def ended(self, progress: Progress, facts: Mapping[str, Any]) -> None:
        self._clock.done(progress)
        whole_s = max(facts["duration_s"], 1e-9)
        cells = self._cells(progress, progress.text_events / whole_s)
        mark = Text("✓", "green") if facts["status"] == "complete" else Text(facts["status"], "red")
        self._rows[progress.level.id] = [mark, *cells[1:]]

    def skipped(self, level: Level, reason: str) -> None:
        self._rows[level.id] = [Text("skipped", "yellow"), *_EMPTY[1:]]
        self.note(f"{level.id} skipped: {reason}")

    def step(self, model: str, step: Mapping[str, Any], text: str) -> None:
        self._say(text)

    def close(self) -> None:
        if self._live is not None and self._live.is_started:
            self._live.stop()

    def _cells(self, progress: Progress, per_s: float) -> list[Text]:
        ttft = progress.histograms["ttft"]
        return [
            _bar(_share(progress)),
            Text(str(progress.in_flight)),
            Text(str(progress.completed)),
            Text(str(progress.failed), "red" if progress.failed else ""),
            Text(f"{per_s:,.0f}"),
            Text(_pair(ttft.percentile(0.5), ttft.percentile(0.95))),
        ]

    def _render(self, footer: str) -> RenderableType:
        planned = [one.level.id for one in self._plan.levels] if self._plan else []
        levels = self._shown(planned or list(self._rows))
        rows = [self._rows.get(level, _EMPTY) for level in levels]
        widths = [max(len(name), *(row[i].cell_len for row in rows)) for i, name in enumerate(_FIGURES)]
        room = max(12, self._console.width - sum(widths) - _GAP * len(widths))
        grid = Grid(box=box.SIMPLE_HEAD, padding=(0, _GAP - 1, 0, 0), pad_edge=False, show_edge=False)
        grid.add_column("level", no_wrap=True, overflow="ellipsis", max_width=room)
        for name in _FIGURES:
            grid.add_column(name, justify="right" if name.strip() else "left", no_wrap=True)
        for level, row in zip(levels, rows, strict=True):
            shown = Text(_short(harmless(level), room))
            grid.add_row(shown, *row, style=None if level in self._rows else "dim")
        last = Text(footer, style="dim", no_wrap=True)
        # A terminal writes ^C behind the footer: at the edge that would wrap, and the table's first line stay for good.
        last.truncate(max(1, self._console.width - 4), overflow="ellipsis")
        return Group(grid, last)

    def _shown(self, levels: Sequence[str]) -> Sequence[str]:
        """The levels around the present one that fit the screen."""
        room = max(3, self._console.height - 6)
        present = self._present.level.id if self._present else None
        at = levels.index(present) if present in levels else 0
        first = max(0, min(at - room // 2, len(levels) - room))
        return levels[first : first + room]


class _TimeLeft:
    """How long a run will still take: the plan's estimate, corrected by the levels that are done."""

    def __init__(self, plan: Plan | None = None) -> None:
        self._to_come = {one.level.id: one.shortest_s for one in plan.levels} if plan else {}
        self._planned_s = self._took_s = 0.0

    def done(self, progress: Progress) -> None:
        self._planned_s += self._to_come.pop(progress.level.id, 0.0)
        self._took_s += (progress.ended_ns - progress.began_ns) / 1e9

    def left(self, progress: Progress) -> str:
        share, now_ns = _share(progress), time.perf_counter_ns()
        here_s = (now_ns - progress.began_ns) / 1e9 if progress.began_ns else 0.0
        planned_s = self._to_come.get(progress.level.id, 0.0)
        level_s = max(planned_s, here_s)
        if share > 0.05 and progress.measured_from_ns is not None:  # warm-up is no part of the share
            measured_s = (now_ns - progress.measured_from_ns) / 1e9
            level_s = here_s - measured_s + measured_s / share
        ratio = (self._took_s + level_s) / max(self._planned_s + planned_s, 1e-9)
        rest_s = sum(s for level, s in self._to_come.items() if level != progress.level.id)
        minutes, seconds = divmod(round(max(0.0, level_s - here_s) + ratio * rest_s), 60)
        return f"about {minutes}:{seconds:02} left"


def _share(progress: Progress) -> float:
    """How much of a level is done, 0 to 1."""
    limits, shares = progress.limits, [0.0]
    if limits.requests:
        shares.append((progress.ended + progress.dropped) / limits.requests)
    if limits.duration_s and progress.measured_from_ns is not None:
        shares.append((time.perf_counter_ns() - progress.measured_from_ns) / 1e9 / limits.duration_s)
    return min(1.0, max(shares))


def _bar(share: float) -> Text:
    full = round(share * _BAR_WIDTH)
    return Text.assemble(("━" * full, "cyan"), ("━" * (_BAR_WIDTH - full), "bright_black"))


def _short(level: str, room: int) -> str:
    """A level's name cut in the middle of its model, so that variants and loads stay told apart."""
    if len(level) <= room:
        return level
    model, at, load = level.rpartition("@")
    keep = max(2, room - len(at + load) - 1)
    return f"{model[: keep - keep // 2]}…{model[-(keep // 2) :]}{at}{load}"


def _pair(low_us: int | None, high_us: int | None) -> str:
    """Two times in one unit: `269 / 481 ms`."""
    if low_us is None or high_us is None:
        return "-"
    unit, divisor, digits = ("ms", 1e3, 0) if high_us < 1_000_000 else ("s", 1e6, 2 if high_us < 100_000_000 else 0)
    return f"{low_us / divisor:.{digits}f} / {high_us / divisor:.{digits}f} {unit}"
