"""What a search for the capacity found, as run.json tells it: its zones, and an estimate from all probes together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from loadbench import stats

BEYOND = 1.05
"""How far beyond its zones the interval of a rate reaches, as a factor: a queue may be lucky for minutes."""

Verdict = Literal["met", "not met", "undecided"]


@dataclass(frozen=True, slots=True)
class Tried:
    """A load that was measured, and what its probe said of the SLO."""

    load: float
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Zones:
    """What a search says of every load.

    Attributes:
        meets: The SLO is met up to here; None where no load surely met it.
        misses: It is missed from here on; None where no load surely missed it.
        undecided: The loads between the two that were tried.
    """

    meets: float | None
    misses: float | None
    undecided: tuple[float, ...]


def zones(tried: Sequence[Tried]) -> Zones:
    """The zones. A load that met it once and another time did not surely meet it is not in the first one.

    >>> zones([Tried(8, "met"), Tried(16, "not met"), Tried(12, "undecided")])
    Zones(meets=8, misses=16, undecided=(12,))
    """
    doubtful = min((one.load for one in tried if one.verdict != "met"), default=None)
    meets = max(
        (one.load for one in tried if one.verdict == "met" and (doubtful is None or one.load < doubtful)), default=None
    )
    misses = min((one.load for one in tried if one.verdict == "not met"), default=None)
    between = {
        one.load for one in tried if (meets is None or one.load > meets) and (misses is None or one.load < misses)
    }
    return Zones(meets, misses, tuple(sorted(between)))


def searched(info: Mapping[str, Any]) -> dict[str, Any]:
    """The summary's `capacity` (a record for each model) and, where one model was searched, its answer.

    >>> searched({"capacity": [{"by": "concurrency", "found": 8, "steps": []}]})["capacity_concurrency"]
    8
    """
    records = info.get("capacity")
    if not isinstance(records, list):
        records = None
    told = None if records is None else [_told(record) for record in records]
    only = told[0] if told and len(told) == 1 else {}
    return {
        "capacity": told,
        "capacity_concurrency": only.get("found") if only.get("by") == "concurrency" else None,
        "capacity_rate_per_s": only.get("found") if only.get("by") == "rate" else None,
    }


def _told(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with what follows from its steps, so that those of older runs have it too."""
    counted = [step for step in record.get("steps") or [] if step.get("counted", True)]
    found = zones([Tried(step["load"], step["verdict"]) for step in counted])
    return {
        **record,
        "meets": found.meets,
        "misses": found.misses,
        "undecided": list(found.undecided),
        "estimate": estimate(counted, record.get("by")),
    }


def estimate(steps: Sequence[Mapping[str, Any]], by: str | None) -> dict[str, Any] | None:
    """The load up to which the SLO is met, from all probes together: {"load", "ci95"}; None where they cannot tell.

    Of several bounds the one that is crossed first; a bound about a figure of the whole level has no such curve. The
    estimate lies between the zones, since what surely met or missed the SLO is no matter of estimates.

    Args:
        steps: Those that count.
        by: "concurrency" or "rate". At a rate a queue makes requests depend on each other more than they can tell, so
            that the interval is never narrower than what the zones leave open, and BEYOND.
    """
    bounds = [(share["bound"], share["wanted"]) for share in (steps[0]["shares"] if steps else ())]
    if not bounds or any(wanted is None or not 0 < wanted < 1 for _, wanted in bounds):
        return None
    found = zones([Tried(step["load"], step["verdict"]) for step in steps])
    crossings = [stats.crossing(*_columns(steps, bound), wanted) for bound, wanted in bounds]
    first = min((one for one in crossings if one is not None), key=lambda one: one.load, default=None)
    ends: list[float] = []
    if by == "rate" and found.meets is not None and found.misses is not None:
        ends = [found.meets / BEYOND, found.misses * BEYOND]
        first = first or stats.Crossing(math.sqrt(found.meets * found.misses), None, None)
    if first is None:
        return None
    load = max(first.load, found.meets or 0.0)
    if found.misses is not None:
        load = min(load, found.misses)
    if first.low is not None and first.high is not None:
        ends += [first.low, load, first.high]
    return {"load": _short(load), "ci95": [_short(min(ends)), _short(max(ends))] if ends else None}


def _columns(steps: Sequence[Mapping[str, Any]], bound: str) -> tuple[list[float], list[float], list[float]]:
    """Loads, good requests and requests, of one bound; requests that depend on each other as few as they are worth."""
    loads, hits, n = [], [], []
    for step in steps:
        share = next((one for one in step["shares"] if one["bound"] == bound), None)
        if share is None or share["share"] is None:
            continue
        worth = float(share.get("worth") or step["requests"])
        missed_by_share = any(one["attained"] is False for one in step["shares"])
        # A backlog that grows, or a server that fails, misses it in the long run, whatever the first requests met.
        gone = step["verdict"] == "not met" and not missed_by_share
        loads.append(float(step["load"]))
        hits.append(0.0 if gone else share["share"] * worth)
        n.append(worth)
    return loads, hits, n


def _short(load: float) -> float:
    """A load, in three digits."""
    return float(f"{load:.3g}")
