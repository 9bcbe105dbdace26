"""How much one metric changed, NEW against BASE, with its doubt: typical times, percentiles, means, rates, shares.

Each kind reads a figure of every run, and says what the run itself knows of its doubt. With two or more runs a side
the run is the unit, and how much runs differ is the doubt; with one it is what varies within it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import sub
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from loadbench import stats
from loadbench.compare.sides import Lap, Outcomes, Side, interleaved
from loadbench.compare.verdict import GAPS, Figure, Kind, Runs
from loadbench.stats import Bounds, Estimate
from loadbench.stats.blocks import (
    independent_flags,
    independent_gaps,
    independent_in_runs,
    mean_variance,
    percentile_interval,
    rate_variance,
)
from loadbench.stats.shares import mcnemar, newcombe_paired
from loadbench.store.record import Flags, Reals

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Change:
    """A log ratio (of shares: a difference) with its interval, before it has a word.

    Attributes:
        effect: Log of new / base, or the difference of shares; all else as of the Verdict.
        low, high: Its interval; None where it does not exist.
        runs: What its runs say of how much runs differ; None of shares, and without an effect.
        freedom: Degrees of freedom of its interval; infinite where that knows no spread between runs.
    """

    base: float | None
    new: float | None
    effect: float | None
    low: float | None
    high: float | None
    method: str
    n_base: int
    n_new: int
    by_run: tuple[float, ...] = ()
    outliers_base: int | None = None
    outliers_new: int | None = None
    p_value: float | None = None
    note: str = ""
    paired: bool = False
    runs: Runs | None = None
    freedom: float = math.inf

    @property
    def bounds(self) -> Bounds | None:
        if self.low is None or self.high is None:
            return None
        return self.low, self.high


@dataclass(frozen=True, slots=True)
class OfRun:
    """A figure of one run.

    Attributes:
        n: Requests or gaps that it rests on.
        doubt: What the run knows of the logarithm; None where it is too short to know any.
        variance: Of the logarithm by what varies within the run; None where unknown.
        outliers: Flagged requests; None of kinds that flag none.
    """

    log: float
    n: int
    doubt: Estimate | None = None
    variance: float | None = None
    outliers: int | None = None


def mean_of(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _known(values: Sequence[T | None]) -> list[T] | None:
    """The values; None where one of them is not known."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):  # a mean of some of them would be another figure
        return None
    return known


def _each(base: Side, new: Side, read: Callable[[Lap], T | None]) -> tuple[list[T], list[T]] | None:
    """Something of every run of both sides; None where a run lacks it."""
    before = _known(list(map(read, base.laps)))
    after = _known(list(map(read, new.laps)))
    if before is None or after is None:
        return None
    return before, after


