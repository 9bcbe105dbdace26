"""The tables of a run's levels: the headline, gaps, whole requests, open loops, errors, prompts, input lengths."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from loadbench import text as units
from loadbench.figures import STATISTIC_TITLES
from loadbench.report import levels
from loadbench.report.document import Cell, Column, Table, Times, interval, table, without_unknown
from loadbench.report.levels import Level, Record, Summary

Read = Callable[[Level], Cell]
Columns = list[tuple[Column, Read]]
MOST_PROMPTS = 50
"""Rows of one level's prompt table; summary.json has them all."""
WORST_PROMPTS = 3


# -- columns


def per_model(title: str, rows: Sequence[Level], columns: Columns, notes: Sequence[str] = ()) -> list[Table]:
    models: dict[str, list[Level]] = {}
    for level in rows:
        models.setdefault(levels.model(level), []).append(level)
    return [table(title, columns, own, notes, model) for model, own in models.items()]


def level_name(level: Level) -> Cell:
    """The level's name, with a dagger where it did not run to its end."""
    return Cell(levels.label(level) + (" †" if levels.is_unfinished(level) else ""))


LEVEL: tuple[Column, Read] = (Column("level", left=True), level_name)


def count(name: str) -> Read:
    return lambda level: Cell(units.count(level.get(name)))


def figure(name: str) -> Read:
    return lambda level: Cell(units.figure(level.get(name)))


def share(name: str) -> Read:
    return lambda level: Cell(units.share(level.get(name)))


def rate(name: str) -> Read:
    return lambda level: Cell(units.figure(level.get(name)), interval(*levels.bounds(level, name)))


def efficiency(level: Level) -> Cell:
    return Cell(units.percent(level.get("efficiency")))


def statistic(metric: str, name: str, shown: Callable[[float | None], str] = units.figure) -> Read:
    return lambda level: Cell(shown(levels.value(level, metric, name)))


def metric(name: str) -> Callable[[Level], Record]:
    return lambda level: levels.distribution(level, name)


def times_of(
    name: str, times: Times, read: Callable[[Level], Record], statistics: Iterable[str], unit: str = ""
) -> Columns:
    return [(Column(f"{name} {STATISTIC_TITLES[p]}", unit or times.unit), _time(times, read, p)) for p in statistics]


def _time(times: Times, read: Callable[[Level], Record], statistic: str) -> Read:
    return lambda level: times.cell(read(level), statistic)


def _tpot(read: Read) -> Read:
    """A TPOT with "~" before it where it is estimated."""

    def estimated(level: Level) -> Cell:
        cell = read(level)
        if levels.is_tpot_estimated(level) and cell.text != units.ABSENT:
            return replace(cell, text=f"~{cell.text}")
        return cell

    return estimated


# -- notes


def _tpot_notes(rows: Sequence[Level]) -> list[str]:
    if not any(map(levels.is_tpot_estimated, rows)):
        return []
    return ["~ TPOT: tokens of the first arrival estimated from tokens per event"]


def _percentile_notes(metrics: Sequence[Record], statistics: Sequence[str], noun: str, name: str = "") -> list[str]:
    """What the marks mean: "* p99 needs ≥ 368 requests, has 40"."""
    notes = []
    for p in statistics:
        needed = levels.REQUESTS_NEEDED[p]
        subject = f"{name} {STATISTIC_TITLES[p]}".strip()
        marked = [metric for metric in metrics if levels.is_marked(metric, p)]
        numbers = sorted({int(metric.get("n") or 0) for metric in marked})
        few = [n for n in numbers if n < needed]
        enough = [n for n in numbers if n >= needed]
        if few:
            notes.append(f"* {subject} needs ≥ {needed:,} {noun}, has {_range(few)}")
        if enough:
            # Enough in number, but those that resemble each other count as fewer than they are.
            alike = "from too few requests" if noun == "gaps" else "resemble each other too much"
            lower = any(levels.ends(metric, p)[0] is not None for metric in marked)
            missing = "no upper end of the 95% interval" if lower else "no 95% interval"
            notes.append(f"* {subject}: {missing}; {_range(enough)} {noun} {alike}")
        if any(levels.is_doubtful(metric, p) for metric in metrics):
            notes.append(f"* {subject}: {noun} may resemble their neighbours: its 95% interval may be too narrow")
    return notes


