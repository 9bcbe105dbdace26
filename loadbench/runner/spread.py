"""A level cut into shares that run elsewhere: in processes of this machine, or on the workers of a Dask cluster.

Whatever a worker is to do it does by short calls through an executor (`concurrent.futures.Executor`): begin a share,
report, stop. So one that hangs is noticed as one that died is, and no worker needs to reach this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from loadbench.client import Route
from loadbench.engine import TICK_S, Progress, Settings, Share
from loadbench.engine.progress import rounded
from loadbench.errors import LoadbenchError, UsageError
from loadbench.prompts import UNKNOWN, Line, Prompt
from loadbench.runner import pool as pools
from loadbench.runner import worker
from loadbench.runner.job import Sharing
from loadbench.runner.pool import MOST_UNCERTAIN_NS, Clock, Lost, Place, Pool, Processes, greet
from loadbench.runner.worker import COUNTS, Order, Report
from loadbench.store.histogram import Histogram
from loadbench.store.record import Result

ASK_S = 0.25  # between two calls for a share's reports
HEAD_START_S = 0.2  # from the last worker's word that it is ready to the start, beside the time that calls take
CONNECT_LIMIT_S = 120.0
CUT_S = 3.0


class Spread:
    """Runs levels as `engine.Engine` does, each cut into as many shares as there are workers."""

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
        """Run one level to its end, drain included; `progress` names the shares that are lost.

        Cancellation ends the requests in flight on all workers.
        """
        self._hurry.clear()
        for text in await self._pool.renew():
            self._note(text)
        parts = await self._cut(progress)
        progress.began_ns = time.perf_counter_ns()
        try:
            await self._begin_together(parts, progress)
            async with anyio.create_task_group() as ticker:
                ticker.start_soon(self._tick, parts, progress)
                await self._all(parts, progress, lambda part: self._follow(part, progress))
                ticker.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await self._all(parts, progress, lambda part: self._cut_short(part, progress))
            progress.ended_ns = max(progress.began_ns, time.perf_counter_ns())
            merge_into(progress, parts)
            progress.workers = [worker_figures(part, progress) for part in parts]
            progress.incomplete = missing_shares(parts, progress) or progress.incomplete

    async def _cut(self, progress: Progress) -> list[Part]:
        """The level in shares, each with its place; a worker whose clock cannot be used gets none."""
        level, limits = progress.level, progress.limits
        clocks = await asyncio.gather(*(place.clock() for place in self._pool.places), return_exceptions=True)
        usable, without = [], []
        for place, clock in zip(self._pool.places, clocks, strict=True):
            if isinstance(clock, Clock) and clock.uncertain_ns <= MOST_UNCERTAIN_NS:
                usable.append((place, clock))
            else:
                why = place.lost or "its clock is not known well enough: calls to it take too long"
                without.append(f"without worker {place}: {why}")
                self._note(f"{level.id}: {without[-1]}")
        if not usable:
            progress.incomplete = f"no worker could take a share ({'; '.join(without)}): --resume measures it"
        of = min(len(usable), level.concurrency or limits.max_streams)
        if limits.requests is not None:
            of = min(of, limits.requests)
        parts = []
        for index, (place, clock) in enumerate(usable[:of]):
            order_id = f"{level.id}/{progress.attempt}/{uuid.uuid4()}"
            parts.append(Part(place, Share(index, of), clock, order_id))
        return parts

    async def _begin_together(self, parts: Sequence[Part], progress: Progress) -> None:
        """Open all connections, then agree on a start."""
        self._salt += 1
        await self._all(parts, progress, lambda part: self._ready(part, parts, progress))
        longest_ns = max((part.clock.uncertain_ns for part in parts), default=0)
        progress.began_ns = time.perf_counter_ns() + round(HEAD_START_S * 1e9) + 4 * longest_ns

        async def go(part: Part) -> None:
            await part.place.call(worker.go, part.order_id, progress.began_ns + part.clock.offset_ns)

        await self._all(parts, progress, go)

    def _ending(self, progress: Progress) -> str:
        """The reply to each call of a share: `stop` where no further request may start."""
        return "stop" if self._stopping or progress.enough else ""

    async def _ready(self, part: Part, parts: Sequence[Part], progress: Progress) -> None:
        order = Order(
            part.order_id,
            self._route,
            self._prompts,
            self._line,
            replace(self._settings, salt=self._salt),
            part.share,
            progress.level,
            progress.attempt,
            progress.limits,
        )
        await part.place.call(worker.begin, order)
        async with asyncio.timeout(CONNECT_LIMIT_S):
            while not part.started:
                await self._fetch(part, self._ending(progress))
                await asyncio.sleep(0.02)
        while not all(one.started or one.ended for one in parts):  # a share that gets no calls ends by itself
            await asyncio.sleep(ASK_S)
            await self._fetch(part, self._ending(progress))

    async def _follow(self, part: Part, progress: Progress) -> None:
        """Fetch reports until the share is over."""
        while not part.ended:
            if not (self._stopping or progress.enough):
                with anyio.move_on_after(ASK_S):
                    await self._hurry.wait()
            else:
                await asyncio.sleep(ASK_S / 5)
            await self._fetch(part, self._ending(progress))

    async def _cut_short(self, part: Part, progress: Progress) -> None:
        """Where the level was ended from outside: what is in flight ends, and its records are fetched."""
        if part.ended:
            return
        with anyio.move_on_after(CUT_S), contextlib.suppress(LoadbenchError):
            while not part.ended:
                await self._fetch(part, "cut")
                await asyncio.sleep(0.02)
        if not part.ended:  # its last report still counts what was in flight
            part.lose(part.place.lost or "it did not end when it was told to", progress)

    async def _fetch(self, part: Part, ending: str) -> None:
        message = await part.place.call(worker.report, part.order_id, part.seen, ending)
        for report in worker.read_reports(message):
            part.last, part.seen = report, part.seen + 1
            for result in report.records:
                self._on_result(result)
            if report.error is not None:
                raise Lost(report.error)

    async def _all(self, parts: Sequence[Part], progress: Progress, work: Callable[[Part], Awaitable[None]]) -> None:
        """Do it at all places at once; where it fails the share is lost."""

        async def one(part: Part) -> None:
            try:
                await work(part)
            except (TimeoutError, LoadbenchError) as error:
                part.lose(str(error) or "it did not open its connections in time", progress)
                self._note(f"{progress.level.id}: worker {part.place} was lost: {part.lost}")

        async with anyio.create_task_group() as group:
            for part in parts:
                if part.lost is None:
                    group.start_soon(one, part)

    async def _tick(self, parts: Sequence[Part], progress: Progress) -> None:
        while True:
            await anyio.sleep(TICK_S)
            merge_into(progress, parts)
            await self._on_tick(progress)


# -- shares put together


@dataclass(slots=True)
class Part:
    """A share at its place, as far as is known."""

    place: Place
    share: Share
    clock: Clock
    order_id: str
    seen: int = 0  # how many reports came; `last` is the last one
    last: Report = field(default_factory=lambda: Report("connecting"))
    lost: str | None = None  # why nothing more will come of it; None while all is well
    lost_ns: int | None = None  # when that was noticed, in ns since the level began

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.lost is not None or self.last.state == "over"

    @property
    def started(self) -> bool:
        """Whether its connections are open."""
        return self.last.state != "connecting"

    def count(self, name: str) -> int:
        """Of the last report; of a lost share what is known to have ended: the rest has no record."""
        if self.lost is not None and name == "issued":
            return self.last.ended
        if self.lost is not None and name == "in_flight":
            return 0
        count: int = getattr(self.last, name)
        return count

    def lose(self, why: str, progress: Progress) -> None:
        """Nothing more will come of it, as is noticed now."""
        self.lost, self.lost_ns = why, max(0, time.perf_counter_ns() - progress.began_ns)


T = TypeVar("T", int, float)


def _known(parts: Sequence[Part], figure: Callable[[Report], T | None]) -> list[T]:
    """What the shares' last reports say, without those that say nothing of it."""
    return [value for part in parts if (value := figure(part.last)) is not None]


