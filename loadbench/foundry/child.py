"""The SDK in a child process: how it is started, asked, and ended."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import logging
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadbench import errors
from loadbench.errors import LoadbenchError
from loadbench.foundry.places import available, cache_folder, half_downloads
from loadbench.foundry.registration import id_of

if TYPE_CHECKING:
    from loadbench.target.facts import ModelFacts

LOCAL = "/catalogs/local/v1"
"""Where the web service answers for registered models."""
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
CANCEL_S = 15.0
"""How long a cancelled download gets to end; the child gives up a little earlier by itself."""
_LOOK_S = 0.1
_OUT_OF_REACH = b"failed to fetch catalog"

Answers = queue.SimpleQueue[dict[str, Any]]


class Runtime:
    """Foundry Local's runtime; all calls block. Calls of several threads wait for each other, but for a cancel.

    Attributes:
        pid: Of the child process, which is the server too.
        version: Of the SDK.
    """

    def __init__(self, child: subprocess.Popen[bytes], cache: Path, note: Callable[[str], None] | None) -> None:
        self.pid, self.version = child.pid, ""
        self._child, self._cache, self._note = child, cache, note
        self._numbers = itertools.count(1)
        self._answers: dict[int, Answers] = {0: queue.SimpleQueue()}
        self._writing = threading.Lock()
        self._root: str | None = None
        self._over, self._last_line = False, ""
        self._threads = [threading.Thread(target=read, daemon=True) for read in (self._read, self._read_log)]
        for thread in self._threads:
            thread.start()

    def wait_ready(self) -> None:
        """Wait until the SDK is initialised.

        Raises:
            LoadbenchError: It is not in time, or at all.
        """
        answer = _within(self._answers[0], READY_TIMEOUT_S)
        if answer is None:
            raise LoadbenchError(f"Foundry Local's runtime is not ready after {READY_TIMEOUT_S:g} s")
        self.version = str(self._result(answer, "start"))

    def stop(self) -> None:
        """End the child: the end of its stdin asks it to, on every system; then it is killed."""
        assert self._child.stdin is not None
        with contextlib.suppress(OSError):  # it has ended already
            self._child.stdin.close()
        try:
            self._child.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        for thread in self._threads:
            thread.join()

    def serve(self, port: int = 0) -> str:
        """Start the web service, unless it runs: its root URL, as http://127.0.0.1:5273.

        Raises:
            LoadbenchError: The port is taken, or it runs at another.
        """
        self._root = str(self._ask("serve", port=port))
        return self._root

    def models(self) -> list[ModelFacts]:
        """Every variant of the catalogue, and every registered model.

        Where the catalogue cannot be reached these are the models that were known before, after 4 s.
        """
        return [self._facts(row) for row in self._ask("models")]

    def pull(self, id: str, progress: Callable[[float], None], cancelled: threading.Event) -> None:
        """Download a variant, watched and tried again; where it is there already, that is all.

        A cancel, and an exception in this thread as Ctrl-C raises it, ends the download and deletes what came of it.

        Args:
            progress: Told the percentage, as it grows.
        Raises:
            LoadbenchError: Unknown, no room, broken too often, or cancelled.
        """
        with self._asked("pull", model=id) as (number, answers):
            told = False
            try:
                while (answer := _within(answers, _LOOK_S)) is None or "progress" in answer:
                    if answer is not None:
                        progress(answer["progress"])
                    elif cancelled.is_set() and not told:
                        told = True
                        self._write({"cancel": number})
                self._result(answer, f"pull {id}")
            except LoadbenchError:
                if cancelled.is_set():
                    self._clear(id)
                raise
            except BaseException:
                self._cancel(number, answers, id)
                raise

    def load(self, id: str) -> None:
        """Load a variant into memory, by its full id.

        Raises:
            TargetError: Unknown, not downloaded, or its execution provider is not here.
            LoadbenchError: It does not fit into memory, or is broken.
        """
        self._ask("load", model=id)

    def unload(self, id: str) -> None:
        """Unload a variant from memory."""
        self._ask("unload", model=id)

    def remove(self, id: str) -> None:
        """Delete a download from the disk; forget a registered model, whose files stay."""
        self._ask("remove", model=id)

    def register(self, path: Path, name: str | None = None) -> ModelFacts:
        """Enter a folder with an ONNX model into the local catalogue, or read its settings again.

        Args:
            name: The id, as NAME or NAME:VERSION; None makes it of the folder's name and the device that its settings
                name, as my-model-generic-cpu:1.
        Raises:
            UsageError: It is no folder of such a model, or this is no id.
        """
        path = path.expanduser().resolve()
        return self._facts(self._ask("register", path=str(path), model=id_of(path, name)))

    def path(self, id: str) -> Path | None:
        """The folder of its files; None where it is not downloaded."""
        found = self._ask("path", model=id)
        return Path(found) if found else None

    def _facts(self, row: dict[str, Any]) -> ModelFacts:
        from loadbench.target.device import placed
        from loadbench.target.facts import ModelFacts
        from loadbench.target.licence import licence_name

        registered = row.pop("registered")
        lists: dict[str, Any] = {name: tuple(row.pop(name)) for name in ("aliases", "capabilities")}
        base_url = self._root + LOCAL if registered and self._root else None
        facts = ModelFacts(**row, **lists, base_url=base_url)
        return placed(dataclasses.replace(facts, licence=licence_name(facts.licence)))

    def _ask(self, call: str, **arguments: Any) -> Any:
        with self._asked(call, **arguments) as (_, answers):
            return self._result(answers.get(), f"{call} {arguments.get('model') or ''}")

    @contextlib.contextmanager
    def _asked(self, call: str, **arguments: Any) -> Iterator[tuple[int, Answers]]:
        number = next(self._numbers)
        answers = self._answers[number] = queue.SimpleQueue()
        try:
            self._write({"id": number, "call": call, **arguments})
            if self._over:
                answers.put({})
            yield number, answers
        finally:
            del self._answers[number]

    def _result(self, answer: dict[str, Any], doing: str) -> Any:
        if not answer:
            raise LoadbenchError(f"Foundry Local's runtime {self._ending(doing)} while it was asked to {doing.strip()}")
        if "error" in answer:
            raise getattr(errors, answer["kind"], LoadbenchError)(answer["error"])
        return answer["result"]

    def _write(self, request: dict[str, Any]) -> None:
        assert self._child.stdin is not None
        with self._writing, contextlib.suppress(OSError):  # it has ended: the answer says so
            self._child.stdin.write(json.dumps(request).encode() + b"\n")
            self._child.stdin.flush()

    def _cancel(self, number: int, answers: Answers, model: str) -> None:
        """End a download whose caller is about to leave; where it does not end, end the child."""
        self._write({"cancel": number})
        give_up_s = time.monotonic() + CANCEL_S
        while (answer := _within(answers, _LOOK_S)) is None or "progress" in answer:
            if time.monotonic() > give_up_s:
                self._child.kill()
                self._child.wait()
                break
        self._clear(model)

    def _clear(self, model: str) -> None:
        """Delete what the SDK could not: it was ended in the middle."""
        for folder in half_downloads(self._cache, model):
            shutil.rmtree(folder, ignore_errors=True)

    def _read(self) -> None:
        """Pass the answers on to those who wait for them; an empty one says that the child has ended."""
        assert self._child.stdout is not None
        for line in self._child.stdout:
            answer = json.loads(line)
            if "note" in answer:
                self._tell(answer["note"])
            elif (answers := self._answers.get(answer["id"])) is not None:
                answers.put(answer)
        self._over = True
        for answers in list(self._answers.values()):
            answers.put({})

    def _read_log(self) -> None:
        """Keep the last line of the runtime's log, and tell of a catalogue out of reach: only the log does."""
        assert self._child.stderr is not None
        offline = False
        for line in self._child.stderr:
            self._last_line = line.decode(errors="replace").strip() or self._last_line
            if not offline and _OUT_OF_REACH in line:
                offline = True
                self._tell("Foundry Local's catalogue cannot be reached; its models are listed as they last were")

    def _tell(self, text: str) -> None:
        if self._note is not None:
            self._note(text)

    def _ending(self, doing: str) -> str:
        """How the child ended, and why perhaps."""
        try:
            code = self._child.wait(1.0)
        except subprocess.TimeoutExpired:
            return "closed its answers"
        if code >= 0:
            return f"ended with exit code {code} ({self._last_line or 'no message'})"
        name = signal.Signals(-code).name
        starved = doing.startswith("load ") and name in ("SIGKILL", "SIGABRT")
        return f"was ended by {name}" + (", most likely for want of memory," if starved else "")


