"""A run in, summary.json out: every figure that a report prints, as METRICS.md defines it. Pure functions.

`request` has the figures of single requests, `distribution` the percentiles, `window` throughput and the steady
window, `slo` attainment and goodput, `flow` what flowed when, `endpoints` what went to each of several replicas,
`drift`, `stalls`, `noise` and `repeats` whether it flowed evenly, `spectra` whole distributions, `table` the
breakdowns, `thresholds` what failed the run, `level` one level's part; `samples`, `machine`, `course`, `energy` and
`scraped` read the samples,
`models` what is known of each model. Undefined is None, never 0.
"""

from __future__ import annotations

from typing import Any

from loadbench.bounds import Bound
from loadbench.metrics import course, endpoints, gates, level, machine, models, noise, repeats, samples, stalls
from loadbench.metrics.request import Requests
from loadbench.metrics.searched import searched
from loadbench.metrics.thresholds import thresholds
from loadbench.record import SPEECHLESS
from loadbench.stats.scaling import scaling
from loadbench.store import LevelData, Run

__all__ = ["Requests", "summarise"]

SCHEMA = 1


def summarise(run: Run) -> dict[str, Any]:
    """Everything that the reports print, as summary.json holds it.

    A level's metrics (`ttft_ms`, `e2e_ms`, …) are objects {"n", "mean", "p50", "p90", "p95", "p99", "p999", "max",
    "ci95"} over the measured requests that completed: in ms, for `output_tokens` and `input_tokens` in tokens with
    their "total". With n = 0 all but n is None. The whole object is None where the metric has no meaning: `itl_ms`
    and `tpot_ms` of a server that sends in bursts, `ttft_from_due_ms` in closed loop, a client lag nobody measured.
    Rates are those of the steady window, None below a second of it; `whole_run` holds those of the whole level. A level
    with "closing" repeats the first one at the end of the run: it gives `noise` and is no point of a curve.
    What samples tell, a level's memory, CPU and energy among it, is None without them or for a server elsewhere.
    """
    scenario = run.info.get("scenario") or {}
    asked = scenario
    if (run.info.get("prompts") or {}).get("own_limits"):
        asked = {**scenario, "max_tokens": None}  # prompts carry limits of their own: no length is that of all (V5)
    bounds = [Bound.parse(text) for text in scenario.get("slo") or ()]
    levels: list[dict[str, Any]] = []
    ran = models.what_ran(run.info)
    threshold = scenario.get("stall_threshold") or stalls.THRESHOLD
    by_level = samples.by_level(run.samples)
    by_name = models.devices_by_name(run.info)
    for data in run.levels:
        streamed = scenario.get("stream") is not False
        found = level.summary(data, bounds, streamed=streamed, stall_threshold=threshold)
        found["endpoints"] = endpoints.endpoints(data, run.info, streamed=streamed)
        own = by_level.get((str(found["id"]), found["attempt"] or 0), [])
        found["ran"] = ran.get(str(found["model"]))
        if found["model"] in by_name:
            found["device_by_name"] = True
        found |= machine.figures(
            own,
            run.info,
            duration_s=found["duration_s"],
            tokens=found["output_tokens_spent"],
            device=(found["ran"] or {}).get("device") or found["device"],
        )
        found["course"] = course.course(own, run.info, (found["ran"] or {}).get("device") or found["device"])
        server = (run.info.get("target") or {}).get("kind")
        levels.append(
            found | {"simulated": server == "simulator", "server_kind": server, "clock": run.info.get("clock")}
        )
    curves = scaling(levels)
    rows = {row["id"]: row for curve in curves for row in curve["levels"]}
    for found, data in zip(levels, run.levels, strict=True):
        row = rows.get(found["id"], {})
        names = ("efficiency", "efficiency_ci95", "speedup", "speedup_ci95", "stretch")
        found |= {name: row.get(name) for name in names}
        found["warnings"] = [*_damage(data), *_speechless(data), *gates.warnings(found, asked)]
    if run.info.get("capacity"):
        for curve in curves:  # the search has the answer to where the objectives are crossed
            curve["knees"]["slo"] = None
    bands = noise.bands(levels)
    return {
        "schema": SCHEMA,
        "run": {name: value for name, value in run.info.items() if name != "levels"},
        "levels": levels,
        "models": models.records(run.info, levels),
        "absent": list(run.info.get("absent") or ()),
        "warnings": [*_unreadable(run), *gates.alike(run.info), *gates.noise(bands)],
        "noise": bands,
        "repeats": repeats.entries(levels),
        "stall_threshold": threshold,
        "scaling": curves,
        **searched(run.info),
        # A search tries loads that fail.
        "thresholds": [] if run.info.get("capacity") else thresholds(levels, scenario.get("fail_if") or ()),
        "verdict": None,
    }


def _damage(data: LevelData) -> list[gates.Doubt]:
    remedy = "no figure of it can be trusted: take the folder from a copy, or measure again"
    return [gates.said("red", "records", f"{what}; {remedy}") for what in data.damage]


def _speechless(data: LevelData) -> list[gates.Doubt]:
    ended = data.results.error_message.count(SPEECHLESS)
    if not ended:
        return []
    what = f"{ended} conversation{'s' * (ended != 1)} ended before the last turn: an answer had no text"
    text = f"{what}; raise --max-tokens, where thoughts used all of it, or see what the server answers"
    return [gates.said("note", "conversations", text)]


def _unreadable(run: Run) -> list[gates.Doubt]:
    found = []
    died = "cannot be read: a process died while it wrote, or they were changed"
    if run.unreadable_lines:
        text = f"{run.unreadable_lines} lines of requests.jsonl {died}; --resume repeats its level"
        found.append(gates.said("warn", "records", text))
    if run.unreadable_samples:
        text = f"{run.unreadable_samples} lines of telemetry.jsonl {died}; peaks may be missing"
        found.append(gates.said("note", "samples", text))
    return found
