"""The server in a child process, so that a model never shares an interpreter with the load generator's clock."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadbench.errors import LoadbenchError, UsageError

SLOTS = 1
QUEUE = 256
READY_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 5.0
_LOOK_S = 0.2
_KEY = "LOADBENCH_ADAPTER_KEY"
"""The variable that brings the child its key: what stands on a command line, every user of the machine can read."""


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
def start(spec: str, weights: Path | str | None = None, **settings: Any) -> Iterator[AdapterServer]:
    """Load an adapter in a child process, yield the server once it answers, and end it surely.

    The child has a session of its own: Ctrl-C reaches only the caller, who may still drain requests before it stops
    the server. Where the caller dies without a word, the child sees its stdin end and stops.

    Args:
        spec: `module:Class`, found in the working folder or installed, or a name of the group `loadbench.adapters`.
        weights: For the adapter's load.
        settings: As of `running`.
    Raises:
        UsageError: No such adapter, or it does not take these options, or a number is out of range.
        LoadbenchError: The adapter's code raised or died, port in use, not ready in time.
    """
    with running(spec, weights, **settings) as (child, server):
        yield server
        if child.poll() is not None:
            logging.getLogger(__name__).warning("the adapter ended by itself: %s", _ending(child.returncode))


def serve(
    ready: Callable[[AdapterServer], None], spec: str, weights: Path | str | None = None, **settings: Any
) -> None:
    """Serve until Ctrl-C or SIGTERM; what the adapter writes is shown on stderr. Only for the main thread.

    Args:
        ready: Called once the server answers.
        settings: As of `running`.
    Raises:
        LoadbenchError: As `start`; or the adapter's process died.
    """
    terminated = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with running(spec, weights, verbose=True, timeout_s=None, **settings) as (child, server):
            try:
                ready(server)
                while child.poll() is None:
                    time.sleep(_LOOK_S)  # a blocking wait would keep Ctrl-C out on Windows
            except KeyboardInterrupt:
                return
    finally:
        signal.signal(signal.SIGTERM, terminated)
    raise LoadbenchError(f"the adapter {spec} ended by itself: {_ending(child.returncode)}")


@contextlib.contextmanager
def running(
    spec: str,
    weights: Path | str | None,
    *,
    options: Mapping[str, Any] | None = None,
    model: str | None = None,
    slots: int = SLOTS,
    queue: int = QUEUE,
    host: str = "127.0.0.1",
    port: int = 0,
    api_key: str | None = None,
    verbose: bool = False,
    timeout_s: float | None = READY_TIMEOUT_S,
) -> Iterator[tuple[subprocess.Popen[bytes], AdapterServer]]:
    """The child and what it announced; raises as `start`.

    Args:
        options: For the adapter's load; JSON.
        model: The id to serve under; None takes the adapter's own.
        slots, queue: Calls of generate at once; requests that wait, beyond which they get 429.
        api_key: What requests must carry as a bearer token, if anything.
        verbose: Show what the adapter writes to stdout and stderr, on stderr.
        timeout_s: For loading; None waits for ever.
    """
    from loadbench import machine

    words = {"--model": model, "--slots": slots, "--queue": queue, "--host": host, "--port": port}
    words |= {} if api_key is None else {"--api-key-env": _KEY}
    command = machine.python("loadbench.serve.adapter")
    command += [f"{name}={value}" for name, value in words.items() if value is not None]
    command += [f"--option={key}={json.dumps(value, default=str)}" for key, value in (options or {}).items()]
    # The working folder comes in only with the adapter (lookup.py).
    variables = {**os.environ, **({} if api_key is None else {_KEY: api_key})}
    command += ["--", spec, *([] if weights is None else [str(weights)])]
    with (
        machine.complaints() as errors,
        machine.start(command, errors=None if verbose else errors, variables=variables) as child,
    ):
        patience_s = 0.0
        try:
            line = machine.first_line(child, timeout_s)
            if line is None:
                raise LoadbenchError(
                    f"{spec} is not loaded after {timeout_s:g} s; `loadbench serve adapter` waits longer"
                )
            if not line:
                ending = _ending(child.wait())
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip().splitlines()[-1:]
                raise LoadbenchError(": ".join([f"{spec} ended as it was loaded, with {ending}", *said]))
            announced = json.loads(line)
            if "error" in announced:
                raise (UsageError if announced["exit_code"] == 2 else LoadbenchError)(announced["error"])
            patience_s = STOP_TIMEOUT_S
            yield child, AdapterServer(**announced)
        finally:
            _stop(child, patience_s)


def _ending(returncode: int) -> str:
    """An exit code, or the signal's name."""
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return signal.Signals(-returncode).name
    except ValueError:  # a real-time signal
        return f"signal {-returncode}"


def _stop(child: subprocess.Popen[bytes], patience_s: float) -> None:
    """The end of its stdin asks it to stop, on every system; then it is killed."""
    assert child.stdin is not None
    child.stdin.close()
    try:
        child.wait(patience_s)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
