"""The child processes that measure and ask.

A notebook or a server has threads and an event loop of its own, and signals that belong to it: a load generator beside
them in one interpreter would measure those too. So nothing is measured in the caller's process.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

import orjson

from loadbench import machine
from loadbench.errors import LoadbenchError, UsageError

USAGE = 2
_SETTINGS = re.compile(r"LOADBENCH_|BENCH_|RETRY_(ON_FAIL|BACKOFF)$")
"""Variables that stand for options. A call says all that counts; keys and endpoints are still found."""


def measure(
    scenario: Mapping[str, Any], words: Sequence[str], told: Callable[[dict[str, Any]], None]
) -> tuple[int, list[str]]:
    """Run a scenario; the exit code of `loadbench run`, and what it said on stderr.

    Args:
        scenario: As plain data.
        words: Options of `loadbench run`.
        told: Called with each event that it tells.
    Raises:
        KeyboardInterrupt: As it came, once the run has drained and is on disk; a second one stops it at once.
    """
    with machine.complaints() as errors:
        child = _start(["loadbench.cli.called"], errors)
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # it failed as it started: stderr says why
                child.stdin.write(orjson.dumps({"scenario": scenario, "words": list(words)}) + b"\n")
                child.stdin.flush()
            for line in child.stdout:
                told(orjson.loads(line))
            child.wait()
        except BaseException:
            _end(child)
            raise
        finally:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()
        return child.returncode, _said(errors)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Let the child drain and write its report."""
    assert child.stdin is not None
    assert child.stdout is not None
    with contextlib.suppress(OSError):
        child.stdin.close()
    for _ in child.stdout:
        pass
    child.wait()


def command(words: Sequence[str]) -> bytes:
    """What `loadbench WORDS` writes on stdout.

    Raises:
        LoadbenchError: If it writes nothing there: what it said on stderr.
    """
    with machine.complaints() as errors:
        child = _start(["loadbench", *words], errors)
        try:
            out, _ = child.communicate()
        except BaseException:
            child.terminate()
            child.wait()
            raise
        if not out.strip():
            raise failure(child.returncode, _said(errors))
        return out


def failure(code: int, said: Sequence[str]) -> LoadbenchError:
    """The error that a child told on stderr."""
    text = said[-1].removeprefix("loadbench: ") if said else f"the child process ended with exit code {code}"
    return (UsageError if code == USAGE else LoadbenchError)(text)


def _start(module: Sequence[str], errors: IO[bytes]) -> subprocess.Popen[bytes]:
    kept = {name: value for name, value in os.environ.items() if not _SETTINGS.match(name)}
    return machine.start(machine.python(*module), errors=errors, variables=kept)


def _said(errors: IO[bytes]) -> list[str]:
    errors.seek(0)
    return [line for line in errors.read().decode(errors="replace").splitlines() if line.strip()]
