"""Samples of the server, the machine and this client while a run goes on, and what is known of the server's process.

telemetry.jsonl has a line a second.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import anyio.to_thread

from loadbench import server as targets
from loadbench import telemetry
from loadbench.server import Choice, ModelFacts, Target

if TYPE_CHECKING:
    from loadbench.runner.view import View

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


@dataclass(frozen=True)
class Watched:
    """A server; one without a base URL is not started and has nothing to watch.

    Attributes:
        others: Further endpoints of the service, whose requests are counted together with its own.
    """

    server: Target
    others: tuple[Target, ...] = ()

    @property
    def local(self) -> bool:
        """Whether it is on this machine, with all others."""
        urls = [one.base_url for one in (self.server, *self.others)]
        return all(url and targets.is_loopback(url) for url in urls)

    @cached_property
    def pid(self) -> int | None:
        """As the server tells, else of the process that listens on its port."""
        if not self.local:
            return None
        return self.server.pid or telemetry.find_pid(self.server.base_url)

    @cached_property
    def pids(self) -> list[int]:
        """Of all endpoints' processes; none where one is not known: a part of what they use would be no figure."""
        found = [self.pid, *(one.pid or telemetry.find_pid(one.base_url) for one in self.others if self.local)]
        return [] if None in found else list(dict.fromkeys(pid for pid in found if pid is not None))

    @contextmanager
    def sampling(self, wanted: bool) -> Iterator[telemetry.Sampler | None]:
        """What takes samples of it and of this machine; None where none are wanted."""
        if not wanted:
            yield None
            return
        sampler = telemetry.Sampler(*self.pids)
        try:
            yield sampler
        finally:
            sampler.close()

    def facts(self, sampler: telemetry.Sampler | None) -> dict[str, Any] | None:
        """What run.json says of the samples; None where none are taken."""
        if sampler is None:
            return None
        several = {"server_pids": self.pids} if self.others else {}
        pid = self.pids[0] if self.pids else None
        return {"interval_s": INTERVAL_S, "local": self.local, "server_pid": pid, **several, **sampler.facts()}

    def memory_warnings(self, choice: Choice) -> list[str]:
        """A line for each model that is to be loaded and is larger than the memory that is free."""
        found = [self.memory_warning(one.facts) for one in choice.chosen if one.facts is not None]
        return [warning for warning in found if warning is not None]

    def memory_warning(self, facts: ModelFacts) -> str | None:
        """A line where a model that is to be loaded is larger than the memory that is free."""
        if not self.local or facts.loaded is not False:
            return None
        on_gpu = "GPU" in (facts.device or "")
        free_bytes = telemetry.gpu_free_memory_bytes() if on_gpu else telemetry.free_memory_bytes()
        return targets.free_memory_warning(facts, free_bytes)


@dataclass(frozen=True, slots=True)
class Shown:
    """Keeps samples, and shows each to the view."""

    keeps: Keeps
    view: View

    def add_sample(self, sample: Mapping[str, Any]) -> None:
        self.keeps.add_sample(sample)
        self.view.sampled(sample)
