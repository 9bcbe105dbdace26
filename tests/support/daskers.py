"""A Dask scheduler and workers as people start them, each a process, some in a network namespace of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

_ADDRESS = re.compile(r"Scheduler at:\s+(\S+)")
_REGISTERED = re.compile(r"Registered to:")
QUIET = {"DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False"}


@contextmanager
def _process(words: Sequence[str], until: re.Pattern[str], variables: Mapping[str, str], log: Path) -> Iterator[str]:
    """A process that runs once a line of its log says so; what the line says."""
    with log.open("wb") as out:
        process = subprocess.Popen(words, stdout=out, stderr=out, env={**os.environ, **QUIET, **variables})
    try:
        yield _said(process, until, log)
    finally:
        process.kill()
        process.wait()


def _said(process: subprocess.Popen[bytes], until: re.Pattern[str], log: Path) -> str:
    while True:
        text = log.read_text()
        if found := until.search(text):
            return found[found.lastindex or 0]
        try:
            process.wait(timeout=0.1)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(f"it ended: {text}")


@contextmanager
def running(
    folder: Path,
    hosts: Sequence[Sequence[str]] = ((), ()),
    *,
    host: str = "127.0.0.1",
    protocol: str = "tcp",
    variables: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """A scheduler and a worker for each of `hosts`; the scheduler's address.

    Args:
        hosts: What stands before a worker's command, as `ip netns exec NAME`.
    """
    words = ("--host", host, "--port", "0", "--no-dashboard", "--protocol", protocol)
    with ExitStack() as stack:
        address = stack.enter_context(
            _process(
                [sys.executable, "-m", "distributed.cli.dask_scheduler", *words],
                *(_ADDRESS, variables or {}, folder / "scheduler.log"),
            )
        )
        for number, before in enumerate(hosts, start=1):
            own = ("--nthreads", "1", "--no-dashboard", "--no-nanny", "--local-directory", str(folder))
            stack.enter_context(
                _process(
                    [*before, sys.executable, "-m", "distributed.cli.dask_worker", address, *own],
                    *(_REGISTERED, variables or {}, folder / f"worker{number}.log"),
                )
            )
        yield address
