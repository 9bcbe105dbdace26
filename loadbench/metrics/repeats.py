"""Levels that were measured several times: each run's figures, how far they spread, how sure their mean is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from loadbench import stats
from loadbench.metrics.noise import lead

Level = Mapping[str, Any]
LEAST = 3
"""Runs below which nothing is told of their mean: Student's interval of two is six times as wide as their spread."""


def entries(levels: Sequence[Level]) -> list[dict[str, Any]]:
    """One entry a load of a model that ran to its end twice or more, in the order of the run.

    Returns:
        {"model", "endpoint", "concurrency", "request_rate_per_s", "shape", "runs": [{"level", "began",
        "output_tokens_per_s", "ttft_p50" or "e2e_p50" in ms}], "figures": by metric `over_runs` of them}.
    """
    grouped: dict[tuple[Any, ...], list[Level]] = {}
    for level in levels:
        if level.get("status") in (None, "complete") and not level.get("closing"):
            key = tuple(level.get(name) for name in _LOAD)
            grouped.setdefault(key, []).append(level)
    return [_entry(key, runs) for key, runs in grouped.items() if len(runs) > 1]


_LOAD = ("model", "endpoint", "concurrency", "request_rate_per_s", "shape")


def figures(level: Level) -> dict[str, float | None]:
    """What runs of a level are told apart by: tokens/s, and the median of the headline latency in ms.

    >>> figures({"output_tokens_per_s": 60.0, "ttft_ms": {"p50": 212.0}})
    {'output_tokens_per_s': 60.0, 'ttft_p50': 212.0}
    """
    name, metric = lead(level)
    return {"output_tokens_per_s": level.get("output_tokens_per_s"), f"{name}_p50": metric.get("p50")}


def over_runs(values: Sequence[float | None]) -> dict[str, Any]:
    """Over runs: geometric mean with its 95 % interval, the relative half-width of that, spread and variation.

    The run is the unit: Student's interval of the logarithms (METRICS.md §5), given from three runs on. All but `n` are
    None where a run has no such figure.

    >>> over_runs([100.0, 102.0, 98.0])
    {'n': 3, 'mean': 99.9867, 'low': 95.1397, 'high': 105.081, 'half_width': 0.0509, 'spread': 1.0408, 'cv': 0.02}
    """
    known = [value for value in values if value is not None and value > 0]
    if not known or len(known) < len(values):
        return {"n": len(known)} | dict.fromkeys(("mean", "low", "high", "half_width", "spread", "cv"))
    logs = [math.log(value) for value in known]
    centre = math.fsum(logs) / len(logs)
    sample = stats.one_sample(logs)
    bounds: tuple[float, float] | None = None
    half = 0.0
    if sample is not None and len(known) >= LEAST:
        half = stats.student(sample.freedom) * math.sqrt(sample.variance)
        bounds = math.exp(centre - half), math.exp(centre + half)
    plain = math.fsum(known) / len(known)
    deviation = math.sqrt(math.fsum((value - plain) ** 2 for value in known) / max(len(known) - 1, 1))
    return {
        "n": len(known),
        "mean": _significant(math.exp(centre)),
        "low": None if bounds is None else _significant(bounds[0]),
        "high": None if bounds is None else _significant(bounds[1]),
        "half_width": None if bounds is None else round(math.expm1(half), 4),
        "spread": round(max(known) / min(known), 4),
        "cv": round(deviation / plain, 4),
    }


def _entry(key: tuple[Any, ...], runs: Sequence[Level]) -> dict[str, Any]:
    rows = [{"level": level.get("id"), "began": level.get("began"), **figures(level)} for level in runs]
    names = [name for name in rows[0] if name not in ("level", "began")]
    of_each = {name: over_runs([row.get(name) for row in rows]) for name in names}
    return {**dict(zip(_LOAD, key, strict=True)), "runs": rows, "figures": of_each}


def _significant(value: float) -> float:
    return float(f"{value:.6g}")
