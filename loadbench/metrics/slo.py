"""Service-level objectives: which requests met which bound, attainment with its interval, goodput; and thresholds."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loadbench import stats
from loadbench.figures import FIGURES, PERCENTILES
from loadbench.metrics.distribution import (
    NS_PER_MS,
    US_PER_MS,
    gap_sizes,
    gap_sums,
    rounded,
    significant,
)
from loadbench.metrics.request import BURST, Requests
from loadbench.metrics.window import SHORTEST_NS, Window
from loadbench.scenario.bounds import Bound, Threshold
from loadbench.store.record import Counts, Flags, Reals, Results
from loadbench.store.summary import Distribution, Interval, Level, Objective, ThresholdRow

_OPERATORS: dict[str, Callable[[Reals, float], Flags]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
OF_REQUESTS = ("ttft", "itl", "tpot", "e2e", "client_queue", "success", "failed")
"""Metrics that each request has; the others (rates) are figures of the level alone."""
STREAMED = ("itl", "tpot")
"""Metrics that a burst leaves without meaning (gate V13)."""
WHOLE = ("ttft", *STREAMED)
"""Metrics that an answer which was asked for whole does not have."""


@dataclass(frozen=True, slots=True, eq=False)
class Objectives:
    """The bounds of a run, asked of one level.

    Attributes:
        bounds: As the scenario gives them.
        results, requests: The level's requests.
        offered: Measured requests that were due, dropped ones included: the denominator of attainment; None where
            nobody knows.
        from_due: Open loop: TTFT counts from `due`, so that waiting in the client is no gift to the server.
        undecided: Metrics that have no meaning here, or of which not all was kept.
    """

    bounds: Sequence[Bound]
    results: Results
    requests: Requests
    offered: int | None
    from_due: bool
    undecided: Sequence[str] = ()

    def rows(self, figures: Mapping[str, float | None]) -> list[Objective]:
        """One row a bound.

        `attainment` is the share of offered requests that meet the bound, `ci95` its interval, which knows that
        requests resemble their neighbours. `attained` says whether a percentile's bound holds for that share of them,
        and for means, shares and rates whether the figure itself meets it; None where nothing was measured.

        Args:
            figures: "failed" (a share of the attempted), "output_tokens_per_s" and "goodput" of the level.
        """
        return [self._row(bound, figures) for bound in self.bounds]

    def good(self) -> Flags | None:
        """Which requests met every bound that a request can meet; None where there is none or it is undecided."""
        judged = [bound for bound in self.bounds if bound.metric in OF_REQUESTS]
        if not judged or any(bound.metric in self.undecided for bound in judged):
            return None
        good: Flags = np.logical_and.reduce([self.meets(bound) for bound in judged])
        return good

    def goodput_per_s(self, window: Window | None) -> float | None:
        """Requests per second that met every bound, counted like `requests_per_s`."""
        good = self.good()
        if good is None or window is None or window.length_ns < SHORTEST_NS:
            return None
        return float(window.counts(self.results.sent, self.results.last_token)[good].sum()) / window.length_s

    def meets(self, bound: Bound) -> Flags:
        """Which requests meet the bound. One that did not complete meets none; an undefined TPOT or ITL breaks none."""
        completed = self.requests.completed
        match bound.metric:
            case "success" | "failed":
                return completed
            case "itl":
                return completed & self._gaps_meet(bound)
            case "tpot":
                value = self.requests.tpot
                return completed & (np.isnan(value) | compare(value / NS_PER_MS, bound))
            case _:
                return completed & compare(self._times(bound.metric) / NS_PER_MS, bound)

    def _times(self, metric: str) -> Reals:
        requests = self.requests
        ttft = requests.ttft_from_due if self.from_due else requests.ttft
        return {"ttft": ttft, "e2e": requests.e2e, "client_queue": requests.client_queue, "tpot": requests.tpot}[metric]

    def _gaps_meet(self, bound: Bound) -> Flags:
        """Requests of whose gaps the bound's statistic holds: p95 means 95 % of them, max all, mean their mean."""
        sizes = gap_sizes(self.results)
        if bound.statistic == "mean":
            with np.errstate(invalid="ignore"):
                means = gap_sums(self.results, _itself) / np.where(sizes > 0, sizes, np.nan) / US_PER_MS
            without: Flags = sizes == 0
            return without | compare(means, bound)
        met = gap_sums(self.results, lambda gaps_us: compare(gaps_us / US_PER_MS, bound))
        p = PERCENTILES.get(bound.statistic or "max", 1.0)
        return np.asarray(met >= np.ceil(p * sizes - 1e-9), dtype=np.bool_)

    def _row(self, bound: Bound, figures: Mapping[str, float | None]) -> Objective:
        if bound.metric not in OF_REQUESTS:
            figure = figures.get(bound.metric)
            return Objective(bound=bound.text, attained=None if figure is None else bound.holds(figure))
        if bound.metric in self.undecided or not self.offered:
            return Objective(bound=bound.text)
        # A damaged folder may have more records than its level offered requests; a gate says so.
        offered = max(self.offered, int(self.requests.measured.sum()))
        met = self.meets(bound)[self.requests.measured]
        hits = int(met.sum())
        share = stats.share_interval(met, offered)
        return Objective(
            bound=bound.text,
            attainment=rounded(hits / offered, 6),
            attained=self._attained(bound, hits, offered, figures),
            n=offered,
            ci95=[rounded(end, 6) for end in share] if share else None,
        )

    def _attained(self, bound: Bound, hits: int, offered: int, figures: Mapping[str, float | None]) -> bool | None:
        if bound.metric == "success":
            return bound.holds(hits / offered)
        if bound.metric == "failed":
            failed = figures.get("failed")
            return None if failed is None else bound.holds(failed)
        if bound.statistic == "mean":
            ended_well = self.requests.measured & (self.requests.completed | self.requests.cancelled)
            missing = offered - int(ended_well.sum())
            mean = math.inf if missing > 0 else self._mean_ms(bound.metric)
            return None if mean is None else bound.holds(mean)
        p = PERCENTILES.get(bound.statistic or "max", 1.0)
        return hits >= stats.rank(p, offered)

    def _mean_ms(self, metric: str) -> float | None:
        population = self.requests.population
        if metric == "itl":
            total_us = float(gap_sums(self.results, _itself)[population].sum())
            n = int(gap_sizes(self.results)[population].sum())
            return total_us / n / US_PER_MS if n else None
        values = self._times(metric)[population]
        values = values[~np.isnan(values)]
        return float(values.mean()) / NS_PER_MS if len(values) else None


