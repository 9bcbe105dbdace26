"""The parent's side: what Foundry Local's runtime can be asked, in lines of JSON to its process and back."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import logging
import os
import queue
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadbench import errors, machine
from loadbench.errors import LoadbenchError
from loadbench.scenario.files import expanded, home
from loadbench.serve.child import Document
from loadbench.serve.foundry.places import available, cache_folder, half_downloads, id_of

if TYPE_CHECKING:
    from loadbench.server.facts import ModelFacts

LOCAL = "/catalogs/local/v1"
"""Where the web service answers for registered models."""
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
CANCEL_S = 15.0
"""How long a cancelled download gets to end; the child gives up earlier by itself (sdk.GRACE_S)."""
_LOOK_S = 0.1
_OUT_OF_REACH = b"failed to fetch catalog"


@dataclass(frozen=True, slots=True)
class Answer:
    """A line of the child's: a note, how far a request is, or its result or error, which end it."""

    id: int = 0
    note: str | None = None
    progress: float | None = None
    result: Any = None
    error: str | None = None
    kind: str = "LoadbenchError"


_ENDED = Answer()


@dataclass(frozen=True, slots=True)
class Question:
    """A request that the child was sent, and what it answers.

    Attributes:
        number: By which it is cancelled.
        doing: For the message of an end in the middle of it.
    """

    number: int
    doing: str
    answers: queue.SimpleQueue[Answer] = field(default_factory=queue.SimpleQueue)

    def answer(self, within_s: float = _LOOK_S) -> Answer | None:
        """The next answer; None where there is none in time."""
        try:
            return self.answers.get(timeout=within_s)
        except queue.Empty:
            return None


