"""Foundry Local's runtime as `serve.foundry` offers it, without the SDK: a catalogue and scripted downloads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from loadbench.serve import foundry
from loadbench.server import ModelFacts

FOREVER = "forever"
"""In a download's script: nothing comes any more, until it is cancelled."""

Step = float | Exception | str


@dataclass(slots=True)
class FakeRuntime:
    """A runtime with these models.

    Attributes:
        downloads: What each download does in turn: per cents to tell, an error to raise, `FOREVER`.
        removed, registered, loaded, ports: What it was told.
        refuses: Raised by a load.
        root: Where it says that it serves.
        cancelled: Downloads that were cancelled, by the model's id.
    """

    facts: list[ModelFacts]
    downloads: list[Sequence[Step]] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    registered: list[tuple[Path, str | None]] = field(default_factory=list)
    thoughts: list[Sequence[str] | None] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)
    refuses: Exception | None = None
    root: str = "http://127.0.0.1:9"
    waiting: threading.Event = field(default_factory=threading.Event)
    pid: int = os.getpid()
    version: str = "2.2.1"

    def models(self) -> list[ModelFacts]:
        return list(self.facts)

    def pull(self, id: str, progress: Callable[[float], None], cancelled: threading.Event) -> None:
        for step in self.downloads.pop(0):
            if isinstance(step, Exception):
                raise step
            if isinstance(step, str):
                self.waiting.set()
                cancelled.wait()
                self.cancelled.append(id)
                return
            progress(step)
        self.facts = [replace(one, cached=True) if one.id == id else one for one in self.facts]

    def serve(self, port: int = 0) -> str:
        self.ports.append(port)
        return self.root

    def load(self, id: str) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.loaded.append(id)

    def wait(self) -> None:
        """Until Ctrl-C, which comes at once."""
        raise KeyboardInterrupt

    def remove(self, id: str) -> None:
        self.removed.append(id)

    def register(self, path: Path, name: str | None, reasoning: Sequence[str] | None = None) -> ModelFacts:
        self.registered.append((path, name))
        self.thoughts.append(reasoning)
        return ModelFacts(f"{name or path.name}:1", aliases=(name or path.name,), cached=True)


def install(monkeypatch: pytest.MonkeyPatch, runtime: FakeRuntime) -> list[Path | None]:
    """Put the runtime in the SDK's place; the list gets the cache folder of each start."""
    caches: list[Path | None] = []

    @contextmanager
    def start(
        *, cache: Path | None = None, catalog_url: str | None = None, progress: Callable[[str], None] | None = None
    ) -> Iterator[FakeRuntime]:
        caches.append(cache)
        yield runtime

    monkeypatch.setattr(foundry, "available", lambda: None)
    monkeypatch.setattr(foundry, "start", start)
    return caches
