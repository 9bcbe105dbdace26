"""A run in, its summary out: every figure that a report prints, as docs/metrics.md defines it. Pure functions.

request.py       the figures of single requests
distribution.py  a metric over many of them: percentiles, intervals, whole spectra, stalls
window.py        the steady window, what flowed in it and when, and whether it flowed evenly
slo.py           attainment, goodput, thresholds, the loads that meet the SLO
level.py         one level's part of the summary, and its breakdowns
sharing.py       workers and endpoints that share a level
machine.py       what its samples say: memory, CPU, GPUs, energy
models.py        what is known of each model
gates.py         what speaks against all that; checks.py has the table of names
vllm.py          the same level as `vllm bench serve` computes it

Undefined is None, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from loadbench.metrics import checks, gates, level, machine, models, sharing
from loadbench.metrics.distribution import STALL_THRESHOLD
from loadbench.metrics.request import Requests
from loadbench.metrics.slo import answer, capacities, thresholds
from loadbench.scenario.bounds import Bound
from loadbench.stats import one_sample, student
from loadbench.stats.scaling import scaling
from loadbench.store import LevelData, Run
from loadbench.store.record import SPEECHLESS, Json
from loadbench.store.schema import PromptsFacts, RunFacts, ScenarioFacts, TargetFacts, run_facts
from loadbench.store.summary import (
    NOTHING,
    Band,
    Finding,
    Knees,
    Level,
    OverRuns,
    RepeatedRun,
    Repeats,
    Summary,
    as_mapping,
    significant,
)

__all__ = ["Requests", "summarise", "summary"]


def summarise(run: Run) -> Json:
    """The summary as plain values, for readers that do not take its structs yet."""
    return as_mapping(summary(run))


def summary(run: Run) -> Summary:
    """Everything that the reports print.

    A level's distributions (`ttft_ms`, `e2e_ms`, …) are over the measured requests that completed. With n = 0 all but n
    is None. The whole is None where the metric has no meaning: `itl_ms` and `tpot_ms` of a server that sends in bursts,
    `ttft_from_due_ms` in closed loop, a client lag that was not measured. Rates are those of the steady window, None
    below a second of it; `whole_run` holds those of the whole level. A level with "closing" repeats the first one at
    the end of the run: it gives `noise` and is no point of a curve. What samples say, a level's memory, CPU and energy
    among it, is None without them or for a server elsewhere.
    """
    info = run_facts(run.info)
    scenario = info.scenario or ScenarioFacts()
    stall_threshold = scenario.stall_threshold or STALL_THRESHOLD
    levels = _levels(run, info, scenario, stall_threshold)
    curves = scaling(levels)
    rows = {row.id: row for curve in curves for row in curve.levels}
    for one in levels:
        if one.id in rows:
            for name in ("efficiency", "efficiency_ci95", "speedup", "speedup_ci95", "stretch"):
                setattr(one, name, getattr(rows[one.id], name))
    capacity = capacities(run.info)
    if capacity:
        for curve in curves:  # the search has the answer to where the objectives are crossed
            curve.knees = Knees(power=curve.knees.power, doubling=curve.knees.doubling, corner=curve.knees.corner)
    judged = scenario
    if (info.prompts or PromptsFacts()).own_limits:  # prompts carry limits of their own: no length is that of all (V5)
        judged = msgspec.structs.replace(scenario, max_tokens=None)
    for one, data in zip(levels, run.levels, strict=True):
        one.warnings = [*_records(data), *gates.warnings(one, judged)]
    bands = noise_bands(levels)
    return Summary(
        run={name: value for name, value in run.info.items() if name != "levels"},
        levels=levels,
        models=models.records(info, levels),
        absent=info.absent or [],
        warnings=[*_unreadable(run), *sharing.alike(info.endpoints or ()), *gates.noise(bands)],
        noise=bands,
        repeats=repeats(levels),
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
    ran = models.what_ran(run.info)
    # Models whose device is that of their name alone: nobody saw it.
    by_name = {one.id for one in models.listed(info) if one.device_by_name and one.id}
    samples = machine.by_level(machine.typed(run.samples))
    server = (info.target or TargetFacts()).kind
    levels = []
    for data in run.levels:
        found = level.summary(data, bounds, streamed=streamed, stall_threshold=stall_threshold)
        found.endpoints = sharing.rows(data, info.endpoints, streamed=streamed)
        found.ran = ran.get(str(found.model))
        if found.model in by_name:
            found.device_by_name = True
        machine.add_figures(found, samples.get((str(found.id), found.attempt or 0), []), info)
        found.simulated = server == "simulator"
        found.server_kind = server
        found.clock = info.clock
        levels.append(found)
    return levels


def _records(data: LevelData) -> list[Finding]:
    """What is wrong with a level's records."""
    remedy = "no figure of it can be trusted: take the folder from a copy, or measure again"
    found = [checks.finding("red", "records", f"{what}; {remedy}") for what in data.damage]
    ended = data.results.error_message.count(SPEECHLESS)
    if ended:
        conversations = f"{ended} conversation" if ended == 1 else f"{ended} conversations"
        text = (
            f"{conversations} ended before the last turn: an answer had no text; raise --max-tokens, where thoughts "
            "used all of it, or see what the server answers"
        )
        found.append(checks.finding("note", "conversations", text))
    return found


