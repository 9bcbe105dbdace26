"""The highest load within an SLO: found by doubling and bisection, each load measured until an interval decides.

The grid says which load is tried next, a pure function of what was tried. `Search` is the schedule of a run: it asks
the grid, gives levels, and keeps every step in run.json.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from loadbench.engine import MAX_STREAMS, Limits, Progress
from loadbench.errors import UsageError
from loadbench.metrics.slo import WHOLE, Tried, zones
from loadbench.runner import job
from loadbench.runner.plan import PlannedLevel
from loadbench.runner.probe import UNREACHABLE, Probe
from loadbench.runner.rule import Rule
from loadbench.scenario import Level, Scenario
from loadbench.store.record import Result


def line(step: Mapping[str, Any]) -> str:
    """As `c8: met (97-100 % of 95 % wanted, 120 requests)`.

    >>> share = {"bound": "ttft_p95=1s", "share": 1.0, "wanted": 0.95, "interval": [0.968, 1.0], "attained": True}
    >>> line({"level": "m@c8", "verdict": "met", "requests": 120, "shares": [share], "reason": None})
    'c8: met (97-100 % of 95 % wanted, 120 requests)'
    """
    load = str(step["level"]).rpartition("@")[2]
    said = [*_worst(step["shares"]), f"{step['requests']} requests"]
    reason = f"; {step['reason']}" if step["reason"] else ""
    return f"{load}: {step['verdict']} ({', '.join(said)}){reason}"


def _worst(shares: Any) -> list[str]:
    """The share that is furthest below, or least above what is wanted."""
    known = [one for one in shares if one["interval"] is not None]
    missed = [f"{one['bound']} does not hold" for one in shares if one["wanted"] is None and one["attained"] is False]
    if not known:
        return missed
    worst = min(known, key=lambda one: (1 - one["wanted"] + 1e-9) / (1 - one["share"] + 1e-9))
    low, high = worst["interval"]
    name = f" with {worst['bound']}" if len(known) > 1 else ""
    return [f"{_percent(low)}-{_percent(high)} %{name} of {_percent(worst['wanted'])} % wanted", *missed]


def _percent(share: float) -> str:
    """Whole, but for what lies near all: 99.6 is no 100."""
    percent = 100 * share
    return f"{percent:.0f}" if percent < 98.5 else f"{math.floor(percent * 10) / 10:g}"


LOWEST_RATE = 1 / 64
"""Of the first rate: how far down a search goes for a rate that meets the SLO."""
CONFIRMED = 2
"""Probes that the answer must meet, the one that found it among them."""

By = Literal["concurrency", "rate"]


@dataclass(frozen=True, slots=True)
class Grid:
    """The loads of a search.

    Attributes:
        by: Streams at once, which are whole, or requests per second.
        start: The first load.
        most: The highest.
        within: How near the lowest load that fails must be to the answer, as a share of it; one stream is near enough.
    """

    by: By
    start: float
    most: float
    within: float = 0.05

    @property
    def most_streams(self) -> int:
        """Streams that this machine must be able to open; 0 where requests start at a rate."""
        return int(self.most) if self.by == "concurrency" else 0

    @property
    def most_per_s(self) -> float:
        """Most requests started in a second; 0 where none start at a rate."""
        return float(self.most) if self.by == "rate" else 0.0

    @property
    def lowest(self) -> float:
        return 1 if self.by == "concurrency" else _short(self.start * LOWEST_RATE)

    def doubled(self, load: float) -> float:
        return min(2 * load, self.most)

    def halved(self, load: float) -> float:
        half = load // 2 if self.by == "concurrency" else _short(load / 2)
        return max(half, self.lowest)

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
        return middle if low < middle < high else None


def bracket(tried: Sequence[Tried]) -> tuple[float | None, float | None]:
    """The highest load that surely met the SLO, and the lowest that surely missed it; None where there is none.

    >>> bracket([Tried(8, "met"), Tried(16, "not met"), Tried(12, "undecided")])
    (8, 16)
    """
    found = zones(tried)
    return found.meets, found.misses


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
    return _towards_misses(tried, grid) if for_answer is None else for_answer


def answer(tried: Sequence[Tried], grid: Grid) -> float | None:
    """The answer, confirmed; None while it is not, and where no load met the SLO."""
    return None if _towards_answer(tried, grid) is not None else zones(tried).meets


def is_confirming(tried: Sequence[Tried], load: float) -> bool:
    """Whether a probe of this load asks for the second time whether it meets the SLO."""
    return any(one.load == load and one.verdict == "met" for one in tried)


def contradictions(tried: Sequence[Tried]) -> list[float]:
    """Loads that met the SLO although they, or lower ones, did not surely meet it another time."""
    doubtful = _doubtful(tried)
    return sorted({one.load for one in tried if one.verdict == "met" and doubtful is not None and one.load >= doubtful})


def _towards_answer(tried: Sequence[Tried], grid: Grid) -> float | None:
    low, high = zones(tried).meets, _doubtful(tried)
    if low is None:
        if high is None:
            return grid.start
        return None if high <= grid.lowest else grid.halved(high)
    if high is None and low < grid.most:
        return grid.doubled(low)
    middle = None if high is None else grid.between(low, high)
    if middle is not None:
        return middle
    met = sum(one.load == low for one in tried)
    return low if met < CONFIRMED else None


def _towards_misses(tried: Sequence[Tried], grid: Grid) -> float | None:
    zone = zones(tried)
    if not zone.undecided:
        return None
    top = zone.undecided[-1]
    if zone.misses is None:
        return grid.doubled(top) if top < grid.most else None
    return grid.between(top, zone.misses)


def _doubtful(tried: Sequence[Tried]) -> float | None:
    """The lowest load that did not surely meet the SLO."""
    return min((one.load for one in tried if one.verdict != "met"), default=None)


def _short(rate: float) -> float:
    """A rate that reads well, in three digits."""
    return float(f"{rate:.3g}")


SHORTEST_S = 1.0
"""Of a budget's rest: with less no probe is begun."""
LATE = 1.2
"""Of the time that a probe at a rate takes: what it must be allowed, for requests come by chance."""
STOPPED = "the search was interrupted"
BUDGET = "the budget of time was spent"
TWICE = "confirmed by a second probe"
UNDECIDED = "the lowest load does not surely meet it"

