"""One load while it is measured: from its requests, one by one, to a verdict as soon as they decide.

A probe that is looked at again and again until an interval happens to decide errs far more often than the interval
says. So it is looked at up to LOOKS times, at sizes that are fixed before, and the looks share the chance of error
(Bonferroni): with three looks each interval is one of 98.3 %. That a load is hopeless needs no chance: too many have
missed the bound for the last look, whatever follows.

At a rate a queue decides, and a queue takes time. A probe begins with an empty one, so its first quarter is warm-up and
at least 20 s after it must show that queues do not grow before a load may be called met. The probe that confirms the
answer lasts 60 s, or as long as a queue at the very limit of the server takes to wander across the bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from loadbench import stats
from loadbench.errors import UsageError
from loadbench.figures import PERCENTILES
from loadbench.metrics import Requests, gates, level, request
from loadbench.metrics.slo import OF_REQUESTS, STREAMED, Objectives
from loadbench.scenario import Level
from loadbench.scenario.bounds import Bound
from loadbench.stats.blocks import independent_flags, independent_requests
from loadbench.stats.shares import flawless, wilson
from loadbench.store import LevelData
from loadbench.store.record import Result, Results
from loadbench.store.schema import ScenarioFacts
from loadbench.store.summary import Verdict

# -- the rule: how many requests decide a probe

LOOKS = 3
CONFIRM_LOOKS = 2  # at a rate, where a look comes as late as a queue needs
ROUNDS = 20  # least requests of a probe per stream where the scenario sets no number
FEWEST = 100  # least requests of a probe without a share that can be decided: a maximum, a mean, a rate
WARMUP = 0.25  # of a probe at a rate: while its queue fills
STEADY_S, CONFIRM_S, LONGEST_S = 20.0, 60.0, 300.0
"""Seconds after the warm-up, at a rate: least before a load is met, least of a probe that confirms it, and most that a
bound may lengthen it to."""
WANDERS = 4.0  # times that a queue at its limit takes on average to wander across the bound: by then 99 of 100 have
EARLIEST = 10  # requests after which a rate may first be said to be missed
_OF_QUEUES = ("ttft", "ttfat", "e2e", "client_queue")


def wanted(bound: Bound) -> float | None:
    """The share of requests that must meet a bound; None where it is about a figure of the whole level.

    >>> [wanted(Bound.parse(text)) for text in ("ttft_p95=800ms", "success=99%", "failed<5%", "goodput>3")]
    [0.95, 0.99, 0.95, None]
    """
    if bound.metric == "success":
        return bound.value if bound.op in (">", ">=") else None
    if bound.metric == "failed":
        return round(1 - bound.value, 9) if bound.op in ("<", "<=") else None
    if bound.metric not in OF_REQUESTS or bound.statistic == "mean":
        return None
    return PERCENTILES.get(bound.statistic or "max", 1.0)


@dataclass(frozen=True, slots=True)
class Rule:
    """How one probe is decided."""

    shares: tuple[float, ...]  # of requests that must meet each bound
    sizes: tuple[int, ...]  # requests after which it is looked at; the last one is its end
    least_s: float = 0.0  # at a rate, how long its window must be after the warm-up; 0 in closed loop, which has none

    @classmethod
    def of(cls, bounds: Sequence[Bound], level: Level, requests: int | None = None, *, confirms: bool = False) -> Rule:
        """The rule for a level.

        Args:
            requests: Most requests of a probe; unset, four times as many as a load without a miss needs. At a rate a
                probe is never shorter than its queue needs.
            confirms: The load met the SLO before.
        Raises:
            UsageError: So few requests can never show that the bounds are met.
        """
        shares = tuple(share for share in map(wanted, bounds) if share is not None)
        rate_per_s = level.request_rate_per_s
        least_s = 0.0 if rate_per_s is None else _lasts_s(bounds, rate_per_s, confirms=confirms)

        def without_a_miss(looks: int) -> int:
            return max((flawless(share, stats.TAIL / looks) for share in shares if share < 1), default=0)

        def first(looks: int) -> int:
            if rate_per_s is None:
                return without_a_miss(looks)
            return math.ceil(max(without_a_miss(looks), least_s * rate_per_s) / (1 - WARMUP))

        most = LOOKS if shares else 1
        if rate_per_s is not None and confirms:
            most = min(most, CONFIRM_LOOKS)
        fewest = math.ceil(without_a_miss(1) / (1.0 if rate_per_s is None else 1 - WARMUP))
        if requests is None:
            rounds = math.ceil(ROUNDS * (level.concurrency or 1))
            requests = max(FEWEST, 2 ** (most - 1) * first(most), rounds)
        elif requests < fewest:
            strictest = max(share for share in shares if share < 1)
            raise UsageError(
                f"{requests} requests a probe can never show that {100 * strictest:g} % meet the SLO: that takes "
                f"{fewest} without a miss; give -n {fewest} or more, or none"
            )
        requests = max(requests, first(1))
        looks = next((n for n in range(most, 1, -1) if 2 ** (n - 1) * first(n) <= requests), 1)
        return cls(shares, tuple(requests // 2**n for n in reversed(range(looks))), least_s)

    def skipped(self, n: int) -> int:
        """How many of the first n requests are warm-up for the word *met*."""
        return math.floor(n * WARMUP) if self.least_s else 0

    @property
    def warmed_up_s(self) -> float:
        """Seconds that a probe at a rate takes until it may be met, its warm-up among them."""
        return self.least_s / (1 - WARMUP)

    @property
    def early(self) -> tuple[int, ...]:
        """Requests, fewer than the first look's, after which a rate may be said to be missed."""
        if not self.least_s:
            return ()
        return tuple(EARLIEST * 2**n for n in range(64) if EARLIEST * 2**n < self.sizes[0])

    @property
    def tail(self) -> float:
        """What each side of one look's interval may miss."""
        return stats.TAIL / len(self.sizes)

    @property
    def confidence(self) -> float:
        """Of one look's interval."""
        return 1 - 2 * self.tail

    def judged(
        self,
        hits: Sequence[int],
        n: int,
        *,
        worth: Sequence[float] | None = None,
        last: bool = False,
        tail: float | None = None,
    ) -> Verdict:
        """What a look at n requests says, where `hits` of them met each bound; *met* is of the shares alone.

        Args:
            worth: How many independent requests those n are worth, for each bound; unset, all.
            last: No request follows: the end of the probe came before its last size.
            tail: What each side of the interval may miss; unset, a look's.
        """
        # The warm-up is no part of the n that are judged last.
        end = n if last else self.sizes[-1] - self.skipped(self.sizes[-1])
        worths = [float(n)] * len(self.shares) if worth is None else worth
        verdicts = [
            _judged_share(share, hit, n, end, of, tail or self.tail)
            for share, hit, of in zip(self.shares, hits, worths, strict=True)
        ]
        if "not met" in verdicts:
            return "not met"
        return "undecided" if "undecided" in verdicts else "met"

    def is_hopeless(self, misses: Sequence[int], dropped: int = 0) -> bool:
        """Whether enough missed a bound that no later look can say *met*, whatever follows.

        Args:
            misses: Of the requests that were sent.
            dropped: Requests that were not: streams were all taken, which is no matter of warm-up.
        """
        spare = self.skipped(self.sizes[-1])  # they may all have been in the warm-up
        most = self.sizes[-1] - spare
        for share, missed in zip(self.shares, misses, strict=True):
            hits = max(most - max(missed - spare, 0) - dropped, 0)
            if _judged_share(share, hits, most, most, most, self.tail) != "met":
                return True
        return False


