"""The report as GitHub Markdown, ready to paste into a pull request; written as `report.md`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from loadbench.report import (
    breakdowns,
    capacity,
    costs,
    definitions,
    devices,
    endpoints,
    headline,
    levels,
    models,
    notes,
    provenance,
    repeats,
    scaling,
    tables,
    thresholds,
    workers,
)
from loadbench.report.comparison import of_run
from loadbench.report.levels import Summary
from loadbench.report.tables import Cell, Column, Table
from loadbench.text import markdown_code, markdown_prose

MOST_PROMPTS = 50
"""Rows of one level's prompt table; summary.json has them all."""


def render(summary: Summary) -> str:
    """The whole report."""
    blocks = [block for part in _parts(summary) for block in part if block]
    return "\n\n".join(blocks) + "\n"


def _parts(summary: Summary) -> Iterable[list[str]]:
    simulated = levels.is_simulated(summary)
    date = provenance.date(summary)
    when = f", {markdown_prose(date)}" if date else ""
    yield [f"## loadbench: {markdown_prose(provenance.title(summary))}{when}{' (SIMULATED)' if simulated else ''}"]
    if simulated:
        yield ["> [!WARNING]\n> **SIMULATED**" + provenance.SIMULATED.removeprefix("SIMULATED") + "."]
    yield ["\n".join(_sentences(summary))]
    yield ["### How it was got", _facts(summary)]
    if not levels.levels(summary):
        yield ["No level was measured."]
        return
    yield section(capacity.steps(summary))
    yield section(tables.headline(summary))
    yield section(endpoints.tables(summary))
    yield section(workers.tables(summary))
    yield section(repeats.tables(summary))
    yield section(scaling.lines(summary))
    yield from (section([table]) for table in (scaling.knees(summary), scaling.law(summary)) if table)
    yield section(tables.gaps(summary))
    yield section(tables.answers(summary))
    yield section(breakdowns.open_loop(summary))
    yield _against_each_other(summary)
    yield from (section([table]) for table in devices.side_by_side(summary))
    yield from (
        section([table])
        for table in (thresholds.table(summary), breakdowns.slo(summary), breakdowns.errors(summary))
        if table
    )
    yield from (section([table]) for table in (models.cold_start(summary), models.memory(summary)) if table)
    yield section(costs.machine(summary))
    yield section(costs.energy(summary))
    yield section(costs.server(summary))
    yield _doubts(summary)
    yield _folded("Behind the figures", section(breakdowns.behind(summary))[1:])
    yield _folded("By prompt", _prompt_tables(summary))
    yield _folded("By input length", _length_tables(summary))
    yield _folded("Definitions", ["\n".join(f"- **{name}**: {text}" for name, text in definitions.definitions())])


def _sentences(summary: Summary) -> Iterable[str]:
    for line in thresholds.sentences(summary):
        yield f"- **{markdown_prose(line)}.**"
    for answer in capacity.sentences(summary):
        yield f"- **{markdown_prose(answer)}.**"
    for sentence in headline.sentences(summary):
        doubt = f" **{markdown_prose(sentence.doubt[:1].upper() + sentence.doubt[1:])}.**" if sentence.doubt else ""
        yield f"- {markdown_code(sentence.model)}: {markdown_prose(sentence.text)}.{doubt}"


def _against_each_other(summary: Summary) -> list[str]:
    """The run's models held against the first: what is said of it, the verdicts unfold on a click."""
    lines = of_run.sentences(summary)
    if not lines:
        return []
    said = "\n".join(f"- {markdown_prose(line, 2000)}" for line in lines)
    means, verdicts = of_run.means(summary), of_run.tables(summary)
    every = _folded("Every verdict", section(verdicts)[1:]) if means != verdicts else []
    return [f"### {of_run.TITLE}", said, *section(means), *every]


def _facts(summary: Summary) -> str:
    return "\n".join(f"- **{name}**: {markdown_prose(text)}" for name, text in provenance.facts(summary))


def section(found: Sequence[Table]) -> list[str]:
    """One heading over a table a model, then what the tables note."""
    if not found:
        return []
    several = len(found) > 1
    blocks = [f"### {markdown_prose(found[0].title)}"]
    for table in found:
        blocks += [f"**{markdown_code(table.model)}**"] if several else []
        blocks.append(_grid(table))
    seen = dict.fromkeys(note for table in found for note in table.notes)
    return [*blocks, "\n".join(f"- {_note(note)}" for note in seen)]


def _grid(table: Table) -> str:
    lines = [_row(_header(column) for column in table.columns)]
    lines.append(_row("---" if column.left else "--:" for column in table.columns))
    lines += [_row(_cell(cell) for cell in row) for row in table.rows]
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _header(column: Column) -> str:
    if column.unit.startswith("/"):
        return column.name + column.unit
    return f"{column.name}, {column.unit}" if column.unit else column.name


def _cell(cell: Cell) -> str:
    mark = r"\*" if cell.marked else ""
    # No brackets of Markdown's own: "[205–216]" is text as long as no "(" follows.
    interval = f" [{cell.interval}]" if cell.interval else ""
    return markdown_prose(cell.text) + mark + interval


def _note(note: str) -> str:
    return markdown_prose(note)


def _doubts(summary: Summary) -> list[str]:
    blocks = []
    unfinished = notes.unfinished(summary)
    if unfinished:
        blocks += ["### Levels that did not run to their end"]
        blocks += ["\n".join(f"- † {markdown_prose(line)}" for line in unfinished)]
    again = notes.closing(summary)
    if again:
        blocks += ["### Measured again at the end", "\n".join(f"- {markdown_prose(line)}" for line in again)]
    found = notes.gates(summary)
    if found:
        blocks += ["### Doubts", "\n".join(_gate(note) for note in found)]
    return blocks


def _gate(note: notes.Note) -> str:
    code = f"**{markdown_prose(f'{note.code} {note.severity}')}** {note.name}".rstrip()
    if len(note.texts) > 1:
        lines = [f"{markdown_prose(at)}: {markdown_prose(text)}".removeprefix(": ") for at, text in note.texts]
        return "\n".join([f"- {code}", *(f"  - {line}" for line in lines)])
    [(at, text)] = note.texts
    where = f" ({markdown_prose(at)})" if at else ""
    return f"- {code}{where}: {markdown_prose(text)}"


def _prompt_tables(summary: Summary) -> list[str]:
    return _titled(breakdowns.prompts(level, MOST_PROMPTS) for level in levels.levels(summary))


def _length_tables(summary: Summary) -> list[str]:
    return _titled(breakdowns.input_lengths(level) for level in levels.levels(summary))


def _titled(found: Iterable[Table | None]) -> list[str]:
    blocks: list[str] = []
    for table in found:
        if table:
            title = f"{markdown_code(table.model)}, {markdown_prose(table.title.rpartition(', ')[2])}"
            blocks += [title, _grid(table), "\n".join(_note(note) for note in table.notes)]
    return [block for block in blocks if block]


def _folded(title: str, blocks: Sequence[str]) -> list[str]:
    """Blocks that unfold on a click: long, and not what a reader came for."""
    if not blocks:
        return []
    return [f"<details>\n<summary>{title}</summary>", *blocks, "</details>"]
