"""The highest load within an SLO: found by doubling and bisection, each load measured until an interval decides.

The grid says which load is tried next, a pure function of what was tried. `Search` is the schedule of a run: it asks
the grid, gives levels, and keeps every step in run.json.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal, cast

from loadbench.engine import MAX_STREAMS, Limits, Progress
from loadbench.errors import UsageError
from loadbench.metrics.slo import WHOLE, Tried, zones
from loadbench.runner import job
from loadbench.runner.plan import PlannedLevel, Schedule
from loadbench.runner.probe import UNREACHABLE, Probe, Rule
from loadbench.runner.watch import Facts
from loadbench.scenario import Level, Scenario
from loadbench.store.record import Result
from loadbench.store.schema import SearchRecord, ShareRecord, StepRecord
from loadbench.store.summary import Verdict

# -- which load is tried next

LOWEST_RATE = 1 / 64  # of the first rate: how far down a search goes for a rate that meets the SLO
CONFIRMED = 2  # probes that the answer must meet, the one that found it among them


@dataclass(frozen=True, slots=True)
class Grid:
    """The loads of a search."""

    by: Literal["concurrency", "rate"]  # streams at once, which are whole, or requests per second
    start: float
    most: float
    # How near the lowest load that fails must be to the answer, as a share of it; one stream is near enough
    within: float = 0.05

    @classmethod
    def of(cls, search: job.Search) -> Grid:
        """The loads that the settings allow.

        Raises:
            UsageError: There are none.
        """
        whole = search.by == "concurrency"
        for option, value in (("--from", search.start), ("--max", search.most)):
            if not 0 < value < 1e6:
                raise UsageError(f"{option} {value:g}: must be more than 0 and less than a million")
            if whole and value != int(value):
                raise UsageError(f"{option} {value:g}: streams are whole; for a rate add --by rate")
        if search.most < search.start:
            raise UsageError(f"--max {search.most:g} is less than --from {search.start:g}")
        if not 0.005 <= search.within <= 1:
            raise UsageError(f"--within {100 * search.within:g}%: must be between 0.5% and 100%")
        if whole:
            return cls(search.by, int(search.start), int(search.most), search.within)
        return cls(search.by, search.start, search.most, search.within)

    @property
    def lowest(self) -> float:
        if self.by == "concurrency":
            return 1
        return _short(self.start * LOWEST_RATE)

    def doubled(self, load: float) -> float:
        return min(2 * load, self.most)

    def between(self, low: float, high: float) -> float | None:
        """A load in the middle; None where the two are neighbours.

        >>> Grid("concurrency", 1, 1024).between(8, 16), Grid("concurrency", 1, 1024).between(8, 9)
        (12, None)
        >>> Grid("rate", 1, 1024).between(4.0, 8.0), Grid("rate", 1, 1024).between(4.0, 4.2)
        (5.66, None)
        """
        if high <= low * (1 + self.within) * (1 + 1e-9):
            return None
        if self.by == "concurrency":
            middle: float = math.floor((low + high) / 2)
        else:
            middle = _short(math.sqrt(low * high))
        if low < middle < high:
            return middle
        return None  # rounding has hit one of the two


def following(tried: Sequence[Tried], grid: Grid) -> float | None:
    """The load to try next; None where the search is over.

    It doubles until a load does not surely meet the SLO (or halves until one does), bisects until the two are
    neighbours, and measures the answer once more. If that fails, the search goes on below it. Where loads above the
    answer are undecided, it then looks for the lowest one that misses it.

    >>> following([], Grid("concurrency", 1, 1024))
    1
    >>> following([Tried(1, "met"), Tried(2, "not met")], Grid("concurrency", 1, 1024))
    1
    """
    for_answer = _towards_answer(tried, grid)
    zone = zones(tried)
    if for_answer is not None or not zone.undecided:
        return for_answer
    top = zone.undecided[-1]
    if zone.misses is not None:
        return grid.between(top, zone.misses)
    if top >= grid.most:
        return None
    return grid.doubled(top)


def answer(tried: Sequence[Tried], grid: Grid) -> float | None:
    """The answer, confirmed; None while it is not, and where no load met the SLO."""
    if _towards_answer(tried, grid) is not None:
        return None
    return zones(tried).meets


def contradictions(tried: Sequence[Tried]) -> list[float]:
    """Loads that met the SLO although they, or lower ones, did not surely meet it another time."""
    lowest = _doubtful(tried)
    if lowest is None:
        return []
    return sorted({one.load for one in tried if one.verdict == "met" and one.load >= lowest})


def _towards_answer(tried: Sequence[Tried], grid: Grid) -> float | None:
    low, high = zones(tried).meets, _doubtful(tried)
    if low is None:
        if high is None:
            return grid.start
        if high <= grid.lowest:
            return None
        if grid.by == "concurrency":
            return max(high // 2, grid.lowest)
        return max(_short(high / 2), grid.lowest)
    if high is None and low < grid.most:
        return grid.doubled(low)
    if high is not None and (middle := grid.between(low, high)) is not None:
        return middle
    if sum(one.load == low for one in tried) < CONFIRMED:
        return low
    return None


def _doubtful(tried: Sequence[Tried]) -> float | None:
    """The lowest load that did not surely meet the SLO."""
    return min((one.load for one in tried if one.verdict != "met"), default=None)


def _short(rate: float) -> float:
    """A rate that reads well, in three digits."""
    return float(f"{rate:.3g}")


# -- the search

SHORTEST_S = 1.0  # of a budget's rest: with less no probe is begun
LATE = 1.2  # of the time that a probe at a rate takes: what it must be allowed, for requests come by chance
STOPPED = "the search was interrupted"
BUDGET = "the budget of time was spent"
TWICE = "the capacity was probed twice"
UNDECIDED = "the lowest load does not surely meet it"


def begun(models: Sequence[str], grid: Grid, scenario: Scenario) -> list[SearchRecord]:
    """What run.json says under `capacity` at the start: a record for each model, which the search fills."""
    rule = Rule.of(scenario.bounds, level_of("", grid, grid.start, 1), scenario.requests)
    records: list[SearchRecord] = []
    for model in models:
        record: SearchRecord = {
            "model": model,
            "by": grid.by,
            "start": grid.start,
            "most": grid.most,
            "within": grid.within,
            "slo": list(scenario.slo),
            "looks": len(rule.sizes),
            "confidence": round(rule.confidence, 6),
            "steps": [],
            "found": None,
            "bracket": (None, None),
            "contradictions": [],
            "reason": STOPPED,
        }
        records.append(record)
    return records


def level_of(model: str, grid: Grid, load: float, repeat: int) -> Level:
    """A load on a model as a level, named as in any run: `m@c8`, `m@c8#2`."""
    if grid.by == "concurrency":
        return Scenario(concurrency=[int(load)], repeat=repeat).levels([model])[-1]
    return Scenario(request_rate=[float(load)], repeat=repeat).levels([model])[-1]


def check(scenario: Scenario, grid: Grid, budget_s: float | None) -> None:
    """Refuse a search that cannot be: the scenario has no SLO, or one that cannot be searched with.

    Raises:
        UsageError: It is one.
    """
    if not scenario.slo:
        raise UsageError("--slo is missing: say what the load is to meet, as --slo ttft_p95=800ms --slo success=99%")
    for bound in scenario.bounds:
        if not scenario.stream and bound.metric in WHOLE:
            raise UsageError(
                f"--slo {bound.text}: answers that are asked for whole have no {bound.metric}: use e2e_p95"
            )
    # Whether that number of requests can decide.
    Rule.of(scenario.bounds, level_of("", grid, grid.start, 1), scenario.requests)
    if budget_s is not None and budget_s < 1:
        raise UsageError(f"--budget {budget_s:g}s is too short for one probe: give at least 1s")


@dataclass
class Search(Schedule):
    """A schedule that finds each model's capacity."""

    scenario: Scenario  # its SLO, its limits of a probe, its warm-up
    records: Sequence[SearchRecord]  # run.json's `capacity`. What is in it is not done again
    # Called after each step with the model, the step and the answer so far, and the same in words
    tell: Callable[[str, Facts, str], None]
    budget_s: float | None = None  # how long it all may take
    now_s: Callable[[], float] = time.monotonic  # a monotonic clock
    _at: int = -1  # the model whose turn it is
    _ends_s: float | None = None  # of the whole budget
    _turn_ends_s: float | None = None  # of this model's share of it
    _probe: Probe | None = None
    _cut: bool = False  # whether the budget may end the present probe
    _given_up: set[str] = field(default_factory=set)

    def following(self) -> PlannedLevel | None:
        while True:
            if self._at >= 0 and (planned := self._next_of(self.records[self._at])) is not None:
                return planned
            if self._at + 1 == len(self.records):
                return None
            self._at += 1
            if self.budget_s is not None:  # the models that are left share what is left of it
                now_s = self.now_s()
                if self._ends_s is None:
                    self._ends_s = now_s + self.budget_s
                self._turn_ends_s = now_s + (self._ends_s - now_s) / (len(self.records) - self._at)

    def heard(self, result: Result) -> None:
        if self._probe is not None:
            self._probe.heard(result)

    def has_enough(self, progress: Progress) -> bool:
        return self._probe is not None and self._probe.look(progress.dropped) is not None

    def ended(self, progress: Progress, facts: Facts) -> None:
        """Add the step and its consequence to the record, which the run folder writes together with the level."""
        record, level, probe = self.records[self._at], progress.level, self._probe
        if facts["status"] == "interrupted" or probe is None:
            self._set_reason(record, STOPPED)
            return
        load = level.concurrency or level.request_rate_per_s or 0.0
        gone = facts["status"] == "failed" and bool(progress.errors) and set(progress.errors) <= set(UNREACHABLE)
        lost = facts["status"] == "incomplete"
        again = lost and any(step["load"] == load and not step["counted"] for step in record["steps"])
        offered = progress.issued + progress.dropped
        cut = self._cut and probe.decision is None and offered < (progress.limits.requests or math.inf)
        decision = probe.close({"id": level.id, "model": level.model, **level.load_facts, **facts})
        step = cast(
            StepRecord,
            {
                "load": load,
                "level": level.id,
                **asdict(decision),
                # What a budget cut short, a server that went away and a part that is missing say nothing of the load.
                "counted": not (gone or lost or (cut and decision.verdict == "undecided")),
            },
        )
        record["steps"].append(step)
        self._conclude(record)
        if gone or again:
            self._give_up(record, f"{level.id}: {facts['reason']}")
        text = line(step)
        if len(self.records) > 1:
            text = f"{record['model']}, {text}"
        so_far = {**step, "bracket": record["bracket"], "found": record["found"]}
        self.tell(record["model"], so_far, text)

    def skipped(self, planned: PlannedLevel, reason: str) -> None:
        self._give_up(self.records[self._at], reason)

    def _next_of(self, record: SearchRecord) -> PlannedLevel | None:
        grid, tried = _grid(record), _tried(record)
        load = following(tried, grid)
        if load is None or record["model"] in self._given_up:
            return None
        left_s = math.inf if self._turn_ends_s is None else self._turn_ends_s - self.now_s()
        if left_s < SHORTEST_S:
            self._give_up(record, BUDGET)
            return None
        scenario = self.scenario
        repeat = 1 + sum(step["load"] == load for step in record["steps"])
        level = level_of(record["model"], grid, load, repeat)
        confirms = any(one.load == load and one.verdict == "met" for one in tried)
        rule = Rule.of(scenario.bounds, level, scenario.requests, confirms=confirms)
        warmup = scenario.warmup_for(level)
        longest_s = math.inf
        if scenario.duration is not None:
            longest_s = max(float(scenario.duration), LATE * rule.warmed_up_s)
        self._cut = left_s < longest_s
        longest_s = min(left_s, longest_s)
        duration_s = longest_s if math.isfinite(longest_s) else None
        limits = Limits(
            requests=rule.sizes[-1],
            duration_s=duration_s,
            warmup=warmup,
            max_streams=scenario.max_streams or MAX_STREAMS,
        )
        self._probe = Probe(scenario.bounds, rule, warmup, level.concurrency is None, scenario.stream)
        return PlannedLevel(level, limits, 0.0, limits.duration_s or 0.0)

    def _give_up(self, record: SearchRecord, reason: str) -> None:
        self._given_up.add(record["model"])
        self._set_reason(record, reason)

    def _set_reason(self, record: SearchRecord, reason: str) -> None:
        """Why there is no answer; one that was confirmed stays, whatever ends the search after it."""
        if record["found"] is None:
            record["reason"] = reason

    def _conclude(self, record: SearchRecord) -> None:
        """The answer as far as the steps go."""
        grid, tried = _grid(record), _tried(record)
        zone = zones(tried)
        record["bracket"] = zone.meets, zone.misses
        record["contradictions"] = contradictions(tried)
        record["found"] = answer(tried, grid)
        if record["found"] is not None:
            record["reason"] = "the highest load that was allowed meets it"
            if any(one.load > record["found"] for one in tried):
                record["reason"] = TWICE
        elif following(tried, grid) is not None:
            record["reason"] = STOPPED
        elif zone.misses == grid.lowest:
            record["reason"] = "not even the lowest load meets it"
        else:
            record["reason"] = UNDECIDED