@contextlib.contextmanager
def start(
    *,
    cache: Path | None = None,
    catalog_url: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Iterator[Runtime]:
    """Start the SDK in a child process, yield it when it is ready, and end it surely.

    The child has a session of its own: Ctrl-C reaches only the caller. Where the caller dies without a word, the child
    sees its stdin end and stops. It sends no telemetry.

    Args:
        cache: The folder of the models; None takes `cache_folder`'s.
        catalog_url: The public catalogue; None takes LOADBENCH_CATALOG_URL, else the SDK's own.
        progress: Told in a line what takes a while, or is missing.
    Raises:
        LoadbenchError: The SDK is not here, too old, or does not start.
    """
    if reason := available():
        raise LoadbenchError(reason)
    cache = (cache or cache_folder(os.environ, Path.home())).expanduser().absolute()
    catalog_url = catalog_url or os.environ.get("LOADBENCH_CATALOG_URL")
    command = [sys.executable, "-m", "loadbench.foundry", f"--cache={cache}"]
    command += [f"--catalogue={catalog_url}"] if catalog_url else []
    with subprocess.Popen(
        command,
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=sys.platform != "win32",
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    ) as child:
        runtime = Runtime(child, cache, progress)
        try:
            runtime.wait_ready()
            yield runtime
            if child.poll() is not None:
                logging.getLogger(__name__).warning("Foundry Local's runtime ended by itself: %s", child.returncode)
        finally:
            runtime.stop()


def _environment() -> dict[str, str]:
    """Ours, with this very package found first and without the working folder; CI keeps the runtime's telemetry in."""
    path = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1", "CI": "true"}


def _within(answers: Answers, seconds: float) -> dict[str, Any] | None:
    """The next answer; None where there is none in time."""
    try:
        return answers.get(timeout=seconds)
    except queue.Empty:
        return None
