"""One worker, as the one who asks sees it: an executor that is called, and is lost once it does not answer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from loadbench.errors import LoadbenchError
from loadbench.runner.spread import worker
from loadbench.runner.spread.order import Hello

LOST_S = 10.0
"""A worker that does not answer for so long is lost: its share counts no more."""
ROUND_TRIPS = 8
MOST_UNCERTAIN_NS = 100_000_000
"""Of a worker's clock: what is known less well cannot begin together with others."""

Words = ParamSpec("Words")
T = TypeVar("T")


class Lost(LoadbenchError):
    """A worker does not answer any more; the message says why."""


@dataclass(frozen=True, slots=True)
class Clock:
    """A worker's clocks against those of this process, in ns.

    Attributes:
        offset_ns: Its monotonic clock minus ours: of no meaning but for the start.
        uncertain_ns: The offset is known to within this, half the shortest round trip of a call.
        wall_offset_ns: Its wall clock minus ours.
    """

    offset_ns: int
    uncertain_ns: int
    wall_offset_ns: int


@dataclass(slots=True)
class Place:
    """A worker.

    Attributes:
        name: w1, w2, ...
        address: Of a cluster's worker; None of a process here.
        executor: Runs one call after the other in the worker.
        hello: Who it is; None until it was asked.
        lost: Why it is not called any more.
    """

    name: str
    executor: Executor
    address: str | None = None
    hello: Hello | None = None
    lost: str | None = None

    @property
    def told(self) -> str:
        """As `w2 (tcp://10.0.0.7:41234)`."""
        if self.address is not None:
            return f"{self.name} ({self.address})"
        return self.name if self.hello is None else f"{self.name} (process {self.hello.pid})"

    async def call(self, work: Callable[Words, T], /, *words: Words.args, **named: Words.kwargs) -> T:
        """Run a short function in the worker.

        Raises:
            Lost: It does not answer: it died, hangs, or cannot be reached.
            LoadbenchError: What the function raised.
        """
        return (await self._timed(LOST_S, work, *words, **named))[0]

    async def call_within(self, limit_s: float, work: Callable[..., T], /, *words: Any) -> T:
        """The same, with another limit."""
        return (await self._timed(limit_s, work, *words))[0]

    async def end(self, within_s: float) -> None:
        """Have it end what runs there; one that does not answer is lost, and that is all."""
        with contextlib.suppress(Lost):
            await self.call_within(within_s, worker.close)

    async def clock(self) -> Clock:
        """How its clocks stand against ours, by the shortest of some round trips."""
        best: Clock | None = None
        for _ in range(ROUND_TRIPS):
            asked_ns, asked_wall_ns = time.perf_counter_ns(), time.time_ns()
            (theirs_ns, their_wall_ns), answered_ns = await self._timed(LOST_S, worker.clock)
            half_ns = (answered_ns - asked_ns) // 2
            if best is None or half_ns < best.uncertain_ns:
                best = Clock(theirs_ns - asked_ns - half_ns, half_ns, their_wall_ns - asked_wall_ns - half_ns)
        assert best is not None
        return best

    async def _timed(self, limit_s: float, work: Callable[..., T], /, *words: Any, **named: Any) -> tuple[T, int]:
        """The answer, and when it was there, in ns of our monotonic clock."""
        if self.lost is not None:
            raise Lost(self.lost)
        answered_ns: list[int] = []

        def answered(_: Future[T]) -> None:
            answered_ns.append(time.perf_counter_ns())

        try:
            future = self.executor.submit(work, *words, **named)
            future.add_done_callback(answered)
            async with asyncio.timeout(limit_s):
                return await asyncio.wrap_future(future), answered_ns[0]
        except TimeoutError:
            self.lost = f"no answer for {limit_s:g} s"
        except LoadbenchError:
            raise
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # it is we who are to end
            self.lost = "its cluster took it away"
        except Exception as error:
            self.lost = _why(error)
        raise Lost(self.lost)


def _why(error: Exception) -> str:
    from concurrent.futures.process import BrokenProcessPool

    if isinstance(error, BrokenProcessPool):
        return "its process died"
    if isinstance(error, ModuleNotFoundError):
        return f"{error}: install the same loadbench there"
    if "deserialization of the task graph" in str(error):  # a scheduler looks at what it passes on
        return "its scheduler cannot read the call: install the same loadbench where the scheduler runs"
    return f"{type(error).__name__}: {error}"
