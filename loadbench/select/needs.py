"""What each candidate's figures are at one load, with their intervals, and whether they meet the requirements."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from loadbench import figures as declarations
from loadbench import stats
from loadbench.compare import Lap
from loadbench.compare.sides import Reals
from loadbench.figures import PERCENTILES, Named
from loadbench.scenario.bounds import Bound, Need
from loadbench.select.candidates import Candidate, Passed, Rating

COMPARED = (
    *("ttft_p95", "e2e_mean", "characters_per_s", "output_tokens_per_s", "quality", "rules", "memory", "disk"),
    *("energy", "cost", "licence"),
)
"""The names of the figures that a choice can rest on, in the order of its tables."""
_POINTS: Mapping[str, float] = {"points": 1.0, "share": 4.0, "word": 4.0}
"""Units whose values are held against each other by their difference on a scale of five, and how many points of that
one unit of the figure is. The others are held against each other by their ratio."""


def declared(name: str) -> Named:
    """What `figures` declares of a figure, whoever has it."""
    found = declarations.named(name)
    if found is None:
        raise KeyError(name)
    return found


def unit(name: str) -> str:
    """As a choice's record has it; "" of words."""
    found = declared(name).figure.unit
    return "" if found == "word" else found


def points(name: str) -> float | None:
    """How many points of a scale of five one unit of the figure is; None of figures that compare by their ratio."""
    return _POINTS.get(declared(name).figure.unit)


def is_speed(name: str) -> bool:
    """Whether it comes from how fast a run went: such figures of one run rise and fall together."""
    return declared(name).figure.unit in ("ms", "/s", "J", "currency")


# -- one figure over several runs


@dataclass(frozen=True, slots=True)
class Part:
    """A figure of one run, with its interval within that run; None where too few requests hold one."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int = 0


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of one candidate over its runs.

    Attributes:
        value: Of several runs the geometric mean.
        low, high: Its 95 % interval; None where there is none.
        n: Requests (prompts, of scores) behind it; 0 where it is no statistic.
        runs: Measurements of it.
        source: Where it comes from, in words; "" where its name says it all.
    """

    value: float
    low: float | None = None
    high: float | None = None
    n: int = 0
    runs: int = 1
    source: str = ""


Figures = dict[str, Figure]
"""By the name of the candidate; without those that nobody measured."""


def combined(parts: Mapping[str, Sequence[Part]]) -> Figures:
    """One figure a candidate from its runs, by the candidate's name; candidates without a run that has it are left out.

    What runs differ by is learned from all candidates that were measured several times, and holds for those that were
    measured once, too: one run says nothing of it. An interval is never narrower than those within the runs allow.

    >>> pair = combined({"a": [Part(100.0, 90.0, 110.0), Part(121.0, 110.0, 130.0)], "b": [Part(50.0, 48.0, 52.0)]})
    >>> round(pair["a"].value), pair["b"].low < 40 < pair["a"].low
    (110, False)
    """
    logs: dict[str, list[float]] = {}
    for name, some in parts.items():
        if some and all(part.value > 0 for part in some):  # else there is no logarithm
            logs[name] = [math.log(part.value) for part in some]
    freedom = sum(len(values) - 1 for values in logs.values())
    squares = math.fsum(math.fsum(_squares(values)) for values in logs.values())
    between = squares / freedom if freedom else 0.0
    found = {}
    for name, values in logs.items():
        some, k = parts[name], len(values)
        centre = math.fsum(values) / k
        spread = stats.student(freedom) * math.sqrt(between / k) if freedom else 0.0
        within = _within(some, values)
        low = high = None
        if within is not None or k > 1:
            down, up = within or (0.0, 0.0)
            low = _significant(math.exp(centre - max(down, spread)))
            high = _significant(math.exp(centre + max(up, spread)))
        value = math.exp(centre) if k > 1 else some[0].value
        found[name] = Figure(value, low, high, n=sum(part.n for part in some), runs=k)
    return found


def _squares(values: Sequence[float]) -> Iterable[float]:
    mean = math.fsum(values) / len(values)
    return ((value - mean) ** 2 for value in values)


