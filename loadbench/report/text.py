"""The report for a terminal, by rich: readable at 80 columns, better at 120; no colour where it is not wanted."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from loadbench.report import (
    breakdowns,
    capacity,
    clean,
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

WORST_PROMPTS = 3
_FOLDED = 12
"""What a column of text may shrink to before figures give way."""
SEVERITY_STYLES = {"red": "bold red", "warn": "yellow"}


def render(summary: Summary, width: int = 100) -> str:
    """The report as text without colour, at most `width` columns wide."""
    return plain(lambda console: tables(summary, console), width)


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
        console.print(for_output(part, console), highlight=False)
        console.print()


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
        gaps(summary),
        answers(summary),
        breakdowns.open_loop(summary),
    ):
        yield from grids(by_model, console)
    for single in (scaling.knees(summary), scaling.law(summary)):
        yield from grids([single] if single else [], console)
    for table in devices.side_by_side(summary):
        yield from grids([table], console)
    yield from _against_each_other(summary, console)
    for single in (
        thresholds.table(summary),
        breakdowns.slo(summary),
        models.cold_start(summary),
        models.memory(summary),
    ):
        yield from grids([single] if single else [], console)
    for by_model in (costs.machine(summary), costs.energy(summary), costs.server(summary)):
        yield from grids(by_model, console)
    failed = breakdowns.errors(summary)
    yield from grids([failed] if failed else [], console)
    yield from grids(_worst_prompts(summary), console)
    yield from _doubts(summary)
    if console.is_terminal and levels.levels(summary):  # the beginning has scrolled away
        yield Group(Text("In short", style="bold"), *_sentences(summary))
    yield Text("What each figure means: report.md in the run folder, section Definitions.", style="dim")


def _against_each_other(summary: Summary, console: Console) -> Iterable[RenderableType]:
    """What is said of the run's models held against the first, and the verdicts that say it."""
    lines = of_run.sentences(summary)
    if lines:
        yield Group(Text(of_run.TITLE, style="bold"), *(bullet(Text(clean.one_line(s, 2000))) for s in lines))
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
        yield bullet(Text(f"{clean.one_line(line, 1000)}.", style=style))
    for answer in capacity.sentences(summary):
        yield bullet(Text(f"{clean.one_line(answer, 1000)}.", style="bold"))
    for sentence in headline.sentences(summary):
        said = Text.assemble((clean.one_line(sentence.model), "bold"), ": ", clean.one_line(sentence.text, 1000), ".")
        if sentence.doubt:
            said.append(f" {clean.one_line(sentence.doubt, 1000)}.".replace(" not a", " Not a", 1), style="bold red")
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
    layout = next((layout for layout in _LAYOUTS if _width(found, layout) <= console.width), _LAYOUTS[-1])
    columns = _columns(found, layout)
    parts: list[RenderableType] = []
    for table in found:
        title = Text(clean.one_line(table.title), style="bold") if table is found[0] else Text()
        if len(found) > 1:
            title.append(Text(f"{' · ' if title.plain else ''}{clean.one_line(table.model)}", style="bold cyan"))
        parts += [title] if table is found[0] else [Text(), title]
        parts.append(_grid(table, layout, columns))
    hidden = layout.intervals == "nowhere" and any(cell.interval for t in found for row in t.rows for cell in row)
    said = dict.fromkeys(note for table in found for note in table.notes)
    yield Group(*parts, *(_note(n) for n in (*said, *(("95% intervals are in report.md",) if hidden else ()))))


@dataclass(frozen=True, slots=True)
class _Shape:
    """What the cells of a column share over all models: its width, that of intervals behind figures, a place for *."""

    width: int
    interval: int
    marked: bool


def _grid(table: Table, layout: _Layout, shapes: Sequence[_Shape]) -> Grid:
    grid = Grid(
        box=box.SIMPLE_HEAD, padding=(0, layout.gap - 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold"
    )
    for i, (column, shape) in enumerate(zip(table.columns, shapes, strict=True)):
        folds = _folds(table, i)
        width = min(shape.width, _FOLDED) if folds else shape.width
        head = _aligned(_head(column), 0 if column.left else shape.width)
        grid.add_column(head, overflow="fold", no_wrap=not folds, min_width=width, vertical="top")
    for row in table.rows:
        cells = zip(row, table.columns, shapes, strict=True)
        grid.add_row(*(_aligned(_lines(cell, layout, s), 0 if c.left else s.width) for cell, c, s in cells))
    return grid


def _width(found: Sequence[Table], layout: _Layout) -> int:
    """The least width of the tables in a layout."""
    widths = [shape.width for shape in _columns(found, layout)]
    least = (min(width, _FOLDED) if _folds(found[0], i) else width for i, width in enumerate(widths))
    return sum(least) + layout.gap * (len(widths) - 1)


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
    line = Text(clean.one_line(cell.text), style="bold red" if cell.text in ("NO", "FAILED") else "")
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
        lines = (bullet(Text(clean.one_line(line)), "†") for line in unfinished)
        yield Group(Text("Levels that did not run to their end", style="bold"), *lines)
    again = notes.closing(summary)
    if again:
        lines = (bullet(Text(clean.one_line(line)), "-") for line in again)
        yield Group(Text("Measured again at the end", style="bold"), *lines)
    found = notes.gates(summary)
    if found:
        yield Group(Text("Doubts", style="bold"), *(_gate(note) for note in found))


def _gate(note: notes.Note) -> RenderableType:
    """The gate with its first level's words; the others are named, report.md has theirs."""
    (at, text), *others = note.texts
    said = Text.assemble((clean.one_line(f"{note.code} {note.severity}"), SEVERITY_STYLES.get(note.severity, "dim")))
    said.append(f" {note.name}" if note.name else "")
    also = levels.joined(where for where, _ in others)
    where = f"{at}; also {also}, see report.md" if also else at
    said.append(f" ({clean.one_line(where)})" if where else "", style="dim")
    return bullet(said.append(f": {clean.one_line(text, 500)}"), "!" if note.severity == "red" else "-")


def _note(text: str) -> RenderableType:
    return Padding(Text(clean.one_line(text, 500), style="dim"), (0, 0, 0, 2))


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
        console.print(part, highlight=False)
    lines = "\n".join(line.rstrip() for line in captured.get().splitlines())
    return Text.from_ansi(clean.ascii_only(lines) if plain else lines, no_wrap=True)
