"""The child process: how it is started, asked in lines of JSON, and ended."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from loadbench import errors
from loadbench.errors import LoadbenchError

READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
_LOOK_S = 0.2
_OUT_OF_REACH = b"failed to fetch catalog"

Answer = dict[str, Any]


class Question:
    """A request that the child was sent, and what it answers.

    Attributes:
        number: By which it is cancelled.
    """

    def __init__(self, number: int, doing: str, child: Child) -> None:
        self.number = number
        self._doing, self._child = doing, child
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()

    def put(self, answer: Answer) -> None:
        """Pass an answer on; an empty one says that the child has ended."""
        self._answers.put(answer)

    def answer(self, within_s: float) -> Answer | None:
        """The next answer; None where there is none in time."""
        try:
            return self._answers.get(timeout=within_s)
        except queue.Empty:
            return None

    def result(self, answer: Answer) -> Any:
        """What a last answer brings.

        Raises:
            LoadbenchError: It is an error, as the child names its kind; or the child has ended.
        """
        if not answer:
            ending = self._child.ending(starved=self._doing.startswith("load "))
            raise LoadbenchError(f"Foundry Local's runtime {ending} while it was asked to {self._doing}")
        if "error" in answer:
            raise getattr(errors, answer["kind"], LoadbenchError)(answer["error"])
        return answer["result"]


class Child:
    """The process; questions of several threads wait for each other in it, but for a cancel."""

    def __init__(self, process: subprocess.Popen[bytes], note: Callable[[str], None] | None) -> None:
        self.pid = process.pid
        self._process, self._note = process, note
        self._numbers = itertools.count(1)
        self._ready = Question(0, "start", self)
        self._open = {0: self._ready}
        self._writing = threading.Lock()
        self._over, self._last_line = False, ""
        self._threads = [threading.Thread(target=read, daemon=True) for read in (self._read_log, self._read)]
        for thread in self._threads:
            thread.start()

    def wait_ready(self) -> str:
        """What it says once it can be asked.

        Raises:
            LoadbenchError: It is not ready in time, or at all.
        """
        answer = self._ready.answer(READY_TIMEOUT_S)
        if answer is None:
            raise LoadbenchError(f"Foundry Local's runtime is not ready after {READY_TIMEOUT_S:g} s")
        return str(self._ready.result(answer))

    @contextlib.contextmanager
    def asked(self, call: str, **arguments: Any) -> Iterator[Question]:
        """Ask, and listen for its answers as long as the context lasts."""
        number = next(self._numbers)
        question = self._open[number] = Question(number, f"{call} {arguments.get('model') or ''}".strip(), self)
        try:
            self._write({"id": number, "call": call, **arguments})
            if self._over:
                question.put({})
            yield question
        finally:
            del self._open[number]

    def ask(self, call: str, **arguments: Any) -> Any:
        """Ask, and wait for the answer.

        Raises:
            LoadbenchError: As `Question.result`.
        """
        with self.asked(call, **arguments) as question:
            while (answer := question.answer(_LOOK_S)) is None:  # waiting without end would keep Ctrl-C out on Windows
                pass
            return question.result(answer)

    def cancel(self, question: Question) -> None:
        """Tell it that nobody wants the answer any more; there is one all the same."""
        self._write({"cancel": question.number})

    @property
    def ended(self) -> bool:
        """Whether it has."""
        return self._process.poll() is not None

    def ending(self, *, starved: bool = False) -> str:
        """How it ended, and why perhaps.

        Args:
            starved: What it did takes much memory.
        """
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return "closed its answers"
        self._threads[0].join(1.0)
        if code >= 0:
            return f"ended with exit code {code} ({self._last_line or 'no message'})"
        try:
            name = signal.Signals(-code).name
        except ValueError:  # a real-time signal
            name = f"signal {-code}"
        hint = ", most likely for want of memory," if starved and name in ("SIGKILL", "SIGABRT") else ""
        return f"was ended by {name}{hint}"

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """The end of its stdin asks it to stop, on every system; then it is killed."""
        assert self._process.stdin is not None
        with self._writing, contextlib.suppress(OSError):  # it has ended already
            self._process.stdin.close()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
        for thread in self._threads:
            thread.join()

    def _write(self, request: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        with self._writing, contextlib.suppress(OSError, ValueError):  # it has ended: the answer says so
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()

    def _read(self) -> None:
        """Pass the answers on to those who wait for them."""
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                if not line.endswith(b"\n"):  # it was killed as it wrote
                    break
                answer = json.loads(line)
                if "note" in answer:
                    self._tell(answer["note"])
                elif (question := self._open.get(answer["id"])) is not None:
                    question.put(answer)
        finally:
            self._over = True
            for question in list(self._open.values()):
                question.put({})

    def _read_log(self) -> None:
        """Keep the last line of the runtime's log, and tell of a catalogue out of reach: only the log does."""
        assert self._process.stderr is not None
        offline = False
        for line in self._process.stderr:
            self._last_line = line.decode(errors="replace").strip() or self._last_line
            if not offline and _OUT_OF_REACH in line:
                offline = True
                self._tell("Foundry Local's catalogue cannot be reached; its models are listed as they last were")

    def _tell(self, text: str) -> None:
        if self._note is not None:
            self._note(text)


@contextlib.contextmanager
def running(command: Sequence[str], note: Callable[[str], None] | None = None) -> Iterator[Child]:
    """Start the child, and end it surely.

    It has a session of its own: Ctrl-C reaches only the caller.

    Args:
        note: Told in a line what takes a while, or is missing.
    """
    from loadbench import machine

    variables = {**os.environ, "CI": "true"}  # which keeps the runtime's telemetry in
    with machine.start(command, errors=subprocess.PIPE, variables=variables) as process:
        child = Child(process, note)
        try:
            yield child
        finally:
            child.stop()
