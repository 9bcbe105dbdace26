"""A level cut into shares that run elsewhere: in processes of this machine, or on the workers of a Dask cluster.

All that is asked of a worker goes through an executor (`concurrent.futures.Executor`) with short calls: begin a share,
report, stop. So one that hangs is noticed as one that died is, and no worker needs to reach this process.

processes.py  workers that are processes here
cluster.py    workers of a Dask cluster
pool.py       what both are; who the workers are, and whether they fit
place.py      one worker: its calls, its clock
order.py      what a worker is told, and what it says
worker.py     what runs in a worker
merge.py      shares put together
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import anyio

from loadbench.client.route import Route
from loadbench.engine import TICK_S, Progress, Settings, Share
from loadbench.errors import LoadbenchError
from loadbench.prompts import UNKNOWN, Line, Prompt
from loadbench.record import Result
from loadbench.runner.spread import merge, order, worker
from loadbench.runner.spread.merge import Part
from loadbench.runner.spread.order import Order
from loadbench.runner.spread.place import MOST_UNCERTAIN_NS, Clock, Lost, Place
from loadbench.runner.spread.pool import Pool, greet
from loadbench.runner.spread.processes import Processes

__all__ = ["Pool", "Processes", "Spread", "greet"]

ASK_S = 0.25
"""Between two calls for a share's reports."""
HEAD_START_S = 0.2
"""From the last worker's word that it is ready to the start, beside the time that calls take."""
CONNECT_LIMIT_S = 120.0
CUT_S = 3.0


