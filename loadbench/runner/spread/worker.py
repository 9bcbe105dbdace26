"""What runs in a worker: its share of a level, on an event loop of its own. Each function here is a short call.

A worker is asked for its reports, a few each second; it never calls back, so that all it needs of the other side is an
executor. Who is not asked any more ends by itself: nobody is there to read what it measures.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import socket
import sys
import threading
import time
from collections import deque
from concurrent.futures import Future

import anyio
from anyio.from_thread import BlockingPortal

import loadbench
from loadbench import telemetry
from loadbench.client import Client
from loadbench.client.route import Route
from loadbench.engine import Engine, Progress, process
from loadbench.errors import LoadbenchError
from loadbench.record import Result
from loadbench.runner.spread import order as orders
from loadbench.runner.spread.order import Hello, Order
from loadbench.transport import ExchangeError, kernel_stamps_work
from loadbench.transport.limits import raise_file_limit

ABANDONED_S = 20.0
"""Without a call for so long a share ends by itself."""

_running: dict[str, _Running] = {}
_loop: _Loop | None = None
_guard = threading.Lock()


class _Loop:
    """This process's event loop, in a thread of its own that no exit waits for: it stays for all levels."""

    def __init__(self) -> None:
        began: Future[BlockingPortal] = Future()
        options = {"use_uvloop": process.has_uvloop()}
        self._thread = threading.Thread(target=anyio.run, args=(_serve, began), kwargs={"backend_options": options})
        self._thread.daemon = True
        self._thread.start()
        self.portal = began.result()

    def close(self) -> None:
        self.portal.call(self.portal.stop, True)
        self._thread.join(timeout=5)


async def _serve(began: Future[BlockingPortal]) -> None:
    async with BlockingPortal() as portal:
        began.set_result(portal)
        await portal.sleep_until_stopped()


class _Running:
    """A share while it runs; `run` is on the event loop, all else is called from outside."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self._out: deque[bytes] = deque()
        self._read = 0  # reports that the other side has
        self._records: list[bytes] = []
        self._go = anyio.Event()
        self._began_ns = 0
        self._late_ns = 0
        self._asked_s = time.monotonic()
        self._cpu_s = time.process_time()
        self._client: Client | None = None
        self._engine: Engine | None = None
        self._progress = Progress(order.level, order.attempt, order.limits)
        self._scope = anyio.CancelScope()
        self._error: str | None = None
        self.over = False

    async def run(self) -> None:
        try:
            with self._scope:
                await self._measure()
        except Exception as failure:  # whatever it is, the other side is to know
            self._error = _told(failure)
        self._say("over")
        self.over = True

    async def _measure(self) -> None:
        order = self.order
        self._client = client = order.route.open()
        try:
            self._engine = Engine(
                *(client, (), order.settings),  # what it asks is made up once, by `asks`
                share=order.share,
                on_result=self._on_result,
                on_tick=self._on_tick,
            )
            self._engine.asks(order.prompts, order.line)
            process.hold_collector()
            with contextlib.suppress(ExchangeError):  # alone: what it takes is the way's, not this process's
                await client.reach()
            await self._engine.run(self._progress, self._begins)
        finally:
            with anyio.CancelScope(shield=True):
                await client.transport.aclose()

    async def _begins(self) -> int:
        self._progress.began_ns = time.perf_counter_ns()
        self._say("ready")
        while not self._go.is_set():
            with anyio.move_on_after(ABANDONED_S / 4):
                await self._go.wait()
            self._end_if_abandoned()
        self._cpu_s = time.process_time()
        self._late_ns = max(0, time.perf_counter_ns() - self._began_ns)
        return self._began_ns

    def _end_if_abandoned(self) -> None:
        """What is left unmade of its load is missing, should somebody ask after all: one who stood still."""
        if (silent_s := time.monotonic() - self._asked_s) > ABANDONED_S:
            self._error = f"it ended by itself: nobody had asked for its reports for {silent_s:.0f} s"
            self._scope.cancel()

    def _on_result(self, result: Result) -> None:
        self._records.append(orders.record(result))

    async def _on_tick(self, progress: Progress) -> None:
        self._say("running")
        self._end_if_abandoned()

    def _say(self, state: str) -> None:
        records, self._records = self._records, []
        client = self._client
        self._out.append(
            orders.report(
                *(self._progress, state, records),
                text_events_in_flight=0 if client is None else client.text_events_in_flight(),
                cpu_s=time.process_time() - self._cpu_s,
                late_ns=self._late_ns,
                error=self._error,
            )
        )

    # -- called from outside, on the event loop

    def go(self, began_ns: int) -> None:
        self._began_ns = began_ns
        self._go.set()

    def take(self, ending: str, seen: int) -> list[bytes]:
        """The reports from the `seen`-th on; those before are not kept any longer."""
        self._asked_s = time.monotonic()
        if self._engine is not None and ending == "stop":
            self._engine.stop()
        if ending == "cut":
            self._scope.cancel()
        while self._read < seen and self._out:
            self._out.popleft()
            self._read += 1
        return list(self._out)


def started() -> None:
    """A worker process begins: the user's Ctrl-C is for the one who asked, and whoever loses that one ends too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_outlive_nobody, daemon=True).start()


