"""Whether a run passed its thresholds: in words first, then a row for each threshold and level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loadbench import text as units
from loadbench.report import levels
from loadbench.report.levels import Summary
from loadbench.report.tables import Cell, Column, Table

Row = Mapping[str, Any]
MOST_NAMED = 5
WORDS = {"failed": "FAILED", "unknown": "not known", "passed": "passed"}


def verdict(summary: Summary) -> str | None:
    """The worst of all results, failed, unknown or passed; None where nothing was asked."""
    results = {row["result"] for row in rows(summary)}
    return next((word for word in WORDS if word in results), None)


def sentences(summary: Summary) -> list[str]:
    """What failed, what nobody knows, or that all passed; empty where nothing was asked."""
    found = rows(summary)
    if not found:
        return []
    said = []
    failed = [row for row in found if row["result"] == "failed"]
    if failed:
        said.append(f"FAILED: {_grouped(failed, summary)}")
        said += [f"the run ended there: {row['text']} aborts it" for row in failed if row["aborted"]][:1]
    unknown = [row for row in found if row["result"] == "unknown"]
    if unknown:
        said.append(f"not known: {_grouped(unknown, summary)}")
    if not said:
        texts = list(dict.fromkeys(str(row["text"]) for row in found))
        where = len({row["level"] for row in found})
        none = "it does not fail" if len(texts) == 1 else f"none of {len(texts)} thresholds fails"
        at = f" at any of {where} levels" if where > 1 else ""
        said.append(f"passed: {none}{at} ({', '.join(texts)})")
    return said


def table(summary: Summary) -> Table | None:
    """A row a threshold and level; None where nothing was asked."""
    found = rows(summary)
    if not found:
        return None
    columns = [Column("level", left=True), Column("fails if", left=True), Column("is"), Column("of")]
    lines = tuple(
        (
            Cell(place(row, summary) or units.ABSENT),
            Cell(str(row["text"])),
            Cell(value(row), interval(row)),
            Cell(units.count(row["n"])),
            Cell(WORDS[row["result"]]),
        )
        for row in found
    )
    unknown = [row for row in found if row["result"] == "unknown"]
    notes = ["each level must pass; a threshold says what fails"]
    notes += [f"not known: {_grouped(unknown, summary)}"] if unknown else []
    return Table("Thresholds", (*columns, Column("result", left=True)), lines, tuple(notes))


def rows(summary: Summary) -> list[Row]:
    return list(summary.get("thresholds") or [])


def told(row: Row, summary: Summary) -> str:
    """One row in words: "ttft_p95 > 800ms at c8 (1.24 s)"."""
    where = place(row, summary)
    why = row["reason"] or value(row)
    return f"{row['text']}{f' at {where}' if where else ''} ({why})"


def place(row: Row, summary: Summary) -> str:
    """The level's short name, with its model where the run has several; "" where no level is one."""
    found = next((level for level in summary.get("levels") or [] if level.get("id") == row["level"]), None)
    return levels.full_label(found, summary) if found else ""


def value(row: Row) -> str:
    """The figure with its unit."""
    if row["value"] is None and row["result"] == "failed":
        return "no end"
    return units.with_unit(row["value"], row["unit"])


def interval(row: Row) -> str:
    ends = row["interval"]
    if not ends or any(end is None for end in ends):
        return ""
    return "–".join(units.with_unit(end, row["unit"]) for end in ends)


def _grouped(found: Sequence[Row], summary: Summary) -> str:
    """Rows in words: what one threshold says of several levels is one part, and so is one reason of several levels."""
    by_text: dict[str, dict[str, list[str]]] = {}
    for row in found:
        why = str(row["reason"] or value(row))
        by_text.setdefault(str(row["text"]), {}).setdefault(why, []).append(place(row, summary))
    said = []
    for text, reasons in by_text.items():
        places = [(levels.joined(filter(None, at)), why) for why, at in reasons.items()]
        left = len(places) - MOST_NAMED
        parts = [f"at {at} ({why})" if at else f"({why})" for at, why in places[:MOST_NAMED]]
        said.append(f"{text} {', '.join([*parts, *([f'and {left} more'] if left > 0 else [])])}")
    return "; ".join(said)


def reasons(summary: Mapping[str, Any], *, strict: bool) -> list[str]:
    """Why the run failed, a line each; empty where it did not.

    Args:
        strict: Whether unknown thresholds and red gates fail it too.
    """
    judged = rows(summary)
    found = [told(row, summary) for row in judged if row["result"] == "failed"]
    if not strict:
        return found
    found += [f"not known: {told(row, summary)}" for row in judged if row["result"] == "unknown"]
    from loadbench.metrics.gates import titled

    red: dict[str, list[str]] = {}
    for level, warning in levels.warnings(summary):
        if warning.get("severity") == "red":
            where = levels.full_label(level, summary) if level else "the whole run"
            red.setdefault(where, []).append(titled(str(warning.get("code"))))
    return found + [f"{levels.joined(codes)} red at {where}: no basis for a verdict" for where, codes in red.items()]
