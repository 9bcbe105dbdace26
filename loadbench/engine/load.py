"""What all levels of a run have in common: the client, the prompts, how they are asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import anyio

from loadbench.client import Ask
from loadbench.engine.share import WHOLE, Share
from loadbench.prompts import UNKNOWN, Line, Prompt
from loadbench.scenario import Pause
from loadbench.store.record import Result


class Chats(Protocol):
    """What the engine needs of a client; `client.Client` is one."""

    async def warm(self, connections: int) -> None: ...
    async def chat(self, ask: Ask, origin_ns: int, done: Callable[[Result], None], *, keep: bool = True) -> None: ...
    def text_events_in_flight(self) -> int: ...
    def take_lags_ns(self) -> list[int]: ...
    def round_trip_ns(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Settings:
    """How the requests of all levels of a run are made; plain values, so that shares of a level take them along.

    Attributes:
        seed: Of the order of prompts, of arrivals and pauses.
        arrivals: poisson or constant.
        distinct_prompts: Whether each request gets a prefix of its own.
        pause: Of a user between an answer and the next question, in closed loop.
        retries: New requests after one that failed, each with its own number and marks; warm-up is not repeated.
        retry_backoff_s: From a failure to the first of them; doubles with each.
        streamed: Whether streams are asked for: of whole answers nobody sees the first token and the gaps.
        salt: Makes the prefixes differ from those of other runs.
    """

    seed: int
    arrivals: str = "poisson"
    distinct_prompts: bool = False
    pause: Pause | None = None
    retries: int = 0
    retry_backoff_s: float = 1.0
    streamed: bool = True
    salt: int = 0


@dataclass(slots=True)
class Load:
    """What `Engine` was told, and whether it was stopped; its arguments say what each field means."""

    client: Chats
    settings: Settings
    prompts: Sequence[Prompt]
    on_result: Callable[[Result], None]
    now_ns: Callable[[], int]
    salt: int
    share: Share = WHOLE
    line: Line = UNKNOWN
    stopping: bool = False
    waiting: set[anyio.CancelScope] = field(default_factory=set)
