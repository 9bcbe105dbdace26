"""Service-level objectives: which requests met which bound, attainment with its interval, goodput; thresholds; and the
loads that meet the SLO, as a search for the capacity found them.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from loadbench.figures import FIGURES, PERCENTILES
from loadbench.metrics.distribution import NS_PER_MS, US_PER_MS, gap_sizes, gap_sums
from loadbench.metrics.request import BURST, Requests
from loadbench.metrics.window import SHORTEST_NS, Window
from loadbench.scenario.bounds import Bound, Threshold
from loadbench.stats import rank, shares
from loadbench.stats.blocks import share_interval
from loadbench.store.record import Facts, Flags, Reals, Results
from loadbench.store.summary import (
    Capacity,
    Crossing,
    Distribution,
    Interval,
    Level,
    Load,
    Objective,
    Step,
    ThresholdRow,
    Verdict,
    rounded,
    significant,
)

_OPERATORS: dict[str, Callable[[Reals, float], Flags]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
# Metrics that each request has; the others (rates) are figures of the level alone.
OF_REQUESTS = (
    *("ttft", "ttfat", "itl", "tpot", "e2e", "normalised_latency", "client_queue"),
    *("success", "failed"),
)
# Metrics that a burst leaves without meaning (gate V13).
STREAMED = ("itl", "tpot", "tokens_per_s_per_user", "prefill_tokens_per_s")
# Metrics that a whole answer does not have.
WHOLE = ("ttft", "ttfat", *STREAMED)


def undecided(requests: Requests, results: Results, *, gaps_kept: bool, burst: bool) -> set[str]:
    """Metrics without a meaning at a level, or of which not all was kept: a bound on one is undecided, not missed."""
    found = set() if gaps_kept else {"itl"}
    if not requests.streamed:
        found.update(WHOLE)
    elif burst:
        found.update(STREAMED)
    population = requests.population
    if population.any() and np.isnan(results.reasoning_characters[population]).all():
        found.add("ttfat")  # of a version that did not mark the first answer
    if population.any() and np.isnan(requests.tokens[population]).all():
        found.add("normalised_latency")
    return found


def compare(values: Reals, bound: Bound) -> Flags:
    """Elementwise; NaN meets nothing."""
    return np.asarray(_OPERATORS[bound.op](values, bound.value), dtype=np.bool_)


@dataclass(frozen=True, slots=True, eq=False)
class Objectives:
    """The bounds of a run, held against one level.

    Attributes:
        bounds: As the scenario has them.
        results, requests: The level's requests.
        offered: Measured requests that were due, dropped ones included: the denominator of attainment; None where
            unknown.
        from_due: Open loop, see `Requests.times`.
        undecided: Metrics that have no meaning here, or of which not all was kept.
    """

    bounds: Sequence[Bound]
    results: Results
    requests: Requests
    offered: int | None
    from_due: bool
    undecided: Collection[str] = ()

    def rows(self, figures: Mapping[str, float | None]) -> list[Objective]:
        """One row a bound.

        `attainment` is the share of offered requests that meet the bound, `ci95` its interval, which knows that
        requests resemble their neighbours. `attained` says whether a percentile's bound holds for that share of them,
        and for means, shares and rates whether the figure itself meets it; None where nothing was measured.

        Args:
            figures: Of the level, by metric: rates, and "failed" as a share of the attempted.
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
        if bound.metric in ("success", "failed"):
            return completed
        if bound.metric != "itl":
            values = self.requests.times(self.from_due)[bound.metric]
            met = compare(values / NS_PER_MS, bound)
            if bound.metric == "tpot":
                met |= np.isnan(values)
            return completed & met
        # The statistic is that of a request's own gaps: p95 means 95 % of them, max all, mean their mean.
        sizes = gap_sizes(self.results)
        if bound.statistic == "mean":
            with np.errstate(invalid="ignore"):
                means = gap_sums(self.results, np.asarray) / np.where(sizes > 0, sizes, np.nan) / US_PER_MS
            without: Flags = sizes == 0
            return completed & (without | compare(means, bound))
        within = gap_sums(self.results, lambda gaps_us: compare(gaps_us / US_PER_MS, bound))
        p = PERCENTILES.get(bound.statistic or "max", 1.0)
        return completed & np.asarray(within >= np.ceil(p * sizes - 1e-9), dtype=np.bool_)

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
        ends = share_interval(met, offered)
        return Objective(
            bound=bound.text,
            attainment=rounded(hits / offered, 6),
            attained=self._attained(bound, hits, offered, figures),
            n=offered,
            ci95=[rounded(end, 6) for end in ends] if ends else None,
        )

    def _attained(self, bound: Bound, hits: int, offered: int, figures: Mapping[str, float | None]) -> bool | None:
        if bound.metric == "success":
            return bound.holds(hits / offered)
        if bound.metric == "failed":
            failed = figures.get("failed")
            return None if failed is None else bound.holds(failed)
        if bound.statistic != "mean":
            return hits >= rank(PERCENTILES.get(bound.statistic or "max", 1.0), offered)
        requests = self.requests
        endless = offered > int((requests.measured & (requests.completed | requests.cancelled)).sum())
        if endless or (bound.metric == "ttfat" and requests.unanswered[requests.population].any()):
            return bound.holds(math.inf)  # one that failed or was dropped never ended
        if bound.metric == "itl":
            total = float(gap_sums(self.results, np.asarray)[requests.population].sum())
            n, per_ms = int(gap_sizes(self.results)[requests.population].sum()), US_PER_MS
        else:
            values = requests.times(self.from_due)[bound.metric][requests.population]
            values = values[~np.isnan(values)]
            total, n, per_ms = float(values.sum()), len(values), NS_PER_MS
        return bound.holds(total / n / per_ms) if n else None


