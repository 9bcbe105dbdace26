"""The workers of a run, kept warm from level to level: processes of this machine, or the workers of a Dask cluster."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, TypeVar, TypeVarTuple

import loadbench
from loadbench.client import Route
from loadbench.errors import LoadbenchError, UsageError, how_to_install
from loadbench.machine import keep_working_folder_out
from loadbench.runner import worker
from loadbench.runner.worker import Hello

LOST_S = 10.0  # a worker that does not answer for so long is lost: its share counts no more
BEGIN_S = 60.0  # for the first answer: a worker has Python and its libraries to load
CLOSE_S, LET_GO_S = 5.0, 2.0  # for the last answer, of a process and of a cluster's worker
CONNECT_S = 15.0
ROUND_TRIPS = 8
MOST_UNCERTAIN_NS = 100_000_000  # of a worker's clock: what is known less well cannot begin together with others
MOST_LOCAL = 256

Arguments = TypeVarTuple("Arguments")
T = TypeVar("T")


class Lost(LoadbenchError):
    """A worker does not answer any more; the message says why."""


@dataclass(frozen=True, slots=True)
class Clock:
    """A worker's clocks against those of this process, in ns."""

    offset_ns: int  # its monotonic clock minus ours: of no meaning but for the start
    uncertain_ns: int  # the offset is known to within this, half the shortest round trip of a call
    wall_offset_ns: int  # its wall clock minus ours


@dataclass(slots=True)
class Place:
    """A worker."""

    name: str  # w1, w2, ..
    executor: Executor  # runs one call after the other in the worker
    address: str | None = None  # of a cluster's worker; None of a process here
    hello: Hello | None = None  # who it is; None until it said so
    lost: str | None = None  # why it is not called any more

    def __str__(self) -> str:
        """As `w2 (tcp://10.0.0.7:41234)`."""
        if self.address is not None:
            return f"{self.name} ({self.address})"
        return self.name if self.hello is None else f"{self.name} (process {self.hello.pid})"

    async def call(self, work: Callable[[*Arguments], T], *arguments: *Arguments, within_s: float | None = None) -> T:
        """Run a short function in the worker.

        Raises:
            Lost: It does not answer: it died, hangs, or cannot be reached.
            LoadbenchError: What the function raised.
        """
        return (await self._timed(within_s or LOST_S, work, *arguments))[0]

    async def clock(self) -> Clock:
        """How its clocks stand against ours, by the shortest of some round trips."""
        best: Clock | None = None
        for _ in range(ROUND_TRIPS):
            called_ns, called_wall_ns = time.perf_counter_ns(), time.time_ns()
            (theirs_ns, their_wall_ns), answered_ns = await self._timed(LOST_S, worker.clock)
            half_ns = (answered_ns - called_ns) // 2
            if best is None or half_ns < best.uncertain_ns:
                best = Clock(theirs_ns - called_ns - half_ns, half_ns, their_wall_ns - called_wall_ns - half_ns)
        assert best is not None
        return best

    async def _timed(self, limit_s: float, work: Callable[[*Arguments], T], *arguments: *Arguments) -> tuple[T, int]:
        """The answer, and when it was there, in ns of our monotonic clock."""
        if self.lost is not None:
            raise Lost(self.lost)
        answered_ns: list[int] = []

        def answered(_: Future[T]) -> None:
            answered_ns.append(time.perf_counter_ns())

        try:
            future = self.executor.submit(work, *arguments)
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
        except BrokenProcessPool:
            self.lost = "its process died"
        except ModuleNotFoundError as error:
            self.lost = f"{error}: install the same loadbench there"
        except Exception as error:
            self.lost = f"{type(error).__name__}: {error}"
            if "deserialization of the task graph" in str(error):  # a scheduler looks at what it passes on
                self.lost = "its scheduler cannot read the call: install the same loadbench where the scheduler runs"
        raise Lost(self.lost)

    async def end(self, within_s: float) -> None:
        """Have it end what runs there; one that does not answer is lost, and that is all."""
        with contextlib.suppress(Lost):
            await self.call(worker.close, within_s=within_s)


async def greet(places: Sequence[Place], route: Route | None) -> None:
    """Ask all workers who they are, whether they fit, and whether they reach the target.

    Raises:
        LoadbenchError: Some do not; all of them are named.
    """

    async def problem_of(place: Place) -> str | None:
        try:
            place.hello = await place.call(worker.hello, within_s=BEGIN_S)
            if place.hello.version != loadbench.__version__:
                return (
                    f"worker {place} has loadbench {place.hello.version}, this is {loadbench.__version__}: "
                    "install the same version on all"
                )
            clock = await place.clock()
            if clock.uncertain_ns > MOST_UNCERTAIN_NS:
                return (
                    f"worker {place}: its clock is known to {clock.uncertain_ns / 1e6:.0f} ms alone, as calls take so "
                    "long; shares cannot begin together: use workers that are nearer, or less busy"
                )
            if route is not None and (problem := await place.call(worker.reach, route)) is not None:
                return f"worker {place} does not reach the target: {problem}"
        except LoadbenchError as error:
            return f"worker {place}: {error}"
        return None

    problems = await asyncio.gather(*map(problem_of, places))
    if any(problems):
        raise LoadbenchError("; ".join(filter(None, problems)))


# -- processes of this machine


