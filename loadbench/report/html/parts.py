"""The sections of words and tables: the verdict first, failures, doubts, costs, how it was got, what it means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from loadbench.report import (
    breakdowns,
    capacity,
    costs,
    definitions,
    endpoints,
    headline,
    levels,
    models,
    notes,
    provenance,
    repeats,
    tables,
    thresholds,
    workers,
)
from loadbench.report.html import grid
from loadbench.report.html.markup import Markup, tag
from loadbench.report.html.section import Section
from loadbench.report.levels import Summary
from loadbench.report.tables import Table

MOST_PROMPTS = 50
"""Rows of one level's prompt table; summary.json has them all."""
_SEVERITIES = {"red": "red: no basis for a verdict", "warn": "read with care", "note": "for your information"}


def verdict(summary: Summary) -> Section:
    """The same sentences as in the terminal, then the table that a reader must see first."""
    body: list[Any] = [tag("ul", _sentences(summary), class_="verdict")]
    if not levels.levels(summary):
        body.append(tag("p", "No level was measured."))
    body += [
        tables.headline(summary),
        endpoints.tables(summary),
        workers.tables(summary),
        repeats.tables(summary),
        capacity.steps(summary),
    ]
    return Section("verdict", "In short", body)


def _sentences(summary: Summary) -> Iterable[Markup]:
    for line in (*thresholds.sentences(summary), *capacity.sentences(summary)):
        yield tag("li", tag("p", tag("strong", f"{_capital(line)}.")))
    for sentence in headline.sentences(summary):
        doubt = f"{sentence.doubt[:1].upper()}{sentence.doubt[1:]}." if sentence.doubt else ""
        yield tag(
            "li",
            tag("p", tag("strong", sentence.model, class_="model"), tag("span", f"{_capital(sentence.text)}.")),
            tag("p", doubt, class_="doubt") if doubt else None,
            class_="doubted" if doubt else None,
        )


def _capital(said: str) -> str:
    return said[:1].upper() + said[1:]


def doubts(summary: Summary) -> Section:
    """The validity gates that spoke, what did not run to its end, what changed until the end."""
    found = notes.gates(summary)
    body: list[Any] = []
    if found:
        body.append(tag("ul", [_gate(note) for note in found], class_="gates"))
    else:
        body.append(tag("p", "No validity gate spoke: nothing was found that makes these figures doubtful."))
    for title, lines in (
        ("Levels that did not run to their end", notes.unfinished(summary)),
        ("Measured again at the end", notes.closing(summary)),
    ):
        if lines:
            body.append(tag("div", tag("h3", title), grid.notes(lines), class_="block"))
    return Section("validity", "Can it be trusted?", body)


def _gate(note: notes.Note) -> Markup:
    badge = tag("span", f"{note.code} {note.severity}", class_="badge", title=_SEVERITIES.get(note.severity))
    lines = [tag("li", tag("b", f"{at}: ") if at else None, said) for at, said in note.texts]
    return tag("li", tag("p", badge, " ", tag("b", note.name)), tag("ul", lines), class_=f"gate {note.severity}")


def failures(summary: Summary) -> Section | None:
    """What failed, by kind, and which objectives were met; None where neither is told."""
    tables = (thresholds.table(summary), breakdowns.errors(summary), breakdowns.slo(summary))
    found = [table for table in tables if table]
    attempted = sum(int(level.get("attempted") or 0) for level in levels.levels(summary))
    failed = sum(int(level.get("failed") or 0) for level in levels.levels(summary))
    if not attempted:
        return None
    said = f"{failed:,} of {attempted:,} requests failed." if failed else f"None of {attempted:,} requests failed."
    return Section("failures", "Failures and objectives", [tag("p", said), *([table] for table in found)])


def more(summary: Summary) -> Section:
    """Tables for those who look closer."""
    single = [models.cold_start(summary), models.memory(summary)]
    body: list[Any] = [tables.gaps(summary), tables.answers(summary), breakdowns.open_loop(summary)]
    body += [[table] for table in single if table]
    body += [costs.machine(summary), costs.energy(summary), costs.server(summary)]
    body.append(_folded("Behind the figures", [breakdowns.behind(summary)]))
    prompts = [breakdowns.prompts(level, MOST_PROMPTS) for level in levels.levels(summary)]
    body.append(_folded("By prompt", [[table] for table in prompts if table]))
    lengths = [breakdowns.input_lengths(level) for level in levels.levels(summary)]
    body.append(_folded("By input length", [[table] for table in lengths if table]))
    return Section("more", "More figures", body)


def _folded(title: str, blocks: Sequence[Sequence[Table]]) -> Markup:
    inner = [grid.block(block) for block in blocks if block]
    return tag("details", tag("summary", title), inner, class_="folded") if inner else Markup("")


def origin(summary: Summary) -> Section:
    """How the figures were got: target, models, machine, settings, versions."""
    facts = [("date", provenance.date(summary)), *provenance.facts(summary)]
    rows = [[tag("dt", name), tag("dd", said)] for name, said in facts if said]
    return Section("origin", "How it was got", [tag("dl", rows, class_="facts")])


def meanings() -> Section:
    """Every figure's definition."""
    rows = [[tag("dt", name), tag("dd", said)] for name, said in definitions.definitions()]
    return Section("definitions", "What each figure means", [tag("dl", rows, class_="facts wide")])