def merge_into(progress: Progress, parts: Sequence[Part]) -> None:
    """Put the shares' last reports into a level's progress."""
    progress.errors, progress.last_error, progress.client_cpu_s = Counter(), None, 0.0
    for part in parts:
        progress.errors += Counter(part.last.errors)
        progress.last_error = progress.last_error or part.last.last_error
        progress.client_cpu_s += part.last.cpu_s
    for name in COUNTS:
        setattr(progress, name, sum(part.count(name) for part in parts))
    alive = [part.last for part in parts if part.lost is None]
    progress.gone = min((one.gone for one in alive), default=0)
    progress.think_time_s = next(iter(_known(parts, lambda report: report.think_time_s)), None)
    progress.round_trip_ns = max(_known(parts, lambda report: report.round_trip_ns), default=None)
    progress.client_wait_share = max(_known(parts, lambda report: report.client_wait_share), default=None)
    # The level is whole from the time its last share is, until its first one makes no more requests. In open loop it
    # lasts to its last request: the shares' starts lie between each other.
    progress.measured_from_ns = progress.full_ns = progress.last_issue_ns = None
    if measured_ns := _known(parts, lambda report: report.measured_from_ns):
        progress.measured_from_ns = progress.began_ns + min(measured_ns)
    full_ns = _known(parts, lambda report: report.full_ns)
    if full_ns and len(full_ns) == len(parts):
        progress.full_ns = progress.began_ns + max(full_ns)
    if issued_ns := _known(parts, lambda report: report.last_issue_ns):
        last_ns = min(issued_ns)
        if progress.level.concurrency is None and len(alive) == len(parts):
            last_ns = max(issued_ns)
        progress.last_issue_ns = progress.began_ns + last_ns
    # As long as one warms up the load is not whole; as soon as one drains it is not any more.
    phases = {one.phase for one in alive}
    for phase in ("warming up", "draining", "measuring"):
        if phase in phases:
            progress.phase = phase
            break
    for name in progress.histograms:
        merged = Histogram()
        for part in parts:
            if name in part.last.histograms:
                merged.merge(part.last.histograms[name])
        progress.histograms[name] = merged


