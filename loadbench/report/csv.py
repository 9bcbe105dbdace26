"""`summary.csv`: one figure a row, for pandas, DuckDB or a spreadsheet. docs/formats.md describes each column.

What was not measured has no row. Figures are in full precision. Columns are only ever added, at the end.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping

from loadbench.figures import FIGURES, PERCENTILES, Figure
from loadbench.report import levels, provenance
from loadbench.report.levels import Level, Record, Summary
from loadbench.text import csv_cell

OF_LEVELS = ("shape", "device", "execution_provider", "endpoint", "repeat", "closing", "status", "began")
"""Keys of a level that follow the figure: rows of one level have the same, those of a model alone its device."""
_RAN = ("device", "execution_provider")
_NO_KEYS: dict[str, object] = dict.fromkeys(OF_LEVELS)
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
STATISTICS = ("mean", *PERCENTILES, "max")
_UNITS = {"share": "fraction", "/s": "1/s"}
"""Words for units here, where they are not those of `figures`."""

_Row = tuple[str, str, object, str, int | None, float | None, float | None]
"""Metric, statistic, value, unit, n, both ends of the interval."""


def render(summary: Summary) -> str:
    """The summary's figures as CSV text with a header line and Unix line ends."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows(summary):
        writer.writerow(map(csv_cell, row))
    return text.getvalue()


def rows(summary: Summary) -> Iterator[tuple[object, ...]]:
    """All rows, with a value or None for each of COLUMNS: those of levels first, then of their curves and models."""
    run = provenance.title(summary)
    for level in summary.get("levels") or []:
        load = (level.get("concurrency"), level.get("request_rate_per_s"))
        head = (run, level.get("model"), level.get("id"), *load)
        keys = {name: _key(level, name) for name in OF_LEVELS}
        for row in _of_level(level):
            yield (*head, *row, *keys.values())
        for endpoint in level.get("endpoints") or ():
            own = keys | {"endpoint": endpoint.get("url")}
            for row in _of_level(endpoint):
                yield (*head, *row, *own.values())
    for curve in summary.get("scaling") or []:
        for row in _of_curve(curve):
            yield (run, curve.get("model"), None, None, None, *row, *_NO_KEYS.values())
    for model in levels.models(summary):
        own = _NO_KEYS | {name: model.get(name) for name in _RAN}
        for row in _of_model(model):
            yield (run, model.get("id"), None, None, None, *row, *own.values())


def _key(level: Level, name: str) -> object:
    """A key of the level; the device and provider that really ran, where the server tells."""
    key = (level.get("ran") or {}).get(name) if name in _RAN else None
    if key is None:
        key = level.get(name)
    return int(key) if isinstance(key, bool) else key


def _single(metric: str, statistic: str, value: object, unit: str) -> _Row:
    return metric, statistic, int(value) if isinstance(value, bool) else value, unit, None, None, None


def _of_level(level: Level) -> Iterator[_Row]:
    declared = [figure for figure in FIGURES.values() if figure.of == "level" and figure.path]
    for figure in declared:
        if figure.values:
            yield from _of_distribution(figure.path, level.get(figure.path) or {}, _unit(figure))
    nested = []
    for figure in declared:
        if figure.source or "." in figure.path:
            nested.append(figure)
        elif not figure.values and figure.read(level) is not None:
            value = int(figure.read(level)) if figure.unit == "flag" else figure.read(level)
            yield figure.path, "value", value, _unit(figure), None, *levels.bounds(level, figure.path)
    for name, drift in sorted((level.get("drift") or {}).items()):
        yield _single("drift", name, drift["ratio"], "ratio")
    for figure in nested:
        if figure.read(level) is not None:
            metric, _, name = figure.path.partition(".")
            statistic = str(level.get(figure.source) or "value") if figure.source else name
            yield _single(metric, statistic, figure.read(level), _unit(figure))
    if level.get("power"):
        yield _single("power", str(level["power"]), 1, "flag")
    for name, value in sorted((level.get("server_metrics") or {}).items()):
        yield _single("server_metrics", name, value, "count")
    if level.get("simulated"):
        yield _single("simulated", "value", 1, "flag")
    for name, value in sorted((level.get("whole_run") or {}).items()):
        if value is not None:
            yield _single(f"whole_run.{name}", "value", value, "s" if name == "duration_s" else "1/s")
    for metric, of in (("errors", "attempted"), ("finish_reasons", "completed")):
        for kind, n in sorted((level.get(metric) or {}).items()):
            yield metric, kind, n, "requests", level.get(of), None, None
    for bound in level.get("slo") or []:
        if bound.get("attainment") is not None:
            low, high = bound.get("ci95") or (None, None)
            yield "slo", bound["bound"], bound["attainment"], "fraction", bound.get("n"), low, high


def _of_distribution(metric: str, distribution: Record | float, unit: str) -> Iterator[_Row]:
    if not isinstance(distribution, Mapping):
        yield _single(metric, "value", distribution, unit)
        return
    for statistic in STATISTICS:
        if distribution.get(statistic) is not None:
            low, high = levels.ends(distribution, statistic)
            yield metric, statistic, distribution[statistic], unit, distribution.get("n"), low, high


def _unit(figure: Figure) -> str:
    return _UNITS.get(figure.unit, figure.unit)


def _of_curve(curve: Record) -> Iterator[_Row]:
    law = curve.get("usl") or {}
    for name, unit in (("lambda_per_s", "1/s"), ("sigma", "count"), ("kappa", "count"), ("peak_n", "count")):
        if law.get(name) is not None:
            low, high = (law.get("ci95") or {}).get(name) or (None, None)
            yield "usl", name, law[name], unit, None, low, high
    for name, knee in sorted((curve.get("knees") or {}).items()):
        if knee:
            yield _single("knees", f"{name} {knee['relation']}", knee["n"], "count")
    if curve.get("serial") is not None:
        yield _single("serial", "value", curve["serial"], "flag")


def _of_model(model: Record) -> Iterator[_Row]:
    for figure in FIGURES.values():
        if figure.of == "model" and figure.path and figure.read(model) is not None:
            yield _single(figure.path, "value", figure.read(model), _unit(figure))
    for purpose in ("first", "warm", "idle", "kept_warm"):
        probe = model.get(purpose) or {}
        for name, unit in (("ttft_ms", "ms"), ("e2e_ms", "ms"), ("after_s", "s"), ("cold", "flag")):
            if probe.get(name) is not None and not probe.get("error"):
                yield _single(f"{purpose}.{name}", "value", probe[name], unit)
