"""One load while it is measured: from its requests, one by one, to a verdict as soon as they decide."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadbench import stats
from loadbench.metrics import Requests, gates, level, request
from loadbench.metrics.slo import STREAMED, Objectives
from loadbench.runner.rule import EARLIEST, Rule, wanted
from loadbench.scenario.bounds import Bound
from loadbench.store import LevelData
from loadbench.store.record import Result, Results
from loadbench.store.schema import ScenarioFacts
from loadbench.store.summary import Verdict

FEWEST = 40
"""Requests below which nothing is said."""
BATCHES = 20
TAIL = 0.001
TREND = 0.05
"""As TAIL, for the question whether a load may be said to be met: a server that keeps up is asked again later."""
GROWTH = 1.5
"""Least ratio of the last batch to the first: what grows by less may be a server that fills up."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """A backlog that grows.

    Attributes:
        slope: Seconds that a request stays longer, for each second that passes; of a line through the batches.
        first_s, last_s: How long requests stayed in the first and the last batch.
    """

    slope: float
    first_s: float
    last_s: float


def backlog(due_s: NDArray[np.float64], stay_s: NDArray[np.float64], tail: float = TAIL) -> Backlog | None:
    """The backlog that requests show; None where none grows, or too few requests say.

    A queue wanders: one that is long now stays long for a while, so that a line through its lengths is steep by chance
    far more often than its t test says. What does not depend on the past is by how much it grows. So 20 batches of
    successive requests are made, and Student's t is taken of the growth from each to the next: one side, at 0.1 %.

    Args:
        due_s: When each request was due, ascending.
        stay_s: From then to its end.
        tail: How often a server that keeps up may be said to have one.

    >>> at = np.arange(200.0)
    >>> backlog(at, 1 + 0.1 * at)
    Backlog(slope=0.1, first_s=1.45, last_s=20.45)
    >>> backlog(at, np.ones(200))
    """
    if len(due_s) < FEWEST or due_s[-1] <= due_s[0]:
        return None
    x, y = _batches(due_s), _batches(stay_s)
    growth = np.diff(y)
    error = float(growth.std(ddof=1)) / math.sqrt(len(growth))
    if growth.mean() <= stats.student(len(growth) - 1, tail) * error or y[-1] < GROWTH * y[0]:
        return None
    away = x - x.mean()
    slope = float(away @ y / (away @ away))
    return Backlog(round(slope, 6), round(float(y[0]), 6), round(float(y[-1]), 6))


def saturated(slope: float, last_s: float) -> str:
    """Why a rate is too high for good, whatever the SLO allows."""
    return (
        f"saturated: with each second requests stay {slope:.2g} s longer, {last_s:.2g} s at the end (t test of the "
        "growth between 20 batches, at 0.1 %)"
    )


def is_steady(due_s: NDArray[np.float64], stay_s: NDArray[np.float64], after: int = 0) -> bool:
    """Whether neither the time that requests stay nor the number in flight grows, as far as anybody can tell.

    Args:
        due_s: When each request was due, ascending.
        stay_s: From then to its end.
        after: The first requests, which are in flight with the others but were the warm-up.

    >>> at = np.arange(200.0)
    >>> is_steady(at, np.ones(200)), is_steady(at, 1 + 0.1 * at)
    (True, False)
    """
    begun, ended = np.arange(1.0, len(due_s) + 1), np.searchsorted(np.sort(due_s + stay_s), due_s, side="right")
    return all(backlog(due_s[after:], series[after:], TREND) is None for series in (stay_s, begun - ended))


def _batches(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The means of 20 batches of successive values, whose sizes differ by one at most."""
    sizes = np.full(BATCHES, len(values) // BATCHES)
    sizes[: len(values) % BATCHES] += 1
    means: NDArray[np.float64] = np.add.reduceat(values, np.cumsum(sizes) - sizes) / sizes
    return means


UNSTEADY = "requests stay longer and longer, or ever more are in flight: the load is not steady yet"
ALMOST = 0.95
"""Of the seconds that a window needs: what counts as that long where chance decides when requests come."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Requests in the order of start.

    Attributes:
        due_s: When each was due.
        stay_s: From then to its end; NaN where it did not complete.
        met: Which bounds it met, one column for each.
    """

    due_s: NDArray[np.float64]
    stay_s: NDArray[np.float64]
    met: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.due_s)

    def after(self, n: int) -> Sample:
        """Without the first n."""
        return Sample(self.due_s[n:], self.stay_s[n:], self.met[n:])


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look says.

    Attributes:
        hits: Requests that met each bound, of `requests`; `worth` is how many independent ones those are.
    """

    verdict: Verdict
    requests: int
    hits: tuple[int, ...]
    worth: tuple[float, ...]
    reason: str | None = None


def looked(rule: Rule, sample: Sample, *, at: int | None = None, dropped: int = 0, last: bool = False) -> Looked:
    """What the requests say: of all of them *not met*, of those after the warm-up *met*.

    A probe at a rate begins with an empty queue, so that *not met* of all its requests is safe to say, and *met* is
    not.

    Args:
        at: The number of requests that the look was due at; unset, as many as there are. At a rate only *not met* may
            be said before the rule's first size.
        dropped: Requests that were due and not sent: they met no bound.
        last: No request follows, however few there are.
    """
    due_at, queues = at or len(sample), bool(rule.least_s)
    # A queue has busy spells: up to the first look one of them may be most of what was seen.
    tail = _early_tail(rule, due_at) if queues and due_at <= rule.sizes[0] else None
    whole = _judged(rule, sample, dropped, tail=tail, last=last)
    if whole.verdict == "not met":
        return whole
    if queues and due_at < rule.sizes[0] and not last:
        return _open(whole)
    skipped = _warm_up(rule, sample) if queues else 0
    found = _judged(rule, sample.after(skipped), dropped, last=last) if queues else whole
    if found.verdict == "not met":  # but for the warm-up it would be: of the whole probe that is not sure
        return _open(found)
    if not queues or found.verdict != "met":
        return found
    lasted_s = float(sample.due_s[-1] - sample.due_s[skipped])
    is_as_planned = due_at >= rule.sizes[0] and skipped == rule.skipped(len(sample))
    if not is_as_planned and lasted_s < ALMOST * rule.least_s:
        return _open(
            found, f"{lasted_s:.3g} s after the warm-up are too short to see whether a queue grows; allow more with -n"
        )
    ended = ~np.isnan(sample.stay_s)
    if not is_steady(sample.due_s[ended], sample.stay_s[ended], int(ended[:skipped].sum())):
        return _open(found, UNSTEADY)
    return found


def _warm_up(rule: Rule, sample: Sample) -> int:
    """How many of the requests are warm-up: until the first ones end, ever more are in flight."""
    stays_s = sample.stay_s[~np.isnan(sample.stay_s)]
    if not len(stays_s):
        return rule.skipped(len(sample))
    filled_s = sample.due_s[0] + np.quantile(stays_s, 0.95)
    filled = int(np.searchsorted(sample.due_s, filled_s))
    return max(rule.skipped(len(sample)), min(filled, len(sample) - 1))


def _open(found: Looked, reason: str | None = None) -> Looked:
    return Looked("undecided", found.requests, found.hits, found.worth, reason)


def _judged(rule: Rule, sample: Sample, dropped: int, *, tail: float | None = None, last: bool = False) -> Looked:
    n = len(sample) + dropped
    hits = tuple(int(hit) for hit in sample.met.sum(axis=0))
    worth = _worth(sample, n, tail or rule.tail)
    verdict: Verdict = rule.judged(hits, n, worth=worth, last=last, tail=tail) if n else "undecided"
    return Looked(verdict, n, hits, worth)


def _worth(sample: Sample, n: int, tail: float) -> tuple[float, ...]:
    """As many as the requests that were sent are worth; those that were not sent alike."""
    columns: Sequence[NDArray[np.bool_]] = list(sample.met.T)
    if not len(sample):
        return (float(n),) * len(columns)
    return tuple(stats.independent_flags(flags, tail) * n / len(sample) for flags in columns)


def _early_tail(rule: Rule, n: int) -> float:
    """Half of a look's for the first one, then half of that, and so on: all together one look's."""
    return float(rule.tail / 2 ** max(1, (n // EARLIEST).bit_length()))


def independent(sample: Sample) -> int:
    """How many independent requests a queue's are worth, by the times that they stay.

    Where none missed a bound, nothing else tells that one busy spell would have made hundreds miss it.
    """
    return max(1, stats.independent_requests(sample.stay_s[~np.isnan(sample.stay_s)], 0.5))


UNREACHABLE = ("dns", "connect", "tls", "timeout_connect")
"""Failures that say the server is gone. They end no probe: the engine ends the level, and then the model is known to
have failed, at whatever load."""
_NEXT_TEST = 1.5
"""From one test for a backlog to the next, in requests: so many tests share little chance of error."""

_Row = tuple[list[bool], float, float]
"""A request: which bounds it met, when it was due, how long it stayed; NaN where it did not complete."""


@dataclass(frozen=True, slots=True)
class Attainment:
    """What became of one bound.

    Attributes:
        share: Of the requests that met it; None for a figure of the whole level, and where it has no meaning.
        wanted: The share that must.
        interval: Of `share`, at the confidence of one look.
        worth: How many independent requests those that were judged are worth, at a rate by the times that they stayed
            too: what an estimate over all loads weighs them by; None as `share`.
        attained: Whether it holds; of a share, whether the interval says so; None where nothing does.
    """

    bound: str
    share: float | None
    wanted: float | None
    interval: tuple[float, float] | None
    attained: bool | None
    worth: int | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What a probe says, of how many requests, and why where that is not plain from the shares.

    Attributes:
        requests: Those that were judged; at a rate *met* is said of those after the warm-up alone.
    """

    verdict: Verdict
    requests: int
    shares: tuple[Attainment, ...]
    reason: str | None = None


