"""Pieces of the fault matrix: a row, how it is played through the real client, and what must hold whatever failed."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, cycle, repeat
from pathlib import Path
from typing import Any

import psutil
import uvloop

from loadbench.client import Ask, Client, Parameters
from loadbench.engine import Engine, Limits, Progress, Settings, facts
from loadbench.metrics import summarise
from loadbench.scenario import Level, Timeouts
from loadbench.store import LevelData, read
from loadbench.store.folder import RunFolder
from loadbench.store.record import ErrorKind, Result
from loadbench.transport import Clock, Transport, kernel_stamps_work, reader_built
from tests.support.asking import PROMPT, seconds
from tests.support.replay import HOLD, RECEIVE, Step, serve
from tests.support.wire import WHOLE

Loop = Callable[[], asyncio.AbstractEventLoop] | None
PATHS: dict[str, tuple[Clock, Loop]] = {
    **({"reader thread": ("thread", uvloop.new_event_loop)} if reader_built() and kernel_stamps_work() else {}),
    **({"kernel stamps": ("kernel", uvloop.new_event_loop)} if kernel_stamps_work() else {}),
    "user stamps": ("user", uvloop.new_event_loop),
    "user stamps on asyncio": ("user", None),
}
"""The client's ways to read a socket: Linux, macOS, Windows."""

uvloop.new_event_loop().close()  # the first one opens files that stay open with the process
WHOLE_MARKS = "sent headers event text"
GRACE_S = 5.0
"""By which a busy machine may be late."""


@dataclass(frozen=True, slots=True)
class Endless:
    """A script without an end: first steps, then the others over and over, until the client leaves."""

    first: Sequence[Step]
    then: Sequence[Step]

    def __iter__(self) -> Iterator[Step]:
        return chain(self.first, chain.from_iterable(repeat(self.then)))


SLOW = Endless([], [RECEIVE, 0.2, WHOLE])
"""Sound answers, late enough that many requests are in flight at once."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One row: what a server does with the first connection, and what the record of the first request then says.

    Attributes:
        script: The server's steps; a next request, if it comes on the same connection, is answered by them too.
        error: Kind of failure, None where the answer completes all the same.
        says: A part of the message.
        status: HTTP status.
        marks: Which of sent, headers, event and text there are.
        text: Of the answer, as far as it came, an event a letter; None where nobody knows how far.
        reused: Whether the next request goes on the same connection.
    """

    script: Iterable[Step]
    error: ErrorKind | None
    says: str = ""
    status: int | None = 200
    marks: str = "sent headers"
    text: str | None = ""
    reused: bool = False
    timeouts: Timeouts = field(default_factory=seconds)


def fine(script: Iterable[Step], *, reused: bool = True, **more: Any) -> Fault:
    """A row whose answer completes all the same."""
    return Fault(script, None, marks=WHOLE_MARKS, text="AB", reused=reused, **more)


def begun(
    script: Iterable[Step], error: ErrorKind | None, says: str = "", text: str | None = "A", **more: Any
) -> Fault:
    """A row whose answer fails after its first text."""
    return Fault(script, error, says, marks=WHOLE_MARKS, text=text, **more)


def headless(script: Iterable[Step], error: ErrorKind, says: str = "", **more: Any) -> Fault:
    """A row whose answer has no head that could be read."""
    return Fault(script, error, says, status=None, marks="sent", **more)


@dataclass(frozen=True, slots=True)
class Played:
    """What became of a row: the request, the one after it, how many connections both took, and what was written."""

    first: Result
    second: Result
    connections: int
    level: LevelData


def marks(result: Result) -> str:
    """Those that happened, in order."""
    found = {
        "sent": result.sent_ns,
        "headers": result.headers_ns,
        "event": result.first_event_ns,
        "text": result.first_token_ns,
    }
    return " ".join(name for name, mark in found.items() if mark is not None)


def play(fault: Fault, path: str, folder: Path) -> Played:
    """Ask twice over one transport: with the row's time-outs, then with patience, by when the server is sound again.

    Raises:
        AssertionError: If a task, a file or a word of the record is left behind.
    """
    with nothing_left_open(), serve(fault.script, [RECEIVE, WHOLE, HOLD]) as server:
        first, second = asked(server.url, path, fault.timeouts, seconds())
    return Played(first, second, server.connections, kept(folder, [first, second]))


def asked(url: str, path: str, *patience: Timeouts, tls: ssl.SSLContext | None = None) -> list[Result]:
    """Requests one after the other, each with its time-outs, which it keeps."""
    clock, loop = PATHS[path]
    results: list[Result] = []
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(ask_in_turn(url, clock, patience, results, tls))
    for result, timeouts in zip(results, patience, strict=True):
        assert result.end_ns - result.due_ns < longest_s(timeouts) * 1e9
    return results


@contextlib.contextmanager
def nothing_left_open() -> Iterator[None]:
    """Raises AssertionError if there are more open files or sockets than before, the client's and the server's."""
    files = psutil.Process().num_fds()
    yield
    assert psutil.Process().num_fds() == files


async def ask_in_turn(
    url: str, clock: Clock, patience: Sequence[Timeouts], results: list[Result], tls: ssl.SSLContext | None = None
) -> None:
    """One request after another over one transport, each with time-outs of its own; no task outlives it."""
    transport = Transport(clock=clock, tls=tls)
    origin_ns = time.perf_counter_ns()
    try:
        for number, timeouts in enumerate(patience):
            ask = Ask("m@c1", 1, number, "m", PROMPT, warmup=False, due_ns=time.perf_counter_ns())
            await client(transport, url, timeouts).chat(ask, origin_ns, results.append)
    finally:
        await transport.aclose()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


