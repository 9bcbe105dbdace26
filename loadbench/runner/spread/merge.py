"""Shares put together: a level's progress, and what became of each worker."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from loadbench.engine import Progress, Share
from loadbench.runner.spread.order import COUNTS, Report
from loadbench.runner.spread.place import Clock, Place
from loadbench.store.histogram import Histogram

WARMING, MEASURING, DRAINING = "warming up", "measuring", "draining"


@dataclass(slots=True)
class Part:
    """A share at its place, as far as is known.

    Attributes:
        seen: How many reports came.
        last: The last one; `histograms` are its own, unpacked.
        lost: Why nothing more will come of it; None while all is well.
        lost_ns: When that was noticed, in ns since the level began.
    """

    place: Place
    share: Share
    clock: Clock
    order_id: str
    seen: int = 0
    last: Report = field(default_factory=lambda: Report("connecting"))
    histograms: dict[str, Histogram] = field(default_factory=dict)
    lost: str | None = None
    lost_ns: int | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.lost is not None or self.last.state == "over"

    @property
    def started(self) -> bool:
        """Whether its connections are open."""
        return self.last.state != "connecting"

    def counted(self, name: str) -> int:
        """A count of the last report; of a lost share what is known to have ended: the rest has no record."""
        counts = self.last.counts
        if self.lost is not None and name in ("issued", "in_flight"):
            return counts.get("ended", 0) if name == "issued" else 0
        return counts.get(name, 0)

    def lose(self, why: str, progress: Progress) -> None:
        """Nothing more will come of it, as is noticed now."""
        self.lost, self.lost_ns = why, max(0, time.perf_counter_ns() - progress.began_ns)

    def mark(self, name: str) -> int | None:
        return self.last.marks.get(name)


def into(progress: Progress, parts: Sequence[Part]) -> None:
    """Put what the shares have said into a level's progress."""
    for name in COUNTS:
        setattr(progress, name, sum(part.counted(name) for part in parts))
    progress.errors = sum((Counter(part.last.errors) for part in parts), Counter())
    progress.last_error = next((part.last.last_error for part in parts if part.last.last_error), None)
    alive = [part for part in parts if part.lost is None]
    progress.gone = min((part.last.gone for part in alive), default=0)
    progress.think_time_s = next((part.last.think_time_s for part in parts if part.last.think_time_s is not None), None)
    progress.round_trip_ns = max(
        (part.last.round_trip_ns for part in parts if part.last.round_trip_ns is not None), default=None
    )
    progress.client_cpu_s = sum(part.last.cpu_s for part in parts)
    progress.client_wait_share = max(
        (part.last.wait_share for part in parts if part.last.wait_share is not None), default=None
    )
    _marks(progress, parts)
    phases = {part.last.phase for part in alive}
    if phases:
        # As long as one warms up the load is not whole; as soon as one drains it is not any more.
        progress.phase = WARMING if WARMING in phases else DRAINING if DRAINING in phases else MEASURING
    merged = {name: Histogram() for name in progress.histograms}
    for part in parts:
        for name in merged.keys() & part.histograms.keys():
            merged[name].merge(part.histograms[name])
    progress.histograms.update(merged)


def _marks(progress: Progress, parts: Sequence[Part]) -> None:
    """The level is whole from the time its last share is, until its first one makes no more requests.

    In open loop it lasts to its last request: the shares' starts lie between each other.
    """
    began_ns = progress.began_ns

    def at(name: str, choose: Any, *, all_of_them: bool = False) -> int | None:
        told = [mark for part in parts if (mark := part.mark(name)) is not None]
        return None if not told or (all_of_them and len(told) < len(parts)) else began_ns + choose(told)

    whole = all(part.lost is None for part in parts)
    progress.measured_from_ns = at("measured_from_ns", min)
    progress.full_ns = at("full_ns", max, all_of_them=True)
    progress.last_issue_ns = at("last_issue_ns", max if progress.level.concurrency is None and whole else min)


def figures(part: Part, progress: Progress) -> dict[str, Any]:
    """What run.json says of a worker's share."""
    place, said, share, level = part.place, part.last, part.share, progress.level
    own, hello = part.histograms, place.hello
    lasted_s = (part.mark("ended_ns") or 0) / 1e9  # 0 of a share that did not end, or did not begin

    def ms(name: str, p: float) -> float | None:
        value_us = own[name].percentile(p) if name in own else None
        return None if value_us is None else value_us / 1e3

    rate = level.request_rate_per_s
    return {
        "name": place.name,
        "address": place.address,
        "host": None if hello is None else hello.host,
        "pid": None if hello is None else hello.pid,
        "status": "complete" if part.lost is None else "lost",
        "reason": part.lost,
        "lost_s": None if part.lost_ns is None else round(part.lost_ns / 1e9, 3),
        "streams": None if level.concurrency is None else share.part(level.concurrency),
        "request_rate_per_s": None if rate is None else round(rate / share.of, 6),
        **{name: part.counted(name) for name in ("issued", "completed", "failed", "cancelled", "dropped")},
        "unknown": said.counts.get("issued", 0) - said.counts.get("ended", 0) if part.lost else 0,
        "ttft_ms": {"p50": ms("ttft", 0.5), "p99": ms("ttft", 0.99)},
        "itl_ms": {"p50": ms("itl", 0.5), "p99": ms("itl", 0.99)},
        "client_lag_ms": {"p50": ms("client_lag", 0.5), "p99": ms("client_lag", 0.99)},
        "cpu_s": round(said.cpu_s, 3),
        "cpu_share": round(said.cpu_s / lasted_s, 4) if lasted_s > 0 else None,
        "wait_share": None if said.wait_share is None else round(said.wait_share, 4),
        "round_trip_ms": None if said.round_trip_ns is None else round(said.round_trip_ns / 1e6, 3),
        "clock_uncertain_ms": round(part.clock.uncertain_ns / 1e6, 3),
        "wall_clock_offset_ms": round(part.clock.wall_offset_ns / 1e6, 3),
        "late_ms": round(said.late_ns / 1e6, 3),
    }


def missing(parts: Sequence[Part], progress: Progress) -> str | None:
    """Why a part of a level's load is missing; None where all shares ran to their ends."""
    lost = [part for part in parts if part.lost is not None]
    if not lost:
        return None
    said = "; ".join(
        f"worker {part.place.told} was lost {(part.lost_ns or 0) / 1e9:.1f} s into the level: {part.lost}"
        for part in lost
    )
    streams = progress.level.concurrency
    share = (
        f"{sum(part.share.part(streams) for part in lost)} of {streams} streams"
        if streams is not None
        else f"{len(lost)} of {len(parts)} shares of the requests"
    )
    return f"{said}; {share} are missing from then on: --resume measures the level again"
