"""Samples of the server, the machine and this client while a run goes on: telemetry.jsonl, a line a second."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import anyio
import anyio.to_thread

INTERVAL_S = 1.0


class Samples(Protocol):
    """What takes samples; `telemetry.Sampler` is one. It blocks for some milliseconds."""

    def sample(self) -> dict[str, Any]: ...


class Keeps(Protocol):
    """What keeps samples; `store.RunFolder` is one."""

    def add_sample(self, sample: Mapping[str, Any]) -> None: ...


class Watch:
    """Takes samples and keeps them.

    Args:
        folder: Keeps them.
        sampler: None takes none, and then nothing is kept.
        scrape: Asks the server for its own metrics.
        local: Whether the server is on this machine; else this machine's GPUs and energy are not the server's.
        now_s: A monotonic clock.
    """

    def __init__(
        self,
        folder: Keeps,
        sampler: Samples | None,
        scrape: Callable[[], Awaitable[dict[str, float] | None]] | None = None,
        *,
        local: bool = True,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._sampler, self._scrape = folder, sampler, scrape
        self._local, self._now_s = local, now_s
        self._began_s = now_s()

    async def sample(self, phase: str, **about: Any) -> int | None:
        """Take one sample; the server's resident memory in bytes, where that is known.

        Args:
            phase: What the run does at this moment: before_load, after_load, level, idle, after_unload.
            about: The `model`, or `level` and `attempt`, that it is of.
        """
        if self._sampler is None:
            return None
        at_s = round(self._now_s() - self._began_s, 3)
        figures = await anyio.to_thread.run_sync(self._sampler.sample)
        if not self._local:
            figures |= {"gpus": None, "cpu_energy_j": None}
        metrics = None if self._scrape is None else await self._scrape()
        head = {"at_s": at_s, "phase": phase, "model": None, "level": None, "attempt": None, **about}
        self._folder.add_sample({**head, **figures, "metrics": metrics})
        server = figures.get("server") or {}
        memory: int | None = server.get("memory_bytes")
        return memory

    async def each_second(self, phase: str, **about: Any) -> None:
        """Sample until cancelled; a sample is never cut in half."""
        while self._sampler is not None:
            await anyio.sleep(INTERVAL_S)
            with anyio.CancelScope(shield=True):
                await self.sample(phase, **about)
