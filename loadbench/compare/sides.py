"""One side of a comparison: levels of one model and load, gathered from run folders, run by run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadbench import stats
from loadbench.compare.figures import keys
from loadbench.metrics import Requests, models, request, window
from loadbench.metrics.level import level_facts
from loadbench.metrics.slo import STREAMED, WHOLE, Objectives
from loadbench.metrics.window import Window
from loadbench.scenario.bounds import Bound
from loadbench.store import LevelData, Run
from loadbench.store.record import Results
from loadbench.store.schema import LevelFacts
from loadbench.store.summary import Ran

Reals = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Flow:
    """What flowed in the steady window.

    Attributes:
        per_s: The rate.
        slices: What flowed in each of `intervals.SLICES` equal slices of the window; None of a window without slices.
        seconds: Length of the window.
        dependent_s: Mean time of a request in flight: what flows now depends on what flowed so long ago.
    """

    per_s: float
    slices: Reals | None = None
    seconds: float = 0.0
    dependent_s: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """Which requests of those that were measured did what a share counts, in the order of start.

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
        values: By metric (`figures.DURATIONS`), one value in ms for each of those requests; NaN where undefined.
        due_values: The same of all requests that were due, infinite where one failed or was dropped; empty where all
            completed.
        gaps_ms: Gaps between tokens of those requests, request after request, flat; None where they do not exist.
        gap_sizes: Gaps of each of those requests.
        flows: By metric (`figures.RATES`).
        outcomes: By metric (`figures.SHARES`).
        output_tokens: Mean of those requests; None where nobody counted.
        token_source: "usage", "events", "mixed" or None.
        finish_reasons: Of those requests, with their number.
        again: The same level, measured once more at the end of the run; None where it was not.
        model: As the run names it.
        device, execution_provider: That it ran on, as far as is known.
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
    info: Mapping[str, Any] = field(default_factory=dict)


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
    order = sorted([(lap.began, 0) for lap in base.laps] + [(lap.began, 1) for lap in new.laps])
    return all(first[1] != second[1] for first, second in zip(order[::2], order[1::2], strict=True))


_REPEAT = re.compile(r"#\d+$")
_CLOSING = re.compile(r"#end$")


def sides(runs: Sequence[Run], slo: Sequence[str] | None = None) -> dict[tuple[str, str], Side]:
    """Everything that some runs measured of each level, by (model, load), in the order it was first begun.

    The load is as the level's id writes it: "c4" of "phi-4-mini@c4#2". Levels that did not run to their end are left
    out, and those in which no request completed. One that repeats the first one at the end of a run stands with that
    (`Lap.again`): it says how much the same level differs from one time to the next.

    Args:
        runs: Run folders of one side, read.
        slo: Bounds of attainment and goodput; each run's own by default.
    """
    gathered: dict[tuple[str, str], list[Lap]] = {}
    for run in runs:
        own: dict[tuple[str, str], list[Lap]] = {}
        for data in sorted(run.levels, key=lambda one: bool(one.facts.get("closing"))):
            found = lap(run, data, slo) if data.facts.get("status") == "complete" else None
            if found is None:
                continue
            laps = own.setdefault((found.model, _CLOSING.sub("", load_of(data.facts))), [])
            if not data.facts.get("closing"):
                laps.append(found)
            elif laps:
                laps[0] = replace(laps[0], again=found)
        for key, laps in own.items():
            if laps:
                gathered.setdefault(key, []).extend(laps)
    return {key: Side(*key, tuple(sorted(laps, key=lambda one: one.began))) for key, laps in gathered.items()}


def matched(base: Mapping[tuple[str, str], Side], new: Mapping[tuple[str, str], Side]) -> list[tuple[Side, Side]]:
    """The levels that both sides have, of the same model and load, in the order of BASE.

    Where each side has one model and they are called differently, those are matched: that is what is compared.
    """
    pairs = [(side, new[key]) for key, side in base.items() if key in new]
    names = [{model for model, _ in side} for side in (base, new)]
    if pairs or any(len(models) != 1 for models in names):
        return pairs
    other = {load: side for (_, load), side in new.items()}
    return [(side, other[load]) for (_, load), side in base.items() if load in other]


def against(found: Mapping[tuple[str, str], Side], base: str, new: str) -> list[tuple[Side, Side]]:
    """The levels of two models of the same runs, by load."""
    return [(side, found[new, load]) for (model, load), side in found.items() if model == base and (new, load) in found]


