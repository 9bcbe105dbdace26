"""The report for a terminal, by rich: readable at 80 columns, better at 120; no colour where it is not wanted."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from loadbench.report import breakdowns, clean, headline, levels, notes, provenance
from loadbench.report.levels import Summary
from loadbench.report.tables import Cell, Column, Table, answers, gaps
from loadbench.report.tables import headline as headline_tables

WORST_PROMPTS = 3
_FOLDED = 12
"""What a column of text may shrink to before figures give way."""
_SEVERITY = {"red": "bold red", "warn": "yellow"}


def render(summary: Summary, width: int = 100) -> str:
    """The report as text without colour, at most `width` columns wide."""
    text = io.StringIO()
    tables(summary, Console(file=text, width=width, color_system=None, force_terminal=False, legacy_windows=False))
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def tables(summary: Summary, console: Console) -> None:
    """Prints the whole report on `console`."""
    for part in _parts(summary, console):
        console.print(_for_output(part, console), highlight=False)
        console.print()


def _parts(summary: Summary, console: Console) -> Iterable[RenderableType]:
    yield _heading(summary)
    yield Group(*_sentences(summary))
    yield _facts(summary)
    if not levels.levels(summary):
        yield Text("No level was measured.")
    for by_model in (headline_tables(summary), gaps(summary), answers(summary), breakdowns.open_loop(summary)):
        yield from _model_tables(by_model, console)
    for table in (breakdowns.slo(summary), breakdowns.errors(summary)):
        yield from _model_tables([table] if table else [], console)
    yield from _model_tables(_worst_prompts(summary), console)
    yield from _doubts(summary)
    yield Text("What each figure means: report.md in the run folder, section Definitions.", style="dim")


def _heading(summary: Summary) -> RenderableType:
    heading = Text.assemble(("loadbench", "bold cyan"), "  ", (provenance.title(summary), "bold"))
    date = provenance.date(summary)
    if date:
        heading.append(f"  {date}", style="dim")
    if levels.is_simulated(summary):
        return Group(heading, Text(), Text(f" {provenance.SIMULATED} ", style="bold black on yellow"))
    return heading


def _sentences(summary: Summary) -> Iterable[RenderableType]:
    for sentence in headline.sentences(summary):
        said = Text.assemble((clean.one_line(sentence.model), "bold"), ": ", clean.one_line(sentence.text, 1000), ".")
        if sentence.doubt:
            said.append(f" {clean.one_line(sentence.doubt, 1000)}.".replace(" not a", " Not a", 1), style="bold red")
        yield _bullet(said)
    capacity = notes.capacity(summary)
    if capacity:
        yield _bullet(Text(f"{capacity}."))


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


def _model_tables(found: Sequence[Table], console: Console) -> Iterable[RenderableType]:
    """One table a model, under one another with the same widths; what all their notes say is said once, beneath."""
    if not found:
        return
    layout = next((layout for layout in _LAYOUTS if _width(found, layout) <= console.width), _LAYOUTS[-1])
    widths = _widths(found, layout)
    parts: list[RenderableType] = []
    for table in found:
        title = Text(table.title, style="bold") if table is found[0] else Text()
        if len(found) > 1:
            title.append(Text(f"{' · ' if title.plain else ''}{clean.one_line(table.model)}", style="bold cyan"))
        parts += [title] if table is found[0] else [Text(), title]
        parts.append(_grid(table, layout, widths))
    hidden = layout.intervals == "nowhere" and any(cell.interval for t in found for row in t.rows for cell in row)
    said = dict.fromkeys(note for table in found for note in table.notes)
    yield Group(*parts, *(_note(n) for n in (*said, *(("95% intervals are in report.md",) if hidden else ()))))


def _grid(table: Table, layout: _Layout, widths: Sequence[int]) -> Grid:
    grid = Grid(
        box=box.SIMPLE_HEAD, padding=(0, layout.gap - 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold"
    )
    for i, (column, width) in enumerate(zip(table.columns, widths, strict=True)):
        grid.add_column(
            Text(_header(column)),
            justify="left" if column.left else "right",
            overflow="fold",
            no_wrap=not _folds(table, i),
            min_width=min(width, _FOLDED) if _folds(table, i) else width,
            vertical="top",
        )
    marked = _marked(table)
    for row in table.rows:
        grid.add_row(*(_cell(cell, layout, padded=mark) for cell, mark in zip(row, marked, strict=True)))
    return grid


def _width(found: Sequence[Table], layout: _Layout) -> int:
    widths = _widths(found, layout)
    foldable = (_FOLDED if _folds(found[0], i) else width for i, width in enumerate(widths))
    return sum(map(min, widths, foldable)) + layout.gap * (len(widths) - 1)


def _folds(table: Table, i: int) -> bool:
    """Whether a column may fold: text other than a level's short name."""
    return table.columns[i].left and (i > 0 or table.model is None)


