"""What the fuzz tests and the fuzz targets feed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import structs

from loadbench.client import sse
from loadbench.client.recorder import Recorder
from loadbench.client.sse import Decoder
from loadbench.scenario import Length, Pause, Shape, Timeouts
from loadbench.scenario.bounds import Bound, Duration, Threshold
from loadbench.store.record import Result
from loadbench.transport import ExchangeError
from loadbench.transport.connection import Connection

ROOT = Path(__file__).parents[2]

TOML = [path.read_bytes() for path in sorted(ROOT.glob("scenarios/**/*.toml"))]

GRAMMARS: dict[str, Callable[[str], object]] = {
    "bound": Bound.parse,
    "duration": Duration.parse,
    "length": Length.parse,
    "pause": Pause.parse,
    "shape": Shape.parse,
    "threshold": Threshold.parse,
}


HEADERS = [(b"content-type", b"text/event-stream")]

NOW_NS = 5_000_000


def result(sink: Recorder) -> Result:
    """The record, without what says how the bytes came: arrivals that were merged depend on the cuts by design."""
    from loadbench.client import Ask
    from tests.support.asking import PROMPT

    asked = Ask("l", 1, 0, "m", PROMPT, warmup=False, due_ns=0)
    return structs.replace(sink.result(asked, 0, NOW_NS), merged_arrivals=0)


def recorded(chunks: Sequence[bytes], status: int = 200) -> Result:
    """What a recorder makes of a body that came in these pieces, all at one time."""
    sink, error = Recorder(), None
    sink.sent(0)
    sink.headers(NOW_NS, status, HEADERS)
    try:
        for chunk in chunks:
            sink.body(chunk, NOW_NS)
    except ExchangeError as failed:
        error = failed
    sink.close(error, NOW_NS)
    return result(sink)


class Feed:
    """A wire without a socket: what is sent is answered with these pieces, then the connection is closed."""

    unsent = False

    def __init__(self, loop: asyncio.AbstractEventLoop, connection: Connection, chunks: Sequence[bytes]) -> None:
        self._loop, self._connection, self._chunks = loop, connection, chunks

    def begin(self, *, eager: bool) -> None:
        pass

    def look(self) -> None:
        pass

    def close(self) -> None:
        pass

    def send(self, data: bytes) -> None:
        self._loop.call_soon(self._answer)

    def _answer(self) -> None:
        for chunk in self._chunks:
            if self._connection.closed:
                return
            if chunk:
                self._connection.received(chunk, NOW_NS)
        if not self._connection.closed:
            self._connection.lost(None)


def exchanged(chunks: Sequence[bytes]) -> Result:
    """What a connection and a recorder make of a whole response in these pieces."""

    async def run() -> Result:
        loop = asyncio.get_running_loop()
        connection = Connection(loop, lambda: 0)
        connection.wire = Feed(loop, connection, chunks)
        sink, error = Recorder(), None
        try:
            await connection.exchange(b"GET / HTTP/1.1\r\n\r\n", sink, Timeouts())
        except ExchangeError as failed:
            error = failed
        sink.close(error, NOW_NS)
        return result(sink)

    return asyncio.run(run())


def decoded(chunks: Sequence[bytes]) -> list[sse.Event]:
    decoder = Decoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)] + decoder.finish()
