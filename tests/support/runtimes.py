"""Foundry Local's real runtime for tests: in a child process, offline, in a home and a cache folder of its own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from loadbench.serve import foundry
from loadbench.serve.foundry import Runtime
from tests.support import catalogue

_WHY_NOT = foundry.available()
needs_sdk = pytest.mark.skipif(_WHY_NOT is not None, reason=_WHY_NOT or "")
"""For modules that need the extra `foundry`, which `make setup` installs wherever it has wheels."""


@dataclass(frozen=True, slots=True)
class Started:
    """A runtime, its folders, and what it told meanwhile."""

    runtime: Runtime
    cache: Path
    notes: list[str]


@contextlib.contextmanager
def started(folder: Path, variants: Sequence[catalogue.Variant] = (), placed: Sequence[Any] = ()) -> Iterator[Started]:
    """A runtime with a public catalogue of these variants.

    Args:
        placed: Variants that are on the disk already.
    """
    with pytest.MonkeyPatch.context() as patch:
        home(patch, folder)
        for variant in placed:
            catalogue.place(folder / "cache", variant)
        notes: list[str] = []
        with (
            catalogue.serving(variants) as url,
            foundry.start(cache=folder / "cache", catalog_url=url, progress=notes.append) as runtime,
        ):
            yield Started(runtime, folder / "cache", notes)


def home(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Where the runtime writes its logs."""
    patch.setenv("HOME", str(folder))
    patch.setenv("USERPROFILE", str(folder))


def chat(base_url: str, model: str, text: str = "Hello", **more: Any) -> httpx.Response:
    """One chat, not streamed."""
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 5, **more}
    return httpx.post(f"{base_url}/chat/completions", json=body, timeout=20)


def ends(pid: int, within_s: float = 8.0) -> bool:
    """Whether the process is gone, or a zombie, in time."""
    return until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, within_s)


def until(there: Callable[[], bool], within_s: float) -> bool:
    """Whether it comes true in time."""
    give_up = time.monotonic() + within_s
    with contextlib.suppress(psutil.NoSuchProcess):
        while not there():
            if time.monotonic() > give_up:
                return False
            time.sleep(0.02)
    return True
