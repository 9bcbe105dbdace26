"""What the tables of a report hold, whatever prints them: `text.py` for a terminal, `markdown.py` for GitHub."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from loadbench import text as units
from loadbench.figures import STATISTIC_TITLES
from loadbench.report import levels
from loadbench.report.levels import Level, Summary

SECONDS_FROM_MS = 10_000.0
MILLISECONDS_TO_MS = 100.0
"""A group of times is in s when the largest reaches the first and none is below the second; one unit a group, so that
columns can be scanned."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure: its text, its 95% interval ("205–216") or "", and whether too few requests stand behind it.

    Attributes:
        doubtful: Marked, since the interval may be too narrow, not since it is missing.
    """

    text: str
    interval: str = ""
    marked: bool = False
    doubtful: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """A column: text stands left, figures right.

    Attributes:
        name: Its head.
        unit: Of the figures, e.g. "ms"; one that begins with "/" belongs to the name.
        short: The head on a terminal, where that must be shorter.
    """

    name: str
    unit: str = ""
    left: bool = False
    short: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A title, its columns, rows of as many cells, and notes beneath. `model` is None where a column names it."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Times:
    """Formats a group of times of one table in one unit."""

    unit: str
    scale: float

    @classmethod
    def of(cls, metrics: Sequence[Any], statistic: str = "p50") -> Times:
        known = [m[statistic] for m in metrics if m and m.get(statistic) is not None]
        largest = max(
            (m.get("p99") or m[statistic] for m in metrics if m and m.get(statistic) is not None), default=0.0
        )
        in_seconds = bool(known) and largest >= SECONDS_FROM_MS and min(known) >= MILLISECONDS_TO_MS
        return cls("s", 1000.0) if in_seconds else cls("ms", 1.0)

    def cell(self, metric: Any, statistic: str) -> Cell:
        metric = metric or {}
        number = metric.get(statistic)
        if number is None:
            return Cell(units.ABSENT)
        low, high = levels.ends(metric, statistic)
        shown = [units.figure(end / self.scale) for end in (low, high) if end is not None]
        ends = "–".join(shown)
        if low is not None and high is None:
            ends = f"≥ {ends}"
        doubtful = levels.is_doubtful(metric, statistic)
        marked = doubtful or levels.is_marked(metric, statistic)
        return Cell(units.figure(float(number) / self.scale), ends, marked, doubtful)


def headline(summary: Summary) -> list[Table]:
    """TTFT (of whole answers E2E) and throughput, one row a level: the tables that a reader must see first."""
    rows = levels.levels(summary)
    opened = any(levels.is_open(level) for level in rows)
    streamed = levels.is_streamed(summary)
    name = "TTFT" if streamed else "E2E"
    times = Times.of([levels.lead(level) for level in rows])
    estimated = any(levels.is_estimated(level) for level in rows)
    tokens = Column("estimated tokens", "/s", short="~tokens") if estimated else Column("tokens", "/s")
    columns: list[tuple[Column, Read]] = [
        (Column("level", left=True), level_name),
        (Column("done"), count("completed")),
        (Column("failed", short="fail"), count("failed")),
    ]
    if any(level.get("dropped") for level in rows):
        columns.append((Column("dropped", short="drop"), count("dropped")))
    columns += [
        *((Column(f"{name} {p}", times.unit), time_of(times, levels.lead, p)) for p in ("p50", "p95", "p99")),
        (tokens, figure("output_tokens_per_s")),
        (Column("chars", "/s"), figure("characters_per_s")),
    ]
    if opened:
        columns.append((Column("done", "/s"), figure("requests_per_s")))
    else:
        columns.append((Column("efficiency", short="eff."), lambda level: Cell(units.percent(level.get("efficiency")))))
    notes = _percentile_notes([levels.lead(level) for level in rows], ("p50", "p95", "p99"), "requests")
    if not streamed:
        notes.append("answers were asked for whole: no first token, no gaps between tokens")
    return per_model(f"{name} and throughput", summary, columns, notes + _legend(rows, opened, estimated))


def gaps(summary: Summary) -> list[Table]:
    """The gaps between tokens, and TPOT, which says nothing without the tables above; one table a model.

    None of whole answers.
    """
    if not levels.is_streamed(summary):
        return []
    rows = levels.levels(summary)
    itl = [level.get("itl_ms") for level in rows]
    times = Times.of(itl)
    names = {named for level in rows if (named := levels.gap_name(level))}
    name = "ITL" if not names else names.pop() if len(names) == 1 else "gap"
    columns: list[tuple[Column, Read]] = [
        (Column("level", left=True), level_name),
        *(
            (Column(f"{name} {STATISTIC_TITLES[p]}", times.unit), time_of(times, metric("itl_ms"), p))
            for p in ("p50", "p99", "p999", "max")
        ),
        (Column("TPOT p50", times.unit), tpot(time_of(times, metric("tpot_ms"), "p50"))),
        (Column("tokens", "/event"), figure("tokens_per_event")),
    ]
    if name == "gap":
        columns.insert(1, (Column("gap", left=True), lambda level: Cell(levels.gap_name(level) or units.ABSENT)))
    notes = _percentile_notes(itl, ("p50", "p99", "p999"), "gaps", name)
    notes += _percentile_notes([level.get("tpot_ms") for level in rows], ("p50",), "requests", "TPOT")
    if name == "IET":
        notes.append("IET = inter-event time: an arrival of text does not carry one token")
    if name == "gap":
        notes.append(
            "ITL = inter-token latency; IET = inter-event time: an arrival does not carry one token at that level"
        )
    notes += tpot_notes(rows)
    return per_model("Gaps between events" if name == "IET" else "Gaps between tokens", summary, columns, notes)


def answers(summary: Summary) -> list[Table]:
    """Whole requests, one table a model: how long, how many a second, what came back and how it ended."""
    rows = levels.levels(summary)
    e2e = [level.get("e2e_ms") for level in rows]
    times = Times.of(e2e)
    columns: list[tuple[Column, Read]] = [
        (Column("level", left=True), level_name),
        *((Column(f"E2E {p}", times.unit), time_of(times, metric("e2e_ms"), p)) for p in ("p50", "p95")),
        (Column("done", "/s"), figure("requests_per_s")),
        (Column("tokens in", "p50"), lambda level: Cell(units.count(levels.value(level, "input_tokens", "p50")))),
        (Column("tokens out", "p50"), lambda level: Cell(units.count(levels.value(level, "output_tokens", "p50")))),
        (Column("finish reasons", left=True, short="finish"), lambda level: Cell(counts(level.get("finish_reasons")))),
    ]
    notes = _percentile_notes(e2e, ("p50", "p95"), "requests", "E2E")
    if any(level.get("cached_share") for level in rows):
        columns.insert(5, (Column("cached"), lambda level: Cell(units.share(level.get("cached_share")))))
        notes.append("cached: share of the input tokens that a prompt cache answered, as the server's usage tells")
    if any(level.get("retries") for level in rows):
        columns.append((Column("sent again", short="again"), count("retries")))
        notes.append("sent again: once, silently, after a reused connection had died before its first byte")
    if any(level.get("retried") for level in rows):
        columns += [(Column("retried"), count("retried")), (Column("recovered", short="recov."), count("recovered"))]
        notes.append(
            "retried: requests that repeat a failed one; recovered: those of them that completed; the failed ones stay "
            "failed"
        )
    return per_model("Whole requests", summary, columns, notes)


def counts(by_name: Any) -> str:
    """Counts by name, most frequent first: "length 36, stop 4"."""
    ordered = sorted((by_name or {}).items(), key=lambda item: (-item[1], str(item[0])))
    return ", ".join(f"{name} {n:,}" for name, n in ordered if n) or units.ABSENT


Read = Callable[[Level], Cell]


def per_model(
    title: str, summary: Summary, columns: Sequence[tuple[Column, Read]], notes: Sequence[str]
) -> list[Table]:
    """A table a model, all with the same columns, units and notes."""
    names = tuple(column for column, _ in columns)
    return [
        Table(title, names, tuple(tuple(read(level) for _, read in columns) for level in rows), tuple(notes), model)
        for model, rows in levels.by_model(summary).items()
    ]


def known(found: Sequence[Table], fixed: int = 1) -> list[Table]:
    """The same tables without the columns of which no cell of any of them is known; none where only names are left.

    Args:
        fixed: Columns from the left that name a row.
    """
    if not found:
        return []
    rows = [row for table in found for row in table.rows]
    kept = [i for i in range(len(found[0].columns)) if i < fixed or any(row[i].text != units.ABSENT for row in rows)]
    if len(kept) == fixed:
        return []
    return [
        replace(
            table,
            columns=tuple(table.columns[i] for i in kept),
            rows=tuple(tuple(row[i] for i in kept) for row in table.rows),
        )
        for table in found
    ]


def count(name: str) -> Read:
    return lambda level: Cell(units.count(level.get(name)))


def figure(name: str) -> Read:
    return lambda level: Cell(units.figure(level.get(name)))


def metric(name: str) -> Callable[[Level], Any]:
    return lambda level: level.get(name)


def time_of(times: Times, metric: Callable[[Level], Any], statistic: str) -> Read:
    return lambda level: times.cell(metric(level), statistic)


def tpot(read: Read) -> Read:
    """A TPOT with "~" before it where it is estimated."""

    def marked(level: Level) -> Cell:
        cell = read(level)
        doubtful = levels.is_tpot_estimated(level) and cell.text != units.ABSENT
        return replace(cell, text=f"~{cell.text}") if doubtful else cell

    return marked


def tpot_notes(rows: Sequence[Level]) -> list[str]:
    """What the "~" of a TPOT means, where there is one."""
    if not any(levels.is_tpot_estimated(level) for level in rows):
        return []
    return ["~ TPOT: tokens of the first arrival estimated from tokens per event"]


def level_name(level: Level) -> Cell:
    """The level's name, with a dagger where it did not run to its end."""
    return Cell(levels.label(level) + (" †" if levels.is_unfinished(level) else ""))


