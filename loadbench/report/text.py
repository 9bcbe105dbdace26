"""A report for a terminal, by rich: readable at 80 columns, better at 120; no colour where it is not wanted."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TextIO

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text as Words

from loadbench.report import document as doc
from loadbench.report.document import Cell, Column, Table, cells_of, notes_of
from loadbench.text import ascii_only, one_line

LONGEST = 2000
"""Characters of a sentence: those of others may be whole pages."""
_FOLDED = 12
"""What a column of text may shrink to before figures give way."""
_ENDLESS = 1_000_000
"""Columns that a pipe has."""
_PIECE = re.compile(r"\S*?\w[/_@-](?=[^\W\d_]{2})|\S+\s*|\s+")
"""What stays together where a column folds: a word, or a part of a name up to the sign that ends it."""
_SEVERITY_STYLES = {"red": "bold red", "warn": "yellow"}
_TONES = {"good": "bold green", "bad": "bold red", "unsure": "bold yellow", "": "bold"}


# -- where it goes to


def render(document: doc.Document, width: int = 100) -> str:
    """The report as text without colour, at most `width` columns wide."""
    written = io.StringIO()
    show(document, Console(file=written, width=width, color_system=None, force_terminal=False, legacy_windows=False))
    return written.getvalue().rstrip() + "\n"


def console(stream: TextIO) -> Console:
    """Where a command prints its tables: on a terminal as wide as that is, into a pipe or a file a row a line."""
    return Console(file=stream, soft_wrap=not stream.isatty())


def show(document: doc.Document, console: Console) -> None:
    """Prints the report, an empty line after each part."""
    parts: list[RenderableType] = []
    if document.title:
        parts += _title(document.title)
    for block in document.blocks():
        parts += _block(block, console)
    if document.verdict_again and console.is_terminal:  # a file is read from its beginning
        first = next(block for block in document.blocks() if isinstance(block, doc.Text))
        parts += _block(replace(first, title="In short"), console)
    for part in parts:
        _print(part, console)
        console.print()


def show_tables(tables: Sequence[Table], console: Console) -> None:
    for part in _tables(tables, console):
        _print(part, console)


def _print(part: RenderableType, console: Console) -> None:
    """Prose fits the console; a table may be wider, and is not cut.

    A terminal gets the part itself; a pipe or a file gets no blanks at line ends, and ASCII where it must be.
    """
    encodes_all = console.encoding.lower().startswith("utf")  # not a pipe on Windows, nor LANG=C
    if console.is_terminal and encodes_all:
        console.print(part, highlight=False, soft_wrap=False, crop=False)
        return
    with console.capture() as captured:
        console.print(part, highlight=False, soft_wrap=False, crop=False)
    lines = "\n".join(map(str.rstrip, captured.get().splitlines()))
    if not encodes_all:
        lines = ascii_only(lines)
    console.print(Words.from_ansi(lines, no_wrap=True), highlight=False, soft_wrap=True, crop=False)


# -- words


def _title(title: doc.Title) -> Iterable[RenderableType]:
    warning = Words(f" {title.simulated} ", style="bold black on yellow")
    if title.quiet:
        if title.simulated:
            yield warning
        return
    what = f"{title.text} {title.name}".strip()
    heading = Words.assemble((title.program, "bold cyan"), "  ", (one_line(what), "bold"))
    if title.date:
        heading.append(f"  {title.date}", style="dim")
    if title.simulated:
        yield Group(heading, Words(), warning)
    else:
        yield heading


def _block(block: doc.Block, console: Console) -> Iterable[RenderableType]:
    match block:
        case doc.Title():
            yield from _title(block)
        case doc.Text(title, lines, sign):
            sentences = [_line(line, sign) for line in lines]
            if title:
                sentences.insert(0, Words(title, style="bold"))
            yield Group(*sentences)
        case doc.Facts(_, rows):
            grid = Grid.grid(padding=(0, 2, 0, 0))
            grid.add_column(style="dim", no_wrap=True)
            grid.add_column(overflow="fold")
            previous = ""
            for name, text in rows:
                shown = "" if name == previous else name
                grid.add_row(shown, Words(one_line(text, LONGEST)))
                previous = name
            yield Padding(grid, (0, 0, 0, 2))
        case doc.Tables(tables):
            yield from _tables(tables, console)
        case doc.Findings(title, findings) if findings:
            yield Group(Words(title, style="bold"), *map(_finding, findings))  # without any, no heading either
        case doc.Small(_, lines):
            yield Group(*(Words(line, style="dim") for line in lines))
        case doc.Details(hint=hint) if hint:
            yield Words(hint, style="dim")
        case doc.Only("text", blocks):
            for inner in blocks:
                yield from _block(inner, console)


def _line(line: doc.Line, sign: str) -> RenderableType:
    words = Words()
    if line.name:
        words.append(one_line(line.name), style="bold").append(": ")
    style = _TONES[line.tone] if line.strong else ""
    words.append(one_line(line.text, LONGEST), style=style)
    if line.doubt:
        words.append(f" {one_line(line.doubt, LONGEST)}", style="bold red")
    if line.beneath:
        return Padding(words, (0, 0, 0, 2))
    return _bullet(words, sign)


def _finding(finding: doc.Finding) -> RenderableType:
    """The text of the first place; the others are named, report.md has their texts."""
    (where, text), *others = finding.texts
    words = Words(one_line(finding.label), style=_SEVERITY_STYLES.get(finding.severity, "dim"))
    if finding.name:
        words.append(f" {finding.name}", style="")
    if others:
        places = ", ".join(dict.fromkeys(place for place, _ in others))
        where = f"{where}; also {places}, see report.md"
    if where:
        words.append(f" ({one_line(where)})", style="dim")
    if finding.label:
        words.append(": ", style="")
    words.append(one_line(text, 500), style="")
    sign = "!" if finding.severity == "red" else "-"
    return _bullet(words, sign)


def _bullet(words: Words, sign: str) -> RenderableType:
    grid = Grid.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(sign, words)
    return grid


# -- tables


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where a table's intervals are from their figures, and the blanks between columns, at least 1."""

    intervals: Literal["behind", "beneath", "nowhere"]
    gap: int

    def needs(self, widths: Sequence[int]) -> int:
        return sum(widths) + self.gap * (len(widths) - 1)


