"""Open loop: whether a backlog grows, so that each request stays longer than the one before.

Above what a server can do, its backlog grows for as long as the load lasts, and so does the time that a request spends
there: an SLO that is met after a minute is missed after an hour.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadbench import intervals

FEWEST = 40
"""Requests below which nothing is said."""
BATCHES = 12
TAIL = 0.0005
"""Chance that one look sees a backlog where none grows, if batches do not depend on each other."""
GROWTH = 1.5
"""Least ratio of the time at the end to that at the beginning: what grows by less may be a server that fills up."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """A backlog that grows.

    Attributes:
        slope: Seconds that a request stays longer, for each second that passes.
        first_s, last_s: How long requests stayed at the beginning and at the end, by the fitted line.
    """

    slope: float
    first_s: float
    last_s: float


def backlog(due_s: NDArray[np.float64], stay_s: NDArray[np.float64]) -> Backlog | None:
    """The backlog that requests show; None where none grows, or too few requests say.

    A line is fitted to the means of 12 batches of successive requests: neighbours wait for the same queue, batches
    hardly do. The first quarter is left out, in which an idle server fills up. Student's t of the slope decides, one
    side, at 0.05 %.

    Args:
        due_s: When each request was due, ascending.
        stay_s: From then to its end.
    Source: batch means, Law & Kelton, Simulation Modeling and Analysis, ch. 9.5.

    >>> at = np.arange(200.0)
    >>> backlog(at, 1 + 0.1 * at)
    Backlog(slope=0.1, first_s=6.0, last_s=20.9)
    >>> backlog(at, np.ones(200))
    """
    skipped = len(due_s) // 4
    due_s, stay_s = due_s[skipped:], stay_s[skipped:]
    if len(due_s) + skipped < FEWEST or due_s[-1] <= due_s[0]:
        return None
    x = np.array([part.mean() for part in np.array_split(due_s, BATCHES)])
    y = np.array([part.mean() for part in np.array_split(stay_s, BATCHES)])
    away = x - x.mean()
    slope = float(away @ y / (away @ away))
    left = y - y.mean() - slope * away
    error = float(np.sqrt(left @ left / (BATCHES - 2) / (away @ away)))
    if slope <= intervals.student(BATCHES - 2, TAIL) * error:
        return None
    first_s = float(y.mean() + slope * (due_s[0] - x.mean()))
    last_s = float(y.mean() + slope * (due_s[-1] - x.mean()))
    if last_s < GROWTH * max(first_s, 0.0):
        return None
    return Backlog(round(slope, 6), round(max(first_s, 0.0), 6), round(last_s, 6))
