"""The difference of two estimates that each know their doubt; of logarithms, it is the ratio of two figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from loadbench.stats.quantiles import TAIL, student

Bounds = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with the variance of its error.

    Attributes:
        value: The figure; a logarithm where ratios are wanted.
        variance: Of `value`, not of what it was computed from.
        freedom: Degrees of freedom of `variance`.
    """

    value: float
    variance: float
    freedom: float


def difference(base: Estimate, new: Estimate, tail: float = TAIL) -> Bounds:
    """Interval of new - base, two independent estimates.

    Source: Welch 1947, Satterthwaite 1946.

    >>> low, high = difference(Estimate(0.0, 0.01, 9), Estimate(0.5, 0.01, 9))
    >>> round(low, 3), round(high, 3)
    (0.203, 0.797)
    """
    variance = base.variance + new.variance
    squares = base.variance**2 / base.freedom + new.variance**2 / new.freedom
    half = student(variance**2 / squares, tail) * math.sqrt(variance) if squares > 0 else 0.0
    return new.value - base.value - half, new.value - base.value + half


def one_sample(values: Sequence[float]) -> Estimate | None:
    """The mean of independent values, as of runs, with its variance; None below two of them."""
    n = len(values)
    if n < 2:
        return None
    mean = math.fsum(values) / n
    return Estimate(mean, math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n, n - 1)


def mover(values: Sequence[float], bounds: Sequence[Bounds], weights: Sequence[float]) -> Bounds:
    """Interval of a weighted sum of independent figures, from the interval of each, symmetric or not.

    With weights (-1, 1) of two logarithms it is that of the log ratio of the second to the first.

    Source: Zou & Donner 2008, Statistics in Medicine 27:1693 (method of variance estimates recovery).

    >>> mover([0.0, 1.0], [(-3.0, 3.0), (-3.0, 5.0)], (-1, 1))
    (-4.0, 6.0)
    """
    total = math.fsum(weight * value for weight, value in zip(weights, values, strict=True))
    down = up = 0.0
    for value, (low, high), weight in zip(values, bounds, weights, strict=True):
        under, over = (value - low, high - value) if weight > 0 else (high - value, value - low)
        down += (weight * under) ** 2
        up += (weight * over) ** 2
    return total - math.sqrt(down), total + math.sqrt(up)