class Measured:
    """Both sides of one metric, run by run.

    Args:
        within: Variance of the logarithm of a run of BASE, and of NEW, by what varies within it; that of their runs
            by default.
    """

    def __init__(
        self,
        of_runs: tuple[Sequence[OfRun], Sequence[OfRun]],
        pairs: bool,
        within: Sequence[float | None] | None = None,
    ) -> None:
        self.of_runs, self.pairs = of_runs, pairs
        self.logs: list[list[float]] = []
        variances: list[float | None] = []
        for side in of_runs:
            self.logs.append([run.log for run in side])
            known = _known([run.variance for run in side])
            variances.append(None if known is None else mean_of(known))
        self.effect = mean_of(self.logs[1]) - mean_of(self.logs[0])
        self.by_run: tuple[float, ...] = ()
        if len(self.logs[0]) == len(self.logs[1]) > 1:
            self.by_run = tuple(map(sub, self.logs[1], self.logs[0]))
        self.within = _known(variances if within is None else within)

    def change(self, bounds: Bounds | None, method: str, *, runs: Runs | None = None, note: str = "") -> Change:
        low, high = bounds or (None, None)
        sizes: list[int] = []
        outliers: list[int | None] = []
        for side in self.of_runs:
            sizes.append(sum(run.n for run in side))
            flagged = _known([run.outliers for run in side])
            outliers.append(None if flagged is None else sum(flagged))
        return Change(
            base=math.exp(mean_of(self.logs[0])),
            new=math.exp(mean_of(self.logs[1])),
            effect=self.effect,
            low=low,
            high=high,
            method=method,
            n_base=sizes[0],
            n_new=sizes[1],
            by_run=self.by_run,
            outliers_base=outliers[0],
            outliers_new=outliers[1],
            note=note,
            paired=runs is not None and runs.paired,
            runs=runs,
        )

    def between_runs(self, of: str) -> Change | None:
        """The run is the unit: the runs of both sides, or their pairs; None with one run on a side.

        The interval is made later, when it is known how much runs differ in all metrics and levels.

        Args:
            of: What the figure of each run is, in words.

        Source: Georges, Buytaert & Eeckhout 2007; Kalibera & Jones 2013.
        """
        first, second = map(len, self.logs)
        if min(first, second) < 2:
            return None
        units = f"{first} pairs of runs" if self.pairs else f"{first} and {second} runs"
        return self.change(None, f"{units}, {of}", runs=self.runs())

    def runs(self) -> Runs:
        """What runs say of how much they differ: pairs against their mean, others each against that of its side."""
        groups, within = self.logs, mean_of(self.within or (0.0,))
        if self.pairs and self.by_run:
            # The variance of a ratio is that of both its runs.
            groups, within = [list(self.by_run)], math.fsum(self.within or ())
        part, residuals = 0.0, []
        for group in groups:
            part += 1 / len(group)
            centre = mean_of(group)
            residuals += [log - centre for log in group]
        freedom = len(residuals) - len(groups)
        if not freedom:  # one run a side lies on its mean, and says nothing
            residuals = []
        return Runs(
            effect=self.effect,
            within=None if self.within is None else within,
            part=part,
            paired=len(groups) == 1,
            residuals=tuple(residuals),
            freedom=freedom,
        )

    def within_runs(self, tail: float, method: str, short: str) -> Change:
        """Welch's interval where each run knows the doubt of its own logarithm; `short` says why one does not."""
        averages = []
        for side in self.of_runs:
            values, variances, squares = [], [], []
            for run in side:
                if run.doubt is None:
                    return self.change(None, method, note=short)
                values.append(run.doubt.value)
                variances.append(run.doubt.variance)
                squares.append(run.doubt.variance**2 / run.doubt.freedom)
            variance, sum_of_squares = math.fsum(variances), math.fsum(squares)
            freedom = variance**2 / sum_of_squares if sum_of_squares > 0 else float(len(side))
            averages.append(Estimate(mean_of(values), variance / len(side) ** 2, freedom))
        base, new = averages
        low, high = stats.difference(base, new, tail)
        # The doubts are of means that blocks of requests have, which need not be the figure itself.
        shift = self.effect - (new.value - base.value)
        return self.change((low + shift, high + shift), method, runs=self.runs())


# -- the typical time, paired by prompt

LEAST_COMMON = 0.8
"""Share of each run's requests whose prompt all runs of both sides asked, from which they are paired by prompt."""


@dataclass(frozen=True, slots=True, eq=False)
class _Prompted:
    """A run's values by prompt.

    Attributes:
        logs: Their logarithms, in the order of start.
        number: The number of each one's prompt.
        centres: Of each prompt, the mean logarithm.
        times: How often each prompt was asked.
    """

    logs: Reals
    number: NDArray[np.int64]
    centres: Reals
    times: NDArray[np.int64]

    def doubt(self) -> Estimate | None:
        """The mean over prompts of their means, with its doubt from each request's distance to its prompt's mean."""
        times = self.times[self.number]
        # A distance from a mean of few is too short by sqrt(1 - 1/times); each prompt weighs the same.
        away = (self.logs - self.centres[self.number]) * np.sqrt(times / (times - 1))
        away = away * len(self.logs) / (times * len(self.centres))
        found = mean_variance(away)
        if found is None:
            return None
        # Lengthened so, what neighbours share is still too small by 1 - 1/times: the means have taken that part of it.
        alone = float(away.var(ddof=1)) / len(away)
        shared = (found.variance - alone) * float(np.mean(times / (times - 1)))
        return Estimate(found.value, alone + shared, found.freedom)


