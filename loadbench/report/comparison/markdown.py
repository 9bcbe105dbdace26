"""A comparison as GitHub Markdown, ready to paste into a pull request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from loadbench.metrics.gates import titled
from loadbench.report import provenance
from loadbench.report.comparison import doubts, tables, words
from loadbench.report.comparison.words import Record
from loadbench.report.markdown import section
from loadbench.text import markdown_code, markdown_prose


def render(document: Mapping[str, Any]) -> str:
    """All comparisons, one under the other."""
    parts = [part for record in document["comparisons"] for part in _parts(record)]
    how = ["<details>\n<summary>How it was computed</summary>", "\n".join(f"- {_text(line)}" for line in doubts.HOW)]
    return "\n\n".join(part for part in (*parts, *how, "</details>") if part) + "\n"


def verdict(record: Record) -> list[str]:
    """The word in a sentence, and what makes it."""
    lines = [f"- **{_text(words.headline(record))}.**"]
    lines += [f"- {markdown_code(name) + ': ' if name else ''}{_text(text)}." for name, text in words.sentences(record)]
    return ["\n".join(lines)]


def doubtful(record: Record) -> list[str]:
    """Why not to trust it, where there is a reason; without a heading."""
    lines = []
    for doubt in doubts.doubts(record):
        where = f" ({_text(doubt.where)})" if doubt.where else ""
        lines.append(f"- **{_text(f'{titled(doubt.code)} {doubt.severity}'.strip())}**{where}: {_text(doubt.text)}")
    lines += [f"- {_text(line)}" for line in doubts.missing(record)]
    return ["\n".join(lines)] if lines else []


def _parts(record: Record) -> Iterable[str]:
    base, new = words.sides(record)
    simulated = record["base"]["simulated"] or record["new"]["simulated"]
    yield f"## loadbench: {_text(new)} against {_text(base)}{' (SIMULATED)' if simulated else ''}"
    if simulated:
        yield "> [!WARNING]\n> **SIMULATED**" + provenance.SIMULATED.removeprefix("SIMULATED") + "."
    yield from verdict(record)
    yield "\n".join(f"- **{name}**: {_text(text)}" for name, text in doubts.facts(record))
    yield from section(tables.by_level(record))
    mean = tables.over_levels(record)
    yield from section([mean] if mean else [])
    found = doubtful(record)
    yield from (["### Doubts", *found] if found else [])


def _text(text: object) -> str:
    return markdown_prose(text, 2000)
