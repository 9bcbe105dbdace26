"""When a run ends: once the means of its repeats are known well enough, or early, where a threshold surely fails."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from loadbench.engine import Progress
from loadbench.figures import PERCENTILES, in_words
from loadbench.metrics import Requests, headline, over_runs
from loadbench.metrics import level as levels
from loadbench.metrics.distribution import NS_PER_MS
from loadbench.metrics.slo import compare
from loadbench.runner.plan import PlannedLevel, Schedule
from loadbench.runner.watch import Facts
from loadbench.scenario import LEAST_REPEATS, Level, Scenario
from loadbench.scenario.bounds import Threshold
from loadbench.store import LevelData
from loadbench.store.record import Result, Results

# -- until the means are known well enough

FIGURES = ("output_tokens_per_s", "ttft_p50", "e2e_p50")  # of which the widths of intervals end the repeats
_LOAD = ("model", "concurrency", "request_rate_per_s", "shape")


def until_record(scenario: Scenario) -> dict[str, object]:
    """What run.json says under `until` at the start; the schedule fills it."""
    return {"wanted": scenario.until, "least": LEAST_REPEATS, "most": scenario.repeats, "reached": None, "runs": []}


@dataclass(slots=True)
class Rounds:
    """What runs in turns decide together: a round is the last one of all of them, or of none."""

    runs: list[Precise] = field(default_factory=list)
    _decided: dict[int, bool] = field(default_factory=dict)  # by the number of the round that would begin

    def over(self, number: int) -> bool:
        if number not in self._decided:  # whichever run comes second has more to go by
            concluded = [run.concludes() for run in self.runs]  # each of them says how far it is
            self._decided[number] = all(concluded)
        return self._decided[number]


@dataclass
class Precise(Schedule):
    """A schedule that measures all levels in rounds, and ends after one in which each mean is known well enough.

    Known well enough is a mean over runs whose 95 % interval (`metrics.over_runs`) is no further from it than
    `wanted`, of tokens/s and of the median latency, at every load. All loads stop together, so that their runs stay in
    turns. A load that failed or was skipped once is not waited for any more.
    """

    levels: Sequence[PlannedLevel]  # the plan's, in rounds
    # run.json's `until`. Figures that are in it count, as those of a run that is continued
    record: MutableMapping[str, Any]
    tell: Callable[[str], None]  # shows after each round how well the worst mean is known
    streamed: bool = True
    rounds: Rounds = field(default_factory=Rounds)  # shared by runs that take turns; unset, this run decides alone
    _given: int = 0
    _results: list[Result] = field(default_factory=list)
    _lost: set[tuple[object, ...]] = field(default_factory=set)  # loads that are not waited for

    def __post_init__(self) -> None:
        self.rounds.runs.append(self)

    def following(self) -> PlannedLevel | None:
        if self._given == len(self.levels):
            self._conclude()
            return None
        planned = self.levels[self._given]
        level = planned.level
        begins_round = self._given == 0 or level.repeat > self.levels[self._given - 1].level.repeat
        measured = any(row["level"] == level.id for row in self.record["runs"])
        if begins_round and not measured and self.rounds.over(level.repeat):
            return None
        self._given += 1
        self._results = []
        return planned

    def concludes(self) -> bool:
        """Whether this run needs no further round: all is known well enough, or nothing is left to wait for."""
        return self._conclude() or self._lost >= {_key(one.level) for one in self.levels}

    def left(self) -> int:
        return len(self.levels) - self._given + 1

    def heard(self, result: Result) -> None:
        self._results.append(result)

    def ended(self, progress: Progress, facts: Facts) -> None:
        """Keep the level's figures in the record, which the run folder writes together with the level."""
        level = progress.level
        if facts["status"] == "complete":
            known = {"id": level.id, "model": level.model, **level.load_facts, **facts}
            data = LevelData(known, Results.from_results(self._results), {}, True)
            figures = headline(levels.summary(data, [], streamed=self.streamed))
            self.record["runs"].append({"level": level.id, "model": level.model, **level.load_facts, **figures})
        elif facts["status"] != "interrupted":
            self._lost.add(_key(level))

    def skipped(self, planned: PlannedLevel, reason: str) -> None:
        self._lost.add(_key(planned.level))

    def _conclude(self) -> bool:
        """Whether all means are known well enough by now; says how well the worst one is."""
        rows = {row["level"]: row for row in self.record["runs"]}  # of a level that was measured again, the last
        grouped: dict[tuple[object, ...], list[Facts]] = {}
        for row in rows.values():
            load = tuple(row[name] for name in _LOAD)
            if load not in self._lost:
                grouped.setdefault(load, []).append(row)
        widths = []
        for runs in grouped.values():
            if len(runs) < LEAST_REPEATS:
                return False
            for figure in FIGURES:
                if figure not in runs[0]:
                    continue
                half = over_runs([run[figure] for run in runs]).half_width
                if half is not None:  # of a figure that no server reports, no run says more
                    widths.append((half, f"{in_words(figure)} of {runs[0]['level']}"))
        if not widths:
            return False
        half, where = max(widths)
        runs_each = min(map(len, grouped.values()))
        reached = bool(half <= self.record["wanted"])
        ends = f"{100 * self.record['wanted']:g} % is wanted"
        if reached:
            ends += ": enough"
        self.tell(f"after {runs_each} runs the least known mean is {where}, to {100 * half:.2g} %; {ends}")
        self.record["reached"] = reached
        return reached