def _within(some: Sequence[Part], values: Sequence[float]) -> tuple[float, float] | None:
    """How far down and up the mean of logarithms may lie by what is measured within the runs."""
    down = up = 0.0
    for part, value in zip(some, values, strict=True):
        if part.low is None or part.high is None or not part.low > 0:
            return None
        down += (value - math.log(part.low)) ** 2
        up += (math.log(part.high) - value) ** 2
    return math.sqrt(down) / len(some), math.sqrt(up) / len(some)


def _significant(value: float) -> float:
    return float(f"{value:.6g}")


# -- figures at a load: times and rates from the requests, the rest from the levels


def figures(candidates: Sequence[Candidate], load: str) -> dict[str, Figures]:
    """By the name of the figure (COMPARED, licences apart), what was measured of each candidate."""
    return {
        "ttft_p95": of_times(candidates, load, "ttft", "p95"),
        "e2e_mean": of_times(candidates, load, "e2e", "mean"),
        "characters_per_s": of_rates(candidates, load, "characters_per_s"),
        "output_tokens_per_s": of_rates(candidates, load, "output_tokens_per_s"),
        "quality": _qualities(candidates),
        "rules": _each(candidates, lambda one: _over_runs([row.checks for _, row in one.scores])),
        "memory": _each(candidates, lambda one: _memory(one, load)),
        "disk": _each(candidates, _disk),
        "energy": _per_characters(candidates, load, "j_per_1000_tokens"),
        "cost": _per_characters(candidates, load, "cost_per_1000_tokens"),
    }


def _each(candidates: Sequence[Candidate], read: Callable[[Candidate], Figure | None]) -> Figures:
    found = {one.name: read(one) for one in candidates}
    return {name: figure for name, figure in found.items() if figure is not None}


def of_times(
    candidates: Sequence[Candidate], load: str, metric: str, statistic: str, *, with_failures: bool = False
) -> Figures:
    """A percentile, the mean or the longest of a time, in ms.

    Args:
        with_failures: Requests that failed or were dropped count as without end, so that a figure may be infinite.
    """
    finite: dict[str, list[Part]] = {}
    endless: Figures = {}
    for one in candidates:
        parts = [_part(lap, metric, statistic, with_failures) for lap in _laps(one, load)]
        some = [part for part in parts if part is not None]
        if len(some) < len(parts):
            continue
        if any(math.isinf(part.value) for part in some):
            lows = [part.low for part in some if part.low is not None]
            low = min(lows) if len(lows) == len(some) else None
            endless[one.name] = Figure(math.inf, low, math.inf, n=sum(part.n for part in some), runs=len(some))
        else:
            finite[one.name] = some
    return {**combined(finite), **endless}


def _laps(one: Candidate, load: str) -> Sequence[Lap]:
    side = one.sides.get(load)
    return side.laps if side else ()


def _part(lap: Lap, metric: str, statistic: str, with_failures: bool) -> Part | None:
    values = lap.gaps_ms if metric == "itl" else lap.values.get(metric)
    if with_failures and lap.due_values:
        values = _with_failures(lap, metric, values)
    values = np.zeros(0) if values is None else values[~np.isnan(values)]
    if not len(values):
        return None
    if statistic == "mean":
        endless = bool(np.isinf(values).any())
        bounds = None if metric == "itl" or endless else stats.mean_interval(values)
        return _bounded(float(values.mean()), bounds, len(values))
    if statistic == "max":
        return Part(float(values.max()), n=len(values))
    p = PERCENTILES[statistic]
    value = stats.percentile(np.sort(values), p)
    bounds = stats.percentile_interval(values, p) if metric != "itl" else None
    return None if value is None else _bounded(float(value), bounds, len(values))


def _with_failures(lap: Lap, metric: str, values: Reals | None) -> Reals | None:
    """All that was due: a request that failed counts for as many endless gaps as one that completed has."""
    if metric != "itl" or values is None:
        return lap.due_values.get(metric, values)
    missing = int(np.isinf(lap.due_values["e2e"]).sum())
    each = max(1, round(len(values) / max(1, len(lap.prompts))))
    return np.append(values, np.full(missing * each, np.inf))


def _bounded(value: float, bounds: stats.Bounds | None, n: int) -> Part:
    low, high = bounds or (None, None)
    return Part(value, low, high, n)


def of_rates(candidates: Sequence[Candidate], load: str, metric: str) -> Figures:
    """What flowed in the steady window, per second."""
    return combined({one.name: _rate_parts(_laps(one, load), metric) for one in candidates})