class Child:
    """The process; questions of several threads wait for each other in it, but for a cancel."""

    def __init__(self, child: machine.Child, note: Callable[[str], None] | None) -> None:
        self.pid = child.process.pid
        self._child, self._note = child, note
        self._numbers = itertools.count(1)
        self._ready = Question(0, "start")
        self._open = {0: self._ready}
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
        return str(self.result(self._ready, answer))

    @contextlib.contextmanager
    def asked(self, call: str, **arguments: object) -> Iterator[Question]:
        """Ask, and listen for its answers as long as the context lasts."""
        number = next(self._numbers)
        question = self._open[number] = Question(number, f"{call} {arguments.get('model') or ''}".strip())
        try:
            self._child.send({"id": number, "call": call, **arguments})
            if self._over:
                question.answers.put(_ENDED)
            yield question
        finally:
            del self._open[number]

    def ask(self, call: str, **arguments: object) -> Any:
        """Ask, and wait for the answer; raises as `result`."""
        with self.asked(call, **arguments) as question:
            while (answer := question.answer()) is None:  # waiting without end would keep Ctrl-C out on Windows
                pass
            return self.result(question, answer)

    def result(self, question: Question, answer: Answer) -> object:
        """What a last answer brings.

        Raises:
            LoadbenchError: It is an error, as the child names its kind; or the child has ended.
        """
        if answer is _ENDED:
            ending = self.ending(starved=question.doing.startswith("load "))
            raise LoadbenchError(f"Foundry Local's runtime {ending} while it was asked to {question.doing}")
        if answer.error is not None:
            raise getattr(errors, answer.kind, LoadbenchError)(answer.error)
        return answer.result

    def cancel(self, question: Question) -> None:
        """Tell it that nobody wants the answer any more; there is one all the same."""
        self._child.send({"cancel": question.number})

    @property
    def ended(self) -> bool:
        return self._child.ended

    def ending(self, *, starved: bool = False) -> str:
        """How it ended, and why perhaps.

        Args:
            starved: What it did takes much memory.
        """
        try:
            code = self._child.process.wait(1.0)
        except subprocess.TimeoutExpired:
            return "closed its answers"
        self._threads[0].join(1.0)
        name = machine.exit_name(code)
        if code >= 0:
            return f"ended with {name} ({self._last_line or 'no message'})"
        if starved and name in machine.STARVED:
            return f"was ended by {name}, most likely for want of memory,"
        return f"was ended by {name}"

    def kill(self) -> None:
        self._child.kill()

    def stop(self) -> None:
        """Ask it to stop, kill it where it does not, and wait for the last of what it says."""
        self._child.stop(STOP_TIMEOUT_S)
        for thread in self._threads:
            thread.join()

    def _read(self) -> None:
        """Pass the answers on to those who wait for them."""
        try:
            for line in self._child.stdout:
                if not line.endswith(b"\n"):  # it was killed as it wrote
                    break
                answer = Answer(**json.loads(line))
                if answer.note is not None:
                    self._tell(answer.note)
                elif (question := self._open.get(answer.id)) is not None:
                    question.answers.put(answer)
        finally:
            self._over = True
            for question in list(self._open.values()):
                question.answers.put(_ENDED)

    def _read_log(self) -> None:
        """Keep the last line of the runtime's log, and tell of a catalogue out of reach: only the log does."""
        assert self._child.process.stderr is not None
        offline = False
        for line in self._child.process.stderr:
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

    Args:
        note: Told in a line what takes a while, or is missing.
    """
    variables = {**os.environ, "CI": "true"}  # which keeps the runtime's telemetry in
    with machine.Child(command, stderr="piped", variables=variables) as process:
        child = Child(process, note)
        try:
            yield child
        finally:
            child.stop()


class Runtime:
    """Foundry Local's runtime; all calls block. Calls of several threads wait for each other, but for a cancel.

    Attributes:
        pid: Of the child process, which is the server too.
        version: Of the SDK.
    """

    def __init__(self, child: Child, cache: Path) -> None:
        self.pid, self.version = child.pid, child.wait_ready()
        self._child, self._cache = child, cache
        self._root: str | None = None

    def serve(self, port: int = 0) -> str:
        """Start the web service, unless it runs: its root URL, as http://127.0.0.1:5273.

        Raises:
            LoadbenchError: The port is taken, or it runs at another.
        """
        self._root = str(self._child.ask("serve", port=port))
        return self._root

    def wait(self) -> None:
        """Wait until the runtime ends by itself, which it should not.

        Raises:
            LoadbenchError: It did.
        """
        while not self._child.ended:
            time.sleep(_LOOK_S)
        raise LoadbenchError(f"Foundry Local's runtime {self._child.ending()} as it served")

    def models(self) -> list[ModelFacts]:
        """Every variant of the catalogue, and every registered model.

        Where the catalogue cannot be reached these are the models that were known before, after 4 s.
        """
        return [self._facts(row) for row in self._child.ask("models")]

    def pull(self, id: str, progress: Callable[[float], None], cancelled: threading.Event) -> None:
        """Download a variant, watched and tried again; where it is there already, that is all.

        A cancel, and an exception in this thread as Ctrl-C raises it, ends the download and deletes what came of it.

        Args:
            progress: Told the percentage, as it grows.
        Raises:
            LoadbenchError: Unknown, no room, broken too often, or cancelled.
        """
        with self._child.asked("pull", model=id) as question:
            is_told = False
            try:
                while (answer := question.answer()) is None or answer.progress is not None:
                    if answer is not None and answer.progress is not None:
                        progress(answer.progress)
                    if cancelled.is_set() and not is_told:
                        is_told = True
                        self._child.cancel(question)
                self._child.result(question, answer)
            except LoadbenchError:
                if cancelled.is_set():
                    self._clear(id)
                raise
            except BaseException:
                self._abandon(question)
                self._clear(id)
                raise

    def load(self, id: str) -> None:
        """Load a variant into memory, by its full id.

        Raises:
            TargetError: Unknown, not downloaded, or its execution provider is not here.
            LoadbenchError: It does not fit into memory, or is broken.
        """
        self._child.ask("load", model=id)

    def unload(self, id: str) -> None:
        self._child.ask("unload", model=id)

    def remove(self, id: str) -> None:
        """Delete a download from the disk; forget a registered model, whose files stay."""
        self._child.ask("remove", model=id)

    def register(self, path: Path, name: str | None = None, reasoning: Sequence[str] | None = None) -> ModelFacts:
        """Enter a folder with an ONNX model into the local catalogue; its settings are read again, unless it is loaded.

        Args:
            name: The id, as NAME or NAME:VERSION; None makes it of the folder's name and the device that its settings
                name, as my-model-generic-cpu:1.
            reasoning: The texts before and after the model's thoughts, as <think> and </think>; None where it has none.
        Raises:
            UsageError: It is no folder of such a model, or this is no id.
        """
        path = expanded(path, "the model's folder").resolve()
        texts = None if reasoning is None else list(reasoning)
        row = self._child.ask("register", path=str(path), model=id_of(path, name), reasoning=texts)
        return self._facts(row)

    def path(self, id: str) -> Path | None:
        path = self._child.ask("path", model=id)
        return Path(path) if path else None

    def _facts(self, row: Document) -> ModelFacts:
        from loadbench.server.facts import ModelFacts, licence_name, whole
        from loadbench.server.foundry import placed, registered

        is_registered = row.pop("registered")
        for name in ("size_bytes", "context"):  # as the catalogue tells them
            row[name] = whole(row[name])
        for name in ("aliases", "capabilities"):
            row[name] = tuple(row[name])
        base_url = self._root + LOCAL if is_registered and self._root else None
        facts = ModelFacts(**row, base_url=base_url)
        facts = dataclasses.replace(facts, licence=licence_name(facts.licence))
        return registered(facts) if is_registered else placed(facts)

    def _abandon(self, question: Question) -> None:
        """End a download whose caller is about to leave; where it does not end, end the child."""
        self._child.cancel(question)
        give_up_s = time.monotonic() + CANCEL_S
        while (answer := question.answer()) is None or answer.progress is not None:
            if time.monotonic() > give_up_s:
                self._child.kill()
                return

    def _clear(self, model: str) -> None:
        """Delete what the SDK could not: it was ended in the middle."""
        for folder in half_downloads(self._cache, model):
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def start(
    *,
    cache: Path | None = None,
    catalog_url: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Iterator[Runtime]:
    """Start the SDK in a child process, yield it when it is ready, and end it surely.

    Ctrl-C reaches only the caller. Where the caller dies without a word, the child sees its stdin end and stops. It
    sends no telemetry.

    Args:
        cache: The folder of the models; None takes `cache_folder`'s.
        catalog_url: The public catalogue; None takes LOADBENCH_CATALOG_URL, else the SDK's own.
        progress: Told in a line what takes a while, or is missing.
    Raises:
        LoadbenchError: The SDK is not here, too old, or does not start.
    """
    if reason := available():
        raise LoadbenchError(reason)
    cache = expanded(cache or cache_folder(os.environ, home()), "--cache-dir").absolute()
    catalog_url = catalog_url or os.environ.get("LOADBENCH_CATALOG_URL") or None
    words = [str(cache)] if catalog_url is None else [str(cache), catalog_url]
    with running(machine.python("loadbench.serve.foundry", *words), progress) as child:
        yield Runtime(child, cache)
        if child.ended:
            logging.getLogger(__name__).warning("Foundry Local's runtime %s before it was told to", child.ending())
