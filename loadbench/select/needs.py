"""What each candidate's figures are at one load, with their intervals, and whether they meet the requirements."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

import numpy as np

from loadbench import figures as declarations
from loadbench import stats
from loadbench.compare import Lap
from loadbench.figures import PERCENTILES, Named
from loadbench.scenario.bounds import Bound, Need
from loadbench.select.candidates import Candidate, Passed, Rating
from loadbench.stats.blocks import independent_flags, mean_interval, percentile_interval, rate_interval
from loadbench.stats.shares import wilson
from loadbench.store.record import Reals
from loadbench.store.summary import NOTHING, significant

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
    if found == "word":
        return ""
    return found


def points(name: str) -> float | None:
    """How many points of a scale of five one unit of the figure is; None of figures that compare by their ratio."""
    return _POINTS.get(declared(name).figure.unit)


def is_speed(name: str) -> bool:
    """Whether it comes from how fast a run went: such figures of one run rise and fall together."""
    return declared(name).figure.unit in ("ms", "/s", "J", "currency")


# -- one figure over several runs


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of one candidate, of one run or over its runs.

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
"""By the name of the candidate; without those that were not measured."""


def combined(parts: Mapping[str, Sequence[Figure]]) -> Figures:
    """One figure a candidate from its runs, by the candidate's name; candidates without a run that has it are left out.

    What runs differ by is learned from all candidates that were measured several times, and holds for those that were
    measured once, too: one run says nothing of it. An interval is never narrower than those within the runs allow.

    >>> runs = {"a": [Figure(100.0, 90.0, 110.0), Figure(121.0, 110.0, 130.0)], "b": [Figure(50.0, 48.0, 52.0)]}
    >>> pair = combined(runs)
    >>> round(pair["a"].value), pair["b"].low < 40 < pair["a"].low
    (110, False)
    """
    logs: dict[str, list[float]] = {}
    freedom, squares = 0, []
    for name, some in parts.items():
        if min((part.value for part in some), default=0.0) <= 0:
            continue  # there is no logarithm
        logs[name] = [math.log(part.value) for part in some]
        centre = math.fsum(logs[name]) / len(some)
        freedom += len(some) - 1
        squares += [(log - centre) ** 2 for log in logs[name]]
    between = math.fsum(squares) / max(freedom, 1)
    found = {}
    for name, values in logs.items():
        some, k = parts[name], len(values)
        centre = math.fsum(values) / k
        spread = stats.student(max(freedom, 1)) * math.sqrt(between / k)
        # How far down and up the mean of the logarithms may lie by what is measured within the runs.
        down = up = 0.0
        has_intervals = True
        for part, log in zip(some, values, strict=True):
            if part.low is None or part.high is None or not part.low > 0:
                has_intervals, down, up = False, 0.0, 0.0
                break
            down += (log - math.log(part.low)) ** 2
            up += (math.log(part.high) - log) ** 2
        low = high = None
        if has_intervals or k > 1:
            low = significant(math.exp(centre - max(math.sqrt(down) / k, spread)))
            high = significant(math.exp(centre + max(math.sqrt(up) / k, spread)))
        value = math.exp(centre) if k > 1 else some[0].value
        found[name] = Figure(value, low, high, n=sum(part.n for part in some), runs=k)
    return found


# -- figures at a load: times and rates from the requests, the rest from the levels


def figures(candidates: Sequence[Candidate], load: str) -> dict[str, Figures]:
    """By the name of the figure (COMPARED, licences apart), what was measured of each candidate."""
    # Scores of two methods do not compare.
    methods = scoring_methods(candidates)
    qualities: Figures = {}
    if len(methods) == 1:
        source = f"by {next(iter(methods))}"
        qualities = _each(candidates, lambda one: _over_runs([row.score for _, row in one.scores], source))
    return {
        "ttft_p95": of_times(candidates, load, "ttft", "p95"),
        "e2e_mean": of_times(candidates, load, "e2e", "mean"),
        "characters_per_s": of_rates(candidates, load, "characters_per_s"),
        "output_tokens_per_s": of_rates(candidates, load, "output_tokens_per_s"),
        "quality": qualities,
        "rules": _each(candidates, lambda one: _over_runs([row.checks for _, row in one.scores])),
        "memory": _each(candidates, lambda one: _memory(one, load)),
        "disk": _each(candidates, _disk),
        "energy": _per_characters(candidates, load, "j_per_1000_tokens"),
        "cost": _per_characters(candidates, load, "cost_per_1000_tokens"),
    }


def _each(candidates: Sequence[Candidate], read: Callable[[Candidate], Figure | None]) -> Figures:
    found = {}
    for one in candidates:
        figure = read(one)
        if figure is not None:
            found[one.name] = figure
    return found


def of_times(
    candidates: Sequence[Candidate], load: str, metric: str, statistic: str, *, with_failures: bool = False
) -> Figures:
    """A percentile, the mean or the longest of a time, in ms; of a speed in tokens per second.

    Args:
        with_failures: Requests that failed or were dropped count as without end, so that a figure may be infinite.
    """
    finite: dict[str, list[Figure]] = {}
    endless: Figures = {}
    for one in candidates:
        laps = one.laps(load)
        some: list[Figure] = []
        for lap in laps:
            values = _times(lap, metric, with_failures)
            if len(values):
                some.append(_of_run(values, metric, statistic))
        if len(some) < len(laps):  # a mean over some of the runs would be of another thing than that of the others
            continue
        if math.inf not in [part.value for part in some]:
            finite[one.name] = some
            continue
        lows = [part.low for part in some if part.low is not None]
        low = min(lows) if len(lows) == len(some) else None
        endless[one.name] = Figure(math.inf, low, math.inf, n=sum(part.n for part in some), runs=len(some))
    return {**combined(finite), **endless}


def _times(lap: Lap, metric: str, with_failures: bool) -> Reals:
    due = lap.due_values if with_failures else {}
    if metric == "itl":
        values = lap.gaps_ms
        if due and values is not None:
            # A request that failed counts for as many endless gaps as one that completed has.
            missing = int(np.isinf(due["e2e"]).sum())
            each = max(1, round(len(values) / max(1, len(lap.prompts))))
            values = np.append(values, np.full(missing * each, np.inf))
    else:
        values = due.get(metric, lap.values.get(metric))
    if values is None:
        return np.zeros(0)
    return values[~np.isnan(values)]


def _of_run(values: Reals, metric: str, statistic: str) -> Figure:
    if statistic == "max":
        return Figure(float(values.max()), n=len(values))
    bounds = None  # gaps of one request resemble each other: no interval here is theirs
    if statistic == "mean":
        value = float(values.mean())
        if metric != "itl" and not math.isinf(value):
            bounds = mean_interval(values)
    else:
        value = stats.percentile(np.sort(values), PERCENTILES[statistic]) or 0.0
        if metric != "itl":
            bounds = percentile_interval(values, PERCENTILES[statistic])
    low, high = bounds or (None, None)
    return Figure(value, low, high, len(values))


def of_rates(candidates: Sequence[Candidate], load: str, metric: str) -> Figures:
    """What flowed in the steady window, per second; of a candidate none where one of its runs has no such rate."""
    parts: dict[str, list[Figure]] = {}
    for one in candidates:
        some: list[Figure] = []
        for lap in one.laps(load):
            flow = lap.flows.get(metric)
            if flow is None or not flow.per_s > 0:
                some = []
                break
            low = high = None
            if flow.slices is not None:
                bounds = rate_interval(flow.slices, flow.seconds, flow.dependent_s)
                if bounds is not None:
                    # The slices spread what arrives evenly over each request; the rate itself does not.
                    off = flow.per_s - float(flow.slices.sum()) / flow.seconds
                    low, high = max(0.0, bounds[0] + off), bounds[1] + off
            some.append(Figure(flow.per_s, low, high, len(lap.prompts)))
        parts[one.name] = some
    return combined(parts)


def of_shares(candidates: Sequence[Candidate], load: str, figure: declarations.Figure) -> Figures:
    """A share of requests, as failed of sent, over all runs."""
    hits, of = figure.counts or ("", "")

    def read(one: Candidate) -> Figure | None:
        hit = n = runs = 0
        for level in one.levels.get(load, ()):
            if getattr(level, hits) is not None and getattr(level, of):
                hit, n, runs = hit + getattr(level, hits), n + getattr(level, of), runs + 1
        if not runs:
            return None
        flags = [lap.outcomes["failed"].flags for lap in one.laps(load) if "failed" in lap.outcomes]
        counted, worth = sum(map(len, flags)), 1.0
        if counted:
            # Failures come together: one request is worth this many independent ones.
            worth = sum(map(independent_flags, flags)) / counted
        low, high = wilson(hit * worth, n * worth) or (None, None)
        return Figure(hit / n, low, high, n, runs)

    return _each(candidates, read)


def of_levels(candidates: Sequence[Candidate], load: str, figure: declarations.Figure) -> Figures:
    """A figure of summary.json's levels that has no interval of its own."""
    parts: dict[str, list[Figure]] = {}
    for one in candidates:
        parts[one.name] = []
        for level in one.levels.get(load, ()):
            value = figure.read(level)
            if value is not None:
                parts[one.name].append(Figure(float(value)))
    return combined(parts)


