"""A report as GitHub Markdown, ready to paste into a pull request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from loadbench.report import document as doc
from loadbench.report.document import Cell, Column, Table
from loadbench.text import markdown_code, markdown_prose

LONGEST = 4000


def render(document: doc.Document) -> str:
    paragraphs = list(_title(document.title)) if document.title else []
    for block in document.blocks():
        paragraphs += _block(block)
    return "\n\n".join(filter(None, paragraphs)) + "\n"


def _title(title: doc.Title) -> Iterable[str]:
    heading = "## loadbench: " if title.program == "loadbench" else "## "
    heading += _prose(title.text)
    if title.name:
        heading += f" {markdown_code(title.name)}"
    if title.date:
        heading += f", {_prose(title.date)}"
    if title.simulated:
        yield f"{heading} (SIMULATED)"
        yield f"> [!WARNING]\n> **SIMULATED**{title.simulated.removeprefix('SIMULATED')}."
    else:
        yield heading


def _block(block: doc.Block) -> Iterable[str]:
    match block:
        case doc.Title():
            yield from _title(block)
        case doc.Text(title, lines, sign):
            yield f"### {title}" if title else ""
            dagger = "† " if sign == "†" else ""
            yield "\n".join(f"- {dagger}{_line(line)}" for line in lines)
        case doc.Facts(title, rows):
            yield f"### {title}" if title else ""
            yield "\n".join(f"- **{name}**: {_fact(name, text)}" for name, text in rows)
        case doc.Tables(tables):
            yield f"### {_prose(tables[0].title)}" if tables[0].title else ""
            yield from _tables(tables)
        case doc.Findings(title, findings) if findings:
            yield f"### {title}"
            yield "\n".join(map(_finding, findings))
        case doc.Small(title, lines) if title:
            yield from _unfolding(title, [_list(lines)])
        case doc.Small(_, lines):
            yield from map(_prose, lines)
        case doc.Details(title, blocks):
            inside: list[str] = []
            for inner in blocks:
                if not isinstance(inner, doc.Tables):
                    inside += _block(inner)
                    continue
                # The summary is the heading; tables of a level each have the level in their title.
                heading, _, level = inner.tables[0].title.rpartition(", ")
                if heading == title:
                    inside.append(f"{markdown_code(inner.tables[0].model)}, {_prose(level)}")
                inside += _tables(inner.tables)
            yield from _unfolding(title, inside)
        case doc.Only("markdown", blocks):
            for inner in blocks:
                yield from _block(inner)


def _fact(name: str, text: str) -> str:
    return markdown_code(text) if name == "command" else _prose(text)


def _unfolding(title: str, paragraphs: Iterable[str]) -> Iterable[str]:
    yield f"<details>\n<summary>{title}</summary>"
    yield from paragraphs
    yield "</details>"


def _line(line: doc.Line) -> str:
    text = f"**{_prose(line.text)}**" if line.strong else _prose(line.text)
    if line.name:
        text = f"{markdown_code(line.name)}: {text}"
    return f"{text} **{_prose(line.doubt)}**" if line.doubt else text


def _finding(finding: doc.Finding) -> str:
    label = f"**{_prose(finding.label)}** {finding.name}".rstrip() if finding.label else ""
    if len(finding.texts) > 1:
        lines = [f"- {label}"]
        for where, text in finding.texts:
            lines.append(f"  - {_prose(where)}: {_prose(text)}" if where else f"  - {_prose(text)}")
        return "\n".join(lines)
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
    yield _list(doc.notes_of(tables))


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
