"""Sockets that stamp what arrives, by the kernel's receive stamps on Linux, in user space elsewhere; their limit.

A kernel stamp (SO_TIMESTAMPNS) is on the wall clock and is used only as an age: arrival = now - (wall_now - stamp). It
makes an arrival independent of this process's own lag, as long as that lag is shorter than the gap to the next one:
Linux merges segments that wait in a socket's queue and keeps the newest stamp. So two reads with one stamp are one
arrival.
"""

from __future__ import annotations

import asyncio
import select
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Protocol, cast

from loadbench.transport.connection import Connection

SPARE_FILES = 64
"""For the run folder, the event loop and the libraries, beside one descriptor a stream."""
SO_TIMESTAMPNS = 35  # asm-generic/socket.h, "old" 64-bit layout; Python's socket module has no name for it
_TIMESPEC = struct.Struct("qq")
_READ_BYTES = 65536
STEP_NS = 1_000_000
"""Both clocks run at one rate: between them nothing moves by as much but a step, or a pause of ours."""
BATCH = 64  # sockets served before the event loop gets its turn
TURN_NS = 10_000_000  # or as soon as they took so long: a read of one-byte chunks costs ten times one of tokens


class KernelWires:
    """All sockets of one transport, read with kernel stamps.

    They sit in an epoll object of our own, itself a reader of the event loop: many ready sockets cost the loop one
    callback, a third of the CPU per token of `loop.add_reader` for each.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, now_ns: Callable[[], int], wall_ns: Callable[[], int], lags: list[int]
    ) -> None:
        self.loop, self._now_ns, self._wall_ns, self._lags = loop, now_ns, wall_ns, lags
        self._buffer = bytearray(_READ_BYTES)
        self._view = memoryview(self._buffer)
        self._open: dict[int, tuple[Callable[..., tuple[int, list[tuple[int, int, bytes]], int, object]], Connection]]
        self._open = {}
        self._apart_ns = now_ns() - wall_ns()
        self._ready: list[tuple[int, int]] = []  # what a turn that took too long left unread
        self.doubted = False  # a stamp was of another clock than ours
        self._epoll = select.epoll()
        loop.add_reader(self._epoll.fileno(), self.look)

    def open(self, sock: socket.socket, connection: Connection) -> None:
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        connection.wire = SocketWire(self, sock, connection)
        self._open[sock.fileno()] = (sock.recvmsg_into, connection)
        self._epoll.register(sock.fileno(), select.EPOLLIN)

    def forget(self, fd: int) -> None:
        if self._open.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def close(self) -> None:
        self._open.clear()
        if not self._epoll.closed:
            self.loop.remove_reader(self._epoll.fileno())
            self._epoll.close()

    def begin(self, fd: int, *, eager: bool) -> None:
        """Nothing: each read is handed over at once."""

    def look(self, fd: int | None = None) -> None:
        """Read what waits on any socket now, some sockets at a time.

        The event loop calls this, and so does every request that begins: hundreds that begin at once would keep the
        loop from reading for tens of ms, and the kernel would merge what arrives meanwhile.
        """
        if self._epoll.closed:
            return
        buffers, view = [self._buffer], self._view
        now_ns, wall_ns, late = self._now_ns, self._wall_ns, self._lags.append
        # What was left goes first: epoll would begin with the same sockets each time.
        ready, self._ready = self._ready or self._epoll.poll(0, BATCH), []
        until = now_ns() + TURN_NS
        for i, (fd, _) in enumerate(ready):
            entry = self._open.get(fd)
            if entry is None:  # closed by a callback of this very batch
                continue
            read, connection = entry
            try:
                n, ancillary, _, _ = read(buffers, 64)
            except BlockingIOError:
                continue
            except OSError as error:
                self.forget(fd)
                connection.lost(error)
                continue
            if not n:
                self.forget(fd)
                connection.lost(None)
                continue
            wall = wall_ns()  # before now: a pause between the two makes an arrival late by it, never early
            now = now_ns()
            if ancillary:
                seconds, nanoseconds = _TIMESPEC.unpack(ancillary[0][2])
                stamp = seconds * 1_000_000_000 + nanoseconds
                arrival = connection.arrival_ns
                if stamp != connection.stamp:
                    connection.stamp = stamp
                    at = now - (wall - stamp)
                    if not -STEP_NS < now - wall - self._apart_ns < STEP_NS:
                        at = self._across_step(stamp)
                    if at < connection.began_ns - STEP_NS:  # before its request was sent: that is no time
                        self.doubted = True
                        at = now
                    # Never before the last arrival or the request, nor after now.
                    if at > arrival:
                        arrival = at if at < now else now
                late(now - arrival)
                connection.received(view[:n], arrival)
            else:
                connection.received(view[:n], now)
            if now > until and i + 1 < len(ready):
                self._ready = ready[i + 1 :]
                return

    def _across_step(self, stamp: int) -> int:
        """When it arrived, by the clock of all marks, where that and the wall clock are not as far apart as they were.

        If they are again, this process was held up between reading the two. Else the wall clock was set, perhaps since
        the stamp was taken: then that time is unknown, and it counts as arrived now.
        """
        wall, now = self._wall_ns(), self._now_ns()
        if not -STEP_NS < now - wall - self._apart_ns < STEP_NS:
            self._apart_ns = now - wall
            return now
        return stamp + self._apart_ns


class Wires(Protocol):
    """Who reads the sockets of a transport."""

    loop: asyncio.AbstractEventLoop
    doubted: bool

    def open(self, sock: socket.socket, connection: Connection) -> None: ...
    def begin(self, fd: int, *, eager: bool) -> None: ...
    def look(self, fd: int | None = None) -> None:
        """Take in what has arrived, on this socket at least; None for all."""

    def forget(self, fd: int) -> None: ...
    def close(self) -> None: ...


class SocketWire:
    """One socket of ours; `Wires` read it."""

    __slots__ = ("_connection", "_pending", "_sock", "_wires")

    def __init__(self, wires: Wires, sock: socket.socket, connection: Connection) -> None:
        self._wires, self._sock, self._connection = wires, sock, connection
        self._pending = b""

    @property
    def unsent(self) -> bool:
        return bool(self._pending)

    def begin(self, *, eager: bool) -> None:
        self._wires.begin(self._sock.fileno(), eager=eager)

    def look(self) -> None:
        self._wires.look(self._sock.fileno())

    def send(self, data: bytes) -> None:
        if self._pending:
            self._pending += data
            return
        try:
            n = self._sock.send(data)
        except BlockingIOError:
            n = 0
        except ConnectionError:
            self._pending = data  # never sent; why may lie unread, an alert or a refusal, and reading meets the end too
            return
        if n < len(data):
            self._pending = data[n:]
            self._wires.loop.add_writer(self._sock.fileno(), self._writable)

    def _writable(self) -> None:
        try:
            n = self._sock.send(self._pending)
        except BlockingIOError:
            return
        except ConnectionError:
            self._wires.loop.remove_writer(self._sock.fileno())  # as in `send`
            return
        except OSError as error:
            self._connection.lost(error)
            return
        self._pending = self._pending[n:]
        if not self._pending:
            self._wires.loop.remove_writer(self._sock.fileno())

    def close(self) -> None:
        fd = self._sock.fileno()
        if fd >= 0:
            self._wires.forget(fd)
            if self._pending:
                self._wires.loop.remove_writer(fd)
            self._sock.close()
            del self._connection  # which holds this wire: a circle that only the collector of garbage would find


class UserWire(asyncio.Protocol):
    """A socket read by the event loop, stamped when the loop hands over its bytes."""

    def __init__(self, connection: Connection, now_ns: Callable[[], int]) -> None:
        self._connection, self._now_ns = connection, now_ns
        self._transport: asyncio.Transport | None = None
        connection.wire = self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class is not a subclass of asyncio's

    def data_received(self, data: bytes) -> None:
        self._connection.received(data, self._now_ns())

    def eof_received(self) -> None:
        self._connection.lost(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._connection.closed:
            self._connection.lost(error if isinstance(error, OSError) else None)

    @property
    def unsent(self) -> bool:
        return self._transport is not None and self._transport.get_write_buffer_size() > 0

    def begin(self, *, eager: bool) -> None:
        """Nothing: each read is handed over at once."""

    def look(self) -> None:
        """Nothing: the event loop reads by itself, when it can."""

    def send(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def kernel_stamps_work(wall_ns: Callable[[], int] = time.time_ns) -> bool:
    """Whether this kernel stamps what a TCP socket receives, by the clock that we read: tried on a loopback connection.

    Under libfaketime, and in some sandboxes, a process has a wall clock of its own: no stamp can be read as an age.
    """
    if not sys.platform.startswith("linux") or _TIMESPEC.size != 16:
        return False
    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.create_connection(server.getsockname()) as near,
            server.accept()[0] as far,
        ):
            near.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            near.settimeout(1)
            for _ in range(20):  # the kernel begins to stamp a moment after the first socket asks for it
                before = wall_ns()
                far.sendall(b"x")
                _, ancillary, _, _ = near.recvmsg(1, 64)
                if ancillary:
                    stamp = ancillary[0][2]
                    if len(stamp) != _TIMESPEC.size:
                        return False
                    seconds, nanoseconds = _TIMESPEC.unpack(stamp)
                    stamp_ns = int(seconds) * 1_000_000_000 + int(nanoseconds)
                    return before - STEP_NS <= stamp_ns <= wall_ns() + STEP_NS
                time.sleep(0.001)
    except OSError:
        pass
    return False


def raise_file_limit(streams: int) -> int | None:
    """Raise this process's open-files limit as far as `streams` need and the system grants.

    Returns:
        How many streams there is room for now; None where nothing limits them (Windows).
    """
    if sys.platform == "win32":
        return None
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = streams + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        granted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (granted, hard))
        except (ValueError, OSError):  # macOS: less than its hard limit says
            granted = soft
        soft = granted
    return None if soft == resource.RLIM_INFINITY else max(soft - SPARE_FILES, 0)
