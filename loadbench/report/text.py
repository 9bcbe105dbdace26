"""The report for a terminal, by rich: readable at 80 columns, better at 120; no colour where it is not wanted."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TextIO

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from loadbench.report import (
    breakdowns,
    capacity,
    costs,
    devices,
    endpoints,
    headline,
    levels,
    models,
    notes,
    provenance,
    repeats,
    scaling,
    thresholds,
    workers,
)
from loadbench.report.comparison import of_run
from loadbench.report.levels import Summary
from loadbench.report.tables import Cell, Column, Table, answers, gaps
from loadbench.report.tables import headline as headline_tables
from loadbench.text import ascii_only, one_line

WORST_PROMPTS = 3
_FOLDED = 12
"""What a column of text may shrink to before figures give way."""
_ENDLESS = 1_000_000
"""Columns that a pipe has."""
_PIECE = re.compile(r"\S*?\w[/_@-](?=[^\W\d_]{2})|\S+\s*|\s+")
"""What stays together where a column folds: a word, or a part of a name up to the sign that ends it."""
SEVERITY_STYLES = {"red": "bold red", "warn": "yellow"}


def render(summary: Summary, width: int = 100) -> str:
    """The report as text without colour, at most `width` columns wide."""
    return plain(lambda console: tables(summary, console), width)


def console(stream: TextIO) -> Console:
    """Where a command prints its tables: on a terminal as wide as that is, into a pipe or a file a row a line."""
    return Console(file=stream, soft_wrap=not stream.isatty())


def tables(summary: Summary, console: Console) -> None:
    """Prints the whole report on `console`."""
    print_parts(_parts(summary, console), console)


def plain(show: Callable[[Console], None], width: int) -> str:
    """What `show` prints, as text without colour, at most `width` columns wide."""
    text = io.StringIO()
    show(Console(file=text, width=width, color_system=None, force_terminal=False, legacy_windows=False))
    return text.getvalue().rstrip() + "\n"


def print_parts(parts: Iterable[RenderableType], console: Console) -> None:
    """Prints the parts of a report, an empty line after each."""
    for part in parts:
        print_part(part, console)
        console.print()


def print_part(part: RenderableType, console: Console) -> None:
    """Prints a part of a report. Prose fits the console; a table may be wider, and is not cut."""
    shown = for_output(part, console)
    console.print(shown, highlight=False, soft_wrap=shown is not part, crop=False)


def _parts(summary: Summary, console: Console) -> Iterable[RenderableType]:
    yield _heading(summary)
    yield Group(*_sentences(summary))
    yield _facts(summary)
    if not levels.levels(summary):
        yield Text("No level was measured.")
    for by_model in (
        capacity.steps(summary),
        headline_tables(summary),
        endpoints.tables(summary),
        workers.tables(summary),
        repeats.tables(summary),
    ):
        yield from grids(by_model, console)
    for single in (scaling.knees(summary), scaling.law(summary)):
        yield from grids([single] if single else [], console)
    for by_model in (gaps(summary), answers(summary), breakdowns.open_loop(summary)):
        yield from grids(by_model, console)
    yield from _against_each_other(summary, console)
    for table in devices.side_by_side(summary):
        yield from grids([table], console)
    for single in (
        thresholds.table(summary),
        breakdowns.slo(summary),
        breakdowns.errors(summary),
        models.cold_start(summary),
        models.memory(summary),
    ):
        yield from grids([single] if single else [], console)
    for by_model in (costs.machine(summary), costs.energy(summary), costs.server(summary)):
        yield from grids(by_model, console)
    yield from grids(_worst_prompts(summary), console)
    yield from _doubts(summary)
    if console.is_terminal and levels.levels(summary):  # the beginning has scrolled away
        yield Group(Text("In short", style="bold"), *_sentences(summary))
    yield Text("What each figure means: report.md in the run folder, section Definitions.", style="dim")


def _against_each_other(summary: Summary, console: Console) -> Iterable[RenderableType]:
    """What is said of the run's models held against the first, and the verdicts that say it."""
    lines = of_run.sentences(summary)
    if lines:
        yield Group(Text(of_run.TITLE, style="bold"), *(bullet(Text(one_line(s, 2000))) for s in lines))
    yield from grids(of_run.means(summary), console)