@dataclass(slots=True)
class Probe:
    """A load that is being measured.

    Attributes:
        first: Number of the first measured request.
        opened: Whether requests start at a rate, whatever is in flight.
    """

    bounds: Sequence[Bound]
    rule: Rule
    first: int
    opened: bool
    streamed: bool = True
    decision: Decision | None = None
    _results: list[Result] = field(default_factory=list)  # measured ones, as they end
    _read: int = 0
    _judged: dict[int, _Row] = field(default_factory=dict)  # that ended before an earlier one
    _rows: list[_Row] = field(default_factory=list)  # the first ones, all of which have ended
    _misses: list[int] = field(init=False)  # of all that have ended
    _next_test: float = FEWEST
    _is_hopeless: bool = False

    def __post_init__(self) -> None:
        self._misses = [0] * len(self.rule.shares)

    def heard(self, result: Result) -> None:
        """A request ended."""
        if not result.warmup:
            self._results.append(result)

    def look(self, dropped: int = 0) -> Decision | None:
        """The decision, where the requests until now allow one.

        Judged are the first n requests once all of them have ended: those that end early are the quick ones.

        Args:
            dropped: Requests that were due and not sent: they met no bound.
        """
        if self.decision is not None:
            return self.decision
        before = len(self._rows)
        self._take()
        found = self._backlog() or self._at_size(before, dropped) or self._hopeless(before, dropped)
        if self._results and self._results[-1].error in UNREACHABLE:
            return None
        self.decision = found
        return found

    def close(self, facts: Mapping[str, Any]) -> Decision:
        """The decision at the end of the level.

        Args:
            facts: Its entry in run.json.
        """
        found = self.decision or self._last(facts)
        if facts.get("status") == "failed":
            found = replace(found, verdict="not met", reason=str(facts.get("reason")))
        results = Results.from_results(self._results)
        requests = Requests.of(results, streamed=self.streamed)
        if self.opened and found.verdict == "met":
            found = self._unless_red(found, LevelData(dict(facts), results, {}, True))
        if (bare := self._without_meaning(results, requests)) and found.verdict != "not met":
            burst = f"{bare} says nothing: this server sends its answers in bursts"
            found = replace(found, verdict="undecided", reason=burst)
        if len(self.rule.shares) < len(self.bounds) and found.verdict != "not met":
            found = self._with_figures(found, LevelData(dict(facts), results, {}, True))
        self.decision = found
        return found

    def _take(self) -> None:
        """Judge what has ended since the last look."""
        results = self._results[self._read :]
        self._read += len(results)
        if results:
            columns = Results.from_results(results)
            requests = Requests.of(columns, streamed=self.streamed)
            judge = Objectives(self.bounds, columns, requests, len(results), self.opened)
            met = [judge.meets(bound) for bound in self.bounds if wanted(bound) is not None]
            for row, number in enumerate(columns.request.tolist()):
                due_s, stay_s = columns.due[row] / 1e9, (columns.end[row] - columns.due[row]) / 1e9
                hits = [bool(flags[row]) for flags in met]
                self._judged[number] = hits, due_s, stay_s if requests.completed[row] else math.nan
            for i, flags in enumerate(met):
                self._misses[i] += int((~flags).sum())
        while (judged := self._judged.pop(self.first + len(self._rows), None)) is not None:
            self._rows.append(judged)

    def _sample(self, rows: Sequence[_Row]) -> Sample:
        met = np.array([hits for hits, _, _ in rows], dtype=np.bool_).reshape(len(rows), len(self.rule.shares))
        return Sample(np.array([due for _, due, _ in rows]), np.array([stay for _, _, stay in rows]), met)

    def _at_size(self, before: int, dropped: int) -> Decision | None:
        """What a look says, if one is due: the first n requests are judged, however many more have ended."""
        now = len(self._rows)
        sizes = [size for size in (*self.rule.early, *self.rule.sizes) if before < size <= now]
        if dropped or not sizes:
            return None
        sample = self._sample(self._rows)
        found = looked(self.rule, sample, at=sizes[-1])
        if found.verdict == "undecided" or (found.verdict == "met" and len(self.rule.shares) < len(self.bounds)):
            # What no look decided is told as what it is, not as requests too many.
            return self._decided(found, sample) if sizes[-1] == self.rule.sizes[-1] and found.reason else None
        return self._decided(found, sample)

    def _hopeless(self, before: int, dropped: int) -> Decision | None:
        """What a load that can no longer be met comes to: *not met* where that is sure, undecided at its next look.

        Where requests depend on each other, a few more of them may tell a load that is missed from one that is open.
        """
        n = self._read + dropped
        if not n or not self.rule.is_hopeless(self._misses, dropped):
            return None
        is_first, self._is_hopeless = not self._is_hopeless, True
        is_look = any(before < size <= len(self._rows) for size in self.rule.sizes)
        if not (is_first or is_look or dropped):
            return None
        sample = self._all()
        found = looked(self.rule, sample, dropped=dropped)
        if found.verdict == "not met":
            return self._decided(found, sample)
        if not (is_look or dropped):
            return None
        most = self.rule.sizes[-1]
        reason = f"{max(self._misses) + dropped} of {n} missed it: {most} requests can no longer say that it is met"
        return self._decided(replace(found, verdict="undecided", reason=reason), sample)

    def _all(self) -> Sample:
        """Of all requests that have ended, in the order of start."""
        return self._sample([*self._rows, *(self._judged[number] for number in sorted(self._judged))])

    def _backlog(self) -> Decision | None:
        if not self.opened or len(self._rows) < self._next_test:
            return None
        self._next_test = len(self._rows) * _NEXT_TEST
        sample = self._sample(self._rows)
        ended = ~np.isnan(sample.stay_s)
        found = backlog(sample.due_s[ended], sample.stay_s[ended])
        return None if found is None else self._saturated(sample, found)

    def _saturated(self, sample: Sample, found: Backlog) -> Decision:
        whole = looked(self.rule, sample)
        return self._decided(replace(whole, verdict="not met", reason=saturated(found.slope, found.last_s)), sample)

    def _last(self, facts: Mapping[str, Any]) -> Decision:
        """Of all requests, as the level's own figures are."""
        self._take()
        dropped = int(facts.get("dropped") or 0)
        self._next_test = FEWEST
        if (found := self._backlog()) is not None:
            return found
        sample = self._all()
        last = looked(self.rule, sample, dropped=dropped, last=True)
        if last.verdict == "undecided" and last.reason is None:
            n = self._read + dropped
            last = replace(last, reason="no request ended" if not n else f"{n} requests do not decide it")
        return self._decided(last, sample)

    def _decided(self, found: Looked, sample: Sample) -> Decision:
        most = independent(sample) if self.opened else math.inf
        counted = iter([(hit, worth, min(worth, most)) for hit, worth in zip(found.hits, found.worth, strict=True)])
        shares = tuple(self._attainment(bound, wanted(bound), counted, found.requests) for bound in self.bounds)
        return Decision(found.verdict, found.requests, shares, found.reason)

    def _attainment(self, bound: Bound, share: float | None, counted: Any, n: int) -> Attainment:
        if share is None or not n:
            return Attainment(bound.text, None, share, None, None)
        hit, of, worth = next(counted)
        low, high = stats.wilson(hit / n * of, of, self.rule.tail) or (0.0, 1.0)
        attained: bool | None = None
        if share >= 1:
            attained = hit == n
        elif low >= share:
            attained = True
        elif high < share:
            attained = False
        return Attainment(bound.text, round(hit / n, 6), share, (round(low, 6), round(high, 6)), attained, round(worth))

    def _unless_red(self, found: Decision, data: LevelData) -> Decision:
        """The decision, unless gate V2 is red: the load was not what it claims to be, or its backlog grows."""
        doubt = gates.in_flight(level.summary(data, (), streamed=self.streamed), ScenarioFacts())
        if doubt is None or doubt.severity != "red":
            return found
        return replace(found, verdict="undecided", reason=f"V2: {doubt.text}")

    def _without_meaning(self, results: Results, requests: Requests) -> str | None:
        """A metric of the bounds that bursts leave without meaning."""
        named = next((bound.metric for bound in self.bounds if bound.metric in STREAMED), None)
        burst = request.burst_share(requests, results) if named and len(results) else None
        return named if burst is not None and burst > request.BURST else None

    def _with_figures(self, found: Decision, data: LevelData) -> Decision:
        """The decision with the bounds that are about figures of the whole level."""
        rows = level.summary(data, self.bounds, streamed=self.streamed).slo or ()
        of_figures = {row.bound: row.attained for row in rows}
        shares = tuple(
            one if one.wanted is not None else Attainment(one.bound, None, None, None, of_figures[one.bound])
            for one in found.shares
        )
        said = [one.attained for one in shares if one.wanted is None]
        if False in said:
            return replace(found, verdict="not met", shares=shares)
        if None in said:
            return replace(found, verdict="undecided", shares=shares, reason="a figure of the level could not be told")
        return replace(found, shares=shares)