def typical(figure: Figure, base: Side, new: Side, tail: float) -> Change | None:
    """The geometric mean over prompts of what each prompt took, NEW against BASE; None where a run has no values.

    Every prompt weighs the same, however often it was asked, so that what prompts differ by is no doubt. With two or
    more runs a side the run is the unit. With one, the doubt is that of blocks of neighbours: where every prompt was
    asked again and again, of each request's distance from its prompt's mean; else of the prompts' log ratios, in the
    order they were asked.
    """
    numbers = _common(figure.metric, base, new)
    prompted = _each(base, new, lambda lap: _by_prompt(lap, figure.metric, numbers))
    if prompted is None:
        return None
    again = all(one.times.min() >= 2 for one in (*prompted[0], *prompted[1]))
    of_runs: tuple[list[OfRun], list[OfRun]] = ([], [])
    for runs, side in zip(of_runs, prompted, strict=True):
        for one in side:
            outliers = int(stats.outliers(one.logs - one.centres[one.number]).sum())
            run = OfRun(float(one.centres.mean()), len(one.logs), outliers=outliers)
            doubt = one.doubt() if again else None
            if doubt is not None:
                run = replace(run, doubt=doubt, variance=doubt.variance)
            runs.append(run)
    within: list[float | None] | None = None
    if not again:
        # Prompts that were asked once show a run's variance in the ratio of two runs alone: half of it is one's.
        variances: list[float | None] = []
        for before, after in zip(*prompted, strict=False):  # of three runs against two there are two
            of_pair = _of_ratios(before.centres, after.centres, before, after)
            variances.append(None if of_pair is None else of_pair.variance / 2)
        known = _known(variances)
        within = [None if known is None else mean_of(known)] * 2
    measured = Measured(of_runs, interleaved(base, new), within)
    of = "not paired, as the prompts differ"
    if numbers:
        of = f"paired by prompt ({len(numbers)})"
    several = measured.between_runs(of)
    if several is not None:
        return several
    method = f"within one run a side, {of}, blocks of"
    if again:
        return measured.within_runs(tail, f"{method} requests", "too few requests")
    base_centres, new_centres = (np.mean([one.centres for one in side], axis=0) for side in prompted)
    estimate = _of_ratios(base_centres, new_centres, prompted[0][0], prompted[1][0])
    if estimate is None:
        return measured.change(None, f"{method} prompts", note="too few prompts in common")
    half = stats.student(estimate.freedom, tail) * math.sqrt(estimate.variance)
    bounds = estimate.value - half, estimate.value + half
    return measured.change(bounds, f"{method} prompts", runs=measured.runs())


def _common(metric: str, base: Side, new: Side) -> dict[str, int] | None:
    """Numbers of the prompts that every run of both sides asked; None where the sides asked different ones."""
    of_runs = []
    for lap in (*base.laps, *new.laps):
        prompts = np.array(lap.prompts, object)
        of_runs.append(prompts[_values(lap, metric) > 0].tolist())
    common = set(of_runs[0]).intersection(*of_runs[1:])
    # A few prompts that a run did not come to are left out; else the sides asked different things.
    for names in of_runs:
        if sum(map(common.__contains__, names)) / max(len(names), 1) < LEAST_COMMON:
            return None
    return {name: number for number, name in enumerate(sorted(common))}


def _values(lap: Lap, metric: str) -> Reals:
    return lap.values.get(metric, np.full(len(lap.prompts), np.nan))


