"""Whole searches for a capacity on a virtual clock: what they find, of servers whose capacity is known.

A probe is asked as `capacity.probe` asks it, by the same functions, but of arrays: an hour of requests takes
milliseconds.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadbench.metrics import gates
from loadbench.metrics.slo import Tried, zones
from loadbench.runner.capacity import Grid, following
from loadbench.runner.capacity import answer as found
from loadbench.runner.probe import FEWEST_IN_LINE, Looked, Rule, Sample, backlog, independent, looked
from loadbench.scenario import Level, Scenario
from loadbench.scenario.bounds import Bound
from loadbench.store.schema import ScenarioFacts
from tests.support import plain
from tests.support.plain import estimate

Reals = NDArray[np.float64]
Serves = Callable[[np.random.Generator, float, int], tuple[Reals, Reals]]
"""When n requests at a rate are due, and how long each stays."""
WANTED = 0.95
SATURATED = "saturated"
QUEUES = ((50.0, 0.5), (50.0, 1.0), (20.0, 2.0))
"""Servers that serve so many a second, one at a time, with the bound of their e2e_p95 in seconds."""


@dataclass(frozen=True, slots=True)
class Searched:
    """What a search came to, and how many seconds of load it took."""

    found: float | None
    meets: float | None
    misses: float | None
    estimate: dict[str, Any] | None
    took_s: float
    steps: tuple[tuple[float, str], ...]

    def zones_hold(self, exact: float) -> bool:
        """Whether the exact answer lies between what meets the SLO and what misses it."""
        return (self.meets or 0.0) <= exact <= (self.misses or math.inf)

    def interval_holds(self, exact: float) -> bool:
        """Whether the estimate's interval, where there is one, holds the exact answer."""
        ends = self.estimate and self.estimate["ci95"]
        return bool(ends) and ends[0] <= exact <= ends[1]


def single(service_per_s: float) -> Serves:
    """One slot, exponential service, Poisson arrivals: M/M/1 from an empty start."""

    def serve(random: np.random.Generator, rate_per_s: float, n: int) -> tuple[Reals, Reals]:
        between = random.exponential(1 / rate_per_s, n)
        service = random.exponential(1 / service_per_s, n)
        steps = np.concatenate(([0.0], service[:-1] - between[1:]))
        walk = np.cumsum(steps)
        return np.cumsum(between), walk - np.minimum.accumulate(np.minimum(walk, 0.0)) + service

    return serve


def exact(service_per_s: float, bound_s: float) -> float:
    """The rate at which 95 % of the requests of M/M/1 stay at most so long."""
    return service_per_s + math.log(1 - WANTED) / bound_s


def by_rate(random: np.random.Generator, serve: Serves, bound_s: float, start: float = 1.0) -> Searched:
    """A search by rate for e2e_p95."""
    bound = Bound.parse(f"e2e_p95={bound_s}s")

    def sampled(rate: float, n: int) -> Sample:
        due_s, stay_s = serve(random, rate, n)
        return Sample(due_s, stay_s, (stay_s <= bound_s)[:, None])

    return _searched(bound, Grid("rate", start, 1000.0), sampled)


def by_concurrency(random: np.random.Generator, share_of: Callable[[float], float]) -> Searched:
    """A search by concurrency for ttft_p95, of a server whose requests meet it independently of each other."""

    def sampled(streams: float, n: int) -> Sample:
        return Sample(np.arange(float(n)), np.ones(n), (random.random(n) < share_of(streams))[:, None])

    return _searched(Bound.parse("ttft_p95=1s"), Grid("concurrency", 1, 1000), sampled)


def _searched(bound: Bound, loads: Grid, sampled: Callable[[float, int], Sample]) -> Searched:
    tried: list[Tried] = []
    steps: list[dict[str, Any]] = []
    took_s = 0.0
    while (load := following(tried, loads)) is not None:
        # Of streams the least number of requests, as of few of them: rounds of many would only take longer.
        asked = Scenario(request_rate=[load]) if loads.by == "rate" else Scenario(concurrency=[1])
        rule = Rule.of([bound], asked.levels(["m"])[0], confirms=Tried(load, "met") in tried)
        said = probe(rule, sampled(load, rule.sizes[-1]))
        took_s += said.took_s
        tried.append(Tried(load, said.looked.verdict))
        steps.append(_step(load, said))
    zone = zones(tried)
    verdicts = tuple((one.load, one.verdict) for one in tried)
    return Searched(found(tried, loads), zone.meets, zone.misses, estimate(steps, loads.by), took_s, verdicts)


@dataclass(frozen=True, slots=True)
class Said:
    """What a probe said, how long it took, and how many independent requests its queue is worth."""

    looked: Looked
    took_s: float
    independent: float


