"""Prints the tables of docs/statistics.md from 2,000 trials each: python tests/statistics_tables.py (two minutes)."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import simulations
from comparisons import Server, comparisons, share, share_of_any, side_of, words

from loadbench import intervals
from loadbench.compare import judge

TRIALS = 2000
SIZES = (60, 200, 1000)


def percentiles() -> None:
    for p in (0.5, 0.95, 0.99):
        print(f"\n| p{100 * p:g} | n | exact | as if independent | loadbench | none given | of those given |")
        print("|---|---|---|---|---|---|---|")
        for law in simulations.LAWS:
            for n in SIZES:
                if n >= intervals.needed(p):
                    print(_percentile(law, n, p))


def _percentile(law: str, n: int, p: float) -> str:
    truth = simulations.LAWS[law].quantile(p)
    found = [intervals.percentile_interval(row, p) for row in simulations.series(law, TRIALS, n)]
    given = [bounds for bounds in found if bounds is not None]
    held = sum(simulations.holds(bounds, truth) for bounds in given)
    plain = simulations.coverage_of_percentile(law, n, p, TRIALS, blocks=False)
    exact = simulations.exact_coverage(n, p) if law in ("independent", "lognormal") else None
    of_given = _percent(held / len(given)) if len(given) >= 0.02 * TRIALS else "-"
    cells = (_percent(exact), _percent(plain), _percent(held / TRIALS), _percent(1 - len(given) / TRIALS), of_given)
    return f"| {law} | {n} | {' | '.join(cells)} |"


def means() -> None:
    print("\n| mean of | n = 60 | 200 | 1000 |\n|---|---|---|---|")
    for law in simulations.LAWS:
        cells = [_percent(simulations.coverage_of_mean(law, n, TRIALS)) for n in SIZES]
        print(f"| {law} | {' | '.join(cells)} |")


def rates() -> None:
    print("\n| tokens/s | window 20 s | 60 s | 300 s |\n|---|---|---|---|")
    for sigma in (0.3, 1.0):
        cells = [_percent(simulations.coverage_of_rate(sigma, seconds, TRIALS)) for seconds in (20, 60, 300)]
        print(f"| answers of 1 s, sigma of their length {sigma} | {' | '.join(cells)} |")


SHAPES = (
    ("1 run, 12 prompts x 10", {"prompts": 12, "times": 10}),
    ("1 run, 60 prompts once", {"prompts": 60, "times": 1}),
    ("2 runs of 24 requests", {"prompts": 6, "times": 4, "runs": 2}),
    ("3 runs of 24 requests", {"prompts": 6, "times": 4, "runs": 3}),
    ("5 runs of 24 requests", {"prompts": 6, "times": 4, "runs": 5}),
)


def alarms() -> None:
    print("\n| equal servers | any metric told apart, no margin | ... at 10 % |\n|---|---|---|")
    for name, shape in SHAPES:
        server = Server(failing=0.05, between_runs=0.02 if "runs" in shape else 0.0)
        cells = [
            share_of_any(words(TRIALS, server, server, margin=margin, **shape), "slower", "faster", "worse", "better")
            for margin in (0.0, 0.1)
        ]
        print(f"| {name} | {_percent(cells[0])} | {_percent(cells[1])} |")


def power() -> None:
    print("\n| NEW is slower by | margin | a side | TTFT called slower |\n|---|---|---|---|")
    cases: tuple[tuple[float, float, str, dict[str, int], float, tuple[str, ...]], ...] = (
        (1.2, 0.1, "1 run, 12 prompts x 10, six metrics", {"prompts": 12, "times": 10}, 0.0, ()),
        (1.2, 0.1, "1 run, 12 prompts x 30, six metrics", {"prompts": 12, "times": 30}, 0.0, ()),
        (1.2, 0.1, "5 runs of 24 requests, six metrics", {"prompts": 6, "times": 4, "runs": 5}, 0.02, ()),
        (1.2, 0.1, "10 runs of 24 requests, six metrics", {"prompts": 6, "times": 4, "runs": 10}, 0.02, ()),
        (1.08, 0.04, "1 run, 12 prompts x 30, TTFT alone", {"prompts": 12, "times": 30}, 0.0, ("ttft",)),
        (1.08, 0.04, "1 run, 12 prompts x 120, TTFT alone", {"prompts": 12, "times": 120}, 0.0, ("ttft",)),
    )
    for slower, margin, name, shape, between, metrics in cases:
        base = Server(between_runs=between)
        some = {"metrics": metrics} if metrics else {}
        found = words(500, base, replace(base, slower=slower), margin=margin, **some, **shape)  # type: ignore[arg-type]
        said = _percent(share(found, "ttft", "slower"))
        print(f"| {100 * (slower - 1):.0f} % | {100 * margin:.0f} % | {name} | {said} |")


def pairing() -> None:
    base = Server(noise=0.15, memory=0.0)
    student = paired = unpaired = 0
    for one, other in comparisons(TRIALS, base, replace(base, slower=1.08), prompts=60, times=1):
        before, after = (dict(zip(s.laps[0].prompts, s.laps[0].values["ttft"], strict=True)) for s in (one, other))
        ratios = np.array([math.log(after[name] / before[name]) for name in before])
        student += bool(ratios.mean() > 2.001 * ratios.std(ddof=1) / math.sqrt(60))
        renamed = replace(other.laps[0], prompts=[f"other {name}" for name in other.laps[0].prompts])
        paired += judge(one, other, ["ttft"], margin=0.0)[0].word == "slower"
        unpaired += judge(one, side_of(renamed), ["ttft"], margin=0.0)[0].word == "slower"
    print("\n| 8 % slower, 60 prompts once | told apart |\n|---|---|")
    print(f"| paired, Student's test of independent prompts | {_percent(student / TRIALS)} |")
    print(f"| paired, loadbench: prompts may depend on their neighbours | {_percent(paired / TRIALS)} |")
    print(f"| not paired | {_percent(unpaired / TRIALS)} |")


def _percent(share_of: float | None) -> str:
    return "" if share_of is None else f"{100 * share_of:.1f}"


if __name__ == "__main__":
    for table in (percentiles, means, rates, alarms, power, pairing):
        table()
