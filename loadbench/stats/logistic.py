"""Where a share that falls with the load crosses what is wanted: one curve through all loads that were tried.

A probe that stops as soon as it can decide has a share that is a little off, and few loads are close to the crossing.
So the interval allows for more scatter than chance has (Pearson's), and is WIDENED; docs/statistics.md has how often it
then holds the truth.

Source: Firth 1993 (the likelihood with Jeffreys' penalty: finite where no request or every one is good); Fieller 1954
(the interval of where a line crosses).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadbench.stats.quantiles import TAIL, normal

WIDENED = 1.3
"""Of the interval's half-width: for probes that stop where they can decide, and for a curve that is not the model's."""
_STEPS = 100
_CLOSE = 1e-8
_LONGEST = 3.0
_CERTAIN = 30.0  # a logit beyond which a share is 0 or 1


@dataclass(frozen=True, slots=True)
class Crossing:
    """The load at which a share crosses what is wanted; an end of its interval that does not exist is None."""

    load: float
    low: float | None
    high: float | None


def crossing(
    loads: Sequence[float], hits: Sequence[float], n: Sequence[float], wanted: float, tail: float = TAIL
) -> Crossing | None:
    """The load at which the share of good requests falls below `wanted`; None where the share does not fall.

    logit(share) = a + b * ln(load), by Firth's logistic regression.

    Args:
        loads: Those of the probes, in any order; a load may stand there twice.
        hits, n: Good requests of how many, at each; as many as they are worth, so that they need not be whole.
        wanted: The share, between 0 and 1.

    >>> crossing([4, 6, 8, 12], [436, 430, 400, 200], [436, 436, 436, 300], 0.95)
    Crossing(load=7.44, low=6.57, high=8.1)
    """
    x, good, of = (np.array(values, dtype=np.float64) for values in (np.log(loads), hits, n))
    if len(set(loads)) < 2 or not 0 < wanted < 1:
        return None
    middle = float(x.mean())
    found = _firth(x - middle, good, of)
    if found is None or found[0][1] >= 0:
        return None
    (a, b), covariance, shares = found
    target = math.log(wanted / (1 - wanted))
    scatter = float(np.sum((good - of * shares) ** 2 / np.maximum(of * shares * (1 - shares), 1e-9)))
    scatter = max(1.0, scatter / max(1, len(x) - 2))
    reach = (normal(tail) * WIDENED) ** 2 * scatter
    # The loads whose logit is nearer to the wanted one than `reach` of its variance.
    square = b * b - reach * covariance[1, 1]
    linear = (a - target) * b - reach * covariance[0, 1]
    constant = (a - target) ** 2 - reach * covariance[0, 0]
    inside = linear * linear - square * constant
    if not (square > 0 and inside >= 0):
        return Crossing(_short(middle + (target - a) / b), None, None)
    low, high = (middle + (-linear + side * math.sqrt(inside)) / square for side in (-1, 1))
    return Crossing(_short(middle + (target - a) / b), _short(low), _short(high))


def _firth(
    x: NDArray[np.float64], hits: NDArray[np.float64], n: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]] | None:
    """Coefficients, their covariance, and the shares that they give; None where the steps come to no end."""
    design = np.column_stack([np.ones_like(x), x])
    beta = np.array([math.log((hits.sum() + 0.5) / (n.sum() - hits.sum() + 0.5)), 0.0])
    for _ in range(_STEPS):
        shares = 1 / (1 + np.exp(-np.clip(design @ beta, -_CERTAIN, _CERTAIN)))
        weights = n * shares * (1 - shares)
        covariance = np.linalg.inv(design.T @ (design * weights[:, None]) + 1e-9 * np.eye(2))
        leverage = weights * np.einsum("ij,jk,ik->i", design, covariance, design)
        step = covariance @ (design.T @ (hits - n * shares + leverage * (0.5 - shares)))
        longest = float(np.abs(step).max())
        beta = beta + step * min(1.0, _LONGEST / max(longest, _CLOSE))
        if longest < _CLOSE:
            return beta, covariance, shares
    return None


def _short(log_load: float) -> float:
    """The load, in three digits."""
    return float(f"{math.exp(min(log_load, 700.0)):.3g}")
