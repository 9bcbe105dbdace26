"""Shares of requests: failures, attainment, and the load at which attainment falls below what is wanted.

One share (Wilson), the difference of two (Newcombe), of two on the same prompts (McNemar). Where a share falls with the
load, one curve through all loads that were tried says where it crosses a wanted share. A probe that stops as soon as it
can decide has a share that is a little off, and few loads are close to the crossing, so that interval allows for more
scatter than chance has (Pearson's), and is WIDENED; docs/statistics.md has how often it then holds the truth.

Source of the crossing: Firth 1993 (the likelihood with Jeffreys' penalty: finite where no request or every one is
good); Fieller 1954 (the interval of where a line crosses).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadbench.stats import TAIL, normal


def wilson(hits: float, n: float, tail: float = TAIL) -> tuple[float, float] | None:
    """Wilson's interval of a share; None without trials. Effective counts need not be whole.

    >>> [round(bound, 4) for bound in wilson(0, 40)]
    [0.0, 0.0876]
    """
    if n <= 0:
        return None
    z = normal(tail)
    share = hits / n
    middle = share + z**2 / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low, high = (middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)
    # Exactly so by the formula; only rounding would say 1e-17.
    if hits == 0:
        low = 0.0
    if hits == n:
        high = 1.0
    return low, high


def flawless(share: float, tail: float = TAIL) -> int:
    """Requests without one miss that it takes until Wilson's lower bound says: at least this share.

    >>> flawless(0.99), flawless(0.95)
    (381, 73)
    """
    return math.ceil(normal(tail) ** 2 * share / (1 - share))


def newcombe(base: tuple[float, float], new: tuple[float, float], tail: float = TAIL) -> tuple[float, float] | None:
    """Interval of the difference of two independent shares, new - base; each is (hits, n). None without trials.

    Source: Newcombe 1998, Statistics in Medicine 17:873, method 10 (Wilson's bounds, squared and added).

    >>> [round(bound, 4) for bound in newcombe((48, 80), (56, 70))]
    [0.0524, 0.3339]
    """
    return newcombe_paired(base, new, 0.0, tail)


def newcombe_paired(
    base: tuple[float, float], new: tuple[float, float], phi: float, tail: float = TAIL
) -> tuple[float, float] | None:
    """As `newcombe`, of the same prompts on both sides: phi is the correlation of the two outcomes.

    Source: Newcombe 1998, Statistics in Medicine 17:2635, method 10 (without its continuity correction of phi).
    """
    first, second = wilson(*base, tail), wilson(*new, tail)
    if first is None or second is None:
        return None
    p, q = base[0] / base[1], new[0] / new[1]
    (low_p, high_p), (low_q, high_q) = first, second
    down, up = (q - low_q, high_p - p), (high_q - q, p - low_p)
    return q - p - _added(*down, phi), q - p + _added(*up, phi)


def mcnemar(worse: int, better: int) -> float:
    """Exact two-sided p-value that as many prompts got worse as got better; those that stayed say nothing.

    Source: McNemar 1947, with the binomial distribution in place of chi-squared.

    >>> mcnemar(0, 0), round(mcnemar(8, 1), 4), round(mcnemar(5, 0), 4)
    (1.0, 0.0391, 0.0625)
    """
    n, fewer = worse + better, min(worse, better)
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    return min(1.0, float(2 * tail / 2**n))


def _added(a: float, b: float, phi: float) -> float:
    return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))


# Of the interval's half-width: for probes that stop where they can decide, and for a curve that is not the model's.
WIDENED = 1.3
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
    x, good, of = np.log(loads), np.array(hits, dtype=np.float64), np.array(n, dtype=np.float64)
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
    root = math.sqrt(inside)
    low, high = middle + (-linear - root) / square, middle + (-linear + root) / square
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
        # The last term keeps it invertible where every share is next to 0 or 1.
        covariance = np.linalg.inv(design.T @ (design * weights[:, None]) + 1e-9 * np.eye(2))
        leverage = weights * np.einsum("ij,jk,ik->i", design, covariance, design)
        step = covariance @ (design.T @ (hits - n * shares + leverage * (0.5 - shares)))
        longest = float(np.abs(step).max())
        beta = beta + step * min(1.0, _LONGEST / max(longest, _CLOSE))  # far away, a whole step overshoots
        if longest < _CLOSE:
            return beta, covariance, shares
    return None


def _short(log_load: float) -> float:
    """The load, in three digits."""
    return float(f"{math.exp(min(log_load, 700.0)):.3g}")
