"""The tables that take a run apart: errors, objectives, prompts, input lengths."""

from __future__ import annotations

from collections.abc import Sequence

from loadbench import text as units
from loadbench.report import capacity, levels
from loadbench.report.levels import Level, Summary
from loadbench.report.tables import (
    Cell,
    Column,
    Read,
    Table,
    Times,
    count,
    figure,
    known,
    level_name,
    metric,
    per_model,
    time_of,
    tpot,
    tpot_notes,
)


def open_loop(summary: Summary) -> list[Table]:
    """What the clock of an open loop hides or shows: waiting in the client, and TTFT from when a request was sent."""
    rows = [level for level in levels.levels(summary) if levels.is_open(level)]
    if not rows:
        return []
    times = Times.of([level.get("client_queue_ms") for level in rows] + [level.get("ttft_ms") for level in rows])
    columns: list[tuple[Column, Read]] = [
        (Column("level", left=True), level_name),
        (Column("offered"), count("offered")),
        (Column("in flight", "mean"), figure("in_flight_mean")),
        *((Column(f"queue {p}", times.unit), time_of(times, metric("client_queue_ms"), p)) for p in ("p50", "p99")),
        *((Column(f"TTFT {p}", "from sent"), time_of(times, metric("ttft_ms"), p)) for p in ("p50", "p95")),
    ]
    unit = {"ms": "milliseconds", "s": "seconds"}[times.unit]
    notes = [f"queue = waiting in the client, from due to sent; times in {unit}"]
    return _told(per_model("Open loop", {**summary, "levels": rows}, columns, notes), summary)


def behind(summary: Summary) -> list[Table]:
    """What stands behind the headline: the window, the load that was reached, the client, the whole run."""
    rows = levels.levels(summary)
    times = Times.of([level.get("ttfe_ms") for level in rows])
    columns: list[tuple[Column, Read]] = [
        (Column("level", left=True), level_name),
        (Column("level took", "s"), figure("duration_s")),
        (Column("steady window", "s"), figure("window_s")),
        (Column("in flight", "mean"), figure("in_flight_mean")),
        (Column("whole run tokens", "/s"), _whole_run("output_tokens_per_s")),
        (Column("whole run done", "/s"), _whole_run("requests_per_s")),
        (Column("input tokens", "/s"), figure("input_tokens_per_s")),
        (Column("stretch"), figure("stretch")),
        (Column("TTFE p50", times.unit), time_of(times, metric("ttfe_ms"), "p50")),
        (Column("TPOT micro", "ms"), tpot(figure("tpot_micro_ms"))),
        (Column("client lag p99", "ms"), lambda level: Cell(units.figure(levels.value(level, "client_lag_ms", "p99")))),
        (Column("merged arrivals"), lambda level: Cell(units.share(level.get("merged_share")))),
    ]
    if any(level.get("client_wait_share") is not None for level in rows):
        # Runs from before it was counted, and systems that do not count it, have no such column.
        columns.append(
            (Column("client wait", "for a core"), lambda level: Cell(units.share(level.get("client_wait_share"))))
        )
    return _told(per_model("Behind the figures", summary, columns, tpot_notes(rows)), summary)


def _told(found: list[Table], summary: Summary) -> list[Table]:
    """Without the columns that whole answers do not have."""
    return found if levels.is_streamed(summary) else known(found)


def _whole_run(name: str) -> Read:
    return lambda level: Cell(units.figure((level.get("whole_run") or {}).get(name)))


def _ttft_name(level: Level) -> str:
    return "TTFT from sent" if levels.is_open(level) else "TTFT median"


def errors(summary: Summary) -> Table | None:
    """Failures by kind, one row a level and kind; None when there were none."""
    rows = [
        (Cell(levels.full_label(level, summary)), Cell(str(kind)), Cell(units.count(n)), Cell(_of_attempted(n, level)))
        for level in levels.levels(summary)
        for kind, n in sorted((level.get("errors") or {}).items(), key=lambda item: (-item[1], item[0]))
        if n
    ]
    columns = (Column("level", left=True), Column("kind", left=True), Column("requests"), Column("of attempted"))
    return Table("Errors by kind", columns, tuple(rows)) if rows else None


