"""What runs in a worker: its share of a level, on an event loop of its own. Each function here is a short call.

The run asks a worker for its reports, a few each second; it never calls back, so that all it needs of the other side is
an executor. A worker that gets no more calls ends by itself: nothing reads what it measures. Orders and reports are
plain values that cross from process to process.
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
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import anyio
import msgspec
from anyio.from_thread import BlockingPortal

import loadbench
from loadbench import telemetry
from loadbench.client import Client, Route
from loadbench.engine import Engine, Limits, Progress, Settings, Share, process
from loadbench.errors import LoadbenchError
from loadbench.prompts import Line, Prompt
from loadbench.scenario import Level
from loadbench.store.histogram import Histogram
from loadbench.store.record import Result
from loadbench.transport import ExchangeError, best_clock, raise_file_limit


@dataclass(frozen=True, slots=True)
class Order:
    """One worker's share of one level."""

    id: str  # unlike that of any other order
    route: Route
    prompts: Sequence[Prompt]
    line: Line  # how the server counts the words of prompts that are to be made up
    settings: Settings
    share: Share
    level: Level
    attempt: int
    limits: Limits  # the level's: `share.limits` has the share's own


@dataclass(frozen=True, slots=True)
class Hello:
    """Who a worker is."""

    version: str  # of its loadbench
    python: str
    host: str
    pid: int
    cores: int  # that its process may use
    stamps: str  # where it stamps arrivals: thread, kernel or user
    event_loop: str


COUNTS = (
    *("in_flight", "issued", "ended", "completed", "failed", "cancelled", "dropped", "retried", "warmup_requests"),
    "text_events",
)
"""Of `Progress`: what shares add up."""
MARKS = ("measured_from_ns", "full_ns", "last_issue_ns", "ended_ns")
"""Of `Progress`: times on the worker's clock; a report has them in ns since the level began."""


class Report(msgspec.Struct):
    """How a share goes, as of one moment: its figures so far, and the records that came since the last report.

    What has the name of a field of `Progress` is that, but for the MARKS.
    """

    state: str  # connecting, ready, running or over
    error: str | None = None  # why its engine ended by itself; None while all is well
    in_flight: int = 0
    issued: int = 0
    ended: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    dropped: int = 0
    retried: int = 0
    warmup_requests: int = 0
    text_events: int = 0
    measured_from_ns: int | None = None
    full_ns: int | None = None
    last_issue_ns: int | None = None
    ended_ns: int | None = None
    errors: dict[str, int] = {}
    last_error: str | None = None
    phase: str = ""
    gone: int = 0
    think_time_s: float | None = None
    round_trip_ns: int | None = None
    client_wait_share: float | None = None
    cpu_s: float = 0.0  # CPU seconds of its process
    late_ns: int = 0  # how long after the agreed time it began; 0 where it was in time
    histograms: dict[str, Histogram] = {}  # by metric, from the beginning on
    records: list[Result] = []


class _Outgoing(Report):
    records: list[msgspec.Raw] = []  # type: ignore[assignment]


_AS_THEY_ARE = (*COUNTS, "errors", "last_error", "phase", "gone", "think_time_s", "round_trip_ns", "client_wait_share")

_encoder = msgspec.msgpack.Encoder(enc_hook=lambda histogram: histogram.packed())
_decoder = msgspec.msgpack.Decoder(list[Report], dec_hook=lambda _, packed: Histogram.unpacked(packed))


def read_reports(message: bytes) -> list[Report]:
    """The reports of a message, in order.

    Raises:
        LoadbenchError: It is none.
    """
    try:
        return _decoder.decode(message)
    except msgspec.DecodeError as error:
        raise LoadbenchError(f"what it says cannot be read ({error}): install the same loadbench there") from None


# -- a share while it runs

