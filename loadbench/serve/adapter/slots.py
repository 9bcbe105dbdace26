"""How many generations run at once, and how many requests wait for one, in the order they came."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator

GONE_CHECK_S = 0.5
"""How often one who waits looks whether its client is still there."""


class Full(Exception):
    """All slots are taken and no place to wait is free."""


class Gone(Exception):
    """The client hung up, or the server stops."""


class Slots:
    """A counting semaphore with a bounded, fair queue.

    Args:
        slots: Taken at once at most.
        queue: Who may wait.
    """

    def __init__(self, slots: int, queue: int, *, check_s: float = GONE_CHECK_S) -> None:
        self._slots = self._free = slots
        self._queue = queue
        self._check_s = check_s
        self._waiting: deque[threading.Event] = deque()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def slot(self, gone: Callable[[], bool]) -> Iterator[None]:
        """Hold a slot for the length of a `with` block, after waiting for one.

        Args:
            gone: Whether nobody waits for the answer any more.
        Raises:
            Full: At once.
            Gone: As soon as it is noticed.
        """
        self._take(gone)
        try:
            yield
        finally:
            self._give()

    def taken(self) -> tuple[int, int]:
        """How many hold a slot and how many wait for one, now."""
        with self._changed:
            return self._slots - self._free, len(self._waiting)

    def drained(self, within_s: float) -> bool:
        """Wait until no slot is taken; False where that takes too long."""
        with self._changed:
            return self._changed.wait_for(lambda: self._free == self._slots, within_s)

    def _take(self, gone: Callable[[], bool]) -> None:
        with self._changed:
            if self._free:
                self._free -= 1
                return
            if len(self._waiting) >= self._queue:
                raise Full
            turn = threading.Event()
            self._waiting.append(turn)
        while not turn.wait(self._check_s):
            if gone():
                with self._changed:
                    if not turn.is_set():
                        self._waiting.remove(turn)
                        raise Gone
        if gone():  # it may have left since the last look
            self._give()
            raise Gone

    def _give(self) -> None:
        with self._changed:
            if self._waiting:
                self._waiting.popleft().set()  # the slot goes over to it: no newcomer can come between
            else:
                self._free += 1
                self._changed.notify_all()
