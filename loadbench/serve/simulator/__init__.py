"""An OpenAI-compatible server with a declared timing law and declared faults, which reports what it really did.

It is the ruler that this project's accuracy is measured with:

    with simulator.start(itl_ms=5, faults={"cut": 0.1}) as server:
        run_against(server.url)

    GET  /v1/models            POST /v1/chat/completions      GET /health
    GET  /truth                what it really did (stream.Truth)   POST /truth/reset, DELETE /truth: start counting anew

law.py declares, server.py runs the loop, stream.py decides what is due when and counts it, connection.py speaks HTTP,
answer.py makes the bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from loadbench import machine
from loadbench.errors import LoadbenchError
from loadbench.serve import Announce, Document, base_url, stop_with_stdin
from loadbench.serve.simulator.law import FAULTS, Law

__all__ = ["FAULTS", "MODEL", "Law", "Simulator", "reset", "serve", "start", "truth"]

MODEL = "simulator"
STOP_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Simulator:
    """A running simulator: its base URL, which ends in /v1, its process, and the first of its models."""

    url: str
    pid: int
    model: str


@contextlib.contextmanager
def start(
    law: Law | None = None,
    *,
    models: Sequence[str] = (MODEL,),
    api_key: str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    timeout_s: float = 20.0,
    **fields: Any,
) -> Iterator[Simulator]:
    """Run a simulator in a child process for the length of a `with` block.

    Args:
        law: The law; or give its fields: `start(itl_ms=5, faults={"cut": 0.1})`.
        api_key: What requests must carry as a bearer token, if anything.
        port: 0 takes a free one.
        timeout_s: How long it may take to be ready.
    Raises:
        ValueError: If the law is out of range.
        LoadbenchError: If it did not come up.
    """
    if law is not None and fields:
        raise ValueError("give a law or its fields, not both")
    law = law or Law(**fields)
    settings = {"law": law.to_builtins(), "models": list(models), "api_key": api_key, "host": host, "port": port}
    with machine.Child(machine.python("loadbench.serve", "simulator"), patience_s=STOP_TIMEOUT_S) as child:
        child.send(settings)
        facts = child.announcement(
            timeout_s,
            late=f"the simulator did not come up within {timeout_s:g} s",
            died="the simulator ended as it started",
        )
        yield Simulator(**facts)


def serve(
    ready: Callable[[Simulator], None],
    law: Law,
    *,
    models: Sequence[str] = (),
    host: str = "127.0.0.1",
    port: int = 0,
    api_key: str | None = None,
) -> None:
    """Serve in this process until SIGTERM, SIGINT or the end of standard input, if that is a pipe.

    Args:
        ready: Called once it listens.
    Raises:
        LoadbenchError: The port is taken, or the address not this machine's.
    """
    import loadbench
    from loadbench.serve.simulator.server import Server

    if sys.platform != "win32":
        import resource

        # A descriptor for every connection: as many as the system grants.
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    models = models or (MODEL,)
    try:
        server = Server(law, models, host, port, api_key, f"loadbench-simulator/{loadbench.__version__}")
    except OSError as error:
        raise LoadbenchError(f"cannot listen on {host}:{port}: {error.strerror or error}; try --port 0") from error
    for name in ("SIGTERM", "SIGINT", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: None)
    signal.set_wakeup_fd(server.wake_descriptor, warn_on_full_buffer=False)
    stop_with_stdin(server.stop)
    ready(Simulator(url=base_url(host, server.port), pid=os.getpid(), model=models[0]))
    server.serve()


def serve_child(settings: Document, announce: Announce) -> None:
    law = Law.from_builtins(settings.pop("law"))
    serve(lambda server: announce(dataclasses.asdict(server)), law, **settings)


def truth(url: str, api_key: str | None = None) -> Document:
    """What the simulator at `url` (with or without /v1) reports it did; stream.Truth says what the fields mean."""
    return _call(url, "/truth", "GET", api_key)


def reset(url: str, api_key: str | None = None) -> None:
    """Start its counts anew."""
    _call(url, "/truth/reset", "POST", api_key)


def _call(url: str, path: str, method: str, api_key: str | None) -> Document:
    headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
    request = urllib.request.Request(url.rstrip("/").removesuffix("/v1") + path, method=method, headers=headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as response:
        document: Document = json.loads(response.read())
    return document