class Spread:
    """Runs levels as `engine.Engine` does, each cut into as many shares as there are workers.

    Args:
        pool: The workers.
        route: To the target, for each of them.
        note: Told what a person should know.
    """

    def __init__(
        self,
        pool: Pool,
        route: Route,
        note: Callable[[str], None],
        prompts: Sequence[Prompt],
        settings: Settings,
        *,
        on_result: Callable[[Result], None],
        on_tick: Callable[[Progress], Awaitable[None]],
    ) -> None:
        self._pool, self._route, self._note = pool, route, note
        self._prompts, self._line, self._settings = prompts, UNKNOWN, settings
        self._on_result, self._on_tick = on_result, on_tick
        self._stopping = False
        self._hurry = asyncio.Event()
        self._salt = settings.salt

    @property
    def gone(self) -> str | None:
        """Why no worker is left."""
        return self._pool.gone

    def asks(self, prompts: Sequence[Prompt], line: Line = UNKNOWN) -> None:
        """What the next levels ask."""
        self._prompts, self._line = prompts, line

    def stop(self) -> None:
        """Start no further request; those in flight run to their end."""
        self._stopping = True
        self._hurry.set()

    def end_level(self, progress: Progress) -> None:
        """Start no further request of this level; those in flight run to their end."""
        progress.enough = True
        self._hurry.set()

    async def run(self, progress: Progress) -> None:
        """Run one level to its end, drain included; shares that are lost are told in `progress`.

        Cancellation ends the requests in flight on all workers.
        """
        self._hurry.clear()
        for told in await self._pool.renew():
            self._note(told)
        parts = await self._cut(progress)
        progress.began_ns = time.perf_counter_ns()
        try:
            await self._together(parts, progress)
            async with anyio.create_task_group() as ticker:
                ticker.start_soon(self._tick, parts, progress)
                await self._all(parts, progress, lambda part: self._follow(part, progress))
                ticker.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await self._all(parts, progress, lambda part: self._cut_short(part, progress))
            progress.ended_ns = max(progress.began_ns, time.perf_counter_ns())
            merge.into(progress, parts)
            progress.workers = [merge.figures(part, progress) for part in parts]
            progress.incomplete = merge.missing(parts, progress) or progress.incomplete

    async def _cut(self, progress: Progress) -> list[Part]:
        """The level in shares, each with its place; a worker whose clock cannot be used gets none."""
        level, limits = progress.level, progress.limits
        clocks = await asyncio.gather(*(_clock(place) for place in self._pool.places))
        usable, without = [], []
        for place, clock in zip(self._pool.places, clocks, strict=True):
            if clock is not None and clock.uncertain_ns <= MOST_UNCERTAIN_NS:
                usable.append((place, clock))
            else:
                why = place.lost or "its clock is not known well enough: calls to it take too long"
                without.append(f"without worker {place.told}: {why}")
                self._note(f"{level.id}: {without[-1]}")
        if not usable:
            progress.incomplete = f"no worker could take a share ({'; '.join(without)}): --resume measures it"
        most = [limits.max_streams if level.concurrency is None else level.concurrency, limits.requests]
        of = min(len(usable), *(one for one in most if one is not None))
        return [
            Part(place, Share(index, of), clock, f"{level.id}/{progress.attempt}/{uuid.uuid4()}")
            for index, (place, clock) in enumerate(usable[:of])
        ]

    async def _together(self, parts: Sequence[Part], progress: Progress) -> None:
        """Open all connections, then agree on a start."""
        self._salt += 1
        await self._all(parts, progress, lambda part: self._ready(part, parts, progress))
        longest_ns = max((part.clock.uncertain_ns for part in parts), default=0)
        progress.began_ns = time.perf_counter_ns() + round(HEAD_START_S * 1e9) + 4 * longest_ns
        await self._all(
            parts,
            progress,
            lambda part: part.place.call(worker.go, part.order_id, progress.began_ns + part.clock.offset_ns),
        )

    async def _ready(self, part: Part, parts: Sequence[Part], progress: Progress) -> None:
        settings, level = replace(self._settings, salt=self._salt), progress.level
        told = (self._route, self._prompts, self._line, settings, part.share, level, progress.attempt, progress.limits)
        await part.place.call(worker.begin, Order(part.order_id, *told))
        async with asyncio.timeout(CONNECT_LIMIT_S):
            while not part.started:
                await self._ask(part, "stop" if self._stopping else "")
                await asyncio.sleep(0.02)
        while not all(one.started or one.ended for one in parts):  # who is not asked ends by itself
            await asyncio.sleep(ASK_S)
            await self._ask(part, "stop" if self._stopping else "")

    async def _follow(self, part: Part, progress: Progress) -> None:
        """Ask for reports until the share is over."""
        while not part.ended:
            if not (self._stopping or progress.enough):
                with anyio.move_on_after(ASK_S):
                    await self._hurry.wait()
            else:
                await asyncio.sleep(ASK_S / 5)
            await self._ask(part, "stop" if self._stopping or progress.enough else "")

    async def _cut_short(self, part: Part, progress: Progress) -> None:
        """Where the level was ended from outside: what is in flight ends, and its records are fetched."""
        if part.ended:
            return
        with anyio.move_on_after(CUT_S), contextlib.suppress(LoadbenchError):
            while not part.ended:
                await self._ask(part, "cut")
                await asyncio.sleep(0.02)
        if not part.ended:  # its last report still counts what was in flight
            part.lose(part.place.lost or "it did not end when it was told to", progress)

    async def _ask(self, part: Part, ending: str) -> None:
        for said in order.read(await part.place.call(worker.report, part.order_id, part.seen, ending)):
            part.histograms = order.histograms(said)
            part.last, part.seen = said, part.seen + 1
            for result in said.records:
                self._on_result(result)
            if said.error is not None:
                raise Lost(said.error)

    async def _all(self, parts: Sequence[Part], progress: Progress, work: Callable[[Part], Awaitable[None]]) -> None:
        """Do it at all places at once; where it fails the share is lost."""

        async def one(part: Part) -> None:
            try:
                await work(part)
            except (TimeoutError, LoadbenchError) as error:
                part.lose(str(error) or "it did not open its connections in time", progress)
                self._note(f"{progress.level.id}: worker {part.place.told} was lost: {part.lost}")

        async with anyio.create_task_group() as group:
            for part in parts:
                if part.lost is None:
                    group.start_soon(one, part)

    async def _tick(self, parts: Sequence[Part], progress: Progress) -> None:
        while True:
            await anyio.sleep(TICK_S)
            merge.into(progress, parts)
            await self._on_tick(progress)


async def _clock(place: Place) -> Clock | None:
    try:
        return await place.clock()
    except Lost:
        return None
