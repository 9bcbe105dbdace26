"""Sockets that a thread in C reads with kernel stamps (_reader.c), so that no arrival waits for Python.

Python reads the same bytes with the same parsers as of the other wires, but later: when a response is whole, when a
time-out is looked at, every 0.2 s. An interpreter that is held up, by a report or by another process on its core, then
delays what is known, and no stamp.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from loadbench.transport.connection import Connection
from loadbench.transport.wire import BATCH, SO_TIMESTAMPNS, STEP_NS, TURN_NS, SocketWire

if TYPE_CHECKING:
    from loadbench.transport._reader import Reader


def reader_built() -> bool:
    """Whether the thread was compiled when loadbench was installed: that takes Linux and a C compiler."""
    try:
        import_module("loadbench.transport._reader")
    except ImportError:
        return False
    return True


def reader_place() -> str:
    """Before whom a reader thread gets a core here: before all (real-time), or by a short slice, or as any other."""
    from loadbench.transport._reader import Reader

    reader = Reader()
    try:
        return reader.place()
    finally:
        reader.close()


class ThreadWires:
    """All plain sockets of one transport, read by one thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, now_ns: Callable[[], int], lags: list[int]) -> None:
        from loadbench.transport._reader import Reader

        self.loop, self._now_ns, self._lags = loop, now_ns, lags
        self._reader: Reader = Reader()
        self._slots: dict[int, int] = {}  # by descriptor
        self._open: dict[int, Connection] = {}  # by slot
        self.doubted = False  # a stamp was of another clock than ours
        loop.add_reader(self._reader.fileno(), self._woken)

    def open(self, sock: socket.socket, connection: Connection) -> None:
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        slot = self._slots[sock.fileno()] = self._reader.open(sock.fileno())
        self._open[slot] = connection
        connection.wire = SocketWire(self, sock, connection)

    def forget(self, fd: int) -> None:
        slot = self._slots.pop(fd, None)
        if slot is not None:
            del self._open[slot]
            self._reader.forget(slot)

    def begin(self, fd: int, *, eager: bool) -> None:
        self._reader.begin(self._slots[fd], eager)

    def look(self, fd: int | None = None) -> None:
        for each in list(self._slots) if fd is None else [fd]:
            slot = self._slots.get(each)
            if slot is not None and self._reader.look(slot):
                self._take(slot)

    def close(self) -> None:
        self._open.clear()
        self._slots.clear()
        fd = self._reader.fileno()
        if fd >= 0:
            self.loop.remove_reader(fd)
            self._reader.close()

    def _woken(self) -> None:
        until = self._now_ns() + TURN_NS
        for _ in range(BATCH):  # the event loop gets its turn: requests are to be sent when they are due
            ready = self._reader.ready(1)
            if not ready:
                return
            if ready[0] in self._open:
                self._take(ready[0])
            if self._now_ns() > until:
                return

    def _take(self, slot: int) -> None:
        connection = self._open[slot]
        (pieces, times, lags, first, last), ended = self._reader.take(slot)
        self._lags += lags
        if times:
            if times[0] < connection.arrival_ns:  # since the request was sent there is no earlier time
                if times[0] < connection.began_ns - STEP_NS:
                    self.doubted = True
                    times = [self._now_ns()] * len(times)
                floor = connection.arrival_ns
                times = [max(at, floor) for at in times]
            for data, at in zip(pieces[:first], times, strict=False):
                if not connection.closed:
                    connection.received(data, at)
            if first < last and not connection.closed:
                connection.bodies(pieces[first:last], times[first:last])
            for data, at in zip(pieces[last:], times[last:], strict=True):
                if not connection.closed:
                    connection.received(data, at)
        if ended is not None and not connection.closed:
            connection.lost(OSError(ended, os.strerror(ended)) if ended else None)