Record = MutableMapping[str, Any]


def begun(models: Sequence[str], loads: Grid, asked: Scenario) -> list[dict[str, Any]]:
    """What run.json says under `capacity` at the start: a record for each model, which the search fills."""
    rule = Rule.of(asked.bounds, level_of("", loads, loads.start, 1), asked.requests)
    return [
        {
            "model": model,
            "by": loads.by,
            "slo": list(asked.slo),
            "start": loads.start,
            "most": loads.most,
            "within": loads.within,
            "looks": len(rule.sizes),
            "confidence": round(rule.confidence, 6),
            "steps": [],
            "found": None,
            "bracket": [None, None],
            "contradictions": [],
            "reason": STOPPED,
        }
        for model in models
    ]


def level_of(model: str, loads: Grid, load: float, repeat: int) -> Level:
    """A load on a model as a level, named as in any run: `m@c8`, `m@c8#2`."""
    if loads.by == "concurrency":
        return Scenario(concurrency=[int(load)], repeat=repeat).levels([model])[-1]
    return Scenario(request_rate=[float(load)], repeat=repeat).levels([model])[-1]


def grid_of(loads: job.Search) -> Grid:
    """The loads that the settings allow.

    Raises:
        UsageError: There are none.
    """
    by, start, most, within = loads.by, loads.start, loads.most, loads.within
    for name, value in (("--from", start), ("--max", most)):
        if not 0 < value < 1e6:
            raise UsageError(f"{name} {value:g}: must be more than 0 and less than a million")
        if by == "concurrency" and value != int(value):
            raise UsageError(f"{name} {value:g}: streams are whole; for a rate add --by rate")
    if most < start:
        raise UsageError(f"--max {most:g} is less than --from {start:g}")
    if not 0.005 <= within <= 1:
        raise UsageError(f"--within {100 * within:g}%: must be between 0.5% and 100%")
    if by == "concurrency":
        start, most = int(start), int(most)
    return Grid(by, start, most, within)


def check(asked: Scenario, loads: Grid, budget_s: float | None) -> None:
    """Refuse a search that cannot be: the scenario has no SLO, or one that cannot be searched with.

    Raises:
        UsageError: It is one.
    """
    if not asked.slo:
        raise UsageError("--slo is missing: say what the load is to meet, as --slo ttft_p95=800ms --slo success=99%")
    for bound in asked.bounds:
        if not asked.stream and bound.metric in WHOLE:
            raise UsageError(
                f"--slo {bound.text}: answers that are asked for whole have no {bound.metric}: use e2e_p95"
            )
    Rule.of(asked.bounds, level_of("", loads, loads.start, 1), asked.requests)  # whether so many requests can decide
    if budget_s is not None and budget_s < 1:
        raise UsageError(f"--budget {budget_s:g}s is too short for one probe: give at least 1s")


def searching(
    asked: Scenario,
    records: Sequence[Record],
    step: Callable[[str, Mapping[str, Any], str], None],
    budget_s: float | None,
) -> Search:
    """The schedule of a search.

    Args:
        records: run.json's `capacity`.
        step: Told of each step: the model, the step and the answer so far, the same in words.
    """

    def tell(record: Mapping[str, Any], last: Mapping[str, Any]) -> None:
        so_far = {**last, "bracket": record["bracket"], "found": record["found"]}
        text = line(last)
        step(record["model"], so_far, f"{record['model']}, {text}" if len(records) > 1 else text)

    return Search(asked, records, tell, budget_s)


