"""`summary.csv`: one figure a row, for pandas, DuckDB or a spreadsheet. docs/formats.md describes each column.

What was not measured has no row. Figures are in full precision. Columns are only ever added, at the end.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

from loadbench.report import levels, provenance
from loadbench.text import csv_cell

OF_LEVELS = ("shape", "device", "execution_provider", "endpoint", "repeat", "closing", "status", "began")
"""Keys of a level that follow the figure: rows of one level have the same, those of a model alone its device."""
COLUMNS = (
    "run",
    "model",
    "level",
    "concurrency",
    "request_rate_per_s",
    "metric",
    "statistic",
    "value",
    "unit",
    "n",
    "ci_low",
    "ci_high",
    *OF_LEVELS,
)
STATISTICS = ("mean", "p50", "p90", "p95", "p99", "p999", "max")
DISTRIBUTIONS = {
    "ttft_ms": "ms",
    "ttft_from_due_ms": "ms",
    "ttfe_ms": "ms",
    "itl_ms": "ms",
    "tpot_ms": "ms",
    "e2e_ms": "ms",
    "connect_ms": "ms",
    "client_queue_ms": "ms",
    "client_lag_ms": "ms",
    "output_tokens": "tokens",
    "input_tokens": "tokens",
}
FIGURES = {
    "offered": "requests",
    "dropped": "requests",
    "attempted": "requests",
    "completed": "requests",
    "failed": "requests",
    "cancelled": "requests",
    "retries": "requests",
    "retried": "requests",
    "recovered": "requests",
    "failure_share": "fraction",
    "share": "fraction",
    "duration_s": "s",
    "window_s": "s",
    "output_tokens_per_s": "1/s",
    "input_tokens_per_s": "1/s",
    "characters_per_s": "1/s",
    "requests_per_s": "1/s",
    "goodput_per_s": "1/s",
    "efficiency": "fraction",
    "speedup": "ratio",
    "stretch": "ratio",
    "in_flight_mean": "count",
    "tokens_per_event": "count",
    "tpot_micro_ms": "ms",
    "merged_share": "fraction",
    "late_share": "fraction",
    "held_share": "fraction",
    "burst_share": "fraction",
    "cached_share": "fraction",
    "client_cpu_share": "fraction",
    "client_wait_share": "fraction",
    "client_pause_s": "s",
    "characters": "count",
    "words": "count",
    "output_tokens_spent": "tokens",
    "server_memory_peak_bytes": "bytes",
    "server_threads_peak": "count",
    "server_cpu_s": "s",
    "server_cpu_share": "ratio",
    "cpu_s_per_1000_tokens": "s",
    "server_output_tokens_per_s": "1/s",
    "others_cpu_share": "fraction",
    "gpu_utilisation_mean": "fraction",
    "temperature_c_max": "degC",
    "cpu_mhz_mean": "MHz",
    "throttled": "flag",
    "closing": "flag",
}
SOURCED = {
    "gpu_memory_peak_bytes": ("gpu_memory_source", "bytes"),
    "energy_j": ("energy_source", "J"),
    "j_per_1000_tokens": ("energy_source", "J"),
    "wh_per_1000_tokens": ("energy_source", "Wh"),
    "cost_per_1000_tokens": ("energy_source", "currency"),
}
OF_MODELS = {
    "load_s": "s",
    "memory_before_load_bytes": "bytes",
    "memory_after_load_bytes": "bytes",
    "memory_peak_bytes": "bytes",
    "memory_after_unload_bytes": "bytes",
    "disk_bytes": "bytes",
    "size_bytes": "bytes",
}

_Row = tuple[str, str, float, str, int | None, float | None, float | None]


def render(summary: Mapping[str, Any]) -> str:
    """The summary's figures as CSV text with a header line and Unix line ends."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([csv_cell(value) for value in row] for row in rows(summary))
    return text.getvalue()


