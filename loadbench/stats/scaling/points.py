"""A model's curve as points: one a load, with what its levels measured there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

Level = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Point:
    """One load; means over the repeats that ran to their end.

    Attributes:
        n: Streams, in open loop requests per second.
        in_flight: Mean number of requests in flight; n where nobody counted.
        x_per_s: Output tokens per second of the steady window.
        requests_per_s: Completed, in the steady window.
        r_ms, ttft_ms: Mean E2E; mean TTFT, None of whole answers.
        think_ms: Mean pause of a user between an answer and the next question, 0 where there is none.
        log_half: Half the width of the 95 % interval of ln x_per_s; None where no interval is known.
        levels: Entries of summary.json that it stands for.
    """

    n: float
    in_flight: float
    x_per_s: float
    requests_per_s: float | None
    r_ms: float | None
    ttft_ms: float | None
    think_ms: float
    log_half: float | None
    levels: tuple[Level, ...]


def points(members: Sequence[Level]) -> list[Point]:
    """The loads that have a throughput, lowest first."""
    by_load: dict[float, list[Level]] = {}
    for level in members:
        n = load(level)
        if n is not None and is_whole(level) and x_per_s(level):
            by_load.setdefault(n, []).append(level)
    return [_point(n, same) for n, same in sorted(by_load.items())]


def load(level: Level) -> float | None:
    """The level's load on its own axis: requests per second in open loop, else requests in flight."""
    rate = level.get("request_rate_per_s")
    n = level.get("concurrency") if rate is None else rate
    return n if n else None


def is_whole(level: Level) -> bool:
    """Whether the level ran to its end."""
    return level.get("status") in (None, "complete")


def x_per_s(level: Level) -> float | None:
    return level.get("output_tokens_per_s")


def r_ms(level: Level) -> float | None:
    return (level.get("e2e_ms") or {}).get("mean")


def ttft_ms(level: Level) -> float | None:
    return None if level.get("streamed") is False else (level.get("ttft_ms") or {}).get("mean")


def mean(figures: Sequence[float | None]) -> float | None:
    """The mean of what is known; None where nothing is."""
    known = [figure for figure in figures if figure is not None]
    return fmean(known) if known else None


def _point(n: float, same: Sequence[Level]) -> Point:
    halves = [log_half_of(level) for level in same]
    sure = [half for half in halves if half is not None]
    return Point(
        n=n,
        in_flight=mean([level.get("in_flight_mean") for level in same]) or n,
        x_per_s=fmean(x for level in same if (x := x_per_s(level))),
        requests_per_s=mean([level.get("requests_per_s") for level in same]),
        r_ms=mean([r_ms(level) for level in same]),
        ttft_ms=mean([ttft_ms(level) for level in same]),
        think_ms=1000 * (mean([level.get("think_time_s") for level in same]) or 0.0),
        log_half=math.sqrt(sum(half**2 for half in sure)) / len(sure) if len(sure) == len(halves) else None,
        levels=tuple(same),
    )


def log_half_of(level: Level) -> float | None:
    """Half the width of the 95 % interval of ln X; None where no interval is known."""
    low, high = level.get("output_tokens_per_s_ci95") or (None, None)
    return math.log(high / low) / 2 if low and high else None
