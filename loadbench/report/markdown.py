"""A report as GitHub Markdown, ready to paste into a pull request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from loadbench.report.document import (
    Block,
    Cell,
    Column,
    Details,
    Document,
    Facts,
    Finding,
    Findings,
    Line,
    Only,
    Small,
    Table,
    Tables,
    Text,
    Title,
    notes_of,
)
from loadbench.text import markdown_code, markdown_prose

LONGEST = 4000


def render(document: Document) -> str:
    paragraphs: list[str] = []
    if document.title is not None:
        paragraphs += _title(document.title)
    for block in document.blocks():
        paragraphs += _block(block)
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph) + "\n"


def _title(title: Title) -> Iterable[str]:
    heading = "## loadbench: " if title.program == "loadbench" else "## "
    heading += _prose(title.text)
    if title.name:
        heading += f" {markdown_code(title.name)}"
    if title.date:
        heading += f", {_prose(title.date)}"
    if not title.simulated:
        yield heading
        return
    yield f"{heading} (SIMULATED)"
    yield f"> [!WARNING]\n> **SIMULATED**{title.simulated.removeprefix('SIMULATED')}."


def _block(block: Block) -> Iterable[str]:
    match block:
        case Title():
            yield from _title(block)
        case Text(title, lines, sign):
            yield f"### {title}" if title else ""
            dagger = "† " if sign == "†" else ""
            yield "\n".join(f"- {dagger}{_line(line)}" for line in lines)
        case Facts(title, rows):
            yield f"### {title}" if title else ""
            yield "\n".join(f"- **{name}**: {_prose(text)}" for name, text in rows)
        case Tables(tables):
            yield f"### {_prose(tables[0].title)}"
            yield from _tables(tables)
        case Findings(title, findings) if findings:
            yield f"### {title}"
            yield "\n".join(_finding(finding) for finding in findings)
        case Small(title, lines) if title:
            yield f"<details>\n<summary>{title}</summary>"
            yield _list(lines)
            yield "</details>"
        case Small(_, lines):
            yield from map(_prose, lines)
        case Details(title, blocks):
            yield f"<details>\n<summary>{title}</summary>"
            for inner in blocks:
                # The summary is the heading; tables of a level each have the level in their title.
                yield from _unfolded(inner, title)
            yield "</details>"
        case Only("markdown", blocks):
            for inner in blocks:
                yield from _block(inner)


def _unfolded(block: Block, summary: str) -> Iterable[str]:
    if not isinstance(block, Tables):
        yield from _block(block)
        return
    title, _, level = block.tables[0].title.rpartition(", ")
    if title == summary:
        yield f"{markdown_code(block.tables[0].model)}, {_prose(level)}"
    yield from _tables(block.tables)


def _line(line: Line) -> str:
    text = f"**{_prose(line.text)}**" if line.strong else _prose(line.text)
    if line.name:
        text = f"{markdown_code(line.name)}: {text}"
    return f"{text} **{_prose(line.doubt)}**" if line.doubt else text


def _finding(finding: Finding) -> str:
    label = f"**{_prose(finding.label)}** {finding.name}".rstrip() if finding.label else ""
    if len(finding.texts) > 1:
        texts = [f"{_prose(where)}: {_prose(text)}".removeprefix(": ") for where, text in finding.texts]
        return "\n".join([f"- {label}", *(f"  - {text}" for text in texts)])
    [(where, text)] = finding.texts
    if where:
        label += f" ({_prose(where)})"
    return f"- {label}: {_prose(text)}" if label else f"- {_prose(text)}"


def _tables(tables: Sequence[Table]) -> Iterable[str]:
    for table in tables:
        if len(tables) > 1:
            yield f"**{markdown_code(table.model)}**"
        lines = [_row(map(_head, table.columns))]
        lines.append(_row("---" if column.left else "--:" for column in table.columns))
        lines += [_row(map(_cell, row)) for row in table.rows]
        yield "\n".join(lines)
    yield _list(notes_of(tables))


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _head(column: Column) -> str:
    name = _prose(column.name)
    if column.unit.startswith("/"):
        return name + column.unit
    return f"{name}, {column.unit}" if column.unit else name


def _cell(cell: Cell) -> str:
    text = _prose(cell.text)
    if cell.marked:
        text += r"\*"
    # No brackets of Markdown's own: "[205–216]" is text as long as no "(" follows.
    return f"{text} [{cell.interval}]" if cell.interval else text


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {_prose(line)}" for line in lines)


def _prose(text: str) -> str:
    return markdown_prose(text, LONGEST)
