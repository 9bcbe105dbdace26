"""A percentile of times or of gaps, NEW against BASE."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from loadbench import stats
from loadbench.compare.figures import GAPS
from loadbench.compare.inference import Measured
from loadbench.compare.side import Lap, Reals, Side
from loadbench.compare.verdict import Finding
from loadbench.stats import Bounds


def percentile(metric: str, p: float, base: Side, new: Side, pairs: bool, tail: float) -> Finding | None:
    """The ratio of one percentile of all requests that were due; None where a run has no values.

    One that failed or was dropped has no end, as in an SLO. Gaps are of those that completed.

    With one run a side each percentile has its interval by blocks (of gaps by clusters), and both are put together by
    variance recovery: they need not be symmetric, and no bootstrap is drawn.
    """
    columns = [[_column(lap, metric) for lap in side.laps] for side in (base, new)]
    if not all(len(values) and values.max() > 0 for side in columns for values in side):
        return None
    found = [[stats.percentile(np.sort(values), p) or 0.0 for values in side] for side in columns]
    if min(value for side in found for value in side) <= 0:
        return None
    unit = "gaps" if metric == GAPS else "requests"
    n_base, n_new = (sum(len(values) for values in side) for side in columns)
    if _reaches_lost(columns, p, tail):
        return _endless(columns, p, tail)
    first, second = ([math.log(value) for value in side] for side in found)
    measured = Measured((first, second), n_base, n_new)
    if min(n_base, n_new) < stats.needed(p):
        return measured.found(None, "none", note=f"needs >= {stats.needed(p)} {unit} a side")
    within = [_variance([_bounds(lap, metric, p, stats.TAIL) for lap in side.laps]) for side in (base, new)]
    several = measured.between_runs(pairs, "percentile of each run", within)
    if several is not None:
        return several
    method = f"within one run a side, {'clusters of gaps' if metric == GAPS else 'blocks of requests'}"
    bounds = [_bounds(lap, metric, p, tail) for side in (base, new) for lap in side.laps]
    known = [(math.log(low), math.log(high)) for low, high in (one for one in bounds if one) if low > 0]
    if len(known) < len(bounds):
        return measured.found(None, method, note=_short(unit, p, min(n_base, n_new), tail))
    weights = [-1 / base.runs] * base.runs + [1 / new.runs] * new.runs
    both = stats.mover([*first, *second], known, weights)
    return measured.found(both, method, runs=measured.single(within))


def _reaches_lost(columns: Sequence[Sequence[Reals]], p: float, tail: float) -> bool:
    """Whether so many requests of a side have no end that its percentile has none, or may have none."""
    for side in columns:
        values = np.concatenate(side)
        if not np.isinf(values).any():
            continue
        if any(stats.percentile(np.sort(one), p) == math.inf for one in side):
            return True
        bounds = stats.percentile_interval(values, p, tail)
        if bounds is not None and bounds[1] == math.inf:
            return True
    return False


def _endless(columns: Sequence[Sequence[Reals]], p: float, tail: float) -> Finding:
    """Where so many requests of a run failed or were dropped that the percentile has no end: all its runs together.

    The interval is that from one side's lower bound to the other's upper one, for no variance is known of what has no
    end. Where neither side has an end, nobody can tell.
    """
    sides = [np.concatenate(side) for side in columns]
    found = [stats.percentile(np.sort(values), p) or math.inf for values in sides]
    bounds = [stats.percentile_interval(values, p, tail) for values in sides]
    lost = " and ".join(
        f"{100 * float(np.isinf(values).mean()):.3g} % of {name}"
        for name, values in zip(("BASE", "NEW"), sides, strict=True)
        if np.isinf(values).any()
    )
    finding = Finding(
        base=found[0] if found[0] < math.inf else None,
        new=found[1] if found[1] < math.inf else None,
        effect=None,
        low=None,
        high=None,
        method="all runs together, failed requests without end",
        n_base=len(sides[0]),
        n_new=len(sides[1]),
        note=f"{lost} failed or were dropped: they have no end",
    )
    of_base, of_new = bounds
    if of_base is None or of_new is None or min(found) == math.inf:
        return finding
    (base_low, base_high), (low, high) = of_base, of_new
    if low == base_high == math.inf or high == base_low == math.inf:
        return finding
    return replace(
        finding,
        effect=math.log(found[1]) - math.log(found[0]),
        low=-math.inf if base_high == math.inf else math.log(low) - math.log(base_high),
        high=math.inf if high == math.inf else math.log(high) - math.log(base_low),
    )


def _variance(bounds: Sequence[Bounds | None]) -> float | None:
    """Variance of the logarithm of one run's percentile, read off the widths of their intervals."""
    widths = [math.log(high / low) for low, high in (one for one in bounds if one) if low > 0 and high < math.inf]
    if len(widths) < len(bounds):
        return None
    return math.fsum((width / 2 / stats.normal()) ** 2 for width in widths) / len(widths)


def _short(unit: str, p: float, n: int, tail: float) -> str:
    wanted = stats.needed(p, tail)
    if n < wanted:
        return f"needs >= {wanted} {unit} a side, as several metrics are judged"
    return f"{unit} resemble their neighbours: they are worth less than the {wanted} independent ones it needs a side"


def _column(lap: Lap, metric: str) -> Reals:
    if metric == GAPS:
        return np.zeros(0) if lap.gaps_ms is None else lap.gaps_ms
    values = lap.due_values.get(metric, lap.values.get(metric, np.zeros(0)))
    return values[~np.isnan(values)]


def _bounds(lap: Lap, metric: str, p: float, tail: float) -> Bounds | None:
    values = _column(lap, metric)
    if metric != GAPS:
        return stats.percentile_interval(values, p, tail)
    ascending = np.sort(values)
    at, sizes = stats.percentile(ascending, p), lap.gap_sizes
    if at is None or sizes is None:
        return None
    owner, held = np.repeat(np.arange(len(sizes)), sizes), sizes > 0
    below, at_most = (np.bincount(owner[hits], minlength=len(sizes))[held] for hits in (values < at, values <= at))
    return stats.interval(ascending, p, stats.independent_gaps(below, at_most, sizes[held], tail), tail)