def _by_prompt(lap: Lap, metric: str, numbers: dict[str, int] | None) -> _Prompted | None:
    """The run's values of the common prompts; where there are none, of all, as if they were one prompt."""
    values = _values(lap, metric)
    number = np.zeros(len(values), np.int64)
    if numbers is not None:
        number = np.array([numbers.get(name, -1) for name in lap.prompts], np.int64)
    kept = (number >= 0) & (values > 0)
    logs, number = np.log(values[kept]), number[kept]
    if not len(logs):
        return None
    prompts = len(numbers or (0,))
    times = np.bincount(number, minlength=prompts)
    return _Prompted(logs, number, np.bincount(number, logs, minlength=prompts) / times, times)


def _of_ratios(before: Reals, after: Reals, base: _Prompted, new: _Prompted) -> Estimate | None:
    """The mean log ratio with its doubt: what neighbours share in the order of BASE, and in that of NEW, adds up.

    Args:
        before, after: Mean logarithm of each prompt.
        base, new: Runs, for the order in which each side asked the prompts.
    """
    ratios = after - before
    base_order, new_order = list(dict.fromkeys(base.number.tolist())), list(dict.fromkeys(new.number.tolist()))
    first, second = mean_variance(ratios[base_order]), mean_variance(ratios[new_order])
    if first is None or second is None or base_order == new_order:
        return first
    alone = float(ratios.var(ddof=1)) / len(ratios)
    return Estimate(first.value, first.variance + second.variance - alone, min(first.freedom, second.freedom))


# -- percentiles


def percentile(figure: Figure, base: Side, new: Side, tail: float) -> Change | None:
    """The ratio of one percentile of all requests that were due; None where a run has no values.

    One that failed or was dropped has no end, as in an SLO. Gaps are of those that completed.

    With one run a side each percentile has its interval by blocks (of gaps by clusters), and both are put together by
    variance recovery: they need not be symmetric, and no bootstrap is drawn.
    """
    metric, p = figure.metric, figure.p or 0.5

    def of_run(lap: Lap) -> OfRun | None:
        values = _column(lap, metric)
        value = stats.percentile(np.sort(values), p) or 0.0
        if not value > 0:
            return None
        low, high = _bounds(lap, metric, p, stats.TAIL) or (0.0, math.inf)
        variance = None
        if low > 0 and high < math.inf:  # read off the width of its interval
            variance = (math.log(high / low) / 2 / stats.normal()) ** 2
        return OfRun(math.log(value), len(values), variance=variance)

    of_runs = _each(base, new, of_run)
    if of_runs is None:
        return None
    # A run alone may have too few failures to show that the percentile of its side has no end.
    pooled = []
    for side in (base, new):
        pooled.append(np.concatenate([_column(lap, metric) for lap in side.laps]))
    for values, runs in zip(pooled, of_runs, strict=True):
        # So many requests may have no end that the percentile has none either, or may have none.
        if np.isinf(values).any():
            bounds = percentile_interval(values, p, tail) or (0.0, 0.0)
            if bounds[1] == math.inf or math.inf in [run.log for run in runs]:
                return _endless(pooled, p, tail)
    measured = Measured(of_runs, interleaved(base, new))
    unit, method = "requests", "within one run a side, blocks of requests"
    if metric == GAPS:
        unit, method = "gaps", "within one run a side, clusters of gaps"
    fewest = min(map(len, pooled))
    if fewest < stats.needed(p):
        return measured.change(None, "none", note=f"needs >= {stats.needed(p)} {unit} a side")
    several = measured.between_runs("percentile of each run")
    if several is not None:
        return several
    known = []
    for lap in (*base.laps, *new.laps):
        low, high = _bounds(lap, metric, p, tail) or (0.0, 0.0)
        if not low > 0:
            least = stats.needed(p, tail)
            note = f"{unit} resemble their neighbours: they are worth less than the {least} independent ones it needs"
            note = f"{note} a side"
            if fewest < least:
                note = f"needs >= {least} {unit} a side, as several metrics are judged"
            return measured.change(None, method, note=note)
        known.append((math.log(low), math.log(high)))
    weights = [-1 / base.runs] * base.runs + [1 / new.runs] * new.runs
    both = stats.mover([run.log for run in (*of_runs[0], *of_runs[1])], known, weights)
    return measured.change(both, method, runs=measured.runs())


