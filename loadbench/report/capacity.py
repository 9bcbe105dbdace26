"""The search for the highest load within an SLO: its answer in words, and its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loadbench import text as units
from loadbench.report import notes
from loadbench.report.levels import Level, Summary
from loadbench.report.tables import Cell, Column, Table

Record = Mapping[str, Any]


def sentences(summary: Summary) -> list[str]:
    """The answer for each model; what stands in the summary alone where no search is told."""
    records = _records(summary)
    if not records:
        found = notes.capacity(summary)
        return [found] if found else []
    return [f"{one['model']}: {_answer(one)}" if len(records) > 1 else _answer(one) for one in records]


def is_searched(summary: Summary, model: str) -> bool:
    """Whether a search says how much load a model carries."""
    return any(str(record.get("model")) == model for record in _records(summary))


def verdict(summary: Summary, level: Level) -> str | None:
    """What the search decided of a level, as the SLO table says it; None of a level that is no step of a search."""
    steps = {str(step["level"]): str(step["verdict"]) for one in _records(summary) for step in one.get("steps") or []}
    said = steps.get(str(level.get("id")))
    return {"met": "yes", "not met": "NO"}.get(said, said) if said is not None else None


def steps(summary: Summary) -> list[Table]:
    """Every load that was tried, in order, one table a model."""
    columns = (
        Column("load", left=True),
        Column("verdict", left=True),
        Column("requests"),
        Column("bound", left=True),
        Column("met by"),
        Column("wanted"),
    )
    found = []
    for record in _records(summary):
        rows = tuple(row for step in record.get("steps") or [] for row in _rows(step, record))
        if rows:
            found.append(Table("Search for the capacity", columns, rows, tuple(_notes(record)), str(record["model"])))
    return found


def _records(summary: Summary) -> list[Record]:
    return list(summary.get("capacity") or [])


def _answer(record: Record) -> str:
    """As "capacity 6 streams within ttft_p95=1s, not from 9 streams on, undecided between (confirmed by ...)"."""
    reason = record.get("reason") or ""
    because = f" ({reason})" if reason else ""
    return f"{_zones(record)}{because}{_estimate(record)}"


def _zones(record: Record) -> str:
    """Up to where the SLO is met, from where on it is missed, and what lies between."""
    low, high, undecided = record["meets"], record["misses"], record["undecided"]
    slo = " and ".join(record["slo"])
    above = ", undecided above" if undecided else ""
    between = ", undecided between" if undecided else ""
    if record["found"] is not None:
        said = f"capacity {_load(record['found'], record)} within {slo}"
        if high is None:
            return said + (above or ", or more")
        return (
            f"{said}, not from {_load(high, record)} on{between}" if undecided else f"{said}; {_load(high, record)} not"
        )
    if low is None and high is None:
        return f"capacity within {slo} not known" + (f": undecided at {_loads(undecided, record)}" if undecided else "")
    if low is None:
        return f"capacity below {_load(high, record)}: {slo} not met there{', undecided below' if undecided else ''}"
    if high is None:
        return f"capacity at least {_load(low, record)} within {slo}{above}"
    return f"capacity at least {_load(low, record)}, fewer than {_load(high, record)} within {slo}{between}"


def _estimate(record: Record) -> str:
    """What all probes together say, where the zones leave something open."""
    found, low, high = record["estimate"], record["meets"], record["misses"]
    neighbours = record["by"] == "concurrency" and low is not None and high == low + 1
    if found is None or neighbours:
        return ""
    unit = "streams" if record["by"] == "concurrency" else "req/s"
    said = f"; by all probes together about {found['load']:g} {unit}"
    if found["ci95"] is None:
        return said
    return f"{said} (95% interval {found['ci95'][0]:g} to {found['ci95'][1]:g})"


def _rows(step: Record, record: Record) -> list[tuple[Cell, ...]]:
    """One row a bound; what is said of the whole load stands in the first."""
    verdict = str(step["verdict"]) + ("" if step.get("counted", True) else ", not counted")
    head = (Cell(_label(step, record)), Cell(verdict), Cell(units.count(step["requests"])))
    blank = Cell("")
    shares = list(step.get("shares") or [])
    if not shares:
        return [(*head, blank, Cell(units.ABSENT), Cell(units.ABSENT))]
    return [
        (
            *(head if i == 0 else (blank, blank, blank)),
            Cell(str(share["bound"])),
            _met_by(share),
            Cell(units.ABSENT if share["wanted"] is None else units.percent(share["wanted"])),
        )
        for i, share in enumerate(shares)
    ]


def _met_by(share: Record) -> Cell:
    if share["share"] is None:
        return Cell({True: "yes", False: "NO", None: units.ABSENT}[share["attained"]])
    ends = "–".join(units.percent(end) for end in share["interval"] or ())
    return Cell(units.percent(share["share"]), ends)


def _notes(record: Record) -> list[str]:
    """How the verdicts were reached."""
    steps = record.get("steps") or []
    said = [f"{_label(step, record)}: {step['reason']}" for step in steps if step.get("reason")]
    twice = [_load(load, record) for load in record.get("contradictions") or []]
    said += [f"{load} met the SLO once and not surely another time: not counted as met" for load in twice]
    looks = f"at each of {record['looks']} looks, 95% for all of them" if record["looks"] > 1 else "at one look"
    knows = any("worth" in share for step in steps for share in step.get("shares") or ())
    taken = ", wider where requests depend on each other" if knows else ", which takes requests as independent"
    said.append(
        f"met by = share of requests, with Wilson's interval ({100 * record['confidence']:.3g}% {looks}){taken}; "
        "undecided = neither surely met nor surely missed"
    )
    if knows and record["by"] == "rate":
        said.append("at a rate a load is met only once its queue is steady: the first quarter of a probe is warm-up")
    return said


def _loads(loads: Sequence[float], record: Record) -> str:
    return " and ".join(_load(load, record) for load in loads)


def _load(load: float, record: Record) -> str:
    return units.plural(int(load), "stream") if record["by"] == "concurrency" else f"{load:g} req/s"


def _label(step: Record, record: Record) -> str:
    name = f"c{step['load']}" if record["by"] == "concurrency" else f"{step['load']:g} req/s"
    repeat = str(step["level"]).partition("#")[2]
    return f"{name} ({repeat})" if repeat else name
