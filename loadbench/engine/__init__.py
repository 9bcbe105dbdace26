"""Levels: warm-up, steady window, stop rules, drain. On any anyio backend, so that tests run on a virtual clock.

A level's requests start either when a slot comes free (closed loop) or when they are due (open loop). Warm-up hands
over without a drain: the first requests are marked and the load goes on, else the start burst would own TTFT's tail.

load.py       what all levels have in common
loop.py       one level: who starts next, and what becomes of each Result
progress.py   when a level ends, how it goes, what run.json says of it
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence

import anyio
import numpy as np

from loadbench.engine.load import Chats, Load
from loadbench.engine.loop import LevelRun
from loadbench.engine.progress import FAILURES_IN_A_ROW, MAX_STREAMS, Limits, Progress, facts
from loadbench.prompts import UNKNOWN, Line, Prompt, written
from loadbench.result import Result
from loadbench.scenario import Pause

__all__ = ["FAILURES_IN_A_ROW", "MAX_STREAMS", "TICK_S", "Chats", "Engine", "Limits", "Progress", "facts"]

TICK_S = 0.5


class Engine:
    """Runs levels, one after the other, against one client.

    Args:
        client: Sends the requests.
        prompts: What is asked, see `asks`.
        pause: Of a user between an answer and the next question, in closed loop.
        distinct_prompts: Whether each request gets a prefix of its own.
        retries: New requests after one that failed, each with its own number and marks; warm-up is not repeated.
        retry_backoff_s: From a failure to the first of them; doubles with each.
        streamed: Whether streams are asked for: of whole answers nobody sees the first token and the gaps.
        salt: Makes those prefixes differ from those of other runs.
        on_result: Called with each Result as it ends.
        on_tick: Awaited about twice a second while a level runs, and at its end: flushes records, draws.
        now_ns: The monotonic clock of all marks.
        cpu_s: CPU seconds of this process.
    """

    def __init__(
        self,
        client: Chats,
        prompts: Sequence[Prompt],
        *,
        seed: int,
        arrivals: str = "poisson",
        distinct_prompts: bool = False,
        pause: Pause | None = None,
        retries: int = 0,
        retry_backoff_s: float = 1.0,
        streamed: bool = True,
        on_result: Callable[[Result], None],
        on_tick: Callable[[Progress], Awaitable[None]],
        salt: int = 0,
        now_ns: Callable[[], int] = time.perf_counter_ns,
        cpu_s: Callable[[], float] = time.process_time,
    ) -> None:
        self._load = Load(
            client,
            prompts,
            seed,
            arrivals,
            distinct_prompts,
            pause,
            retries,
            retry_backoff_s,
            streamed,
            on_result,
            now_ns,
            salt,
        )
        self._client, self._now_ns, self._on_tick, self._cpu_s = client, now_ns, on_tick, cpu_s
        self.asks(prompts)

    def asks(self, prompts: Sequence[Prompt], line: Line = UNKNOWN) -> None:
        """What the next levels ask: each in the same order, by `seed` and repeat; those of a trace in its own.

        Args:
            prompts: Those that are to be made up are made up now, those of a trace right before they are due.
            line: How the server counts the words of these.
        """
        replays = any(prompt.at_s is not None for prompt in prompts)
        self._load.prompts = prompts if replays else [written(prompt, line) for prompt in prompts]
        self._load.line = line

    def stop(self) -> None:
        """Start no further request; those in flight run to their end."""
        self._load.stopping = True
        self._wake()

    def end_level(self, progress: Progress) -> None:
        """Start no further request of this level; those in flight run to their end."""
        progress.enough = True
        self._wake()

    def _wake(self) -> None:
        for scope in list(self._load.waiting):
            scope.cancel()  # the next request may be due in minutes

    @property
    def stopping(self) -> bool:
        """Whether it was stopped."""
        return self._load.stopping

    async def run(self, progress: Progress) -> None:
        """Run one level to its end, drain included; `progress` tells how it goes.

        Cancellation ends the requests in flight at once; their Results are handed to `on_result` all the same.
        """
        level, limits = progress.level, progress.limits
        await self._client.warm(min(level.concurrency or limits.warmup, limits.max_streams))
        self._client.take_lags_ns()
        progress.round_trip_ns = self._client.round_trip_ns()
        if level.concurrency is not None and self._load.pause is not None:
            progress.think_time_s = self._load.pause.mean_s
        self._load.salt += 1
        loop = LevelRun(self._load, progress)
        progress.began_ns, cpu_s = self._now_ns(), self._cpu_s()
        try:
            async with anyio.create_task_group() as ticker:
                ticker.start_soon(self._tick, progress)
                if level.concurrency is not None:
                    await loop.closed_loop(level.concurrency)
                else:
                    await loop.open_loop(level)
                ticker.cancel_scope.cancel()
        finally:
            self._take_lags(progress)
            progress.ended_ns, progress.client_cpu_s = self._now_ns(), self._cpu_s() - cpu_s

    async def _tick(self, progress: Progress) -> None:
        while True:
            await anyio.sleep(TICK_S)
            self._take_lags(progress)
            await self._on_tick(progress)

    def _take_lags(self, progress: Progress) -> None:
        if lags := self._client.take_lags_ns():
            progress.histograms["client_lag"].record_many(np.array(lags, np.int64) // 1000)
