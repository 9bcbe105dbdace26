"""Levels: warm-up, steady window, stop rules, drain. On any anyio backend, so that tests run on a virtual clock.

A level's requests start either when a slot comes free (closed loop) or when they are due (open loop). Warm-up hands
over without a drain: the first requests are marked and the load goes on, else the start burst would own TTFT's tail.

load.py       what all levels have in common; one client's share of a level
process.py    its process: the event loop, the collector of garbage, threads
loop.py       one level: who starts next, and what becomes of each Result
pacer.py      when requests start
progress.py   when a level ends, how it goes, what run.json says of it
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence

import anyio
import numpy as np

from loadbench.client import Client
from loadbench.engine.load import WHOLE, Load, Settings, Share
from loadbench.engine.loop import LevelRun
from loadbench.engine.progress import FAILURES_IN_A_ROW, MAX_STREAMS, Limits, Progress, facts
from loadbench.prompts import UNKNOWN, Line, Prompt, written
from loadbench.store.record import Result
from loadbench.telemetry import CoreWait, Waited

__all__ = [
    "FAILURES_IN_A_ROW",
    "MAX_STREAMS",
    "TICK_S",
    "Engine",
    "Limits",
    "Progress",
    "Settings",
    "Share",
    "facts",
]

TICK_S = 0.5


class Engine:
    """Runs levels, one after the other, against one client.

    Args:
        share: Of each level, what this engine makes; limits given to `run` are the whole level's.
        on_tick: Awaited about twice a second while a level runs: flushes records, draws.
        now_ns: The monotonic clock of all marks.
        cpu_s: CPU seconds of this process.
        waited: How long it waited for a core, cumulative; None where nobody counts that.
    """

    def __init__(
        self,
        client: Client,
        prompts: Sequence[Prompt],
        settings: Settings,
        *,
        share: Share = WHOLE,
        on_result: Callable[[Result], None],
        on_tick: Callable[[Progress], Awaitable[None]],
        now_ns: Callable[[], int] = time.perf_counter_ns,
        cpu_s: Callable[[], float] = time.process_time,
        waited: Callable[[], Waited | None] | None = None,
    ) -> None:
        self._load = Load(client, settings, prompts, on_result, now_ns, settings.salt, share)
        self._client, self._now_ns, self._on_tick, self._cpu_s = client, now_ns, on_tick, cpu_s
        self._waited = CoreWait() if waited is None else waited
        self._began_waiting: tuple[int, Waited | None] = 0, None  # when, in ns of `now_ns`, and how long by then
        self._waited_before: Waited | None = None  # at the last tick
        self.asks(prompts)

    @property
    def gone(self) -> None:
        """It makes load as long as this process lives."""

    def asks(self, prompts: Sequence[Prompt], line: Line = UNKNOWN) -> None:
        """What the next levels ask: each in the same order, by `seed` and repeat; those of a trace in its own.

        Args:
            prompts: Those that are to be made up are made up now, those of a trace right before they are due.
        """
        if all(prompt.at_s is None for prompt in prompts):
            prompts = [written(prompt, line) for prompt in prompts]
        self._load.prompts, self._load.line = prompts, line

    def stop(self) -> None:
        """Start no further request; those in flight run to their end."""
        self._load.stopping = True
        self._wake()

    def end_level(self, progress: Progress) -> None:
        """The same of this level alone."""
        progress.enough = True
        self._wake()

    def _wake(self) -> None:
        for scope in list(self._load.waiting):
            scope.cancel()  # the next request may be due in minutes

    async def run(self, progress: Progress, begins: Callable[[], Awaitable[int]] | None = None) -> None:
        """Run one level to its end, drain included; `progress` tells how it goes.

        Cancellation ends the requests in flight at once; their Results are handed to `on_result` all the same.

        Args:
            begins: Awaited once connections are open; when the level begins, in ns of `now_ns`. Unset, it does then.
        """
        level, share = progress.level, self._load.share
        limits = share.limits(progress.limits)
        if level.concurrency is not None:
            streams = share.part(level.concurrency)
        else:
            streams = min(limits.warmup, limits.max_streams)
        await self._client.warm(streams)
        self._client.take_lags_ns()
        progress.round_trip_ns = self._client.round_trip_ns()
        if level.concurrency is not None and (pause := self._load.settings.pause) is not None:
            progress.think_time_s = pause.mean_s
        self._load.salt += 1
        loop = LevelRun(self._load, progress)
        progress.began_ns = self._now_ns() if begins is None else await begins()
        cpu_s, self._waited_before = self._cpu_s(), self._waited()
        self._began_waiting = self._now_ns(), self._waited_before  # a share may begin later
        try:
            over = anyio.Event()
            async with anyio.create_task_group() as ticker:
                ticker.start_soon(self._tick, progress, over)
                if level.concurrency is not None:
                    await loop.closed_loop(level.concurrency)
                else:
                    await loop.open_loop(level)
                over.set()  # a cancelled task stays in a circle with all it knows, 1 MB of histograms
        finally:
            self._count(progress)
            progress.ended_ns, progress.client_cpu_s = self._now_ns(), self._cpu_s() - cpu_s

    async def _tick(self, progress: Progress, over: anyio.Event) -> None:
        while True:
            with anyio.move_on_after(TICK_S):
                await over.wait()
                return
            self._count(progress)
            await self._on_tick(progress)

    def _count(self, progress: Progress) -> None:
        """What is counted now and then: what was measured, into its histograms; the wait for a core."""
        progress.count()
        if lags := self._client.take_lags_ns():
            progress.histograms["client_lag"].record_many(np.array(lags, np.int64) // 1000)
        (from_ns, first), last, now = self._began_waiting, self._waited_before, self._waited()
        lasted_ns = self._now_ns() - from_ns
        if first is not None and now is not None and lasted_ns > 0:
            progress.client_wait_share = (now.ns - first.ns) / lasted_ns
        if last is not None and now is not None and now.turns > last.turns:
            # The kernel counts no single wait: each since the last tick is as long as all of them are in the mean.
            turns = now.turns - last.turns
            each_us = round((now.ns - last.ns) / turns / 1e3)
            progress.histograms["client_wait"].record_many(np.full(turns, max(each_us, 0)))
        self._waited_before = now
