"""How much one metric changed, NEW against BASE, with its doubt: typical times, percentiles, means, rates, shares."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from loadbench import stats
from loadbench.compare.figures import GAPS
from loadbench.compare.sides import Flags, Flow, Lap, Outcomes, Reals, Side
from loadbench.compare.verdict import Finding, Runs
from loadbench.stats import Bounds, Estimate

Logs = tuple[Sequence[float], Sequence[float]]
Doubts = Sequence[Sequence[Estimate | None]]
"""What each run of BASE and of NEW knows of its own logarithm; None where a run does not."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Both sides of one metric.

    Attributes:
        logs: Logarithms of the figure of each run, BASE and NEW.
        n_base, n_new: Requests or gaps that they rest on.
        outliers: Flagged requests of each side; None where nobody looked.
    """

    logs: Logs
    n_base: int
    n_new: int
    outliers: tuple[int, int] | None = None

    @property
    def effect(self) -> float:
        return mean_of(self.logs[1]) - mean_of(self.logs[0])

    def found(
        self, bounds: Bounds | None, method: str, *, runs: Runs | None = None, paired: bool = False, note: str = ""
    ) -> Finding:
        low, high = bounds or (None, None)
        base, new = (math.exp(mean_of(side)) for side in self.logs)
        first, second = self.outliers or (None, None)
        return Finding(
            base=base,
            new=new,
            effect=self.effect,
            low=low,
            high=high,
            method=method,
            n_base=self.n_base,
            n_new=self.n_new,
            by_run=self.by_run,
            outliers_base=first,
            outliers_new=second,
            note=note,
            paired=paired,
            runs=runs,
        )

    @property
    def by_run(self) -> tuple[float, ...]:
        base, new = self.logs
        return tuple(n - b for b, n in zip(base, new, strict=True)) if len(base) == len(new) > 1 else ()

    def between_runs(self, pairs: bool, of: str, within: Sequence[float | None]) -> Finding | None:
        """The run is the unit: the runs of both sides, or their pairs; None with one run on a side.

        The interval is made later, when it is known how much runs differ in all metrics and levels.

        Args:
            pairs: Whether runs took turns.
            of: What the figure of each run is, in words.
            within: Variance of the logarithm of a run of BASE, and of NEW, by what varies within it.

        Source: Georges, Buytaert & Eeckhout 2007; Kalibera & Jones 2013.
        """
        sizes = [len(side) for side in self.logs]
        if min(sizes) < 2:
            return None
        if pairs:
            method = f"{sizes[0]} pairs of runs, {of}"
            return self.found(None, method, runs=self._pairs(within), paired=True)
        return self.found(None, f"{sizes[0]} and {sizes[1]} runs, {of}", runs=self.single(within))

    def single(self, within: Sequence[float | None]) -> Runs:
        """What runs say that are no pairs: each against the mean of its side."""
        residuals = [log - mean_of(side) for side in self.logs for log in side]
        known = [one for one in within if one is not None]
        return Runs(
            effect=self.effect,
            within=mean_of(known) if len(known) == len(within) else None,
            part=math.fsum(1 / len(side) for side in self.logs),
            residuals=tuple(residuals) if len(residuals) > len(self.logs) else (),
            freedom=len(residuals) - len(self.logs),
        )

    def _pairs(self, within: Sequence[float | None]) -> Runs:
        known = [one for one in within if one is not None]
        return Runs(
            effect=self.effect,
            within=math.fsum(known) if len(known) == len(within) else None,
            part=1 / len(self.by_run),
            paired=True,
            residuals=tuple(one - self.effect for one in self.by_run),
            freedom=len(self.by_run) - 1,
        )

    def within_runs(self, estimates: Doubts, tail: float, method: str, short: str) -> Finding:
        """Welch's interval where each run knows the doubt of its own logarithm; `short` says why one does not."""
        known = [[one for one in side if one is not None] for side in estimates]
        if [len(side) for side in known] != [len(side) for side in self.logs]:
            return self.found(None, method, note=short)
        base, new = (_averaged(side) for side in known)
        low, high = stats.difference(base, new, tail)
        shift = self.effect - (new.value - base.value)
        return self.found((low + shift, high + shift), method, runs=self.single(_variances(estimates)))


def _variances(estimates: Doubts) -> list[float | None]:
    """Variance of the logarithm of one run of BASE, and of one of NEW; None where a run does not know it."""
    found: list[float | None] = []
    for side in estimates:
        known = [one.variance for one in side if one is not None]
        found.append(mean_of(known) if len(known) == len(side) else None)
    return found


