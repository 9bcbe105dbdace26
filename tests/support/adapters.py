"""Adapters and their server, in this process, for several test modules."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import httpx

from loadbench.serve.adapter.model import Model
from loadbench.serve.adapter.server import Server, Slots

BODY = {"model": "echo", "messages": [{"role": "user", "content": "to be or not"}]}


class Scripted:
    """Yields what it is given; an exception among it is raised, an event is waited for.

    Attributes:
        calls: Of generate.
        yielded: Pieces in all.
        closed: Set as a generator ends, however it does.
    """

    def __init__(self, *script: Any) -> None:
        self.script: Iterable[Any] = script
        self.closed = threading.Event()

    def load(self, weights_path: str | None) -> None:
        self.calls = self.yielded = 0

    def info(self) -> dict[str, Any]:
        return {"id": "echo"}

    def generate(self, messages: Any) -> Iterator[str]:
        self.calls += 1
        try:
            for step in self.script:
                if isinstance(step, BaseException):
                    raise step
                if isinstance(step, threading.Event):
                    assert step.wait(10)
                else:
                    self.yielded += 1
                    yield step
        finally:
            self.closed.set()


@contextlib.contextmanager
def serving(adapter: Any, slots: int = 1, queue: int = 8, **options: Any) -> Iterator[str]:
    """The root URL of a server in this process."""
    server = Server("127.0.0.1", 0)
    server.listen(Model(adapter, "test", None, options), Slots(slots, queue, check_s=0.01))
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        assert server.stop(3)  # less than a client's own patience


def chat(root: str, **changes: Any) -> httpx.Response:
    return httpx.post(f"{root}/v1/chat/completions", json=BODY | changes)


def until(root: str, **wanted: int) -> None:
    """Wait until the server tells of so many in flight or waiting."""
    give_up = time.monotonic() + 5
    while not wanted.items() <= (now := httpx.get(f"{root}/health").json()).items():
        assert time.monotonic() < give_up, now
        time.sleep(0.002)
