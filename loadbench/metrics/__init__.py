"""A run in, its summary out: every figure that a report prints, as METRICS.md defines it. Pure functions.

request.py       the figures of single requests
distribution.py  a metric over many of them: percentiles, intervals, whole spectra
window.py        the steady window, what flowed in it and when
stability.py     whether it flowed evenly: drift, requests that depend on each other, stalls
slo.py           attainment, goodput, thresholds
level.py         one level's part of the summary, and its breakdowns
machine.py       what its samples tell: memory, CPU, GPUs, energy
models.py        what is known of each model
repeats.py       loads that were measured several times
searched.py      what a search for the capacity found
gates/           what speaks against all that
vllm.py          the same level as `vllm bench serve` computes it

Undefined is None, never 0.
"""

from __future__ import annotations

from typing import Any

import msgspec

from loadbench.metrics import gates, level, machine, models, repeats, stability
from loadbench.metrics.request import Requests
from loadbench.metrics.searched import answer, capacities
from loadbench.metrics.slo import thresholds
from loadbench.scenario.bounds import Bound
from loadbench.stats.scaling import scaling
from loadbench.store import LevelData, Run
from loadbench.store.record import SPEECHLESS
from loadbench.store.schema import PromptsFacts, RunFacts, ScenarioFacts, TargetFacts, run_facts
from loadbench.store.summary import Curve, Finding, Knees, Level, Summary, as_mapping

__all__ = ["Requests", "summarise", "summary"]


def summarise(run: Run) -> dict[str, Any]:
    """The summary as plain values, for readers that do not take its structs yet."""
    return as_mapping(summary(run))


def summary(run: Run) -> Summary:
    """Everything that the reports print.

    A level's distributions (`ttft_ms`, `e2e_ms`, …) are over the measured requests that completed. With n = 0 all but n
    is None. The whole is None where the metric has no meaning: `itl_ms` and `tpot_ms` of a server that sends in bursts,
    `ttft_from_due_ms` in closed loop, a client lag nobody measured. Rates are those of the steady window, None below a
    second of it; `whole_run` holds those of the whole level. A level with "closing" repeats the first one at the end of
    the run: it gives `noise` and is no point of a curve. What samples tell, a level's memory, CPU and energy among it,
    is None without them or for a server elsewhere.
    """
    info = run_facts(run.info)
    scenario = info.scenario or ScenarioFacts()
    stall_threshold = scenario.stall_threshold or stability.STALL_THRESHOLD
    levels = _levels(run, info, scenario, stall_threshold)
    curves = scaling(levels)
    _add_scaling(levels, curves)
    capacity = capacities(run.info)
    if capacity:
        for curve in curves:  # the search has the answer to where the objectives are crossed
            curve.knees = Knees(power=curve.knees.power, doubling=curve.knees.doubling, corner=curve.knees.corner)
    judged = scenario
    if (info.prompts or PromptsFacts()).own_limits:  # prompts carry limits of their own: no length is that of all (V5)
        judged = msgspec.structs.replace(scenario, max_tokens=None)
    for one, data in zip(levels, run.levels, strict=True):
        one.warnings = [*_damage(data), *_speechless(data), *gates.warnings(one, judged)]
    bands = repeats.bands(levels)
    return Summary(
        run={name: value for name, value in run.info.items() if name != "levels"},
        levels=levels,
        models=models.records(info, levels),
        absent=info.absent or [],
        warnings=[*_unreadable(run), *gates.alike(info.endpoints or ()), *gates.noise(bands)],
        noise=bands,
        repeats=repeats.entries(levels),
        stall_threshold=stall_threshold,
        scaling=curves,
        capacity=capacity,
        capacity_concurrency=answer(capacity, "concurrency"),
        capacity_rate_per_s=answer(capacity, "rate"),
        # A search tries loads that fail.
        thresholds=[] if capacity else thresholds(levels, scenario.fail_if or ()),
    )


def _levels(run: Run, info: RunFacts, scenario: ScenarioFacts, stall_threshold: float) -> list[Level]:
    bounds = [Bound.parse(text) for text in scenario.slo or ()]
    streamed = scenario.stream is not False
    ran = models.by_model(info)
    by_name = models.devices_by_name(info)
    samples = machine.by_level(machine.typed(run.samples))
    server = (info.target or TargetFacts()).kind
    levels = []
    for data in run.levels:
        found = level.summary(data, bounds, streamed=streamed, stall_threshold=stall_threshold)
        found.endpoints = level.endpoints(data, info.endpoints, streamed=streamed)
        found.ran = ran.get(str(found.model))
        if found.model in by_name:
            found.device_by_name = True
        machine.add_figures(found, samples.get((str(found.id), found.attempt or 0), []), info)
        found.simulated = server == "simulator"
        found.server_kind = server
        found.clock = info.clock
        levels.append(found)
    return levels


def _add_scaling(levels: list[Level], curves: list[Curve]) -> None:
    rows = {row.id: row for curve in curves for row in curve.levels}
    for one in levels:
        if one.id in rows:
            row = rows[one.id]
            one.efficiency, one.efficiency_ci95 = row.efficiency, row.efficiency_ci95
            one.speedup, one.speedup_ci95 = row.speedup, row.speedup_ci95
            one.stretch = row.stretch


def _damage(data: LevelData) -> list[Finding]:
    remedy = "no figure of it can be trusted: take the folder from a copy, or measure again"
    return [gates.finding("red", "records", f"{what}; {remedy}") for what in data.damage]


def _speechless(data: LevelData) -> list[Finding]:
    ended = data.results.error_message.count(SPEECHLESS)
    if not ended:
        return []
    what = f"{ended} conversation{'s' * (ended != 1)} ended before the last turn: an answer had no text"
    text = f"{what}; raise --max-tokens, where thoughts used all of it, or see what the server answers"
    return [gates.finding("note", "conversations", text)]


def _unreadable(run: Run) -> list[Finding]:
    found = []
    died = "cannot be read: a process died while it wrote, or they were changed"
    if run.unreadable_lines:
        text = f"{run.unreadable_lines} lines of requests.jsonl {died}; --resume repeats its level"
        found.append(gates.finding("warn", "records", text))
    if run.unreadable_samples:
        text = f"{run.unreadable_samples} lines of telemetry.jsonl {died}; peaks may be missing"
        found.append(gates.finding("note", "samples", text))
    return found