def compare(values: Reals, bound: Bound) -> Flags:
    """Elementwise; NaN meets nothing."""
    return np.asarray(_OPERATORS[bound.op](values, bound.value), dtype=np.bool_)


def _itself(gaps_us: Counts) -> Counts:
    return gaps_us


# -- thresholds held against the levels of a run: failed, passed, or not known

_UNITS: Mapping[str, str] = {"ms": "ms", "share": "share", "bytes": "bytes", "/s": "per_s"}
"""As summary.json names them; None of the others, which are plain numbers."""
_Figure = tuple[float | None, int | None, Interval | None]


def thresholds(levels: Sequence[Level], written: Sequence[str | Mapping[str, Any]]) -> list[ThresholdRow]:
    """One row a threshold and level that it is about, in that order.

    `result` is "failed" where the condition holds, "passed" where it does not, "unknown" where the figure was not
    measured, or does not hold in a level that did not run to its end: what had come might have failed it. `value` and
    `interval` are in ms, shares, bytes or per second, as `unit` says.

    Args:
        levels: With `efficiency`; those that repeat the first one are not judged.
        written: `fail_if` of the scenario in run.json.
    """
    judged = [level for level in levels if not level.closing]
    rows = []
    for one in map(Threshold.of, written):
        about = [level for level in judged if one.is_about(str(level.id), str(level.model))]
        rows += [_threshold_row(one, level) for level in about] or [_nowhere(one, judged)]
    return rows


