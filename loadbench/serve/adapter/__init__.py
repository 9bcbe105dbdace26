"""A model of one's own behind the OpenAI API: an object with `load` and `generate`, served in a child process.

    with adapter.start("my_model:MyModel", "weights/", options={"threads": 2}) as server:
        run_against(server.url)

A model so never shares an interpreter with the load generator's clock. docs/adapter.md shows how to write an adapter,
echo.py is one; model.py finds, loads and calls it, server.py is the HTTP server.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadbench import machine
from loadbench.errors import LoadbenchError
from loadbench.serve.adapter.model import GROUP, Adapter, option
from loadbench.serve.chat import Message

__all__ = ["GROUP", "Adapter", "AdapterServer", "Message", "Settings", "option", "serve", "start"]

SLOTS = 1
QUEUE = 256
READY_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 5.0
_LOOK_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to serve, and where.

    Attributes:
        spec: `module:Class`, found in the working folder or installed, or a name of the group `loadbench.adapters`.
        weights, options: For the adapter's load; JSON.
        model: The id to serve under; None takes the adapter's own.
        slots, queue: Calls of generate at once; requests that wait, beyond which they get 429.
        api_key: What requests must carry as a bearer token, if anything.
    """

    spec: str
    weights: str | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    model: str | None = None
    slots: int = SLOTS
    queue: int = QUEUE
    host: str = "127.0.0.1"
    port: int = 0
    api_key: str | None = None


@dataclass(frozen=True, slots=True)
class AdapterServer:
    """A running server. `url` ends in /v1; `adapter` is its spec; `queue` is how many requests may wait for a slot."""

    url: str
    pid: int
    model: str
    adapter: str
    slots: int
    queue: int


@contextlib.contextmanager
def start(
    spec: str, weights: Path | str | None = None, *, timeout_s: float = READY_TIMEOUT_S, **settings: Any
) -> Iterator[AdapterServer]:
    """Load an adapter in a child process, yield the server once it answers, and end it surely.

    Ctrl-C reaches only the caller, who may still drain requests before it stops the server. Where the caller dies
    without a word, the child stops too.

    Args:
        timeout_s: For loading.
        settings: As of `Settings`.
    Raises:
        UsageError: No such adapter, or it does not take these options, or a number is out of range.
        LoadbenchError: The adapter's code raised or died, port in use, not ready in time.
    """
    weights = None if weights is None else str(weights)
    with _running(Settings(spec=spec, weights=weights, **settings), timeout_s, verbose=False) as (child, server):
        yield server
        if child.ended:
            ending = machine.exit_name(child.process.returncode)
            logging.getLogger(__name__).warning("the adapter ended by itself: %s", ending)


def serve(ready: Callable[[AdapterServer], None], settings: Settings) -> None:
    """Serve until Ctrl-C or SIGTERM; what the adapter writes is shown on stderr. Only for the main thread.

    Args:
        ready: Called once the server answers.
    Raises:
        LoadbenchError: As `start`; or the adapter's process died.
    """
    terminated = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with _running(settings, None, verbose=True) as (child, server):
            try:
                ready(server)
                while not child.ended:
                    time.sleep(_LOOK_S)  # a blocking wait would keep Ctrl-C out on Windows
            except KeyboardInterrupt:
                return
    finally:
        signal.signal(signal.SIGTERM, terminated)
    ending = machine.exit_name(child.process.returncode)
    raise LoadbenchError(f"the adapter {settings.spec} ended by itself: {ending}")


@contextlib.contextmanager
def _running(
    settings: Settings, timeout_s: float | None, *, verbose: bool
) -> Iterator[tuple[machine.Child, AdapterServer]]:
    # The working folder comes in only with the adapter (model.find).
    command = machine.python("loadbench.serve", "adapter.server")
    with machine.Child(command, stderr="shown" if verbose else None, patience_s=STOP_TIMEOUT_S) as child:
        child.send(dataclasses.asdict(settings))
        facts = child.announcement(
            timeout_s,
            late=f"{settings.spec} is not loaded after {timeout_s} s; `loadbench serve adapter` waits longer",
            died=f"{settings.spec} ended as it was loaded",
        )
        yield child, AdapterServer(**facts)
