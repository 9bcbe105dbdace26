"""What all levels of a run have in common: the client, the prompts, how they are asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import anyio

from loadbench.client import Ask
from loadbench.prompts import UNKNOWN, Line, Prompt
from loadbench.result import Result
from loadbench.scenario import Pause


class Chats(Protocol):
    """What the engine needs of a client; `client.Client` is one."""

    async def warm(self, connections: int) -> None: ...
    async def chat(self, ask: Ask, origin_ns: int, done: Callable[[Result], None], *, keep: bool = True) -> None: ...
    def text_events_in_flight(self) -> int: ...
    def take_lags_ns(self) -> list[int]: ...
    def round_trip_ns(self) -> int | None: ...


@dataclass(slots=True)
class Load:
    """What `Engine` was told, and whether it was stopped; its arguments say what each field means."""

    client: Chats
    prompts: Sequence[Prompt]
    seed: int
    arrivals: str
    distinct: bool
    pause: Pause | None
    retries: int
    retry_backoff_s: float
    streamed: bool
    on_result: Callable[[Result], None]
    now_ns: Callable[[], int]
    salt: int
    line: Line = UNKNOWN
    stopping: bool = False
    waiting: set[anyio.CancelScope] = field(default_factory=set)