def _memory(one: Candidate, load: str) -> Figure | None:
    """The largest over the runs of what the server's processes held, on the GPU too where the driver tells theirs."""
    most, source, runs = 0.0, None, 0
    for level in one.levels.get(load, ()):
        if level.server_memory_peak_bytes is None:
            continue
        runs += 1
        gpu = level.gpu_memory_peak_bytes or 0
        if level.server_memory_peak_bytes + gpu > most:
            most = level.server_memory_peak_bytes + gpu
            source = level.gpu_memory_source if gpu else None
    if not runs:
        return None
    words = "resident"
    if source is not None:
        words = "resident and on the GPU"
    if source == "device":  # a driver that tells no process's share tells the device's
        words += ", where others may hold some too"
    return Figure(float(most), runs=runs, source=words)


def _disk(one: Candidate) -> Figure | None:
    sources = {
        "disk_bytes": "of its files",
        "size_bytes": "as the server lists it",
        "told_bytes": "as models.json says",
    }
    if one.facts.get("disk_source") == "server":
        sources["disk_bytes"] = "as the server reports"
    for fact, source in sources.items():
        if one.facts.get(fact):
            return Figure(float(one.facts[fact]), source=source)
    return None


def _per_characters(candidates: Sequence[Candidate], load: str, per_tokens: str) -> Figures:
    """Energy or cost of 1,000 characters: models cut text into tokens differently."""
    parts: dict[str, list[Figure]] = {}
    sources: dict[str, str] = {}
    for one in candidates:
        for level in one.levels.get(load, ()):
            spent, tokens = getattr(level, per_tokens), (level.output_tokens or NOTHING).total
            if spent and tokens and level.characters:
                parts.setdefault(one.name, []).append(Figure(spent * tokens / level.characters))
                sources[one.name] = level.energy_source or "price per hour"
    return {name: replace(figure, source=sources[name]) for name, figure in combined(parts).items()}


