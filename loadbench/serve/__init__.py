"""Servers of our own, each a child process: it reads its settings, writes once where it listens, ends with its caller.

The settings come as the first line of JSON on stdin, not as arguments: every user of the machine can read a command
line, and among the settings there may be a key. The caller's side is `machine.Child`.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import threading
from collections.abc import Callable, Mapping
from typing import Any

from loadbench.errors import LoadbenchError, UsageError

ORPHAN_CHECK_S = 0.5
_CALLER = os.getppid()  # as this is imported, which is before a model is loaded

Announce = Callable[[Mapping[str, object]], None]
Document = dict[str, Any]
"""JSON from another process, which becomes a record at once."""


def main(serve_child: Callable[[Document, Announce], None]) -> int:
    """Serve by the settings on stdin; the exit code.

    The first line on stdout says where it listens, or {"error", "exit_code"}. Whatever else is printed, by a model's
    own code too, goes to stderr: stdout carries one line, for a program.

    Args:
        serve_child: Takes the settings and what writes that line; returns when the server has stopped.
    """
    announcements = os.dup(1)
    os.dup2(2, 1)

    def announce(facts: Mapping[str, object]) -> None:
        os.write(announcements, json.dumps(facts).encode() + b"\n")

    try:
        line = b""
        while not line.endswith(b"\n") and not os.isatty(0) and (data := os.read(0, 65_536)):
            line += data  # unbuffered: the end of stdin is watched next
        if not line:
            raise UsageError("no settings on standard input: this is started by loadbench; run `loadbench serve`")
        serve_child(json.loads(line), announce)
    except LoadbenchError as error:
        announce({"error": str(error), "exit_code": error.exit_code})
        return error.exit_code
    except KeyboardInterrupt:  # before the server has handlers of its own
        return 130
    return 0


def stop_with_stdin(stop: Callable[[], None]) -> bool:
    """Call `stop` when whoever started this process has closed its stdin, or died; whether that is a pipe at all."""
    try:
        mode = os.fstat(0).st_mode
    except OSError:  # closed
        return False
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return False

    def wait() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 4096):  # not sys.stdin: its lock would be held at exit
                pass
        stop()

    # A thread, since Windows cannot poll a pipe; blocked in read it costs nothing.
    threading.Thread(target=wait, daemon=True).start()
    return True


def wait_until(stopped: threading.Event, *, with_caller: bool) -> None:
    """Wait for the event.

    Args:
        with_caller: Or until stdin ends, or the caller is gone: a forked relative of it may hold the pipe open.
    """
    # PR_SET_PDEATHSIG would not do: it fires when the *thread* that started us ends (man 2const PR_SET_PDEATHSIG), and
    # worker threads come and go.
    owned = with_caller and stop_with_stdin(stopped.set)
    while not stopped.wait(ORPHAN_CHECK_S) and not (owned and os.getppid() != _CALLER):
        pass


def check_ranges(**numbers: tuple[int, int, int]) -> None:
    """See that numbers are within their bounds: value, least and most, by the option that sets it.

    Raises:
        UsageError: The first that is not.
    """
    for name, (value, least, most) in numbers.items():
        if not least <= value <= most:
            raise UsageError(f"--{name} must be {least} to {most}, not {value}")


def near(host: str) -> str:
    """The address by which this machine reaches a server that listens at `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def base_url(host: str, port: int) -> str:
    """Where this machine reaches a server of ours.

    >>> base_url("0.0.0.0", 8080), base_url("::1", 8080)
    ('http://127.0.0.1:8080/v1', 'http://[::1]:8080/v1')
    """
    name = near(host)
    if ":" in name:
        name = f"[{name}]"
    return f"http://{name}:{port}/v1"