@dataclass(slots=True)
class Search:
    """A schedule that finds each model's capacity.

    Attributes:
        asked: Its SLO, its limits of a probe, its warm-up.
        records: run.json's `capacity`. What is in it is not done again.
        tell: Told of each step.
        budget_s: How long it all may take.
        now_s: A monotonic clock.
    """

    asked: Scenario
    records: Sequence[Record]
    tell: Callable[[Record, Mapping[str, Any]], None]
    budget_s: float | None = None
    now_s: Callable[[], float] = time.monotonic
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
            self._begin_turn()

    def left(self) -> int:
        return 1

    def heard(self, result: Result) -> None:
        if self._probe is not None:
            self._probe.heard(result)

    def has_enough(self, progress: Progress) -> bool:
        return self._probe is not None and self._probe.look(progress.dropped) is not None

    def ended(self, progress: Progress, facts: Mapping[str, Any]) -> None:
        """Add the step and its consequence to the record, which the run folder writes together with the level."""
        record, level, probe = self.records[self._at], progress.level, self._probe
        if facts["status"] == "interrupted" or probe is None:
            self._reason(record, STOPPED)
            return
        gone = facts["status"] == "failed" and bool(progress.errors) and set(progress.errors) <= set(UNREACHABLE)
        lost = facts["status"] == "incomplete"
        again = lost and any(step["load"] == _load(level) and not step["counted"] for step in record["steps"])
        asked = progress.issued + progress.dropped
        cut = self._cut and probe.decision is None and asked < (progress.limits.requests or math.inf)
        decision = probe.close({"id": level.id, "model": level.model, **level.load_facts, **facts})
        step = {
            "load": _load(level),
            "level": level.id,
            **asdict(decision),
            # What a budget cut short, a server that went away and a part that is missing say nothing of the load.
            "counted": not (gone or lost or (cut and decision.verdict == "undecided")),
        }
        record["steps"].append(step)
        self._conclude(record)
        if gone or again:
            self._give_up(record, f"{level.id}: {facts['reason']}")
        self.tell(record, step)

    def skipped(self, planned: PlannedLevel, reason: str) -> None:
        self._give_up(self.records[self._at], reason)

    def _begin_turn(self) -> None:
        if self.budget_s is None:
            return
        now_s = self.now_s()
        if self._ends_s is None:
            self._ends_s = now_s + self.budget_s
        self._turn_ends_s = now_s + (self._ends_s - now_s) / (len(self.records) - self._at)

    def _next_of(self, record: Record) -> PlannedLevel | None:
        loads = _grid(record)
        tried = _tried(record)
        load = following(tried, loads)
        if load is None or record["model"] in self._given_up:
            return None
        left_s = None if self._turn_ends_s is None else self._turn_ends_s - self.now_s()
        if left_s is not None and left_s < SHORTEST_S:
            self._give_up(record, BUDGET)
            return None
        repeat = 1 + sum(step["load"] == load for step in record["steps"])
        level = level_of(record["model"], loads, load, repeat)
        confirms = is_confirming(tried, load)
        rule = Rule.of(self.asked.bounds, level, self.asked.requests, confirms=confirms)
        warmup = self.asked.warmup_for(level)
        duration_s = None if self.asked.duration is None else max(float(self.asked.duration), LATE * rule.warmed_up_s)
        self._cut = left_s is not None and (duration_s is None or left_s < duration_s)
        limits = Limits(
            requests=rule.sizes[-1],
            duration_s=left_s if self._cut else duration_s,
            warmup=warmup,
            max_streams=self.asked.max_streams or MAX_STREAMS,
        )
        opened = level.concurrency is None
        self._probe = Probe(self.asked.bounds, rule, warmup, opened, self.asked.stream)
        return PlannedLevel(level, limits, 0.0, limits.duration_s or 0.0)

    def _give_up(self, record: Record, reason: str) -> None:
        self._given_up.add(record["model"])
        self._reason(record, reason)

    def _reason(self, record: Record, reason: str) -> None:
        """Why there is no answer; one that was confirmed stands, whatever ends the search after it."""
        if record["found"] is None:
            record["reason"] = reason

    def _conclude(self, record: Record) -> None:
        """The answer as far as the steps go."""
        loads, tried = _grid(record), _tried(record)
        low, high = bracket(tried)
        record["bracket"] = [low, high]
        record["contradictions"] = contradictions(tried)
        record["found"] = answer(tried, loads)
        if record["found"] is not None:
            beyond = any(one.load > low for one in tried if low is not None)
            record["reason"] = TWICE if beyond else "the highest load that was allowed meets it"
        elif following(tried, loads) is None:
            record["reason"] = "not even the lowest load meets it" if high == loads.lowest else UNDECIDED
        else:
            record["reason"] = STOPPED


def _load(level: Level) -> float | None:
    return level.concurrency if level.concurrency is not None else level.request_rate_per_s


def _grid(record: Mapping[str, Any]) -> Grid:
    return Grid(record["by"], record["start"], record["most"], record["within"])


def _tried(record: Mapping[str, Any]) -> list[Tried]:
    return [Tried(step["load"], step["verdict"]) for step in record["steps"] if step["counted"]]
