"""The measured server's process, where it is on this machine: what is sampled of it, and whether a model will fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from loadbench import server as targets
from loadbench import telemetry
from loadbench.runner.session.watch import INTERVAL_S, Keeps
from loadbench.server import Choice, ModelFacts, Target

if TYPE_CHECKING:
    from loadbench.runner.view import View


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