def _judged_share(share: float, hits: int, n: int, end: int, worth: float, tail: float) -> Verdict:
    if share >= 1:  # all of them: no interval ever says so
        if hits < n:
            return "not met"
        return "met" if n >= end else "undecided"
    bounds = wilson(hits / n * worth, worth, tail) if n else None
    if bounds is None:
        return "undecided"
    if bounds[0] >= share:
        return "met"
    return "not met" if bounds[1] < share else "undecided"


def _lasts_s(bounds: Sequence[Bound], rate_per_s: float, *, confirms: bool) -> float:
    """How long a probe's window must be at a rate, in seconds.

    A server that is just as fast as requests come has a queue that wanders: the time that a request waits spreads by
    2/rate s² each second (both arrivals and service by chance), so that it takes bound² * rate / 2 s to leave [0,
    bound]. Until then such a server looks like one that keeps up.
    """
    if not confirms:
        return STEADY_S
    times_s = [bound.value / 1000 for bound in bounds if bound.metric in _OF_QUEUES]
    wanders_s = WANDERS * min(times_s, default=0.0) ** 2 * rate_per_s / 2
    return max(CONFIRM_S, min(wanders_s, LONGEST_S))


# -- backlogs

FEWEST_IN_LINE = 40  # requests below which nothing is said of a backlog
BATCHES = 20
TAIL = 0.001
TREND = 0.05
"""As TAIL, for the question whether a load may be said to be met: a server that keeps up is asked again later."""
GROWTH = 1.5  # least ratio of the last batch to the first: what grows by less may be a server that fills up


