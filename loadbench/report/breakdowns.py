"""The tables that take a run apart: endpoints, workers, repeats, devices; and what machine and models spent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from operator import attrgetter

from msgspec import UNSET, UnsetType

from loadbench import text as units
from loadbench.report import document as doc
from loadbench.report import levels
from loadbench.report.document import Cell, Column, Columns, Row, Table, Times, table, without_unknown
from loadbench.report.tables import CHARS, LEVEL, TOKENS, per_model, whole_run_tokens
from loadbench.store.schema import ScenarioFacts
from loadbench.store.summary import (
    Absent,
    Endpoint,
    Level,
    Model,
    OverRuns,
    Probe,
    Repeats,
    Summary,
    Worker,
    WorkerPercentiles,
)
from loadbench.text import bare_url, one_line

SOURCES = {"gpu": "GPU", "cpu": "CPU", "gpu+cpu": "GPU + CPU", "declared": "declared"}
_LOADERS = {"loaded by this run": "this run", "start of the server": "server's start"}
_MOMENTS = {
    "before_load": "before the model's load",
    "after_load": "with the model loaded",
    "peak": "the largest sample (one a second) of its levels",
    "after_unload": "after its unload",
}
_WHOLE_DEVICE = "GPU memory: all that was in use on the device, by any process"


# -- one level by endpoint, by worker


def endpoints(summary: Summary) -> list[Table]:
    """A row a level and endpoint; none of a service that has a single one."""
    rows = levels.of(summary)
    parts: list[Endpoint] = []
    for level in rows:
        parts += level.endpoints or ()
    if not parts:
        return []
    streamed = levels.is_streamed(summary)
    name, lead = "E2E", attrgetter("e2e_ms")
    if streamed:
        name, lead = "TTFT", attrgetter("ttft_ms")
    times, whole = Times.of(map(lead, parts)), Times.of(part.e2e_ms for part in parts)
    columns: Columns[Endpoint] = [
        (Column("endpoint", left=True), lambda part: Cell(bare_url(part.url).partition("://")[2].removesuffix("/v1"))),
        (Column("of requests", short="part"), lambda part: doc.share(part.share)),
        (Column("done"), lambda part: doc.count(part.completed)),
        (Column("failed", short="fail"), lambda part: doc.count(part.failed)),
        (Column(f"{name} p50", times.unit), lambda part: times.cell(lead(part), "p50")),
        (Column(f"{name} p95", times.unit), lambda part: times.cell(lead(part), "p95")),
    ]
    if streamed:
        columns.append((Column("E2E p50", whole.unit), lambda part: whole.cell(part.e2e_ms, "p50")))
    columns.append((Column("in flight", "mean"), lambda part: doc.figure(part.in_flight_mean)))
    columns.append((Column("tokens", "/s"), lambda part: doc.figure(part.output_tokens_per_s)))
    notes = []
    if levels.any_marked(map(lead, parts)):
        notes.append("* too few requests of that endpoint for an interval")
    notes.append("all other tables have the requests of all endpoints together")
    if streamed and any(level.is_open for level in rows):
        notes.append("TTFT from when a request was sent")
    return _by_part("Endpoints", rows, lambda level: level.endpoints, columns, notes)


def workers(summary: Summary) -> list[Table]:
    """A row a level and worker; none of a run whose load one process made."""
    none = WorkerPercentiles()

    def name(part: Worker) -> Cell:
        host = part.host or ""
        where = (part.address or host).partition("://")[2] or host
        text = one_line(f"{part.name} {where}", 40).strip()  # a host's name may be longer than the table is wide
        if part.status == "lost":
            text += ", lost"
        return Cell(text)

    def streams(part: Worker) -> Cell:
        return doc.figure(part.request_rate_per_s if part.streams is None else part.streams)

    columns: Columns[Worker] = [
        (Column("worker", left=True), name),
        (Column("streams", short="str."), streams),
        (Column("done"), lambda part: doc.count(part.completed)),
        (Column("failed", short="fail"), lambda part: doc.count(part.failed)),
        (Column("TTFT p50", "ms"), lambda part: doc.figure((part.ttft_ms or none).p50)),
        (Column("gap p99", "ms"), lambda part: doc.figure((part.itl_ms or none).p99)),
        (Column("lag p99", "ms"), lambda part: doc.figure((part.client_lag_ms or none).p99)),
        (Column("core", "share"), lambda part: doc.share(part.cpu_share)),
        (Column("way", "ms"), lambda part: doc.figure(part.round_trip_ms)),
        (Column("clock", "± ms"), lambda part: doc.figure(part.clock_uncertain_ms)),
    ]
    notes = [
        "lag: what was read late; core: CPU of one core; way: shortest TCP connect; clock: how well the start is known",
        "all other tables have the requests of all workers together",
    ]
    return _by_part("Workers", levels.of(summary), lambda level: level.workers, columns, notes)


def _by_part(
    title: str,
    rows: Iterable[Level],
    parts_of: Callable[[Level], Sequence[Row] | None],
    columns: Columns[Row],
    notes: Sequence[str],
) -> list[Table]:
    """A table a model, a row a part of a level; the level is named in the first of its rows."""
    tables = []
    for model, own in levels.by_model(rows).items():
        names: list[Cell] = []
        parts: list[Row] = []
        for level in own:
            name = Cell(levels.label(level))
            for part in parts_of(level) or ():
                names.append(name)
                parts.append(part)
                name = Cell("")
        if parts:  # a level of one process, or of one endpoint, has none
            plain = table(title, columns, parts, notes, model)
            named = tuple((name, *row) for name, row in zip(names, plain.rows, strict=True))
            tables.append(replace(plain, columns=(LEVEL[0], *plain.columns), rows=named))
    return tables


# -- one load several times


def repeats(summary: Summary) -> list[Table]:
    """Every run of each load, against the first one; beneath them their mean and its interval."""
    models: dict[str, list[Repeats]] = {}
    for entry in summary.repeats:
        models.setdefault(str(entry.model), []).append(entry)
    several = len(levels.by_model(levels.of(summary))) > 1
    notes = [
        "all = geometric mean of the runs with its 95% interval (each run counts once; from three runs on), and their "
        "spread: the largest over the smallest, and the coefficient of variation"
    ]
    until = levels.facts(summary).until
    if until and until.reached is not None:
        precision = f"{100 * (until.wanted or 0):g}%"  # half the interval, as a share of the mean
        if until.reached:
            notes.append(f"every mean is known to {precision}, as --until wanted")
        else:
            notes.append(f"not every mean is known to {precision}, which --until wanted")
    tables = []
    for model, entries in models.items():
        key, head = "ttft_p50", "TTFT p50"
        if key not in entries[0].figures and "e2e_p50" in entries[0].figures:  # of whole answers
            key, head = "e2e_p50", "E2E p50"
        against = Column("against the first", short="of 1st")
        columns = (
            Column("load", left=True),
            Column("run", left=True),
            Column("tokens", "/s"),
            against,
            Column(head, "ms"),
            against,
        )
        rows: list[tuple[Cell, ...]] = []
        for entry in entries:
            label = Cell(levels.load_label(entry.concurrency, entry.request_rate_per_s))
            for number, run in enumerate(entry.runs, start=1):
                cells = [label, Cell(str(number))]
                for name in ("output_tokens_per_s", key):
                    cells += _against(getattr(run, name), getattr(entry.runs[0], name))
                rows.append(tuple(cells))
                label = Cell("")
            rows.append((label, Cell("all"), *_all(entry.figures["output_tokens_per_s"]), *_all(entry.figures[key])))
        tables.append(Table("Run by run", columns, tuple(rows), tuple(notes), model if several else None))
    return tables


def _against(value: float | UnsetType | None, before: float | UnsetType | None) -> tuple[Cell, Cell]:
    """A run's value, and that over the first one's.

    >>> [cell.text for cell in (*_against(0.0, 4.0), *_against(2.0, 4.0), *_against(None, 4.0))]
    ['0', '-', '2.00', '0.50x', '-', '-']
    """
    if value is UNSET:
        value = None
    if before is UNSET or not value or not before:
        return doc.figure(value), Cell(units.ABSENT)
    return doc.figure(value), Cell(f"{value / before:.2f}x")


def _all(mean: OverRuns) -> tuple[Cell, Cell]:
    spread = units.ABSENT
    if mean.spread is not None and mean.cv is not None:
        spread = f"{mean.spread:.2f}x, {100 * mean.cv:.1f}%"
    return doc.figure(mean.mean, (mean.low, mean.high)), Cell(spread)


# -- one model on several devices


def devices(summary: Summary) -> list[Table]:
    """A table for each model that was measured on, or requested for, several devices: a row a device and level."""
    families: dict[str, list[Level]] = {}
    for level in levels.of(summary):
        families.setdefault(_family(level, summary), []).append(level)
    tables = []
    for family, rows in families.items():
        ids = {level.model for level in rows}
        # The user may have asked for it by another name than its alias.
        names = {family} | {model.name for model in summary.models if model.id in ids}
        absent = [row for row in summary.absent if row.name in names]
        if len(ids) > 1 or absent:
            tables += without_unknown([_devices(family, rows, absent)], fixed=2)
    return tables


def _family(level: Level, summary: Summary) -> str:
    """What variants of one model have in common: its alias, else the name that the user wrote."""
    if level.alias:
        return level.alias
    for model in summary.models:
        if model.id == level.model and (model.alias or model.name):
            return str(model.alias or model.name)
    return str(level.model)


def _devices(family: str, rows: Sequence[Level], absent: Sequence[Absent]) -> Table:
    name = levels.lead_name(rows[0])
    times = Times.of(map(levels.lead, rows))
    columns: Columns[Level] = [
        (Column("device", left=True), lambda level: Cell(device_words(level))),
        (Column("level", left=True), lambda level: Cell(levels.label(level))),
        (Column(f"{name} p50", times.unit), lambda level: times.cell(levels.lead(level), "p50")),
        (Column(f"{name} p95", times.unit), lambda level: times.cell(levels.lead(level), "p95")),
        TOKENS,
        CHARS,
        (Column("failed"), lambda level: doc.share(level.failure_share)),
        (Column("J", "/1k tokens"), lambda level: doc.figure(level.j_per_1000_tokens)),
        (Column("energy of", left=True), _energy_of),
    ]
    notes = []
    if any(level.device_by_name for level in rows):
        notes.append("a device known only from the model's name was not observed: these rows do not compare devices")
    missing = []
    nothing = (Cell(units.ABSENT),) * (len(columns) - 2)
    for row in absent:
        variant = _together(row.device, row.execution_provider) or str(row.name)
        notes.append(f"absent: {variant}: {row.reason}")
        missing.append((Cell(variant), Cell("absent"), *nothing))
    if levels.any_marked(map(levels.lead, rows)):
        notes.append("* too few requests for an interval")
    measured = table(f"Devices side by side: {family}", columns, rows, notes)
    return replace(measured, rows=(*measured.rows, *missing))


def device_words(level: Level) -> str:
    """What the level ran on, as "GPU webgpu", and what the user wrote where that is another; else its model."""
    if level.device_by_name:
        return f"{level.device or level.model} by its name, not seen"
    device = levels.device(level)
    words = _together(device, levels.provider(level)) or str(level.model)
    if level.asked_device and device and level.asked_device.upper() not in device.upper():
        words += f", asked {level.asked_device}"
    return words


def _together(device: str | None, provider: str | None) -> str:
    """Device and provider, without the long ending of its name, said once where both have one name.

    >>> _together("GPU", "WebGpuExecutionProvider"), _together("CPU", "CPUExecutionProvider"), _together(None, None)
    ('GPU webgpu', 'CPU', '')
    """
    short = (provider or "").strip().lower().removesuffix("executionprovider")
    if short == (device or "").lower():
        short = ""
    return f"{device or ''} {short}".strip()


# -- what the machine spent on levels


def machine(summary: Summary) -> list[Table]:
    """What the server used of the machine, one table a model; columns without any figure are left out."""
    rows = levels.of(summary)
    columns: Columns[Level] = [
        LEVEL,
        (Column("CPU s", "/1k tokens"), lambda level: doc.figure(level.cpu_s_per_1000_tokens)),
        (Column("server", "cores"), lambda level: doc.figure(level.server_cpu_share)),
        (Column("threads"), lambda level: doc.figure(level.server_threads_peak)),
        (Column("memory", "MB"), lambda level: megabytes(level.server_memory_peak_bytes)),
        (Column("others", "of cores"), lambda level: doc.share(level.others_cpu_share)),
        (Column("GPU", "busy"), lambda level: doc.share(level.gpu_utilisation_mean)),
        (Column("GPU mem.", "MB"), lambda level: megabytes(level.gpu_memory_peak_bytes)),
        (Column("hottest", "°C"), lambda level: doc.figure(level.temperature_c_max)),
        (Column("clock", "MHz"), lambda level: doc.count(level.cpu_mhz_mean)),
    ]
    notes = ["of the server, at its peak: threads, resident memory; others = neither the server nor this client"]
    if any(level.gpu_memory_source == "device" for level in rows):
        notes.append(_WHOLE_DEVICE)
    # None is no "no": nobody looked.
    throttled = {level.throttled for level in rows}
    if False in throttled and True not in throttled:
        notes.append("neither CPU nor GPU was throttled")
    power = _power_sources(rows)
    if len(power) == 1 and "changed" not in power:  # else the table of energy has a column for it
        notes.append(f"power: {power.pop()}")
    return without_unknown(per_model("Machine", rows, columns, notes))


def megabytes(n_bytes: float | None) -> Cell:
    """In MB, so that a column has one unit; three significant figures below 100.

    >>> [megabytes(n).text for n in (1_234_567_890, 25_300_000, None)]
    ['1,235', '25.3', '-']
    """
    if n_bytes is None:
        return Cell(units.ABSENT)
    return doc.figure(n_bytes / 1e6)


def _power_sources(rows: Iterable[Level]) -> set[str]:
    return {level.power for level in rows if level.power is not None}


def energy(summary: Summary) -> list[Table]:
    """Energy of each level and of 1,000 output tokens, and where it comes from; heat and power where they changed."""
    rows = levels.of(summary)
    columns: Columns[Level] = [
        LEVEL,
        (Column("energy", "J"), lambda level: doc.figure(level.energy_j)),
        (Column("J", "/1k tokens"), lambda level: doc.figure(level.j_per_1000_tokens)),
        (Column("Wh", "/1k tokens"), lambda level: doc.figure(level.wh_per_1000_tokens)),
        (Column("cost", "/1M tokens"), lambda level: doc.figure(_cost_per_million(level))),
        (Column("energy of", left=True), _energy_of),
    ]
    # A note of the machine's table says that no level was throttled, or what gave power all the time.
    if any(level.throttled for level in rows):
        answers = {True: "yes", False: "no", None: units.ABSENT}
        columns.append((Column("throttled"), lambda level: Cell(answers[level.throttled])))
    power = _power_sources(rows)
    if len(power) > 1 or "changed" in power:
        columns.append((Column("power", left=True), lambda level: Cell(level.power or units.ABSENT)))
    scenario = levels.facts(summary).scenario or ScenarioFacts()
    sources = {level.energy_source for level in rows}
    notes = []
    if any(level.j_per_1000_tokens is not None or level.cost_per_1000_tokens is not None for level in rows):
        notes.append("1k, 1M tokens = 1,000 and 1 million output tokens of the level, warm-up included")
    if sources & {"gpu", "cpu", "gpu+cpu"}:
        notes.append("measured, of whole devices: GPU by NVML, CPU by RAPL; idle power and other programs included")
    if "declared" in sources:
        declared = f"{scenario.declared_watts:g} W" if scenario.declared_watts else "watts"
        notes.append(f"declared, not measured: {declared} times the duration of the level")
    if scenario.price_per_kwh:
        notes.append(f"cost at {scenario.price_per_kwh:g} per kWh")
    if scenario.price_per_hour:
        notes.append(f"cost at {scenario.price_per_hour:g} per hour of the machine, for the duration of the level")
    return without_unknown(per_model("Energy and power", rows, columns, notes))


def _cost_per_million(level: Level) -> float | None:
    if level.cost_per_million_tokens is None and level.cost_per_1000_tokens is not None:
        return 1000 * level.cost_per_1000_tokens  # a summary of an earlier version
    return level.cost_per_million_tokens


def _energy_of(level: Level) -> Cell:
    return Cell(SOURCES.get(str(level.energy_source), units.ABSENT))


def server(summary: Summary) -> list[Table]:
    """What the server's own /metrics say, beside what was measured from outside."""
    rows = [level for level in levels.of(summary) if level.server_metrics]

    def sampled(level: Level, *names: str) -> float | None:
        """The first of these metrics that the server has: each kind of server has its own name for it."""
        metrics = level.server_metrics or {}
        for name in names:
            if metrics.get(name) is not None:
                return metrics[name]
        return None

    caches = "vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "llamacpp:kv_cache_usage_ratio"
    running = "llamacpp:requests_processing", "vllm:num_requests_running"
    waiting = "llamacpp:requests_deferred", "vllm:num_requests_waiting"
    columns: Columns[Level] = [
        LEVEL,
        (Column("server says", "tokens/s"), lambda level: doc.figure(level.server_output_tokens_per_s)),
        (Column("we measured", "tokens/s"), whole_run_tokens),
        (Column("a request", "tokens/s"), lambda x: doc.figure(sampled(x, "llamacpp:predicted_tokens_seconds"))),
        (Column("running", "mean"), lambda level: doc.figure(sampled(level, *running))),
        (Column("waiting", "mean"), lambda level: doc.figure(sampled(level, *waiting))),
        (Column("cache", "peak"), lambda level: doc.share(sampled(level, *caches))),
    ]
    notes = ["the server's own /metrics, and our count over the same time: the whole level with warm-up and drain"]
    return without_unknown(per_model("The server's own metrics", rows, columns, notes))