def _column(lap: Lap, metric: str) -> Reals:
    if metric == GAPS:
        if lap.gaps_ms is None:
            return np.zeros(0)
        return lap.gaps_ms
    values = lap.due_values.get(metric, lap.values.get(metric, np.zeros(0)))
    return values[~np.isnan(values)]


def _bounds(lap: Lap, metric: str, p: float, tail: float) -> Bounds | None:
    values = _column(lap, metric)
    if metric != GAPS:
        return percentile_interval(values, p, tail)
    ascending = np.sort(values)
    at, sizes = stats.percentile(ascending, p), lap.gap_sizes
    if at is None or sizes is None:
        return None
    # Gaps of one request resemble each other: the request is the cluster.
    owner, held = np.repeat(np.arange(len(sizes)), sizes), sizes > 0
    below = np.bincount(owner[values < at], minlength=len(sizes))[held]
    at_most = np.bincount(owner[values <= at], minlength=len(sizes))[held]
    return stats.interval(ascending, p, independent_gaps(below, at_most, sizes[held], tail), tail)


def _endless(sides: Sequence[Reals], p: float, tail: float) -> Change:
    """Where too many requests of a run failed or were dropped for the percentile to have an end: all its runs together.

    The interval is that from one side's lower bound to the other's upper one, for no variance is known of what has no
    end. Where neither side has an end, nobody can tell.
    """
    base, new = (stats.percentile(np.sort(values), p) or math.inf for values in sides)
    lost = []
    for name, values in zip(("BASE", "NEW"), sides, strict=True):
        if np.isinf(values).any():
            lost.append(f"{100 * float(np.isinf(values).mean()):.3g} % of {name}")
    change = Change(
        base=base if base < math.inf else None,
        new=new if new < math.inf else None,
        effect=None,
        low=None,
        high=None,
        method="all runs together, failed requests without end",
        n_base=len(sides[0]),
        n_new=len(sides[1]),
        note=f"{' and '.join(lost)} failed or were dropped: they count as infinitely long",
    )
    of_base, of_new = percentile_interval(sides[0], p, tail), percentile_interval(sides[1], p, tail)
    if of_base is None or of_new is None or base == new == math.inf:
        return change
    (base_low, base_high), (low, high) = of_base, of_new
    if low == base_high == math.inf or high == base_low == math.inf:
        return change
    # Differences of logarithms, of which one may be infinite.
    effect, log_low = math.log(new) - math.log(base), math.log(low) - math.log(base_high)
    return replace(change, effect=effect, low=log_low, high=math.log(high) - math.log(base_low))


# -- rates and means


def rate(figure: Figure, base: Side, new: Side, tail: float) -> Change | None:
    """The ratio of a rate per second; None where a run has none.

    With one run a side its doubt is that of blocks of time in the steady window.
    """

    def of_run(lap: Lap) -> OfRun | None:
        flow = lap.flows.get(figure.metric)
        if flow is None or not flow.per_s > 0:
            return None
        doubt = None if flow.slices is None else rate_variance(flow.slices, flow.seconds, flow.dependent_s)
        return _of_estimate(flow.per_s, len(lap.prompts), doubt)

    short = "the steady window is too short for four blocks that are longer than a request"
    return _ratio(base, new, of_run, tail, ("rate of each run", "blocks of time", short))


def mean(figure: Figure, base: Side, new: Side, tail: float) -> Change | None:
    """The ratio of the arithmetic means of a time; None where a run has no values."""

    def of_run(lap: Lap) -> OfRun | None:
        values = _values(lap, figure.metric)
        values = values[~np.isnan(values)]
        if not len(values) or not values.mean() > 0:
            return None
        return _of_estimate(float(values.mean()), len(values), mean_variance(values))

    return _ratio(base, new, of_run, tail, ("mean of each run", "blocks of requests", "too few requests"))