# -- thresholds held against the levels of a run: failed, passed, or unknown

# As summary.json names them; None of the others, which are plain numbers.
_UNITS: Mapping[str, str] = {"ms": "ms", "share": "share", "bytes": "bytes", "/s": "per_s"}


def thresholds(levels: Sequence[Level], written: Sequence[str | Facts]) -> list[ThresholdRow]:
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
        rows += [_threshold_row(one, level) for level in about]
        if not about:
            reason = f"no level is called {one.level}" if one.level and judged else "no level was measured"
            unit = _UNITS.get(one.bound.figure.unit)
            row = ThresholdRow(text=one.text, metric=one.bound.metric, unit=unit, result="unknown", reason=reason)
            rows.append(row)
    return rows


def _threshold_row(one: Threshold, level: Level) -> ThresholdRow:
    value, n, interval = _figure(one.bound, level)
    reason = None
    if value is None:
        result, reason = "unknown", _missing(one.bound, level)
    elif one.bound.holds(value):
        result = "failed"
        if value == math.inf:
            endless, never = [(level.failed, "failed"), (level.dropped, "were dropped")], "ended"
            if one.bound.metric == "ttfat":
                endless.append((level.only_reasoned, "only reasoned"))
                never = "answered"
            counts = [f"{count} {word}" for count, word in endless if count]
            reason = f"{' and '.join(counts)} of {level.offered or level.attempted} requests: they never {never}"
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


def _figure(bound: Bound, level: Level) -> tuple[float | None, int | None, Interval | None]:
    """The figure that a bound is about, of how many, and its 95 % interval where one exists."""
    figure = bound.figure
    if figure.values:
        # With failures, if there are any; in open loop TTFT counts from `due`.
        found: Distribution | None = getattr(level, f"{bound.metric}_ms")
        if level.with_failures_ms:
            found = level.with_failures_ms.get(bound.metric)
        elif bound.metric == "ttft" and level.is_open:
            found = level.ttft_from_due_ms
        found = found or Distribution()
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


def _missing(bound: Bound, level: Level) -> str:
    """Why a figure is not there."""
    metric = bound.metric
    if level.status in ("skipped", "failed"):
        return f"{level.status}: {level.reason}"
    if not level.completed:
        return "no request completed"
    if metric in (*WHOLE, "stalls") and level.streamed is False:
        return f"answers that are asked for whole have no {'gaps' if metric == 'stalls' else metric}"
    if metric in (*STREAMED, "stalls") and (level.burst_share or 0) > BURST:
        return "the server sends its answers in bursts"
    if bound.figure.unit == "bytes":
        return "it could not be sampled"
    if metric == "efficiency":
        return "no lower load of this model was measured"
    if metric == "goodput":
        return "no SLO is given, or it could not be judged"
    if metric == "prefill_tokens_per_s":
        return "the server counts no input tokens, or took them all from its cache"
    return "the steady window is too short" if metric.endswith("_per_s") else "not measured"


# -- the loads that meet the SLO, as a search for the capacity found them

# How far beyond its zones the interval of a rate reaches, as a factor: a queue may be lucky for minutes.
BEYOND = 1.05


