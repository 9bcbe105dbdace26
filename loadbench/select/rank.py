"""The weighted rank: a geometric mean of how good each candidate is against the best, figure by figure.

    score = 100 * product over figures of (goodness / best goodness) ** share

with goodness = x where more is better, 1 / x where less is, and 2 ** x on scales of points, where one of four steps is
worth a factor of two. So a score is how near a candidate comes to one that were best in everything, and who is before
whom rests on these two alone: adding or dropping a third changes no order (docs/select.md has what that costs).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadbench.select.figure import Figure, declared, is_speed, points

Reals = NDArray[np.float64]
STEP = math.log(2.0)
"""What a step on a scale of points is worth, as a logarithm."""


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """What is ranked.

    Attributes:
        names: Candidates, a row each.
        figures: Those with a weight, or shown beside them, a column each.
        logs: Logarithm of the goodness; NaN where it is not known.
        down, up: How far it may lie below and above, as standard deviations of the logarithm; 0 where it is certain.
        speed: Which columns come from how fast a run went.
    """

    names: tuple[str, ...]
    figures: tuple[str, ...]
    logs: Reals
    down: Reals
    up: Reals
    speed: NDArray[np.bool_]


UNSURE = math.log(2.0) / 1.96
"""Of a time, rate or score without an interval: 95 % within a factor of two (of a score a point), since nobody knows
better."""
_Z = 1.959964


def grid(names: Sequence[str], found: Mapping[str, Mapping[str, Figure]]) -> Grid:
    """The logarithms of the candidates' figures, and of their doubts.

    Args:
        found: By figure and candidate.
    """
    figures = tuple(name for name, known in found.items() if any(one in known for one in names))
    shape = (len(names), len(figures))
    logs, down, up = np.full(shape, np.nan), np.zeros(shape), np.zeros(shape)
    for k, figure in enumerate(figures):
        for i, name in enumerate(names):
            one = found[figure].get(name)
            value = None if one is None else goodness(figure, one.value)
            if one is None or value is None:
                continue
            logs[i, k] = value
            ends = [
                end
                for bound in (one.low, one.high)
                if bound is not None and (end := goodness(figure, bound)) is not None
            ]
            if len(ends) == 2:
                down[i, k], up[i, k] = max(0.0, value - min(ends)) / _Z, max(0.0, max(ends) - value) / _Z
            elif one.n and one.low is None:
                down[i, k] = up[i, k] = UNSURE
    return Grid(tuple(names), figures, logs, down, up, np.array([is_speed(name) for name in figures], dtype=bool))


def goodness(figure: str, value: float) -> float | None:
    """The logarithm of how good a value is; None of one that has none.

    >>> goodness("ttft_p95", 200.0) > goodness("ttft_p95", 400.0), goodness("rules", 0.0), goodness("memory", 0.0)
    (True, 0.0, None)
    """
    scale = points(figure)
    if scale is not None:
        return value * scale * STEP
    if not value > 0:
        return None
    return math.log(value) if declared(figure).figure.more_is_better else -math.log(value)


def ratios(logs: Reals) -> Reals:
    """Logarithm of goodness over that of the best, at most 0; what is not known is filled."""
    if not logs.size:
        return logs
    known = filled(logs)
    found: Reals = known - known.max(axis=-2, keepdims=True)
    return found


def filled(logs: Reals) -> Reals:
    """What is not known counts as half as good as the worst of the others: so it never wins by not being known.

    Args:
        logs: A row a candidate, a column a figure, of which one at least is known; any axes before them.
    """
    worst = np.nanmin(logs, axis=-2, keepdims=True)
    return np.where(np.isnan(logs), worst - STEP, logs)


def scores(logs: Reals, shares: Sequence[float]) -> Reals:
    """The score of each row, at most 100.

    >>> twice = np.log([[1.0, 1.0], [0.5, 1.0]])
    >>> scores(twice, [0.5, 0.5]).round(1)
    array([100. ,  70.7])
    """
    found: Reals = 100 * np.exp(ratios(logs) @ np.asarray(shares, dtype=np.float64))
    return found
