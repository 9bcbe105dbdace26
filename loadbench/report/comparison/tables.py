"""The tables of a comparison: every verdict of every level, and over levels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from loadbench import text as units
from loadbench.report.comparison import words
from loadbench.report.comparison.words import Record, Verdict
from loadbench.report.tables import Cell, Column, Table

_LEVEL = Column("level", left=True)
_METRIC = Column("metric", left=True)
_SIDES = (Column("BASE"), Column("NEW"))
_VERDICT = Column("verdict", left=True)


def by_level(record: Record, title: str = "Verdicts") -> list[Table]:
    """A row a metric and level, one table a pair of models."""
    pairs: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for level in record["levels"]:
        pairs.setdefault((level["base_model"], level["new_model"]), []).append(level)
    columns = (_LEVEL, _METRIC, *_SIDES, Column("change"), _VERDICT, Column("n"), Column("runs"))
    return [
        Table(
            title,
            columns,
            tuple(_row(level, verdict) for level in found for verdict in level["verdicts"]),
            tuple(_notes(found)),
            words.pair(*names),
        )
        for names, found in pairs.items()
    ]


def over_levels(record: Record) -> Table | None:
    """The geometric mean of each metric over its levels; None where no level has a second."""
    means = record["over_levels"]
    if not means:
        return None
    several = len({(mean["base_model"], mean["new_model"]) for mean in means}) > 1
    columns = [_METRIC, Column("levels"), Column("change"), _VERDICT, Column("runs")]
    rows = []
    for mean in means:
        model = [Cell(words.pair(mean["base_model"], mean["new_model"]))] if several else []
        rows.append(
            (
                *model,
                Cell(words.metric(mean["metric"])),
                Cell(units.count(mean["levels"])),
                _change(mean),
                Cell(words.said(mean)),
                _both(mean["runs_base"], mean["runs_new"]),
            )
        )
    notes = _by_text((words.metric(mean["metric"]), mean["method"]) for mean in means)
    model_column = [Column("model", left=True)] if several else []
    return Table("Over all levels", (*model_column, *columns), tuple(rows), tuple(notes))


def _row(level: Mapping[str, Any], verdict: Verdict) -> tuple[Cell, ...]:
    return (
        Cell(words.load(level["load"])),
        Cell(words.metric(verdict["metric"])),
        Cell(_figure(verdict["base"], verdict["unit"])),
        Cell(_figure(verdict["new"], verdict["unit"])),
        _change(verdict),
        Cell(words.said(verdict)),
        _both(verdict["n_base"], verdict["n_new"]),
        _both(verdict["runs_base"], verdict["runs_new"]),
    )


def _change(verdict: Verdict) -> Cell:
    return Cell(words.change(verdict), words.interval(verdict), verdict["low"] is None)


def _figure(value: float | None, unit: str) -> str:
    if unit == "ms":
        return units.span(value)
    return units.share(value) if unit == "share" else units.figure(value)


def _both(base: int, new: int) -> Cell:
    return Cell(f"{base:,}" if base == new else f"{base:,} / {new:,}")


def _notes(found: Sequence[Mapping[str, Any]]) -> list[str]:
    verdicts = [(level, verdict) for level in found for verdict in level["verdicts"]]
    notes = ["* no interval, so no verdict is possible"] if any(v["low"] is None for _, v in verdicts) else []
    notes += _by_level([(level, v, v["note"]) for level, v in verdicts])
    several = len(found) > 1
    flagged = [(_at(level, v, several), v["outliers_base"] or 0, v["outliers_new"] or 0) for level, v in verdicts]
    listed = ", ".join(f"{at} {base} / {new}" for at, base, new in flagged if base or new)
    notes += [f"outliers, flagged and none dropped: {listed}"] if listed else []
    for level, v in verdicts:
        if v["p_value"] is not None and v["base"] != v["new"]:
            notes.append(f"{_at(level, v, several)}: on the same prompts, McNemar's p = {v['p_value']:.2g}")
    return notes + _by_level([(level, v, v["method"]) for level, v in verdicts if v["low"] is not None])


def _at(level: Mapping[str, Any], verdict: Verdict, several: bool) -> str:
    name = words.metric(verdict["metric"])
    return f"{name} at {words.load(level['load'])}" if several else name


def _by_level(rows: Sequence[tuple[Mapping[str, Any], Verdict, str]]) -> list[str]:
    """What is said of metrics; the levels are named where it is not the same at all of them."""
    texts: dict[str, set[str]] = {}
    for _, verdict, text in rows:
        texts.setdefault(verdict["metric"], set()).add(text)
    return _by_text((_at(level, v, len(texts[v["metric"]]) > 1), text) for level, v, text in rows)


def _by_text(rows: Iterable[tuple[str, str]]) -> list[str]:
    """What is said of several subjects once: "TTFT, E2E: paired by prompt"."""
    found: dict[str, dict[str, None]] = {}
    for subject, text in rows:
        if text:
            found.setdefault(text, {})[subject] = None
    return [f"{', '.join(subjects)}: {text}" for text, subjects in found.items()]