def _threshold_row(one: Threshold, level: Level) -> ThresholdRow:
    value, n, interval = _figure(one.bound, level)
    reason = None
    if value is None:
        result, reason = "unknown", _missing(one.bound, level)
    elif one.bound.holds(value):
        result, reason = "failed", _without_end(level) if value == math.inf else None
    elif level.is_whole:
        result = "passed"
    else:
        result, reason = "unknown", f"{level.status}: {level.reason or 'it did not run to its end'}"
    return ThresholdRow(
        text=one.text,
        metric=one.bound.metric,
        unit=_UNITS.get(one.bound.figure.unit),
        model=level.model,
        level=level.id,
        value=significant(value, 9),  # None where it is without end
        n=n,
        interval=interval,
        result=result,
        reason=reason,
        aborted=level.aborted == one.text,
    )


def _nowhere(one: Threshold, judged: Sequence[Level]) -> ThresholdRow:
    reason = f"no level is called {one.level}" if one.level and judged else "no level was measured"
    unit = _UNITS.get(one.bound.figure.unit)
    return ThresholdRow(text=one.text, metric=one.bound.metric, unit=unit, result="unknown", reason=reason)


def _figure(bound: Bound, level: Level) -> _Figure:
    """The figure that a bound is about, of how many, and its 95 % interval where one exists."""
    figure = bound.figure
    if figure.values:
        found = _times(bound.metric, level)
        statistic = bound.statistic or ""
        value = found.at(statistic)
        if value is None and found.n and level.with_failures_ms:
            value = math.inf
        return value, found.n, found.ci95.get(statistic)
    if figure.counts is not None:
        hits, n = (getattr(level, name) for name in figure.counts)
        if hits is None or not n:
            return None, n, None
        n = max(hits, n)  # of a damaged folder, which a gate names
        return hits / n, n, (level.share_ci95 or {}).get(bound.metric)
    value = figure.read(level)
    if figure.unit == "bytes":
        return value, None, None
    if bound.metric == "stalls":
        return value, FIGURES["itl"].read(level, "n"), None
    return value, level.completed, getattr(level, f"{figure.path}_ci95", None)


def _times(metric: str, level: Level) -> Distribution:
    """The distribution that counts: with failures, if there are any; in open loop TTFT counts from `due`."""
    if level.with_failures_ms:
        return level.with_failures_ms.get(metric) or Distribution()
    found: Distribution | None = getattr(level, f"{metric}_ms")
    if metric == "ttft" and level.is_open:
        found = level.ttft_from_due_ms
    return found or Distribution()


def _without_end(level: Level) -> str:
    """Why a percentile is without end."""
    counts = [f"{n} {word}" for n, word in ((level.failed, "failed"), (level.dropped, "were dropped")) if n]
    return f"{' and '.join(counts)} of {level.offered or level.attempted} requests: they never ended"


def _missing(bound: Bound, level: Level) -> str:
    """Why a figure is not there."""
    if level.status in ("skipped", "failed"):
        return f"{level.status}: {level.reason}"
    if not level.completed:
        return "no request completed"
    metric = bound.metric
    if metric in (*WHOLE, "stalls") and level.streamed is False:
        return f"answers that are asked for whole have no {'gaps' if metric == 'stalls' else metric}"
    if metric in (*STREAMED, "stalls") and (level.burst_share or 0) > BURST:
        return "the server sends its answers in bursts"
    if bound.figure.unit == "bytes":
        return "nobody could sample it"
    if metric == "efficiency":
        return "no lower load of this model was measured"
    if metric == "goodput":
        return "no SLO is given, or it could not be judged"
    return "the steady window is too short" if metric.endswith("_per_s") else "not measured"
