"""A run in, summary.json out: every figure that a report prints, as METRICS.md defines it. Pure functions.

`request` has the figures of single requests, `distribution` the percentiles, `window` throughput and the steady
window, `slo` attainment and goodput, `table` the breakdowns, `level` one level's part. Undefined is None, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loadbench import validity
from loadbench.metrics import level
from loadbench.metrics.request import Requests
from loadbench.scaling import scaling
from loadbench.scenario import Bound
from loadbench.store import Run

__all__ = ["Requests", "summarise"]

SCHEMA = 1


def summarise(run: Run) -> dict[str, Any]:
    """Everything that the reports print, as summary.json holds it.

    A level's metrics (`ttft_ms`, `e2e_ms`, …) are objects {"n", "mean", "p50", "p90", "p95", "p99", "p999", "max",
    "ci95"} over the measured requests that completed: in ms, for `output_tokens` and `input_tokens` in tokens with
    their "total". With n = 0 all but n is None. The whole object is None where the metric has no meaning: `itl_ms`
    and `tpot_ms` of a server that sends in bursts, `ttft_from_due_ms` in closed loop, a client lag nobody measured.
    Rates are those of the steady window, None below a second of it; `whole_run` holds those of the whole level.
    """
    scenario = run.info.get("scenario") or {}
    asked = scenario
    if (run.info.get("prompts") or {}).get("own_limits"):
        asked = {**scenario, "max_tokens": None}  # prompts carry limits of their own: no length is that of all (V5)
    bounds = [Bound.parse(text) for text in scenario.get("slo") or ()]
    levels = []
    for data in run.levels:
        found = level.summary(data, bounds)
        levels.append(found | {"simulated": _simulated(run.info), "clock": run.info.get("clock")})
    models = scaling(levels)
    rows = {row["id"]: row for model in models for row in model["levels"]}
    for found in levels:
        row = rows.get(found["id"], {})
        found |= {name: row.get(name) for name in ("efficiency", "speedup", "stretch")}
        found["warnings"] = validity.warnings(found, asked)
    return {
        "schema": SCHEMA,
        "run": {name: value for name, value in run.info.items() if name != "levels"},
        "levels": levels,
        "warnings": _unreadable(run.unreadable_lines),
        "scaling": models,
        "capacity_concurrency": None,
        "capacity_rate_per_s": None,
        "verdict": None,
    }


def _simulated(info: Mapping[str, Any]) -> bool:
    return (info.get("target") or {}).get("kind") == "simulator"


def _unreadable(lines: int) -> list[validity.Doubt]:
    if not lines:
        return []
    text = f"{lines} lines of requests.jsonl cannot be read: a process died while it wrote; --resume repeats its level"
    return [{"code": "records", "severity": "warn", "text": text}]
