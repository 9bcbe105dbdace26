"""Levels in shares for tests: a simulator, workers that are threads, and workers that fail as told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.abc import TaskGroup

from loadbench.client import Endpoint, Parameters, Route
from loadbench.engine import Limits, Progress, Settings, facts
from loadbench.prompts import DEFAULT
from loadbench.runner.pool import Place, Pool
from loadbench.runner.spread import Spread
from loadbench.scenario import Level, Timeouts
from loadbench.serve.simulator import Simulator
from loadbench.store.record import Result

TOKENS = 20


def route_to(url: str, *, tokens: int = TOKENS, connect_s: float = 5.0) -> Route:
    return Route((Endpoint(url + "/chat/completions"),), {}, Parameters(tokens, 0.0, {}), Timeouts(connect=connect_s))


def closed(concurrency: int) -> Level:
    return Level(f"m@c{concurrency}", "simulator", concurrency, None, 1)


def opened(rate_per_s: float) -> Level:
    return Level(f"m@r{rate_per_s:g}", "simulator", None, rate_per_s, 1)


@dataclass
class Threads:
    """Workers that are threads of this process: all of a pool but what processes cost."""

    places: list[Place]
    kind: str = "threads"
    gone: str | None = None
    renewed: int = 0

    @classmethod
    def of(cls, *executors: Executor) -> Threads:
        return cls([Place(f"w{number}", executor) for number, executor in enumerate(executors, start=1)])

    async def renew(self) -> list[str]:
        self.renewed += 1
        return []

    async def close(self) -> None:
        for place in self.places:
            place.executor.shutdown(wait=False, cancel_futures=True)


def threads(count: int) -> Threads:
    return Threads.of(*(ThreadPoolExecutor(1) for _ in range(count)))


class Failing(Executor):
    """A worker that goes the way it is told once `when` says so, asked with each call's function name."""

    def __init__(self, when: Callable[[str], bool], *, error: Exception | None = None) -> None:
        self._threads, self._when, self._error = ThreadPoolExecutor(1), when, error
        self.calls: list[str] = []
        self.failed = False

    def submit(self, work: Any, /, *words: Any, **named: Any) -> Future[Any]:
        self.calls.append(work.__name__)
        self.failed = self.failed or self._when(work.__name__)
        if not self.failed:
            return self._threads.submit(work, *words, **named)
        if self._error is not None:
            raise self._error
        return Future()  # nobody will ever answer

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._threads.shutdown(wait=wait, cancel_futures=cancel_futures)


@dataclass
class Ran:
    """A level that was spread: what is known of it."""

    progress: Progress
    results: list[Result] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ticks: int = 0
    spread: Spread | None = None

    @property
    def facts(self) -> dict[str, Any]:
        return facts(self.progress, stopped=False)

    @property
    def workers(self) -> list[dict[str, Any]]:
        assert self.progress.workers is not None
        return self.progress.workers

    @property
    def measured(self) -> list[Result]:
        return [one for one in self.results if not one.warmup]

    async def on_tick(self, progress: Progress) -> None:
        self.ticks += 1

    def balanced(self) -> bool:
        """offered = dropped + attempted, attempted = completed + failed + cancelled, of the records themselves."""
        progress, errors = self.progress, [one.error for one in self.measured]
        completed, cancelled = errors.count(None), errors.count("cancelled")
        return (
            progress.issued == len(errors)
            and progress.completed == completed
            and progress.cancelled == cancelled
            and progress.failed == len(errors) - completed - cancelled
        )


def ready(pool: Pool, server: Simulator | str, level: Level, limits: Limits, **settings: Any) -> Ran:
    """A level that is ready to run: `ran.spread.run(ran.progress)`."""
    ran = Ran(Progress(level, 1, limits))
    url = server if isinstance(server, str) else server.url
    ran.spread = Spread(
        *(pool, route_to(url), ran.notes.append, DEFAULT, Settings(seed=1, **settings)),
        on_result=ran.results.append,
        on_tick=ran.on_tick,
    )
    return ran


@asynccontextmanager
async def running(ran: Ran, when: Callable[[], object] | None = None) -> AsyncIterator[TaskGroup]:
    """Run the level meanwhile, from when that is so, or its first request was measured, to its end."""
    async with anyio.create_task_group() as group:
        group.start_soon(ran.spread.run, ran.progress)
        await until(when or (lambda: ran.measured))
        yield group


async def run(pool: Pool, server: Simulator | str, level: Level, limits: Limits, **settings: Any) -> Ran:
    ran = ready(pool, server, level, limits, **settings)
    await ran.spread.run(ran.progress)
    return ran


async def until(true: Callable[[], object]) -> None:
    """Let the level run until something is so."""
    while not true():  # noqa: ASYNC110 - what changes has no event to wait for
        await anyio.sleep(0.02)
