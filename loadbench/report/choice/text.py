"""A choice for a terminal, by rich: the recommendation first."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from loadbench import text as units
from loadbench.report import provenance
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
    for table in tables.all_of(record):
        yield from grids([table], console)
    lines = [bullet(Text(one_line(f"{line}.", 500)), "-") for line in words.fell_out(record)]
    if lines:
        yield Group(Text("Fell out", style="bold"), *lines)
    changes = [bullet(Text(one_line(f"{line}.", 500)), "-") for line in words.would_change(record)]
    if changes:
        yield Group(Text("What would change it", style="bold"), *changes)
    if record["doubts"]:
        yield Group(Text("Doubts", style="bold"), *(_doubt(doubt) for doubt in record["doubts"]))
    yield Text("How it was reckoned: docs/select.md.", style="dim")


def _heading(record: Record) -> RenderableType:
    n, runs = len(record["candidates"]), record["runs"]
    what = f"{units.plural(n, 'candidate')} of {units.plural(len(runs), 'run')} at {record['load']['words']}"
    why = "as asked" if record["load"]["asked"] else "the highest load that all completed"
    heading = Text.assemble(("loadbench select", "bold cyan"), "  ", (what, "bold"), (f" ({why})", "dim"))
    if not any(row["simulated"] for row in record["candidates"]):
        return heading
    every = all(row["simulated"] for row in record["candidates"])
    some = provenance.SIMULATED if every else "SIMULATED in part: see Doubts for which figures are no model's"
    return Group(heading, Text(), Text(f" {some} ", style="bold black on yellow"))


def _said(record: Record) -> Iterable[RenderableType]:
    style = "bold red" if words.reds(record) or not words.rows(record) else "bold"
    yield bullet(Text(one_line(f"{words.headline(record)}.", 500), style=style))
    for line in (*words.reasons(record), words.robustness(record), words.front(record)):
        if line:
            yield Padding(Text(one_line(f"{line}.", 2000)), (0, 0, 0, 2))


def _doubt(doubt: words.Row) -> RenderableType:
    severity = doubt["severity"]
    said = Text.assemble((severity, SEVERITY_STYLES.get(severity, "dim")), ": ", one_line(doubt["text"], 500))
    return bullet(said, "!" if severity == "red" else "-")
