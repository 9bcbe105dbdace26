"""One model on several devices side by side, and how many users each carries within the objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loadbench import text as units
from loadbench.metrics.gates import titled
from loadbench.report import costs, levels
from loadbench.report.levels import Level, Summary
from loadbench.report.tables import Cell, Column, Table, Times, known


def side_by_side(summary: Summary) -> list[Table]:
    """A table for each model that was measured on, or asked for, several devices: a row a device and level."""
    groups: dict[str, list[Level]] = {}
    for level in levels.levels(summary):
        groups.setdefault(_family(level, summary), []).append(level)
    found = []
    for family, rows in groups.items():
        names = {family, *(model.get("name") for level in rows for model in _models(level, summary))}
        absent = [row for row in summary.get("absent") or () if row.get("name") in names]
        if len({level.get("model") for level in rows}) > 1 or absent:
            found += known([_table(family, rows, absent)], fixed=2)
    return found


def _family(level: Level, summary: Summary) -> str:
    """What variants of one model have in common: its alias, else the name that it was asked for by."""
    told = (name for model in _models(level, summary) for name in (model.get("alias"), model.get("name")) if name)
    return str(level.get("alias") or next(told, None) or level.get("model"))


def _models(level: Level, summary: Summary) -> list[Mapping[str, Any]]:
    return [model for model in levels.models(summary) if model.get("id") == level.get("model")]


def _table(family: str, rows: Sequence[Level], absent: Sequence[Mapping[str, Any]]) -> Table:
    name = levels.lead_name(rows[0])
    times = Times.of([levels.lead(level) for level in rows])
    cells = [
        (
            Cell(words(level)),
            Cell(levels.label(level)),
            times.cell(levels.lead(level), "p50"),
            times.cell(levels.lead(level), "p95"),
            Cell(units.figure(level.get("output_tokens_per_s"))),
            Cell(units.figure(level.get("characters_per_s"))),
            Cell(units.share(level.get("failure_share"))),
            Cell(units.figure(level.get("j_per_1000_tokens"))),
            Cell(costs.source(level)),
        )
        for level in rows
    ]
    nothing = (Cell(units.ABSENT),) * 7
    cells += [(Cell(_asked(row)), Cell("absent"), *nothing) for row in absent]
    columns = (
        Column("device", left=True),
        Column("level", left=True),
        Column(f"{name} p50", times.unit),
        Column(f"{name} p95", times.unit),
        Column("tokens", "/s"),
        Column("chars", "/s"),
        Column("failed"),
        Column("J", "/1k tokens"),
        Column("energy of", left=True),
    )
    notes = [_UNSEEN] if any(level.get("device_by_name") for level in rows) else []
    notes += [f"absent: {_asked(row)}: {row.get('reason')}" for row in absent]
    if any(levels.is_marked(levels.lead(level), p) for level in rows for p in ("p50", "p95")):
        notes.append("* too few requests for an interval")
    return Table(f"Devices side by side: {family}", columns, tuple(cells), tuple(notes))


_UNSEEN = "a device told by the model's name alone was not seen: the rows are no comparison of devices"


def words(level: Level) -> str:
    """What the level ran on, as "GPU webgpu", and what was asked where that is another; else its model."""
    if level.get("device_by_name"):
        return f"{level.get('device') or level.get('model')} by its name, not seen"
    ran = level.get("ran") or {}
    device = ran.get("device") or level.get("device")
    provider = ran.get("execution_provider") or level.get("execution_provider")
    asked = level.get("asked_device")
    differs = asked and device and str(asked).upper() not in str(device).upper()
    return (_together(device, provider) or str(level.get("model"))) + (f", asked {asked}" if differs else "")


def _asked(row: Mapping[str, Any]) -> str:
    return _together(row.get("device"), row.get("execution_provider")) or str(row.get("name"))


def _together(device: str | None, provider: str | None) -> str:
    """Device and provider, said once where both have one name: "GPU webgpu", "CPU"."""
    short = short_provider(provider)
    return " ".join(part for part in (device, "" if short == (device or "").lower() else short) if part)


def short_provider(name: str | None) -> str:
    """An execution provider without its long ending.

    >>> short_provider("WebGpuExecutionProvider"), short_provider(None)
    ('webgpu', '')
    """
    return (name or "").strip().lower().removesuffix("executionprovider")


def carried(rows: Sequence[Level]) -> str:
    """How much load a model carries within the objectives, of the levels that were measured; "" without objectives.

    A load is carried where each of its repeats met every bound, and so did every lower load that was measured.
    """
    judged = [level for level in rows if level.get("slo") and not levels.is_unfinished(level)]
    judged = [level for level in judged if levels.is_open(level) == levels.is_open(judged[0])]
    if not judged:
        return ""
    bounds = levels.joined(str(bound.get("bound")) for level in judged for bound in level["slo"])
    by_load: dict[float, list[Level]] = {}
    for level in sorted(judged, key=levels.load):
        by_load.setdefault(levels.load(level), []).append(level)
    most, failing = None, None
    for load, same in by_load.items():
        within = _within(same)
        if within is None:
            open_ones = (bound for level in same for bound in level["slo"] if bound.get("attained") is None)
            return f"whether it keeps within {levels.joined(str(one['bound']) for one in open_ones)} is not known"
        if not within:
            failing = load
            break
        most = load
    kind, on = _unit(judged[0], most), _device(rows)
    hedge = _hedge([level for load in (most, failing) if load is not None for level in by_load[load]])
    if most is None:
        loads = units.listed(f"{load:g}" for load in by_load)
        return f"carries none of the levels measured{on} ({loads} {kind}) within {bounds}{hedge}"
    beyond = ", the most that was measured" if failing is None else f", {failing:g} are too many"
    return f"carries {most:g} {kind}{on} within {bounds}{beyond}{hedge}"


def _within(same: Sequence[Level]) -> bool | None:
    """Whether all repeats of a load met all bounds; None where one is undecided and none was missed."""
    met = [bound.get("attained") for level in same for bound in level["slo"]]
    return False if False in met else None if None in met else True


def _unit(level: Level, load: float | None) -> str:
    if levels.is_open(level):
        return "req/s"
    return "user" if load == 1 else "users"


def _device(rows: Sequence[Level]) -> str:
    if any(level.get("device_by_name") for level in rows):
        return ""
    found = dict.fromkeys(str((level.get("ran") or {}).get("device") or level.get("device") or "") for level in rows)
    return f" on {next(iter(found))}" if len(found) == 1 and next(iter(found)) else ""


def _hedge(deciding: Sequence[Level]) -> str:
    """What makes the word of the deciding levels uncertain."""
    said = {(w.get("code"), w.get("severity")) for level in deciding for w in level.get("warnings") or ()}
    red = sorted(titled(str(code)) for code, severity in said if severity == "red")
    if red:
        return f", by figures that are in doubt ({', '.join(red)} red)"
    return ", by few requests" if any(code == "V12" for code, _ in said) else ""
