"""Ends a run as soon as a threshold with `abort` surely fails: a schedule around the one that decides on the levels.

A look is taken when a level has measured for the threshold's `after` and 10 of its requests have ended, and again each
time that a tenth more have come. Requests in flight count as if they ended well. The k-th look asks how likely so many
bad requests of so many would be if their share were just at the limit, and aborts below 0.01/(k(k+1)): over all looks
of a level a run at its limit is ended wrongly in at most 1 % of cases, as far as requests are independent.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from loadbench.bounds import Threshold
from loadbench.engine import Progress
from loadbench.figures import PERCENTILES
from loadbench.metrics import Requests
from loadbench.metrics.distribution import NS_PER_MS
from loadbench.metrics.slo import compare
from loadbench.record import Result, Results
from loadbench.runner.plan import PlannedLevel
from loadbench.runner.session import Schedule

FEWEST = 10
"""Requests that have ended before anything is aborted: nobody ends a run for a bad request at its beginning."""
ERROR = 0.01
"""Chance that the looks at a level together end a run that is just at its limit."""
_GROWTH = 1.1
"""From one look to the next, in requests."""


def watched(schedule: Schedule, thresholds: Sequence[Threshold], *, streamed: bool) -> Schedule:
    """The schedule, which ends early where a threshold with `abort` surely fails; itself where there is none."""
    found = [one for one in thresholds if one.abort]
    return Abort(schedule, found, streamed=streamed) if found else schedule


@dataclass(slots=True)
class Abort:
    """A schedule around another one. Once it has aborted, every level that follows is to be skipped.

    Attributes:
        thresholds: Those that abort.
        reason: Why the run was ended; None where it was not.
    """

    schedule: Schedule
    thresholds: Sequence[Threshold]
    streamed: bool = True
    now_ns: Callable[[], int] = time.perf_counter_ns
    reason: str | None = None
    _by: Threshold | None = None
    _cut: bool = False  # whether the present level was still to begin requests
    _trials: list[Trial] | None = None  # of the present level
    _results: list[Result] = field(default_factory=list)  # measured ones of the present level, not yet counted

    def following(self) -> PlannedLevel | None:
        planned = self.schedule.following()
        if planned is None:
            return None
        if self.reason is not None:
            return replace(planned, skip=self.reason)
        level = planned.level
        self._results = []
        judged = [] if level.closing else self.thresholds
        self._trials = [Trial(one, level.concurrency is None) for one in judged if one.is_about(level.id, level.model)]
        return planned

    def left(self) -> int:
        return self.schedule.left()

    def heard(self, result: Result) -> None:
        if self._trials and self._by is None and not result.warmup:
            self._results.append(result)
        self.schedule.heard(result)

    def has_enough(self, progress: Progress) -> bool:
        return self._has_failed(progress) or self.schedule.has_enough(progress)

    def ended(self, progress: Progress, facts: dict[str, Any]) -> None:
        if self._by is not None and self._trials:
            facts["aborted"] = self._by.text
            if self._cut and facts["status"] == "complete":
                facts["status"], facts["reason"] = "aborted", self.reason
            self.reason = f"{self._by.text} ended the run at {progress.level.id}"
        self._trials = None
        self.schedule.ended(progress, facts)

    def skipped(self, planned: PlannedLevel, reason: str) -> None:
        self.schedule.skipped(planned, reason)

    def _has_failed(self, progress: Progress) -> bool:
        if self._by is not None:
            return True
        if not self._trials or progress.measured_from_ns is None:
            return False
        measured_s = (self.now_ns() - progress.measured_from_ns) / 1e9
        n = len(self._results)  # while more come in: what was taken is let go, at once and in one step
        results = self._results[:n]
        del self._results[:n]
        columns = Results.from_results(results) if results else None
        requests = None if columns is None else Requests.of(columns, streamed=self.streamed)
        for trial in self._trials:
            if requests is not None:
                trial.take(requests)
            found = trial.look(progress) if measured_s >= trial.threshold.after_s else None
            if found is not None:
                self._by, self._cut, self.reason = trial.threshold, progress.phase != "draining", found
                return True
        return False


@dataclass(slots=True)
class Trial:
    """A threshold on the level that is measured.

    Attributes:
        opened: Whether requests start at a rate: then TTFT counts from when they were due.
    """

    threshold: Threshold
    opened: bool
    _hits: int = 0  # completed requests whose time is on the wrong side
    _looks: int = 0
    _next_look: float = FEWEST

    def take(self, requests: Requests) -> None:
        """Some measured requests have ended."""
        bound = self.threshold.bound
        times = {
            "ttft": requests.ttft_from_due if self.opened else requests.ttft,
            "tpot": requests.tpot,
            "e2e": requests.e2e,
            "client_queue": requests.client_queue,
        }.get(bound.metric)
        if times is not None:
            self._hits += int(np.count_nonzero(compare(times[requests.completed] / NS_PER_MS, bound)))

    def look(self, progress: Progress) -> str | None:
        """What is said of a condition that surely holds; None where it does not, or no look is due."""
        if progress.ended < self._next_look:
            return None
        self._next_look = progress.ended * _GROWTH
        self._looks += 1
        hits, n, limit = self._counts(progress)
        if chance(hits, n, limit) >= ERROR / (self._looks * (self._looks + 1)):
            return None
        return f"{self.threshold.text}: {hits} of {n} requests {self._what()}"

    def _counts(self, progress: Progress) -> tuple[int, int, float]:
        """Requests that speak for the condition, of how many, and the share of them from which on it holds."""
        bound = self.threshold.bound
        # What counts for the condition is read first: a request that ends meanwhile counts against it.
        failed, completed, dropped = progress.failed, progress.completed, progress.dropped
        issued = progress.issued
        due = issued + dropped
        above = bound.op in (">", ">=")
        match bound.metric, above:
            case "failed", True:
                return failed, issued, bound.value
            case "failed", False:
                return completed, issued, 1 - bound.value
            case "success", True:
                return completed, due, bound.value
            case "success", False:
                return failed + dropped, due, 1 - bound.value
            case "dropped", True:
                return dropped, due, bound.value
            case "dropped", False:
                return issued, due, 1 - bound.value
        p = PERCENTILES.get(bound.statistic or "max", 1.0)
        # A request that failed or was dropped never had its answer: it is slower than any limit.
        hits = self._hits + failed + dropped if above else self._hits
        return hits, due - progress.cancelled, 1 - p if above else p

    def _what(self) -> str:
        bound = self.threshold.bound
        above = bound.op in (">", ">=")
        match bound.metric, above:
            case "failed", True:
                return "failed"
            case "success", False:
                return "failed or were dropped"
            case "dropped", True:
                return "were dropped"
            case "dropped", False:
                return "were sent"
            case "failed" | "success", _:
                return "completed"
        failed = " or failed" if above else ""
        return f"had a {bound.metric} {bound.op} {bound.value:g} ms{failed}"


def chance(hits: int, n: int, share: float) -> float:
    """How likely at least so many of n are, each with this chance: the exact binomial tail.

    1 where there are not even as many as expected, which is no evidence for more.

    >>> chance(2, 20, 0.01) > 0.01, round(chance(12, 20, 0.1), 9), chance(1, 20, 0.0), chance(0, 20, 0.0)
    (True, 5.8e-08, 0.0, 1.0)
    """
    if hits <= n * share or n <= 0:
        return 1.0
    if share <= 0:
        return 0.0
    odds = share / (1 - share)
    term = math.exp(
        math.lgamma(n + 1)
        - math.lgamma(hits + 1)
        - math.lgamma(n - hits + 1)
        + hits * math.log(share)
        + (n - hits) * math.log1p(-share)
    )
    total = 0.0
    for k in range(hits, n + 1):  # each term is smaller than the one before: more came than are expected
        total += term
        if term < total * 1e-12:
            break
        term *= (n - k) / (k + 1) * odds
    return total
