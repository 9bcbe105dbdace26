"""What would change a choice: the least change of a weight, and how much better a figure would have to be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from loadbench.select.figure import declared, points
from loadbench.select.rank import STEP, Grid, Reals, filled
from loadbench.select.weights import criterion_of

_LEAST = 1e-6
"""At a share of 0 or 1 exactly two are even at most: nobody wins beyond it."""


@dataclass(frozen=True, slots=True)
class OtherWeight:
    """A criterion that would have to weigh so much for another candidate to win, the others keeping their proportions.

    Attributes:
        criterion: Its name.
        share, needed: Its share of the whole as it is, and from which on the other one wins.
        winner: Who that is.
    """

    criterion: str
    share: float
    needed: float
    winner: str


@dataclass(frozen=True, slots=True)
class OtherFigure:
    """A figure that one candidate would need to win, all else unchanged.

    Attributes:
        name: The candidate.
        figure: Its figure.
        factor: How many times better it would have to be; of points, None.
        value, needed: In the figure's unit, as it is and from which on it wins.
    """

    name: str
    figure: str
    factor: float | None
    value: float
    needed: float


@dataclass(frozen=True, slots=True)
class Unknown:
    """A candidate that would win if a figure of it that nobody knows were as good as the winner's."""

    name: str
    figure: str


def unknown(grid: Grid, shares: Sequence[float], winner: int) -> list[Unknown]:
    """Whom the lack of a figure keeps from winning.

    Args:
        winner: Its row.
    """
    logs = filled(grid.logs)
    found = []
    for i, name in enumerate(grid.names):
        for k, figure in enumerate(grid.figures):
            if i == winner or shares[k] <= 0 or not np.isnan(grid.logs[i, k]):
                continue
            lead = logs[winner] - logs[i]
            if float(np.dot(lead, shares)) < shares[k] * float(lead[k]):
                found.append(Unknown(name, figure))
    return found


def other_weight(
    names: Sequence[str], figures: Sequence[str], ratios: Reals, shares: Sequence[float], winner: int
) -> OtherWeight | None:
    """The least change of one criterion's weight that makes another candidate win; None where none does.

    Args:
        ratios: Logarithms of goodness against the best, a row a candidate (`rank.ratios`).
        shares: Of the figures, which sum to 1.
        winner: Its row.
    """
    found = None
    for criterion in dict.fromkeys(criterion_of(name).name for name in figures):
        mine = [k for k, name in enumerate(figures) if criterion_of(name).name == criterion and shares[k] > 0]
        share = math.fsum(shares[k] for k in mine)
        if not 0 < share < 1:
            continue
        for i, name in enumerate(names):
            lead = ratios[winner] - ratios[i]
            of_it = math.fsum(shares[k] * float(lead[k]) for k in mine) / share
            rest = (math.fsum(s * float(one) for s, one in zip(shares, lead, strict=True)) - share * of_it) / (
                1 - share
            )
            if i == winner or rest == of_it:
                continue
            needed = rest / (rest - of_it)
            if _LEAST < needed < 1 - _LEAST and (
                found is None or abs(needed - share) < abs(found.needed - found.share)
            ):
                found = OtherWeight(criterion, share, needed, name)
    return found


def other_figures(
    name: str,
    values: Mapping[str, float],
    figures: Sequence[str],
    lead: Sequence[float],
    shares: Sequence[float],
) -> list[OtherFigure]:
    """What each figure of a candidate would have to be for it to win, the least change first.

    What lies beyond a scale (a quality above 5, rules above 100 %) is left out, and what is not known.

    Args:
        name: The candidate.
        values: Its figures.
        lead: By figure, how far the winner is ahead as a logarithm.
        shares: Of the figures.
    """
    behind = math.fsum(share * ahead for share, ahead in zip(shares, lead, strict=True))
    found = []
    for figure, share in zip(figures, shares, strict=True):
        one, scale = declared(figure).figure, points(figure)
        if share <= 0 or figure not in values or one.unit == "word" or behind / share > math.log(1e6):
            continue
        value, gain = values[figure], behind / share
        if scale is not None:
            needed = value + gain / STEP / scale
            if needed <= (5.0 if figure == "quality" else 1.0):
                found.append((gain, OtherFigure(name, figure, None, value, needed)))
        else:
            needed = value * math.exp(gain if one.more_is_better else -gain)
            found.append((gain, OtherFigure(name, figure, math.exp(gain), value, needed)))
    return [one for _, one in sorted(found, key=lambda pair: pair[0])]