def scoring_methods(candidates: Sequence[Candidate]) -> set[str | None]:
    """The methods by which their runs were scored: by hand, by which judge."""
    methods: set[str | None] = set()
    for one in candidates:
        methods.update(method for method, row in one.scores if row.score)
    return methods


def _over_runs(rows: Iterable[Rating | Passed | None], source: str = "") -> Figure | None:
    """The mean over the runs; their prompts are the same, so that more runs make the interval no narrower."""
    values, intervals, prompts = [], [], 0
    for row in rows:
        if row is None:
            continue
        values.append(row.mean if isinstance(row, Rating) else row.pass_rate)
        prompts = max(prompts, row.n)
        if row.ci95 is not None:
            intervals.append(row.ci95)
    if not values:
        return None
    low = high = None
    if len(intervals) == len(values):
        low, high = map(fmean, zip(*intervals, strict=True))
    return Figure(fmean(values), low, high, prompts, len(values), source)


def licence(one: Candidate) -> str | None:
    """The licence as it is listed, in lower case; None where nothing lists it.

    >>> licence(Candidate("m", "m", None, None, None, None, {"licence": "Apache-2.0"}))
    'apache-2.0'
    """
    return str(one.facts.get("licence") or "").strip().lower() or None


# -- requirements

Outcome = Literal["met", "missed", "unknown"]


@dataclass(frozen=True, slots=True)
class Met:
    """Whether a candidate meets a need.

    Attributes:
        need, name: As written, and the figure.
        outcome: By the figure itself.
        sure: Whether the interval lies on one side of the bound; None where there is no interval to tell.
        value: In the figure's unit, or the word.
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
    bound = need.bound
    if bound is None:
        return {one.name: _of_word(need, one) for one in candidates}
    found = measured.get(need.name) if bound.statistic is None else None
    if found is None:
        found = _of_bound(bound, candidates, load)
    return {one.name: _of_figure(need, bound, found.get(one.name)) for one in candidates}


def _of_bound(bound: Bound, candidates: Sequence[Candidate], load: str) -> Figures:
    if bound.statistic is not None:
        return of_times(candidates, load, bound.metric, bound.statistic, with_failures=True)
    if bound.figure.counts is not None:
        return of_shares(candidates, load, bound.figure)
    if bound.figure.is_median:
        return of_times(candidates, load, bound.metric, "p50")
    # The goodput of a run is that of its own SLO, which summary.json has counted.
    if bound.figure.unit == "/s" and "verdict" in bound.figure.doors and bound.metric != "goodput":
        return of_rates(candidates, load, bound.metric)
    return of_levels(candidates, load, bound.figure)


def _of_word(need: Need, one: Candidate) -> Met:
    word = {"licence": licence(one), "model": one.model, "device": one.device}[need.name]
    if word is None:
        return Met(need.text, need.name, "unknown", sure=None, value=None)
    words = {word.lower()}
    if need.name == "device":  # "cpu+gpu" runs on the first of both
        words.add(word.lower().split("+")[0])
    outcome: Outcome = "missed" if words.isdisjoint(need.words) else "met"
    return Met(need.text, need.name, outcome, sure=True, value=word)


def _of_figure(need: Need, bound: Bound, figure: Figure | None) -> Met:
    if figure is None:
        return Met(need.text, need.name, "unknown", sure=None, value=None, unit=need.unit)
    value, low, high = figure.value, figure.low, figure.high
    holds = bound.holds(value)
    sure = None
    if low is not None and high is not None:
        sure = bound.holds(low) == bound.holds(high) == holds
    elif need.unit == "bytes":
        sure = True  # not a statistic: there is nothing to be unsure of
    return Met(need.text, need.name, "met" if holds else "missed", sure, value, low, high, need.unit)
