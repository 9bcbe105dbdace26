"""What a search for the capacity found, as run.json tells it: its zones, and an estimate from all probes together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from loadbench import stats
from loadbench.store.summary import Capacity, Crossing, Load, Step, Verdict

BEYOND = 1.05
"""How far beyond its zones the interval of a rate reaches, as a factor: a queue may be lucky for minutes."""


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


def capacities(info: Mapping[str, Any]) -> list[Capacity] | None:
    """A record for each model that was searched, with what follows from its steps; None of any other run.

    Args:
        info: run.json.
    """
    records = info.get("capacity")
    if not isinstance(records, list):
        return None
    return [_with_zones(record) for record in msgspec.convert(records, list[Capacity])]


def answer(records: Sequence[Capacity] | None, by: str) -> Load | None:
    """The answer of the one search that there was; None of several, and of a search by the other kind of load."""
    if records is None or len(records) != 1 or records[0].by != by:
        return None
    return records[0].found


def _with_zones(record: Capacity) -> Capacity:
    """What follows from the steps is computed again, so that records of older runs have it too."""
    counted = [step for step in record.steps if step.counted]
    found = zones([Tried(step.load, step.verdict) for step in counted])
    return msgspec.structs.replace(
        record,
        meets=found.meets,
        misses=found.misses,
        undecided=list(found.undecided),
        estimate=estimate(counted, record.by),
    )


def estimate(steps: Sequence[Step], by: str | None) -> Crossing | None:
    """The load up to which the SLO is met, from all probes together; None where they cannot tell.

    Of several bounds the one that is crossed first; a bound about a figure of the whole level has no such curve. The
    estimate lies between the zones, since what surely met or missed the SLO is no matter of estimates.

    Args:
        steps: Those that count.
        by: "concurrency" or "rate". At a rate a queue makes requests depend on each other more than they can tell, so
            that the interval is never narrower than what the zones leave open, and BEYOND.
    """
    crossings = []
    for share in steps[0].shares if steps else ():
        if share.wanted is None or not 0 < share.wanted < 1:
            return None
        crossings.append(stats.crossing(*_columns(steps, share.bound), share.wanted))
    if not crossings:
        return None
    found = zones([Tried(step.load, step.verdict) for step in steps])
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
    return Crossing(load=_short(load), ci95=[_short(min(ends)), _short(max(ends))] if ends else None)


def _columns(steps: Sequence[Step], bound: str) -> tuple[list[float], list[float], list[float]]:
    """Loads, good requests and requests, of one bound; requests that depend on each other as few as they are worth."""
    loads, hits, n = [], [], []
    for step in steps:
        share = next((one for one in step.shares if one.bound == bound), None)
        if share is None or share.share is None:
            continue
        worth = float(share.worth or step.requests or 0)
        missed_by_share = any(one.attained is False for one in step.shares)
        # A backlog that grows, or a server that fails, misses it in the long run, whatever the first requests met.
        gone = step.verdict == "not met" and not missed_by_share
        loads.append(float(step.load))
        hits.append(0.0 if gone else share.share * worth)
        n.append(worth)
    return loads, hits, n


def _short(load: float) -> float:
    """A load, in three digits."""
    return float(f"{load:.3g}")