def _range(ascending: Sequence[int]) -> str:
    return f"{ascending[0]:,}" if len(ascending) == 1 else f"{ascending[0]:,} to {ascending[-1]:,}"


def counts(by_name: Mapping[str, int] | None) -> str:
    """Counts by name, most frequent first: "length 36, stop 4"."""
    ordered = sorted((by_name or {}).items(), key=lambda item: (-item[1], str(item[0])))
    return ", ".join(f"{name} {n:,}" for name, n in ordered if n) or units.ABSENT


# -- tables, one a model


def headline(summary: Summary) -> list[Table]:
    """TTFT (of whole answers E2E) and throughput, one row a level: the tables that a reader must see first."""
    rows = levels.levels(summary)
    opened = any(map(levels.is_open, rows))
    streamed = levels.is_streamed(summary)
    estimated = any(map(levels.is_estimated, rows))
    name = "TTFT" if streamed else "E2E"
    leads = [levels.lead(level) for level in rows]
    times = Times.of(leads)
    columns: Columns = [
        LEVEL,
        (Column("done"), count("completed")),
        (Column("failed", short="fail"), count("failed")),
    ]
    if any(level.get("dropped") for level in rows):
        columns.append((Column("dropped", short="drop"), count("dropped")))
    columns += times_of(name, times, levels.lead, ("p50", "p95", "p99"))
    tokens = Column("estimated tokens", "/s", short="~tokens") if estimated else Column("tokens", "/s")
    columns.append((tokens, figure("output_tokens_per_s")))
    columns.append((Column("chars", "/s"), figure("characters_per_s")))
    if opened:
        columns.append((Column("done", "/s"), figure("requests_per_s")))
    else:
        columns.append((Column("efficiency", short="eff."), efficiency))
    notes = _percentile_notes(leads, ("p50", "p95", "p99"), "requests")
    if not streamed:
        notes.append("answers were asked for whole: no first token, no gaps between tokens")
    if opened:
        counted = "; TTFT counts from when a request was due" if levels.is_stream(rows[0]) else ""
        notes.append(f"open loop: requests start at the given rate{counted}")
    if not all(map(levels.is_open, rows)):
        notes.append("c4 = 4 streams; efficiency = tokens/s per stream against the lowest level")
    if any(levels.repeat(level) > 1 for level in rows):
        notes.append("c4 (2) = the second repeat of c4")
    if estimated:
        notes.append("estimated tokens (~): the server counted none, events with text stand for them")
    return per_model(f"{name} and throughput", rows, columns, notes)


def gaps(summary: Summary) -> list[Table]:
    """The gaps between tokens, and TPOT, which says nothing without the tables above.

    None of whole answers.
    """
    if not levels.is_streamed(summary):
        return []
    rows = levels.levels(summary)
    itl = [levels.distribution(level, "itl_ms") for level in rows]
    tpot = [levels.distribution(level, "tpot_ms") for level in rows]
    times = Times.of(itl)
    names = levels.gap_names(summary) or ["ITL"]
    name = names[0] if len(names) == 1 else "gap"
    columns: Columns = [LEVEL]
    if name == "gap":
        columns.append((Column("gap", left=True), lambda level: Cell(levels.gap_name(level) or units.ABSENT)))
    columns += times_of(name, times, metric("itl_ms"), ("p50", "p99", "p999", "max"))
    [(column, read)] = times_of("TPOT", times, metric("tpot_ms"), ["p50"])
    columns += [(column, _tpot(read)), (Column("tokens", "/event"), figure("tokens_per_event"))]
    notes = _percentile_notes(itl, ("p50", "p99", "p999"), "gaps", name)
    notes += _percentile_notes(tpot, ("p50",), "requests", "TPOT")
    if name == "IET":
        notes.append("IET = inter-event time: an arrival of text does not carry one token")
    if name == "gap":
        notes.append(
            "ITL = inter-token latency; IET = inter-event time: an arrival does not carry one token at that level"
        )
    title = "Gaps between events" if name == "IET" else "Gaps between tokens"
    return per_model(title, rows, columns, [*notes, *_tpot_notes(rows)])


