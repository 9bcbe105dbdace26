"""Samples of a level, as telemetry.jsonl holds them: how far a counter went, what a gauge said. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

Sample = Mapping[str, Any]
Read = Callable[[Sample], float | None]


@dataclass(frozen=True, slots=True)
class Growth:
    """How far a counter went from the first to the last sample that has it.

    Attributes:
        amount: In the counter's unit.
        seconds: Between those two samples, more than 0.
        from_start, to_end: Whether they are the first and the last of all.
    """

    amount: float
    seconds: float
    from_start: bool
    to_end: bool

    @property
    def is_whole(self) -> bool:
        """Whether the counter was known before the level and after it."""
        return self.from_start and self.to_end


def by_level(samples: Sequence[Sample]) -> dict[tuple[str, int], list[Sample]]:
    """The samples of each level's attempt, in their order."""
    found: dict[tuple[str, int], list[Sample]] = {}
    for sample in samples:
        if sample.get("phase") == "level":
            found.setdefault((str(sample.get("level")), sample.get("attempt") or 0), []).append(sample)
    return found


def reader(*names: str) -> Read:
    """Reads a number from within a sample; None where it, or what it is in, is missing.

    >>> reader("server", "cpu_s")({"server": {"cpu_s": 1.5}}), reader("server", "cpu_s")({"server": None})
    (1.5, None)
    """

    def read(sample: Sample) -> float | None:
        value: Any = sample
        for name in names:
            value = value.get(name) if isinstance(value, Mapping) else None
        return None if value is None else float(value)

    return read


def values(samples: Sequence[Sample], read: Read) -> list[float]:
    """What is known, in the samples' order."""
    return [value for sample in samples if (value := read(sample)) is not None]


def largest(samples: Sequence[Sample], read: Read) -> float | None:
    """The peak; None where nothing is known."""
    return max(values(samples, read), default=None)


def mean(samples: Sequence[Sample], read: Read) -> float | None:
    """The mean; None where nothing is known."""
    known = values(samples, read)
    return sum(known) / len(known) if known else None


def growth(samples: Sequence[Sample], read: Read) -> Growth | None:
    """How far a counter went; None with fewer than two values, and where it fell.

    A counter that falls was begun anew, by another process or a driver that was reset: what it had counted until then
    is lost.

    >>> growth([{"at_s": 0.0, "n": 5.0}, {"at_s": 2.0, "n": 9.0}], reader("n"))
    Growth(amount=4.0, seconds=2.0, from_start=True, to_end=True)
    """
    known = [
        (i, float(sample["at_s"]), value) for i, sample in enumerate(samples) if (value := read(sample)) is not None
    ]
    if len(known) < 2 or any(after[2] < before[2] for before, after in pairwise(known)):
        return None
    (first, begin_s, low), (last, end_s, high) = known[0], known[-1]
    if end_s <= begin_s:
        return None
    return Growth(high - low, end_s - begin_s, first == 0, last == len(samples) - 1)


def within(samples: Sequence[Sample]) -> Sequence[Sample]:
    """The samples taken while the level ran: all but the one before it and the one after it, where there are more."""
    return samples[1:-1] if len(samples) > 2 else samples
