"""What all levels of a run have in common, and which streams, starts and prompts of a level are one client's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TypeVar

import anyio

from loadbench.client import Client
from loadbench.engine.progress import Limits
from loadbench.prompts import UNKNOWN, Line, Prompt
from loadbench.scenario import Pause
from loadbench.store.record import Result

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Share:
    """Every `of`-th stream, start, prompt and request number of a level, from the `index`-th on.

    All shares together are the level as one client would make it: the same arrivals, the same prompts in the same
    places, numbers that no two have in common.

    >>> Share(1, 3).part(8), list(Share(1, 3).take("abcdefgh")), Share(1, 3).number(2)
    (3, ['b', 'e', 'h'], 7)
    """

    index: int = 0
    of: int = 1

    def part(self, total: int) -> int:
        """How many of them are its own."""
        return len(range(self.index, total, self.of))

    def number(self, own: int) -> int:
        """The number within the level of its own number, both from 0."""
        return self.index + self.of * own

    def take(self, every: Iterable[T]) -> Iterator[T]:
        """Those that are its own, in order."""
        return islice(every, self.index, None, self.of)

    def limits(self, limits: Limits) -> Limits:
        """When it ends, of a level that ends then."""
        warmup, requests = self.part(limits.warmup), limits.requests
        return replace(
            limits,
            requests=None if requests is None else self.part(limits.warmup + requests) - warmup,
            warmup=warmup,
            max_streams=self.part(limits.max_streams),
        )


WHOLE = Share()


@dataclass(frozen=True, slots=True)
class Settings:
    """How the requests of all levels of a run are made; plain values, so that shares of a level take them along."""

    seed: int  # of the order of prompts, of arrivals and pauses
    arrivals: str = "poisson"  # poisson or constant
    distinct_prompts: bool = False  # whether each request gets a prefix of its own
    pause: Pause | None = None  # of a user between an answer and the next question, in closed loop
    retries: int = 0  # new requests after one that failed, each with its own number and marks; warm-up is not repeated
    retry_backoff_s: float = 1.0  # from a failure to the first of them; doubles with each
    streamed: bool = True  # whether streams are asked for: whole answers show neither the first token nor the gaps
    salt: int = 0  # makes the prefixes differ from those of other runs


@dataclass(slots=True)
class Load:
    """The arguments of `Engine`, which says what each means, and whether it was stopped."""

    client: Client
    settings: Settings
    prompts: Sequence[Prompt]
    on_result: Callable[[Result], None]
    now_ns: Callable[[], int]
    salt: int
    share: Share = WHOLE
    line: Line = UNKNOWN
    stopping: bool = False
    waiting: set[anyio.CancelScope] = field(default_factory=set)