def answers(summary: Summary) -> list[Table]:
    """Whole requests: how long, how many a second, what came back and how it ended."""
    rows = levels.levels(summary)
    e2e = [levels.distribution(level, "e2e_ms") for level in rows]
    notes = _percentile_notes(e2e, ("p50", "p95"), "requests", "E2E")
    columns: Columns = [LEVEL, *times_of("E2E", Times.of(e2e), metric("e2e_ms"), ("p50", "p95"))]
    columns.append((Column("done", "/s"), figure("requests_per_s")))
    columns.append((Column("tokens in", "p50"), statistic("input_tokens", "p50", units.count)))
    if any(level.get("cached_share") for level in rows):
        columns.append((Column("cached"), share("cached_share")))
        notes.append("cached: share of the input tokens that a prompt cache answered, as the server's usage tells")
    columns.append((Column("tokens out", "p50"), statistic("output_tokens", "p50", units.count)))
    finish = Column("finish reasons", left=True, short="finish")
    columns.append((finish, lambda level: Cell(counts(level.get("finish_reasons")))))
    if any(level.get("retries") for level in rows):
        columns.append((Column("sent again", short="again"), count("retries")))
        notes.append("sent again: once, silently, after a reused connection had died before its first byte")
    if any(level.get("retried") for level in rows):
        columns.append((Column("retried"), count("retried")))
        columns.append((Column("recovered", short="recov."), count("recovered")))
        notes.append(
            "retried: requests that repeat a failed one; recovered: those of them that completed; the failed ones stay "
            "failed"
        )
    return per_model("Whole requests", rows, columns, notes)


def open_loop(summary: Summary) -> list[Table]:
    """What the clock of an open loop hides or shows: waiting in the client, and TTFT from when a request was sent."""
    rows = [level for level in levels.levels(summary) if levels.is_open(level)]
    if not rows:
        return []
    queue, ttft = metric("client_queue_ms"), metric("ttft_ms")
    times = Times.of([*map(queue, rows), *map(ttft, rows)])
    columns: Columns = [
        LEVEL,
        (Column("offered"), count("offered")),
        (Column("in flight", "mean"), figure("in_flight_mean")),
        *times_of("queue", times, queue, ("p50", "p99")),
        *times_of("TTFT", times, ttft, ("p50", "p95"), "from sent"),
    ]
    unit = {"ms": "milliseconds", "s": "seconds"}[times.unit]
    notes = [f"queue = waiting in the client, from due to sent; times in {unit}"]
    return _of_answers(per_model("Open loop", rows, columns, notes), summary)


def behind(summary: Summary) -> list[Table]:
    rows = levels.levels(summary)
    ttfe = metric("ttfe_ms")
    columns: Columns = [
        LEVEL,
        (Column("level took", "s"), figure("duration_s")),
        (Column("steady window", "s"), figure("window_s")),
        (Column("in flight", "mean"), figure("in_flight_mean")),
        (Column("whole run tokens", "/s"), statistic("whole_run", "output_tokens_per_s")),
        (Column("whole run done", "/s"), statistic("whole_run", "requests_per_s")),
        (Column("input tokens", "/s"), figure("input_tokens_per_s")),
        (Column("stretch"), figure("stretch")),
        *times_of("TTFE", Times.of(map(ttfe, rows)), ttfe, ["p50"]),
        (Column("TPOT micro", "ms"), _tpot(figure("tpot_micro_ms"))),
        (Column("client lag p99", "ms"), statistic("client_lag_ms", "p99")),
        (Column("merged arrivals"), share("merged_share")),
    ]
    if any(level.get("client_wait_share") is not None for level in rows):
        # Runs from before it was counted, and systems that do not count it, have no such column.
        columns.append((Column("client wait", "for a core"), share("client_wait_share")))
    return _of_answers(per_model("Behind the figures", rows, columns, _tpot_notes(rows)), summary)


