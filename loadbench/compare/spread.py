"""How much runs differ: the variance of a run, moderated over the metrics and levels of a comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loadbench.compare.side import Reals
from loadbench.stats import Estimate
from loadbench.stats.blocks import reach

QUIET = 0.02
"""What runs of a machine left alone differ by (standard deviation of a logarithm): supposed until runs say more."""
SUPPOSED = 10.0
"""Degrees of freedom that this is worth. Where runs clearly differ by more, it is worth none."""
_MANY = 1000.0


@dataclass(frozen=True, slots=True)
class Runs:
    """What the runs of one metric of one level say of how much runs differ.

    Attributes:
        effect: Log of new / base.
        within: Variance of one run's logarithm (of one pair's log ratio) by what varies within it; None where unknown.
        part: What of one run's variance is left in the effect: 1/5 of five pairs, 1/3 + 1/2 of three runs against two.
        paired: Whether the unit is a pair of runs that took turns.
        residuals: How far each run or pair is from its mean, in the order of the runs; empty of one run a side.
        freedom: Degrees of freedom of the residuals.
    """

    effect: float
    within: float | None
    part: float
    paired: bool = False
    residuals: tuple[float, ...] = ()
    freedom: int = 0

    @property
    def variance(self) -> float:
        """Of one run or pair, by its residuals alone."""
        return math.fsum(one * one for one in self.residuals) / self.freedom

    @property
    def expected(self) -> float:
        """Of one run or pair, if runs differ by no more than they do on a quiet machine."""
        return (self.within or 0.0) + QUIET**2 * (2 if self.paired else 1)


def moderated(found: Sequence[Runs | None]) -> list[Estimate | None]:
    """The effects with their doubt, each variance drawn towards what all metrics and levels have in common.

    A variance of three runs has two degrees of freedom, and Student's quantile for so few is what hides differences.
    Metrics and levels are measured in the same runs, so that they are worth fewer than their number: as many as the
    correlations of their residuals leave.

    Returns:
        One for each; None where no run says how much runs differ.
    Source: Smyth 2004, Statistical Applications in Genetics and Molecular Biology 3:1 (limma).
    """
    doubts: dict[int, Estimate] = {}
    for paired in (True, False):
        kind = {i: one for i, one in enumerate(found) if one is not None and one.paired is paired}
        common = _common([one for one in kind.values() if one.freedom and one.within is not None])
        for i, one in kind.items():
            doubt = _doubt(one, common)
            if doubt is not None:
                doubts[i] = doubt
    return [doubts.get(i) for i in range(len(found))]


@dataclass(frozen=True, slots=True)
class _Common:
    """What metrics and levels have in common: the scale of their variances over the expected ones.

    Attributes:
        scale: The factor.
        freedom: Degrees of freedom of it.
        alike: Those that one variance is drawn by towards it: fewer where variances differ by more than by chance.
    """

    scale: float
    freedom: float
    alike: float


def _doubt(one: Runs, common: _Common | None) -> Estimate | None:
    if common is None or one.within is None:
        return Estimate(one.effect, one.variance * one.part, one.freedom) if one.freedom else None
    variance = common.scale * one.expected
    if not one.freedom:
        return Estimate(one.effect, max(variance, one.within) * one.part, common.freedom)
    variance = (common.alike * variance + one.freedom * one.variance) / (common.alike + one.freedom)
    return Estimate(one.effect, variance * one.part, min(common.alike + one.freedom, common.freedom))


def _common(known: Sequence[Runs]) -> _Common | None:
    if not known:
        return None
    ratios = np.array([one.variance / one.expected for one in known])
    scale = float(ratios.mean())
    freedom = max(one.freedom for one in known) * len(known) ** 2 / _shared(known)
    if scale <= reach(freedom):
        scale = (SUPPOSED + freedom * scale) / (SUPPOSED + freedom)
        freedom += SUPPOSED
    return _Common(scale, freedom, min(_alike(ratios, [one.freedom for one in known]), freedom))


def _shared(known: Sequence[Runs]) -> float:
    """Sum over all pairs of metrics of the squared correlation of their residuals; those of other runs count as 1."""
    total = 0.0
    for size in {len(one.residuals) for one in known}:
        rows = np.array([one.residuals for one in known if len(one.residuals) == size])
        lengths = np.sqrt(np.square(rows).sum(axis=1))
        unit = rows / np.where(lengths > 0, lengths, 1.0)[:, np.newaxis]
        squares = np.square(unit @ unit.T)
        squares[lengths == 0] = squares[:, lengths == 0] = 1.0
        total += float(squares.sum()) + len(rows) * (len(known) - len(rows))
    return total


def _alike(ratios: Reals, freedoms: Sequence[int]) -> float:
    """Degrees of freedom of the common variance, from how much the logarithms of the variances spread beyond chance."""
    if len(ratios) < 3 or not ratios.min() > 0:
        return _MANY
    beyond = float(np.log(ratios).var(ddof=1)) - float(np.mean([_trigamma(freedom / 2) for freedom in freedoms]))
    return 2 * _trigamma_inverse(beyond) if beyond > _trigamma(_MANY / 2) else _MANY


def _trigamma(x: float) -> float:
    """The variance of the logarithm of a gamma variable of that shape (Abramowitz & Stegun 6.4.6 and 6.4.12)."""
    total = 0.0
    while x < 6:
        total += 1 / x**2
        x += 1
    return total + 1 / x + 1 / (2 * x**2) + 1 / (6 * x**3) - 1 / (30 * x**5) + 1 / (42 * x**7)


def _trigamma_inverse(value: float) -> float:
    low, high = 1e-6, _MANY
    for _ in range(60):
        middle = math.sqrt(low * high)
        if _trigamma(middle) > value:
            low = middle
        else:
            high = middle
    return low
