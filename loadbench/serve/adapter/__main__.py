"""The child process: `python -m loadbench.serve.adapter SPEC`; people want `loadbench serve adapter`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import stat
import sys
import threading
from collections.abc import Sequence

from loadbench.errors import LoadbenchError, UsageError
from loadbench.serve.adapter.child import QUEUE, SLOTS, AdapterServer
from loadbench.serve.adapter.lookup import find
from loadbench.serve.adapter.model import Model, option
from loadbench.serve.adapter.server import Server
from loadbench.serve.adapter.slots import Slots

ORPHAN_CHECK_S = 0.5
DRAIN_S = 1.0


def main(argv: Sequence[str] | None = None) -> int:
    """Load and serve; the first line on stdout says where, or what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m loadbench.serve.adapter", description=__doc__)
    parser.add_argument("spec", help="module:Class, or the name of an installed adapter")
    parser.add_argument("weights", nargs="?", help="what its load is given first")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="for its load; JSON or text")
    parser.add_argument("--model", help="the model id to serve under")
    parser.add_argument("--slots", type=int, default=SLOTS, help="answers generated at once (default %(default)s)")
    parser.add_argument("--queue", type=int, default=QUEUE, help="requests that may wait (default %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one (default)")
    parser.add_argument("--api-key-env", metavar="NAME", help="demand the bearer token that this variable holds")
    given = parser.parse_args(argv)
    # The adapter's prints belong on stderr: our stdout carries one line, for a program.
    announcements = os.dup(1)
    os.dup2(2, 1)
    try:
        _serve(given, announcements)
    except LoadbenchError as error:
        _announce(announcements, {"error": str(error), "exit_code": error.exit_code})
        return error.exit_code
    except KeyboardInterrupt:  # while loading
        return 130
    return 0


def _serve(given: argparse.Namespace, announcements: int) -> None:
    for name, least, most in (("slots", 1, 1024), ("queue", 0, 65_536), ("port", 0, 65_535)):
        if not least <= getattr(given, name) <= most:
            raise UsageError(f"--{name} must be {least} to {most}, not {getattr(given, name)}")
    parent = os.getppid()
    # Taken out of the environment: the adapter's code need not see it.
    key = os.environ.pop(given.api_key_env) if given.api_key_env else None
    server = Server(
        given.host, given.port, key
    )  # before the model, which may take minutes, so that a taken port is told
    options = dict(map(option, given.option))
    model = Model(find(given.spec), given.spec, given.weights, options, given.model)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    server.listen(model, Slots(given.slots, given.queue))
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(given.host, given.host)
    url = f"http://{f'[{near}]' if ':' in near else near}:{server.server_port}/v1"
    facts = AdapterServer(url, os.getpid(), model.id, given.spec, given.slots, given.queue)
    _announce(announcements, dataclasses.asdict(facts))

    owned = _stdin_is_pipe()
    if owned:
        threading.Thread(target=_await_eof, args=(stopped,), daemon=True).start()
    # A forked relative may hold the pipe open, so the parent's id is watched too.
    while not stopped.wait(ORPHAN_CHECK_S) and not (owned and os.getppid() != parent):
        pass
    if not server.stop(DRAIN_S):
        os._exit(0)  # a model that still computes must not be unloaded under its own feet
    model.unload()


def _announce(descriptor: int, facts: dict[str, object]) -> None:
    os.write(descriptor, json.dumps(facts).encode() + b"\n")


def _stdin_is_pipe() -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(0).st_mode)
    except OSError:  # closed
        return False


def _await_eof(stopped: threading.Event) -> None:
    while os.read(0, 4096):  # not sys.stdin: its lock would be held at exit
        pass
    stopped.set()


if __name__ == "__main__":
    sys.exit(main())