# -- what models cost, whatever the load


def cold_start(summary: Summary) -> Table | None:
    """How long a model takes to load, and its first answer cold, warm, after a pause; None without any of it."""
    models = summary.models
    streamed = levels.is_streamed(summary)
    name = "TTFT" if streamed else "E2E"

    def ms(probe: Probe | None) -> float | None:
        if probe is None:
            return None
        if streamed:
            return probe.ttft_ms
        return probe.e2e_ms

    # Over all models and probes: a column in ms beside one in s would be misread.
    values_ms: list[float | None] = []
    idle, kept_warm, was_cold, errors = None, None, False, []
    for model in models:
        values_ms += [ms(model.first), ms(model.warm), ms(model.idle), ms(model.kept_warm)]
        idle, kept_warm = idle or model.idle, kept_warm or model.kept_warm
        was_cold = was_cold or bool(model.first and model.first.cold)
        if model.load_error:
            errors.append(f"{model.id}: {model.load_error}")
    times = Times.over(values_ms)

    def answer(probe: Probe | None) -> Cell:
        if probe and probe.error:
            return Cell("failed")
        return times.value(ms(probe))

    def first(model: Model, *, cold: bool) -> Cell:
        if model.first is None or bool(model.first.cold) is not cold:
            return Cell(units.ABSENT)
        return answer(model.first)

    columns: Columns[Model] = [
        (Column("model", left=True), lambda model: Cell(model.id)),
        (Column("load", "s"), lambda model: Cell("failed") if model.load_error else doc.figure(model.load_s)),
        (Column("by", left=True), lambda x: Cell(_LOADERS.get(x.load_source or "", x.load_source or units.ABSENT))),
        (Column(f"{name} cold", times.unit), lambda model: first(model, cold=True)),
        (Column(f"{name} first", times.unit), lambda model: first(model, cold=False)),
        (Column(f"{name} warm", times.unit), lambda model: answer(model.warm)),
        (Column("after idle", times.unit), lambda model: answer(model.idle)),
        (Column("kept warm", times.unit), lambda model: answer(model.kept_warm)),
    ]
    notes = ["single requests of a few tokens, each with a prompt of its own"]
    if was_cold:
        notes.append("cold = the first after a load that was seen")
    for words, probe in (("after idle", idle), ("kept warm", kept_warm)):
        if probe and probe.after_s:
            pings = " of silence"
            if probe.every_s:
                pings = f" with a one-token request every {probe.every_s:g} s"
            notes.append(f"{words} = after {probe.after_s:g} s{pings}")
    shown = without_unknown([table("Cold start", columns, models, [*notes, *errors])])
    return next(iter(shown), None)


