"""Fakes for a model's turn: a server that loads and unloads, a client that answers, a watch that remembers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from loadbench.client import Ask
from loadbench.errors import TargetError
from loadbench.prompts import DEFAULT
from loadbench.runner.turn import Origin, Turn
from loadbench.runner.watch import Watch
from loadbench.scenario import Scenario
from loadbench.server import Chosen, ModelFacts
from loadbench.store.record import Result
from tests.support.streams import failed, stream


@dataclass
class Story:
    """What happened to whom, in order."""

    told: list[str] = field(default_factory=list)
    asks: list[Ask] = field(default_factory=list)
    slept_s: list[float] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    memory_bytes: int = 100

    def add_sample(self, sample: Mapping[str, Any]) -> None:
        self.samples.append(dict(sample))
        self.told.append(f"sample {sample['phase']}")


@dataclass
class Loads:
    """A server that loads models: 800 bytes more while one is loaded, 50 of which it never gives back."""

    story: Story
    refuses: str | None = None
    runs: ModelFacts | None = None

    async def load(self, model: ModelFacts) -> None:
        if self.refuses:
            raise TargetError(self.refuses)
        self.story.told.append("load")
        self.story.memory_bytes += 800

    async def unload(self, model: ModelFacts) -> None:
        self.story.told.append("unload")
        self.story.memory_bytes -= 750

    async def running(self, model: ModelFacts) -> ModelFacts | None:
        return self.runs


@dataclass
class Answers:
    """A client whose requests fail as told, one after the other, then succeed."""

    story: Story
    failures: list[str | None] = field(default_factory=list)
    name: str | None = None

    async def chat(self, ask: Ask, origin_ns: int, done: Callable[[Result], None], *, keep: bool = True) -> None:
        error = self.failures[len(self.story.asks)] if len(self.story.asks) < len(self.failures) else None
        self.story.asks.append(ask)
        self.story.told.append("ping" if ask.prompt.max_tokens == 1 else "ask")
        made = failed(ask.request, error=error) if error else stream(ask.request)
        done(replace(made, level=ask.level, prompt=ask.prompt.id, warmup=True))

    def served_as(self, model: str) -> str | None:
        return self.name

    def text_events_in_flight(self) -> int:
        return 0


class Watcher:
    """Remembers notes and probes."""

    def __init__(self, story: Story) -> None:
        self._story = story

    def note(self, text: str) -> None:
        self._story.notes.append(text)

    def probed(self, probe: Mapping[str, Any]) -> None: ...


class Sampler:
    """Says how much memory the server has."""

    def __init__(self, story: Story) -> None:
        self._story = story

    def sample(self) -> dict[str, Any]:
        return {"server": {"memory_bytes": self._story.memory_bytes}, "gpus": [], "cpu_energy_j": 3.0}


def turn_of(
    story: Story,
    facts: ModelFacts | None,
    *,
    control: Loads | None = None,
    failures: list[str | None] | None = None,
    served_as: str | None = None,
    interrupted_after: int | None = None,
    origin: Origin | None = None,
    **asked: Any,
) -> Turn:
    """A turn of one model; `interrupted_after` so many sleeps the user ends the run."""

    async def sleep(seconds: float) -> bool:
        story.slept_s.append(seconds)
        return interrupted_after is None or len(story.slept_s) <= interrupted_after

    scenario = Scenario(**asked)
    device = "GPU" if scenario.device == ["gpu"] else None
    chosen = Chosen(facts.id if facts else "m", "m", facts, device, scenario.execution_provider)
    watch = Watch(story, Sampler(story), now_s=lambda: 0.0)
    client = Answers(story, failures or [], served_as)
    return Turn(chosen, scenario, DEFAULT, client, control, watch, Watcher(story), sleep, [], origin or Origin(), 1)
