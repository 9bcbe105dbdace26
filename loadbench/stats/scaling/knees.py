"""Where a curve bends, by four rules with different answers: each knee has its name, none is "the" knee.

On one curve they may say 16, > 32 and 8.4 (METRICS.md §6). Each is {"n", "relation"}: "=" at n streams (requests per
second in open loop), ">" beyond the highest load measured, "<" or "<=" below; None where it cannot be told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from loadbench.bounds import Bound
from loadbench.figures import PERCENTILES
from loadbench.stats.scaling.points import Level, Point, is_whole, load

FEWEST_LOADS = 3
"""Two points have no bend."""
GAIN, LEAST_STEP = 0.05, 1.5
_SHARES_MET = {**PERCENTILES, "max": 1.0}
"""The share of requests that must meet a bound on that statistic."""

Knee = dict[str, Any]


def knees(curve: Sequence[Point], members: Sequence[Level]) -> dict[str, Knee | None]:
    """All four knees of one model's closed loop.

    Args:
        curve: Its loads that have a throughput, lowest first.
        members: Its levels, for their objectives.
    """
    bent = len(curve) >= FEWEST_LOADS
    return {
        "power": power(curve) if bent else None,
        "doubling": doubling(curve) if bent else None,
        "corner": corner(curve) if bent else None,
        "slo": slo(members),
    }


def power(curve: Sequence[Point]) -> Knee | None:
    """The load with the most throughput per time in the system, X/R [Kleinrock 1979], of those measured."""
    rated = [(point.x_per_s / point.r_ms, -point.n) for point in curve if point.r_ms]
    if len(rated) < len(curve):
        return None
    n = -max(rated)[1]
    if n == curve[-1].n:
        return {"n": n, "relation": ">="}
    return {"n": n, "relation": "<=" if n == curve[0].n > 1 else "="}


def doubling(curve: Sequence[Point]) -> Knee | None:
    """The load that the first doubling with a gain under 5 % leads to; steps of other sizes by the gain per doubling.

    Each load is held against the next one that is at least half as high again: what a smaller step gains is noise.
    """
    reached = None
    for i, lower in enumerate(curve):
        upper = next((point for point in curve[i + 1 :] if point.n >= LEAST_STEP * lower.n), None)
        if upper is None:
            break
        reached = upper.n
        gain = (upper.x_per_s / lower.x_per_s) ** (1 / math.log2(upper.n / lower.n)) - 1
        if gain < GAIN - 1e-9:
            return {"n": upper.n, "relation": "=", "from_n": lower.n, "gain": round(gain, 4)}
    return None if reached is None else {"n": reached, "relation": ">"}


def saturated_n(curve: Sequence[Point]) -> float | None:
    """The lowest load above which throughput grows no more: no higher load has over 5 % more, beyond both intervals.

    One flat doubling is none where a later one gains: batches and slots fill in steps. None where it still grows.
    """
    for i, lower in enumerate(curve):
        higher = curve[i + 1 :]
        if len(curve) < FEWEST_LOADS or not any(point.n >= LEAST_STEP * lower.n for point in higher):
            return None
        if not any(_grows(lower, point) for point in higher):
            return lower.n
    return None


def _grows(lower: Point, higher: Point) -> bool:
    gain = math.log(higher.x_per_s / lower.x_per_s)
    if gain < math.log1p(GAIN):
        return False
    if lower.log_half is None or higher.log_half is None:
        return True
    return gain > math.hypot(lower.log_half, higher.log_half)


def corner(curve: Sequence[Point]) -> Knee | None:
    """X_max * R(1): streams that would keep the server as busy as it gets if none had to wait for another.

    Of users who pause for Z between two questions, X_max * (R(1) + Z).

    Where one stream alone was not measured, R of the lowest load stands in, which can only be longer: "<=".
    """
    rates = [point.requests_per_s for point in curve if point.requests_per_s is not None]
    lowest = curve[0]
    if len(rates) < len(curve) or not lowest.r_ms:
        return None
    return {
        "n": round(max(rates) * (lowest.r_ms + lowest.think_ms) / 1000, 2),
        "relation": "=" if lowest.n == 1 else "<=",
    }


def slo(members: Sequence[Level]) -> Knee | None:
    """The load at which the first bound is crossed, between two levels by a straight line over log2 of the load."""
    by_bound: dict[str, dict[float, list[Any]]] = {}
    for level in members:
        n = load(level)
        if n is None or not is_whole(level):
            continue
        for row in level.get("slo") or ():
            by_bound.setdefault(str(row["bound"]), {}).setdefault(n, []).append((row, level))
    crossings = [_crossing(Bound.parse(text), loads) for text, loads in by_bound.items()]
    if not crossings or any(crossing is None for crossing in crossings):
        return None
    order = {"<": 0, "=": 1, ">": 2}
    return min((c for c in crossings if c), key=lambda c: (order[c["relation"]], c["n"]))


def _crossing(bound: Bound, loads: dict[float, list[Any]]) -> Knee | None:
    """Where one bound is crossed; a load keeps it if each of its repeats does. None where a level is undecided."""
    rows = sorted(loads.items())
    if any(row["attained"] is None for _, same in rows for row, _ in same):
        return None
    met = [all(row["attained"] for row, _ in same) for _, same in rows]
    if not met[0]:
        return {"n": rows[0][0], "relation": "<", "bound": bound.text}
    if all(met):
        return {"n": rows[-1][0], "relation": ">", "bound": bound.text}
    at = met.index(False) - 1
    (low, within), (high, beyond) = rows[at], rows[at + 1]
    share = 0.0
    for slack in (_of_figure, _of_attainment):
        spare, lack = _worst(slack, bound, within), _worst(slack, bound, beyond)
        if spare is not None and lack is not None and spare >= 0 > lack:
            share = spare / (spare - lack)
            break
    n = low * (high / low) ** share
    return {"n": round(n, 2), "relation": "=", "bound": bound.text, "between": [low, high]}


def _worst(slack: Callable[[Bound, Any, Level], float | None], bound: Bound, same: Sequence[Any]) -> float | None:
    found = [slack(bound, row, level) for row, level in same]
    return None if None in found else min(value for value in found if value is not None)


def _of_figure(bound: Bound, row: Any, level: Level) -> float | None:
    """How far the bound's own figure is within it: times in logarithms, since they grow with the load."""
    if bound.figure.values:
        name = (
            "ttft_from_due_ms" if bound.metric == "ttft" and level.get("request_rate_per_s") else f"{bound.metric}_ms"
        )
        value = (level.get(name) or {}).get(bound.statistic)
        return math.log(bound.value / value) if value else None
    value = level.get(bound.figure.path)
    if value is None:
        return None
    return float(value - bound.value if bound.op.startswith(">") else bound.value - value)


def _of_attainment(bound: Bound, row: Any, level: Level) -> float | None:
    """How far the share of requests is above the one that the bound asks for; failed requests are in it."""
    target = _SHARES_MET.get(bound.statistic or "", bound.value if bound.metric == "success" else None)
    return None if target is None or row["attainment"] is None else float(row["attainment"] - target)
