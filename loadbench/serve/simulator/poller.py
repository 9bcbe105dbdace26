"""Waiting for sockets or for a time, to the microsecond.

asyncio and uvloop wait in whole milliseconds, and so does `select.epoll.poll`; a law with a 10 ms gap needs far better.
`select.select` takes microseconds, and an epoll object is itself selectable: so the exact wait is a `select` on that
one descriptor, and the sockets cost what epoll costs.
"""

from __future__ import annotations

import contextlib
import select
import selectors
import socket
import sys
from collections.abc import Sequence
from typing import Protocol


class Poller(Protocol):
    """What the server needs: readiness by file descriptor. Every socket is watched for reading."""

    write_bit: int
    wake_ns: int
    """So much before a due time a wait had better end: a process wakes up late by up to that."""

    def add(self, sock: socket.socket) -> None:
        """Watch for reading."""

    def remove(self, sock: socket.socket) -> None:
        """Stop watching; before the socket is closed."""

    def writing(self, sock: socket.socket, wanted: bool) -> None:
        """Watch for writing as well, or no longer."""

    def wait(self, seconds: float | None) -> Sequence[tuple[int, int]]:
        """Pairs of descriptor and readiness bits: 0 looks only, None waits for ever."""


class EpollPoller:
    """Linux."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self.write_bit: int = select.EPOLLOUT
        self.wake_ns = 80_000
        # Timers may come 50 us late by default, so that the kernel can batch them.
        with contextlib.suppress(OSError), open("/proc/self/timerslack_ns", "w") as slack:
            slack.write("1000")

    def add(self, sock: socket.socket) -> None:
        self._epoll.register(sock, select.EPOLLIN)

    def remove(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self._epoll.unregister(sock)

    def writing(self, sock: socket.socket, wanted: bool) -> None:
        self._epoll.modify(sock, select.EPOLLIN | (select.EPOLLOUT if wanted else 0))

    def wait(self, seconds: float | None) -> Sequence[tuple[int, int]]:
        if seconds != 0:
            select.select((self._epoll,), (), (), seconds)
        return self._epoll.poll(0, 8)  # few: each may be a request to begin, and tokens are due in between


class SelectorsPoller:
    """Elsewhere: as exact as the platform's wait, some us on macOS and 1 ms on Windows."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self.write_bit: int = selectors.EVENT_WRITE
        self.wake_ns = 200_000
        if sys.platform == "win32":
            import ctypes

            self.wake_ns = 2_000_000
            ctypes.windll.winmm.timeBeginPeriod(1)  # waits come in steps of 1 ms, not 15.6

    def add(self, sock: socket.socket) -> None:
        self._selector.register(sock, selectors.EVENT_READ)

    def remove(self, sock: socket.socket) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(sock)

    def writing(self, sock: socket.socket, wanted: bool) -> None:
        self._selector.modify(sock, selectors.EVENT_READ | (selectors.EVENT_WRITE if wanted else 0))

    def wait(self, seconds: float | None) -> Sequence[tuple[int, int]]:
        return [(key.fd, bits) for key, bits in self._selector.select(seconds)]


def new() -> Poller:
    """The best one for this platform."""
    return EpollPoller() if sys.platform == "linux" else SelectorsPoller()