@dataclass(frozen=True, slots=True)
class Tried:
    """A load that was measured, and what its probe said of the SLO."""

    load: float
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Zones:
    """What a search says of every load.

    Attributes:
        meets: The SLO is met up to here; None where no load surely met it.
        misses: It is missed from here on; None where no load surely missed it.
        undecided: The loads between the two that were tried.
    """

    meets: float | None
    misses: float | None
    undecided: tuple[float, ...]


def zones(tried: Sequence[Tried]) -> Zones:
    """The zones. A load that met it once and another time did not surely meet it is not in the first one.

    >>> zones([Tried(8, "met"), Tried(16, "not met"), Tried(12, "undecided")])
    Zones(meets=8, misses=16, undecided=(12,))
    """
    doubtful = min((one.load for one in tried if one.verdict != "met"), default=math.inf)
    meets = max((one.load for one in tried if one.load < doubtful), default=None)
    misses = min((one.load for one in tried if one.verdict == "not met"), default=None)
    low, high = -math.inf if meets is None else meets, math.inf if misses is None else misses
    return Zones(meets, misses, tuple(sorted({one.load for one in tried if low < one.load < high})))


def capacities(info: Facts) -> list[Capacity] | None:
    """A record for each model that was searched, with what follows from its steps; None of any other run.

    What follows is computed again, so that records of older runs have it too.

    Args:
        info: run.json.
    """
    records = info.get("capacity")
    if not isinstance(records, list):
        return None
    found = []
    for record in msgspec.convert(records, list[Capacity]):
        steps = [step for step in record.steps if step.counted]
        of = zones([Tried(step.load, step.verdict) for step in steps])
        estimated = estimate(steps, record.by)
        changes = {"meets": of.meets, "misses": of.misses, "undecided": list(of.undecided), "estimate": estimated}
        found.append(msgspec.structs.replace(record, **changes))
    return found


def answer(records: Sequence[Capacity] | None, by: str) -> Load | None:
    """The answer of the one search that there was; None of several, and of a search by the other kind of load."""
    if records is None or len(records) != 1 or records[0].by != by:
        return None
    return records[0].found


def estimate(steps: Sequence[Step], by: str | None) -> Crossing | None:
    """The load up to which the SLO is met, from all probes together; None where they cannot tell.

    Of several bounds the one that is crossed first; a bound about a figure of the whole level has no such curve. The
    estimate lies between the zones, since what surely met or missed the SLO is no matter of estimates.

    Args:
        steps: Those that count.
        by: "concurrency" or "rate". At a rate a queue makes requests depend on each other more than they can tell, so
            that the interval is never narrower than what the zones leave open, and BEYOND.
    """
    crossings = []
    for share in steps[0].shares if steps else ():
        if share.wanted is None or not 0 < share.wanted < 1:
            return None
        crossings.append(shares.crossing(*_columns(steps, share.bound), share.wanted))
    if not crossings:
        return None
    found = zones([Tried(step.load, step.verdict) for step in steps])
    first = min((one for one in crossings if one is not None), key=lambda one: one.load, default=None)
    ends: list[float] = []
    if by == "rate" and found.meets is not None and found.misses is not None:
        ends = [found.meets / BEYOND, found.misses * BEYOND]
        first = first or shares.Crossing(math.sqrt(found.meets * found.misses), None, None)
    if first is None:
        return None
    load = max(first.load, found.meets or 0.0)
    if found.misses is not None:
        load = min(load, found.misses)
    if first.low is not None and first.high is not None:
        ends += [first.low, load, first.high]
    ci95 = [significant(min(ends), 3), significant(max(ends), 3)] if ends else None
    return Crossing(load=float(f"{load:.3g}"), ci95=ci95)


def _columns(steps: Sequence[Step], bound: str) -> tuple[list[float], list[float], list[float]]:
    """Loads, good requests and requests, of one bound; requests that depend on each other as few as they are worth."""
    loads, hits, n = [], [], []
    for step in steps:
        share = next((one for one in step.shares if one.bound == bound), None)
        if share is None or share.share is None:
            continue
        worth = float(share.worth or step.requests or 0)
        missed_by_share = any(one.attained is False for one in step.shares)
        # A backlog that grows, or a server that fails, misses it in the long run, whatever the first requests met.
        gone = step.verdict == "not met" and not missed_by_share
        loads.append(float(step.load))
        hits.append(0.0 if gone else share.share * worth)
        n.append(worth)
    return loads, hits, n