def _heading(summary: Summary) -> RenderableType:
    heading = Text.assemble(("loadbench", "bold cyan"), "  ", (provenance.title(summary), "bold"))
    date = provenance.date(summary)
    if date:
        heading.append(f"  {date}", style="dim")
    if levels.is_simulated(summary):
        return Group(heading, Text(), Text(f" {provenance.SIMULATED} ", style="bold black on yellow"))
    return heading


def _sentences(summary: Summary) -> Iterable[RenderableType]:
    for line in thresholds.sentences(summary):
        style = "bold green" if line.startswith("passed") else "bold yellow" if line.startswith("not ") else "bold red"
        yield bullet(Text(f"{one_line(line, 1000)}.", style=style))
    for answer in capacity.sentences(summary):
        yield bullet(Text(f"{one_line(answer, 1000)}.", style="bold"))
    for sentence in headline.sentences(summary):
        said = Text.assemble((one_line(sentence.model), "bold"), ": ", one_line(sentence.text, 1000), ".")
        if sentence.doubt:
            said.append(f" {one_line(sentence.doubt, 1000)}.".replace(" not a", " Not a", 1), style="bold red")
        yield bullet(said)


def _facts(summary: Summary) -> RenderableType:
    grid = Grid.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    previous = ""
    for name, text in provenance.facts(summary):
        grid.add_row("" if name == previous else name, Text(text))
        previous = name
    return Padding(grid, (0, 0, 0, 2))


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where a table's intervals stand from their figures, and the blanks between columns, at least 1."""

    intervals: Literal["behind", "beneath", "nowhere"]
    gap: int


_LAYOUTS = (_Layout("behind", 2), _Layout("beneath", 2), _Layout("beneath", 1), _Layout("nowhere", 1))


def grids(found: Sequence[Table], console: Console) -> Iterable[RenderableType]:
    """One table a model, under one another with the same widths; what all their notes say is said once, beneath."""
    if not found:
        return
    room = _ENDLESS if console.soft_wrap else console.width
    parts: list[RenderableType] = []
    hidden = False
    for some in _side_by_side(found, room):
        layout = _layout(some, room)
        columns = _columns(some, layout)
        widths = _widths(some, layout, columns, room)
        hidden |= layout.intervals == "nowhere" and any(cell.interval for t in some for row in t.rows for cell in row)
        for table in some:
            title = Text(one_line(table.title) if not parts else "", style="bold")
            if len(found) > 1:
                title.append(Text(f"{' · ' if title.plain else ''}{one_line(table.model)}", style="bold cyan"))
            parts += [Text()] if parts else []
            parts += [title] if title.plain else []
            parts.append(_grid(table, layout, columns, widths))
    said = dict.fromkeys(note for table in found for note in table.notes)
    yield Group(*parts, *(_note(n) for n in (*said, *(("95% intervals are in report.md",) if hidden else ()))))


def _side_by_side(found: Sequence[Table], room: int) -> Iterable[Sequence[Table]]:
    """The tables; where even the tightest layout has no room for a row, with some columns first, then with the others.

    A figure that is cut would be another figure.
    """
    layout = _layout(found, room)
    widths = _least(found, _columns(found, layout), broken=True)
    groups: list[list[int]] = [[0]]
    for i in range(1, len(widths)):
        group = [*groups[-1], i]
        fits = sum(widths[at] for at in group) + layout.gap * (len(group) - 1) <= room
        if fits or len(groups[-1]) == 1:
            groups[-1] = group
        else:
            groups.append([0, i])
    for group in groups:
        yield [
            replace(
                table,
                columns=tuple(table.columns[i] for i in group),
                rows=tuple(tuple(row[i] for i in group) for row in table.rows),
            )
            for table in found
        ]


@dataclass(frozen=True, slots=True)
class _Shape:
    """What the cells of a column share over all models: its width, that of intervals behind figures, a place for *."""

    width: int
    interval: int
    marked: bool