def probe(rule: Rule, sample: Sample) -> Said:
    """A probe from its first request to its verdict, in the order in which `capacity.probe` asks."""
    queues = rule.least_s > 0
    tests = {math.ceil(FEWEST_IN_LINE * 1.5**k) for k in range(40)} if queues else set()
    allowed = bisect_left(range(len(sample) + 1), True, key=lambda missed: rule.is_hopeless([missed]))
    hopeless = int(np.searchsorted(np.cumsum(~sample.met[:, 0]), allowed)) + 1
    for n in sorted({n for n in {*tests, *rule.early, *rule.sizes, hopeless} if n <= len(sample)}):
        until = Sample(sample.due_s[:n], sample.stay_s[:n], sample.met[:n])
        said: Looked | None = None
        if n in tests and backlog(until.due_s, until.stay_s) is not None:
            said = replace(looked(rule, until), verdict="not met", reason=SATURATED)
        elif n in rule.early or n in rule.sizes:
            said = looked(rule, until)
            if queues and said.verdict == "met" and is_red(until):
                said = replace(said, verdict="undecided", reason="V2")
            if said.verdict == "undecided" and said.reason != "V2" and n < rule.sizes[-1]:
                said = None
        if said is None and n >= hopeless and (n == hopeless or n in rule.sizes):
            said = looked(rule, until)
            if said.verdict != "not met":
                said = replace(said, verdict="undecided") if n in rule.sizes else None
        if said is not None:
            took_s = float(until.due_s[-1] + until.stay_s[-1])
            return Said(said, took_s, independent(until) if queues else math.inf)
    raise AssertionError("the last look is the end")


def is_red(sample: Sample) -> bool:
    """Whether gate V2 is red of a level with these requests."""
    end_s = sample.due_s + sample.stay_s
    begin_s, last_s = float(sample.due_s[0]), float(sample.due_s[-1])
    window_s = last_s - begin_s
    ended = end_s < last_s
    inside = np.minimum(end_s, last_s) - sample.due_s
    third = len(sample) // 3
    level = {
        "request_rate_per_s": 1.0,
        "offered": len(sample),
        "dropped": 0,
        "window_s": window_s,
        "ended_per_s": float(ended.sum()) / window_s,
        "requests_per_s": float(ended.sum()) / window_s,
        "in_flight_mean": float(inside.sum()) / window_s,
        "residence_ms": 1000 * float(sample.stay_s[ended].mean()),
        "residence_growth": float(np.median(sample.stay_s[-third:]) / np.median(sample.stay_s[:third])),
    }
    doubt = gates.in_flight(plain.level(level), ScenarioFacts())
    return doubt is not None and doubt.severity == "red"


def _step(load: float, said: Said) -> dict[str, Any]:
    """As run.json keeps it, as far as the estimate reads it."""
    one = said.looked
    attained = False if one.verdict == "not met" and one.reason != SATURATED else None
    worth = min(one.worth[0], said.independent)
    share = {"bound": "e2e", "share": one.hits[0] / one.requests, "wanted": WANTED, "attained": attained}
    return {"load": load, "verdict": one.verdict, "requests": one.requests, "shares": [share | {"worth": worth}]}


def step(load: float, share: float | None, n: int, verdict: str = "met", **more: Any) -> dict[str, Any]:
    """A step of one bound, as run.json has it; `more` is of its share."""
    one = {"bound": "ttft_p95=1s", "share": share, "wanted": 0.95, "interval": [0.0, 1.0], "attained": None, **more}
    return {"load": load, "level": f"m@c{load:g}", "verdict": verdict, "requests": n, "shares": [one], "counted": True}


GENTLE = [
    step(1, 1.0, 109),
    step(2, 1.0, 109),
    step(4, 0.995, 218),
    step(8, 0.93, 180, "undecided"),
    step(6, 0.968, 436),
    step(7, 0.95, 240, "undecided"),
    step(6, 0.972, 436),
    step(16, 0.6, 24, "not met", attained=False),
    step(12, 0.8, 60, "not met", attained=False),
    step(9, 0.9, 109, "not met", attained=False),
]


STREAMS = Grid("concurrency", 1, 1024)


def level(load: float = 1, *, opened: bool = False) -> Level:
    loads: dict[str, Any] = {"request_rate": [load]} if opened else {"concurrency": [load]}
    return Scenario(**loads).levels(["m"])[0]


def search(meets: Callable[[float], bool], grid: Grid) -> list[Tried]:
    """All that a search tries."""
    tried: list[Tried] = []
    while (load := following(tried, grid)) is not None:
        tried.append(Tried(load, "met" if meets(load) else "not met"))
        assert len(tried) < 100
    return tried


def simulated(rng: np.random.Generator, rule: Rule, share: float) -> bool:
    """Whether a probe says *met* of a load that this share of requests meets."""
    hits = before = 0
    for size in rule.sizes:
        hits += int(rng.binomial(size - before, share))
        before = size
        if (verdict := rule.judged([hits], size)) != "undecided":
            return verdict == "met"
    return False


def queue(rng: np.random.Generator, load: float, n: int, *, slots: int = 4, spread: float = 1.0) -> Any:
    """When n requests are due and how long they stay, at a server with slots whose service takes 1 s on average."""
    due = np.cumsum(rng.exponential(1 / (load * slots), n))
    service = rng.exponential(1, n) * spread + (1 - spread)
    free = np.zeros(slots)
    stays = []
    for at, takes in zip(due, service, strict=True):
        slot = int(free.argmin())
        free[slot] = max(free[slot], at) + takes
        stays.append(free[slot] - at)
    return due, np.array(stays)