def _grid(record: SearchRecord) -> Grid:
    return Grid(cast(Literal["concurrency", "rate"], record["by"]), record["start"], record["most"], record["within"])


def _tried(record: SearchRecord) -> list[Tried]:
    return [Tried(step["load"], cast(Verdict, step["verdict"])) for step in record["steps"] if step["counted"]]


# -- a step in words


def line(step: StepRecord) -> str:
    """As `c8: met (97-100 % of 95 % wanted, 120 requests)`.

    >>> share = {"bound": "ttft_p95=1s", "share": 1.0, "wanted": 0.95, "interval": [0.968, 1.0], "attained": True}
    >>> line({"level": "m@c8", "verdict": "met", "requests": 120, "shares": [share], "reason": None})
    'c8: met (97-100 % of 95 % wanted, 120 requests)'
    """
    measured, missed = [], []
    for one in step["shares"]:
        if one["interval"] is not None:
            measured.append(one)
        if one["wanted"] is None and one["attained"] is False:
            missed.append(f"{one['bound']} does not hold")
    parts = []
    if measured:
        worst = min(measured, key=_room)
        low, high = worst["interval"] or (0.0, 1.0)
        share = f"{_percent(low)}-{_percent(high)} %"
        if len(measured) > 1:
            share += f" with {worst['bound']}"
        parts.append(f"{share} of {_percent(worst['wanted'] or 0)} % wanted")
    parts += [*missed, f"{step['requests']} requests"]
    text = f"{step['level'].rpartition('@')[2]}: {step['verdict']} ({', '.join(parts)})"
    if step["reason"]:
        text += f"; {step['reason']}"
    return text


def _room(one: ShareRecord) -> float:
    """How much more of the requests may miss the bound than do: the worst share has the least."""
    return (1 - (one["wanted"] or 0) + 1e-9) / (1 - (one["share"] or 0) + 1e-9)


def _percent(share: float) -> str:
    """Whole, but for what lies near all: 99.6 is no 100."""
    percent = 100 * share
    if percent < 98.5:
        return f"{percent:.0f}"
    return f"{math.floor(percent * 10) / 10:g}"
