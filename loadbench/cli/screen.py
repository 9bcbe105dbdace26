"""The live picture on a terminal, drawn from the run's own ticks, with what is said once written above it.

level                tokens/s                  TTFT p50/p95  done  fail
▸ qwen2.5-0.5b  1 of 3 levels, best 60.2 tokens/s at c1
  ✓ c1     ▇▇█▇▇▇▇▇      60.2  ▃▃▂▂▄▄▃▂        288 / 467 ms    66     0
  ▸ c2     ▇▇█▇▇         55.0  ▃▃▂▂▄           374 / 711 ms    21     2
    c4

c2   ━━━━━━━━────────────  0:12 left, measuring, 2 in flight
run  ━━━━────────────────  about 1:20 left, level 2 of 3
! c2: 2 http_429; last: HTTP 429: too many requests

Its rows are lines of text, not a table of rich's: a table of 20 levels takes 23 ms to lay out, lines take 2 ms, and a
tick that holds the interpreter for 23 ms delays the stamps of tokens that arrive meanwhile.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rich import progress as bars
from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType, Segment
from rich.text import Text

from loadbench.cli.lines import Facts, expected_line, is_news, probe_line
from loadbench.cli.progress import Figures, Row, RunProgress, Search, Warnings, share_done
from loadbench.engine import Progress
from loadbench.runner.plan import Plan, PlannedLevel
from loadbench.runner.watch import View
from loadbench.scenario import Level
from loadbench.text import harmless

_MARKS = {
    "complete": ("✓", "green"),
    "failed": ("✗", "bold red"),
    "interrupted": ("✗", "yellow"),
    "skipped": ("-", "yellow"),
    "present": ("▸", "bold cyan"),
    "to come": (" ", "dim"),
    "undecided": ("?", "yellow"),
}
_RAMP = "▁▂▃▄▅▆▇█"
_ASCII = str.maketrans("▁▂▃▄▅▆▇█━─…✓✗▸", ".:-=+*#@=-~+x>")
_GAP = "  "
_SPARK_LEAST, _SPARK_MOST = 6, 24
_NAME_MOST = 16  # of a load
_WARNINGS_MOST = 3
_LAST_FREE = 4  # columns at the end of the last line: a terminal writes ^C there, and at the edge that would wrap


class Screen(View):
    """A live picture on a terminal: levels done, the present one, those to come, and what goes wrong.

    Ticks come from a thread, all else from the run's task: a lock keeps them apart.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        # Python speaks UTF-8 in the C locale too, but whoever chose it has a terminal that may not.
        locale = os.environ.get("LC_ALL") or os.environ.get("LANG") or ""
        no_blocks = self._console.options.ascii_only or self._console.legacy_windows
        self._ascii = no_blocks or locale in ("C", "POSIX")
        self._lock = threading.RLock()
        self._live: Live | None = None
        self._run: RunProgress | None = None
        self._warnings = Warnings()
        self._download: bars.Progress | None = None
        self._drawn: tuple[int, list[int]] = (0, [])  # columns of the terminal then, and of each line

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The picture as it is now, for the terminal as it is now."""
        if self._run is None:
            return
        width, height = options.max_width, options.size.height
        lines = Picture(self._run, self._warnings.lines(), width, height, ascii=self._ascii).lines()
        self._drawn = width, [line.cell_len for line in lines]
        for line in lines:
            yield from line.render(console)
            yield Segment.line()

    def opening(self, facts: Facts, lines: Sequence[str], plan: Plan) -> None:
        self._end_download()
        for line in lines:
            self._print(line)
        self._console.print()
        self._run = RunProgress(plan, list(facts.get("models") or ()), facts.get("budget_s"))
        # Drawn from the run's own ticks: a refresh thread of rich's would fight the reader for the GIL.
        self._live = Live(self, console=self._console, auto_refresh=False, transient=True)

    def note(self, text: str) -> None:
        self._print(text, "yellow")

    def fetching(self, what: str, done_bytes: int, whole_bytes: int) -> None:
        if self._download is None:
            times = bars.TimeRemainingColumn()
            columns = (bars.TextColumn("{task.description}"), bars.BarColumn(), bars.DownloadColumn(), times)
            self._download = bars.Progress(*columns, console=self._console, transient=True)
            self._download.add_task(what, total=whole_bytes)
            self._download.start()
        self._download.update(self._download.task_ids[0], completed=done_bytes)

    def probed(self, probe: Facts) -> None:
        if is_news(probe):
            self._print(probe_line(probe), "red" if probe["error"] else "dim")

    def expects(self, levels: Sequence[PlannedLevel]) -> None:
        self._print(expected_line(levels), "dim")
        if self._run is not None:
            self._run.expects(levels)

    def began(self, progress: Progress, planned: PlannedLevel) -> None:
        if self._run is None or self._live is None:
            return
        with self._lock:
            self._run.began(progress)
            if not self._live.is_started:
                self._live.start()
            self._draw()

    def tick(self, progress: Progress, text_events: int) -> None:
        if self._run is None:
            return
        with self._lock:
            self._run.tick(progress, text_events)
            self._warnings.check(progress)
            self._draw()

    def sampled(self, sample: Facts) -> None:
        self._warnings.sampled(sample)

    def ended(self, progress: Progress, facts: Facts) -> None:
        if self._run is None:
            return
        with self._lock:
            self._run.ended(progress, facts)
            self._warnings.check(progress, last=True)
            if facts["status"] == "failed":
                self._print(f"{progress.level.id} failed: {facts['reason']}", "red")
            else:
                self._draw()

    def skipped(self, level: Level, reason: str) -> None:
        with self._lock:
            if self._run is not None:
                self._run.skipped(level, reason)
            self.note(f"{level.id} skipped: {reason}")

    def step(self, model: str, step: Facts, text: str) -> None:
        with self._lock:
            if self._run is not None:
                self._run.step(model, step, text)

    def _end_download(self) -> None:
        if self._download is not None:
            self._download.stop()

    def close(self) -> None:
        self._end_download()
        with self._lock, self._console:
            if self._live is not None and self._live.is_started:
                self._unwrap()
                self._live.stop()

    def _print(self, line: str, style: str = "") -> None:
        # As a Text: print's own style and markup would hold for the live picture too, which is drawn again below it.
        with self._lock, self._console:
            self._unwrap()
            self._console.print(Text(_safe(line, self._ascii), style=style))

    def _draw(self) -> None:
        with self._console:  # all in one write, or it flickers
            if self._live is not None and self._live.is_started:
                self._unwrap()
                self._live.refresh()

    def _unwrap(self) -> None:
        """Take away the rows that a terminal made of our lines when it became narrower: rich knows of none of them."""
        then, lines = self._drawn
        now = self._console.width
        # Most terminals wrap their lines anew when their width changes; those that do not are known.
        environment = os.environ
        in_screen = "STY" in environment and "TMUX" not in environment
        cuts = in_screen or "XTERM_VERSION" in environment or environment.get("TERM") == "linux"
        if self._live is None or not self._live.is_started or not 0 < now < then or cuts:
            return
        more = sum((columns - 1) // now for columns in lines if columns)
        self._drawn = now, [min(columns, now) for columns in lines]
        if more:
            steps = ((ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1)) * more
            self._console.control(Control(ControlType.CARRIAGE_RETURN, *steps))


# -- the picture


@dataclass(frozen=True, slots=True)
class Picture:
    """The lines of the live picture, from what is known and the room there is."""

    run: RunProgress
    warnings: Sequence[tuple[str, str]]
    width: int
    height: int
    ascii: bool = False

    def lines(self) -> list[Text]:
        """Fewer lines than `height`, none wider than `width`."""
        below = self._bars()
        spare = self.height - 1 - len(below)
        shown = max(0, min(_WARNINGS_MOST, spare // 5, len(self.warnings)))
        warnings = [self._warning(level, text) for level, text in self.warnings[len(self.warnings) - shown :]]
        spare -= len(warnings)
        levels = self._levels(spare)
        gap = [Text()] if len(levels) < spare else []
        lines = [*levels, *gap, *below, *warnings][-max(1, self.height - 1) :]
        for line in lines[:-1]:
            line.truncate(self.width, overflow="crop")
        lines[-1].truncate(max(1, self.width - _LAST_FREE), overflow="crop")
        if self.ascii:
            for line in lines:
                line.plain = line.plain.translate(_ASCII)
        return lines

    def _safe(self, text: str) -> str:
        return _safe(text, self.ascii)

    def _bars(self) -> list[Text]:
        """Two bars: of the level, and of the run; of a search what its last step said."""
        present = self.run.present
        if present is None:
            return [Text()]
        row = self.run.rows[present.level.id]
        lines = []
        if (search := self.run.searches.get(present.level.model)) is not None:
            lines.append(Text(self._safe(f"last step  {search.step}"), style="dim"))
        name = self._safe(row.name)
        lead = max(3, min(_NAME_MOST, cell_len(name)))
        done, words = 1.0, [str(row.state)]
        if row.state == "present":
            done, words = share_done(present), [present.phase, f"{present.in_flight} in flight"]
            left_s = self.run.level_left_s(present)
            if left_s is not None and present.phase != "draining":
                words.insert(0, f"{_clock(left_s)} left")
            if present.limits.requests:
                words.append(f"{present.ended} of {present.limits.requests} requests")
        bar = min(30, self.width // 4)
        lines.append(self._bar(name, lead, bar, done, words))
        so_far_s = 0.0 if self.run.began_s is None else time.monotonic() - self.run.began_s
        total = len(self.run.rows)
        if not self.run.is_search:
            going = row.state == "present"
            left_s = self.run.left_s(present if going else None)
            done = so_far_s / max(so_far_s + left_s, 1e-9)
            level = min(total, sum(one.over for one in self.run.rows.values()) + going)
            words = [f"about {_clock(left_s)} left", f"level {level} of {total}"]
        elif self.run.budget_s is not None:
            done = so_far_s / self.run.budget_s if self.run.budget_s else 1.0
            words = [f"{_clock(self.run.budget_s - so_far_s)} left at most", f"step {total}"]
        else:
            bar, words = 0, [f"{_clock(so_far_s)} so far", f"step {total}"]
        lines.append(self._bar("run", lead, bar, done, words))
        return lines

    def _bar(self, name: str, lead: int, bar: int, done: float, words: Sequence[str]) -> Text:
        full = round(min(1.0, done) * bar)
        line = Text.assemble((set_cell_size(_short(name, lead), lead), "bold"))
        if bar:
            line.append_text(Text.assemble(_GAP, ("━" * full, "cyan"), ("─" * (bar - full), "bright_black")))
        return _append(line, [(word, "") for word in words], self.width - _LAST_FREE)

    def _warning(self, level: str, text: str) -> Text:
        row = self.run.rows.get(level)
        name = self._safe(level if row is None or len(self.run.models) > 1 else row.name)
        line = Text.assemble("! ", (_short(name, max(12, self.width // 3)), "bold"), f": {self._safe(text)}")
        line.stylize("yellow")
        room = self.width - _LAST_FREE
        if line.cell_len > room:
            line.truncate(room - 1, overflow="crop")
            line.append("…")
        return line

    # -- models and their levels

    def _levels(self, room: int) -> list[Text]:
        """The heading, a line a model, its levels below it; where there is no room, those around the present one."""
        if room < 2:
            return []
        by_model = self.run.by_model()
        entries = self._that_fit(by_model, room - 1)
        rows = [entry for entry in entries if isinstance(entry, Row)]
        models = [entry for entry in entries if isinstance(entry, str)]
        longest = max((cell_len(self._safe(model)) for model in models), default=0)
        lead = min(max([5, *(cell_len(self._safe(row.name)) for row in rows)]), _NAME_MOST, max(5, self.width // 4))
        timed = [row.figures.timed for row in rows if row.figures is not None] or ["TTFT"]
        widths = self._widths(rows, len(_GAP) + 2 + lead)
        head = Text(set_cell_size("level", len(_GAP) + 2 + lead), style="dim")
        for name, width in widths.items():
            words = _COLUMNS[name].head.replace("TTFT", timed[-1])
            head.append(_GAP + _COLUMNS[name].aligned(words, width))
        lines = [head]
        for entry in entries:
            if isinstance(entry, str):
                lines.append(self._model(entry, by_model[entry], min(longest, max(8, self.width // 2))))
            elif isinstance(entry, Row):
                lines.append(self._row(entry, lead, widths))
            else:
                lines.append(Text(f"    … {entry.text}", style="dim"))
        return lines

    def _that_fit(self, by_model: dict[str, list[Row]], room: int) -> list[_Entry]:
        entries: list[_Entry] = []
        if len(self.run.rows) + len(by_model) <= room:
            for model, rows in by_model.items():
                entries += [model, *rows]
            return entries
        present = self.run.present.level if self.run.present is not None else None
        models = list(by_model)
        at_model = models.index(present.model) if present is not None else 0
        rows = by_model[models[at_model]] if models else []
        at_row = rows.index(self.run.rows[present.id]) if present is not None else 0
        for_rows = max(room - len(models), min(room - 1, max(3, room // 2)))
        levels = _around(rows, at_row, min(len(rows), for_rows), "levels")
        for entry in _around(models, at_model, room - len(levels), "models"):
            entries.append(entry)
            if models and entry == models[at_model]:
                entries += levels
        return entries

    def _model(self, model: str, rows: Sequence[Row], width: int) -> Text:
        """A model's line: how far it is, and the best of it."""
        going = any(row.state == "present" for row in rows)
        over = [row for row in rows if row.over]
        bad = any(row.state == "failed" for row in rows) or all(row.state == "skipped" for row in rows)
        if going:
            kind = "present"
        elif not over or (len(over) < len(rows) and not self.run.is_search):
            kind = "to come"
        else:
            kind = "failed" if bad else "complete"
        levels = f"{len(rows)} level" if len(rows) == 1 else f"{len(rows)} levels"
        if self.run.is_search:
            words = [(_bracket(self.run.searches.get(model), rows), "dim")]
        else:
            words = [(f"{len(over)} of {levels}" if going or 0 < len(over) < len(rows) else levels, "dim")]
        if failed := sum(row.figures.failed for row in rows if row.figures is not None):
            words.append((f"{failed} failed", "red"))
        best = [(row.figures.tokens_per_s, row.name) for row in over if row.figures and row.figures.completed]
        if best and not self.run.is_search:
            per_s, name = max(best)
            words.append((f"best {per_s:,.1f} tokens/s at {name}", "dim"))
        name_text = Text(_short(self._safe(model), width), "" if kind == "to come" else "bold")
        name_text.truncate(width, pad=True)
        line = _append(Text.assemble(_MARKS[kind], " ", name_text), [word for word in words if word[0]], self.width)
        if kind == "to come":
            line.stylize("dim")
        return line

    def _widths(self, rows: Sequence[Row], lead: int) -> dict[str, int]:
        """Widths of the columns there is room for: as wide as their cells, sparklines in what is left."""
        widths: dict[str, int] = {}
        for name, column in _COLUMNS.items():
            if name == ("done" if self.run.is_search else "note"):
                continue
            least = _SPARK_LEAST if name in _SPARKS else cell_len(column.head)
            cells = [column.cell(row.figures, row.note) for row in rows if row.figures is not None]
            widths[name] = max([least, *map(cell_len, cells)])
        for name in sorted(_COLUMNS, key=lambda name: _COLUMNS[name].gives_way):
            if lead + sum(widths.values()) + len(_GAP) * len(widths) <= self.width:
                break
            widths.pop(name, None)
        left = self.width - lead - sum(widths.values()) - len(_GAP) * len(widths)
        sparks = [name for name in _SPARKS if name in widths]
        for name in sparks:
            widths[name] = min(_SPARK_MOST, _SPARK_LEAST + left // len(sparks))
        return widths

    def _row(self, row: Row, lead: int, widths: dict[str, int]) -> Text:
        verdict = {"not met": "failed", "undecided": "undecided"}.get(row.note) if row.state == "complete" else None
        load = set_cell_size(_short(self._safe(row.name), lead), lead)
        line = Text.assemble(_GAP, _MARKS[verdict or row.state], " ", (load, "bold" if row.state == "present" else ""))
        if row.state == "to come":
            line.stylize("dim")
            return line
        if row.figures is None:
            line.append(_GAP + self._safe(row.note), "yellow")
            return line
        for name, width in widths.items():
            text, style = _COLUMNS[name].cell(row.figures, row.note), ""
            if name == "speeds" and row.trace is not None:
                text, style = _spark(row.trace.tokens_per_s(width)), "cyan"
            elif name == "times" and row.trace is not None:
                text, style = _spark(_lasting(row.trace.times_us(width))), "magenta"
            elif name == "failed" and row.figures.failed:
                style = "bold red"
            line.append(_GAP)
            line.append(_COLUMNS[name].aligned(text, width), style)
        return line


class _Gap(NamedTuple):
    """Lines that the screen has no room for."""

    text: str


_Entry = str | Row | _Gap


def _around(entries: Sequence[_Entry], at: int, room: int, what: str) -> list[_Entry]:
    """Those around one of them that there is room for; what is left out is counted on a line of its own."""
    if len(entries) <= room:
        return list(entries)
    if room < 3:
        return list(entries[at : at + min(1, max(0, room))])
    inside = room - 2
    first = max(0, min(at - inside // 2, len(entries) - inside))
    if first <= 1:  # a line that says "1 more" may as well be that one
        first, inside = 0, room - 1
    elif first + inside >= len(entries) - 1:
        first, inside = len(entries) - (room - 1), room - 1
    rest = len(entries) - first - inside
    shown = list(entries[first : first + inside])
    if first:
        shown.insert(0, _Gap(f"{first} more {what} above"))
    if rest:
        shown.append(_Gap(f"{rest} more {what} below"))
    return shown


def _bracket(search: Search | None, rows: Sequence[Row]) -> str:
    """As `from 4 to less than 8 streams`."""
    if search is None:
        return "search begins" if rows else ""
    requests = bool(rows) and rows[0].level.concurrency is None

    def load(value: float) -> str:
        return f"{value:g} {'requests/s' if requests else 'stream' if value == 1 else 'streams'}"

    low, high = search.bracket
    if search.found is not None:
        return f"capacity {load(search.found)}"
    if low is None:
        return "" if high is None else f"less than {load(high)}"
    return f"at least {load(low)}" if high is None else f"from {low:g} to less than {load(high)}"


# -- signs and words


def _safe(text: str, ascii_only: bool) -> str:
    """The text of others, harmless to a terminal and fit for its encoding."""
    text = harmless(text)
    return text.encode("ascii", "replace").decode() if ascii_only else text


def _append(line: Text, words: Iterable[tuple[str, str]], width: int) -> Text:
    """The line with as many of the words, each with its style, as there is room for; none is cut.

    >>> _append(Text("c4"), [("0:12 left", "bold"), ("measuring", ""), ("1 of 9", "")], 26).plain
    'c4  0:12 left, measuring'
    """
    between = _GAP
    for word, style in words:
        if line.cell_len + cell_len(between + word) > width:
            break
        line.append(between + word, style)
        between = ", "
    return line


def _short(name: str, room: int) -> str:
    """A name cut in its middle, so that variants and loads stay apart.

    >>> _short("Phi-4-mini-instruct-cuda-gpu:5@c16", 20)
    'Phi-4-mi…a-gpu:5@c16'
    """
    if cell_len(name) <= room:
        return name
    model, at, load = name.rpartition("@")
    tail = at + load if at and cell_len(load) < room // 2 else ""
    model = model if tail else name
    keep = max(2, room - cell_len(tail) - 1)
    head = set_cell_size(model, keep - keep // 2).rstrip()
    end = model
    while cell_len(end) > keep // 2:
        end = end[1:]
    return f"{head}…{end}{tail}"


def _spark(values: Sequence[float | None]) -> str:
    """Signs as high as the values, from 0 to the highest of them; a blank for what is not known.

    >>> _spark([0, 4, None, 8])
    '▁▅ █'
    """
    top = max((value for value in values if value is not None), default=0.0) or 1.0
    signs = ""
    for value in values:
        signs += " " if value is None else _RAMP[min(len(_RAMP) - 1, int(value / top * len(_RAMP)))]
    return signs


def _lasting(values: Sequence[float | None]) -> list[float | None]:
    """Each value over the time before it in which there was none: the requests that it is of were under way then.

    >>> _lasting([None, 7.0, None, None, 5.0, None])
    [7.0, 7.0, 5.0, 5.0, 5.0, None]
    """
    filled: list[float | None] = []
    following = None
    for value in reversed(values):
        following = value if value is not None else following
        filled.insert(0, following)
    return filled


def _speed(tokens_per_s: float) -> str:
    return f"{tokens_per_s:,.1f}" if tokens_per_s < 100 else f"{tokens_per_s:,.0f}"


def _pair(low_us: int | None, high_us: int | None) -> str:
    """Two times in one unit.

    >>> _pair(269_000, 481_000), _pair(269_000, 1_204_000), _pair(None, None)
    ('269 / 481 ms', '0.27 / 1.20 s', '-')
    """
    if low_us is None or high_us is None:
        return "-"
    unit, divisor, digits = "ms", 1e3, 0
    if high_us < 10_000:
        digits = 1
    elif high_us >= 1_000_000:
        unit, divisor, digits = "s", 1e6, 2 if high_us < 100_000_000 else 0
    return f"{low_us / divisor:.{digits}f} / {high_us / divisor:.{digits}f} {unit}"


def _clock(seconds: float) -> str:
    """As `1:05`; from an hour on as `1:02:05`.

    >>> _clock(4.6), _clock(59.7), _clock(3725)
    ('0:05', '1:00', '1:02:05')
    """
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


class _Column(NamedTuple):
    """A column of a level's figures; the first ones to give way, where the terminal is narrow, have low numbers."""

    head: str
    gives_way: int
    cell: Callable[[Figures, str], str]
    at_left: bool = False

    def aligned(self, text: str, width: int) -> str:
        return text.ljust(width) if self.at_left else text.rjust(width)


_SPARKS = ("speeds", "times")
_COLUMNS = {
    "speeds": _Column("", 3, lambda figures, note: "", at_left=True),
    "per_s": _Column("tokens/s", 6, lambda figures, note: _speed(figures.tokens_per_s)),
    "times": _Column("", 2, lambda figures, note: "", at_left=True),
    "took": _Column("TTFT p50/p95", 4, lambda figures, note: _pair(figures.p50_us, figures.p95_us)),
    "done": _Column("done", 1, lambda figures, note: str(figures.completed)),
    "failed": _Column("fail", 7, lambda figures, note: str(figures.failed)),
    "note": _Column("SLO", 5, lambda figures, note: note, at_left=True),
}
