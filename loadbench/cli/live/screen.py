"""The live picture on a terminal: drawn from the run's own ticks, with what is said once written above it."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType, Segment
from rich.text import Text

from loadbench.cli.live import frame
from loadbench.cli.live.course import Course
from loadbench.cli.live.doubts import Doubts
from loadbench.cli.live.signs import ASCII, BLOCKS
from loadbench.cli.live.words import is_news, probe_line
from loadbench.runner.view import Silent

if TYPE_CHECKING:
    from loadbench.engine import Progress
    from loadbench.runner.plan import Plan, PlannedLevel
    from loadbench.scenario import Level


class Screen(Silent):
    """A live picture on a terminal: levels done, the present one, those to come, and what goes wrong.

    Ticks come from a thread, all else from the run's task: a lock keeps them apart.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._signs = ASCII if _is_plain(self._console) else BLOCKS
        self._lock = threading.RLock()
        self._live: Live | None = None
        self._course: Course | None = None
        self._doubts = Doubts()
        self._drawn: tuple[int, list[int]] = (0, [])  # columns of the terminal then, and of each line

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The picture as it is now, for the terminal as it is now."""
        if self._course is None:
            return
        width, height = options.max_width, options.size.height
        lines = frame.lines(self._course, self._doubts.lines(), width, height, self._signs)
        self._drawn = width, [line.cell_len for line in lines]
        for line in lines:
            yield from line.render(console)
            yield Segment.line()

    def opening(self, facts: Mapping[str, Any], lines: Sequence[str], plan: Plan) -> None:
        for line in lines:
            self._say(line)
        self._console.print()
        self._course = Course(plan, list(facts.get("models") or ()), facts.get("budget_s"))
        # Drawn from the run's own ticks: a refresh thread of rich's would fight the reader for the GIL.
        self._live = Live(self, console=self._console, auto_refresh=False, transient=True)

    def note(self, text: str) -> None:
        self._say(text, "yellow")

    def probed(self, probe: Mapping[str, Any]) -> None:
        if is_news(probe):
            self._say(probe_line(probe), "red" if probe["error"] else "dim")

    def began(self, progress: Progress, planned: PlannedLevel) -> None:
        if self._course is None or self._live is None:
            return
        with self._lock:
            self._course.began(progress)
            if not self._live.is_started:
                self._live.start()
            self._draw()

    def tick(self, progress: Progress, text_events: int) -> None:
        if self._course is None:
            return
        with self._lock:
            self._course.tick(progress, text_events)
            self._doubts.look(progress)
            self._draw()

    def sampled(self, sample: Mapping[str, Any]) -> None:
        self._doubts.sampled(sample)

    def ended(self, progress: Progress, facts: Mapping[str, Any]) -> None:
        if self._course is None:
            return
        with self._lock:
            self._course.ended(progress, facts)
            self._doubts.look(progress, last=True)
            if facts["status"] == "failed":
                self._say(f"{progress.level.id} failed: {facts['reason']}", "red")
            else:
                self._draw()

    def skipped(self, level: Level, reason: str) -> None:
        with self._lock:
            if self._course is not None:
                self._course.skipped(level, reason)
            self.note(f"{level.id} skipped: {reason}")

    def step(self, model: str, step: Mapping[str, Any], text: str) -> None:
        with self._lock:
            if self._course is not None:
                self._course.step(model, step, text)

    def close(self) -> None:
        with self._lock, self._console:
            if self._live is not None and self._live.is_started:
                self._settle()
                self._live.stop()

    def _say(self, line: str, style: str = "") -> None:
        # As a Text: print's own style and markup would hold for the live picture too, which is drawn again below it.
        with self._lock, self._console:
            self._settle()
            self._console.print(Text(self._signs.safe(line), style=style))

    def _draw(self) -> None:
        with self._console:  # all in one write, or it flickers
            if self._live is not None and self._live.is_started:
                self._settle()
                self._live.refresh()

    def _settle(self) -> None:
        """Take away the rows that a terminal made of our lines when it became narrower: rich knows of none of them."""
        then, lines = self._drawn
        now = self._console.width
        if self._live is None or not self._live.is_started or not 0 < now < then or not _wraps_again():
            return
        more = sum((columns - 1) // now for columns in lines if columns)
        self._drawn = now, [min(columns, now) for columns in lines]
        if more:
            steps = ((ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1)) * more
            self._console.control(Control(ControlType.CARRIAGE_RETURN, *steps))


def _is_plain(console: Console) -> bool:
    """Whether blocks and bars would not come out: another encoding, a legacy console, or a locale that says so.

    Python speaks UTF-8 in the C locale too, but whoever chose it has a terminal that may not.
    """
    locale = os.environ.get("LC_ALL") or os.environ.get("LANG") or ""
    return console.options.ascii_only or console.legacy_windows or locale in ("C", "POSIX")


def _wraps_again() -> bool:
    """Whether this terminal wraps its lines anew when its width changes: most do, and the others are known."""
    environment = os.environ
    in_screen = "STY" in environment and "TMUX" not in environment
    return "XTERM_VERSION" not in environment and environment.get("TERM") != "linux" and not in_screen
