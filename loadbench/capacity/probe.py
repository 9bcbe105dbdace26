"""One load while it is measured: its requests come in one by one, and as soon as they decide, there is a verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loadbench import intervals
from loadbench.capacity import words
from loadbench.capacity.backlog import FEWEST, Backlog, backlog
from loadbench.capacity.rule import Rule, Verdict, wanted
from loadbench.metrics import Requests, level, request
from loadbench.metrics.slo import STREAMED, Objectives
from loadbench.result import Result, Results
from loadbench.scenario import Bound
from loadbench.store import LevelData

UNREACHABLE = ("dns", "connect", "tls", "timeout_connect")
"""Failures that say the server is gone. They end no probe: the engine ends the level, and then the model is known to
have failed, at whatever load."""
_NEXT_TEST = 1.5
"""From one test for a backlog to the next, in requests: so many tests share little chance of error."""


@dataclass(frozen=True, slots=True)
class Attainment:
    """What became of one bound.

    Attributes:
        share: Of the requests that met it; None for a figure of the whole level, and where it has no meaning.
        wanted: The share that must.
        interval: Of `share`, at the confidence of one look.
        attained: Whether it holds; of a share, whether the interval says so; None where nothing does.
    """

    bound: str
    share: float | None
    wanted: float | None
    interval: tuple[float, float] | None
    attained: bool | None


@dataclass(frozen=True, slots=True)
class Decision:
    """What a probe says, of how many requests, and why where that is not plain from the shares."""

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
    _judged: dict[int, tuple[list[bool], float, float]] = field(default_factory=dict)  # bounds met, due s, stay s
    _hits: list[int] = field(init=False)  # of the first `_whole` requests, all of which have ended
    _misses: list[int] = field(init=False)  # of all that have ended
    _whole: int = 0
    _stays: list[tuple[float, float]] = field(default_factory=list)  # when due, and how long: of the first `_whole`
    _next_test: float = FEWEST

    def __post_init__(self) -> None:
        self._hits, self._misses = [0] * len(self.rule.shares), [0] * len(self.rule.shares)

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
        before = self._whole
        self._take()
        found = self._backlog() or self._at_size(before, dropped) or self._hopeless(dropped)
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
            found = Decision("not met", found.requests, found.shares, str(facts.get("reason")))
        results = Results.from_results(self._results)
        requests = Requests.of(results, streamed=self.streamed)
        if (bare := self._without_meaning(results, requests)) and found.verdict != "not met":
            burst = f"{bare} says nothing: this server sends its answers in bursts"
            found = Decision("undecided", found.requests, found.shares, burst)
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
        while (judged := self._judged.pop(self.first + self._whole, None)) is not None:
            hits, due_s, stay_s = judged
            self._hits = [n + hit for n, hit in zip(self._hits, hits, strict=True)]
            self._whole += 1
            if not math.isnan(stay_s):
                self._stays.append((due_s, stay_s))

    def _at_size(self, before: int, dropped: int) -> Decision | None:
        """What a look says, if one is due: the first n requests are judged, however many more have ended."""
        if dropped or not any(before < size <= self._whole for size in self.rule.sizes):
            return None
        verdict = self.rule.judged(self._hits, self._whole)
        if verdict == "undecided" or (verdict == "met" and len(self.rule.shares) < len(self.bounds)):
            return None
        return self._decided(verdict, self._hits, self._whole)

    def _hopeless(self, dropped: int) -> Decision | None:
        n = self._read + dropped
        misses = [missed + dropped for missed in self._misses]
        if not n or not self.rule.is_hopeless(misses):
            return None
        hits = [n - missed for missed in misses]
        if self.rule.judged(hits, n) == "not met":
            return self._decided("not met", hits, n)
        most = self.rule.sizes[-1]
        reason = f"{max(misses)} of {n} missed it: {most} requests can no longer say that it is met"
        return self._decided("undecided", hits, n, reason)

    def _backlog(self) -> Decision | None:
        if not self.opened or len(self._stays) < self._next_test:
            return None
        self._next_test = len(self._stays) * _NEXT_TEST
        due_s, stay_s = np.array(self._stays).T
        found = backlog(due_s, stay_s)
        return None if found is None else self._saturated(found)

    def _saturated(self, found: Backlog) -> Decision:
        return self._decided("not met", self._hits, self._whole, words.saturated(found.slope, found.last_s))

    def _last(self, facts: Mapping[str, Any]) -> Decision:
        """Of all requests, as the level's own figures are."""
        self._take()
        dropped = int(facts.get("dropped") or 0)
        n = self._read + dropped
        hits = [n - dropped - missed for missed in self._misses]
        self._next_test = FEWEST
        if (found := self._backlog()) is not None:
            return found
        verdict = self.rule.judged(hits, n, last=True) if n else "undecided"
        reason = None
        if verdict == "undecided":
            reason = "no request ended" if not n else f"{n} requests do not decide it"
        return self._decided(verdict, hits, n, reason)

    def _decided(self, verdict: Verdict, hits: Sequence[int], n: int, reason: str | None = None) -> Decision:
        counted = iter(hits)
        shares = tuple(self._attainment(bound, wanted(bound), counted, n) for bound in self.bounds)
        return Decision(verdict, n, shares, reason)

    def _attainment(self, bound: Bound, share: float | None, hits: Any, n: int) -> Attainment:
        if share is None or not n:
            return Attainment(bound.text, None, share, None, None)
        hit = next(hits)
        ends = intervals.wilson(hit, n, self.rule.tail)
        low, high = ends or (0.0, 1.0)
        attained = (hit == n) if share >= 1 else True if low >= share else False if high < share else None
        return Attainment(bound.text, round(hit / n, 6), share, (round(low, 6), round(high, 6)), attained)

    def _without_meaning(self, results: Results, requests: Requests) -> str | None:
        """A metric of the bounds that bursts leave without meaning."""
        named = next((bound.metric for bound in self.bounds if bound.metric in STREAMED), None)
        burst = request.burst_share(requests, results) if named and len(results) else None
        return named if burst is not None and burst > level.BURST else None

    def _with_figures(self, found: Decision, data: LevelData) -> Decision:
        """The decision with the bounds that are about figures of the whole level."""
        rows = level.summary(data, self.bounds, streamed=self.streamed)["slo"]
        of_figures = {row["bound"]: row["attained"] for row in rows}
        shares = tuple(
            one if one.wanted is not None else Attainment(one.bound, None, None, None, of_figures[one.bound])
            for one in found.shares
        )
        said = [one.attained for one in shares if one.wanted is None]
        if False in said:
            return Decision("not met", found.requests, shares)
        if None in said:
            return Decision("undecided", found.requests, shares, "a figure of the level could not be told")
        return Decision(found.verdict, found.requests, shares, found.reason)
