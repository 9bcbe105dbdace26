"""What makes the load of a run's levels."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from loadbench.engine import Progress, Settings
from loadbench.prompts import UNKNOWN, Line, Prompt
from loadbench.record import Result


class Drives(Protocol):
    """What makes the load of a run's levels: the engine in this process, or one that cuts them into shares.

    Attributes:
        gone: Why it makes no more; None while it does.
    """

    @property
    def gone(self) -> str | None: ...
    def asks(self, prompts: Sequence[Prompt], line: Line = UNKNOWN) -> None: ...
    def stop(self) -> None: ...
    def end_level(self, progress: Progress) -> None: ...
    async def run(self, progress: Progress) -> None: ...


class Drive(Protocol):
    """Makes what makes the load; `spread.Spread` gives one."""

    def __call__(
        self,
        prompts: Sequence[Prompt],
        settings: Settings,
        *,
        on_result: Callable[[Result], None],
        on_tick: Callable[[Progress], Awaitable[None]],
    ) -> Drives: ...