def _rate_parts(laps: Sequence[Lap], metric: str) -> list[Part]:
    """A part a run; none where a run has no such rate."""
    found = []
    for lap in laps:
        flow = lap.flows.get(metric)
        if flow is None or not flow.per_s > 0:
            return []
        bounds = None
        if flow.slices is not None:
            bounds = stats.rate_interval(flow.slices, flow.seconds, flow.dependent_s)
        if bounds is not None and flow.slices is not None:
            # The slices spread what arrives evenly over each request; the rate itself does not.
            off = flow.per_s - float(flow.slices.sum()) / flow.seconds
            bounds = max(0.0, bounds[0] + off), bounds[1] + off
        found.append(_bounded(flow.per_s, bounds, len(lap.prompts)))
    return found


def of_shares(candidates: Sequence[Candidate], load: str, figure: declarations.Figure) -> Figures:
    """A share of requests, as those that failed of those that were sent, over all runs."""
    hits, of = figure.counts or ("", "")

    def read(one: Candidate) -> Figure | None:
        levels = one.levels.get(load, ())
        counts = [(level[hits], level[of]) for level in levels if level.get(hits) is not None and level.get(of)]
        if not counts:
            return None
        hit, n = sum(hit for hit, _ in counts), sum(n for _, n in counts)
        worth = _worth(_laps(one, load))
        low, high = stats.wilson(hit * worth, n * worth) or (None, None)
        return Figure(hit / n, low, high, n, runs=len(counts))

    return _each(candidates, read)


def _worth(laps: Sequence[Lap]) -> float:
    """How many independent requests one of these is worth: failures come together."""
    flags = [lap.outcomes["failed"].flags for lap in laps if "failed" in lap.outcomes]
    n = sum(map(len, flags))
    return sum(map(stats.independent_flags, flags)) / n if n else 1.0


def of_levels(candidates: Sequence[Candidate], load: str, figure: declarations.Figure) -> Figures:
    """A figure of summary.json's levels that has no interval of its own."""
    parts: dict[str, list[Part]] = {}
    for one in candidates:
        values = [figure.read(level) for level in one.levels.get(load, ())]
        parts[one.name] = [Part(float(value)) for value in values if value is not None]
    return combined(parts)


def _memory(one: Candidate, load: str) -> Figure | None:
    """The largest over the runs of what the server's processes held, on the GPU too where the driver tells theirs."""
    most, source, runs = 0.0, None, 0
    for level in one.levels.get(load, ()):
        resident, gpu = level.get("server_memory_peak_bytes"), level.get("gpu_memory_peak_bytes")
        if resident is None:
            continue
        runs += 1
        if resident + (gpu or 0) > most:
            most, source = resident + (gpu or 0), level.get("gpu_memory_source") if gpu else None
    if not runs:
        return None
    words = "resident" if source is None else "resident and on the GPU"
    if source == "device":
        words += ", where others may hold some too"
    return Figure(float(most), runs=runs, source=words)


def _disk(one: Candidate) -> Figure | None:
    sources = {
        "disk_bytes": "as the server tells" if one.facts.get("disk_source") == "server" else "of its files",
        "size_bytes": "as the server lists it",
        "told_bytes": "as models.json says",
    }
    for fact, source in sources.items():
        if one.facts.get(fact):
            return Figure(float(one.facts[fact]), source=source)
    return None


def _per_characters(candidates: Sequence[Candidate], load: str, per_tokens: str) -> Figures:
    """Energy or cost of 1,000 characters: models cut text into tokens differently."""
    parts: dict[str, list[Part]] = {}
    sources: dict[str, str] = {}
    for one in candidates:
        for level in one.levels.get(load, ()):
            tokens, characters = (level.get("output_tokens") or {}).get("total"), level.get("characters")
            if level.get(per_tokens) and tokens and characters:
                parts.setdefault(one.name, []).append(Part(level[per_tokens] * tokens / characters))
                sources[one.name] = str(level.get("energy_source"))
    return {name: replace(figure, source=sources[name]) for name, figure in combined(parts).items()}


def _qualities(candidates: Sequence[Candidate]) -> Figures:
    """The scores, where all runs were scored by one method: others do not compare."""
    methods = scoring_methods(candidates)
    if len(methods) != 1:
        return {}
    scores = _each(candidates, lambda one: _over_runs([row.score for _, row in one.scores]))
    return {name: replace(figure, source=f"by {next(iter(methods))}") for name, figure in scores.items()}


