"""What the server really did, as it reports at /truth.

Durations are counted per whole microsecond: exact percentiles at a memory bounded by their spread, not by their number.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

PERCENTILES = {"p50": (50, 100), "p90": (90, 100), "p95": (95, 100), "p99": (99, 100), "p999": (999, 1000)}


def summary(counts: Mapping[int, int]) -> dict[str, float | int | None]:
    """n, mean, min, percentiles (nearest rank, ceil(p * n)) and max of values counted as {value: times}, None without.

    >>> summary({10: 98, 20: 1, 500: 1})["p99"]
    20
    """
    n = sum(counts.values())
    if not n:
        return {"n": 0, "mean": None, "min": None, **dict.fromkeys(PERCENTILES), "max": None}
    values = sorted(counts)
    mean = sum(value * count for value, count in counts.items()) / n
    found: dict[str, float | int | None] = {"n": n, "mean": round(mean, 3), "min": values[0]}
    below, at = 0, iter(values)
    value = next(at)
    for name, (part, of) in PERCENTILES.items():
        rank = -(-part * n // of)  # integers, or 0.999 * 1000 would round up to rank 1,000
        while below + counts[value] < rank:
            below += counts[value]
            value = next(at)
        found[name] = value
    return {**found, "max": values[-1]}


class Truth:
    """Counts since the start or the last reset. All durations are {whole microseconds: times}.

    Attributes:
        requests: Chat completions that were understood, faults included.
        completed: Answers delivered in full, with text, finish event and [DONE] (stalls and bursts are).
        rejected: Requests refused as malformed, unauthorised or for an unknown model.
        disconnected: Answers whose client left before their end, in the queue included.
        faults: Faults that really struck, by name.
        tokens, events, characters: Text sent, of broken-off answers too; events that carried it.
        prompt_tokens, cached_tokens: Of the requests that reached a slot.
        connections: Accepted.
        blocked: Writes the kernel would not take at once, since the client read too slowly; their times are too early.
        ttft, gap, e2e, queue, late: First text event - arrival; text event - text event before; last text event -
            arrival; slot - arrival; text event - its due time. Streams only; a burst has no gaps.
    """

    def __init__(self) -> None:
        self.requests = self.completed = self.rejected = self.disconnected = 0
        self.tokens = self.events = self.characters = self.prompt_tokens = self.cached_tokens = 0
        self.connections = self.blocked = self.most_active = 0
        self.faults: defaultdict[str, int] = defaultdict(int)
        self.ttft: defaultdict[int, int] = defaultdict(int)
        self.gap: defaultdict[int, int] = defaultdict(int)
        self.e2e: defaultdict[int, int] = defaultdict(int)
        self.queue: defaultdict[int, int] = defaultdict(int)
        self.late: defaultdict[int, int] = defaultdict(int)
        self.first_ns: int | None = None
        self.last_ns: int | None = None

    def report(self) -> dict[str, object]:
        """The report, ready for JSON."""
        span = None if self.first_ns is None or self.last_ns is None else (self.last_ns - self.first_ns) / 1e9
        return {
            "requests": self.requests,
            "completed": self.completed,
            "rejected": self.rejected,
            "disconnected": self.disconnected,
            "faults": dict(self.faults),
            "tokens": self.tokens,
            "events": self.events,
            "characters": self.characters,
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "connections": self.connections,
            "blocked": self.blocked,
            "most_active": self.most_active,
            "span_s": span,
            "tokens_per_s": self.tokens / span if span else None,
            "ttft_us": summary(self.ttft),
            "gap_us": summary(self.gap),
            "e2e_us": summary(self.e2e),
            "queue_us": summary(self.queue),
            "late_us": summary(self.late),
        }
