"""The tables that take levels apart or put them beside each other: endpoints, workers, repeats, devices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from loadbench import text as units
from loadbench.report import levels
from loadbench.report.costs import source
from loadbench.report.document import Cell, Column, Table, Times, interval, table, without_unknown
from loadbench.report.levels import Level, Record, Summary
from loadbench.report.tables import Columns, count, figure, share, statistic
from loadbench.text import bare_url, one_line

LATENCIES = {"ttft_p50": "TTFT p50", "e2e_p50": "E2E p50"}
"""Of repeats: of whole answers E2E."""


# -- one level by endpoint, by worker


def endpoints(summary: Summary) -> list[Table]:
    """A row a level and endpoint; none of a service that has a single one."""
    rows = levels.levels(summary)
    parts = levels.parts(rows, "endpoints")
    if not parts:
        return []
    streamed = levels.is_streamed(summary)
    name, lead = ("TTFT", "ttft_ms") if streamed else ("E2E", "e2e_ms")
    times = Times.of(part.get(lead) for part in parts)
    whole = Times.of(part.get("e2e_ms") for part in parts)
    columns: Columns = [
        (Column("endpoint", left=True), lambda part: Cell(_address(part.get("url")))),
        (Column("of requests", short="part"), share("share")),
        (Column("done"), count("completed")),
        (Column("failed", short="fail"), count("failed")),
        (Column(f"{name} p50", times.unit), lambda part: times.cell(part.get(lead), "p50")),
        (Column(f"{name} p95", times.unit), lambda part: times.cell(part.get(lead), "p95")),
    ]
    if streamed:
        columns.append((Column("E2E p50", whole.unit), lambda part: whole.cell(part.get("e2e_ms"), "p50")))
    columns += [(Column("in flight", "mean"), figure("in_flight_mean"))]
    columns += [(Column("tokens", "/s"), figure("output_tokens_per_s"))]
    notes = []
    if levels.any_marked(levels.distribution(part, lead) for part in parts):
        notes.append("* too few requests of that endpoint for an interval")
    notes.append("all other tables have the requests of all endpoints together")
    if streamed and any(map(levels.is_open, rows)):
        notes.append("TTFT from when a request was sent")
    return _by_part("Endpoints", summary, "endpoints", columns, notes)


def _address(url: object) -> str:
    return bare_url(url).partition("://")[2].removesuffix("/v1")


def workers(summary: Summary) -> list[Table]:
    """A row a level and worker; none of a run whose load one process made."""
    if not any(level.get("workers") for level in levels.levels(summary)):
        return []
    columns: Columns = [
        (Column("worker", left=True), lambda part: Cell(_worker(part))),
        (Column("streams", short="str."), _streams),
        (Column("done"), count("completed")),
        (Column("failed", short="fail"), count("failed")),
        (Column("TTFT p50", "ms"), statistic("ttft_ms", "p50")),
        (Column("gap p99", "ms"), statistic("itl_ms", "p99")),
        (Column("lag p99", "ms"), statistic("client_lag_ms", "p99")),
        (Column("core", "share"), share("cpu_share")),
        (Column("way", "ms"), figure("round_trip_ms")),
        (Column("clock", "± ms"), figure("clock_uncertain_ms")),
    ]
    notes = [
        "lag: what was read late; core: CPU of one core; way: shortest TCP connect; clock: how well the start is known",
        "all other tables have the requests of all workers together",
    ]
    return _by_part("Workers", summary, "workers", columns, notes)


def _streams(part: Record) -> Cell:
    streams = part.get("streams")
    return Cell(units.figure(part.get("request_rate_per_s") if streams is None else streams))


def _worker(part: Record) -> str:
    host = str(part.get("host") or "")
    where = str(part.get("address") or host).partition("://")[2] or host
    lost = ", lost" if part.get("status") == "lost" else ""
    return one_line(f"{part.get('name')} {where}", 40).strip() + lost


def _by_part(title: str, summary: Summary, parts: str, columns: Columns, notes: Sequence[str]) -> list[Table]:
    """A table a model, a row a part of a level; the level is named in the first of its rows."""
    tables = []
    named = [(Column("level", left=True), lambda row: Cell(row[0]))]
    own = [(column, _of_part(read)) for column, read in columns]
    for model, rows in levels.by_model(summary).items():
        found: list[tuple[str, Record]] = []
        for level in rows:
            for place, part in enumerate(level.get(parts) or ()):
                found.append(("" if place else levels.label(level), part))
        tables.append(table(title, [*named, *own], found, notes, model))
    return tables


def _of_part(read: Callable[[Record], Cell]) -> Callable[[tuple[str, Record]], Cell]:
    return lambda row: read(row[1])


# -- one load several times


def repeats(summary: Summary) -> list[Table]:
    """Every run of each load, against the first one; beneath them their mean and its interval."""
    entries: dict[str, list[Record]] = {}
    for entry in summary.get("repeats") or []:
        entries.setdefault(str(entry["model"]), []).append(entry)
    several = len(levels.by_model(summary)) > 1
    notes = [
        "all = geometric mean of the runs with its 95% interval (each run counts once; from three runs on), and their "
        "spread: the largest over the smallest, and the coefficient of variation"
    ]
    until = levels.run_of(summary).get("until")
    if isinstance(until, Mapping) and until.get("reached") is not None:
        wanted = f"{100 * until['wanted']:g}%"
        if until["reached"]:
            notes.append(f"every mean is known to {wanted}, as --until wanted")
        else:
            notes.append(f"not every mean is known to {wanted}, which --until wanted")
    return [_runs(runs, model if several else None, notes) for model, runs in entries.items()]


def _runs(entries: Sequence[Record], model: str | None, notes: Sequence[str]) -> Table:
    latency = next((name for name in LATENCIES if name in entries[0]["figures"]), "ttft_p50")
    against = Column("against the first", short="of 1st")
    columns = (
        Column("load", left=True),
        Column("run", left=True),
        Column("tokens", "/s"),
        against,
        Column(LATENCIES[latency], "ms"),
        against,
    )
    rows: list[tuple[Cell, ...]] = []
    for entry in entries:
        first = entry["runs"][0]
        for number, run in enumerate(entry["runs"], start=1):
            name = levels.label({**entry, "repeat": 1}) if number == 1 else ""
            tokens, time = _run(run, first, "output_tokens_per_s"), _run(run, first, latency)
            rows.append((Cell(name), Cell(str(number)), *tokens, *time))
        tokens, time = _all(entry["figures"]["output_tokens_per_s"]), _all(entry["figures"][latency])
        rows.append((Cell(""), Cell("all"), *tokens, *time))
    return Table("Run by run", columns, tuple(rows), tuple(notes), model)


def _run(run: Record, first: Record, name: str) -> tuple[Cell, Cell]:
    value, before = run.get(name), first.get(name)
    ratio = f"{value / before:.2f}x" if value and before else units.ABSENT
    return Cell(units.figure(value)), Cell(ratio)


def _all(mean: Record) -> tuple[Cell, Cell]:
    spread = units.ABSENT
    if mean["spread"] is not None and mean["cv"] is not None:
        spread = f"{mean['spread']:.2f}x, {100 * mean['cv']:.1f}%"
    return Cell(units.figure(mean["mean"]), interval(mean["low"], mean["high"])), Cell(spread)


# -- one model on several devices


def devices(summary: Summary) -> list[Table]:
    """A table for each model that was measured on, or asked for, several devices: a row a device and level."""
    families: dict[str, list[Level]] = {}
    for level in levels.levels(summary):
        families.setdefault(_family(level, summary), []).append(level)
    found = []
    for family, rows in families.items():
        names = {family}
        for level in rows:
            names |= {str(model.get("name")) for model in _models(level, summary)}
        absent = [row for row in summary.get("absent") or () if row.get("name") in names]
        if len({level.get("model") for level in rows}) > 1 or absent:
            found += without_unknown([_devices(family, rows, absent)], fixed=2)
    return found


def _family(level: Level, summary: Summary) -> str:
    """What variants of one model have in common: its alias, else the name that it was asked for by."""
    for record in (level, *_models(level, summary)):
        if record.get("alias"):
            return str(record["alias"])
        if record is not level and record.get("name"):
            return str(record["name"])
    return levels.model(level)


def _models(level: Level, summary: Summary) -> list[Record]:
    return [model for model in levels.models(summary) if model.get("id") == level.get("model")]


def _devices(family: str, rows: Sequence[Level], absent: Sequence[Record]) -> Table:
    name = levels.lead_name(rows[0])
    times = Times.of(map(levels.lead, rows))
    columns: Columns = [
        (Column("device", left=True), lambda level: Cell(device_words(level))),
        (Column("level", left=True), lambda level: Cell(levels.label(level))),
        (Column(f"{name} p50", times.unit), lambda level: times.cell(levels.lead(level), "p50")),
        (Column(f"{name} p95", times.unit), lambda level: times.cell(levels.lead(level), "p95")),
        (Column("tokens", "/s"), figure("output_tokens_per_s")),
        (Column("chars", "/s"), figure("characters_per_s")),
        (Column("failed"), share("failure_share")),
        (Column("J", "/1k tokens"), figure("j_per_1000_tokens")),
        (Column("energy of", left=True), lambda level: Cell(source(level))),
    ]
    notes = []
    if any(level.get("device_by_name") for level in rows):
        notes.append("a device told by the model's name alone was not seen: the rows are no comparison of devices")
    notes += [f"absent: {_variant(row)}: {row.get('reason')}" for row in absent]
    if levels.any_marked(map(levels.lead, rows)):
        notes.append("* too few requests for an interval")
    measured = table(f"Devices side by side: {family}", columns, rows, notes)
    nothing = (Cell(units.ABSENT),) * (len(columns) - 2)
    missing = tuple((Cell(_variant(row)), Cell("absent"), *nothing) for row in absent)
    return Table(measured.title, measured.columns, measured.rows + missing, measured.notes)


def device_words(level: Level) -> str:
    """What the level ran on, as "GPU webgpu", and what was asked where that is another; else its model."""
    if level.get("device_by_name"):
        return f"{level.get('device') or level.get('model')} by its name, not seen"
    device = levels.device(level)
    provider = (level.get("ran") or {}).get("execution_provider") or level.get("execution_provider")
    asked = level.get("asked_device")
    words = _together(device, provider) or levels.model(level)
    if asked and device and str(asked).upper() not in str(device).upper():
        words += f", asked {asked}"
    return words


def _variant(row: Record) -> str:
    return _together(row.get("device"), row.get("execution_provider")) or str(row.get("name"))


def _together(device: str | None, provider: str | None) -> str:
    """Device and provider, said once where both have one name: "GPU webgpu", "CPU"."""
    short = short_provider(provider)
    parts: Iterable[str | None] = (device, "" if short == (device or "").lower() else short)
    return " ".join(part for part in parts if part)


def short_provider(name: str | None) -> str:
    """An execution provider without its long ending.

    >>> short_provider("WebGpuExecutionProvider"), short_provider(None)
    ('webgpu', '')
    """
    return (name or "").strip().lower().removesuffix("executionprovider")
