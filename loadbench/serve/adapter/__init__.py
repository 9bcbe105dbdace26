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
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from loadbench import machine
from loadbench.errors import LoadbenchError
from loadbench.serve.adapter.model import GROUP, option
from loadbench.serve.chat import Message

__all__ = ["GROUP", "Adapter", "AdapterServer", "Message", "PromptAdapter", "Settings", "option", "serve", "start"]

SLOTS = 1
QUEUE = 256
READY_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 5.0
_LOOK_S = 0.2


class Adapter(Protocol):
    """A model that takes the conversation and yields its answer piece by piece. No base class is needed.

    It may have, beside these two:

    - ``unload() -> None``: called once, as the server stops, when no generation runs any more.
    - ``info() -> dict``: called once, after `load`. Known keys: ``id``, ``context`` (tokens, prompt and answer
      together), ``device`` (CPU, GPU, NPU), ``execution_provider``, ``licence``, ``quantization``, ``size_bytes``
      (default: of the files at `weights_path`); whatever else is there is passed on in ``/v1/models``.
    - ``count_tokens(text: str) -> int``: by the model's tokenizer; for usage where `generate` does not tell.
    """

    def load(self, weights_path: str | None, *args: Any, **options: Any) -> object:
        """Make the model ready; called once, before the server listens. What it returns is ignored.

        Args:
            weights_path: As given on the command line; None where none was.
            options: Of ``--option KEY=VALUE``. One that the signature does not take is refused.
        """
        ...

    def generate(self, messages: list[Message], *args: Any, **params: Any) -> Iterable[str]:
        """Yield the answer as it comes, best one piece a token; every piece is sent at once.

        Called from many threads, at most `--slots` at a time; one call stays in one thread. When the client hangs up
        or the server stops, the generator is closed: GeneratorExit is raised at its ``yield``, and ``finally`` runs.

        A generator may end with ``return {"prompt_tokens": 21, "completion_tokens": 5, "finish_reason": "length"}``,
        each of them optional: only the model knows these exactly. Without, `count_tokens` is asked; without that
        too, no usage is sent, since a number of pieces is not a number of tokens.

        Args:
            messages: At least one.
            params: What the request's body has beside model, messages and streaming: ``max_tokens``, ``temperature``,
                ``stop``, ``seed``, …; nulls left out. Without ``**params``, only those that the signature names.
        Raises:
            Exception: Any: the client gets status 500, or an error event in a stream that has begun.
        """
        ...


class PromptAdapter(Protocol):
    """The plain form: text in, whole text out. It is told by the name of generate's first parameter, ``prompt``.

    The prompt is the user's message alone where there is only that one; else all turns, each under its role, with
    ``Assistant:`` at the end. An iterator may be returned here as well, as a ``str`` may be above. A call that returns
    a ``str`` cannot be interrupted: it holds its slot until it returns, and its first token is its last.
    """

    def load(self, weights_path: str | None, *args: Any, **options: Any) -> object:
        """As above."""
        ...

    def generate(self, prompt: str, *args: Any, **params: Any) -> str | Iterable[str]:
        """The answer as a whole."""
        ...


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
    spec: str,
    weights: Path | str | None = None,
    *,
    options: Mapping[str, object] | None = None,
    model: str | None = None,
    slots: int = SLOTS,
    queue: int = QUEUE,
    port: int = 0,
    api_key: str | None = None,
    timeout_s: float = READY_TIMEOUT_S,
) -> Iterator[AdapterServer]:
    """Load an adapter in a child process, yield the server once it answers, and end it surely.

    Ctrl-C reaches only the caller, who may still drain requests before it stops the server. Where the caller dies
    without a word, the child stops too.

    Args:
        spec, weights, options, model, slots, queue, port, api_key: As of `Settings`.
        timeout_s: For loading.
    Raises:
        UsageError: No such adapter, or it does not take these options, or a number is out of range.
        LoadbenchError: The adapter's code raised or died, port in use, not ready in time.
    """
    settings = Settings(
        spec=spec,
        weights=None if weights is None else str(weights),
        options=options or {},
        model=model,
        slots=slots,
        queue=queue,
        port=port,
        api_key=api_key,
    )
    with _running(settings, timeout_s, verbose=False) as (child, server):
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
    """The child and what it announced; raises as `start`."""
    # The working folder comes in only with the adapter (model.find).
    with machine.Child(
        machine.python("loadbench.serve.adapter"), stderr="shown" if verbose else None, patience_s=STOP_TIMEOUT_S
    ) as child:
        child.send(dataclasses.asdict(settings))
        spec = settings.spec
        facts = child.announcement(
            timeout_s,
            late=f"{spec} is not loaded after {timeout_s} s; `loadbench serve adapter` waits longer",
            died=f"{spec} ended as it was loaded",
        )
        yield child, AdapterServer(**facts)
