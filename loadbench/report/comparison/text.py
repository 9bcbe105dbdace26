"""A comparison for a terminal, by rich: the verdict first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from loadbench.metrics.gates import titled
from loadbench.report import provenance
from loadbench.report.comparison import doubts, tables, words
from loadbench.report.comparison.words import Record
from loadbench.report.text import SEVERITY_STYLES, bullet, grids, plain, print_part, print_parts
from loadbench.text import one_line

_STYLES = {
    "slower": "bold red",
    "worse": "bold red",
    "mixed": "bold red",
    "faster": "bold green",
    "better": "bold green",
}


def render(document: Mapping[str, Any], width: int = 100) -> str:
    """The report as text without colour, at most `width` columns wide."""
    return plain(lambda console: show(document, console), width)


def show(document: Mapping[str, Any], console: Console) -> None:
    """Prints all comparisons on `console`."""
    for record in document["comparisons"]:
        print_parts(_parts(record, console), console)
    how = Group(*(Text(line, style="dim") for line in doubts.HOW))
    print_part(how, console)


def verdict(record: Record) -> RenderableType:
    """The word in a sentence, and what makes it."""
    lines: list[RenderableType] = [
        bullet(Text(f"{one_line(words.headline(record), 500)}.", style=_STYLES.get(record["word"], "bold")))
    ]
    for name, sentence in words.sentences(record):
        said = Text.assemble((f"{one_line(name)}: ", "bold") if name else "", one_line(sentence, 2000), ".")
        lines.append(Padding(said, (0, 0, 0, 2)))
    return Group(*lines)


def doubtful(record: Record) -> Iterable[RenderableType]:
    """Why not to trust it, where there is a reason."""
    lines: list[RenderableType] = []
    for doubt in doubts.doubts(record):
        code = one_line(f"{titled(doubt.code)} {doubt.severity}".strip())
        said = Text.assemble((code, SEVERITY_STYLES.get(doubt.severity, "dim")))
        said.append(f" ({one_line(doubt.where)})" if doubt.where else "", style="dim")
        lines.append(bullet(said.append(f": {one_line(doubt.text, 500)}"), "!" if doubt.severity == "red" else "-"))
    lines += [bullet(Text(one_line(line, 500)), "-") for line in doubts.missing(record)]
    if lines:
        yield Group(Text("Doubts", style="bold"), *lines)


def _parts(record: Record, console: Console) -> Iterable[RenderableType]:
    if record["base"]["simulated"] or record["new"]["simulated"]:
        yield Text(f" {provenance.SIMULATED} ", style="bold black on yellow")
    yield verdict(record)
    grid = Grid.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in doubts.facts(record):
        grid.add_row(name, Text(one_line(text, 1000)))
    yield Padding(grid, (0, 0, 0, 2))
    yield from grids(tables.by_level(record), console)
    mean = tables.over_levels(record)
    yield from grids([mean] if mean else [], console)
    yield from doubtful(record)
