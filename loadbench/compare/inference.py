"""From the logarithms of each run's figure to an interval of their ratio: between runs, or within one run a side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from loadbench import stats
from loadbench.compare.spread import Runs
from loadbench.compare.verdict import Finding
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
        return self.found((low + shift, high + shift), method, runs=self.single(variances(estimates)))


def variances(estimates: Doubts) -> list[float | None]:
    """Variance of the logarithm of one run of BASE, and of one of NEW; None where a run does not know it."""
    found: list[float | None] = []
    for side in estimates:
        known = [one.variance for one in side if one is not None]
        found.append(mean_of(known) if len(known) == len(side) else None)
    return found


def log_of(estimate: Estimate | None) -> Estimate | None:
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
