"""Command lines in processes of their own that start within a few ms: forked from one that has loadbench imported.

What is killed, stopped or starved in a test is a real `loadbench`, but for its imports, which are done.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
OURS = ("LOADBENCH_", "BENCH_", "FOUNDRY_", "RETRY_", "API_KEY")
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
GIVE_UP_S = 60.0
PRELOADED = (
    *("anyio._backends._asyncio", "anyio.streams.tls", "uvloop", "rich._emoji_codes", "encodings.idna"),
    *(f"loadbench.{name}" for name in ("select", "report.exports", "report.html", "report.markdown", "report.text")),
    *(f"loadbench.cli.{name}" for name in ("job", "run")),
)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: its exit code, or minus the signal that killed it; what it printed."""

    code: int
    out: str
    err: str


@dataclass(slots=True)
class Command:
    """A command that runs."""

    pid: int
    _forks: Forks
    _out: Path
    _err: Path
    _ended: Ended | None = None

    def signal(self, number: int) -> None:
        """Safe at any time: a process that has ended stays a zombie until `wait`."""
        if self._ended is None:
            os.kill(self.pid, number)

    def over(self) -> bool:
        """Whether it has ended."""
        return self._ended is not None or self._forks.ask({"over": self.pid}) is not None

    def wait(self, within_s: float = GIVE_UP_S) -> Ended:
        """Its end; a command that does not end in this time is killed, and that fails the test."""
        end_s = time.monotonic() + within_s
        while not self.over():
            if time.monotonic() > end_s:
                self.signal(signal.SIGABRT)
                raise AssertionError(f"it does not end: {self.said()}")
            time.sleep(0.002)
        if self._ended is None:
            code = self._forks.ask({"reap": self.pid})
            self._ended = Ended(code, *self.said())
        return self._ended

    def said(self) -> tuple[str, str]:
        """What it has printed up to now, on stdout and stderr."""
        return self._out.read_text(errors="replace"), self._err.read_text(errors="replace")


class Forks:
    """The process that forks them, and how to ask it."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.pid = process.pid
        self._process, self._folder = process, folder
        self._numbers, self._one_at_a_time = itertools.count(), threading.Lock()

    def start(self, *words: object, before: str = "", variables: Mapping[str, str] | None = None) -> Command:
        """Start `loadbench` with these words.

        Args:
            before: Python that the new process runs first: limits, mounts, clocks.
            variables: More of its environment.
        """
        number = next(self._numbers)
        out, err = (self._folder / f"{number}.{name}" for name in ("out", "err"))
        told = {"words": [str(word) for word in words], "out": str(out), "err": str(err), "before": before}
        out.touch()
        err.touch()
        return Command(self.ask({**told, "variables": dict(variables or {})}), self, out, err)

    def run(self, *words: object, **more: Any) -> Ended:
        """`start`, and its end."""
        return self.start(*words, **more).wait()

    def ask(self, told: Mapping[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._one_at_a_time:
            self._process.stdin.write(json.dumps(told) + "\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())


@contextlib.contextmanager
def forks(folder: Path, under: Sequence[str] = ()) -> Iterator[Forks]:
    """Run the process that forks, for the length of a `with` block.

    Args:
        folder: Where what commands print goes.
        under: A command that changes what a process may and sees, and runs its further words.
    """
    with subprocess.Popen(
        [*under, sys.executable, "-m", "tests.support.forks"],
        cwd=folder,
        env={**ENVIRONMENT, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Forks(process, folder)
        process.communicate()


def serve() -> None:
    """Fork and reap as the lines of standard input say; answers are lines too."""
    from loadbench.cli import main

    sys.modules["plotly"] = None  # type: ignore[assignment]  # as where it is not installed: its plots take their time
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()
    for line in sys.stdin:
        told = json.loads(line)
        if "words" in told:
            answer: int | None = os.fork()
            if answer == 0:
                _become(told, main)
        elif "over" in told:
            pid = told["over"]
            # Left a zombie, so that nobody else gets its number while a test may still signal it.
            answer = pid if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) else None
        else:
            answer = os.waitstatus_to_exitcode(os.waitpid(told["reap"], 0)[1])
        print(json.dumps(answer), flush=True)


def _become(told: Mapping[str, Any], main: Any) -> None:
    """In the new process: its own session, files, environment; then the command line, to its end."""
    os.setsid()
    for number, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, told["out"], os.O_WRONLY),
        (2, told["err"], os.O_WRONLY),
    ):
        opened = os.open(path, flags)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.update(told["variables"])
    sys.argv = ["loadbench", *told["words"]]
    exec(told["before"], {})
    code: Any = 0
    try:
        main(told["words"], prog_name="loadbench")
    except SystemExit as end:
        code = end.code
    threading._shutdown()  # type: ignore[attr-defined]  # what an interpreter does at its end, but for
    atexit._run_exitfuncs()  # taking all modules down, which is four fifths of what `loadbench --version` takes
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


if __name__ == "__main__":
    serve()


def until(true: Callable[[], object], command: Command, within_s: float = 30.0) -> None:
    """Wait for something to come true while the command runs."""
    end_s = time.monotonic() + within_s
    while not true():
        assert not command.over(), command.said()
        assert time.monotonic() < end_s, "it did not come true"
        time.sleep(0.002)