def _key(level: Level) -> tuple[object, ...]:
    return tuple(getattr(level, name) for name in _LOAD)


# -- an early end

FEWEST = 10  # requests that have ended before anything is aborted: a bad request at its beginning ends no run
ERROR = 0.01  # chance that the looks at a level together end a run that is just at its limit
_GROWTH = 1.1  # from one look to the next, in requests


def with_aborts(schedule: Schedule, thresholds: Sequence[Threshold], *, streamed: bool) -> Schedule:
    """The schedule, which ends early where a threshold with `abort` surely fails; itself where there is none."""
    aborting = [one for one in thresholds if one.abort]
    if not aborting:
        return schedule
    return Abort(schedule, aborting, streamed=streamed)


@dataclass
class Abort(Schedule):
    """A schedule around another one. Once it has aborted, every level that follows is to be skipped."""

    schedule: Schedule
    thresholds: Sequence[Threshold]  # those that abort
    streamed: bool = True
    now_ns: Callable[[], int] = time.perf_counter_ns
    reason: str | None = None  # why the run was ended; None where it was not
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
        self._results, self._trials = [], []
        for one in self.thresholds:
            if one.is_about(level.id, level.model) and not level.closing:
                self._trials.append(Trial(one, level.concurrency is None))
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
        requests = Requests.of(Results.from_results(results), streamed=self.streamed) if results else None
        for trial in self._trials:
            if requests is not None:
                trial.take(requests)
            reason = trial.look(progress) if measured_s >= trial.threshold.after_s else None
            if reason is not None:
                self._by, self._cut, self.reason = trial.threshold, progress.phase != "draining", reason
                return True
        return False


_COUNTED = {
    ("failed", True): (("failed",), "failed"),
    ("failed", False): (("completed",), "completed"),
    ("success", True): (("completed",), "completed"),
    ("success", False): (("failed", "dropped"), "failed or were dropped"),
    ("dropped", True): (("dropped",), "were dropped"),
    ("dropped", False): (("issued",), "were sent"),
}
"""Of a share, and whether high values of it fail: the counts of `Progress` that speak for the condition, in words."""


@dataclass(slots=True)
class Trial:
    """A threshold on the level that is measured."""

    threshold: Threshold
    opened: bool  # whether requests start at a rate: then TTFT counts from when they were due
    _hits: int = 0  # completed requests whose time is on the wrong side
    _looks: int = 0
    _next_look: float = FEWEST

    def take(self, requests: Requests) -> None:
        """Some measured requests have ended."""
        bound = self.threshold.bound
        times = requests.times(self.opened).get(bound.metric)
        if times is not None:
            self._hits += int(np.count_nonzero(compare(times[requests.completed] / NS_PER_MS, bound)))

    def look(self, progress: Progress) -> str | None:
        """The reason, where the condition surely holds; None where it does not, or no look is due."""
        if progress.ended < self._next_look:
            return None
        self._next_look = progress.ended * _GROWTH
        self._looks += 1
        bound = self.threshold.bound
        above = bound.op in (">", ">=")
        # What counts for the condition is read first: a request that ends meanwhile counts against it.
        if (bound.metric, above) in _COUNTED:
            names, what = _COUNTED[bound.metric, above]
            hits = sum(getattr(progress, name) for name in names)
            n = progress.issued
            if bound.metric != "failed":
                n += progress.dropped
            share = bound.value if above else 1 - bound.value
        else:
            p = PERCENTILES.get(bound.statistic or "max", 1.0)
            hits, share = self._hits, p
            what = f"had a {bound.metric} {bound.op} {bound.value:g} ms"
            if above:  # a request that failed or was dropped never had its answer: it is slower than any limit
                hits, share = hits + progress.failed + progress.dropped, 1 - p
                what += " or failed"
            n = progress.issued + progress.dropped - progress.cancelled
        if chance(hits, n, share) >= ERROR / (self._looks * (self._looks + 1)):
            return None
        return f"{self.threshold.text}: {hits} of {n} requests {what}"


def chance(hits: int, n: int, share: float) -> float:
    """The chance of at least this many of n, each with this chance: the exact binomial tail.

    1 where there are not even as many as expected, which is no evidence for more.

    >>> chance(2, 20, 0.01) > 0.01, round(chance(12, 20, 0.1), 9), chance(1, 20, 0.0), chance(0, 20, 0.0)
    (True, 5.8e-08, 0.0, 1.0)
    """
    if hits <= n * share or n <= 0:
        return 1.0
    if share <= 0:
        return 0.0
    odds = share / (1 - share)
    logarithm = math.lgamma(n + 1) - math.lgamma(hits + 1) - math.lgamma(n - hits + 1)
    term = math.exp(logarithm + hits * math.log(share) + (n - hits) * math.log1p(-share))
    total = 0.0
    for k in range(hits, n + 1):  # each term is smaller than the one before: more came than are expected
        total += term
        if term < total * 1e-12:
            break
        term *= (n - k) / (k + 1) * odds
    return total