def _of_answers(tables: list[Table], summary: Summary) -> list[Table]:
    """Without the columns that whole answers do not have."""
    return tables if levels.is_streamed(summary) else without_unknown(tables)


# -- tables over all models, and of one level


def errors(summary: Summary) -> Table | None:
    """Failures by kind, one row a level and kind; None when there were none."""
    rows = []
    for level in levels.levels(summary):
        for kind, n in sorted((level.get("errors") or {}).items(), key=lambda item: (-item[1], item[0])):
            if n:
                rows.append((level, str(kind), n))
    columns = [
        (Column("level", left=True), lambda row: Cell(levels.full_label(row[0], summary))),
        (Column("kind", left=True), lambda row: Cell(row[1])),
        (Column("requests"), lambda row: Cell(units.count(row[2]))),
        (Column("of attempted"), lambda row: Cell(_of_attempted(row[2], row[0]))),
    ]
    return table("Errors by kind", columns, rows) if rows else None


def _of_attempted(n: int, level: Level) -> str:
    attempted = level.get("attempted")
    return units.share(n / attempted) if attempted else units.ABSENT


def prompts(level: Level, most: int = MOST_PROMPTS) -> Table | None:
    """The level's prompts, slowest first token (whole answer) first, at most `most`; None when it names none."""
    slowness = "ttft_median_ms" if levels.is_stream(level) else "e2e_median_ms"
    entries: list[Record] = list(level.get("prompts") or [])
    entries.sort(key=lambda prompt: (-(prompt.get(slowness) or 0.0), str(prompt.get("prompt"))))
    shown = entries[:most]
    times = Times.of(shown, slowness)
    columns: Columns = [
        (Column("prompt", left=True), lambda prompt: Cell(str(prompt.get("prompt")))),
        (Column("n"), count("n")),
        *_medians(level, times),
        (Column("E2E worst", times.unit), lambda prompt: times.cell(prompt, "e2e_worst_ms")),
        (Column("tokens out"), count("output_tokens_median")),
        (Column("outliers"), count("outliers")),
    ]
    left_out = len(entries) - len(shown) + int(level.get("prompts_left_out") or 0)
    notes = [f"{units.plural(left_out, 'more prompt')}: see requests.jsonl"] if left_out else []
    return _of_level(level, "By prompt", columns, shown, notes)


def input_lengths(level: Level) -> Table | None:
    entries: list[Record] = list(level.get("input_lengths") or [])
    times = Times.of(entries, "ttft_median_ms" if levels.is_stream(level) else "e2e_median_ms")
    columns: Columns = [
        (Column("input tokens", left=True), _token_range),
        (Column("n"), count("n")),
        *_medians(level, times),
    ]
    return _of_level(level, "By input length", columns, entries)


def _token_range(entry: Record) -> Cell:
    return Cell(f"{units.count(entry.get('from_tokens'))}–{units.count(entry.get('to_tokens'))}")


def _medians(level: Level, times: Times) -> Columns:
    ttft = "TTFT from sent" if levels.is_open(level) else "TTFT median"
    return [
        (Column(ttft, times.unit), lambda row: times.cell(row, "ttft_median_ms")),
        (Column("E2E median", times.unit), lambda row: times.cell(row, "e2e_median_ms")),
    ]


def _of_level(
    level: Level, title: str, columns: Columns, rows: Sequence[Record], notes: Sequence[str] = ()
) -> Table | None:
    if not rows:
        return None
    found = table(f"{title}, {levels.label(level)}", columns, rows, notes, levels.model(level))
    if levels.is_stream(level):
        return found
    return next(iter(without_unknown([found])), None)


def worst_prompts(summary: Summary) -> list[Table]:
    """The slowest prompts at each model's highest load that names several."""
    found = []
    for rows in levels.by_model(summary).values():
        several = [level for level in rows if len(level.get("prompts") or []) > 1]
        if not several:
            continue
        level = max(several, key=levels.load)
        worst = prompts(level, WORST_PROMPTS)
        if worst:
            found.append(replace(worst, title=f"Slowest prompts ({levels.label(level)})", notes=()))
    return found