def lap(run: Run, data: LevelData, slo: Sequence[str] | None = None) -> Lap | None:
    """One level of one run; None where no request completed."""
    facts, results = level_facts(data), data.results
    scenario = run.info.get("scenario") or {}
    streamed = scenario.get("stream") is not False
    requests = Requests.of(results, streamed=streamed)
    chosen = np.flatnonzero(requests.population)
    if not len(chosen):
        return None
    opened = facts.request_rate_per_s is not None
    burst = (request.burst_share(requests, results) or 0.0) > request.BURST
    tokens = requests.tokens[chosen]
    ran = models.what_ran(run.info).get(str(facts.model)) or Ran()
    values = {
        "ttft": requests.ttft_from_due if opened else requests.ttft,
        "tpot": np.full(len(results), np.nan) if burst else requests.tpot,
        "e2e": requests.e2e,
        "client_queue": requests.client_queue,
    }
    dropped = facts.dropped or 0
    due = request.due_times(requests, dropped, opened) if dropped or _any_failed(requests) else {}
    has_gaps = streamed and not burst and data.gaps_kept
    sizes = np.diff(results.gap_offsets)
    reasons = Counter(results.finish_reason[row] or "none" for row in chosen)
    undecided = WHOLE if not streamed else STREAMED if burst else () if data.gaps_kept else ("itl",)
    bounds = [Bound.parse(text) for text in (slo if slo is not None else scenario.get("slo") or ())]
    objectives = Objectives(bounds, results, requests, facts.offered, opened, undecided)
    return Lap(
        run=run.path.name,
        began=facts.began or "",
        prompts=[results.prompt[row] for row in chosen],
        values={name: column[chosen] / 1e6 for name, column in values.items()},
        due_values={name: column / 1e6 for name, column in due.items() if name != "tpot" or not burst},
        gaps_ms=results.gaps_us[np.repeat(requests.population, sizes)] / 1e3 if has_gaps else None,
        gap_sizes=sizes[chosen] if has_gaps else None,
        flows=_flows(facts, results, requests, objectives),
        outcomes=_outcomes(results, requests, objectives, facts.offered),
        output_tokens=None if np.isnan(tokens).all() else float(np.nanmean(tokens)),
        token_source=request.token_source(requests),
        finish_reasons=dict(sorted(reasons.items())),
        model=str(facts.model),
        device=ran.device or facts.device,
        execution_provider=ran.execution_provider or facts.execution_provider,
        info=run.info,
    )


def _any_failed(requests: Requests) -> bool:
    return bool((requests.measured & ~requests.completed & ~requests.cancelled).any())


def load_of(facts: Mapping[str, Any]) -> str:
    """The load as the level's id writes it, whatever the repeat: "c4" of "phi-4-mini@c4#2"."""
    name = str(facts.get("id"))
    return _REPEAT.sub("", name.removeprefix(f"{facts.get('model')}@"))


def _flows(facts: LevelFacts, results: Results, requests: Requests, objectives: Objectives) -> dict[str, Flow]:
    """What flowed in the steady window and in its slices, counted as the report counts it."""
    steady = window.steady(facts, results)
    rates = window.throughput(steady, results, requests)
    good = objectives.good()
    goodput = objectives.goodput_per_s(steady)
    if steady is None or rates.requests_per_s is None:
        return {}
    edges = np.linspace(steady.start_ns, steady.end_ns, stats.SLICES + 1)
    pieces = [Window(*ends, steady.by_share) for ends in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)]
    amounts = [_amounts(piece, results, requests, good) for piece in pieces]
    stays = requests.in_flight[requests.population]
    dependent_s = float(np.nanmean(stays)) / 1e9
    flows = {}
    for name in keys("rate"):
        per_s = goodput if name == "goodput" else getattr(rates, name)
        if per_s is not None:
            slices = np.array([amount[name] for amount in amounts]) if name in amounts[0] else None
            flows[name] = Flow(per_s, slices, steady.length_s, dependent_s)
    return flows


def _amounts(piece: Window, results: Results, requests: Requests, good: Flags | None) -> dict[str, float]:
    done = piece.counts(results.sent, results.last_token)
    output = window.arrived(piece, results, requests) if requests.streamed else done
    read = piece.holds(results.first_token) if requests.streamed else done
    return {
        "output_tokens_per_s": float(np.nansum(output * requests.tokens)),
        "characters_per_s": float((output * results.characters).sum()),
        "input_tokens_per_s": float(np.nansum(read * results.input_tokens)),
        "requests_per_s": float(done[requests.completed].sum()),
        "goodput": float(done[good].sum()) if good is not None else 0.0,
    }


def _outcomes(results: Results, requests: Requests, objectives: Objectives, offered: int | None) -> dict[str, Outcomes]:
    """Failed, of the requests that were sent; attainment, of all that were offered."""
    sent = np.flatnonzero(requests.measured)
    names = [results.prompt[row] for row in sent]
    found = {"failed": Outcomes(~(requests.completed | requests.cancelled)[sent], names)}
    good = objectives.good()
    if good is not None:
        found["attainment"] = Outcomes(good[sent], names, offered)
    return found
