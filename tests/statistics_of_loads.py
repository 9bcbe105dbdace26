"""The tables of docs/statistics.md that are about curves, searches and levels; statistics_tables.py prints them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from loadbench.quality.scores import agreement, weighted_kappa
from loadbench.runner.capacity import answer as answer_of
from loadbench.runner.probe import Rule, backlog
from loadbench.scenario.bounds import Bound
from loadbench.stats import usl
from tests.support import curves, searches
from tests.support.plain import over_runs, scaling
from tests.support.raters import answers, noisy, values
from tests.support.simulations import SEED, ar1
from tests.support.streams import MS, said, stream, summed

Row = Sequence[str]


def usl_recovery(trials: int) -> list[Row]:
    """7 levels, 1 to 64 streams, from (50, 0.06, 0.0008): what is found, and how often its intervals hold the truth."""
    rows: list[Row] = [
        ("noise", "lambda 50", "sigma 0.06", "kappa 0.0008", "peak 34.3", "lambda held", "sigma held", "kappa held")
    ]
    law = curves.LAW
    for noise in (0.02, 0.05):
        fits = [usl.fit(curves.LEVELS, curves.noisy(law, seed, noise)) for seed in range(trials)]
        medians = np.median([(f.lambda_per_s, f.sigma, f.kappa, f.peak_n or math.inf) for f in fits], axis=0)
        held = [
            np.mean([low - 1e-12 <= truth <= high for low, high in (f.ci95[name] for f in fits)])  # type: ignore[operator]
            for name, truth in zip(("lambda_per_s", "sigma", "kappa"), law, strict=True)
        ]
        rows.append((f"{100 * noise:.0f} %", *(f"{m:.3g}" for m in medians), *map(_percent, held)))
    return rows


def usl_misfits(trials: int) -> list[Row]:
    """Curves at 1 to 32 streams whose levels have intervals as wide as their noise: is a law given?"""
    rows: list[Row] = [("throughput", "no law, noise 2 %", "no law, noise 5 %")]
    n = np.array([1.0, 2, 4, 8, 16, 32])
    throughputs = {
        "the law itself": curves.curve(*curves.LAW, n),
        "one by one": 10 * np.ones(6),
        "four hard slots": 10 * np.minimum(n, 4),
        "eight hard slots": 10 * np.minimum(n, 8),
        "N^1.2": 10 * n**1.2,
        "N^0.5": 10 * n**0.5,
    }
    for name, x in throughputs.items():
        cells = []
        for noise in (0.02, 0.05):
            random, refused = np.random.default_rng(SEED), 0
            for _ in range(trials):
                seen = x * np.exp(noise * random.standard_normal(6))
                law = usl.fit(n, seen, samples=1)
                refused += not usl.fits(law, n, seen, [1.96 * noise] * 6)
            cells.append(_percent(refused / trials))
        rows.append((name, *cells))
    return rows


def knees_of_a_curve(_: int) -> list[Row]:
    """One curve, four answers."""
    ttft_p95_ms = {n: 200.0 * n for n in curves.CURVE}
    levels = curves.levels()
    for level in levels:
        p95 = ttft_p95_ms[level["concurrency"]]
        row = {"bound": "ttft_p95<=1500ms", "attained": p95 <= 1500, "attainment": 1.0 if p95 <= 1500 else 0.5}
        level |= {"ttft_ms": {"p95": p95}, "slo": [row]}
    [curve] = scaling(levels)
    rules = {
        "power": "most throughput per time, X/R",
        "doubling": "first doubling that gains less than 5 %",
        "corner": "X_max * R(1)",
        "slo": "TTFT p95 of 200 ms a stream crosses 1.5 s",
    }
    rows: list[Row] = [("knee", "rule", "streams")]
    for name, rule in rules.items():
        knee = curve["knees"][name]
        rows.append((name, rule, f"{knee['relation']} {knee['n']:g}"))
    return rows


def serials(trials: int) -> list[Row]:
    """Servers at 1, 2, 4 and 8 streams, every figure with noise."""
    rows: list[Row] = [("server", "noise 3 %", "noise 8 %")]
    kinds = {
        "one at a time": curves.queue,
        "shares itself among the streams": curves.shared,
        "answers them together": curves.batch,
    }
    for name, made in kinds.items():
        cells = []
        for noise in (0.03, 0.08):
            random, said = np.random.default_rng(SEED), 0
            for _ in range(trials):
                levels = [made(n) for n in (1, 2, 4, 8)]
                for level in levels:
                    factors = np.exp(noise * random.standard_normal(3)).tolist()
                    level["output_tokens_per_s"] *= factors[0]
                    level["e2e_ms"]["mean"] *= factors[1]
                    level["ttft_ms"]["mean"] *= factors[2]
                    half = math.exp(1.96 * noise)
                    level["output_tokens_per_s_ci95"] = [
                        level["output_tokens_per_s"] / half,
                        level["output_tokens_per_s"] * half,
                    ]
                said += curves.serial(*levels) is True
            cells.append(_percent(said / trials))
        rows.append((name, *cells))
    return rows


def capacities(trials: int) -> list[Row]:
    """What a probe says of a load whose true share is known; what a search finds."""
    rows: list[Row] = [
        (
            "SLO",
            "looks at",
            "just below it: met",
            "just at it: not met",
            "a fifth fewer meet it: not met",
            "limit found, clear curve",
        )
    ]
    for text in ("ttft_p95=1s", "success=99%", "e2e_p50=1s"):
        rule = Rule.of([Bound.parse(text)], searches.level())
        [wanted] = rule.shares
        random = np.random.default_rng(SEED)
        below = np.mean([searches.simulated(random, rule, wanted - 1e-9) for _ in range(trials)])
        refused, hopeless = (
            np.mean([_refused(random, rule, share) for _ in range(trials)]) for share in (wanted, wanted * 0.8)
        )
        found = [_is_found(random, rule, int(limit)) for limit in random.integers(1, 40, trials // 4)]
        sizes = ", ".join(map(str, rule.sizes))
        rows.append((text, sizes, *map(_percent, (below, refused, hopeless, np.mean(found)))))
    return rows


def _refused(random: np.random.Generator, rule: Rule, share: float) -> bool:
    """Whether a probe says *not met*, at one of its looks or as soon as the load is hopeless."""
    met = random.random(rule.sizes[-1]) < share
    hits = np.cumsum(met)
    for n in range(1, rule.sizes[-1] + 1):
        misses = n - int(hits[n - 1])
        if n in rule.sizes and (verdict := rule.judged([n - misses], n)) != "undecided":
            return verdict == "not met"
        if not met[n - 1] and rule.is_hopeless([misses]):
            return rule.judged([n - misses], n) == "not met"
    return False


def _is_found(random: np.random.Generator, rule: Rule, limit: int) -> bool:
    def meets(load: float) -> bool:
        share = 1 - (1 - rule.shares[0]) / 20 if load <= limit else rule.shares[0] * 0.8
        return searches.simulated(random, rule, share)

    answer = answer_of(searches.search(meets, searches.STREAMS), searches.STREAMS) or 0
    return answer <= limit <= max(answer, answer * 1.05)


def capacities_by_rate(trials: int) -> list[Row]:
    """Whole searches of M/M/1 by rate, from 1 request per second on."""
    rows: list[Row] = [
        (
            "M/M/1 of",
            "exact answer",
            "answer at most the server's maximum: held",
            "answer within 8 %: held",
            "zones held the exact answer",
            "interval held it",
            "estimate off by, median %",
            "minutes, median",
            "nine in ten",
        )
    ]
    for per_s, bound_s in searches.QUEUES:
        random, exact = np.random.default_rng(SEED), searches.exact(per_s, bound_s)
        done = [searches.by_rate(random, searches.single(per_s), bound_s) for _ in range(trials)]
        answers = np.array([one.found or 0.0 for one in done])
        minutes = np.array([one.took_s / 60 for one in done])
        shares = (
            np.mean(answers <= per_s),
            np.mean(np.abs(answers / exact - 1) <= 0.08),
            np.mean([one.zones_hold(exact) for one in done]),
            np.mean([one.interval_holds(exact) for one in done]),
        )
        others = (_bias(done, exact), *(f"{np.quantile(minutes, share):.0f}" for share in (0.5, 0.9)))
        name = f"{per_s:g}/s, e2e_p95={bound_s:g}s"
        rows.append((name, f"{exact:.1f}", *(_percent(float(share)) for share in shares), *others))
    return rows


def capacity_estimates(trials: int) -> list[Row]:
    """Searches by concurrency of curves on which ever more requests miss the SLO: 5 % at the exact answer."""
    rows: list[Row] = [
        (
            "share that misses it grows as",
            "exact answer",
            "meets up to, median",
            "misses from, median",
            "zones held the exact answer",
            "interval held it",
            "estimate off by, median %",
        )
    ]
    for power in (1.5, 3.0, 8.0, 20.0):
        for exact in (7.0, 25.0):
            random = np.random.default_rng(SEED)

            def share(streams: float, power: float = power, exact: float = exact) -> float:
                return max(0.0, 1 - 0.05 * (streams / exact) ** power)

            done = [searches.by_concurrency(random, share) for _ in range(trials)]
            ends = ([one.meets or 0 for one in done], [one.misses or math.inf for one in done])
            held = ([one.zones_hold(exact) for one in done], [one.interval_holds(exact) for one in done])
            medians = (f"{np.median(end):.0f}" for end in ends)
            cells = (*medians, *(_percent(float(np.mean(flags))) for flags in held), _bias(done, exact))
            rows.append((f"streams^{power:g}", f"{exact:g}", *cells))
    return rows


def _bias(done: Sequence[searches.Searched], exact: float) -> str:
    known = [one.estimate["load"] / exact - 1 for one in done if one.estimate is not None]
    return f"{100 * float(np.median(known)):+.1f}"


def backlogs(trials: int) -> list[Row]:
    """Four slots, looked at after 40, 60, 90, 135, 202, 303 and 450 requests, as a probe does."""
    rows: list[Row] = [("load of what it can do", "times all alike", "exponential times")]
    for load in (0.5, 0.8, 0.9, 1.1, 1.3, 2.0):
        cells = []
        for spread in (0.0, 1.0):
            random, seen = np.random.default_rng(SEED), 0
            for _ in range(trials):
                due_s, stay_s = searches.queue(random, load, 450, spread=spread)
                seen += any(backlog(due_s[:n], stay_s[:n]) is not None for n in (40, 60, 90, 135, 202, 303, 450))
            cells.append(_percent(seen / trials))
        rows.append((f"{100 * load:.0f} %", *cells))
    return rows


def drifts(trials: int) -> list[Row]:
    """Levels of 120 requests one after the other, TTFT with 20 % of spread; V10 by its drift over the level."""
    rows: list[Row] = [("TTFT grows over the level by", "independent requests", "memory 0.5")]
    for by in (0.0, 0.2, 0.5):
        cells = []
        for memory in (0.0, 0.5):
            states = ar1(np.random.default_rng(SEED), trials, 120, memory)
            told = [_drifts(200 * (1 + by * np.arange(120) / 120) * np.exp(0.2 * state)) for state in states]
            cells.append(_percent(np.mean(told)))
        rows.append((f"{100 * by:.0f} %", *cells))
    return rows


def _drifts(ttft_ms: np.ndarray) -> bool:
    found, at = [], 0.0
    for number, ttft in enumerate(ttft_ms):
        found.append(stream(number, due=at, ttft=float(ttft), per_token=5.0, tokens=8))
        at = found[-1].end_ns / MS
    return bool(said(summed(found), "V10"))


def kappas(trials: int) -> list[Row]:
    """Two raters, one answer a prompt."""
    truth = weighted_kappa(*noisy(200_000, 0))
    rows: list[Row] = [("prompts", "true kappa", "interval held it")]
    for n in (10, 40, 160):
        held = given = 0
        for seed in range(trials):
            a, b = noisy(n, seed + 1)
            one = agreement("a", "b", values("a", a) | values("b", b), answers(n))
            if one is not None and one.ci95 is not None:
                given += 1
                held += one.ci95[0] <= (truth or 0.0) <= one.ci95[1]
        rows.append((str(n), f"{truth:.2f}", _percent(held / given)))
    return rows


def untils(trials: int) -> list[Row]:
    """`--until`: runs are added, 3 at least and 20 at most, until the interval of their mean is narrow enough."""
    rows: list[Row] = [("runs differ by", "--until 5%: interval held", "runs", "--until 2%: interval held", "runs")]
    for spread in (0.02, 0.05, 0.1):
        cells = []
        for wanted in (0.05, 0.02):
            random, held, runs = np.random.default_rng(SEED), 0, 0
            for _ in range(trials):
                values: list[float | None] = [100 * math.exp(spread * random.standard_normal()) for _ in range(3)]
                while (mean := over_runs(values))["half_width"] > wanted and len(values) < 20:
                    values.append(100 * math.exp(spread * random.standard_normal()))
                held, runs = held + (mean["low"] <= 100 <= mean["high"]), runs + len(values)
            cells += [_percent(held / trials), f"{runs / trials:.1f}"]
        rows.append((f"{100 * spread:.0f} %", *cells))
    return rows


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