def _of_estimate(value: float, n: int, doubt: Estimate | None) -> OfRun:
    """A positive figure with its doubt, which the delta method makes one of its logarithm."""
    if doubt is None or not doubt.value > 0:
        return OfRun(math.log(value), n)
    variance = doubt.variance / doubt.value**2
    return OfRun(math.log(value), n, Estimate(math.log(doubt.value), variance, doubt.freedom), variance)


def _ratio(
    base: Side, new: Side, of_run: Callable[[Lap], OfRun | None], tail: float, words: tuple[str, str, str]
) -> Change | None:
    of, blocks, short = words
    of_runs = _each(base, new, of_run)
    if of_runs is None:
        return None
    measured = Measured(of_runs, interleaved(base, new))
    return measured.between_runs(of) or measured.within_runs(tail, f"within one run a side, {blocks}", short)


# -- shares


def share(figure: Figure, base: Side, new: Side, tail: float) -> Change | None:
    """The difference of two shares over all runs of each side; None where a run does not know it.

    Wilson's bounds of each, put together as Newcombe does. Where both sides asked the same prompts equally often, their
    outcomes are paired, which McNemar's test asks too. Requests that fail together count as fewer (blocks), and so
    do those of runs that differ by more than chance.
    """
    sides = _each(base, new, lambda lap: lap.outcomes.get(figure.metric))
    if sides is None:
        return None
    of_sides, worth = [], []
    for side in sides:
        counted = list(filter(_offered, side))
        if not counted:
            return None
        hits, offered = [int(one.flags.sum()) for one in counted], list(map(_offered, counted))
        # Neighbours that fail together are worth fewer requests, and runs that differ by more than chance fewer still.
        within = 0.0
        for one in counted:
            if len(one.flags):
                within += _offered(one) * independent_flags(one.flags, tail) / len(one.flags)
        independent = independent_in_runs(hits, offered, within, tail)
        found = sum(hits) / sum(offered)
        of_sides.append((found, sum(offered)))
        worth.append((found * independent, independent))
    phi, p_value, method = 0.0, None, "Newcombe, not paired"
    both = _paired(sides)
    if both is not None:
        method = "Newcombe, paired by prompt"
        first, second = both[0].astype(np.float64), both[1].astype(np.float64)
        spread = math.sqrt(float(first.var() * second.var()))
        # The correlation of the outcomes, at least 0: prompts that fail on one side alone widen nothing.
        if spread > 0:
            phi = max(0.0, float(((first - first.mean()) * (second - second.mean())).mean()) / spread)
        p_value = mcnemar(int((both[1] & ~both[0]).sum()), int((both[0] & ~both[1]).sum()))
    bounds = newcombe_paired(worth[0], worth[1], phi, tail)
    if bounds is None:
        return None
    (share_base, n_base), (share_new, n_new) = of_sides
    return Change(share_base, share_new, share_new - share_base, *bounds, method, n_base, n_new, p_value=p_value)


def _offered(one: Outcomes) -> int:
    return max(len(one.flags), one.offered or 0)


def _paired(sides: Sequence[Sequence[Outcomes]]) -> tuple[Flags, Flags] | None:
    """The outcomes of the k-th asking of each prompt, in the same order; None where the sides asked differently."""
    keyed: list[dict[tuple[str, int], bool]] = []
    for side in sides:
        times: Counter[str] = Counter()
        found: dict[tuple[str, int], bool] = {}
        for one in side:
            if _offered(one) != len(one.flags):
                return None  # what was never sent has no prompt to pair by
            for name, flag in zip(one.prompts, one.flags.tolist(), strict=True):
                times[name] += 1
                found[name, times[name]] = flag
        keyed.append(found)
    if keyed[0].keys() != keyed[1].keys():
        return None
    first = np.fromiter(keyed[0].values(), np.bool_, len(keyed[0]))
    return first, np.fromiter(map(keyed[1].__getitem__, keyed[0]), np.bool_, len(first))


ESTIMATORS: dict[Kind, Callable[[Figure, Side, Side, float], Change | None]]
ESTIMATORS = {"typical": typical, "percentile": percentile, "mean": mean, "rate": rate, "share": share}