class Processes:
    """Several processes, each an executor with one worker: one that dies takes no other one with it."""

    def __init__(self, count: int) -> None:
        self.kind = "processes"
        self.places = [_process(f"w{number}") for number in range(1, count + 1)]

    @property
    def gone(self) -> None:
        """A process can always be begun again."""

    async def renew(self) -> list[str]:
        """Before a level: a new process for each that was lost, meanwhile too; what was done, in words."""
        await asyncio.gather(*(place.call(worker.clock) for place in self.places), return_exceptions=True)
        done, begun = [], []
        for at, place in enumerate(self.places):
            if place.lost is not None:
                _kill(place)
                done.append(f"{place} was lost ({place.lost}): a new process takes its place")
                self.places[at] = _process(place.name)
                begun.append(self.places[at])
        try:
            await greet(begun, None)
        except LoadbenchError as error:  # the level is shared by the others, and the next one tries again
            done.append(str(error))
        return done

    async def close(self) -> None:
        """End all: those that answer by themselves, the others are killed."""

        async def end(place: Place) -> None:
            await place.end(CLOSE_S)
            if place.lost is not None:
                _kill(place)
            with contextlib.suppress(BrokenProcessPool, OSError):
                await asyncio.to_thread(place.executor.shutdown, wait=True, cancel_futures=True)

        await asyncio.gather(*map(end, self.places))


def _process(name: str) -> Place:
    keep_working_folder_out()
    spawn = multiprocessing.get_context("spawn")
    return Place(name, ProcessPoolExecutor(1, mp_context=spawn, initializer=worker.started))


def _kill(place: Place) -> None:
    assert isinstance(place.executor, ProcessPoolExecutor)
    # No public way before Python 3.14, which has kill_workers().
    for process in list((place.executor._processes or {}).values()):
        process.kill()
    place.executor.shutdown(wait=False, cancel_futures=True)


# -- workers of a cluster


class Cluster:
    """The workers that a Dask scheduler has when the run begins. Make one with `connect`."""

    def __init__(self, kind: str, client: Any, close: Callable[[], None]) -> None:
        self.kind = kind
        self._client, self._close = client, close
        self.places = []
        for number, address in enumerate(sorted(client.scheduler_info(n_workers=-1)["workers"]), start=1):
            # Each call on this worker and no other, once.
            executor = client.get_executor(workers=[address], allow_other_workers=False, pure=False, retries=0)
            self.places.append(Place(f"w{number}", executor, address))

    @property
    def gone(self) -> str | None:
        """Why there is no worker any more; None while there is."""
        if self._client.status not in ("running", "connecting"):
            return f"the scheduler at {self.kind} went away"
        if all(place.lost is not None for place in self.places):
            return f"all workers of {self.kind} were lost"
        return None

    async def renew(self) -> list[str]:
        """Leave out what was lost: a cluster has its own ways of beginning workers, which know nothing of this run."""
        places, self.places = self.places, [place for place in self.places if place.lost is None]
        done = []
        for place in places:
            if place.lost is not None:
                done.append(f"{place} was lost ({place.lost}): the run goes on with {len(self.places)} workers")
        return done

    async def close(self) -> None:
        """Let go of the cluster; one that was begun for this run ends."""
        if self.gone is None:
            await asyncio.gather(*(place.end(LET_GO_S) for place in self.places))
        await asyncio.to_thread(self._close)


Pool = Processes | Cluster


def connect(address: str) -> Cluster:
    """The workers of a scheduler; it blocks for some seconds.

    Args:
        address: tcp://HOST:PORT or tls://HOST:PORT of a scheduler, or local:N for N worker processes of this machine.
            TLS certificates are those of Dask's own configuration.
    Raises:
        UsageError: It is no such address.
        LoadbenchError: `distributed` is not installed, nobody answers, or the scheduler has no workers.
    """
    try:
        import distributed
    except ImportError:
        raise LoadbenchError(
            f"--cluster needs Dask's distributed, which is not installed, here and on the workers: "
            f"{how_to_install('cluster')}"
        ) from None
    if local := re.fullmatch(r"local:(\d+)", address):
        if not 1 <= int(local[1]) <= MOST_LOCAL:
            raise UsageError(f"--cluster {address}: give 1 to {MOST_LOCAL} workers, as local:2")
        try:
            return _local(distributed, address, int(local[1]))
        except (OSError, RuntimeError) as error:
            raise LoadbenchError(f"--cluster {address}: its workers cannot be begun: {_line(error)}") from None
    if not re.fullmatch(r"(tcp|tls|ws|wss|ucx)://\S+", address):
        raise UsageError(f"--cluster {address}: give tcp://HOST:PORT of a Dask scheduler, or local:N")
    try:
        dask: Any = distributed  # it has types for a part of itself alone
        client = dask.Client(address, timeout=CONNECT_S, set_as_default=False, name="loadbench")
    except (OSError, TimeoutError, ValueError, RuntimeError) as error:
        raise LoadbenchError(
            f"--cluster {address}: no Dask scheduler answers there within {CONNECT_S:.0f} s: {_line(error)}"
        ) from None
    cluster = Cluster(address, client, client.close)
    if not cluster.places:
        client.close()
        raise LoadbenchError(f"--cluster {address}: the scheduler has no workers: start some, as dask worker {address}")
    return cluster


def _local(distributed: Any, address: str, count: int) -> Cluster:
    import dask

    for name in ("distributed", "bokeh", "tornado"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters of them, this run says itself
    keep_working_folder_out()
    quiet = {
        "distributed.worker.profile.enabled": False,  # it looks at all threads a hundred times a second
        "distributed.logging.distributed": "critical",
        "distributed.admin.system-monitor.gil.enabled": False,
    }
    with dask.config.set(quiet):
        local = distributed.LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # it has one in any case; no other port warns where Dask runs already
            scheduler_kwargs={"dashboard": False},
            memory_limit=None,
            silence_logs=logging.CRITICAL,
        )
        client = distributed.Client(local, set_as_default=False, name="loadbench")

    def close() -> None:
        client.close()
        local.close()

    return Cluster(address, client, close)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
