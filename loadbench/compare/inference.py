"""From the logarithms of each run's figure to an interval of their ratio: between runs, or within one run a side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from loadbench import intervals
from loadbench.compare.verdict import Finding
from loadbench.intervals import Bounds, Estimate

Logs = tuple[Sequence[float], Sequence[float]]


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
        self,
        bounds: Bounds | None,
        method: str,
        *,
        by_run: tuple[float, ...] = (),
        note: str = "",
        paired: bool = False,
    ) -> Finding:
        low, high = bounds or (None, None)
        base, new = (math.exp(mean_of(side)) for side in self.logs)
        first, second = self.outliers or (None, None)
        n = self.n_base, self.n_new
        return Finding(base, new, self.effect, low, high, method, *n, by_run, first, second, note=note, paired=paired)

    def between_runs(self, pairs: bool, tail: float, of: str) -> Finding | None:
        """The run is the unit: Student's interval of the pairs' log ratios, or Welch's; None with one run on a side.

        Source: Georges, Buytaert & Eeckhout 2007; Kalibera & Jones 2013.
        """
        base, new = self.logs
        first, second = intervals.one_sample(base), intervals.one_sample(new)
        if first is None or second is None:
            return None
        by_run = tuple(n - b for b, n in zip(base, new, strict=True)) if len(base) == len(new) else ()
        both = intervals.one_sample(by_run) if pairs else None
        if both is None:
            bounds = intervals.difference(first, second, tail)
            return self.found(bounds, f"{len(base)} and {len(new)} runs, {of}", by_run=by_run)
        half = intervals.student(both.freedom, tail) * math.sqrt(both.variance)
        bounds = both.value - half, both.value + half
        return self.found(bounds, f"{len(by_run)} pairs of runs, {of}", by_run=by_run, paired=True)

    def within_runs(
        self, estimates: Sequence[Sequence[Estimate | None]], tail: float, method: str, short: str
    ) -> Finding:
        """Welch's interval where each run knows the doubt of its own logarithm; `short` says why one does not."""
        known = [[one for one in side if one is not None] for side in estimates]
        if [len(side) for side in known] != [len(side) for side in self.logs]:
            return self.found(None, method, note=short)
        base, new = (_averaged(side) for side in known)
        low, high = intervals.difference(base, new, tail)
        shift = self.effect - (new.value - base.value)
        return self.found((low + shift, high + shift), method)


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
