"""Shares of requests (failed, SLO attainment), NEW against BASE: their difference, not their ratio."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from loadbench import stats
from loadbench.compare.side import Flags, Outcomes, Side
from loadbench.compare.verdict import Finding


def share(metric: str, base: Side, new: Side, tail: float) -> Finding | None:
    """The difference of two shares over all runs of each side; None where a run does not know it.

    Wilson's bounds of each, put together as Newcombe does. Where both sides asked the same prompts equally often, their
    outcomes are paired, which McNemar's test asks too. Requests that fail together count as fewer (blocks), and so
    do those of runs that differ by more than chance.
    """
    sides = [[lap.outcomes.get(metric) for lap in side.laps] for side in (base, new)]
    known = [[one for one in side if one is not None] for side in sides]
    if [len(side) for side in known] != [base.runs, new.runs]:
        return None
    hits, n = ([sum(of(one) for one in side) for side in known] for of in (_hits, _offered))
    if not all(n):
        return None
    worth = [_worth(side, tail) for side in known]
    both = _paired(known)
    phi, p_value = (_phi(both), _mcnemar(both)) if both is not None else (0.0, None)
    first, second = ((h / k * w, w) for h, k, w in zip(hits, n, worth, strict=True))
    bounds = stats.newcombe_paired(first, second, phi, tail)
    if bounds is None:
        return None
    method = "Newcombe, paired by prompt" if both is not None else "Newcombe, not paired"
    shares = [h / k for h, k in zip(hits, n, strict=True)]
    effect = shares[1] - shares[0]
    return Finding(shares[0], shares[1], effect, *bounds, method, n[0], n[1], p_value=p_value)


def _hits(one: Outcomes) -> int:
    return int(one.flags.sum())


def _offered(one: Outcomes) -> int:
    return max(len(one.flags), one.offered or 0)


def _worth(side: Sequence[Outcomes], tail: float) -> float:
    """As many independent requests as those of all runs are worth: fewer where the runs differ by more than chance."""
    within = sum(
        _offered(one) * stats.independent_flags(one.flags, tail) / len(one.flags) for one in side if len(one.flags)
    )
    counted = [one for one in side if _offered(one)]
    return stats.independent_in_runs([_hits(one) for one in counted], [_offered(one) for one in counted], within, tail)


def _paired(sides: Sequence[Sequence[Outcomes]]) -> tuple[Flags, Flags] | None:
    """The outcomes of the k-th asking of each prompt, in the same order; None where the sides asked differently."""
    if any(_offered(one) != len(one.flags) for side in sides for one in side):
        return None
    keyed = []
    for side in sides:
        times: Counter[str] = Counter()
        found: dict[tuple[str, int], bool] = {}
        for one in side:
            for name, flag in zip(one.prompts, one.flags.tolist(), strict=True):
                times[name] += 1
                found[name, times[name]] = flag
        keyed.append(found)
    if keyed[0].keys() != keyed[1].keys():
        return None
    first = np.fromiter(keyed[0].values(), np.bool_, len(keyed[0]))
    return first, np.fromiter((keyed[1][key] for key in keyed[0]), np.bool_, len(first))


def _phi(both: tuple[Flags, Flags]) -> float:
    """Correlation of the two outcomes, at least 0: prompts that fail on one side alone widen nothing."""
    first, second = (side.astype(np.float64) for side in both)
    spread = math.sqrt(float(first.var() * second.var()))
    covariance = float(((first - first.mean()) * (second - second.mean())).mean())
    return max(0.0, covariance / spread) if spread > 0 else 0.0


def _mcnemar(both: tuple[Flags, Flags]) -> float:
    base, new = both
    return stats.mcnemar(int((new & ~base).sum()), int((base & ~new).sum()))
