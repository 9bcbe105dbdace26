"""A run in a process of its own: `python -m loadbench.runner.child` carries out the job on its standard input.

A notebook or a server has threads and an event loop of its own, and signals that belong to it: a load generator beside
them in one interpreter would measure those too. So nothing is measured in the caller's process.

The job comes as a line of JSON; events go to stdout as JSON lines, errors to stderr, and the exit code is that of
`loadbench run`. When its standard input ends, which is when the caller wants no more or has died, the run ends as by
Ctrl-C: it drains, and its folder reads.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from loadbench import machine
from loadbench.errors import INTERRUPTED, LoadbenchError, UsageError
from loadbench.runner.job import Job

USAGE = 2
_SETTINGS = re.compile(r"LOADBENCH_|BENCH_|RETRY_(ON_FAIL|BACKOFF)$")
"""Variables that stand for options. A call says all that counts; keys and endpoints are still found."""


# -- the caller's side


def run(job: Job, heard: Callable[[dict[str, Any]], None]) -> tuple[int, list[str]]:
    """Carry a job out in a child process; its exit code, and what it said on stderr.

    Raises:
        KeyboardInterrupt: As it came, once the run has drained and is on disk; a second one stops it at once.
    """
    with _child("loadbench.runner.child") as child:
        child.send(orjson.loads(job.to_json()))
        try:
            for line in child.stdout:
                heard(orjson.loads(line))
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


def failure(code: int, lines: Sequence[str]) -> LoadbenchError:
    """The error that a child told on stderr."""
    text = lines[-1].removeprefix("loadbench: ") if lines else f"the child process ended with exit code {code}"
    return (UsageError if code == USAGE else LoadbenchError)(text)


def _child(module: str, *words: str) -> machine.Child:
    kept = {name: value for name, value in os.environ.items() if not _SETTINGS.match(name)}
    return machine.Child(machine.python(module, *words), variables=kept)


# -- the child's side


def main() -> int:
    """Carry out the job on standard input; the exit code."""
    from loadbench.runner.measure import measure, reported, verdict
    from loadbench.runner.watch import JsonLines

    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # what this run started ends with it
    job = Job.from_json(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_caller, daemon=True).start()
    view = JsonLines(sys.stdout.buffer)
    outcome = measure(job, view)
    if not outcome.runs:
        return 0
    summary = reported(outcome.folder)
    view.summary(summary)
    ended = verdict(outcome, summary)
    for reason in ended.reasons:
        _complain(reason)
    return ended.code


def _complain(text: str) -> None:
    """Say it on stderr in a line, without a key that was typed where it does not belong."""
    from loadbench.text import starred

    line = "".join(sign for sign in starred(text) if sign.isprintable())
    sys.stderr.write(f"loadbench: {line}\n")


def _end_with_caller() -> None:
    while os.read(0, 4096):
        pass
    if sys.platform == "win32":
        import _thread

        _thread.interrupt_main()
    else:
        os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    try:
        code = main()
    except LoadbenchError as error:
        _complain(str(error))
        code = error.exit_code
    except KeyboardInterrupt:
        _complain("interrupted")
        code = INTERRUPTED
    except Exception as error:
        _complain(
            machine.lacking(error) or f"a defect of loadbench: {type(error).__name__}: {error} (please report it)"
        )
        code = 1
    sys.exit(code)
