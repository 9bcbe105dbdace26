"""Levels: warm-up, steady window, stop rules, drain. On any anyio backend, so that tests run on a virtual clock.

A level's requests start either when a slot comes free (closed loop) or when they are due (open loop). Warm-up hands
over without a drain: the first requests are marked and the load goes on, else the start burst would own TTFT's tail.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import anyio
import numpy as np

from loadbench import pacer
from loadbench.client import Ask
from loadbench.histogram import Histogram
from loadbench.prompts import Prompt, distinct, order
from loadbench.result import Result
from loadbench.scenario import Level

FAILURES_IN_A_ROW = 50
"""A level ends when this many requests in a row failed in a way that says the model is gone, not slow."""
_UNREACHABLE = ("dns", "connect", "tls", "timeout_connect")
_FINAL = ("cancelled", "http_4xx", "redirect", "local")
"""Failures that asking again does not mend."""
TICK_S = 0.5
MAX_STREAMS = 1024


class Chats(Protocol):
    """What the engine needs of a client; `client.Client` is one."""

    async def warm(self, connections: int) -> None: ...
    async def chat(self, ask: Ask, origin_ns: int, done: Callable[[Result], None], *, keep: bool = True) -> None: ...
    def text_events_in_flight(self) -> int: ...
    def take_lags_ns(self) -> list[int]: ...
    def round_trip_ns(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """When a level ends: whichever of the two comes first.

    Attributes:
        requests: Measured requests; None leaves it to the duration.
        duration_s: From the first measured request on; None leaves it to the requests.
        warmup: Requests before the measurement.
        max_streams: Most requests in flight in open loop; what is due beyond it is dropped and counted.
    """

    requests: int | None
    duration_s: float | None
    warmup: int
    max_streams: int = MAX_STREAMS


@dataclass(slots=True)
class Progress:
    """A level while it runs: what a live view shows. Histograms are in us, of measured and completed requests."""

    level: Level
    attempt: int
    limits: Limits
    began_ns: int = 0
    ended_ns: int = 0
    client_cpu_s: float = 0.0
    round_trip_ns: int | None = None
    phase: str = "warming up"
    in_flight: int = 0
    issued: int = 0  # measured requests
    ended: int = 0  # measured requests
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    dropped: int = 0
    retried: int = 0  # measured requests that ask again what failed; of the issued and dropped
    warmup_requests: int = 0
    text_events: int = 0  # of ended requests, warm-up among them; of whole answers the tokens that the server counted
    errors: Counter[str] = field(default_factory=Counter)  # of the failed
    last_error: str | None = None
    gone: int = 0  # failures in a row that say the model is gone
    enough: bool = False  # what was to be found out is: nothing more starts (`Engine.end_level`)
    measured_from_ns: int | None = None
    full_ns: int | None = None
    last_issue_ns: int | None = None
    histograms: dict[str, Histogram] = field(
        default_factory=lambda: {name: Histogram() for name in ("ttft", "itl", "tpot", "e2e", "client_lag")}
    )


class Engine:
    """Runs levels, one after the other, against one client.

    Args:
        client: Sends the requests.
        prompts: What is asked; each level asks them in the same order, by `seed` and repeat.
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
        retries: int = 0,
        retry_backoff_s: float = 1.0,
        streamed: bool = True,
        on_result: Callable[[Result], None],
        on_tick: Callable[[Progress], Awaitable[None]],
        salt: int = 0,
        now_ns: Callable[[], int] = time.perf_counter_ns,
        cpu_s: Callable[[], float] = time.process_time,
    ) -> None:
        self._client, self._prompts, self._seed = client, prompts, seed
        self._arrivals, self._distinct = arrivals, distinct_prompts
        self._on_result, self._on_tick, self._now_ns = on_result, on_tick, now_ns
        self._retries, self._retry_backoff_s, self._streamed = retries, retry_backoff_s, streamed
        self._salt, self._cpu_s = salt, cpu_s
        self.stopping = False
        self._waiting: set[anyio.CancelScope] = set()

    def stop(self) -> None:
        """Start no further request; those in flight run to their end."""
        self.stopping = True
        self._wake()

    def end_level(self, progress: Progress) -> None:
        """Start no further request of this level; those in flight run to their end."""
        progress.enough = True
        self._wake()

    def _wake(self) -> None:
        for scope in list(self._waiting):
            scope.cancel()  # the next request may be due in minutes

    async def run(self, progress: Progress) -> None:
        """Run one level to its end, drain included; `progress` tells how it goes.

        Cancellation ends the requests in flight at once; their Results are handed to `on_result` all the same.
        """
        level, limits = progress.level, progress.limits
        await self._client.warm(min(level.concurrency or limits.warmup, limits.max_streams))
        self._client.take_lags_ns()
        progress.round_trip_ns = self._client.round_trip_ns()
        loop = _LevelRun(self, progress)
        progress.began_ns, cpu_s = self._now_ns(), self._cpu_s()
        try:
            async with anyio.create_task_group() as ticker:
                ticker.start_soon(self._tick, progress)
                if level.concurrency is not None:
                    await loop.closed_loop(level.concurrency)
                else:
                    await loop.open_loop(level.request_rate_per_s or 1.0)
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