def memory(summary: Summary) -> Table | None:
    """The server's memory around a model's load, its files, its GPU memory; None without any of it."""
    models = summary.models
    columns: Columns[Model] = [
        (Column("model", left=True), lambda model: Cell(model.id)),
        (Column("before load", "MB", short="before"), lambda model: megabytes(model.memory_before_load_bytes)),
        (Column("after load", "MB", short="loaded"), lambda model: megabytes(model.memory_after_load_bytes)),
        (Column("peak under load", "MB", short="peak"), lambda model: megabytes(model.memory_peak_bytes)),
        (Column("after unload", "MB", short="unloaded"), lambda model: megabytes(model.memory_after_unload_bytes)),
        (Column("GPU memory", "MB", short="GPU mem."), lambda model: megabytes(model.gpu_memory_peak_bytes)),
        (Column("on disk", "MB"), lambda model: megabytes(model.disk_bytes)),
        (Column("size listed", "MB", short="listed"), lambda model: megabytes(model.size_bytes)),
    ]
    notes = []
    moments = []
    for name, words in _MOMENTS.items():
        if any(getattr(model, f"memory_{name}_bytes") for model in models):
            moments.append(words)
    if moments:
        notes.append(f"resident memory of the server's processes: {', '.join(moments)}")
    if any(model.gpu_memory_source == "device" for model in models):
        notes.append(_WHOLE_DEVICE)
    if any(model.disk_source == "server" for model in models):
        notes.append("on disk: as the server reports")
    for shown in without_unknown([table("Memory and disk", columns, models, notes)]):
        # The size that a server lists is among the model's facts; alone it is no table.
        if len(shown.columns) > 2 or shown.columns[1].name != "size listed":
            return shown
    return None