def _unreadable(run: Run) -> list[Finding]:
    found = []
    died = "cannot be read: a process died while it wrote, or they were changed"
    if run.unreadable_lines:
        text = f"{run.unreadable_lines} lines of requests.jsonl {died}; --resume repeats its level"
        found.append(checks.finding("warn", "records", text))
    if run.unreadable_samples:
        text = f"{run.unreadable_samples} lines of telemetry.jsonl {died}; peaks may be missing"
        found.append(checks.finding("note", "samples", text))
    return found


# -- a load that was measured several times: a model's first level once more at the end (gate V11), and repeats

# Runs below which their mean has no interval: Student's of two is six times as wide as their spread.
FEWEST_RUNS = 3


def headline(level: Level) -> dict[str, float | None]:
    """The figures by which runs of a level are compared: tokens/s, and the median in ms of the latency that says most.

    That is TTFT, in open loop from `due`; of whole answers E2E.

    >>> headline(Level(output_tokens_per_s=60.0, ttft_ms=msgspec.structs.replace(NOTHING, p50=212.0)))
    {'output_tokens_per_s': 60.0, 'ttft_p50': 212.0}
    """
    name, times = "ttft", level.ttft_from_due_ms if level.is_open else level.ttft_ms
    if level.streamed is False:
        name, times = "e2e", level.e2e_ms
    return {"output_tokens_per_s": level.output_tokens_per_s, f"{name}_p50": (times or NOTHING).p50}


def noise_bands(levels: Sequence[Level]) -> list[Band]:
    """One row a closing level: its figures over those of the model's first level; None where either is unknown.

    A closing level that did not run to its end, or whose first level is not there, says nothing.
    """
    found = []
    for closing in levels:
        if not closing.closing or not closing.is_whole:
            continue
        for first in levels:
            load = (first.model, first.concurrency, first.request_rate_per_s)
            same = load == (closing.model, closing.concurrency, closing.request_rate_per_s)
            if same and not first.closing and first.is_whole:
                after = headline(closing)
                ratios = {}
                for name, before in headline(first).items():
                    now = after.get(name)
                    ratios[name] = round(now / before, 4) if now and before else None
                found.append(Band(model=closing.model, level=first.id, closing_level=closing.id, **ratios))
                break
    return found


def repeats(levels: Sequence[Level]) -> list[Repeats]:
    """One entry a load of a model that ran to its end twice or more, in the order of the run."""
    grouped: dict[tuple[object, ...], list[Level]] = {}
    for one in levels:
        if one.is_whole and not one.closing:
            key = (one.model, one.endpoint, one.concurrency, one.request_rate_per_s, one.shape)
            grouped.setdefault(key, []).append(one)
    found = []
    for runs in grouped.values():
        if len(runs) < 2:
            continue
        first, rows = runs[0], [headline(run) for run in runs]
        entry = Repeats(
            model=first.model,
            endpoint=first.endpoint,
            concurrency=first.concurrency,
            request_rate_per_s=first.request_rate_per_s,
            shape=first.shape,
            runs=[RepeatedRun(level=one.id, began=one.began, **row) for one, row in zip(runs, rows, strict=True)],
            figures={name: over_runs([row.get(name) for row in rows]) for name in rows[0]},
        )
        found.append(entry)
    return found


def over_runs(values: Sequence[float | None]) -> OverRuns:
    """Over runs: geometric mean with its 95 % interval, the relative half-width of that, spread and variation.

    The run is the unit: Student's interval of the logarithms, from three runs on. All but `n` are
    None where a run has no such figure.

    >>> found = over_runs([100.0, 102.0, 98.0])
    >>> found.mean, found.low, found.high, found.half_width, found.spread, found.cv
    (99.9867, 95.1397, 105.081, 0.0509, 1.0408, 0.02)
    """
    known = [value for value in values if value is not None and value > 0]
    if not known or len(known) < len(values):
        return OverRuns(n=len(known))
    logs = [math.log(value) for value in known]
    centre = math.fsum(logs) / len(logs)
    plain = math.fsum(known) / len(known)
    deviation = math.sqrt(math.fsum((value - plain) ** 2 for value in known) / max(len(known) - 1, 1))
    found = OverRuns(
        n=len(known),
        mean=significant(math.exp(centre)),
        spread=round(max(known) / min(known), 4),
        cv=round(deviation / plain, 4),
    )
    sample = one_sample(logs)
    if sample is None or len(known) < FEWEST_RUNS:
        return found
    half = student(sample.freedom) * math.sqrt(sample.variance)
    return msgspec.structs.replace(
        found,
        low=significant(math.exp(centre - half)),
        high=significant(math.exp(centre + half)),
        half_width=round(math.expm1(half), 4),
    )