@dataclass(frozen=True, slots=True)
class Backlog:
    """A backlog that grows."""

    slope: float  # seconds that a request stays longer, for each second that passes; of a line through the batches
    # How long requests stayed in the first and the last batch
    first_s: float
    last_s: float


def backlog(due_s: NDArray[np.float64], stay_s: NDArray[np.float64], tail: float = TAIL) -> Backlog | None:
    """The backlog that requests show; None where none grows, or there are too few of them.

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
    if len(due_s) < FEWEST_IN_LINE or due_s[-1] <= due_s[0]:
        return None
    x, y = _batches(due_s), _batches(stay_s)
    growth = np.diff(y)
    error = float(growth.std(ddof=1)) / math.sqrt(len(growth))
    if growth.mean() <= stats.student(len(growth) - 1, tail) * error or y[-1] < GROWTH * y[0]:
        return None
    away = x - x.mean()
    slope = float(away @ y / (away @ away))
    return Backlog(round(slope, 6), round(float(y[0]), 6), round(float(y[-1]), 6))


def is_steady(due_s: NDArray[np.float64], stay_s: NDArray[np.float64], after: int = 0) -> bool:
    """Whether neither the time that requests stay nor the number in flight grows, as far as can be seen.

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


# -- one look

UNSTEADY = "requests stay longer and longer, or ever more are in flight: the load is not steady yet"
ALMOST = 0.95  # of the seconds that a window needs: what counts as that long where chance decides when requests come


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Requests in the order of start."""

    due_s: NDArray[np.float64]  # when each was due
    stay_s: NDArray[np.float64]  # from then to its end; NaN where it did not complete
    met: NDArray[np.bool_]  # which bounds it met, one column for each

    def __len__(self) -> int:
        return len(self.due_s)

    def after(self, n: int) -> Sample:
        """Without the first n."""
        return Sample(self.due_s[n:], self.stay_s[n:], self.met[n:])


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look says."""

    verdict: Verdict
    requests: int
    hits: tuple[int, ...]  # requests that met each bound, of `requests`; `worth` is how many independent ones those are
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
    tail = None
    if queues and due_at <= rule.sizes[0]:
        # A queue has busy spells: up to the first look one of them may be most of what was seen. Half of a look's tail
        # goes to the first early look, half of that to the next, and so on: all together they cost one look's.
        tail = float(rule.tail / 2 ** max(1, (due_at // EARLIEST).bit_length()))
    whole = _judged(rule, sample, dropped, tail=tail, last=last)
    if whole.verdict == "not met" or not queues:
        return whole
    if due_at < rule.sizes[0] and not last:
        return replace(whole, verdict="undecided")
    skipped = rule.skipped(len(sample))
    ended = ~np.isnan(sample.stay_s)
    if ended.any():  # until the first ones end, ever more are in flight
        filled_s = sample.due_s[0] + np.quantile(sample.stay_s[ended], 0.95)
        filled = int(np.searchsorted(sample.due_s, filled_s))
        skipped = max(skipped, min(filled, len(sample) - 1))
    found = _judged(rule, sample.after(skipped), dropped, last=last)
    if found.verdict == "not met":  # but for the warm-up it would be: of the whole probe that is not sure
        return replace(found, verdict="undecided")
    if found.verdict != "met":
        return found
    lasted_s = float(sample.due_s[-1] - sample.due_s[skipped])
    is_as_planned = due_at >= rule.sizes[0] and skipped == rule.skipped(len(sample))
    if not is_as_planned and lasted_s < ALMOST * rule.least_s:
        reason = f"{lasted_s:.3g} s after the warm-up are too short to see whether a queue grows; allow more with -n"
        return replace(found, verdict="undecided", reason=reason)
    if not is_steady(sample.due_s[ended], sample.stay_s[ended], int(ended[:skipped].sum())):
        return replace(found, verdict="undecided", reason=UNSTEADY)
    return found


def _judged(rule: Rule, sample: Sample, dropped: int, *, tail: float | None = None, last: bool = False) -> Looked:
    n = len(sample) + dropped
    hits = tuple(int(hit) for hit in sample.met.sum(axis=0))
    worth = [float(n)] * len(hits)
    if len(sample):  # requests that were not sent are worth as much as those that were
        for i, flags in enumerate(sample.met.T):
            worth[i] = independent_flags(flags, tail or rule.tail) * n / len(sample)
    verdict: Verdict = rule.judged(hits, n, worth=worth, last=last, tail=tail) if n else "undecided"
    return Looked(verdict, n, hits, tuple(worth))


def independent(sample: Sample) -> int:
    """How many independent requests a queue's are worth, by the times that they stay.

    Where none missed a bound, nothing else tells that one busy spell would have made hundreds miss it.
    """
    return max(1, independent_requests(sample.stay_s[~np.isnan(sample.stay_s)], 0.5))


# -- the probe

UNREACHABLE = ("dns", "connect", "tls", "timeout_connect")
"""Failures that say the server is gone. They end no probe: the engine ends the level, and then the model is known to
have failed, at whatever load."""
_NEXT_TEST = 1.5  # from one test for a backlog to the next, in requests: so few tests share little chance of error

_Row = tuple[list[bool], float, float]
"""A request: which bounds it met, when it was due, how long it stayed; NaN where it did not complete."""


@dataclass(frozen=True, slots=True)
class Attainment:
    """What became of one bound.

    Attributes:
        share: Of the requests that met it; None for a figure of the whole level, and where it has no meaning.
        worth: How many independent requests those that were judged are worth, at a rate by the times that they stayed
            too: what an estimate over all loads weighs them by; None as `share`.
    """

    bound: str
    share: float | None
    wanted: float | None  # the share that must
    interval: tuple[float, float] | None  # of `share`, at the confidence of one look
    attained: bool | None  # whether it holds; of a share, whether the interval says so; None where nothing does
    worth: int | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What a probe says, of how many requests, and why where that is not plain from the shares."""

    verdict: Verdict
    requests: int  # those that were judged; at a rate *met* is said of those after the warm-up alone
    shares: tuple[Attainment, ...]
    reason: str | None = None


@dataclass(slots=True)
class Probe:
    """A load that is being measured."""

    bounds: Sequence[Bound]
    rule: Rule
    first: int  # number of the first measured request
    opened: bool  # whether requests start at a rate, whatever is in flight
    streamed: bool = True
    decision: Decision | None = None
    _results: list[Result] = field(default_factory=list)  # measured ones, as they end
    _read: int = 0
    _judged: dict[int, _Row] = field(default_factory=dict)  # that ended before an earlier one
    _rows: list[_Row] = field(default_factory=list)  # the first ones, all of which have ended
    _misses: list[int] = field(init=False)  # of all that have ended
    _next_test: float = FEWEST_IN_LINE
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

    def close(self, facts: Mapping[str, object]) -> Decision:
        """The decision at the end of the level."""
        found = self.decision or self._last(dropped=int(str(facts.get("dropped") or 0)))
        if facts.get("status") == "failed":
            found = replace(found, verdict="not met", reason=str(facts.get("reason")))
        results = Results.from_results(self._results)
        data = LevelData(dict(facts), results, {}, True)
        if self.opened and found.verdict == "met":  # unless the load was not what it claims to be, or its backlog grows
            doubt = gates.in_flight(level.summary(data, (), streamed=self.streamed), ScenarioFacts())
            if doubt is not None and doubt.severity == "red":
                found = replace(found, verdict="undecided", reason=f"V2: {doubt.text}")
        metric = next((bound.metric for bound in self.bounds if bound.metric in STREAMED), None)
        if metric is not None and len(results) and found.verdict != "not met":
            share = request.burst_share(Requests.of(results, streamed=self.streamed), results)
            if share is not None and share > request.BURST:
                reason = f"{metric} says nothing: this server sends its answers in bursts"
                found = replace(found, verdict="undecided", reason=reason)
        if len(self.rule.shares) < len(self.bounds) and found.verdict != "not met":
            found = self._with_figures(found, data)
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

    def _sample(self, *, everything: bool = False) -> Sample:
        """The first requests, all of which have ended; or every one that has, in the order of start."""
        rows = self._rows
        if everything:
            rows = [*rows, *(self._judged[number] for number in sorted(self._judged))]
        met = np.array([hits for hits, _, _ in rows], dtype=np.bool_).reshape(len(rows), len(self.rule.shares))
        return Sample(np.array([due for _, due, _ in rows]), np.array([stay for _, _, stay in rows]), met)

    def _backlog(self) -> Decision | None:
        """*Not met*, where a rate is too high for good, whatever the SLO allows."""
        if not self.opened or len(self._rows) < self._next_test:
            return None
        self._next_test = len(self._rows) * _NEXT_TEST
        sample = self._sample()
        ended = ~np.isnan(sample.stay_s)
        found = backlog(sample.due_s[ended], sample.stay_s[ended])
        if found is None:
            return None
        reason = (
            f"saturated: with each second requests stay {found.slope:.2g} s longer, {found.last_s:.2g} s at the end "
            "(t test of the growth between 20 batches, at 0.1 %)"
        )
        return self._decided(replace(looked(self.rule, sample), verdict="not met", reason=reason), sample)

    def _at_size(self, before: int, dropped: int) -> Decision | None:
        """What a look says, if one is due: the first n requests are judged, however many more have ended."""
        now = len(self._rows)
        sizes = [size for size in (*self.rule.early, *self.rule.sizes) if before < size <= now]
        if dropped or not sizes:
            return None
        sample = self._sample()
        found = looked(self.rule, sample, at=sizes[-1])
        if found.verdict == "undecided" or (found.verdict == "met" and len(self.rule.shares) < len(self.bounds)):
            # What no look decided is reported as undecided, not as too many requests.
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
        sample = self._sample(everything=True)
        found = looked(self.rule, sample, dropped=dropped)
        if found.verdict == "not met":
            return self._decided(found, sample)
        if not (is_look or dropped):
            return None
        most = self.rule.sizes[-1]
        reason = f"{max(self._misses) + dropped} of {n} missed it: {most} requests can no longer say that it is met"
        return self._decided(replace(found, verdict="undecided", reason=reason), sample)

    def _last(self, dropped: int) -> Decision:
        """Of all requests, as the level's own figures are."""
        self._take()
        self._next_test = FEWEST_IN_LINE
        if (found := self._backlog()) is not None:
            return found
        sample = self._sample(everything=True)
        last = looked(self.rule, sample, dropped=dropped, last=True)
        if last.verdict == "undecided" and last.reason is None:
            n = self._read + dropped
            last = replace(last, reason="no request ended" if not n else f"{n} requests do not decide it")
        return self._decided(last, sample)

    def _decided(self, found: Looked, sample: Sample) -> Decision:
        most = independent(sample) if self.opened else math.inf
        counted = iter(zip(found.hits, found.worth, strict=True))
        shares = tuple(self._attainment(bound, counted, found.requests, most) for bound in self.bounds)
        return Decision(found.verdict, found.requests, shares, found.reason)

    def _attainment(self, bound: Bound, counted: Iterator[tuple[int, float]], n: int, most: float) -> Attainment:
        share = wanted(bound)
        if share is None or not n:
            return Attainment(bound.text, None, share, None, None)
        hit, of = next(counted)
        low, high = wilson(hit / n * of, of, self.rule.tail) or (0.0, 1.0)
        attained: bool | None = None
        if share >= 1:
            attained = hit == n
        elif low >= share:
            attained = True
        elif high < share:
            attained = False
        interval = round(low, 6), round(high, 6)
        return Attainment(bound.text, round(hit / n, 6), share, interval, attained, round(min(of, most)))

    def _with_figures(self, found: Decision, data: LevelData) -> Decision:
        """The decision with the bounds that are about figures of the whole level."""
        rows = level.summary(data, self.bounds, streamed=self.streamed).slo or ()
        attained = {row.bound: row.attained for row in rows}
        shares, figures = [], []
        for one in found.shares:
            if one.wanted is None:
                one = Attainment(one.bound, None, None, None, attained[one.bound])
                figures.append(one.attained)
            shares.append(one)
        found = replace(found, shares=tuple(shares))
        if False in figures:
            return replace(found, verdict="not met")
        if None in figures:
            return replace(found, verdict="undecided", reason="a figure of the level could not be told")
        return found