def _legend(rows: Sequence[Level], opened: bool, estimated: bool) -> list[str]:
    notes = []
    if opened:
        counted = "; TTFT counts from when a request was due" if rows[0].get("streamed") is not False else ""
        notes.append(f"open loop: requests start at the given rate{counted}")
    if not all(levels.is_open(level) for level in rows):
        notes.append("c4 = 4 streams; efficiency = tokens/s per stream against the lowest level")
    if any((level.get("repeat") or 1) > 1 for level in rows):
        notes.append("c4 (2) = the second repeat of c4")
    if estimated:
        notes.append("estimated tokens (~): the server counted none, events with text stand for them")
    return notes


def _percentile_notes(metrics: Sequence[Any], statistics: Sequence[str], noun: str, name: str = "") -> list[str]:
    """What the marks mean: "* p99 needs ≥ 368 requests, has 40"."""
    notes = []
    for statistic in statistics:
        needed = levels.REQUESTS_NEEDED[statistic]
        subject = f"{name} {STATISTIC_TITLES[statistic]}".strip()
        have = sorted({int(m.get("n") or 0) for m in metrics if m and levels.is_marked(m, statistic)})
        few, enough = [n for n in have if n < needed], [n for n in have if n >= needed]
        if few:
            notes.append(f"* {subject} needs ≥ {needed:,} {noun}, has {_range(few)}")
        if enough:
            # Enough in number, but those that resemble each other count as fewer than they are.
            alike = "from too few requests" if noun == "gaps" else "resemble each other too much"
            lower = any(
                m and levels.is_marked(m, statistic) and levels.ends(m, statistic)[0] is not None for m in metrics
            )
            missing = "no upper end of the 95% interval" if lower else "no 95% interval"
            notes.append(f"* {subject}: {missing}; {_range(enough)} {noun} {alike}")
        if any(m and levels.is_doubtful(m, statistic) for m in metrics):
            notes.append(f"* {subject}: {noun} may resemble their neighbours: its 95% interval may be too narrow")
    return notes


def _range(ascending: Sequence[int]) -> str:
    return f"{ascending[0]:,}" if len(ascending) == 1 else f"{ascending[0]:,} to {ascending[-1]:,}"