def client(transport: Transport, url: str, timeouts: Timeouts, **headers: str) -> Client:
    return Client(
        transport,
        f"{url}/v1/chat/completions",
        headers=headers,
        parameters=Parameters(max_tokens=8, temperature=0.0, extra_body={}),
        timeouts=timeouts,
        now_ns=time.perf_counter_ns,
    )


def longest_s(timeouts: Timeouts) -> float:
    """How long a request with a retry may take at most."""
    return 2 * (timeouts.connect + min(timeouts.total, timeouts.first_token + timeouts.idle)) + GRACE_S


def kept(folder: Path, results: Sequence[Result], progress: Progress | None = None) -> LevelData:
    """The records written to a run folder and read back, with all that must hold of every level.

    Raises:
        AssertionError: If a record is unreadable or missing, or the counts do not add up.
    """
    run = RunFolder.create(folder, {"name": "faults", "scenario": {}})
    run.begin({"id": results[0].level, "model": "m", "concurrency": 1})
    for result in results:
        run.add(result)
    run.end({"status": "complete", "duration_s": 1.0} if progress is None else facts(progress, stopped=False), {})
    run.close("complete")
    found = read(folder)
    assert found.unreadable_lines == 0
    [level] = found.levels
    assert len(level.results) == len(results)
    [counted] = summarise(found)["levels"]
    assert counted["offered"] == counted["dropped"] + counted["attempted"]
    assert counted["attempted"] == counted["completed"] + counted["failed"] + counted["cancelled"]
    assert counted["attempted"] == sum(not result.warmup for result in results)
    if progress is not None:
        ended = progress.completed + progress.failed + progress.cancelled
        assert progress.issued == progress.ended == ended == counted["attempted"]
        assert (progress.completed, progress.failed) == (counted["completed"], counted["failed"])
        assert progress.in_flight == 0
    for one in results:
        assert_sound(one)
    return level


def assert_sound(result: Result) -> None:
    """What holds of every record, failed or not."""
    order = [result.sent_ns, result.headers_ns, result.first_event_ns, result.first_token_ns, result.last_token_ns]
    happened = [mark for mark in (*order, result.end_ns) if mark is not None]
    assert happened == sorted(happened)
    assert all(happened[0] >= result.due_ns for _ in happened[:1])
    assert (result.error is None) == (result.error_message is None)
    assert all(c.isprintable() for c in result.error_message or "")
    assert (result.first_token_ns is None) == (result.text_events == 0)
    assert (result.headers_ns is None) == (result.status is None)
    assert result.error is not None or result.text_events > 0


def assert_row(played: Played, fault: Fault) -> None:
    """The record is what the row says, and the next request, on this connection or another, completed."""
    first, second = played.first, played.second
    found = first.error, first.status, marks(first), played.connections == 1
    assert found == (fault.error, fault.status, fault.marks, fault.reused), first
    assert fault.says in (first.error_message or "")
    if fault.text is not None:
        assert (first.text, first.text_events) == (fault.text, len(fault.text))
    assert (second.error, second.text) == (None, "AB")


def each_path(*tables: Mapping[str, Fault]) -> list[tuple[str, str]]:
    """Names of rows, each with every path."""
    return [(name, path) for table in tables for name in table for path in PATHS]


def one_path(*tables: Mapping[str, Fault]) -> list[tuple[str, str]]:
    """Names of rows that do not depend on how a socket is read, each with one of the paths in turn."""
    return list(zip((name for table in tables for name in table), cycle(PATHS), strict=False))


@dataclass(slots=True)
class Load:
    """A level through the real engine, client and sockets, against servers that fail; its records as they ended.

    Attributes:
        on_result: Called after each.
    """

    url: str
    timeouts: Timeouts
    requests: int
    concurrency: int | None = None
    request_rate_per_s: float | None = None
    max_streams: int = 64
    retries: int = 0
    on_result: Callable[[Load], object] = lambda load: None
    results: list[Result] = field(default_factory=list)
    progress: Progress = field(init=False)

    def __post_init__(self) -> None:
        level = Level(
            id="m@c1", model="m", concurrency=self.concurrency, request_rate_per_s=self.request_rate_per_s, repeat=1
        )
        self.progress = Progress(level, 1, Limits(self.requests, None, 2, self.max_streams))

    def run(self, path: str) -> float:
        """Run it to its end; how long that took, in s.

        Raises:
            AssertionError: If a task is left.
        """
        clock, loop = PATHS[path]
        with asyncio.Runner(loop_factory=loop) as runner:
            began_s = time.perf_counter()
            runner.run(self.play(clock))
            return time.perf_counter() - began_s

    async def play(self, clock: Clock) -> None:
        tasks = asyncio.all_tasks()
        transport = Transport(clock=clock)
        settings = Settings(seed=1, arrivals="constant", retries=self.retries, retry_backoff_s=0.01)
        engine = Engine(
            client(transport, self.url, self.timeouts), [PROMPT], settings, on_result=self._ended, on_tick=self._tick
        )
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await engine.run(self.progress)
        finally:
            await transport.aclose()
        for _ in range(50):  # a server on the same loop sees its clients leave a moment later
            if asyncio.all_tasks() != tasks:
                await asyncio.sleep(0.001)
        assert asyncio.all_tasks() == tasks

    def _ended(self, result: Result) -> None:
        self.results.append(result)
        self.on_result(self)

    async def _tick(self, progress: Progress) -> None: ...

    def kinds(self) -> Counter[str | None]:
        """How often each kind of failure, None for what completed; warm-up among it."""
        return Counter(result.error for result in self.results)
