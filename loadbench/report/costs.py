"""The tables of what levels and models cost: machine, energy, the server's own metrics, cold start, memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from loadbench import text as units
from loadbench.report import levels
from loadbench.report.document import Cell, Column, Table, Times, table, without_unknown
from loadbench.report.levels import Level, Record, Summary
from loadbench.report.tables import LEVEL, Columns, Read, figure, per_model, share, statistic

MB = 1e6
SOURCES = {"gpu": "GPU", "cpu": "CPU", "gpu+cpu": "GPU + CPU", "declared": "declared"}
_LOADERS = {"loaded by this run": "this run", "start of the server": "server's start"}
_MOMENTS = {
    "before_load": "before the model's load",
    "after_load": "with the model loaded",
    "peak": "the largest sample (one a second) of its levels",
    "after_unload": "after its unload",
}
_PURPOSES = ("first", "warm", "idle", "kept_warm")
_WHOLE_DEVICE = "GPU memory: all that was used on the device, by whomever"


def in_megabytes(n_bytes: float | None) -> str:
    """Whole MB, three significant figures below 100.

    >>> in_megabytes(1_234_567_890), in_megabytes(25_300_000), in_megabytes(None)
    ('1,235', '25.3', '-')
    """
    return units.figure(None if n_bytes is None else n_bytes / MB)


def megabytes(name: str) -> Read:
    """Bytes in MB, so that a column has one unit."""
    return lambda row: Cell(in_megabytes(row.get(name)))


# -- of levels


def machine(summary: Summary) -> list[Table]:
    """What the server used of the machine, one table a model; columns that nobody knows are left out."""
    rows = levels.levels(summary)
    columns: Columns = [
        LEVEL,
        (Column("CPU s", "/1k tokens"), figure("cpu_s_per_1000_tokens")),
        (Column("server", "cores"), figure("server_cpu_share")),
        (Column("threads"), figure("server_threads_peak")),
        (Column("memory", "MB"), megabytes("server_memory_peak_bytes")),
        (Column("others", "of cores"), share("others_cpu_share")),
        (Column("GPU", "busy"), share("gpu_utilisation_mean")),
        (Column("GPU mem.", "MB"), megabytes("gpu_memory_peak_bytes")),
        (Column("hottest", "°C"), figure("temperature_c_max")),
        (Column("clock", "MHz"), lambda level: Cell(units.count(level.get("cpu_mhz_mean")))),
    ]
    notes = ["of the server, at its peak: threads, resident memory; others = neither the server nor this client"]
    if any(level.get("gpu_memory_source") == "device" for level in rows):
        notes.append(_WHOLE_DEVICE)
    throttled = {level.get("throttled") for level in rows}
    if False in throttled and True not in throttled:
        notes.append("neither CPU nor GPU was throttled")
    power = _power_sources(rows)
    if len(power) == 1 and "changed" not in power:
        notes.append(f"power: {power.pop()}")
    return without_unknown(per_model("Machine", rows, columns, notes))


def _power_sources(rows: Sequence[Level]) -> set[str]:
    return {str(level["power"]) for level in rows if level.get("power") is not None}


def energy(summary: Summary) -> list[Table]:
    """Energy of each level and of 1,000 output tokens, and where it comes from; heat and power where they changed."""
    rows = levels.levels(summary)
    columns: Columns = [
        LEVEL,
        (Column("energy", "J"), figure("energy_j")),
        (Column("J", "/1k tokens"), figure("j_per_1000_tokens")),
        (Column("Wh", "/1k tokens"), figure("wh_per_1000_tokens")),
        (Column("cost", "/1k tokens"), figure("cost_per_1000_tokens")),
        (Column("energy of", left=True), lambda level: Cell(source(level))),
    ]
    # A note of the machine's table says that no level was throttled, or what gave power all the time.
    if any(level.get("throttled") for level in rows):
        columns.append((Column("throttled"), _throttled))
    power = _power_sources(rows)
    if len(power) > 1 or "changed" in power:
        columns.append((Column("power", left=True), lambda level: Cell(str(level.get("power") or units.ABSENT))))
    scenario = levels.run_of(summary).get("scenario") or {}
    sources = {level.get("energy_source") for level in rows}
    notes = []
    if any(level.get("j_per_1000_tokens") is not None for level in rows):
        notes.append("1k tokens = 1,000 output tokens of the level, warm-up included")
    if sources & {"gpu", "cpu", "gpu+cpu"}:
        notes.append("measured, of whole devices: GPU by NVML, CPU by RAPL; idle power and other programs included")
    if "declared" in sources:
        watts = f"{scenario['declared_watts']:g} W" if scenario.get("declared_watts") else "watts"
        notes.append(f"declared: {watts} times the time that the level took; nobody measured it")
    if scenario.get("price_per_kwh"):
        notes.append(f"cost at {scenario['price_per_kwh']:g} per kWh")
    return without_unknown(per_model("Energy and power", rows, columns, notes))


def _throttled(level: Level) -> Cell:
    throttled = level.get("throttled")
    if throttled is None:
        return Cell(units.ABSENT)
    return Cell("yes" if throttled else "no")


def source(level: Level) -> str:
    """What the level's energy is of, or that it was declared."""
    return SOURCES.get(str(level.get("energy_source")), units.ABSENT)