class _LevelRun:
    """One level's loop: who starts next, and what becomes of each Result."""

    def __init__(self, engine: Engine, progress: Progress) -> None:
        self._engine, self._progress = engine, progress
        self._now_ns = engine._now_ns
        level = progress.level
        self._next_prompt: Iterator[Prompt] = order(engine._prompts, engine._seed + level.repeat - 1)
        self._number = 0
        engine._salt += 1

    async def closed_loop(self, concurrency: int) -> None:
        async with anyio.create_task_group() as slots:
            for offset_ns in pacer.start_offsets_ns(concurrency):
                slots.start_soon(self._slot, offset_ns)

    async def _slot(self, offset_ns: int) -> None:
        await self._sleep_until(self._progress.began_ns + offset_ns)
        while not self._over(self._now_ns()):
            await self._send(self._ask(self._now_ns()))

    async def open_loop(self, rate_per_s: float) -> None:
        engine, progress = self._engine, self._progress
        rng = np.random.default_rng([engine._seed, progress.level.repeat])
        starts = pacer.poisson(rate_per_s, rng) if engine._arrivals == "poisson" else pacer.constant(rate_per_s)
        async with anyio.create_task_group() as requests:
            for start_ns in starts:
                due_ns = progress.began_ns + start_ns
                await self._wait_until(due_ns)
                if self._over(due_ns):  # what is due is offered, however late this process is
                    break
                if self._full():
                    self._drop(due_ns)
                else:
                    requests.start_soon(self._send, self._ask(due_ns))
            progress.phase = "draining"

    def _past_deadline(self, at_ns: int) -> bool:
        progress = self._progress
        limit = progress.limits.duration_s
        if limit is None or progress.measured_from_ns is None:
            return False
        return at_ns - progress.measured_from_ns >= limit * 1e9

    def _over(self, at_ns: int) -> bool:
        """Whether a request of this time, and any later one, is not to start. Retries come on top of the number."""
        progress, limits = self._progress, self._progress.limits
        asked = progress.issued + progress.dropped - progress.retried
        if self._ended(at_ns) or (limits.requests is not None and asked >= limits.requests):
            progress.phase = "draining"
            return True
        return False

    def _ended(self, at_ns: int) -> bool:
        """Whether nothing of this time is to start, a retry neither."""
        progress = self._progress
        ended = self._engine.stopping or progress.enough or progress.gone >= FAILURES_IN_A_ROW
        return ended or self._past_deadline(at_ns)

    def _full(self) -> bool:
        """Open loop: whether a request more would go beyond the cap of streams."""
        progress = self._progress
        return progress.level.concurrency is None and progress.in_flight >= progress.limits.max_streams

    def _is_warmup(self) -> bool:
        return self._number < self._progress.limits.warmup

    def _drop(self, due_ns: int) -> None:
        warmup = self._is_warmup()
        self._number += 1
        if not warmup:
            self._measure(due_ns)
            self._progress.dropped += 1
            self._progress.last_issue_ns = due_ns

    def _measure(self, due_ns: int) -> None:
        progress = self._progress
        if progress.measured_from_ns is None:
            progress.measured_from_ns, progress.phase = due_ns, "measuring"

    def _ask(self, due_ns: int, failed: Ask | None = None) -> Ask:
        """The next request, numbered and counted as in flight: with the next prompt, or that of one that failed."""
        engine, progress = self._engine, self._progress
        number, warmup = self._number, failed is None and self._is_warmup()
        self._number += 1
        if failed is not None:
            prompt, progress.retried = failed.prompt, progress.retried + 1
        else:
            prompt = next(self._next_prompt)
            if engine._distinct:
                prompt = distinct(prompt, engine._salt * 1_000_000_007 + number)
        if warmup:
            progress.warmup_requests += 1
        else:
            self._measure(due_ns)
            progress.issued += 1
            progress.last_issue_ns = due_ns
        progress.in_flight += 1
        if progress.full_ns is None and progress.in_flight == progress.level.concurrency:
            progress.full_ns = self._now_ns()
        retry_of = None if failed is None else failed.request
        return Ask(progress.level.id, progress.attempt, number, progress.level.model, prompt, warmup, due_ns, retry_of)

    async def _send(self, ask: Ask) -> None:
        """A request, and the retries that its failure brings, each in the same slot or stream."""
        backoff_s = self._engine._retry_backoff_s
        error = await self._chat(ask)
        for tried in range(self._engine._retries):
            if ask.warmup or error is None or error in _FINAL:
                return
            due_ns = self._now_ns() + round(backoff_s * 2**tried * 1e9)
            await self._wait_until(due_ns)
            if self._ended(due_ns):
                return
            if self._full():
                self._progress.retried += 1
                self._drop(due_ns)
                return
            ask = self._ask(due_ns, failed=ask)
            error = await self._chat(ask)

    async def _chat(self, ask: Ask) -> str | None:
        """The request alone; what failed, if anything did."""
        engine, progress = self._engine, self._progress
        results: list[Result] = []
        try:
            await engine._client.chat(ask, progress.began_ns, results.append, keep=not engine._distinct)
        finally:
            progress.in_flight -= 1
            for result in results:
                self._done(result)
        return results[0].error

    def _done(self, result: Result) -> None:
        progress = self._progress
        progress.text_events += result.text_events if self._engine._streamed else result.output_tokens or 0
        if result.error == "cancelled":
            progress.cancelled += not result.warmup
        elif result.error is not None:
            if not result.warmup:
                progress.failed += 1
                progress.errors[result.error] += 1
                self._count_towards_gone(result.error)
            progress.last_error = f"{result.error}: {result.error_message}"
        else:
            progress.completed += not result.warmup
            progress.gone = 0
        progress.ended += not result.warmup
        if not result.warmup and result.error is None:
            _record(progress.histograms, result, streamed=self._engine._streamed)
        self._engine._on_result(result)

    def _count_towards_gone(self, error: str) -> None:
        """A refused connection is dealt with in 0.1 ms: without an end, a server that died fills the disk."""
        progress = self._progress
        if error in _UNREACHABLE or (progress.completed == 0 and error != "http_429"):
            progress.gone += 1
        elif error != "http_429":
            progress.gone = 0  # an answer all the same; 429 says neither: a full server refuses in 1 ms

    async def _wait_until(self, at_ns: int) -> None:
        """Sleep, unless the run is stopped."""
        scope = anyio.CancelScope()
        self._engine._waiting.add(scope)
        try:
            with scope:
                await self._sleep_until(at_ns)
        finally:
            self._engine._waiting.discard(scope)

    async def _sleep_until(self, at_ns: int) -> None:
        await anyio.sleep(max(0, at_ns - self._now_ns()) / 1e9)