def scoring_methods(candidates: Sequence[Candidate]) -> set[str | None]:
    """The methods by which their runs were scored: by hand, by which judge."""
    methods: set[str | None] = set()
    for one in candidates:
        methods.update(method for method, row in one.scores if row.score)
    return methods


def _over_runs(rows: Iterable[Rating | Passed | None]) -> Figure | None:
    """The mean over the runs; their prompts are the same, so that more runs make the interval no narrower."""
    some = [row for row in rows if row is not None]
    if not some:
        return None
    values = [row.mean if isinstance(row, Rating) else row.pass_rate for row in some]
    intervals = [row.ci95 for row in some if row.ci95 is not None]
    low = high = None
    if len(intervals) == len(some):
        low, high = (_mean([interval[end] for interval in intervals]) for end in (0, 1))
    return Figure(_mean(values), low, high, n=max(row.n for row in some), runs=len(some))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def licence(one: Candidate) -> str | None:
    """The licence as it is listed, in lower case; None where nobody says.

    >>> licence(Candidate("m", "m", None, None, None, None, {"licence": "Apache-2.0"}))
    'apache-2.0'
    """
    listed = one.facts.get("licence")
    return str(listed).strip().lower() or None if listed else None


# -- requirements

Outcome = Literal["met", "missed", "unknown"]


@dataclass(frozen=True, slots=True)
class Met:
    """Whether a candidate meets a need.

    Attributes:
        need: As written.
        name: The figure.
        outcome: By the figure itself.
        sure: Whether the interval lies on one side of the bound; None where there is no interval to tell.
        value: In the figure's unit, or the word.
        low, high: The interval.
        unit: As of the Need.
    """

    need: str
    name: str
    outcome: Outcome
    sure: bool | None
    value: float | str | None
    low: float | None = None
    high: float | None = None
    unit: str = ""


def met(need: Need, candidates: Sequence[Candidate], load: str, measured: Mapping[str, Figures]) -> dict[str, Met]:
    """By candidate, whether it meets a need at a load.

    Args:
        measured: The figures that are at hand (`figures`).
    """
    if need.bound is None:
        return {one.name: _of_word(need, one) for one in candidates}
    found = measured.get(need.name) if need.bound.statistic is None else None
    if found is None:
        found = _of_bound(need.bound, candidates, load)
    return {one.name: _of_figure(need, need.bound, found.get(one.name)) for one in candidates}


def _of_bound(bound: Bound, candidates: Sequence[Candidate], load: str) -> Figures:
    if bound.statistic is not None:
        return of_times(candidates, load, bound.metric, bound.statistic, with_failures=True)
    if bound.figure.counts is not None:
        return of_shares(candidates, load, bound.figure)
    # The goodput of a run is that of its own SLO, which summary.json has counted.
    if bound.figure.unit == "/s" and "verdict" in bound.figure.doors and bound.metric != "goodput":
        return of_rates(candidates, load, bound.metric)
    return of_levels(candidates, load, bound.figure)


def _of_word(need: Need, one: Candidate) -> Met:
    word = {"licence": licence(one), "model": one.model, "device": one.device}[need.name]
    if word is None:
        return Met(need.text, need.name, "unknown", sure=None, value=None)
    good = word.lower() in need.words
    if need.name == "device":  # "cpu+gpu" runs on the first of both
        good = good or word.lower().split("+")[0] in need.words
    return Met(need.text, need.name, "met" if good else "missed", sure=True, value=word)


def _of_figure(need: Need, bound: Bound, figure: Figure | None) -> Met:
    if figure is None:
        return Met(need.text, need.name, "unknown", sure=None, value=None, unit=need.unit)
    holds = bound.holds(figure.value)
    sure = None
    if figure.low is not None and figure.high is not None:
        sure = bound.holds(figure.low) == bound.holds(figure.high) == holds
    elif need.unit == "bytes":
        sure = True  # not a statistic: there is nothing to be unsure of
    return Met(
        need=need.text,
        name=need.name,
        outcome="met" if holds else "missed",
        sure=sure,
        value=figure.value,
        low=figure.low,
        high=figure.high,
        unit=need.unit,
    )