def server(summary: Summary) -> list[Table]:
    """What the server's own /metrics say, beside what was measured from outside."""
    rows = [level for level in levels.levels(summary) if level.get("server_metrics")]
    columns: Columns = [
        LEVEL,
        (Column("server says", "tokens/s"), figure("server_output_tokens_per_s")),
        (Column("we measured", "tokens/s"), statistic("whole_run", "output_tokens_per_s")),
        (Column("a request", "tokens/s"), _sampled(units.figure, "llamacpp:predicted_tokens_seconds")),
        (
            Column("running", "mean"),
            _sampled(units.figure, "llamacpp:requests_processing", "vllm:num_requests_running"),
        ),
        (
            Column("waiting", "mean"),
            _sampled(units.figure, "llamacpp:requests_deferred", "vllm:num_requests_waiting"),
        ),
        (
            Column("cache", "peak"),
            _sampled(
                units.share,
                "vllm:kv_cache_usage_perc",
                "vllm:gpu_cache_usage_perc",
                "llamacpp:kv_cache_usage_ratio",
            ),
        ),
    ]
    notes = ["the server's own /metrics, and our count over the same time: the whole level with warm-up and drain"]
    return without_unknown(per_model("The server's own metrics", rows, columns, notes))


def _sampled(shown: Callable[[float | None], str], *names: str) -> Read:
    """The first of the server's metrics that it has: each kind of server has its own name for it."""

    def read(level: Level) -> Cell:
        for name in names:
            value = levels.value(level, "server_metrics", name)
            if value is not None:
                return Cell(shown(value))
        return Cell(units.ABSENT)

    return read


# -- of models


def cold_start(summary: Summary) -> Table | None:
    """How long a model takes to load, and its first answer cold, warm, after a pause; None where nothing is known."""
    models = levels.models(summary)
    name, statistic = ("TTFT", "ttft_ms") if levels.is_streamed(summary) else ("E2E", "e2e_ms")
    times = Times.of([model.get(purpose) for model in models for purpose in _PURPOSES], statistic)

    def answer(purpose: str, *, cold: bool | None = None) -> Callable[[Record], Cell]:
        def read(model: Record) -> Cell:
            probe = model.get(purpose) or {}
            if not probe or (cold is not None and bool(probe.get("cold")) is not cold):
                return Cell(units.ABSENT)
            return Cell("failed") if probe.get("error") else times.cell(probe, statistic)

        return read

    columns: Columns = [
        (Column("model", left=True), _name),
        (Column("load", "s"), _load),
        (Column("by", left=True), _loader),
        (Column(f"{name} cold", times.unit), answer("first", cold=True)),
        (Column(f"{name} first", times.unit), answer("first", cold=False)),
        (Column(f"{name} warm", times.unit), answer("warm")),
        (Column("after idle", times.unit), answer("idle")),
        (Column("kept warm", times.unit), answer("kept_warm")),
    ]
    notes = ["single requests of a few tokens, each with a prompt of its own"]
    if any((model.get("first") or {}).get("cold") for model in models):
        notes.append("cold = the first after a load that was seen")
    notes += _pauses(models)
    for model in models:
        if model.get("load_error"):
            notes.append(f"{model.get('id')}: {model['load_error']}")
    return next(iter(without_unknown([table("Cold start", columns, models, notes)])), None)


def _name(model: Record) -> Cell:
    return Cell(str(model.get("id")))


def _load(model: Record) -> Cell:
    return Cell("failed" if model.get("load_error") else units.figure(model.get("load_s")))


def _loader(model: Record) -> Cell:
    by = model.get("load_source")
    return Cell(_LOADERS.get(str(by), str(by)) if by else units.ABSENT)


def _pauses(models: Sequence[Record]) -> list[str]:
    notes = []
    for purpose, words in (("idle", "after idle"), ("kept_warm", "kept warm")):
        probe = next((model[purpose] for model in models if model.get(purpose)), None)
        if probe and probe.get("after_s"):
            pings = " of silence"
            if probe.get("every_s"):
                pings = f" with a one-token request every {probe['every_s']:g} s"
            notes.append(f"{words} = after {probe['after_s']:g} s{pings}")
    return notes


def memory(summary: Summary) -> Table | None:
    """The server's memory around a model's load, its files, its GPU memory; None where nothing is known."""
    models = levels.models(summary)
    columns: Columns = [
        (Column("model", left=True), _name),
        (Column("before load", "MB", short="before"), megabytes("memory_before_load_bytes")),
        (Column("after load", "MB", short="loaded"), megabytes("memory_after_load_bytes")),
        (Column("peak under load", "MB", short="peak"), megabytes("memory_peak_bytes")),
        (Column("after unload", "MB", short="unloaded"), megabytes("memory_after_unload_bytes")),
        (Column("GPU memory", "MB", short="GPU mem."), megabytes("gpu_memory_peak_bytes")),
        (Column("on disk", "MB"), megabytes("disk_bytes")),
        (Column("size listed", "MB", short="listed"), megabytes("size_bytes")),
    ]
    notes = []
    moments = [words for name, words in _MOMENTS.items() if any(model.get(f"memory_{name}_bytes") for model in models)]
    if moments:
        notes.append(f"resident memory of the server's processes: {', '.join(moments)}")
    if any(model.get("gpu_memory_source") == "device" for model in models):
        notes.append(_WHOLE_DEVICE)
    if any(model.get("disk_source") == "server" for model in models):
        notes.append("on disk: as the server tells")
    for found in without_unknown([table("Memory and disk", columns, models, notes)]):
        # The size that a server lists stands with the model's facts; alone it is no table.
        if any(column.name != "size listed" for column in found.columns[1:]):
            return found
    return None