def _record(histograms: dict[str, Histogram], result: Result, *, streamed: bool) -> None:
    """A completed request into the level's histograms, in us; METRICS.md §3 has the formulas."""
    if result.sent_ns is None or result.first_token_ns is None or result.last_token_ns is None:
        return
    histograms["e2e"].record((result.last_token_ns - result.due_ns + 500) // 1000)
    if not streamed:
        return
    histograms["ttft"].record((result.first_token_ns - result.sent_ns + 500) // 1000)
    histograms["itl"].record_many(result.gaps_us)
    tokens = result.output_tokens if result.output_tokens is not None else result.text_events
    first = result.first_tokens or tokens * result.first_events / result.text_events
    span_ns = result.last_token_ns - result.first_token_ns
    if tokens > first and span_ns > 0:
        histograms["tpot"].record(math.floor(span_ns / (tokens - first) / 1e3 + 0.5))


def facts(progress: Progress, *, stopped: bool) -> dict[str, Any]:
    """What run.json says of a level that is over. Times in ns count from its beginning."""
    lag = progress.histograms["client_lag"]

    def since(at_ns: int | None) -> int | None:
        return None if at_ns is None else at_ns - progress.began_ns

    reason = None
    status = "complete"
    if stopped:
        status, reason = "interrupted", "stopped before it was whole"
    elif progress.completed == 0:
        status, reason = "failed", f"no request completed; the last one: {progress.last_error}"
    elif progress.gone >= FAILURES_IN_A_ROW:
        status, reason = "failed", f"the server went away in mid-level; the last request: {progress.last_error}"
    return {
        "status": status,
        "reason": reason,
        "duration_s": round((progress.ended_ns - progress.began_ns) / 1e9, 6),
        "measured_from_ns": since(progress.measured_from_ns),
        "full_ns": since(progress.full_ns),
        "last_issue_ns": since(progress.last_issue_ns),
        "offered": progress.issued + progress.dropped,
        "dropped": progress.dropped,
        "warmup_requests": progress.warmup_requests,
        "requests_planned": progress.limits.requests,
        "duration_planned_s": progress.limits.duration_s,
        "round_trip_ms": None if progress.round_trip_ns is None else round(progress.round_trip_ns / 1e6, 3),
        "client_cpu_s": round(progress.client_cpu_s, 3),
        "client_lag_us": None
        if lag.percentile(0.5) is None
        else {
            "n": lag.count,
            "p50": lag.percentile(0.5),
            "p99": lag.percentile(0.99),
            "p999": lag.percentile(0.999),
            "max": lag.max,
        },
    }
