"""How far two raters of the same answers agree: quadratic weighted kappa, with an interval over prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import msgspec
import numpy as np
from numpy.typing import NDArray

from loadbench.quality.answers import Answer
from loadbench.stats import TAIL

SAMPLES = 2000
LEAST_PROMPTS = 10
"""Below it a bootstrap over prompts has too few different samples to say anything."""


class Agreement(msgspec.Struct, frozen=True):
    """Two raters on the answers that both scored.

    Attributes:
        n: Answers that both scored.
        prompts: How many prompts these answer: the interval is over them.
        kappa: 1 is full agreement, 0 what two raters would reach who score at random with the same habits; below 0
            worse. None where both gave all answers one and the same score: then there is nothing to agree on.
        ci95: None below ten prompts.
        same: Share of the answers with equal scores.
        difference: Mean of b's score less a's: who is milder.
    """

    a: str
    b: str
    n: int
    prompts: int
    kappa: float | None
    ci95: tuple[float, float] | None
    same: float
    difference: float


def weighted_kappa(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Cohen's kappa with quadratic weights: 1 - mean squared difference / the same, of all pairs of their scores.

    Scores need not be whole: the mean of a judge's repeats counts as it is. For whole ones it is the usual kappa.

    Source: Cohen 1968, Psychological Bulletin 70:213; Fleiss & Cohen 1973 for squares.

    >>> weighted_kappa([1, 2, 3, 4], [1, 2, 3, 4]), weighted_kappa([1, 5], [5, 1]), weighted_kappa([3, 3], [3, 3])
    (1.0, -1.0, None)
    """
    sums = _sums(np.asarray(a, np.float64), np.asarray(b, np.float64)).sum(axis=0, keepdims=True)
    kappa = float(_kappas(sums)[0])
    return None if np.isnan(kappa) else kappa


def _sums(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """What kappa is computed from, a row for each answer: 1, a, b, a², b², (a-b)²."""
    return np.stack([np.ones_like(a), a, b, a * a, b * b, (a - b) ** 2], axis=1)


def _kappas(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kappa of each row of sums; NaN where it is not defined."""
    n, a, b, aa, bb, squares = sums.T
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = aa / n + bb / n - 2 * (a / n) * (b / n)  # mean of (a_i - b_j)² over all i and j
        return np.where(expected > 1e-9, 1 - squares / n / expected, np.nan)


def agreement(
    a: str, b: str, values: Mapping[tuple[str, str], float], answers: Sequence[Answer], seed: int = 1
) -> Agreement | None:
    """How far two raters agree; None where they share no answer.

    Args:
        values: Scores by rater and row.
        seed: Of the bootstrap.
    """
    both = [one for one in answers if (a, one.row) in values and (b, one.row) in values]
    if not both:
        return None
    x = np.array([values[a, one.row] for one in both], np.float64)
    y = np.array([values[b, one.row] for one in both], np.float64)
    prompts = {prompt: number for number, prompt in enumerate(dict.fromkeys(one.prompt for one in both))}
    by_prompt = np.zeros((len(prompts), 6))
    np.add.at(by_prompt, [prompts[one.prompt] for one in both], _sums(x, y))
    kappa = weighted_kappa(x.tolist(), y.tolist())
    return Agreement(
        a=a,
        b=b,
        n=len(both),
        prompts=len(prompts),
        kappa=kappa,
        ci95=None if kappa is None else _bootstrap(by_prompt, seed),
        same=float((x == y).mean()),
        difference=float((y - x).mean()),
    )


def _bootstrap(sums: NDArray[np.float64], seed: int) -> tuple[float, float] | None:
    """Percentile interval of kappa over whole prompts drawn again: answers to one prompt are not independent."""
    prompts = len(sums)
    if prompts < LEAST_PROMPTS:
        return None
    drawn = np.random.default_rng(seed).multinomial(prompts, np.full(prompts, 1 / prompts), size=SAMPLES)
    kappas = _kappas(drawn @ sums)
    kappas = kappas[~np.isnan(kappas)]
    if len(kappas) < 0.95 * SAMPLES:
        return None
    low, high = np.quantile(kappas, [TAIL, 1 - TAIL])
    return float(low), float(high)


def agreements(values: Mapping[tuple[str, str], float], answers: Sequence[Answer], seed: int = 1) -> list[Agreement]:
    """Of each two raters that share an answer."""
    raters = sorted({rater for rater, _ in values})
    pairs = (agreement(a, b, values, answers, seed) for a, b in combinations(raters, 2))
    return [one for one in pairs if one is not None]