def _outlive_nobody() -> None:
    import multiprocessing

    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def hello() -> Hello:
    """Who this worker is."""
    return Hello(
        version=loadbench.__version__,
        python=platform.python_version(),
        host=socket.gethostname(),
        pid=os.getpid(),
        cores=telemetry.cores() or 1,
        stamps="kernel" if kernel_stamps_work() else "user",
        event_loop="uvloop" if process.has_uvloop() else "asyncio",
    )


def clock() -> tuple[int, int]:
    """This worker's clocks now: the monotonic one of all marks, and the wall clock, in ns."""
    return time.perf_counter_ns(), time.time_ns()


def reach(route: Route) -> str | None:
    """Whether the target can be reached from here: None, or why not."""
    return _portal().call(route.reach)


def begin(order: Order) -> None:
    """Make ready for a share: open its connections. It waits for `go`."""
    concurrency = order.level.concurrency
    most = order.share.limits(order.limits).max_streams
    streams = most if concurrency is None else order.share.part(concurrency)
    room = raise_file_limit(streams)
    if concurrency is not None and room is not None and room < streams:
        raise LoadbenchError(
            f"its system lets a process open {room} streams, not {streams}: raise its limit (ulimit -Hn)"
        )
    process.share_the_interpreter()
    for id_ in [id_ for id_, one in _running.items() if one.over]:
        del _running[id_]
    running = _running[order.id] = _portal().call(_Running, order)
    _portal().start_task_soon(running.run)


def go(order_id: str, began_ns: int) -> None:
    """The level begins at this time of this worker's clock."""
    _portal().call(_share(order_id).go, began_ns)


def report(order_id: str, seen: int, ending: str = "") -> bytes:
    """The reports of a share that the other side has not seen yet, see `order.read`.

    Args:
        seen: How many it has: what an answer held that got lost is told again.
        ending: stop: no further request is to start; cut: those in flight are to end at once.
    """
    return orders.together(_portal().call(_share(order_id).take, ending, seen))


def _share(order_id: str) -> _Running:
    if (found := _running.get(order_id)) is None:
        raise LoadbenchError("it knows nothing of its share: it began anew, or another run uses it")
    return found


def close() -> None:
    """End what runs, and the event loop; nothing of it is kept, least of all the route's key."""
    global _loop
    with _guard:
        if _loop is not None:
            _loop.close()
            _loop = None
    _running.clear()


def _portal() -> BlockingPortal:
    global _loop
    with _guard:
        if _loop is None:
            _loop = _Loop()
        return _loop.portal


def _told(failure: BaseException) -> str:
    """What happened, of a group the first one: task groups wrap all that ends them."""
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return f"{type(failure).__name__}: {failure}"
