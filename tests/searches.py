"""Whole searches for a capacity on a virtual clock: what they find, of servers whose capacity is known.

A probe is asked as `capacity.probe` asks it, by the same functions, but of arrays: an hour of requests takes
milliseconds.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadbench import validity
from loadbench.capacity.backlog import FEWEST, backlog
from loadbench.capacity.grid import Grid, bracket, following, found, is_confirming
from loadbench.capacity.look import Looked, Sample, independent, looked
from loadbench.capacity.rule import Rule
from loadbench.metrics.searched import Tried, estimate
from loadbench.scenario import Bound, Scenario

Reals = NDArray[np.float64]
Serves = Callable[[np.random.Generator, float, int], tuple[Reals, Reals]]
"""When n requests at a rate are due, and how long each stays."""
WANTED = 0.95


@dataclass(frozen=True, slots=True)
class Searched:
    """What a search came to, and how many seconds of load it took."""

    found: float | None
    misses: float | None
    estimate: dict[str, Any] | None
    took_s: float
    steps: tuple[tuple[float, str], ...]


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
    bounds, loads = [Bound.parse(f"e2e_p95={bound_s}s")], Grid("rate", start, 1000.0)
    tried: list[Tried] = []
    steps: list[dict[str, Any]] = []
    took_s = 0.0
    while (rate := following(tried, loads)) is not None:
        level = Scenario(request_rate=[rate]).levels(["m"])[0]
        rule = Rule.of(bounds, level, confirms=is_confirming(tried, rate))
        due_s, stay_s = serve(random, rate, rule.sizes[-1])
        said = probe(rule, Sample(due_s, stay_s, (stay_s <= bound_s)[:, None]))
        took_s += said.took_s
        tried.append(Tried(rate, said.looked.verdict))
        steps.append(step(rate, said.looked, said.independent))
    return Searched(
        found(tried, loads),
        bracket(tried)[1],
        estimate(steps, loads.by),
        took_s,
        tuple((one.load, one.verdict) for one in tried),
    )


@dataclass(frozen=True, slots=True)
class Said:
    """What a probe said, how long it took, and how many independent requests it is worth to the estimate."""

    looked: Looked
    took_s: float
    independent: float


def probe(rule: Rule, sample: Sample) -> Said:
    """A probe from its first request to its verdict, in the order in which `capacity.probe` asks."""
    tests = {math.ceil(FEWEST * 1.5**k) for k in range(40)}
    allowed = bisect_left(range(len(sample) + 1), True, key=lambda missed: rule.is_hopeless([missed]))
    hopeless = int(np.searchsorted(np.cumsum(~sample.met[:, 0]), allowed)) + 1
    for n in sorted({n for n in {*tests, *rule.early, *rule.sizes, hopeless} if n <= len(sample)}):
        until = Sample(sample.due_s[:n], sample.stay_s[:n], sample.met[:n])
        took_s = float(until.due_s[-1] + until.stay_s[-1])
        if n in tests and backlog(until.due_s, until.stay_s) is not None:
            whole = looked(rule, until)
            return Said(Looked("not met", n, whole.hits, whole.worth, "saturated"), took_s, independent(until))
        if n in rule.early or n in rule.sizes:
            said = looked(rule, until)
            if said.verdict == "met" and is_red(until):
                said = Looked("undecided", said.requests, said.hits, said.worth, "V2")
            if said.verdict != "undecided" or n == rule.sizes[-1] or said.reason == "V2":
                return Said(said, took_s, independent(until))
        if n == hopeless:
            said = looked(rule, until)
            return Said(
                said if said.verdict == "not met" else Looked("undecided", n, said.hits, said.worth),
                took_s,
                independent(until),
            )
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
    return validity.forbids({"warnings": [doubt for doubt in [validity.in_flight(level, {})] if doubt]})


def step(load: float, said: Looked, worth: float) -> dict[str, Any]:
    """As run.json keeps it, as far as the estimate reads it."""
    share = said.hits[0] / said.requests
    attained = False if said.verdict == "not met" and said.reason is None else None
    one = {
        "bound": "e2e_p95",
        "share": share,
        "wanted": WANTED,
        "attained": attained,
        "worth": min(said.worth[0], worth),
    }
    return {"load": load, "verdict": said.verdict, "requests": said.requests, "shares": [one]}