def _grid(table: Table, layout: _Layout, shapes: Sequence[_Shape], widths: Sequence[int]) -> Grid:
    grid = Grid(
        box=box.SIMPLE_HEAD, padding=(0, layout.gap - 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold"
    )
    grid.width = sum(widths) + layout.gap * (len(widths) - 1)  # or rich would cut it to the console's
    for column, shape, width in zip(table.columns, shapes, widths, strict=True):
        head = _folded(_head(column), width) if column.left else _aligned(_head(column), shape.width)
        grid.add_column(head, no_wrap=True, width=width, vertical="top")
    for row in table.rows:
        cells = []
        for cell, column, shape, width in zip(row, table.columns, shapes, widths, strict=True):
            lines = _lines(cell, layout, shape)
            cells.append(_folded(lines, width) if column.left else _aligned(lines, shape.width))
        grid.add_row(*cells)
    return grid


def _layout(found: Sequence[Table], room: int) -> _Layout:
    """The roomiest layout in which all words are whole; else in which what may fold does so anywhere."""
    for broken in (False, True):
        for layout in _LAYOUTS:
            least = _least(found, _columns(found, layout), broken=broken)
            if sum(least) + layout.gap * (len(least) - 1) <= room:
                return layout
    return _LAYOUTS[-1]


def _widths(found: Sequence[Table], layout: _Layout, shapes: Sequence[_Shape], room: int) -> list[int]:
    """Each column's width: those that fold share the room that the figures leave, what would be tallest first."""
    room -= layout.gap * (len(shapes) - 1)
    widths = [shape.width for shape in shapes]
    if sum(widths) <= room:
        return widths
    widths = _least(found, shapes, broken=False)
    if sum(widths) > room:
        widths = _least(found, shapes, broken=True)
    may_fold = [i for i in range(len(shapes)) if _folds(found[0], i)]
    while sum(widths) > room and (wide := [i for i in may_fold if widths[i] > 1]):
        widths[max(wide, key=lambda i: widths[i])] -= 1
    while sum(widths) < room and (narrow := [i for i in may_fold if widths[i] < shapes[i].width]):
        widths[max(narrow, key=lambda i: shapes[i].width / widths[i])] += 1
    return widths


def _least(found: Sequence[Table], shapes: Sequence[_Shape], *, broken: bool) -> list[int]:
    """The least width of each column; one that folds keeps its longest piece whole, unless it may be broken."""
    widths = []
    for i, shape in enumerate(shapes):
        width = shape.width
        if _folds(found[0], i):
            texts = [line.plain for line in _head(found[0].columns[i])]
            texts += [one_line(row[i].text) for table in found for row in table.rows]
            longest = max(cell_len(piece.rstrip()) for text in texts for piece in _PIECE.findall(text))
            width = min(width, _FOLDED if broken else max(longest, _FOLDED))
        widths.append(width)
    return widths


def _folded(lines: Sequence[Text], width: int) -> Text:
    """Lines cut into such of a width: between words, else after the signs that part names, else anywhere.

    >>> _folded([Text("20260112T090000Z-sweep interrupted")], 18).plain.split("\\n")
    ['20260112T090000Z-', 'sweep interrupted']
    """
    folded: list[Text] = []
    for line in lines:
        ends, begun = [], 0
        for piece in _PIECE.finditer(line.plain):
            if begun < piece.start() and cell_len(line.plain[begun : piece.end()].rstrip()) > width:
                begun = piece.start()
                ends.append(begun)
            while cell_len(line.plain[begun : piece.end()].rstrip()) > width:
                begun += max(1, width // 2 if cell_len(line.plain[begun]) > 1 else width)
                ends.append(begun)
        for part in line.divide(ends):
            part.rstrip()
            folded.append(part)
    return Text("\n").join(folded)


def _folds(table: Table, i: int) -> bool:
    """Whether a column may fold: text other than a level's short name."""
    return table.columns[i].left and (i > 0 or table.model is None)


def _columns(found: Sequence[Table], layout: _Layout) -> list[_Shape]:
    """The shape of each column over all models, which have the same columns."""
    shapes = []
    for i, column in enumerate(found[0].columns):
        cells = [row[i] for table in found for row in table.rows]
        behind = max((cell_len(cell.interval) for cell in cells), default=0) if layout.intervals == "behind" else 0
        shape = _Shape(0, behind, any(cell.marked for cell in cells))
        lines = [line for cell in cells for line in _lines(cell, layout, shape)]
        shapes.append(replace(shape, width=max(line.cell_len for line in (*_head(column), *lines))))
    return shapes


def _head(column: Column) -> list[Text]:
    return [Text(line) for line in (column.short or column.name, column.unit) if line]


def _lines(cell: Cell, layout: _Layout, shape: _Shape) -> list[Text]:
    """A figure, its mark or the blank that keeps digits aligned, its interval behind or beneath it."""
    line = Text(one_line(cell.text), style="bold red" if cell.text in ("NO", "FAILED") else "")
    if shape.marked:
        line.append("*" if cell.marked else " ", style="yellow")
    interval = f"[{cell.interval}]" if cell.interval else ""
    if shape.interval:
        line.append(interval.rjust(shape.interval + 3), style="dim")
    return [line, Text(interval, style="dim")] if interval and layout.intervals == "beneath" else [line]


def _aligned(lines: Sequence[Text], width: int) -> Text:
    """Lines, right-aligned to a width. Not by rich, which would strip the blanks that stand where others have a *."""
    for line in lines:
        line.pad_left(max(width - line.cell_len, 0))
    return Text("\n").join(lines)


def _worst_prompts(summary: Summary) -> list[Table]:
    """The slowest prompts at each model's highest load that names several."""
    found = []
    for rows in levels.by_model(summary).values():
        told = [level for level in rows if len(level.get("prompts") or []) > 1]
        table = breakdowns.prompts(max(told, key=levels.load), WORST_PROMPTS) if told else None
        if table:
            found.append(replace(table, title=f"Slowest prompts ({table.title.rpartition(', ')[2]})", notes=()))
    return found


def _doubts(summary: Summary) -> Iterable[RenderableType]:
    unfinished = notes.unfinished(summary)
    if unfinished:
        lines = (bullet(Text(one_line(line)), "†") for line in unfinished)
        yield Group(Text("Levels that did not run to their end", style="bold"), *lines)
    again = notes.closing(summary)
    if again:
        lines = (bullet(Text(one_line(line)), "-") for line in again)
        yield Group(Text("Measured again at the end", style="bold"), *lines)
    found = notes.gates(summary)
    if found:
        yield Group(Text("Doubts", style="bold"), *(_gate(note) for note in found))


def _gate(note: notes.Note) -> RenderableType:
    """The gate with its first level's words; the others are named, report.md has theirs."""
    (at, text), *others = note.texts
    said = Text.assemble((one_line(f"{note.code} {note.severity}"), SEVERITY_STYLES.get(note.severity, "dim")))
    said.append(f" {note.name}" if note.name else "")
    also = levels.joined(where for where, _ in others)
    where = f"{at}; also {also}, see report.md" if also else at
    said.append(f" ({one_line(where)})" if where else "", style="dim")
    return bullet(said.append(f": {one_line(text, 500)}"), "!" if note.severity == "red" else "-")


def _note(text: str) -> RenderableType:
    return Padding(Text(one_line(text, 500), style="dim"), (0, 0, 0, 2))


def bullet(text: Text, sign: str = "●") -> RenderableType:
    grid = Grid.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(sign, text)
    return grid


def for_output(part: RenderableType, console: Console) -> RenderableType:
    """The part itself for a terminal; for a pipe or a file without blanks at line ends, in ASCII where it must be."""
    plain = not console.encoding.lower().startswith("utf")  # a pipe on Windows, LANG=C
    if console.is_terminal and not plain:
        return part
    with console.capture() as captured:
        console.print(part, highlight=False, soft_wrap=False, crop=False)
    lines = "\n".join(line.rstrip() for line in captured.get().splitlines())
    return Text.from_ansi(ascii_only(lines) if plain else lines, no_wrap=True)
