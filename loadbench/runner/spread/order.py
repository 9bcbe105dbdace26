"""What a worker is told, and what it says: plain values that cross from process to process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from loadbench.client.route import Route
from loadbench.engine import Limits, Progress, Settings, Share
from loadbench.errors import LoadbenchError
from loadbench.prompts import Line, Prompt
from loadbench.record import Result
from loadbench.scenario import Level
from loadbench.store.histogram import Histogram


@dataclass(frozen=True, slots=True)
class Order:
    """One worker's share of one level.

    Attributes:
        id: Unlike that of any other order.
        limits: The level's: `share.limits` has the share's own.
        line: How the server counts the words of prompts that are to be made up.
    """

    id: str
    route: Route
    prompts: Sequence[Prompt]
    line: Line
    settings: Settings
    share: Share
    level: Level
    attempt: int
    limits: Limits


@dataclass(frozen=True, slots=True)
class Hello:
    """Who a worker is.

    Attributes:
        version: Of its loadbench.
        cores: That its process may use.
        stamps: Where it stamps arrivals: kernel or user.
    """

    version: str
    python: str
    host: str
    pid: int
    cores: int
    stamps: str
    event_loop: str


COUNTS = (
    "in_flight",
    "issued",
    "ended",
    "completed",
    "failed",
    "cancelled",
    "dropped",
    "retried",
    "warmup_requests",
    "text_events",
)
"""Of `Progress`: what shares add up."""
MARKS = ("measured_from_ns", "full_ns", "last_issue_ns", "ended_ns")
"""Of `Progress`: times on the worker's clock, told in ns since the level began."""


class Report(msgspec.Struct):
    """How a share goes, as of one moment: its figures so far, and the records that came since the last report.

    Attributes:
        state: connecting, ready, running or over.
        error: Why its engine ended without being told to; None while all is well.
        counts, marks: By the names in COUNTS and MARKS.
        errors: Failures by kind.
        histograms: By metric, as `Histogram.packed` has them; from the beginning on.
        wait_share: Of the level so far, that its threads waited for a core; None where nobody counts that.
        late_ns: How long after the agreed time it began; 0 where it was in time.
    """

    state: str
    error: str | None = None
    counts: dict[str, int] = {}
    marks: dict[str, int | None] = {}
    errors: dict[str, int] = {}
    last_error: str | None = None
    phase: str = ""
    gone: int = 0
    think_time_s: float | None = None
    round_trip_ns: int | None = None
    cpu_s: float = 0.0
    wait_share: float | None = None
    late_ns: int = 0
    histograms: dict[str, bytes] = {}
    records: list[Result] = []


class _Outgoing(Report):
    records: list[msgspec.Raw] = []  # type: ignore[assignment]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Report])


def record(result: Result) -> bytes:
    """A request's record as reports carry it: made when it ends, so that a report costs its reader no long pause."""
    return _encoder.encode(result)


def report(
    progress: Progress, state: str, records: Sequence[bytes], *, text_events_in_flight: int, cpu_s: float, **more: Any
) -> bytes:
    """A share's report, encoded."""
    began_ns = progress.began_ns

    def since(at_ns: int | None) -> int | None:
        return at_ns - began_ns if at_ns else None

    counts = {name: getattr(progress, name) for name in COUNTS}
    counts["text_events"] += text_events_in_flight
    said = _Outgoing(
        state,
        counts=counts,
        marks={name: since(getattr(progress, name)) for name in MARKS},
        errors=dict(progress.errors),
        last_error=progress.last_error,
        phase=progress.phase,
        gone=progress.gone,
        think_time_s=progress.think_time_s,
        round_trip_ns=progress.round_trip_ns,
        cpu_s=cpu_s,
        wait_share=progress.client_wait_share,
        histograms={name: histogram.packed() for name, histogram in progress.histograms.items() if histogram.count},
        records=[msgspec.Raw(one) for one in records],
        **more,
    )
    return _encoder.encode(said)


def together(reports: Sequence[bytes]) -> bytes:
    """Reports as one message."""
    return _encoder.encode([msgspec.Raw(one) for one in reports])


def read(message: bytes) -> list[Report]:
    """The reports of a message, in order.

    Raises:
        LoadbenchError: It is none.
    """
    try:
        return _decoder.decode(message)
    except msgspec.DecodeError as error:
        raise _unreadable(error) from None


def histograms(said: Report) -> dict[str, Histogram]:
    """A report's histograms, by metric.

    Raises:
        LoadbenchError: They are none.
    """
    try:
        return {name: Histogram.unpacked(packed) for name, packed in said.histograms.items()}
    except ValueError as error:
        raise _unreadable(error) from None


def _unreadable(error: Exception) -> LoadbenchError:
    return LoadbenchError(f"what it says cannot be read ({error}): install the same loadbench there")