_LAYOUTS = (_Layout("behind", 2), _Layout("beneath", 2), _Layout("beneath", 1), _Layout("nowhere", 1))


@dataclass(frozen=True, slots=True)
class _Shape:
    """What the cells of a column share over all models: its width, that of intervals behind figures, a place for *."""

    width: int
    interval: int
    marked: bool


def _tables(tables: Sequence[Table], console: Console) -> Iterable[RenderableType]:
    """One table a model, under one another with the same widths; their notes are beneath, each once."""
    if not tables:
        return
    room = _ENDLESS if console.soft_wrap else console.width
    parts: list[RenderableType] = []
    notes = notes_of(tables)
    for some in _side_by_side(tables, room):
        layout = _layout(some, room)
        shapes = _shapes(some, layout)
        widths = _widths(some, layout, shapes, room)
        # Left out, not lost: a line says where they are.
        if layout.intervals == "nowhere" and _have_intervals(some):
            notes = list(dict.fromkeys([*notes, "95% intervals are in report.md"]))
        for table in some:
            title = Words(style="bold")
            if parts:
                parts.append(Words())
            else:
                title.append(one_line(table.title))
            if title.plain and len(tables) > 1:
                title.append(" · ", style="bold cyan")
            if len(tables) > 1:
                title.append(one_line(table.model), style="bold cyan")
            if title.plain:
                parts.append(title)
            parts.append(_grid(table, layout, shapes, widths))
    for note in notes:
        parts.append(Padding(Words(one_line(note, 500), style="dim"), (0, 0, 0, 2)))
    yield Group(*parts)


def _have_intervals(tables: Sequence[Table]) -> bool:
    for table in tables:
        for row in table.rows:
            if any(cell.interval for cell in row):
                return True
    return False


def _side_by_side(tables: Sequence[Table], room: int) -> Iterable[Sequence[Table]]:
    """The tables; where even the tightest layout has no room for a row, with some columns first, then with the others.

    A figure that is cut would be another figure.
    """
    layout = _layout(tables, room)
    widths = _least(tables, _shapes(tables, layout), broken=True)
    groups: list[list[int]] = [[0]]
    for i in range(1, len(widths)):
        group = [*groups[-1], i]
        # One column beside the name goes into each, fits or not: else it would never end.
        if layout.needs([widths[at] for at in group]) <= room or len(groups[-1]) == 1:
            groups[-1] = group
        else:
            groups.append([0, i])
    for group in groups:
        yield [table.with_columns(group) for table in tables]


