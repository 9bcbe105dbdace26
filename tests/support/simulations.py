"""Series with a known law, and how often an interval holds the truth: what docs/statistics.md reports."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from loadbench import stats
from loadbench.stats.blocks import SLICES, independent_gaps, mean_interval, percentile_interval, rate_interval
from loadbench.stats.shares import newcombe, wilson

Reals = NDArray[np.float64]
SEED = 20


def iid(generator: np.random.Generator, trials: int, n: int) -> Reals:
    return generator.standard_normal((trials, n))


def ar1(generator: np.random.Generator, trials: int, n: int, rho: float = 0.5) -> Reals:
    """Each value remembers half of the one before; standard normal on its own."""
    values = generator.standard_normal((trials, n))
    for i in range(1, n):
        values[:, i] = rho * values[:, i - 1] + math.sqrt(1 - rho * rho) * values[:, i]
    return values


def lognormal(generator: np.random.Generator, trials: int, n: int) -> Reals:
    """Heavy tail: sigma 1, the mean 1.65 times the median."""
    return np.exp(generator.standard_normal((trials, n)))


def ties(generator: np.random.Generator, trials: int, n: int) -> Reals:
    """A server that writes by a clock: whole multiples of a tick, Poisson with mean 3."""
    return generator.poisson(3.0, (trials, n)).astype(np.float64)


def queue(generator: np.random.Generator, trials: int, n: int, load: float = 0.5) -> Reals:
    """Times in system of an M/M/1 queue in its steady state (Lindley's recursion), exponential with mean 1/(1-load)."""
    wait = np.where(generator.random(trials) < load, generator.exponential(1 / (1 - load), trials), 0.0)
    values = np.empty((trials, n))
    for i in range(n):
        service = generator.exponential(1.0, trials)
        values[:, i] = wait + service
        wait = np.maximum(values[:, i] - generator.exponential(1 / load, trials), 0.0)
    return values


def busy_queue(generator: np.random.Generator, trials: int, n: int) -> Reals:
    return queue(generator, trials, n, load=0.8)


@dataclass(frozen=True, slots=True)
class Law:
    """A series and the truths about one value of it."""

    draw: Callable[[np.random.Generator, int, int], Reals]
    quantile: Callable[[float], float]
    mean: float


def _poisson_quantile(p: float) -> float:
    k, mass = 0, math.exp(-3.0)
    below = mass
    while below < p:
        k += 1
        mass *= 3.0 / k
        below += mass
    return float(k)


_normal = NormalDist().inv_cdf
LAWS = {
    "independent": Law(iid, _normal, 0.0),
    "AR(1) 0.5": Law(ar1, _normal, 0.0),
    "queue at 50 %": Law(queue, lambda p: -2 * math.log(1 - p), 2.0),
    "queue at 80 %": Law(busy_queue, lambda p: -5 * math.log(1 - p), 5.0),
    "lognormal": Law(lognormal, lambda p: math.exp(_normal(p)), math.exp(0.5)),
    "ties": Law(ties, _poisson_quantile, 3.0),
}


@cache
def series(law: str, trials: int, n: int) -> Reals:
    return LAWS[law].draw(np.random.default_rng(SEED), trials, n)


def holds(bounds: tuple[float, float] | None, truth: float) -> bool:
    return bounds is not None and bounds[0] <= truth <= bounds[1]


def coverage_of_percentile(law: str, n: int, p: float, trials: int, *, blocks: bool = True) -> float:
    """Share of the trials whose interval holds the true percentile; those without an interval count as misses."""
    truth = LAWS[law].quantile(p)
    of = percentile_interval if blocks else plain
    return sum(holds(of(row, p), truth) for row in series(law, trials, n)) / trials


def coverage_of_mean(law: str, n: int, trials: int) -> float:
    truth = LAWS[law].mean
    return sum(holds(mean_interval(row), truth) for row in series(law, trials, n)) / trials


def plain(values: Reals, p: float) -> tuple[float, float] | None:
    """The order-statistic interval of independent values."""
    return stats.interval(np.sort(values), p)


def exact_coverage(n: int, p: float) -> float | None:
    """What the order-statistic interval of n independent continuous values covers: ranks are whole, so over 95 %."""
    ranks = stats.interval_ranks(p, n)
    if ranks is None:
        return None
    mass = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(ranks[0], ranks[1])]
    return math.fsum(mass)


def closed_loop(generator: np.random.Generator, sigma: float, seconds: float, streams: int = 4) -> tuple[Reals, float]:
    """Tokens in each slice of a closed loop's window, its mean request 1 s, and the tokens per second in the long run.

    Requests have lognormal lengths (sigma) at a speed that varies by 10 % from one to the next.
    """
    requests = int((seconds + 12) * 2.5 * math.exp(sigma)) + 20
    tokens = 100.0 * np.exp(sigma * generator.standard_normal((streams, requests)) - sigma * sigma / 2)
    ends = np.cumsum(tokens / (100.0 * np.exp(0.1 * generator.standard_normal((streams, requests)))), axis=1)
    edges = 5 + np.linspace(0.0, seconds, SLICES + 1)
    flowed = np.zeros(len(edges))
    for end, carried in zip(ends, np.cumsum(tokens, axis=1), strict=True):
        flowed += np.interp(edges, np.append(0.0, end), np.append(0.0, carried))
    return np.diff(flowed), streams * 100.0 / math.exp(0.01 / 2)


def coverage_of_rate(sigma: float, seconds: float, trials: int) -> float:
    generator = np.random.default_rng(SEED)
    hits = 0
    for _ in range(trials):
        amounts, truth = closed_loop(generator, sigma, seconds)
        hits += holds(rate_interval(amounts, seconds, dependent_s=2.0), truth)
    return hits / trials


def coverage_of_gaps(n: int, memory: float, p: float, trials: int) -> tuple[float, float, float]:
    """Requests of 20 gaps; half of a gap's variance is its request's own, which remembers a part of the one before.

    How often the interval holds the true percentile: as if gaps were independent, and as loadbench has it; and how
    often that has none.
    """
    generator, truth = np.random.default_rng(SEED), _normal(p)
    sizes, owner = np.full(n, 20), np.repeat(np.arange(n), 20)
    alone = held = none = 0
    for request in ar1(generator, trials, n, memory):
        values = math.sqrt(0.5) * (request[owner] + generator.standard_normal(20 * n))
        ascending = np.sort(values)
        at = stats.percentile(ascending, p)
        hits = (np.bincount(owner, flags, n).astype(np.int64) for flags in (values < at, values <= at))
        found = stats.interval(ascending, p, independent_gaps(*hits, sizes))
        alone += holds(stats.interval(ascending, p), truth)
        held, none = held + holds(found, truth), none + (found is None)
    return alone / trials, held / trials, none / trials


def _mass(n: int, p: float) -> Reals:
    return np.array([math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)])


def exact_coverage_of_share(p: float, n: int) -> float:
    """How often Wilson's interval of n independent requests holds the true share: no simulation."""
    return float(_mass(n, p)[[holds(wilson(k, n), p) for k in range(n + 1)]].sum())


def exact_coverage_of_difference(p: float, q: float, n: int) -> float:
    """The same of Newcombe's interval of q - p, of n requests a side."""
    held = np.array([[holds(newcombe((i, n), (j, n)), q - p) for j in range(n + 1)] for i in range(n + 1)])
    return float(np.outer(_mass(n, p), _mass(n, q))[held].sum())
