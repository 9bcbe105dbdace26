"""When a level ends, how it goes, and what run.json says of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loadbench.scenario import Level
from loadbench.store.files import HISTOGRAMS
from loadbench.store.histogram import Histogram

FAILURES_IN_A_ROW = 50
"""A level ends when this many requests in a row failed in a way that says the model is gone, not slow."""
GONE_AT_THE_END = 3
"""So many at its end say that it went away before the level was whole: by chance nobody fails to connect thrice."""
MAX_STREAMS = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """When a level ends: whichever of the two comes first."""

    requests: int | None  # measured requests; None leaves it to the duration
    duration_s: float | None  # from the first measured request on; None leaves it to the requests
    warmup: int  # requests before the measurement
    max_streams: int = MAX_STREAMS  # most requests in flight in open loop; what is due beyond it is dropped and counted


@dataclass(slots=True)
class Progress:
    """A level while it runs: what a live view shows. Histograms are in us, of measured and completed requests."""

    level: Level
    attempt: int
    limits: Limits
    began_ns: int = 0
    ended_ns: int = 0
    client_cpu_s: float = 0.0
    client_wait_share: float | None = (
        None  # of the level so far, that it waited for a core; of several workers the worst
    )
    round_trip_ns: int | None = None
    phase: str = "warming up"
    in_flight: int = 0
    issued: int = 0  # measured requests
    ended: int = 0  # measured requests
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    dropped: int = 0
    retried: int = 0  # measured requests that ask again what failed; of the issued and dropped
    warmup_requests: int = 0
    text_events: int = 0  # of ended requests, warm-up among them; of whole answers the tokens that the server counted
    errors: Counter[str] = field(default_factory=Counter)  # of the failed
    last_error: str | None = None
    gone: int = 0  # failures in a row that say the model is gone
    enough: bool = False  # what was to be found out is: nothing more starts (`Engine.end_level`)
    think_time_s: float | None = None  # mean pause of a user; then fewer requests are in flight than there are users
    measured_from_ns: int | None = None
    full_ns: int | None = None
    last_issue_ns: int | None = None
    workers: list[dict[str, object]] | None = None  # of a level in shares: what became of each
    incomplete: str | None = None  # why a part of the load is missing
    # By histogram, in us, what is not in it yet: one by one, the values of a request take as long as a tenth of it.
    new_us: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    histograms: dict[str, Histogram] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in HISTOGRAMS:
            # Open loop: TTFT counts from when a request was due, as in reports: waiting in the client is no gift to the
            # server. What it is from the sending stands beside it.
            if name != "ttft_from_sent" or self.level.request_rate_per_s is not None:
                self.histograms[name] = Histogram()

    def count(self) -> None:
        """Put into the histograms what has been measured since the last call."""
        new_us, self.new_us = self.new_us, defaultdict(list)
        for name, values in new_us.items():
            self.histograms[name].record_many(np.array(values, np.int64))


def rounded(value: float | None, digits: int, per: float = 1) -> float | None:
    """A figure for run.json, in units of `per`; one that was not measured stays None.

    >>> rounded(2_345_678, 3, per=1e6), rounded(None, 3)
    (2.346, None)
    """
    if value is None:
        return None
    return round(value / per, digits)


def _spread(histogram: Histogram) -> dict[str, int | None] | None:
    if not histogram.count:
        return None
    found: dict[str, int | None] = {"n": histogram.count}
    for name, share in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999)):
        found[name] = histogram.percentile(share)
    return found | {"max": histogram.max}


def facts(progress: Progress, *, stopped: bool) -> dict[str, Any]:
    """What run.json says of a level that is over. Times in ns count from its beginning."""

    def since(at_ns: int | None) -> int | None:
        return None if at_ns is None else at_ns - progress.began_ns

    reason = None
    status = "complete"
    if stopped:
        status, reason = "interrupted", "stopped before it was whole"
    elif progress.completed == 0 and progress.incomplete is None:
        status, reason = "failed", f"no request completed; the last one: {progress.last_error}"
    elif progress.gone >= GONE_AT_THE_END:
        status, reason = "failed", f"the server went away in mid-level; the last request: {progress.last_error}"
    elif progress.incomplete is not None:
        status, reason = "incomplete", progress.incomplete
    return {
        "status": status,
        "reason": reason,
        "duration_s": round((progress.ended_ns - progress.began_ns) / 1e9, 6),
        "measured_from_ns": since(progress.measured_from_ns),
        "full_ns": since(progress.full_ns),
        "last_issue_ns": since(progress.last_issue_ns),
        "offered": progress.issued + progress.dropped,
        "dropped": progress.dropped,
        "warmup_requests": progress.warmup_requests,
        "requests_planned": progress.limits.requests,
        "duration_planned_s": progress.limits.duration_s,
        "think_time_s": progress.think_time_s,
        "round_trip_ms": rounded(progress.round_trip_ns, 3, per=1e6),
        "client_cpu_s": round(progress.client_cpu_s, 3),
        "client_wait_share": rounded(progress.client_wait_share, 6),
        "workers": progress.workers,
        "client_lag_us": _spread(progress.histograms["client_lag"]),
        "client_wait_us": _spread(progress.histograms["client_wait"]),
    }