def _widths(found: Sequence[Table], layout: _Layout) -> list[int]:
    """The width each column gets over all models; a table with columns of its own goes by itself."""
    widths = [0] * len(found[0].columns)
    for table in found:
        marked = _marked(table)
        for i, column in enumerate(table.columns):
            cells = (_cell(row[i], layout, padded=marked[i]).plain for row in table.rows)
            lines = (line for text in (_header(column), *cells) for line in text.split("\n"))
            widths[i] = max(widths[i], *(cell_len(line) for line in lines))
    return widths


def _header(column: Column) -> str:
    return f"{column.short or column.name}\n{column.unit}".rstrip("\n")


def _cell(cell: Cell, layout: _Layout, *, padded: bool) -> Text:
    """A figure, its mark, its interval; `padded` where others of its column have a mark: digits stay aligned."""
    text = Text(clean.one_line(cell.text), style="bold red" if cell.text == "NO" else "")
    if cell.interval and layout.intervals == "behind":
        return text.append(f" [{cell.interval}]", style="dim")
    text.append("*" if cell.marked else " " if padded else "", style="yellow")
    if cell.interval and layout.intervals == "beneath":
        text.append(f"\n[{cell.interval}]", style="dim")
    return text


def _marked(table: Table) -> list[bool]:
    return [any(row[i].marked for row in table.rows) for i in range(len(table.columns))]


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
        lines = (_bullet(Text(clean.one_line(line)), "†") for line in unfinished)
        yield Group(Text("Levels that did not run to their end", style="bold"), *lines)
    found = notes.gates(summary)
    if found:
        yield Group(Text("Doubts", style="bold"), *(_gate(note) for note in found))


def _gate(note: notes.Note) -> RenderableType:
    """The gate with its first level's words; the others are named, report.md has theirs."""
    (at, text), *others = note.texts
    said = Text.assemble((clean.one_line(f"{note.code} {note.severity}"), _SEVERITY.get(note.severity, "dim")))
    said.append(f" {note.name}" if note.name else "")
    also = levels.joined(where for where, _ in others)
    where = f"{at}; also {also}, see report.md" if also else at
    said.append(f" ({clean.one_line(where)})" if where else "", style="dim")
    return _bullet(said.append(f": {clean.one_line(text, 500)}"), "!" if note.severity == "red" else "-")


def _note(text: str) -> RenderableType:
    return Padding(Text(clean.one_line(text, 500), style="dim"), (0, 0, 0, 2))


def _bullet(text: Text, sign: str = "●") -> RenderableType:
    grid = Grid.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(sign, text)
    return grid


def _for_output(part: RenderableType, console: Console) -> RenderableType:
    """The part itself, or in ASCII where the output's encoding lacks our signs (a pipe on Windows, LANG=C)."""
    if console.encoding.lower().startswith("utf"):
        return part
    with console.capture() as captured:
        console.print(part, highlight=False, end="")
    return Text.from_ansi(clean.ascii_only(captured.get()).rstrip("\n"))
