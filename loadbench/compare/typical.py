"""The typical time of a request, NEW against BASE, paired by prompt: the geometric mean over prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from loadbench import stats
from loadbench.compare.inference import Measured, mean_of, variances
from loadbench.compare.side import Flags, Lap, Reals, Side
from loadbench.compare.verdict import Finding
from loadbench.stats import Estimate

LEAST_COMMON = 0.8
"""Share of each run's requests whose prompt all runs of both sides asked, from which they are paired by prompt."""

Rows = tuple[Reals, NDArray[np.int64]]
"""Logarithms of one run's values in the order of start, and the number of each one's prompt."""


def typical(metric: str, base: Side, new: Side, pairs: bool, tail: float) -> Finding | None:
    """The geometric mean over prompts of what each prompt took, NEW against BASE; None where a run has no values.

    Every prompt weighs the same, however often it was asked, so that what prompts differ by is no doubt. With two or
    more runs a side the run is the unit. With one, the doubt is that of blocks of neighbours: where every prompt was
    asked again and again, of each request's distance from its prompt's mean; else of the prompts' log ratios, in the
    order they were asked.
    """
    numbers = _common(metric, base, new)
    rows = [[_rows(lap, metric, numbers) for lap in side.laps] for side in (base, new)]
    if not all(len(logs) for side in rows for logs, _ in side):
        return None
    prompts = len(numbers) if numbers else 1
    centres = [[_centres(one, prompts) for one in side] for side in rows]
    first, second = ([float(centre.mean()) for centre in side] for side in centres)
    n_base, n_new = (sum(len(logs) for logs, _ in side) for side in rows)
    flagged = [
        sum(int(stats.outliers(logs - centre[number]).sum()) for (logs, number), centre in zip(*side, strict=True))
        for side in zip(rows, centres, strict=True)
    ]
    measured = Measured((first, second), n_base, n_new, (flagged[0], flagged[1]))
    of = f"paired by prompt ({prompts})" if numbers else "not paired, as the prompts differ"
    again = all(_again(number, prompts) for side in rows for _, number in side)
    if again:
        doubts = [
            [_of_distances(one, centre) for one, centre in zip(*side, strict=True)]
            for side in zip(rows, centres, strict=True)
        ]
        within = variances(doubts)
    else:
        within = _of_pairs(rows, centres)
    several = measured.between_runs(pairs, of, within)
    if several is not None:
        return several
    if again:
        method = f"within one run a side, {of}, blocks of requests"
        return measured.within_runs(doubts, tail, method, "too few requests")
    before, after = (np.mean(side, axis=0) for side in centres)
    estimate = _of_prompts(after - before, *(rows_of[0][1] for rows_of in rows))
    method = f"within one run a side, {of}, blocks of prompts"
    if estimate is None:
        return measured.found(None, method, note="too few prompts in common")
    half = stats.student(estimate.freedom, tail) * math.sqrt(estimate.variance)
    bounds = estimate.value - half, estimate.value + half
    return measured.found(bounds, method, runs=measured.single(within))


def _of_pairs(rows: Sequence[Sequence[Rows]], centres: Sequence[Sequence[Reals]]) -> list[float | None]:
    """Variance of the logarithm of a run of either side, of prompts asked once: half of that of two runs' ratio."""
    found = []
    for base, new, before, after in zip(*rows, *centres, strict=False):
        estimate = _of_prompts(after - before, base[1], new[1])
        found.append(None if estimate is None else estimate.variance / 2)
    known = [one for one in found if one is not None]
    return [mean_of(known) if len(known) == len(found) else None] * 2


def _of_prompts(ratios: Reals, base: NDArray[np.int64], new: NDArray[np.int64]) -> Estimate | None:
    """The mean log ratio with its doubt: what neighbours share in the order of BASE, and in that of NEW, adds up.

    Args:
        ratios: Log ratio of each prompt.
        base, new: Numbers of the prompts as each side asked them.
    """
    orders = [list(dict.fromkeys(side.tolist())) for side in (base, new)]
    first, second = (stats.mean_variance(ratios[order]) for order in orders)
    if first is None or second is None or orders[0] == orders[1]:
        return first
    alone = float(ratios.var(ddof=1)) / len(ratios)
    return Estimate(first.value, first.variance + second.variance - alone, min(first.freedom, second.freedom))


def _common(metric: str, base: Side, new: Side) -> dict[str, int] | None:
    """Numbers of the prompts that every run of both sides asked; None where the sides asked different ones."""
    asked = [_asked(lap, metric) for side in (base, new) for lap in side.laps]
    common = set(asked[0]).intersection(*asked[1:])
    shares = [sum(name in common for name in names) / max(len(names), 1) for names in asked]
    return {name: number for number, name in enumerate(sorted(common))} if min(shares) >= LEAST_COMMON else None


def _asked(lap: Lap, metric: str) -> list[str]:
    return [name for name, value in zip(lap.prompts, _values(lap, metric), strict=True) if value > 0]


def _rows(lap: Lap, metric: str, numbers: dict[str, int] | None) -> Rows:
    """The run's values of the common prompts; where there are none, of all, as if they were one prompt."""
    values = _values(lap, metric)
    number = np.array([0 if numbers is None else numbers.get(name, -1) for name in lap.prompts], dtype=np.int64)
    kept = (number >= 0) & (values > 0)
    return np.log(values[kept]), number[kept]


def _values(lap: Lap, metric: str) -> Reals:
    return lap.values.get(metric, np.full(len(lap.prompts), np.nan))


def _centres(rows: Rows, prompts: int) -> Reals:
    logs, number = rows
    centres: Reals = np.bincount(number, logs, minlength=prompts) / np.bincount(number, minlength=prompts)
    return centres


def _again(number: NDArray[np.int64], prompts: int) -> bool:
    twice: Flags = np.bincount(number, minlength=prompts) >= 2
    return bool(twice.all())


def _of_distances(rows: Rows, centre: Reals) -> Estimate | None:
    """The mean over prompts of their means, with its doubt from each request's distance to its prompt's mean."""
    logs, number = rows
    times = np.bincount(number, minlength=len(centre))[number]
    # A distance from a mean of few is too short by sqrt(1 - 1/times); each prompt weighs the same.
    away = (logs - centre[number]) * np.sqrt(times / (times - 1)) * len(logs) / (times * len(centre))
    found = stats.mean_variance(away)
    if found is None:
        return None
    # Lengthened so, what neighbours share is still too small by 1 - 1/times: the means have taken that part of it.
    alone = float(away.var(ddof=1)) / len(away)
    shared = (found.variance - alone) * float(np.mean(times / (times - 1)))
    return Estimate(found.value, alone + shared, found.freedom)
