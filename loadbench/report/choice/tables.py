"""The tables of a choice: the rank by criterion, the figures that it rests on, and the needs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from loadbench import text as units
from loadbench.figures import named
from loadbench.report.choice import words
from loadbench.report.choice.words import Record, Row
from loadbench.report.tables import Cell, Column, Table

_SHORT = {"throughput": "through.", "disk footprint": "disk", "energy or cost": "energy", "latency": "latency"}


def all_of(record: Record) -> list[Table]:
    """Those that have something to say, in the order of reading."""
    found = (needs(record), rank(record), *figures(record))
    return [table for table in found if table is not None]


def rank(record: Record) -> Table | None:
    """Each candidate that is left: its score, and how near it comes to the best in each criterion."""
    left = words.rows(record)
    if not left:
        return None
    weighed = [one for one in record["criteria"] if one["share"]]
    columns = [Column("#"), Column("model", left=True), Column("score")]
    columns += [
        Column(one["label"], units.percent(one["share"]), short=_SHORT.get(one["label"], "")) for one in weighed
    ]
    columns.append(Column("first in", "of draws", short="first"))
    shares = {one["name"]: one["share"] for one in record["figures"]}
    lines = []
    for row in left:
        cells = [Cell(str(row["rank"])), Cell(str(row["name"])), Cell(f"{row['score']:.1f}")]
        cells += [_near(row, one, shares) for one in weighed]
        cells.append(Cell(units.share(row["wins"]["both"])))
        lines.append(tuple(cells))
    notes = ["of the best candidate in each criterion = 100%; score = their weighted geometric mean"]
    if any(cell.marked for line in lines for cell in line):
        notes.append("* not known in part or at all: counts as half as good as the worst of the others")
    usual = ", the usual weights: your own by --weights or --weight" if record["usual_weights"] else ""
    notes.append(f"with each criterion its weight{usual}")
    return Table(f"Rank at {record['load']['words']}", tuple(columns), tuple(lines), tuple(notes))


def _near(row: Row, criterion: Mapping[str, Any], shares: Mapping[str, float]) -> Cell:
    known = [name for name in criterion["figures"] if name in row["log_ratios"]]
    log = math.fsum(shares[name] * row["log_ratios"][name] for name in known) / criterion["share"]
    missing = any(name in row["missing"] for name in known)
    return Cell(units.percent(math.exp(log)), marked=missing)


def figures(record: Record) -> Iterable[Table]:
    """What was measured of everyone, first what speed is, then the rest; columns that nobody knows are left out."""
    everyone = record["candidates"]
    known = {name for row in everyone for name in row["figures"]}
    speed = [one["name"] for one in record["figures"] if one["unit"] in ("ms", "/s") and one["name"] in known]
    rest = [one["name"] for one in record["figures"] if one["name"] in known and one["name"] not in (*speed, "licence")]
    if speed:
        notes = ["95 % intervals in brackets; * too few requests for one"]
        if {"characters_per_s", "output_tokens_per_s"} <= known:
            notes.append("models cut text into tokens differently: compare them by characters")
        yield _table(f"Speed at {record['load']['words']}", everyone, speed, notes)
    licences = any(row["licence"] for row in everyone)
    if rest or licences:
        notes = [f"{name}: {said}" for name in ("memory", "disk") if (said := _sources(name, everyone))]
        yield _table("Quality and footprint", everyone, rest, notes, licences=licences)


def _sources(name: str, everyone: Sequence[Row]) -> str:
    told = [row["figures"][name]["source"] for row in everyone if name in row["figures"]]
    return ", ".join(sorted({one for one in told if one}))


def _table(
    title: str, everyone: Sequence[Row], names: Sequence[str], notes: Sequence[str], *, licences: bool = False
) -> Table:
    columns = [Column("model", left=True), *map(_column, names)]
    columns += [Column("licence", left=True)] if licences else []
    lines = []
    for row in everyone:
        cells = [Cell(str(row["name"])), *(_figure(name, row["figures"].get(name)) for name in names)]
        lines.append((*cells, *([Cell(str(row["licence"] or units.ABSENT))] if licences else [])))
    return Table(title, tuple(columns), tuple(lines), tuple(notes))


def _column(name: str) -> Column:
    one = named(name)
    if one is None:
        return Column(name)
    head, unit = one.figure.column
    return Column(head or one.title, unit or one.figure.unit)


def _figure(name: str, told: Mapping[str, Any] | None) -> Cell:
    if told is None:
        return Cell(units.ABSENT)
    ends = [told["low"], told["high"]]
    between = "–".join(_number(name, end) for end in ends) if None not in ends else ""
    return Cell(_number(name, told["value"]), between, marked=bool(told["n"]) and not between)


def _number(name: str, value: float) -> str:
    if name in ("memory", "disk"):
        return units.count(value / 1e6) if value >= 1e8 else units.figure(value / 1e6)
    if name == "rules":
        return units.share(value)
    return f"{value:.2f}" if name == "quality" else units.figure(float(value))


def needs(record: Record) -> Table | None:
    """Who meets which need; None where there is none."""
    if not record["needs"]:
        return None
    columns = (Column("model", left=True), *(Column(need, left=True) for need in record["needs"]), Column("left"))
    lines = []
    for row in record["candidates"]:
        cells = [_met(need) for need in row["needs"]] or [Cell(units.ABSENT)] * len(record["needs"])
        lines.append((Cell(str(row["name"])), *cells, Cell("yes" if row["status"] == "left" else "NO")))
    notes = []
    if any("?" in cell.text for line in lines for cell in line):
        notes.append("? not sure: the interval holds the bound, or there is none")
    return Table("Needs", columns, tuple(lines), tuple(notes))


def _met(need: Mapping[str, Any]) -> Cell:
    if need["outcome"] == "unknown":
        return Cell("not known")
    sure = "" if need["sure"] is True else " ?"
    return Cell(f"{words.value(need, need['value'])}{'' if need['outcome'] == 'met' else ' NO'}{sure}")
