"""Whether this process could run all the time: it may be suspended, or kept off the processor."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import anyio

BEAT_S = 0.1


class Pulse:
    """Wakes ten times a second, and sees how late.

    Args:
        now_s: A monotonic clock.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._began_s = now_s()
        self._longest_s = 0.0
        self._at_s: float | None = None

    async def beat(self) -> None:
        """Beat until cancelled."""
        while True:
            due_s = self._now_s() + BEAT_S
            try:
                await anyio.sleep(BEAT_S)
            finally:  # a level that ends right after a pause cancels this before it wakes
                late_s = self._now_s() - due_s
                if late_s > self._longest_s:
                    self._longest_s, self._at_s = late_s, due_s - self._began_s

    def facts(self) -> dict[str, Any]:
        """For run.json: the longest time that this process could not run, and when that began."""
        at_s = None if self._at_s is None else round(self._at_s, 3)
        return {"client_pause_s": round(self._longest_s, 3), "client_pause_at_s": at_s}
