"""How firm a rank is: drawn again from the figures' intervals, with other weights, and with both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadbench.select.rank import Grid, Reals, filled

DRAWS = 4000
SPREAD = 0.2
"""Each weight is multiplied by something between 1 - this and 1 + this."""
_ALIKE = 1e-9
"""Logarithms of scores this near are a tie, which is shared."""


@dataclass(frozen=True, slots=True)
class Wins:
    """Shares of draws in which each candidate comes first, in the order of the grid; ties are shared."""

    figures: tuple[float, ...]
    weights: tuple[float, ...]
    both: tuple[float, ...]


def wins(
    grid: Grid, shares: Sequence[float], groups: Sequence[int] | None = None, *, draws: int = DRAWS, seed: int = 1
) -> Wins:
    """How often each candidate wins if its figures, the weights, or both are drawn again.

    A figure is drawn from a lognormal that its 95 % interval is of, each side with its own spread. Times and rates of
    one candidate are drawn together, as of one run that went well or badly: that they fall together by chance is the
    less favourable case for who leads. Memory, disk and licence are no statistics and stay.

    Args:
        shares: Of the figures, in the grid's order; they sum to 1.
        groups: By figure, the number of the criterion whose weight it has a part of; by default each has its own.
        draws: How many.
        seed: The same one gives the same shares.
    """
    generator = np.random.default_rng(seed)
    weights = np.asarray(shares, dtype=np.float64)
    rows, columns = grid.logs.shape
    run = generator.standard_normal((draws, rows, 1))
    own = generator.standard_normal((draws, rows, columns))
    z = np.where(grid.speed, run, own)
    drawn = grid.logs + np.where(z < 0, grid.down, grid.up) * z
    factors = generator.uniform(1 - SPREAD, 1 + SPREAD, (draws, columns))
    other = weights * factors[:, list(groups) if groups is not None else slice(None)]
    other = other / other.sum(axis=1, keepdims=True)
    fixed = np.broadcast_to(filled(grid.logs), drawn.shape)
    again = filled(drawn)
    return Wins(_first(again @ weights), _first(_weighed(fixed, other)), _first(_weighed(again, other)))


def _weighed(logs: Reals, weights: Reals) -> Reals:
    found: Reals = np.einsum("drc,dc->dr", logs, weights)
    return found


def _first(scores: NDArray[np.float64]) -> tuple[float, ...]:
    best = scores >= scores.max(axis=1, keepdims=True) - _ALIKE
    share = best / best.sum(axis=1, keepdims=True)
    return tuple(float(value) for value in share.mean(axis=0))
