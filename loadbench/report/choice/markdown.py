"""A choice as a decision record in GitHub Markdown: decision, context, figures, alternatives, consequences."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from loadbench.report.choice import tables, words
from loadbench.report.choice.words import Record
from loadbench.report.markdown import section
from loadbench.text import markdown_code, markdown_prose


def render(record: Record) -> str:
    """The whole record, to be signed by whoever decides: its status is "proposed"."""
    return "\n\n".join(part for part in _parts(record) if part) + "\n"


def _parts(record: Record) -> Iterable[str]:
    winner = markdown_code(words.title(record)) if words.rows(record) else words.title(record)
    simulated = words.simulated(record)
    yield f"## Which model to ship: {winner}{' (SIMULATED)' if simulated else ''}"
    if simulated:
        yield f"> [!WARNING]\n> **SIMULATED**{simulated.removeprefix('SIMULATED')}."
    yield "### Decision"
    yield f"- **{_text(words.headline(record))}.**\n" + _list(
        line for line in (*words.reasons(record), words.robustness(record)) if line
    )
    yield "### Context"
    yield "\n".join(f"- **{name}**: {_text(text)}" for name, text in words.facts(record))
    for table in tables.all_of(record):
        heads = tuple(replace(column, name=_text(column.name)) for column in table.columns)
        yield from section([replace(table, columns=heads)])
    yield "### Alternatives"
    yield _list(words.alternatives(record))
    yield "### Consequences"
    yield _list(words.consequences(record))
    if record["doubts"]:
        yield "### Doubts"
        yield "\n".join(f"- **{_text(one['severity'])}**: {_text(one['text'])}" for one in record["doubts"])
    yield "How it was reckoned: docs/select.md."


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {_text(line)}." for line in lines)


def _text(text: str) -> str:
    return markdown_prose(text, 4000)