def _grid(table: Table, layout: _Layout, shapes: Sequence[_Shape], widths: Sequence[int]) -> Grid:
    grid = Grid(
        box=box.SIMPLE_HEAD, padding=(0, layout.gap - 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold"
    )
    grid.width = layout.needs(widths)  # or rich would cut it to the console's

    def fitted(lines: list[Words], place: int) -> Words:
        if table.columns[place].left:
            return _folded(lines, widths[place])
        # Not aligned by rich, which would strip the blanks that are where others have a *.
        for line in lines:
            line.pad_left(max(shapes[place].width - line.cell_len, 0))
        return Words("\n").join(lines)

    for i, column in enumerate(table.columns):
        grid.add_column(fitted(_head(column), i), no_wrap=True, width=widths[i], vertical="top")
    for row in table.rows:
        cells = []
        for i, cell in enumerate(row):
            cells.append(fitted(_lines(cell, layout, shapes[i]), i))
        grid.add_row(*cells)
    return grid


def _layout(tables: Sequence[Table], room: int) -> _Layout:
    """The roomiest layout in which all words are whole; else in which what may fold does so anywhere."""
    for broken in (False, True):
        for layout in _LAYOUTS:
            if layout.needs(_least(tables, _shapes(tables, layout), broken=broken)) <= room:
                return layout
    return _LAYOUTS[-1]


def _widths(tables: Sequence[Table], layout: _Layout, shapes: Sequence[_Shape], room: int) -> list[int]:
    """Each column's width: those that fold share the room that the figures leave, what would be tallest first."""
    room -= layout.gap * (len(shapes) - 1)
    widths = [shape.width for shape in shapes]
    if sum(widths) <= room:
        return widths
    # Words stay whole while that is possible at all.
    widths = _least(tables, shapes, broken=False)
    if sum(widths) > room:
        widths = _least(tables, shapes, broken=True)
    # A column without a word has no width to give or take.
    may_fold = [i for i in range(len(shapes)) if _folds(tables[0], i) and widths[i] > 0]
    while may_fold and sum(widths) > room:
        widest = max(may_fold, key=lambda i: widths[i])
        if widths[widest] == 1:
            break
        widths[widest] -= 1
    while may_fold and sum(widths) < room:
        tallest = max(may_fold, key=lambda i: shapes[i].width / widths[i])
        if widths[tallest] == shapes[tallest].width:
            break
        widths[tallest] += 1
    return widths


def _least(tables: Sequence[Table], shapes: Sequence[_Shape], *, broken: bool) -> list[int]:
    """The least width of each column; one that folds keeps its longest piece whole, unless it may be broken."""
    widths = []
    for i, shape in enumerate(shapes):
        if not _folds(tables[0], i):
            widths.append(shape.width)
            continue
        least = _FOLDED
        if not broken:
            texts = [line.plain for line in _head(tables[0].columns[i])]
            texts += [one_line(cell.text) for cell in cells_of(tables, i)]
            for piece in _PIECE.findall("\n".join(texts)):
                least = max(least, cell_len(piece.rstrip()))
        widths.append(min(shape.width, least))
    return widths


def _folded(lines: Sequence[Words], width: int) -> Words:
    """Lines cut into such of a width: between words, else after the signs that part names, else anywhere.

    >>> _folded([Words("20260112T090000Z-sweep interrupted")], 18).plain.split("\\n")
    ['20260112T090000Z-', 'sweep interrupted']
    """
    folded: list[Words] = []
    for line in lines:
        ends, begun = [], 0
        for piece in _PIECE.finditer(line.plain):
            if begun < piece.start() and cell_len(line.plain[begun : piece.end()].rstrip()) > width:
                begun = piece.start()
                ends.append(begun)
            while cell_len(line.plain[begun : piece.end()].rstrip()) > width:
                if cell_len(line.plain[begun]) > 1:  # Chinese, Japanese, Korean: two columns a character
                    begun += max(1, width // 2)
                else:
                    begun += max(1, width)
                ends.append(begun)
        for part in line.divide(ends):
            part.rstrip()
            folded.append(part)
    return Words("\n").join(folded)


def _folds(table: Table, i: int) -> bool:
    """Whether a column may fold: text other than a level's short name."""
    return table.columns[i].left and (i > 0 or table.model is None)


def _shapes(tables: Sequence[Table], layout: _Layout) -> list[_Shape]:
    """The shape of each column over all models, which have the same columns."""
    shapes = []
    for i, column in enumerate(tables[0].columns):
        cells = cells_of(tables, i)
        interval, marked = 0, False
        for cell in cells:
            marked = marked or cell.marked
            if layout.intervals == "behind":
                interval = max(interval, cell_len(cell.interval))
        shape = _Shape(0, interval, marked)
        lines = _head(column)
        for cell in cells:
            lines += _lines(cell, layout, shape)
        shapes.append(replace(shape, width=max(line.cell_len for line in lines)))
    return shapes


def _head(column: Column) -> list[Words]:
    return list(map(Words, filter(None, (column.short or column.name, column.unit))))


def _lines(cell: Cell, layout: _Layout, shape: _Shape) -> list[Words]:
    """A figure, its mark or the blank that keeps digits aligned, its interval behind or beneath it."""
    line, interval = Words(one_line(cell.text)), ""
    if cell.text in ("NO", "FAILED"):
        line.style = "bold red"
    if shape.marked:
        line.append("*" if cell.marked else " ", style="yellow")
    if cell.interval:
        interval = f"[{cell.interval}]"
    if shape.interval:
        line.append(interval.rjust(shape.interval + 3), style="dim")
    if interval and layout.intervals == "beneath":
        return [line, Words(interval, style="dim")]
    return [line]