def _log_of(estimate: Estimate | None) -> Estimate | None:
    """The logarithm of a positive estimate, by the delta method."""
    if estimate is None or not estimate.value > 0:
        return None
    return Estimate(math.log(estimate.value), estimate.variance / estimate.value**2, estimate.freedom)


def mean_of(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _averaged(runs: Sequence[Estimate]) -> Estimate:
    variance = math.fsum(one.variance for one in runs)
    squares = math.fsum(one.variance**2 / one.freedom for one in runs)
    freedom = variance**2 / squares if squares > 0 else float(len(runs))
    return Estimate(mean_of([one.value for one in runs]), variance / len(runs) ** 2, freedom)


LEAST_COMMON = 0.8
"""Share of each run's requests whose prompt all runs of both sides asked, from which they are paired by prompt."""

Rows = tuple[Reals, NDArray[np.int64]]
"""Logarithms of one run's values in the order of start, and the number of each one's prompt."""


def typical(metric: str, base: Side, new: Side, pairs: bool, tail: float) -> Finding | None:
    """The geometric mean over prompts of what each prompt took, NEW against BASE; None where a run has no values.

    Every prompt weighs the same, however often it was asked, so that what prompts differ by is no doubt. With two or
    more runs a side the run is the unit. With one, the doubt is that of blocks of neighbours: where every prompt was
    asked again and again, of each request's distance from its prompt's mean; else of the prompts' log ratios, in the
    order they were asked.
    """
    numbers = _common(metric, base, new)
    rows = [[_rows(lap, metric, numbers) for lap in side.laps] for side in (base, new)]
    if not all(len(logs) for side in rows for logs, _ in side):
        return None
    prompts = len(numbers) if numbers else 1
    centres = [[_centres(one, prompts) for one in side] for side in rows]
    first, second = ([float(centre.mean()) for centre in side] for side in centres)
    n_base, n_new = (sum(len(logs) for logs, _ in side) for side in rows)
    flagged = [
        sum(int(stats.outliers(logs - centre[number]).sum()) for (logs, number), centre in zip(*side, strict=True))
        for side in zip(rows, centres, strict=True)
    ]
    measured = Measured((first, second), n_base, n_new, (flagged[0], flagged[1]))
    of = f"paired by prompt ({prompts})" if numbers else "not paired, as the prompts differ"
    again = all(_again(number, prompts) for side in rows for _, number in side)
    if again:
        doubts = [
            [_of_distances(one, centre) for one, centre in zip(*side, strict=True)]
            for side in zip(rows, centres, strict=True)
        ]
        within = _variances(doubts)
    else:
        within = _of_pairs(rows, centres)
    several = measured.between_runs(pairs, of, within)
    if several is not None:
        return several
    if again:
        method = f"within one run a side, {of}, blocks of requests"
        return measured.within_runs(doubts, tail, method, "too few requests")
    before, after = (np.mean(side, axis=0) for side in centres)
    estimate = _of_prompts(after - before, *(rows_of[0][1] for rows_of in rows))
    method = f"within one run a side, {of}, blocks of prompts"
    if estimate is None:
        return measured.found(None, method, note="too few prompts in common")
    half = stats.student(estimate.freedom, tail) * math.sqrt(estimate.variance)
    bounds = estimate.value - half, estimate.value + half
    return measured.found(bounds, method, runs=measured.single(within))


def _of_pairs(rows: Sequence[Sequence[Rows]], centres: Sequence[Sequence[Reals]]) -> list[float | None]:
    """Variance of the logarithm of a run of either side, of prompts asked once: half of that of two runs' ratio."""
    found = []
    for base, new, before, after in zip(*rows, *centres, strict=False):
        estimate = _of_prompts(after - before, base[1], new[1])
        found.append(None if estimate is None else estimate.variance / 2)
    known = [one for one in found if one is not None]
    return [mean_of(known) if len(known) == len(found) else None] * 2


def _of_prompts(ratios: Reals, base: NDArray[np.int64], new: NDArray[np.int64]) -> Estimate | None:
    """The mean log ratio with its doubt: what neighbours share in the order of BASE, and in that of NEW, adds up.

    Args:
        ratios: Log ratio of each prompt.
        base, new: Numbers of the prompts as each side asked them.
    """
    orders = [list(dict.fromkeys(side.tolist())) for side in (base, new)]
    first, second = (stats.mean_variance(ratios[order]) for order in orders)
    if first is None or second is None or orders[0] == orders[1]:
        return first
    alone = float(ratios.var(ddof=1)) / len(ratios)
    return Estimate(first.value, first.variance + second.variance - alone, min(first.freedom, second.freedom))


def _common(metric: str, base: Side, new: Side) -> dict[str, int] | None:
    """Numbers of the prompts that every run of both sides asked; None where the sides asked different ones."""
    asked = [_asked(lap, metric) for side in (base, new) for lap in side.laps]
    common = set(asked[0]).intersection(*asked[1:])
    shares = [sum(name in common for name in names) / max(len(names), 1) for names in asked]
    return {name: number for number, name in enumerate(sorted(common))} if min(shares) >= LEAST_COMMON else None


def _asked(lap: Lap, metric: str) -> list[str]:
    return [name for name, value in zip(lap.prompts, _values(lap, metric), strict=True) if value > 0]


def _rows(lap: Lap, metric: str, numbers: dict[str, int] | None) -> Rows:
    """The run's values of the common prompts; where there are none, of all, as if they were one prompt."""
    values = _values(lap, metric)
    number = np.array([0 if numbers is None else numbers.get(name, -1) for name in lap.prompts], dtype=np.int64)
    kept = (number >= 0) & (values > 0)
    return np.log(values[kept]), number[kept]


def _values(lap: Lap, metric: str) -> Reals:
    return lap.values.get(metric, np.full(len(lap.prompts), np.nan))


def _centres(rows: Rows, prompts: int) -> Reals:
    logs, number = rows
    centres: Reals = np.bincount(number, logs, minlength=prompts) / np.bincount(number, minlength=prompts)
    return centres


def _again(number: NDArray[np.int64], prompts: int) -> bool:
    twice: Flags = np.bincount(number, minlength=prompts) >= 2
    return bool(twice.all())


def _of_distances(rows: Rows, centre: Reals) -> Estimate | None:
    """The mean over prompts of their means, with its doubt from each request's distance to its prompt's mean."""
    logs, number = rows
    times = np.bincount(number, minlength=len(centre))[number]
    # A distance from a mean of few is too short by sqrt(1 - 1/times); each prompt weighs the same.
    away = (logs - centre[number]) * np.sqrt(times / (times - 1)) * len(logs) / (times * len(centre))
    found = stats.mean_variance(away)
    if found is None:
        return None
    # Lengthened so, what neighbours share is still too small by 1 - 1/times: the means have taken that part of it.
    alone = float(away.var(ddof=1)) / len(away)
    shared = (found.variance - alone) * float(np.mean(times / (times - 1)))
    return Estimate(found.value, alone + shared, found.freedom)


def percentile(metric: str, p: float, base: Side, new: Side, pairs: bool, tail: float) -> Finding | None:
    """The ratio of one percentile of all requests that were due; None where a run has no values.

    One that failed or was dropped has no end, as in an SLO. Gaps are of those that completed.

    With one run a side each percentile has its interval by blocks (of gaps by clusters), and both are put together by
    variance recovery: they need not be symmetric, and no bootstrap is drawn.
    """
    columns = [[_column(lap, metric) for lap in side.laps] for side in (base, new)]
    if not all(len(values) and values.max() > 0 for side in columns for values in side):
        return None
    found = [[stats.percentile(np.sort(values), p) or 0.0 for values in side] for side in columns]
    if min(value for side in found for value in side) <= 0:
        return None
    unit = "gaps" if metric == GAPS else "requests"
    n_base, n_new = (sum(len(values) for values in side) for side in columns)
    if _reaches_lost(columns, p, tail):
        return _endless(columns, p, tail)
    first, second = ([math.log(value) for value in side] for side in found)
    measured = Measured((first, second), n_base, n_new)
    if min(n_base, n_new) < stats.needed(p):
        return measured.found(None, "none", note=f"needs >= {stats.needed(p)} {unit} a side")
    within = [_variance([_bounds(lap, metric, p, stats.TAIL) for lap in side.laps]) for side in (base, new)]
    several = measured.between_runs(pairs, "percentile of each run", within)
    if several is not None:
        return several
    method = f"within one run a side, {'clusters of gaps' if metric == GAPS else 'blocks of requests'}"
    bounds = [_bounds(lap, metric, p, tail) for side in (base, new) for lap in side.laps]
    known = [(math.log(low), math.log(high)) for low, high in (one for one in bounds if one) if low > 0]
    if len(known) < len(bounds):
        return measured.found(None, method, note=_short(unit, p, min(n_base, n_new), tail))
    weights = [-1 / base.runs] * base.runs + [1 / new.runs] * new.runs
    both = stats.mover([*first, *second], known, weights)
    return measured.found(both, method, runs=measured.single(within))


def _reaches_lost(columns: Sequence[Sequence[Reals]], p: float, tail: float) -> bool:
    """Whether so many requests of a side have no end that its percentile has none, or may have none."""
    for side in columns:
        values = np.concatenate(side)
        if not np.isinf(values).any():
            continue
        if any(stats.percentile(np.sort(one), p) == math.inf for one in side):
            return True
        bounds = stats.percentile_interval(values, p, tail)
        if bounds is not None and bounds[1] == math.inf:
            return True
    return False


def _endless(columns: Sequence[Sequence[Reals]], p: float, tail: float) -> Finding:
    """Where so many requests of a run failed or were dropped that the percentile has no end: all its runs together.

    The interval is that from one side's lower bound to the other's upper one, for no variance is known of what has no
    end. Where neither side has an end, nobody can tell.
    """
    sides = [np.concatenate(side) for side in columns]
    found = [stats.percentile(np.sort(values), p) or math.inf for values in sides]
    bounds = [stats.percentile_interval(values, p, tail) for values in sides]
    lost = " and ".join(
        f"{100 * float(np.isinf(values).mean()):.3g} % of {name}"
        for name, values in zip(("BASE", "NEW"), sides, strict=True)
        if np.isinf(values).any()
    )
    finding = Finding(
        base=found[0] if found[0] < math.inf else None,
        new=found[1] if found[1] < math.inf else None,
        effect=None,
        low=None,
        high=None,
        method="all runs together, failed requests without end",
        n_base=len(sides[0]),
        n_new=len(sides[1]),
        note=f"{lost} failed or were dropped: they have no end",
    )
    of_base, of_new = bounds
    if of_base is None or of_new is None or min(found) == math.inf:
        return finding
    (base_low, base_high), (low, high) = of_base, of_new
    if low == base_high == math.inf or high == base_low == math.inf:
        return finding
    return replace(
        finding,
        effect=math.log(found[1]) - math.log(found[0]),
        low=-math.inf if base_high == math.inf else math.log(low) - math.log(base_high),
        high=math.inf if high == math.inf else math.log(high) - math.log(base_low),
    )


def _variance(bounds: Sequence[Bounds | None]) -> float | None:
    """Variance of the logarithm of one run's percentile, read off the widths of their intervals."""
    widths = [math.log(high / low) for low, high in (one for one in bounds if one) if low > 0 and high < math.inf]
    if len(widths) < len(bounds):
        return None
    return math.fsum((width / 2 / stats.normal()) ** 2 for width in widths) / len(widths)


def _short(unit: str, p: float, n: int, tail: float) -> str:
    wanted = stats.needed(p, tail)
    if n < wanted:
        return f"needs >= {wanted} {unit} a side, as several metrics are judged"
    return f"{unit} resemble their neighbours: they are worth less than the {wanted} independent ones it needs a side"


def _column(lap: Lap, metric: str) -> Reals:
    if metric == GAPS:
        return np.zeros(0) if lap.gaps_ms is None else lap.gaps_ms
    values = lap.due_values.get(metric, lap.values.get(metric, np.zeros(0)))
    return values[~np.isnan(values)]


def _bounds(lap: Lap, metric: str, p: float, tail: float) -> Bounds | None:
    values = _column(lap, metric)
    if metric != GAPS:
        return stats.percentile_interval(values, p, tail)
    ascending = np.sort(values)
    at, sizes = stats.percentile(ascending, p), lap.gap_sizes
    if at is None or sizes is None:
        return None
    owner, held = np.repeat(np.arange(len(sizes)), sizes), sizes > 0
    below, at_most = (np.bincount(owner[hits], minlength=len(sizes))[held] for hits in (values < at, values <= at))
    return stats.interval(ascending, p, stats.independent_gaps(below, at_most, sizes[held], tail), tail)


def rate(metric: str, base: Side, new: Side, pairs: bool, tail: float) -> Finding | None:
    """The ratio of a rate per second; None where a run has none.

    With one run a side its doubt is that of blocks of time in the steady window.
    """
    flows = [[lap.flows.get(metric) for lap in side.laps] for side in (base, new)]
    known = [[flow for flow in side if flow is not None and flow.per_s > 0] for side in flows]
    if [len(side) for side in known] != [base.runs, new.runs]:
        return None
    first, second = ([math.log(flow.per_s) for flow in side] for side in known)
    n_base, n_new = (sum(len(lap.prompts) for lap in side.laps) for side in (base, new))
    measured = Measured((first, second), n_base, n_new)
    doubts = [[_of_flow(flow) for flow in side] for side in known]
    return measured.between_runs(pairs, "rate of each run", _variances(doubts)) or measured.within_runs(
        doubts,
        tail,
        "within one run a side, blocks of time",
        "the steady window is too short for four blocks that are longer than a request",
    )


def mean(metric: str, base: Side, new: Side, pairs: bool, tail: float) -> Finding | None:
    """The ratio of the arithmetic means of a time; None where a run has no values."""
    columns = [[lap.values.get(metric, np.zeros(0)) for lap in side.laps] for side in (base, new)]
    columns = [[values[~np.isnan(values)] for values in side] for side in columns]
    if not all(len(values) and values.mean() > 0 for side in columns for values in side):
        return None
    first, second = ([math.log(float(values.mean())) for values in side] for side in columns)
    n_base, n_new = (sum(len(values) for values in side) for side in columns)
    measured = Measured((first, second), n_base, n_new)
    doubts = [[_log_of(stats.mean_variance(values)) for values in side] for side in columns]
    return measured.between_runs(pairs, "mean of each run", _variances(doubts)) or measured.within_runs(
        doubts,
        tail,
        "within one run a side, blocks of requests",
        "too few requests",
    )


def _of_flow(flow: Flow) -> Estimate | None:
    if flow.slices is None:
        return None
    return _log_of(stats.rate_variance(flow.slices, flow.seconds, flow.dependent_s))


def share(metric: str, base: Side, new: Side, tail: float) -> Finding | None:
    """The difference of two shares over all runs of each side; None where a run does not know it.

    Wilson's bounds of each, put together as Newcombe does. Where both sides asked the same prompts equally often, their
    outcomes are paired, which McNemar's test asks too. Requests that fail together count as fewer (blocks), and so
    do those of runs that differ by more than chance.
    """
    sides = [[lap.outcomes.get(metric) for lap in side.laps] for side in (base, new)]
    known = [[one for one in side if one is not None] for side in sides]
    if [len(side) for side in known] != [base.runs, new.runs]:
        return None
    hits, n = ([sum(of(one) for one in side) for side in known] for of in (_hits, _offered))
    if not all(n):
        return None
    worth = [_worth(side, tail) for side in known]
    both = _paired(known)
    phi, p_value = (_phi(both), _mcnemar(both)) if both is not None else (0.0, None)
    first, second = ((h / k * w, w) for h, k, w in zip(hits, n, worth, strict=True))
    bounds = stats.newcombe_paired(first, second, phi, tail)
    if bounds is None:
        return None
    method = "Newcombe, paired by prompt" if both is not None else "Newcombe, not paired"
    shares = [h / k for h, k in zip(hits, n, strict=True)]
    effect = shares[1] - shares[0]
    return Finding(shares[0], shares[1], effect, *bounds, method, n[0], n[1], p_value=p_value)


def _hits(one: Outcomes) -> int:
    return int(one.flags.sum())


def _offered(one: Outcomes) -> int:
    return max(len(one.flags), one.offered or 0)


def _worth(side: Sequence[Outcomes], tail: float) -> float:
    """As many independent requests as those of all runs are worth: fewer where the runs differ by more than chance."""
    within = sum(
        _offered(one) * stats.independent_flags(one.flags, tail) / len(one.flags) for one in side if len(one.flags)
    )
    counted = [one for one in side if _offered(one)]
    return stats.independent_in_runs([_hits(one) for one in counted], [_offered(one) for one in counted], within, tail)


def _paired(sides: Sequence[Sequence[Outcomes]]) -> tuple[Flags, Flags] | None:
    """The outcomes of the k-th asking of each prompt, in the same order; None where the sides asked differently."""
    if any(_offered(one) != len(one.flags) for side in sides for one in side):
        return None
    keyed = []
    for side in sides:
        times: Counter[str] = Counter()
        found: dict[tuple[str, int], bool] = {}
        for one in side:
            for name, flag in zip(one.prompts, one.flags.tolist(), strict=True):
                times[name] += 1
                found[name, times[name]] = flag
        keyed.append(found)
    if keyed[0].keys() != keyed[1].keys():
        return None
    first = np.fromiter(keyed[0].values(), np.bool_, len(keyed[0]))
    return first, np.fromiter((keyed[1][key] for key in keyed[0]), np.bool_, len(first))


def _phi(both: tuple[Flags, Flags]) -> float:
    """Correlation of the two outcomes, at least 0: prompts that fail on one side alone widen nothing."""
    first, second = (side.astype(np.float64) for side in both)
    spread = math.sqrt(float(first.var() * second.var()))
    covariance = float(((first - first.mean()) * (second - second.mean())).mean())
    return max(0.0, covariance / spread) if spread > 0 else 0.0


def _mcnemar(both: tuple[Flags, Flags]) -> float:
    base, new = both
    return stats.mcnemar(int((new & ~base).sum()), int((base & ~new).sum()))