def worker_figures(part: Part, progress: Progress) -> dict[str, object]:
    """What run.json says of a worker's share."""
    place, report, share, level = part.place, part.last, part.share, progress.level

    def ms(name: str) -> dict[str, float | None]:
        histogram = report.histograms.get(name)
        if histogram is None or not histogram.count:
            return {"p50": None, "p99": None}
        # Unrounded: a histogram's values are steps already.
        return {"p50": (histogram.percentile(0.5) or 0) / 1e3, "p99": (histogram.percentile(0.99) or 0) / 1e3}

    host, pid, streams, cpu_share = None, None, None, None
    if place.hello is not None:
        host, pid = place.hello.host, place.hello.pid
    if level.concurrency is not None:
        streams = share.part(level.concurrency)
    if report.ended_ns:  # else it did not end, or did not begin
        cpu_share = round(report.cpu_s / (report.ended_ns / 1e9), 4)
    status, unknown = "complete", 0
    if part.lost is not None:
        status, unknown = "lost", report.issued - report.ended
    return {
        "name": place.name,
        "address": place.address,
        "host": host,
        "pid": pid,
        "status": status,
        "reason": part.lost,
        "lost_s": rounded(part.lost_ns, 3, per=1e9),
        "streams": streams,
        "request_rate_per_s": rounded(level.request_rate_per_s, 6, per=share.of),
        **{name: part.count(name) for name in ("issued", "completed", "failed", "cancelled", "dropped")},
        "unknown": unknown,
        "ttft_ms": ms("ttft"),
        "itl_ms": ms("itl"),
        "client_lag_ms": ms("client_lag"),
        "cpu_s": round(report.cpu_s, 3),
        "cpu_share": cpu_share,
        "wait_share": rounded(report.client_wait_share, 4),
        "round_trip_ms": rounded(report.round_trip_ns, 3, per=1e6),
        "clock_uncertain_ms": round(part.clock.uncertain_ns / 1e6, 3),
        "wall_clock_offset_ms": round(part.clock.wall_offset_ns / 1e6, 3),
        "late_ms": round(report.late_ns / 1e6, 3),
    }


