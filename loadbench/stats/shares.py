"""Shares of requests: failures, attainment. One share, the difference of two, and of two on the same prompts."""

from __future__ import annotations

import math

from loadbench.stats.quantiles import TAIL, normal


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
    return 0.0 if hits == 0 else low, 1.0 if hits == n else high


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
