"""The tables of what a level cost: CPU, memory, GPU, energy; and the server's own account beside ours."""

from __future__ import annotations

from collections.abc import Sequence

from loadbench import text as units
from loadbench.report import levels
from loadbench.report.levels import Level, Summary
from loadbench.report.tables import Cell, Column, Read, Table, figure, known, level_name, per_model

MB = 1e6
SOURCES = {"gpu": "GPU", "cpu": "CPU", "gpu+cpu": "GPU + CPU", "declared": "declared"}
_RUNNING = ("llamacpp:requests_processing", "vllm:num_requests_running")
_WAITING = ("llamacpp:requests_deferred", "vllm:num_requests_waiting")
_FULL = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "llamacpp:kv_cache_usage_ratio")


def machine(summary: Summary) -> list[Table]:
    """What the server used of the machine, one table a model; columns that nobody knows are left out."""
    rows = levels.levels(summary)
    columns: list[tuple[Column, Read]] = [
        (Column("level", left=True), level_name),
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
        notes.append("GPU memory: all that was used on the device, by whomever")
    if any(level.get("throttled") is False for level in rows) and not any(level.get("throttled") for level in rows):
        notes.append("neither CPU nor GPU was throttled")
    sources = {level.get("power") for level in rows} - {None}
    if len(sources) == 1 and sources != {"changed"}:
        notes.append(f"power: {next(iter(sources))}")
    return known(per_model("Machine", summary, columns, notes))


def _throttled(rows: Sequence[Level]) -> Read:
    """A column where it ever was; a note says that it never was."""
    ever = any(level.get("throttled") for level in rows)

    def read(level: Level) -> Cell:
        was = level.get("throttled")
        return Cell(units.ABSENT if was is None or not ever else "yes" if was else "no")

    return read


def _power(rows: Sequence[Level]) -> Read:
    """A column where it differs between levels or within one; else a note says it."""
    sources = {level.get("power") for level in rows} - {None}
    differs = len(sources) > 1 or "changed" in sources
    return lambda level: Cell(str(level.get("power") or units.ABSENT) if differs else units.ABSENT)


def energy(summary: Summary) -> list[Table]:
    """Energy of each level and of 1,000 output tokens, and where it comes from; heat and power where they changed."""
    rows = levels.levels(summary)
    columns: list[tuple[Column, Read]] = [
        (Column("level", left=True), level_name),
        (Column("energy", "J"), figure("energy_j")),
        (Column("J", "/1k tokens"), figure("j_per_1000_tokens")),
        (Column("Wh", "/1k tokens"), figure("wh_per_1000_tokens")),
        (Column("cost", "/1k tokens"), figure("cost_per_1000_tokens")),
        (Column("energy of", left=True), lambda level: Cell(source(level))),
        (Column("throttled"), _throttled(rows)),
        (Column("power", left=True), _power(rows)),
    ]
    scenario = (summary.get("run") or {}).get("scenario") or {}
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
    return known(per_model("Energy and power", summary, columns, notes))


def source(level: Level) -> str:
    """What the level's energy is of, or that it was declared."""
    return SOURCES.get(str(level.get("energy_source")), units.ABSENT)


def server(summary: Summary) -> list[Table]:
    """What the server's own /metrics say, beside what was measured from outside."""
    rows = [level for level in levels.levels(summary) if level.get("server_metrics")]
    if not rows:
        return []
    columns: list[tuple[Column, Read]] = [
        (Column("level", left=True), level_name),
        (Column("server says", "tokens/s"), figure("server_output_tokens_per_s")),
        (Column("we measured", "tokens/s"), lambda level: Cell(units.figure(_whole(level)))),
        (Column("a request", "tokens/s"), lambda level: Cell(units.figure(_told(level, _SPEED)))),
        (Column("running", "mean"), lambda level: Cell(units.figure(_told(level, _RUNNING)))),
        (Column("waiting", "mean"), lambda level: Cell(units.figure(_told(level, _WAITING)))),
        (Column("cache", "peak"), lambda level: Cell(units.share(_told(level, _FULL)))),
    ]
    notes = ["the server's own /metrics, and our count over the same time: the whole level with warm-up and drain"]
    return known(per_model("The server's own metrics", {**summary, "levels": rows}, columns, notes))


_SPEED = ("llamacpp:predicted_tokens_seconds",)


def _told(level: Level, names: Sequence[str]) -> float | None:
    told = level.get("server_metrics") or {}
    return next((float(told[name]) for name in names if told.get(name) is not None), None)


def _whole(level: Level) -> float | None:
    rate = (level.get("whole_run") or {}).get("output_tokens_per_s")
    return None if rate is None else float(rate)


def megabytes(name: str) -> Read:
    """Bytes in MB, so that a column has one unit."""
    return lambda row: Cell(in_megabytes(row.get(name)))


def in_megabytes(n_bytes: float | None) -> str:
    """Whole MB, three significant figures below 100.

    >>> in_megabytes(1_234_567_890), in_megabytes(25_300_000), in_megabytes(None)
    ('1,235', '25.3', '-')
    """
    return units.figure(None if n_bytes is None else n_bytes / MB)


def share(name: str) -> Read:
    return lambda level: Cell(units.share(level.get(name)))
