"""One side of a comparison: levels of one model and load, gathered from run folders, run by run."""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter, ne
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadbench import figures
from loadbench.metrics import Requests, models, request, window
from loadbench.metrics.level import level_facts
from loadbench.metrics.slo import STREAMED, Objectives, undecided
from loadbench.metrics.window import Window
from loadbench.scenario.bounds import Bound
from loadbench.stats.blocks import SLICES
from loadbench.store import LevelData, Run
from loadbench.store.record import Flags, Reals, Results
from loadbench.store.schema import LevelFacts
from loadbench.store.summary import Ran

Key = tuple[str, str]
"""Model and load."""
Info = Mapping[str, Any]
"""run.json."""


@dataclass(frozen=True, slots=True, eq=False)
class Flow:
    """What flowed in the steady window.

    Attributes:
        per_s: The rate.
        slices: What flowed in each of `SLICES` equal slices of the window; None of a window without slices.
        seconds: Length of the window.
        dependent_s: Mean time of a request in flight: what flows now depends on what flowed so long ago.
    """

    per_s: float
    slices: Reals | None = None
    seconds: float = 0.0
    dependent_s: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """Which of the measured requests did what a share counts, in the order of start.

    Attributes:
        flags: One a request.
        prompts: Ids of their prompts.
        offered: Requests that the share is of, those that were never sent among them; they count as misses.
    """

    flags: Flags
    prompts: list[str]
    offered: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Lap:
    """One level, measured once.

    Attributes:
        run: Name of the run's folder.
        began: When, ISO 8601.
        prompts: Ids of the prompts of the measured requests that completed, in the order of start.
        values: By metric, one value for each of those requests, of times in ms; NaN where undefined.
        due_values: The same of all requests that were due, infinite where one failed or was dropped; empty where all
            completed.
        gaps_ms: Gaps between tokens of those requests, request after request, flat; None where they do not exist.
        gap_sizes: Gaps of each of those requests.
        flows, outcomes: Rates and shares by metric.
        output_tokens: Mean of those requests; None where nobody counted.
        token_source: "usage", "events", "mixed" or None.
        finish_reasons: Of those requests, with their number.
        again: The same level, measured once more at the end of the run; None where it was not.
        model: As the run names it.
        device, execution_provider: What it ran on, as far as the server told.
        info: run.json.
    """

    run: str
    began: str
    prompts: list[str]
    values: Mapping[str, Reals]
    due_values: Mapping[str, Reals] = field(default_factory=dict)
    gaps_ms: Reals | None = None
    gap_sizes: NDArray[np.int64] | None = None
    flows: Mapping[str, Flow] = field(default_factory=dict)
    outcomes: Mapping[str, Outcomes] = field(default_factory=dict)
    output_tokens: float | None = None
    token_source: str | None = None
    finish_reasons: Mapping[str, int] = field(default_factory=dict)
    again: Lap | None = None
    model: str = ""
    device: str | None = None
    execution_provider: str | None = None
    info: Info = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One level of one side, all its runs in the order they began.

    Attributes:
        model: As the runs name it.
        load: The level's load: "c4", "r0.5".
        laps: At least one.
        earlier: The same of runs before, where there is one run: they say how much runs differ, and nothing else.
    """

    model: str
    load: str
    laps: tuple[Lap, ...]
    earlier: tuple[Lap, ...] = ()

    @property
    def runs(self) -> int:
        return len(self.laps)


def interleaved(base: Side, new: Side) -> bool:
    """Whether the runs of both sides took turns (A B, B A, …), so that the i-th of each met the same machine.

    Then they are judged pair by pair; else a drift between the two blocks of runs would pass for a difference of the
    servers in each pair alike.
    """
    if base.runs != new.runs:
        return False
    # The first two runs are a pair, the next two another: A B, B A is one of each side in both.
    order = sorted([(lap.began, 0) for lap in base.laps] + [(lap.began, 1) for lap in new.laps])
    turns = [side for _, side in order]
    return all(map(ne, turns[::2], turns[1::2]))


def sides(runs: Sequence[Run], slo: Sequence[str] | None = None) -> dict[Key, Side]:
    """Everything that some runs measured of each level, by (model, load), in the order it was first begun.

    The load is as the level's id writes it: "c4" of "phi-4-mini@c4#2". Levels that did not run to their end are left
    out, and those in which no request completed. One that repeats the first one at the end of a run stands with that
    (`Lap.again`): it says how much the same level differs from one time to the next.

    Args:
        runs: Run folders of one side, read.
        slo: Bounds of attainment and goodput; each run's own by default.
    """
    gathered: dict[Key, list[Lap]] = defaultdict(list)
    for run in runs:
        own: dict[Key, list[Lap]] = defaultdict(list)
        closing: list[tuple[Key, Lap]] = []
        for data in run.levels:
            if data.facts.get("status") != "complete":
                continue
            found = lap(run, data, slo)
            if found is None:
                continue
            key = found.model, load_of(data.facts.get("id"), found.model)
            if data.facts.get("closing"):
                closing.append(((found.model, key[1].removesuffix("#end")), found))
            else:
                own[key].append(found)
        for key, again in closing:
            if key in own:
                own[key][0] = replace(own[key][0], again=again)
        for key, laps in own.items():
            gathered[key] += laps
    for laps in gathered.values():
        laps.sort(key=attrgetter("began"))
    return {key: Side(*key, tuple(laps)) for key, laps in gathered.items()}


def matched(base: Mapping[Key, Side], new: Mapping[Key, Side]) -> list[tuple[Side, Side]]:
    """The levels that both sides have, of the same model and load, in the order of BASE.

    Where each side has one model and they are called differently, those are matched: that is what is compared.
    """
    models_base, models_new = {model for model, _ in base}, {model for model, _ in new}
    renamed = None
    if len(models_base) == len(models_new) == 1:  # `compare` of two models by hand: two folders of one model each
        [renamed] = models_new
    pairs = []
    for (model, load), side in base.items():
        key = (renamed or model, load)
        if key in new:
            pairs.append((side, new[key]))
    return pairs


def against(found: Mapping[Key, Side], base: str, new: str) -> list[tuple[Side, Side]]:
    """The levels of two models of the same runs, by load."""
    return [(side, found[new, load]) for (model, load), side in found.items() if model == base and (new, load) in found]


def load_of(level_id: str | None, model: str | None) -> str:
    """The load as the level's id writes it, whatever the repeat: "c4" of "phi-4-mini@c4#2"."""
    # A model's name may hold @ and # itself: only the two ends of the id are ours.
    return re.sub(r"#\d+$", "", str(level_id).removeprefix(f"{model}@"))


