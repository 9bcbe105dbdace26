"""A choice for a terminal, by rich: the recommendation first."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from loadbench.report.choice import tables, words
from loadbench.report.choice.words import Record
from loadbench.report.text import SEVERITY_STYLES, bullet, grids, plain, print_parts
from loadbench.text import one_line


def render(record: Record, width: int = 100) -> str:
    """The report as text without colour, at most `width` columns wide."""
    return plain(lambda console: show(record, console), width)


def show(record: Record, console: Console) -> None:
    """Prints the choice on `console`."""
    print_parts(_parts(record, console), console)


def _parts(record: Record, console: Console) -> Iterable[RenderableType]:
    yield _heading(record)
    yield Group(*_said(record))
    grid = Grid.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in words.facts(record):
        grid.add_row(name, Text(one_line(text, 2000)))
    yield Padding(grid, (0, 0, 0, 2))
    for table in tables.all_of(record):
        yield from grids([table], console)
    for title, lines in (
        ("Alternatives", words.alternatives(record)),
        ("Consequences", words.consequences(record)),
    ):
        bullets = [bullet(Text(one_line(f"{line}.", 2000)), "-") for line in lines]
        yield Group(Text(title, style="bold"), *bullets)
    if record["doubts"]:
        yield Group(Text("Doubts", style="bold"), *(_doubt(doubt) for doubt in record["doubts"]))
    yield Text("How it was reckoned: docs/select.md.", style="dim")


def _heading(record: Record) -> RenderableType:
    what = f"Which model to ship: {one_line(words.title(record))}"
    heading = Text.assemble(("loadbench select", "bold cyan"), "  ", (what, "bold"))
    simulated = words.simulated(record)
    return Group(heading, Text(), Text(f" {simulated} ", style="bold black on yellow")) if simulated else heading


def _said(record: Record) -> Iterable[RenderableType]:
    style = "bold red" if words.reds(record) or not words.rows(record) else "bold"
    yield bullet(Text(one_line(f"{words.headline(record)}.", 500), style=style))
    for line in (*words.reasons(record), words.robustness(record)):
        if line:
            yield Padding(Text(one_line(f"{line}.", 2000)), (0, 0, 0, 2))


def _doubt(doubt: words.Row) -> RenderableType:
    severity = doubt["severity"]
    said = Text.assemble((severity, SEVERITY_STYLES.get(severity, "dim")), ": ", one_line(doubt["text"], 500))
    return bullet(said, "!" if severity == "red" else "-")
