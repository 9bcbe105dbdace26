"""In a run's own report: its models held against the first one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from loadbench.report.comparison import doubts, words
from loadbench.report.comparison import tables as comparison_tables
from loadbench.report.tables import Table

TITLE = "Models against each other"


def sentences(summary: Mapping[str, Any]) -> list[str]:
    """One a model: the word, the figures that make it, and what of the answers forbids a verdict."""
    lines = []
    for record in summary.get("models_compared") or []:
        said = ": ".join([words.headline(record), *(text for _, text in words.sentences(record))])
        reds = [one.text for one in doubts.doubts(record) if one.severity == "red" and one.code in ("V5", "V6")]
        lines.append(f"{said}.{''.join(f' Mind: {red}.' for red in reds)}")
    return lines


def means(summary: Mapping[str, Any]) -> list[Table]:
    """The same over all levels, for a terminal: a table a model; where a model has one level alone, its verdicts."""
    found = []
    for record in summary.get("models_compared") or []:
        mean = comparison_tables.over_levels(record)
        if mean is None:
            return tables(summary)
        base, new = words.sides(record)
        found.append(replace(mean, model=words.pair(base, new)))
    return found


def tables(summary: Mapping[str, Any]) -> list[Table]:
    """The verdicts, a table a model against the first, which is BASE."""
    return [
        table
        for record in summary.get("models_compared") or []
        for table in comparison_tables.by_level(record, "Verdicts")
    ]
