"""The child processes that measure and ask.

A notebook or a server has threads and an event loop of its own, and signals that belong to it: a load generator beside
them in one interpreter would measure those too. So nothing is measured in the caller's process.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

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
    with _child("loadbench.cli.called") as child:
        child.send({"scenario": scenario, "words": list(words)})
        try:
            for line in child.stdout:
                told(orjson.loads(line))
            return child.process.wait(), child.complaints()
        except BaseException:
            child.hang_up()  # it drains and writes its report
            for _ in child.stdout:
                pass
            child.process.wait()
            raise


def command(words: Sequence[str]) -> bytes:
    """What `loadbench WORDS` writes on stdout.

    Raises:
        LoadbenchError: If it writes nothing there: what it said on stderr.
    """
    with _child("loadbench", *words) as child:
        try:
            out, _ = child.process.communicate()
        except BaseException:
            child.process.terminate()
            child.process.wait()
            raise
        if not out.strip():
            raise failure(child.process.returncode, child.complaints())
        return out


def failure(code: int, said: Sequence[str]) -> LoadbenchError:
    """The error that a child told on stderr."""
    text = said[-1].removeprefix("loadbench: ") if said else f"the child process ended with exit code {code}"
    return (UsageError if code == USAGE else LoadbenchError)(text)


def _child(module: str, *words: str) -> machine.Child:
    kept = {name: value for name, value in os.environ.items() if not _SETTINGS.match(name)}
    return machine.Child(machine.python(module, *words), variables=kept)