def slo(summary: Summary) -> Table | None:
    """Attainment of each bound; None when no SLO was given."""
    rows = []
    for level in levels.levels(summary):
        low, high = level.get("goodput_per_s_ci95") or (None, None)
        ends = "" if low is None or high is None else f"{units.figure(low)}–{units.figure(high)}"
        goodput = Cell(units.figure(level.get("goodput_per_s")), ends)
        for bound in level.get("slo") or []:
            met = {True: "yes", False: "NO"}.get(bound.get("attained"), units.ABSENT)
            met = capacity.verdict(summary, level) or met  # of all bounds: a search decides a load
            rows.append(
                (
                    Cell(levels.full_label(level, summary)),
                    Cell(str(bound.get("bound"))),
                    Cell(units.share(bound.get("attainment")), _share_interval(bound.get("ci95"))),
                    Cell(units.count(bound.get("n"))),
                    Cell(met),
                    goodput,
                )
            )
    columns = (
        Column("level", left=True),
        Column("bound", left=True),
        Column("attained by"),
        Column("of offered"),
        Column("met"),
        Column("goodput", "req/s"),
    )
    notes = (
        () if levels.is_streamed(summary) else ("met -: not decided, a whole answer has no first token and no gaps",)
    )
    return Table("Service-level objectives", columns, tuple(rows), notes) if rows else None


def _share_interval(ends: Sequence[float] | None) -> str:
    return "–".join(units.share(end) for end in ends) if ends else ""


def prompts(level: Level, most: int) -> Table | None:
    """The level's prompts, slowest first token (whole answer) first, at most `most`; None when it names none."""
    streamed = level.get("streamed") is not False
    slowness = "ttft_median_ms" if streamed else "e2e_median_ms"
    entries = sorted(level.get("prompts") or [], key=lambda p: (-(p.get(slowness) or 0.0), str(p.get("prompt"))))
    shown = entries[:most]
    times = Times.of(shown, slowness)
    rows = tuple(
        (
            Cell(str(p.get("prompt"))),
            Cell(units.count(p.get("n"))),
            times.cell(p, "ttft_median_ms"),
            times.cell(p, "e2e_median_ms"),
            times.cell(p, "e2e_worst_ms"),
            Cell(units.count(p.get("output_tokens_median"))),
            Cell(units.count(p.get("outliers"))),
        )
        for p in shown
    )
    columns = (
        Column("prompt", left=True),
        Column("n"),
        Column(_ttft_name(level), times.unit),
        Column("E2E median", times.unit),
        Column("E2E worst", times.unit),
        Column("tokens out"),
        Column("outliers"),
    )
    left_out = len(entries) - len(shown) + int(level.get("prompts_left_out") or 0)
    notes = (f"{units.plural(left_out, 'more prompt')}: see requests.jsonl",) if left_out else ()
    return _one(Table(f"By prompt, {levels.label(level)}", columns, rows, notes, str(level.get("model"))), streamed)


def _one(table: Table, streamed: bool) -> Table | None:
    if not table.rows:
        return None
    return table if streamed else next(iter(known([table])), None)


def input_lengths(level: Level) -> Table | None:
    """TTFT and E2E by input length; None where the server counted no input tokens."""
    entries = level.get("input_lengths") or []
    streamed = level.get("streamed") is not False
    times = Times.of(entries, "ttft_median_ms" if streamed else "e2e_median_ms")
    rows = tuple(
        (
            Cell(f"{units.count(e.get('from_tokens'))}–{units.count(e.get('to_tokens'))}"),
            Cell(units.count(e.get("n"))),
            times.cell(e, "ttft_median_ms"),
            times.cell(e, "e2e_median_ms"),
        )
        for e in entries
    )
    columns = (
        Column("input tokens", left=True),
        Column("n"),
        Column(_ttft_name(level), times.unit),
        Column("E2E median", times.unit),
    )
    title = f"By input length, {levels.label(level)}"
    return _one(Table(title, columns, rows, model=str(level.get("model"))), streamed)


def _of_attempted(n: int, level: Level) -> str:
    attempted = level.get("attempted")
    return units.share(n / attempted) if attempted else units.ABSENT
