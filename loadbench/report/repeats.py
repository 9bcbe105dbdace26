"""Levels that were measured several times: run by run, and what all runs say together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loadbench import text as units
from loadbench.report import levels
from loadbench.report.levels import Summary
from loadbench.report.tables import Cell, Column, Table

Entry = Mapping[str, Any]
LATENCIES = {"ttft_p50": "TTFT p50", "e2e_p50": "E2E p50"}


def tables(summary: Summary) -> list[Table]:
    """One table a model: every run of each load, against the first one; beneath them their mean and its interval."""
    entries: dict[str, list[Entry]] = {}
    for entry in summary.get("repeats") or []:
        entries.setdefault(str(entry["model"]), []).append(entry)
    several = len(levels.by_model(summary)) > 1
    ended = _ended(summary)
    return [_table(found, model if several else None, ended) for model, found in entries.items()]


def _ended(summary: Summary) -> tuple[str, ...]:
    """Of a run that was repeated until its means were known well enough, whether they are."""
    until = (summary.get("run") or {}).get("until")
    if not isinstance(until, Mapping) or until.get("reached") is None:
        return ()
    wanted = f"{100 * until['wanted']:g}%"
    return (
        f"every mean is known to {wanted}, as --until wanted"
        if until["reached"]
        else f"not every mean is known to {wanted}, which --until wanted",
    )


def _table(entries: Sequence[Entry], model: str | None, ended: tuple[str, ...]) -> Table:
    latency = next((name for name in LATENCIES if name in entries[0]["figures"]), "ttft_p50")
    columns = (
        Column("load", left=True),
        Column("run", left=True),
        Column("tokens", "/s"),
        Column("against the first", short="of 1st"),
        Column(LATENCIES[latency], "ms"),
        Column("against the first", short="of 1st"),
    )
    rows: list[tuple[Cell, ...]] = []
    for entry in entries:
        for number, run in enumerate(entry["runs"], start=1):
            first = entry["runs"][0]
            name = levels.label({**entry, "repeat": 1}) if number == 1 else ""
            cells = [_run(run, first, figure) for figure in ("output_tokens_per_s", latency)]
            rows.append((Cell(name), Cell(str(number)), *cells[0], *cells[1]))
        both = [_all(entry["figures"][figure]) for figure in ("output_tokens_per_s", latency)]
        rows.append((Cell(""), Cell("all"), *both[0], *both[1]))
    notes = (
        "all = geometric mean of the runs with its 95% interval (each run counts once; from three runs on), and their "
        "spread: the largest over the smallest, and the coefficient of variation",
        *ended,
    )
    return Table("Run by run", columns, tuple(rows), notes, model)


def _run(run: Entry, first: Entry, figure: str) -> tuple[Cell, Cell]:
    value, before = run.get(figure), first.get(figure)
    ratio = f"{value / before:.2f}x" if value and before else units.ABSENT
    return Cell(units.figure(value)), Cell(ratio)


def _all(figure: Entry) -> tuple[Cell, Cell]:
    low, high, spread, cv = (figure[name] for name in ("low", "high", "spread", "cv"))
    bounds = "" if low is None else f"{units.figure(low)}–{units.figure(high)}"
    return Cell(units.figure(figure["mean"]), bounds), Cell(
        units.ABSENT if spread is None or cv is None else f"{spread:.2f}x, {100 * cv:.1f}%"
    )
