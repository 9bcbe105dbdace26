"""Who is beaten in everything by another: the rest is the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Dominated:
    """A candidate that another one is never worse than, and better somewhere.

    Attributes:
        by: The other one.
        better: The figures in which it is better; in all others both are alike.
    """

    by: str
    better: tuple[str, ...]


def dominated(
    names: Sequence[str], figures: Sequence[str], goodness: NDArray[np.float64]
) -> Mapping[str, list[Dominated]]:
    """By candidate, those that dominate it; who is not in it is on the front.

    Args:
        names: Of the candidates.
        figures: Of the columns.
        goodness: A row a candidate, a column a figure, more is better; NaN for what is not known: that is never better
            than anything, and nothing is known to be better than that in this figure alone.

    >>> found = dominated(["a", "b", "c"], ["speed", "size"], np.array([[3.0, 1.0], [2.0, 2.0], [2.0, 0.5]]))
    >>> {name: [(one.by, one.better) for one in by] for name, by in found.items()}
    {'c': [('a', ('speed', 'size')), ('b', ('size',))]}
    """
    found: dict[str, list[Dominated]] = {}
    for i, name in enumerate(names):
        for j, other in enumerate(names):
            mine, theirs = goodness[i], goodness[j]
            if i == j or bool((np.isnan(theirs) & ~np.isnan(mine)).any()):
                continue
            both = ~np.isnan(mine) & ~np.isnan(theirs)
            if both.any() and bool((theirs[both] >= mine[both]).all()) and bool((theirs[both] > mine[both]).any()):
                better = tuple(figure for k, figure in enumerate(figures) if both[k] and theirs[k] > mine[k])
                found.setdefault(name, []).append(Dominated(other, better))
    return found