ABANDONED_S = 20.0  # without a call for so long a share ends by itself


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
        self._called_s = time.monotonic()
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
        except Exception as error:  # whatever it is, the other side must learn of it
            first: BaseException = error
            while isinstance(first, BaseExceptionGroup):  # task groups wrap all that ends them
                first = first.exceptions[0]
            self._error = f"{type(first).__name__}: {first}"
        self._report("over")
        self.over = True

    async def _measure(self) -> None:
        order = self.order
        self._client = client = order.route.open()
        try:
            self._engine = Engine(
                client,
                (),  # its prompts are made up once, by `asks`
                order.settings,
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
        self._report("ready")
        while not self._go.is_set():
            with anyio.move_on_after(ABANDONED_S / 4):
                await self._go.wait()
            self._end_if_abandoned()
        self._cpu_s = time.process_time()
        self._late_ns = max(0, time.perf_counter_ns() - self._began_ns)
        return self._began_ns

    def _end_if_abandoned(self) -> None:
        """Its load is missing from then on, should the run, which may have stood still, call after all."""
        if (silent_s := time.monotonic() - self._called_s) > ABANDONED_S:
            self._error = f"it ended by itself: nobody had asked for its reports for {silent_s:.0f} s"
            self._scope.cancel()

    def _on_result(self, result: Result) -> None:
        # A record is encoded when it ends, one by one, so that a report holds up the event loop for no long pause.
        self._records.append(_encoder.encode(result))

    async def _on_tick(self, progress: Progress) -> None:
        self._report("running")
        self._end_if_abandoned()

    def _report(self, state: str) -> None:
        progress, records = self._progress, self._records
        self._records = []
        facts = {name: getattr(progress, name) for name in _AS_THEY_ARE}
        if self._client is not None:
            facts["text_events"] += self._client.text_events_in_flight()
        for name in MARKS:
            at_ns = getattr(progress, name)
            facts[name] = at_ns - progress.began_ns if at_ns else None
        report = _Outgoing(
            state,
            self._error,
            cpu_s=time.process_time() - self._cpu_s,
            late_ns=self._late_ns,
            histograms={name: histogram for name, histogram in progress.histograms.items() if histogram.count},
            records=[msgspec.Raw(one) for one in records],
            **facts,
        )
        self._out.append(_encoder.encode(report))

    # -- called from outside, on the event loop

    def go(self, began_ns: int) -> None:
        self._began_ns = began_ns
        self._go.set()

    def take(self, ending: str, seen: int) -> list[bytes]:
        """The reports from the `seen`-th on; those before are not kept any longer."""
        self._called_s = time.monotonic()
        if self._engine is not None and ending == "stop":
            self._engine.stop()
        if ending == "cut":
            self._scope.cancel()
        while self._read < seen and self._out:
            self._out.popleft()
            self._read += 1
        return list(self._out)


# -- calls

_running: dict[str, _Running] = {}
_loop: tuple[BlockingPortal, threading.Thread] | None = None
_guard = threading.Lock()


def _portal() -> BlockingPortal:
    """Of this process's event loop, in a thread of its own that no exit waits for: it stays for all levels."""
    global _loop
    with _guard:
        if _loop is None:
            began: Future[BlockingPortal] = Future()

            async def serve() -> None:
                async with BlockingPortal() as portal:
                    began.set_result(portal)
                    await portal.sleep_until_stopped()

            options = {"use_uvloop": process.has_uvloop()}
            thread = threading.Thread(target=anyio.run, args=(serve,), kwargs={"backend_options": options}, daemon=True)
            thread.start()
            _loop = began.result(), thread
        return _loop[0]


def started() -> None:
    """A worker process begins: the user's Ctrl-C is for the run's process, and without that one it ends too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def outlive_nobody() -> None:
        import multiprocessing

        if (parent := multiprocessing.parent_process()) is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=outlive_nobody, daemon=True).start()


def hello() -> Hello:
    """Who this worker is."""
    return Hello(
        version=loadbench.__version__,
        python=platform.python_version(),
        host=socket.gethostname(),
        pid=os.getpid(),
        cores=telemetry.cores() or 1,
        stamps=best_clock(),
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
    for id_, one in list(_running.items()):
        if one.over:
            del _running[id_]
    running = _running[order.id] = _portal().call(_Running, order)
    _portal().start_task_soon(running.run)


def go(order_id: str, began_ns: int) -> None:
    """The level begins at this time of this worker's clock."""
    _portal().call(_share(order_id).go, began_ns)


def report(order_id: str, seen: int, ending: str = "") -> bytes:
    """The reports of a share that the other side has not seen yet, see `read_reports`.

    Args:
        seen: How many it has: the reports of an answer that got lost come again.
        ending: stop: no further request is to start; cut: those in flight are to end at once.
    """
    reports = _portal().call(_share(order_id).take, ending, seen)
    return _encoder.encode([msgspec.Raw(one) for one in reports])


def _share(order_id: str) -> _Running:
    if (found := _running.get(order_id)) is None:
        raise LoadbenchError("it knows nothing of its share: it began anew, or another run uses it")
    return found


def close() -> None:
    """End what runs, and the event loop; nothing of it is kept, least of all the route's key."""
    global _loop
    with _guard:
        if _loop is not None:
            portal, thread = _loop
            portal.call(portal.stop, True)
            thread.join(timeout=5)
            _loop = None
    _running.clear()