def missing_shares(parts: Sequence[Part], progress: Progress) -> str | None:
    """Why a part of a level's load is missing; None where all shares ran to their ends."""
    lost = [part for part in parts if part.lost is not None]
    if not lost:
        return None
    reasons = []
    for part in lost:
        after_s = (part.lost_ns or 0) / 1e9
        reasons.append(f"worker {part.place} was lost {after_s:.1f} s into the level: {part.lost}")
    streams = progress.level.concurrency
    share = f"{len(lost)} of {len(parts)} shares of the requests"
    if streams is not None:
        share = f"{sum(part.share.part(streams) for part in lost)} of {streams} streams"
    return f"{'; '.join(reasons)}; {share} are missing from then on: --resume measures the level again"


# -- the workers of a run


def workers_of(sharing: Sharing, info: Mapping[str, Any] | None, *, local: bool) -> int | str | None:
    """How many processes, or which cluster; None for this process alone.

    Args:
        info: run.json of a run that goes on: as it began, unless the settings say otherwise.
        local: Whether the server is on this machine, and needs cores too.
    Raises:
        UsageError: Both are given.
    """
    workers, cluster = sharing.workers, sharing.cluster
    if workers is not None and cluster is not None:
        raise UsageError("--workers and --cluster are both given: keep one")
    if workers is None and cluster is None and info is not None:
        began = info.get("spread") or {}
        workers, cluster = began.get("asked_workers"), began.get("asked_cluster")
    if workers == "auto":
        from loadbench import telemetry

        cores = telemetry.cores() or 1
        workers = max(1, cores // 2) if local else cores
    if cluster is not None:
        return cluster
    return workers


@dataclass(frozen=True, slots=True)
class Workers:
    """Workers that are there."""

    pool: Pool
    drive: Callable[..., Spread]  # makes what makes a session's load

    def pids(self) -> list[int]:
        """Of those on this machine."""
        here = socket.gethostname()
        return [one.hello.pid for one in self.pool.places if one.hello is not None and one.hello.host == here]

    def facts(self, sharing: Sharing) -> dict[str, object]:
        """What run.json says of them."""
        workers = []
        for one in self.pool.places:
            if one.hello is not None:
                workers.append({"name": one.name, "address": one.address, **asdict(one.hello)})
        return {
            "kind": self.pool.kind,
            "asked_workers": sharing.workers,
            "asked_cluster": sharing.cluster,
            "workers": workers,
        }


async def begin_workers(
    workers: int | str, route: Route, note: Callable[[str], None], stack: AsyncExitStack
) -> Workers:
    """Begin the workers, and look at them; they end with the stack.

    Raises:
        LoadbenchError: Some do not answer, have another version, or do not reach the target: all are named.
    """
    pool: Pool
    if isinstance(workers, int):
        pool = Processes(workers)
    else:
        pool = await anyio.to_thread.run_sync(pools.connect, workers)
    stack.push_async_callback(pool.close)
    await greet(pool.places, route)
    return Workers(pool, partial(Spread, pool, route, note))
