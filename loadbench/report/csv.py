"""`summary.csv`: one figure a row, for pandas, DuckDB or a spreadsheet. docs/formats.md describes each column.

What was not measured has no row. Figures are in full precision. Columns are only ever added, at the end.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

from loadbench.figures import FIGURES, PERCENTILES, Figure
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
STATISTICS = ("mean", *PERCENTILES, "max")
_UNITS = {"share": "fraction", "/s": "1/s"}
"""Words for units here, where they are not those of `figures`."""

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
    declared = [one for one in FIGURES.values() if one.of == "level" and one.path]
    single = [one for one in declared if not one.values and not one.source and "." not in one.path]
    for one in declared:
        if one.values:
            yield from _of_distribution(one.path, level.get(one.path) or {}, _unit(one))
    for one in single:
        value = one.read(level)
        if value is not None:
            low, high = level.get(f"{one.path}_ci95") or (None, None)
            yield one.path, "value", int(value) if one.unit == "flag" else value, _unit(one), None, low, high
    for name, row in sorted((level.get("drift") or {}).items()):
        yield "drift", name, row["ratio"], "ratio", None, None, None
    for one in declared:
        value = one.read(level) if one.source or "." in one.path else None
        if value is not None and one.source:
            yield one.path, str(level.get(one.source) or "value"), value, _unit(one), None, None, None
        elif value is not None:
            metric, _, name = one.path.partition(".")
            yield metric, name, value, _unit(one), None, None, None
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


def _of_distribution(metric: str, distribution: Any, unit: str) -> Iterator[_Row]:
    if not isinstance(distribution, Mapping):
        yield metric, "value", distribution, unit, None, None, None
        return
    for statistic in STATISTICS:
        if distribution.get(statistic) is not None:
            low, high = levels.ends(distribution, statistic)
            yield metric, statistic, distribution[statistic], unit, distribution.get("n"), low, high


def _unit(figure: Figure) -> str:
    return _UNITS.get(figure.unit, figure.unit)


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
    for one in FIGURES.values():
        if one.of == "model" and one.path and one.read(model) is not None:
            yield one.path, "value", one.read(model), _unit(one), None, None, None
    for purpose in ("first", "warm", "idle", "kept_warm"):
        probe = model.get(purpose) or {}
        for name, unit in (("ttft_ms", "ms"), ("e2e_ms", "ms"), ("after_s", "s"), ("cold", "flag")):
            if probe.get(name) is not None and not probe.get("error"):
                figure = int(probe[name]) if unit == "flag" else probe[name]
                yield f"{purpose}.{name}", "value", figure, unit, None, None, None
