"""Quantiles of the normal and of Student's distribution, and estimates that know how far off they may be.

Quantiles are for any tail: a Bonferroni-adjusted one is small. The difference of two estimates that are logarithms is
the ratio of two figures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

TAIL = 0.025
"""What each side of an interval may miss."""
Z = 1.959963984540054
"""The normal quantile of 1 - TAIL."""
_MANY = 200
"""Degrees of freedom from which the expansion around the normal quantile is exact to 6 digits."""


@lru_cache(maxsize=1024)
def normal(tail: float = TAIL) -> float:
    """The normal quantile of 1 - tail.

    >>> round(normal(0.025), 6), round(normal(0.005), 6)
    (1.959964, 2.575829)
    """
    return NormalDist().inv_cdf(1 - tail)


@lru_cache(maxsize=4096)
def student(freedom: float, tail: float = TAIL) -> float:
    """Student's t quantile of 1 - tail; freedom need not be whole, and counts as 1 below that.

    Source: Abramowitz & Stegun 26.7.3 and 26.7.4 (the distribution as a finite sum for whole degrees of freedom),
    inverted by bisection; between whole ones linear in 1/freedom; 26.7.5 (Cornish-Fisher) above 200.

    >>> [round(student(n), 3) for n in (1, 4, 9, 30, 1000)], round(student(4, 0.005), 3)
    ([12.706, 2.776, 2.262, 2.042, 1.962], 4.604)
    """
    if freedom >= _MANY:
        z = normal(tail)
        return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    low = max(1, math.floor(freedom))
    share = (1 / low - 1 / freedom) / (1 / low - 1 / (low + 1)) if freedom > low else 0.0
    return _whole(low, tail) * (1 - share) + (_whole(low + 1, tail) * share if share else 0.0)


@lru_cache(maxsize=4096)
def _whole(freedom: int, tail: float) -> float:
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        if _within(middle, freedom) < 1 - 2 * tail:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def _within(angle: float, freedom: int) -> float:
    """P(|T| < sqrt(freedom) * tan(angle))."""
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = freedom % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for k in range(odd + 1, freedom, 2):
        total += term
        term *= cosine * cosine * k / (k + 1)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


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