def lap(run: Run, data: LevelData, slo: Sequence[str] | None = None) -> Lap | None:
    """One level of one run; None where no request completed."""
    facts, results = level_facts(data), data.results
    scenario = run.info.get("scenario") or {}
    streamed = scenario.get("stream") is not False
    requests = Requests.of(results, streamed=streamed)
    completed = np.flatnonzero(requests.population)
    if not len(completed):
        return None
    opened = facts.request_rate_per_s is not None
    burst = (request.burst_share(requests, results) or 0.0) > request.BURST
    times = {**requests.times(opened), "thinking": requests.thinking}
    values = {name: column / 1e6 for name, column in times.items()} | requests.rates(results, facts.round_trip_ms)
    if burst:  # tokens that came in one burst have no time of their own (V13)
        for name in STREAMED:
            values.pop(name, None)
    due: dict[str, Reals] = {}
    # Where all completed, the values are of all that was due, and no second column is kept.
    failed = requests.measured & ~requests.completed & ~requests.cancelled
    if facts.dropped or failed.any():
        due = request.due_times(requests, facts.dropped or 0, opened)
        if burst:
            due.pop("tpot", None)
    gaps_ms = gap_sizes = None
    if streamed and not burst and data.gaps_kept:
        sizes = np.diff(results.gap_offsets)
        gaps_ms = results.gaps_us[np.repeat(requests.population, sizes)] / 1e3
        gap_sizes = sizes[completed]
    without = undecided(requests, results, gaps_kept=data.gaps_kept, burst=burst)
    if slo is None:
        slo = scenario.get("slo") or ()
    objectives = Objectives(list(map(Bound.parse, slo)), results, requests, facts.offered, opened, without)
    sent = np.flatnonzero(requests.measured)
    prompts = [results.prompt[row] for row in sent]
    outcomes = {"failed": Outcomes(failed[sent], prompts)}
    good = objectives.good()
    if good is not None:
        outcomes["attainment"] = Outcomes(good[sent], prompts, facts.offered)
    tokens = requests.tokens[completed]
    output_tokens = None if np.isnan(tokens).all() else float(np.nanmean(tokens))
    reasons = Counter(results.finish_reason[row] or "none" for row in completed)
    ran = models.what_ran(run.info).get(str(facts.model)) or Ran()
    return Lap(
        run=run.path.name,
        began=facts.began or "",
        prompts=[results.prompt[row] for row in completed],
        values={name: column[completed] for name, column in values.items()},
        due_values={name: column / 1e6 for name, column in due.items()},
        gaps_ms=gaps_ms,
        gap_sizes=gap_sizes,
        flows=_flows(facts, results, requests, objectives),
        outcomes=outcomes,
        output_tokens=output_tokens,
        token_source=request.token_source(requests),
        finish_reasons=dict(sorted(reasons.items())),
        model=str(facts.model),
        device=ran.device or facts.device,
        execution_provider=ran.execution_provider or facts.execution_provider,
        info=run.info,
    )


def _flows(facts: LevelFacts, results: Results, requests: Requests, objectives: Objectives) -> dict[str, Flow]:
    """What flowed in the steady window and in its slices, counted as the report counts it."""
    steady = window.steady(facts, results)
    rates = window.throughput(steady, results, requests)
    if steady is None or rates.requests_per_s is None:
        return {}
    good = objectives.good()
    slices: dict[str, list[float]] = defaultdict(list)
    edges = np.linspace(steady.start_ns, steady.end_ns, SLICES + 1)
    for start_ns, end_ns in itertools.pairwise(edges.tolist()):
        piece = Window(start_ns, end_ns, steady.by_share)
        done = piece.counts(results.sent, results.last_token)
        if requests.streamed:
            output = window.arrived(piece, results, requests)
            read = piece.holds(results.first_token).astype(np.float64)
        else:  # nothing of a whole answer is seen to arrive before all of it is there
            output = read = done
        slices["output_tokens_per_s"].append(float(np.nansum(output * requests.tokens)))
        slices["characters_per_s"].append(float((output * results.characters).sum()))
        slices["input_tokens_per_s"].append(float(np.nansum(read * results.input_tokens)))
        slices["requests_per_s"].append(float(done[requests.completed].sum()))
        slices["goodput"].append(0.0 if good is None else float(done[good].sum()))
    dependent_s = float(np.nanmean(requests.in_flight[requests.population])) / 1e9
    flows = {}
    for one in figures.of("verdict"):
        if one.values or one.is_median or one.unit == "share":
            continue
        if one.key == "goodput":
            per_s = objectives.goodput_per_s(steady)
        else:
            per_s = getattr(rates, one.key)
        amounts = np.array(slices[one.key]) if one.key in slices else None
        if per_s is not None:
            flows[one.key] = Flow(per_s, amounts, steady.length_s, dependent_s)
    return flows
