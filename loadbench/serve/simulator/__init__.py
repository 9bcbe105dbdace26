"""An OpenAI-compatible server with a declared timing law and declared faults, which reports what it really did.

It is the ruler that this project's accuracy is measured with:

    python -m loadbench.serve.simulator --ttft 50ms --itl 10ms --slots 4 --fault 429=0.01

prints one line of JSON, `{"url": "http://127.0.0.1:PORT/v1", "pid": …, "model": …}`, once it listens, and ends on
SIGTERM, SIGINT or the end of its standard input, if that is a pipe. `start` does so from Python and ends it surely.

    GET  /v1/models            POST /v1/chat/completions      GET /health
    GET  /truth                what it really did (counts.py)  POST /truth/reset, DELETE /truth: start counting anew

law.py declares, server.py runs the loop, stream.py sends answers, connection.py speaks HTTP, answer.py makes the bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loadbench.errors import LoadbenchError
from loadbench.serve.simulator import law as _law
from loadbench.serve.simulator.law import FAULTS, Law

__all__ = ["FAULTS", "Law", "Simulator", "main", "reset", "start", "truth"]

MODEL = "simulator"
_KEY = "LOADBENCH_SIMULATOR_KEY"
"""The variable that brings the child its key: what stands on a command line, every user of the machine can read."""


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
    **options: Any,
) -> Iterator[Simulator]:
    """Run a simulator in a child process for the length of a `with` block.

    Args:
        law: The law; or give its fields as `options`: `start(itl_ms=5, faults={"cut": 0.1})`.
        models: Ids it serves.
        api_key: What requests must carry as a bearer token, if anything.
        host, port: Where it listens; port 0 takes a free one.
        timeout_s: How long it may take to be ready.
    Raises:
        ValueError: If the law is out of range.
        LoadbenchError: If it did not come up; the message holds what it said.
    """
    import subprocess

    from loadbench import machine

    if law is not None and options:
        raise ValueError("give a law or its fields, not both")
    law = Law(**options) if law is None else law
    command = machine.python("loadbench.serve.simulator", "--host", host, "--port", str(port), *law.argv())
    command += [word for model in models for word in ("--model", model)]
    command += [] if api_key is None else ["--api-key-env", _KEY]
    variables = {**os.environ, **({} if api_key is None else {_KEY: api_key})}
    with machine.complaints() as complaints:
        process = machine.start(command, errors=complaints, variables=variables)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = machine.first_line(process, timeout_s)
            if not line:
                process.wait()
                complaints.seek(0)
                said = complaints.read().decode(errors="replace").strip()
                raise LoadbenchError(
                    f"the simulator did not come up within {timeout_s:g} s: {said or 'it said nothing'}"
                )
            yield Simulator(**json.loads(line))
        finally:
            process.stdin.close()  # which ends it
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


def truth(url: str, api_key: str | None = None) -> dict[str, Any]:
    """What the simulator at `url` (with or without /v1) reports it did; counts.Truth says what the fields mean."""
    return _call(url, "/truth", "GET", api_key)


def reset(url: str, api_key: str | None = None) -> None:
    """Start its counts anew."""
    _call(url, "/truth/reset", "POST", api_key)


def _call(url: str, path: str, method: str, api_key: str | None) -> dict[str, Any]:
    import urllib.request

    headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
    request = urllib.request.Request(url.rstrip("/").removesuffix("/v1") + path, method=method, headers=headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as response:
        found: dict[str, Any] = json.loads(response.read())
    return found


def main(
    argv: Sequence[str] | None = None,
    *,
    prog: str = "python -m loadbench.serve.simulator",
    ready: Callable[[Mapping[str, Any]], None] | None = None,
    api_key: str | None = None,
) -> int:
    """Serve until SIGTERM, SIGINT or the end of standard input; the exit code.

    Args:
        argv: Options without the program's name; None takes the process's.
        prog: The program's name in help and errors.
        ready: Called with url, pid and model once it listens, instead of printing them as a line of JSON.
        api_key: What requests must carry as a bearer token; unset, what the variable of --api-key-env holds.
    """
    parser = argparse.ArgumentParser(prog=prog, description="An OpenAI-compatible server with a declared timing law.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on (default 0: a free one)")
    parser.add_argument("--model", action="append", dest="models", metavar="ID", help="model id, may be repeated")
    parser.add_argument("--api-key-env", metavar="NAME", help="demand the bearer token that this variable holds")
    _law.add_options(parser)
    options = parser.parse_args(argv)
    try:
        law = _law.from_options(options)
    except ValueError as error:
        parser.error(str(error))
    key = api_key or (os.environ.get(options.api_key_env) if options.api_key_env else None)
    if options.api_key_env and not key:
        parser.error(f"--api-key-env {options.api_key_env}: that environment variable is not set")
    from loadbench.serve.simulator.server import Server

    _raise_file_limit()
    models = options.models or [MODEL]
    try:
        server = Server(law, models, options.host, options.port, key, f"loadbench-simulator/{_version()}")
    except OSError as error:
        sys.stderr.write(f"{prog}: cannot listen on {options.host}:{options.port}: {error.strerror}\n")
        return 1
    for name in ("SIGTERM", "SIGINT", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: None)
    signal.set_wakeup_fd(server.wake_descriptor, warn_on_full_buffer=False)
    _stop_with_stdin(server.stop)
    host = f"[{options.host}]" if ":" in options.host else options.host
    facts = {"url": f"http://{host}:{server.port}/v1", "pid": os.getpid(), "model": models[0]}
    if ready is None:
        sys.stdout.write(json.dumps(facts) + "\n")
        sys.stdout.flush()
    else:
        ready(facts)
    server.serve()
    return 0


def _version() -> str:
    import loadbench

    return str(getattr(loadbench, "__version__", "0"))


def _raise_file_limit() -> None:
    """A descriptor for every connection: take as many as the system grants."""
    if sys.platform == "win32":
        return
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _stop_with_stdin(stop: Callable[[], None]) -> None:
    """Stop when whoever started this process has closed its standard input, or died; only if that is a pipe."""
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return

    def wait() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        stop()

    # A thread, since Windows cannot poll a pipe; blocked in read it costs nothing.
    threading.Thread(target=wait, daemon=True).start()