def rows(summary: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """All rows, with a value or None for each of COLUMNS: those of levels first, then of their curves and models."""
    run = provenance.title(summary)
    for level in summary.get("levels") or []:
        load = (level.get("concurrency"), level.get("request_rate_per_s"))
        head = (run, level.get("model"), level.get("id"), *load)
        keys = tuple(_key(level, name) for name in OF_LEVELS)
        yield from ((*head, *row, *keys) for row in _rows(level))
        for one in level.get("endpoints") or ():
            own = tuple(
                one.get("url") if name == "endpoint" else key for name, key in zip(OF_LEVELS, keys, strict=True)
            )
            yield from ((*head, *row, *own) for row in _rows(one))
    bare = (None,) * len(OF_LEVELS)
    for curve in summary.get("scaling") or []:
        yield from ((run, curve.get("model"), None, None, None, *row, *bare) for row in _curve_rows(curve))
    for model in levels.models(summary):
        keys = tuple(model.get(name) if name in ("device", "execution_provider") else None for name in OF_LEVELS)
        yield from ((run, model.get("id"), None, None, None, *row, *keys) for row in _model_rows(model))


def _key(level: Mapping[str, Any], name: str) -> Any:
    """A key of the level; the device and provider that really ran, where the server tells."""
    found = (level.get("ran") or {}).get(name) if name in ("device", "execution_provider") else None
    found = level.get(name) if found is None else found
    return int(found) if isinstance(found, bool) else found


def _rows(level: Mapping[str, Any]) -> Iterator[_Row]:
    for metric, unit in DISTRIBUTIONS.items():
        distribution = level.get(metric) or {}
        if not isinstance(distribution, Mapping):
            yield metric, "value", distribution, unit, None, None, None
            continue
        for statistic in STATISTICS:
            if distribution.get(statistic) is not None:
                low, high = levels.ends(distribution, statistic)
                yield metric, statistic, distribution[statistic], unit, distribution.get("n"), low, high
    for metric, unit in FIGURES.items():
        if level.get(metric) is not None:
            figure = int(level[metric]) if unit == "flag" else level[metric]
            low, high = level.get(f"{metric}_ci95") or (None, None)
            yield metric, "value", figure, unit, None, low, high
    for name, row in sorted((level.get("drift") or {}).items()):
        yield "drift", name, row["ratio"], "ratio", None, None, None
    for name, unit in (("n", "count"), ("threshold_ms", "ms"), ("longest_ms", "ms")):
        if (level.get("stalls") or {}).get(name) is not None:
            yield "stalls", name, level["stalls"][name], unit, None, None, None
    for metric, (source, unit) in SOURCED.items():
        if level.get(metric) is not None:
            yield metric, str(level.get(source) or "value"), level[metric], unit, None, None, None
    if level.get("power"):
        yield "power", str(level["power"]), 1, "flag", None, None, None
    for name, figure in sorted((level.get("server_metrics") or {}).items()):
        yield "server_metrics", name, figure, "count", None, None, None
    if level.get("simulated"):
        yield "simulated", "value", 1, "flag", None, None, None
    for name, figure in sorted((level.get("whole_run") or {}).items()):
        if figure is not None:
            yield f"whole_run.{name}", "value", figure, "s" if name == "duration_s" else "1/s", None, None, None
    for metric, of in (("errors", "attempted"), ("finish_reasons", "completed")):
        for kind, n in sorted((level.get(metric) or {}).items()):
            yield metric, kind, n, "requests", level.get(of), None, None
    for bound in level.get("slo") or []:
        if bound.get("attainment") is not None:
            low, high = bound.get("ci95") or (None, None)
            yield "slo", bound["bound"], bound["attainment"], "fraction", bound.get("n"), low, high


def _curve_rows(curve: Mapping[str, Any]) -> Iterator[_Row]:
    law = curve.get("usl") or {}
    for name, unit in (("lambda_per_s", "1/s"), ("sigma", "count"), ("kappa", "count"), ("peak_n", "count")):
        if law.get(name) is not None:
            low, high = (law.get("ci95") or {}).get(name) or (None, None)
            yield "usl", name, law[name], unit, None, low, high
    for name, knee in sorted((curve.get("knees") or {}).items()):
        if knee:
            yield "knees", f"{name} {knee['relation']}", knee["n"], "count", None, None, None
    if curve.get("serial") is not None:
        yield "serial", "value", int(curve["serial"]), "flag", None, None, None


def _model_rows(model: Mapping[str, Any]) -> Iterator[_Row]:
    for metric, unit in OF_MODELS.items():
        if model.get(metric) is not None:
            yield metric, "value", model[metric], unit, None, None, None
    for purpose in ("first", "warm", "idle", "kept_warm"):
        probe = model.get(purpose) or {}
        for name, unit in (("ttft_ms", "ms"), ("e2e_ms", "ms"), ("after_s", "s"), ("cold", "flag")):
            if probe.get(name) is not None and not probe.get("error"):
                figure = int(probe[name]) if unit == "flag" else probe[name]
                yield f"{purpose}.{name}", "value", figure, unit, None, None, None
