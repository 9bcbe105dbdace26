"""The measured path: an httpx transport that hands body bytes to a sink with the time they arrived.

`Transport.send` is the way of a benchmark's requests; those of an httpx client go the same way, to a sink that collects
their bodies. `StockTransport` puts the same face on stock httpx, for proxies.

Source: docs/measuring.md; on the same law stock httpx reports a TTFT a hundred times too long at 512 streams.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial

import httpx

from loadbench.errors import UsageError
from loadbench.scenario import Timeouts
from loadbench.transport.connection import Connection, tls_context
from loadbench.transport.exchange import (
    LESSONS,
    RETRY_NS,
    Address,
    Clock,
    Ending,
    ExchangeError,
    Headers,
    Origin,
    Patience,
    Post,
    Sink,
    head_of,
    origin_of,
    os_error,
)
from loadbench.transport.reader import ThreadWires, reader_built, reader_place
from loadbench.transport.stock import StockTransport
from loadbench.transport.wire import KernelWires, UserWire, Wires, kernel_stamps_work, raise_file_limit

__all__ = [
    "Address",
    "Clock",
    "Ending",
    "ExchangeError",
    "Headers",
    "Post",
    "Sink",
    "StockTransport",
    "Transport",
    "best_clock",
    "kernel_stamps_work",
    "raise_file_limit",
    "reader_built",
    "reader_place",
    "tls_context",
]

_SPREAD_S = 50e-6  # between two connects: 512 at once cost the first tokens 40 ms of lag
_CONNECTING = 256  # at once, ahead of need: beyond a server's backlog the kernel lets connects wait a second and more


MOST_BODY_BYTES = 64 << 20
"""Of an ordinary response, which a hostile server may make endless."""


def best_clock(wall_ns: Callable[[], int] = time.time_ns) -> Clock:
    """Who stamps arrivals best here."""
    if not kernel_stamps_work(wall_ns):
        return "user"
    return "thread" if reader_built() else "kernel"


class Body:
    """The sink of an ordinary request: it collects the response."""

    def __init__(self) -> None:
        self.first_token_ns: int | None = None
        self.ending: Ending | None = None
        self.retries = 0
        self.status = 0
        self.header_list: Headers = []
        self.content = bytearray()

    def connected(self, duration_ns: int) -> None: ...

    def sent(self, at_ns: int) -> None: ...

    def headers(self, at_ns: int, status: int, headers: Headers) -> None:
        self.status, self.header_list = status, headers

    def body(self, data: bytes, at_ns: int) -> None:
        self.first_token_ns = self.first_token_ns or at_ns
        self.content += data
        if len(self.content) > MOST_BODY_BYTES:
            raise ExchangeError("protocol", f"a response of more than {MOST_BODY_BYTES >> 20} MiB")

    def bodies(self, pieces: list[bytes], times_ns: list[int]) -> None:
        for data, at_ns in zip(pieces, times_ns, strict=True):
            self.body(data, at_ns)


class Transport(httpx.AsyncBaseTransport):
    """Connections to HTTP/1.x servers, each kept alive for the next request, each stamping its arrivals.

    Args:
        clock: ``thread``, ``kernel`` or ``user``; None takes the best that works here. The thread leaves https to
            Python, by kernel stamps.
        tls: Context for https; made at the first use when None.
        now_ns, wall_ns: The monotonic and the wall clock.

    Attributes:
        clock: The stamps in use; `user` as soon as one of the kernel's turned out to be of another clock than ours.
        lags_ns: Processed minus arrived, of each read since the list was last cleared; empty without kernel stamps.
        round_trip_ns: Of the network: the shortest TCP connect so far; None before the first.
        retries: Requests sent again because a reused connection had died before its first byte.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        tls: ssl.SSLContext | None = None,
        now_ns: Callable[[], int] = time.perf_counter_ns,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        if clock is None:
            clock = best_clock(wall_ns)
        elif clock == "thread" and not reader_built():
            raise UsageError(
                "--stamps thread: this loadbench was installed where there was no C compiler, or not on Linux"
            )
        self._clock: Clock = clock
        self.lags_ns: list[int] = []
        self.round_trip_ns: int | None = None
        self.retries = 0
        self._tls = tls
        self._now_ns, self._wall_ns = now_ns, wall_ns
        self._idle: dict[Origin, dict[Connection, None]] = {}  # the youngest last
        self._reused: set[Origin] = set()  # where a connection has served a second request
        self._died: Counter[Origin] = Counter()  # how often one died instead
        self._patience = Patience()
        self._wires: dict[bool, Wires] = {}  # by whether a thread reads them

    @property
    def clock(self) -> Clock:
        if any(wires.doubted for wires in self._wires.values()):
            return "user"
        if self._clock == "thread" and self._tls is not None and True not in self._wires:
            return "kernel"
        return self._clock

    def look(self) -> None:
        """Take in what has arrived: what the thread read is handed over now and then alone."""
        for wires in self._wires.values():
            wires.look()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The request of an httpx client: its body is collected."""
        body = Body()
        wire = b"%s\r\n%s" % (head_of(request), await request.aread())
        await self._send(origin_of(request.url), wire, body, Timeouts())
        # The body was decoded on its way; a header that says otherwise would have httpx decode it again.
        headers = [pair for pair in body.header_list if pair[0].lower() != b"content-encoding"]
        return httpx.Response(body.status, headers=headers, content=bytes(body.content), request=request)

    def send(self, post: Post, sink: Sink, timeouts: Timeouts) -> Awaitable[None]:
        """Send a request and feed its response to the sink; over when that is whole.

        Raises:
            ExchangeError: With the kind of failure.
        """
        return self._send(post.address.origin, post.wire, sink, timeouts)

    async def _send(self, origin: Origin, wire: bytes, sink: Sink, timeouts: Timeouts) -> None:
        connection = self._take(origin)
        if connection is not None:
            again = connection.used
            try:
                await connection.exchange(wire, sink, timeouts)
                self._keep(origin, connection)
                if again:
                    self._reused.add(origin)
                return
            except ExchangeError as error:
                # The server closed an idle connection while our request was on its way: not the request's failure.
                late = self._now_ns() - connection.began_ns > RETRY_NS
                if error.kind != "reset" or connection.heard or late:
                    raise
                self.retries += 1
                self._died[origin] += 1
                sink.retries += 1
        began = self._now_ns()
        connection = await self._connect(origin, timeouts)
        sink.connected(self._now_ns() - began)
        await connection.exchange(wire, sink, timeouts)
        self._keep(origin, connection)

    async def reach(self, url: httpx.URL, timeouts: Timeouts) -> None:
        """Open a connection, for the first request to take.

        Raises:
            ExchangeError: None can be opened.
        """
        origin = origin_of(url)
        self._give(origin, await self._connect(origin, timeouts))

    async def warm(self, url: httpx.URL, connections: int, timeouts: Timeouts) -> None:
        """Open connections ahead of need, until `connections` are idle, or one fails: the requests will meet that."""
        origin = origin_of(url)
        missing = connections - len(self._idle.get(origin, ()))
        gate = asyncio.Semaphore(_CONNECTING)
        failed = False

        async def one(delay_s: float) -> None:
            nonlocal failed
            await asyncio.sleep(delay_s)
            async with gate:
                if failed:  # each that times out would hold up those behind it
                    return
                try:
                    self._give(origin, await self._connect(origin, timeouts))
                except ExchangeError:
                    failed = True

        async with asyncio.TaskGroup() as group:
            for i in range(missing):
                group.create_task(one(i * _SPREAD_S))

    async def aclose(self) -> None:
        for connections in self._idle.values():
            while connections:
                connection, _ = connections.popitem()
                connection.close()
        self._idle.clear()
        while self._wires:
            self._wires.popitem()[1].close()

    # -- connections

    def _take(self, origin: Origin) -> Connection | None:
        idle = self._idle.get(origin)
        while idle:
            connection, _ = idle.popitem()
            connection.look()
            if not connection.closed:
                return connection
        return None

    def _give(self, origin: Origin, connection: Connection) -> None:
        self._idle.setdefault(origin, {})[connection] = None

    def _gone(self, origin: Origin, connection: Connection) -> None:
        self._idle.get(origin, {}).pop(connection, None)

    def _keep(self, origin: Origin, connection: Connection) -> None:
        """After an exchange: for the next request, if it is fit for one."""
        self._patience.learn(origin, connection.left_at)
        # llama.cpp closes after each stream although it promises keep-alive: after a few lessons we do so first.
        if origin not in self._reused and self._died[origin] >= LESSONS:
            connection.close()
        elif not connection.closed:
            self._give(origin, connection)

    async def _connect(self, origin: Origin, timeouts: Timeouts) -> Connection:
        scheme, host, port = origin
        connection: Connection | None = None
        try:
            async with asyncio.timeout(timeouts.connect):
                connection = await self._open(host, port, threaded=self._clock == "thread" and scheme == "http")
                if scheme == "https":
                    if self._tls is None:
                        self._tls = tls_context()
                    await connection.start_tls(self._tls, host)
        except TimeoutError:
            if connection is not None:
                connection.close()
            raise ExchangeError("timeout_connect", f"no connection within {timeouts.connect:g} s") from None
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        connection.patience = partial(self._patience.seconds, origin)
        connection.on_idle_close = partial(self._gone, origin)
        return connection

    async def _open(self, host: str, port: int, *, threaded: bool) -> Connection:
        loop = asyncio.get_running_loop()
        failure: ExchangeError | None = None
        try:
            addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as error:
            raise ExchangeError("dns", f"no address for {host}: {error}") from None
        except OSError as error:  # no file left for the question
            raise os_error(error, default="dns") from error
        for family, _, _, _, address in addresses:
            try:
                sock = socket.socket(family, socket.SOCK_STREAM)
            except OSError as error:  # this system may not have IPv6, to which a name may resolve too
                failure = os_error(error, default="local")
                failure.__cause__ = error
                continue
            connection = Connection(loop, self._now_ns)
            try:
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                began = self._now_ns()
                await loop.sock_connect(sock, address)
                took = self._now_ns() - began
                if sock.getsockname() == address:
                    # Nobody listens, and the kernel chose this very port as ours: such a connection is to itself.
                    raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
                # The shortest: in the others there is this process's own work too.
                self.round_trip_ns = took if self.round_trip_ns is None else min(took, self.round_trip_ns)
                if self._clock != "user":
                    if threaded not in self._wires:
                        self._wires[threaded] = (
                            ThreadWires(loop, self._now_ns, self.lags_ns)
                            if threaded
                            else KernelWires(loop, self._now_ns, self._wall_ns, self.lags_ns)
                        )
                    self._wires[threaded].open(sock, connection)
                else:
                    await loop.create_connection(partial(UserWire, connection, self._now_ns), sock=sock)
                return connection
            except OSError as error:
                sock.close()
                failure = os_error(error, default="connect")
                failure.__cause__ = error
            except BaseException:
                sock.close()
                raise
        raise failure or ExchangeError("dns", f"no address for {host}")
