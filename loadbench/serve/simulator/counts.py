"""What the server really did, as it reports at /truth.

Durations are counted per whole microsecond: exact percentiles at a memory bounded by their spread, not by their number.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TypeVar

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


Key = TypeVar("Key")
Counts = defaultdict[Key, int]


def _counts() -> Counts[Key]:
    return defaultdict(int)


@dataclass(slots=True)
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

    requests: int = 0
    completed: int = 0
    rejected: int = 0
    disconnected: int = 0
    faults: Counts[str] = field(default_factory=_counts)
    tokens: int = 0
    events: int = 0
    characters: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    connections: int = 0
    blocked: int = 0
    most_active: int = 0
    first_ns: int | None = None
    last_ns: int | None = None
    ttft: Counts[int] = field(default_factory=_counts)
    gap: Counts[int] = field(default_factory=_counts)
    e2e: Counts[int] = field(default_factory=_counts)
    queue: Counts[int] = field(default_factory=_counts)
    late: Counts[int] = field(default_factory=_counts)

    def report(self) -> dict[str, object]:
        report: dict[str, object] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name in ("ttft", "gap", "e2e", "queue", "late"):
                report[f"{item.name}_us"] = summary(value)
            elif item.name == "first_ns":
                span_s = None if value is None or self.last_ns is None else (self.last_ns - value) / 1e9
                report["span_s"] = span_s
                report["tokens_per_s"] = self.tokens / span_s if span_s else None
            elif item.name != "last_ns":
                report[item.name] = value
        return report
