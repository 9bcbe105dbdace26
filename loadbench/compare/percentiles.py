"""A percentile of times or of gaps, NEW against BASE."""

from __future__ import annotations

import math

import numpy as np

from loadbench import intervals
from loadbench.compare.figures import GAPS
from loadbench.compare.inference import Measured
from loadbench.compare.side import Lap, Reals, Side
from loadbench.compare.verdict import Finding
from loadbench.intervals import Bounds


def percentile(metric: str, p: float, base: Side, new: Side, pairs: bool, tail: float) -> Finding | None:
    """The ratio of one percentile; None where a run has no values.

    With one run a side each percentile has its interval by blocks (of gaps by clusters), and both are put together by
    variance recovery: they need not be symmetric, and no bootstrap is drawn.
    """
    columns = [[_column(lap, metric) for lap in side.laps] for side in (base, new)]
    if not all(len(values) and values.max() > 0 for side in columns for values in side):
        return None
    found = [[intervals.percentile(np.sort(values), p) or 0.0 for values in side] for side in columns]
    if min(value for side in found for value in side) <= 0:
        return None
    first, second = ([math.log(value) for value in side] for side in found)
    n_base, n_new = (sum(len(values) for values in side) for side in columns)
    measured = Measured((first, second), n_base, n_new)
    unit = "gaps" if metric == GAPS else "requests"
    if min(n_base, n_new) < intervals.needed(p):
        return measured.found(None, "none", note=f"needs >= {intervals.needed(p)} {unit} a side")
    several = measured.between_runs(pairs, tail, "percentile of each run")
    if several is not None:
        return several
    method = f"within one run a side, {'clusters of gaps' if metric == GAPS else 'blocks of requests'}"
    bounds = [_bounds(lap, metric, p, tail) for side in (base, new) for lap in side.laps]
    known = [(math.log(low), math.log(high)) for low, high in (one for one in bounds if one) if low > 0]
    if len(known) < len(bounds):
        return measured.found(None, method, note=_short(unit, p, min(n_base, n_new), tail))
    weights = [-1 / base.runs] * base.runs + [1 / new.runs] * new.runs
    return measured.found(intervals.mover([*first, *second], known, weights), method)


def _short(unit: str, p: float, n: int, tail: float) -> str:
    wanted = intervals.needed(p, tail)
    if n < wanted:
        return f"needs >= {wanted} {unit} a side, as several metrics are judged"
    return f"{unit} resemble their neighbours: they are worth less than the {wanted} independent ones it needs a side"


def _column(lap: Lap, metric: str) -> Reals:
    if metric == GAPS:
        return np.zeros(0) if lap.gaps_ms is None else lap.gaps_ms
    values = lap.values.get(metric, np.zeros(0))
    return values[~np.isnan(values)]


def _bounds(lap: Lap, metric: str, p: float, tail: float) -> Bounds | None:
    values = _column(lap, metric)
    if metric != GAPS:
        return intervals.percentile_interval(values, p, tail)
    ascending = np.sort(values)
    at, sizes = intervals.percentile(ascending, p), lap.gap_sizes
    if at is None or sizes is None:
        return None
    owner, held = np.repeat(np.arange(len(sizes)), sizes), sizes > 0
    below, at_most = (np.bincount(owner[hits], minlength=len(sizes))[held] for hits in (values < at, values <= at))
    return intervals.interval(ascending, p, intervals.independent_gaps(below, at_most, sizes[held], tail), tail)
