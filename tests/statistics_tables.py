"""The tables of docs/statistics.md, each from simulations of its own.

python tests/statistics_tables.py                  print them all: about five minutes on one core
python tests/statistics_tables.py usl knees        print some
python tests/statistics_tables.py --write          put them into the page, between its marks
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from statistics_of_loads import (
    backlogs,
    capacities,
    capacities_by_rate,
    capacity_estimates,
    drifts,
    kappas,
    knees_of_a_curve,
    serials,
    untils,
    usl_misfits,
    usl_recovery,
)

from loadbench import stats
from loadbench.compare import Outcomes, Side, judge_levels
from loadbench.compare import means as means_of
from loadbench.metrics import window
from loadbench.stats.blocks import independent_requests, percentile_interval, share_interval
from loadbench.stats.shares import flawless, wilson
from tests.support import simulations
from tests.support.comparisons import (
    Server,
    comparisons,
    judge,
    lap_of,
    of_levels,
    over_levels,
    share,
    share_of_any,
    side_of,
    words,
)
from tests.support.simulations import SEED, holds

TRIALS = 2000
SIZES = (20, 60, 200, 1000)
PAGE = Path(__file__).parents[1] / "docs" / "statistics.md"

Row = Sequence[str]


@dataclass(frozen=True, slots=True)
class Table:
    """One table of the page: what makes it, its heads first, and of how many trials it is there."""

    rows: Callable[[int], list[Row]]
    trials: int = TRIALS

    def markdown(self) -> str:
        head, *rows = self.rows(self.trials)
        lines = [head, ["---"] * len(head), *rows]
        return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def counts(_: int) -> list[Row]:
    rows: list[Row] = [
        ("percentile", "95 % interval", "99 % interval", "flawless, 95 %", "MLPerf's inferences", "rounded")
    ]
    for p in (0.5, 0.9, 0.95, 0.99, 0.999):
        inferences = stats.needed_within(p, (1 - p) / 20, tail=0.005)
        cells = (stats.needed(p), stats.needed(p, 0.005), flawless(p), inferences)
        rows.append((f"p{100 * p:g}", *(f"{n:,}" for n in cells), f"{-(-inferences // 8192) * 8192:,}"))
    return rows


def percentiles(trials: int) -> list[Row]:
    rows: list[Row] = [
        (
            *("percentile", "requests", "n", "exact", "as if independent", "loadbench"),
            *("both ends given", "of those held", "lower end alone", "of those held"),
        )
    ]
    for p in (0.5, 0.95, 0.99):
        for law in simulations.LAWS:
            fewest = stats.needed(p)
            sizes = SIZES if p == 0.5 else (fewest, *(n for n in SIZES if n > fewest))
            rows += [_percentile(law, n, p, trials) for n in sizes]
    return rows


def _percentile(law: str, n: int, p: float, trials: int) -> Row:
    truth = simulations.LAWS[law].quantile(p)
    rows = simulations.series(law, trials, n)
    found = [stats.ends(np.sort(row), p, independent_requests(row, p)) for row in rows]
    given = [(low, math.inf if high is None else high) for low, high in found if low is not None]
    both = [bounds for bounds in given if bounds[1] < math.inf]
    lower = [bounds for bounds in given if bounds[1] == math.inf]
    plain = simulations.coverage_of_percentile(law, n, p, trials, blocks=False)
    exact = simulations.exact_coverage(n, p) if law in ("independent", "lognormal") else None
    cells = [_percent(exact), _percent(plain), _held(given, truth, trials)]
    for some in (both, lower):
        cells += [_percent(len(some) / trials), _held(some, truth, trials)]
    return f"p{100 * p:g}", law, str(n), *cells


def _held(given: Sequence[tuple[float, float]], truth: float, trials: int) -> str:
    if len(given) < 0.02 * trials:
        return "-"
    return _percent(sum(holds(bounds, truth) for bounds in given) / len(given))


def near_saturation(trials: int) -> list[Row]:
    """How often the check speaks, and what intervals it withholds would have held."""
    rows: list[Row] = [
        ("requests", "n", "withheld", "p50 interval held", "... of those not withheld", "V10 red before", "V10 red")
    ]
    series = {f"queue at {100 * load:.0f} %": load for load in (0.3, 0.5, 0.7, 0.8, 0.9)}
    for name, load in {"independent": None, "memory 0.5": None, **series}.items():
        for n in (200, 400, 1000):
            generator = np.random.default_rng(SEED)
            if load is not None:
                times, median = simulations.queue(generator, trials, n, load), math.log(2) / (1 - load)
            else:
                memory = 0.5 if name == "memory 0.5" else 0.0
                times, median = np.exp(0.3 * simulations.ar1(generator, trials, n, memory)), 1.0
            rows.append((name, str(n), *_saturated(times, median)))
    return rows


def _saturated(times: np.ndarray, median: float) -> Row:
    withheld = [window.dependence_of(row, opened=True).strong for row in times]
    held = [holds(percentile_interval(row, 0.5), median) for row in times]
    kept = [one for one, strong in zip(held, withheld, strict=True) if not strong]
    reds = [drift_of_thirds(row) for row in times]
    cells = [_percent(np.mean(column)) for column in (withheld, held)]
    cells.append(_percent(np.mean(kept)) if len(kept) >= 0.02 * len(held) else "-")
    return (*cells, *(_percent(np.mean(column)) for column in zip(*reds, strict=True)))


def drift_of_thirds(times: np.ndarray) -> tuple[bool, bool]:
    """Whether V10 would be red of such requests, at equal gaps in open loop: by the thirds alone, and as it is."""
    thirds = np.array_split(times, 3)
    against = window.against(window.times(thirds[0]), window.times(thirds[2]))
    if not against.significant or max(against.ratio, 1 / against.ratio) <= 1.2:
        return False, False
    return True, window.memory(thirds) <= window.LONG_MEMORY


def means(trials: int) -> list[Row]:
    rows: list[Row] = [("mean of", *(f"n = {n}" for n in SIZES))]
    return rows + [
        (law, *(_percent(simulations.coverage_of_mean(law, n, trials)) for n in SIZES)) for law in simulations.LAWS
    ]


def rates(trials: int) -> list[Row]:
    rows: list[Row] = [("tokens/s, answers of 1 s", "window of 20 s", "60 s", "300 s")]
    for sigma in (0.3, 1.0):
        cells = [_percent(simulations.coverage_of_rate(sigma, seconds, trials)) for seconds in (20, 60, 300)]
        rows.append((f"lengths of sigma {sigma}", *cells))
    return rows


def gaps(trials: int) -> list[Row]:
    rows: list[Row] = [
        ("requests of 20 gaps", "neighbours", "percentile", "gaps as if independent", "loadbench", "none given")
    ]
    for n, memory, p in (
        (60, 0.0, 0.5),
        (60, 0.5, 0.5),
        (200, 0.0, 0.9),
        (200, 0.5, 0.9),
        (200, 0.8, 0.5),
        (200, 0.5, 0.99),
    ):
        alone, held, none = simulations.coverage_of_gaps(n, memory, p, trials)
        neighbours = f"memory {memory:g}" if memory else "independent"
        rows.append((str(n), neighbours, f"p{100 * p:g}", _percent(alone), _percent(held), _percent(none)))
    return rows


def shares(_: int) -> list[Row]:
    rows: list[Row] = [
        ("true share", "Wilson, n = 40", "100", "400", "difference of two, n = 60, other share 5 points more")
    ]
    for p in (0.01, 0.05, 0.2, 0.5):
        cells = [_percent(simulations.exact_coverage_of_share(p, n)) for n in (40, 100, 400)]
        rows.append((_percent(p), *cells, _percent(simulations.exact_coverage_of_difference(p, p + 0.05, 60))))
    return rows


def queued_shares(trials: int) -> list[Row]:
    rows: list[Row] = [("load of an M/M/1 queue", "share that meets a bound", "n", "Wilson", "loadbench")]
    for load in (0.3, 0.5, 0.7):
        for true in (0.5, 0.9, 0.95):
            bound = -math.log(1 - true) / (1 - load)
            flags = simulations.queue(np.random.default_rng(SEED), trials, 400, load) <= bound
            plain = sum(holds(wilson(int(one.sum()), 400), true) for one in flags)
            ours = sum(holds(share_interval(one), true) for one in flags)
            cells = (_percent(covered / trials) for covered in (plain, ours))
            rows.append((f"{100 * load:g} %", f"{100 * true:g} %", "400", *cells))
    return rows


SHAPES = (
    ("1 run, 12 prompts x 10", {"prompts": 12, "times": 10}),
    ("1 run, 60 prompts once", {"prompts": 60, "times": 1}),
    ("2 runs of 24 requests", {"prompts": 6, "times": 4, "runs": 2}),
    ("3 runs of 24 requests", {"prompts": 6, "times": 4, "runs": 3}),
    ("5 runs of 24 requests", {"prompts": 6, "times": 4, "runs": 5}),
)


def alarms(trials: int) -> list[Row]:
    rows: list[Row] = [("equal servers", "any metric told apart, no margin", "... at 10 %")]
    for name, shape in SHAPES:
        server = Server(failing=0.05, between_runs=0.02 if "runs" in shape else 0.0)
        cells = [
            share_of_any(words(trials, server, server, margin=margin, **shape), "slower", "faster", "worse", "better")
            for margin in (0.0, 0.1)
        ]
        rows.append((name, *map(_percent, cells)))
    return rows


def power(trials: int) -> list[Row]:
    rows: list[Row] = [("NEW is slower by", "margin", "a side", "TTFT called slower")]
    cases: tuple[tuple[float, float, str, dict[str, int], float, tuple[str, ...]], ...] = (
        (1.2, 0.1, "1 run, 12 prompts x 10, six metrics", {"prompts": 12, "times": 10}, 0.0, ()),
        (1.2, 0.1, "1 run, 12 prompts x 30, six metrics", {"prompts": 12, "times": 30}, 0.0, ()),
        (1.2, 0.1, "1 run of 48 requests, six metrics", {"prompts": 12, "times": 4}, 0.02, ()),
        (1.2, 0.1, "3 runs of 48 requests, six metrics", {"prompts": 12, "times": 4, "runs": 3}, 0.02, ()),
        (1.2, 0.1, "5 runs of 48 requests, six metrics", {"prompts": 12, "times": 4, "runs": 5}, 0.02, ()),
        (1.2, 0.1, "1 run, 12 prompts x 10, six metrics, runs differ", {"prompts": 12, "times": 10}, 0.02, ()),
        (1.2, 0.1, "3 runs, 12 prompts x 10, six metrics", {"prompts": 12, "times": 10, "runs": 3}, 0.02, ()),
        (1.2, 0.1, "5 runs of 24 requests, six metrics", {"prompts": 6, "times": 4, "runs": 5}, 0.02, ()),
        (1.2, 0.1, "10 runs of 24 requests, six metrics", {"prompts": 6, "times": 4, "runs": 10}, 0.02, ()),
        (1.08, 0.04, "1 run, 12 prompts x 30, TTFT alone", {"prompts": 12, "times": 30}, 0.0, ("ttft",)),
        (1.08, 0.04, "1 run, 12 prompts x 120, TTFT alone", {"prompts": 12, "times": 120}, 0.0, ("ttft",)),
    )
    for slower, margin, name, shape, between, metrics in cases:
        base = Server(between_runs=between)
        some = {"metrics": metrics} if metrics else {}
        found = words(trials, base, replace(base, slower=slower), margin=margin, **some, **shape)  # type: ignore[arg-type]
        rows.append(
            (f"{100 * (slower - 1):.0f} %", f"{100 * margin:.0f} %", name, _percent(share(found, "ttft", "slower")))
        )
    return rows


def levels(trials: int) -> list[Row]:
    rows: list[Row] = [
        (
            "a side, 48 requests a level",
            "runs differ by",
            "20 % slower: TTFT of a level",
            "mean over levels",
            "equal, any",
        )
    ]
    for name, runs, closing in (
        ("1 run", 1, False),
        ("1 run, its first level twice", 1, True),
        ("3 runs", 3, False),
        ("5 runs", 5, False),
    ):
        for between in (0.02, 0.05):
            cells = (_percent(share) for share in _over_four(runs, closing, between, trials))
            rows.append((name, f"{100 * between:g} %", *cells))
    return rows


def _over_four(runs: int, closing: bool, between: float, trials: int) -> tuple[float, float, float]:
    """Of four levels: how often TTFT of the first, and of the mean, is called slower, and equal servers different."""
    server = Server(between_runs=between)
    first = mean = equal = 0
    for level in of_levels(trials, server, replace(server, slower=1.2), 4, runs=runs, closing=closing):
        found = judge_levels(level)
        over = means_of([[verdicts[i] for verdicts in found] for i in range(len(found[0]))])
        first += found[0][0].word == "slower"
        mean += over[0] is not None and over[0].word == "slower"
    for level in of_levels(trials, server, server, 4, runs=runs, closing=closing):
        said = {verdict.word for verdicts in judge_levels(level) for verdict in verdicts}
        equal += bool(said & {"slower", "faster", "worse", "better"})
    return first / trials, mean / trials, equal / trials


def settled(trials: int) -> list[Row]:
    rows: list[Row] = [
        ("NEW is slower by", "runs a side of 48 requests", "open at first", "asked for, median", "settled then")
    ]
    for slower in (1.0, 1.05, 1.2):
        for runs in (1, 3, 5):
            asked, after = _followed(Server(between_runs=0.03), slower, runs, trials)
            median = f"{np.median(asked):.0f}" if asked else "-"
            share = _percent(float(np.mean(after))) if after else "-"
            rows.append((f"{100 * (slower - 1):.0f} %", str(runs), _percent(len(asked) / trials), median, share))
    return rows


def _followed(server: Server, slower: float, runs: int, trials: int) -> tuple[list[int], list[bool]]:
    """What the open comparisons of TTFT ask for, and whether as many runs, the first among them, settle it.

    Those that ask for more than 100 runs are not followed.
    """
    asked, after = [], []
    law = {"prompts": 12, "times": 4}
    for trial in range(trials):
        first = next(comparisons(1, server, replace(server, slower=slower), runs=runs, seed=trial, **law))
        verdict = judge(*first, ["ttft", "e2e"])[0]
        if verdict.word != "can't tell":
            continue
        asked.append(verdict.runs_needed or 0)
        if asked[-1] <= 100:
            then = next(comparisons(1, server, replace(server, slower=slower), runs=asked[-1], seed=trial, **law))
            after.append(judge(*then, ["ttft", "e2e"])[0].word != "can't tell")
    return asked, after


def pairing(trials: int) -> list[Row]:
    base = Server(noise=0.15, memory=0.0)
    student = paired = unpaired = 0
    for one, other in comparisons(trials, base, replace(base, slower=1.08), prompts=60, times=1):
        before, after = (dict(zip(s.laps[0].prompts, s.laps[0].values["ttft"], strict=True)) for s in (one, other))
        ratios = np.array([math.log(after[name] / before[name]) for name in before])
        student += bool(ratios.mean() > 2.001 * ratios.std(ddof=1) / math.sqrt(60))
        renamed = replace(other.laps[0], prompts=[f"other {name}" for name in other.laps[0].prompts])
        paired += judge(one, other, ["ttft"], margin=0.0)[0].word == "slower"
        unpaired += judge(one, side_of(renamed), ["ttft"], margin=0.0)[0].word == "slower"
    return [
        ("8 % slower, 60 prompts once", "told apart"),
        ("paired, Student's test of independent prompts", _percent(student / trials)),
        ("paired, loadbench: prompts may depend on their neighbours", _percent(paired / trials)),
        ("not paired", _percent(unpaired / trials)),
    ]


def failing_runs(trials: int) -> list[Row]:
    rows: list[Row] = [
        ("runs of 100 requests a side", "each run fails alike", "shares spread by 3 points", "by 6 points")
    ]
    return rows + [
        (str(runs), *(_percent(_told_apart(runs, spread, trials)) for spread in (0.0, 0.03, 0.06)))
        for runs in (1, 2, 5, 10)
    ]


def _told_apart(runs: int, spread: float, trials: int) -> float:
    """How often equal servers, of which 5 % of the requests fail, are called better or worse without any margin."""
    generator, names = np.random.default_rng(SEED), [f"p{i % 10}" for i in range(100)]
    sure = 0.05 * 0.95 / spread**2 - 1 if spread else 0.0

    def side() -> Side:
        of_run = generator.beta(0.05 * sure, 0.95 * sure, runs) if spread else np.full(runs, 0.05)
        flags = [generator.random(100) < chance for chance in of_run]
        return side_of(*(lap_of([1.0] * 100, names, outcomes={"failed": Outcomes(one, names)}) for one in flags))

    found = [judge(side(), side(), ["failed"], share_margin=0.0)[0].word for _ in range(trials)]
    return sum(word in ("better", "worse") for word in found) / trials


def over(trials: int) -> list[Row]:
    rows: list[Row] = [("mean over 4 levels", "runs differ by 5 %, in all levels alike", "in each level by itself")]
    for name, runs, turns in (
        ("1 run a side, none differs", 1, True),
        ("5 runs a side in turns", 5, True),
        ("5 runs a side, not in turns", 5, False),
    ):
        rows.append((name, *(_percent(_mean_covers(runs, turns, alike, trials)) for alike in (True, False))))
    return rows


def _mean_covers(runs: int, turns: bool, alike: bool, trials: int) -> float:
    """How often the interval of the mean over levels holds the truth, a ratio of 1.1."""
    generator, levels, held = np.random.default_rng(SEED), 4, 0

    def side(which: int, drifts: np.ndarray) -> Side:
        laps = []
        for run, drift in enumerate(drifts):
            times = (1.0, 1.1)[which] * np.exp(0.1 * generator.standard_normal(40) + drift)
            began = f"{run}{which}" if turns else f"{which}{run}"
            laps.append(lap_of(times, ["a", "b"] * 20, began=began))
        return side_of(*laps)

    for _ in range(trials):
        spread = 0.05 if runs > 1 else 0.0
        drift = generator.normal(0, spread, (2, runs, 1 if alike else levels)) + np.zeros((2, runs, levels))
        verdicts = [judge(*(side(which, drift[which, :, at]) for which in (0, 1)), ["ttft"])[0] for at in range(levels)]
        mean = over_levels(verdicts)
        held += mean is not None and holds((mean.low or 0.0, mean.high or 0.0), 1.1)
    return held / trials


def outliers(trials: int) -> list[Row]:
    rows: list[Row] = [
        ("requests of one prompt", "flagged, normal logarithms", "flagged of 1 in 20 that takes twice as long")
    ]
    generator = np.random.default_rng(SEED)
    for n in (10, 40, 200):
        logs = 0.1 * generator.standard_normal((trials, n))
        slow = generator.random((trials, n)) < 0.05
        plain = np.mean([stats.outliers(np.exp(row)).mean() for row in logs])
        flags = [stats.outliers(np.exp(row + math.log(2) * late)) & late for row, late in zip(logs, slow, strict=True)]
        rows.append((str(n), _percent(float(plain)), _percent(float(np.sum(flags) / slow.sum()))))
    return rows


TABLES = {
    "counts": Table(counts),
    "percentiles": Table(percentiles),
    "near_saturation": Table(near_saturation, 1000),
    "means": Table(means),
    "rates": Table(rates),
    "gaps": Table(gaps),
    "shares": Table(shares),
    "queued_shares": Table(queued_shares, 1000),
    "alarms": Table(alarms, 120),
    "power": Table(power, 120),
    "levels": Table(levels, 60),
    "settled": Table(settled, 60),
    "pairing": Table(pairing),
    "failing_runs": Table(failing_runs, 1000),
    "over_levels": Table(over, 120),
    "outliers": Table(outliers),
    "usl": Table(usl_recovery, 1000),
    "usl_misfit": Table(usl_misfits, 400),
    "knees": Table(knees_of_a_curve),
    "serial": Table(serials),
    "capacity": Table(capacities, 4000),
    "capacity_by_rate": Table(capacities_by_rate, 200),
    "capacity_estimates": Table(capacity_estimates, 400),
    "backlog": Table(backlogs, 1000),
    "drift": Table(drifts, 1000),
    "kappa": Table(kappas, 1000),
    "until": Table(untils, 1000),
}


def _percent(share_of: float | None) -> str:
    return "" if share_of is None else f"{100 * share_of:.1f}"


def written(page: str, name: str, table: str) -> str:
    """The page with that table between its marks."""
    found, n = re.subn(
        rf"(<!-- {name} -->\n).*?(<!-- end -->)", lambda marks: f"{marks[1]}{table}\n{marks[2]}", page, flags=re.S
    )
    if n != 1:
        raise SystemExit(f"{PAGE}: has {n} places for the table {name}")
    return found


def main(names: Sequence[str]) -> None:
    write = "--write" in names
    for name in [name for name in names if name != "--write"] or TABLES:
        table = TABLES[name].markdown()
        print(f"\n{name}, {TABLES[name].trials} trials\n\n{table}", flush=True)
        if write:
            PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), name, table), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
