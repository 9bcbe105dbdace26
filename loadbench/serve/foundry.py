"""Foundry Local through its own SDK (2.1 or newer, extra `foundry`), in a child process.

    with foundry.start() as runtime:
        root = runtime.serve(port=5273)
        runtime.load("qwen2.5-0.5b-instruct-generic-cpu:4")

The SDK is a process-wide runtime that writes to the standard streams and serves models from its own threads, so the
load generator never imports it: foundry_sdk.py does, the child. Its protocol is in that file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import itertools
import json
import logging
import os
import queue
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadbench import errors, machine
from loadbench.errors import LoadbenchError, UsageError, how_to_install
from loadbench.scenario.files import expanded, home, read_bytes
from loadbench.serve import Document

if TYPE_CHECKING:
    from loadbench.server.facts import ModelFacts

LOCAL = "/catalogs/local/v1"
"""Where the web service answers for registered models."""
CONFIG = "genai_config.json"
"""What every model folder holds: the settings of ONNX Runtime GenAI."""
REGISTERED = "foundry.local.modelinfo.json"
"""The runtime's list of registered models, in the cache folder."""
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
CANCEL_S = 15.0
"""How long a cancelled download gets to end; the child gives up earlier by itself (foundry_sdk.GRACE_S)."""
_LOOK_S = 0.1
_OUT_OF_REACH = b"failed to fetch catalog"
_OLDEST = (2, 1)
_INSTALL = how_to_install("foundry")
_COMPLETE, _UNDER_WAY = "inference_model.json", "download.tmp"
_ID = re.compile(r"[A-Za-z0-9][\w.-]*(:\d+)?", re.ASCII)
_VARIANTS = {
    "cuda": "cuda-gpu",
    "dml": "generic-gpu",
    "webgpu": "generic-gpu",
    "openvino": "openvino-npu",
    "qnn": "qnn-npu",
    "nvtensorrtrtx": "trtrtx-gpu",
    "vitisai": "vitis-npu",
}
"""Execution providers as genai_config.json writes them, and how the catalogue's ids end for them."""


# -- what of it is on this machine


def available() -> str | None:
    """None if the SDK is here and new enough; else one line that says why not and what to do."""
    version = _sdk_version()
    if version is None:
        return f"Foundry Local's SDK is not installed: {_INSTALL}"
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < _OLDEST:
        return f"Foundry Local's SDK {version} is too old, 2.1 or newer is needed: {_INSTALL}"
    if importlib.util.find_spec("foundry_local_sdk") is None:
        return f"Foundry Local's SDK {version} is installed without its package foundry_local_sdk: {_INSTALL}"
    return None


def _sdk_version() -> str | None:
    try:
        return importlib.metadata.version("foundry-local-sdk")
    except importlib.metadata.PackageNotFoundError:
        return None


def cache_folder(environ: Mapping[str, str], home: Path | None) -> Path:
    """Where the models are: LOADBENCH_CACHE_DIR, else the SDK's own default for an application named loadbench.

    Raises:
        LoadbenchError: There is no home folder, and the variable names no other.

    >>> cache_folder({}, Path("/home/ada")).as_posix()
    '/home/ada/.loadbench/cache/models'
    """
    if environ.get("LOADBENCH_CACHE_DIR"):
        return expanded(environ["LOADBENCH_CACHE_DIR"], "LOADBENCH_CACHE_DIR")
    if home is None:
        raise LoadbenchError(
            "there is no home folder for the models of Foundry Local's SDK: set HOME, or name a folder with "
            "--cache-dir DIR (LOADBENCH_CACHE_DIR)"
        )
    return home / ".loadbench" / "cache" / "models"


def has_models(cache: Path) -> bool:
    """Whether any model was downloaded or registered, by a look at the disk that takes no time."""
    # A download leaves its folder at any depth below that of the publisher.
    # Source: `ScanDirectory` in sdk_v2/cpp/src/catalog/local_model_scanner.cc (microsoft/Foundry-Local).
    for complete in cache.glob(f"*/**/{_COMPLETE}"):
        if (complete.parent / CONFIG).exists() and not (complete.parent / _UNDER_WAY).exists():
            return True
    try:
        registered = json.loads(read_bytes(cache / REGISTERED))
    except (OSError, ValueError, RecursionError):
        return False
    if not isinstance(registered, dict):
        return False
    models = registered.get("models")
    return isinstance(models, list) and bool(models)


def half_downloads(cache: Path, model: str) -> list[Path]:
    """The folders of a model's unfinished downloads."""
    return [marker.parent for marker in cache.glob(f"*/{model.replace(':', '-')}/{_UNDER_WAY}")]


def id_of(folder: Path, name: str | None) -> str:
    """The id to register a folder's model under, as NAME:VERSION.

    Args:
        name: With or without a version; None makes it of the folder's name and the provider in the model's settings,
            as my-model-generic-cpu:1, because loadbench reads a registered model's device from its id.
    Raises:
        UsageError: The folder holds no model of ONNX Runtime GenAI, or this is no id.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder: name the one that holds the model's {CONFIG}")
    try:
        settings = json.loads(read_bytes(folder / CONFIG))
    except FileNotFoundError:
        raise UsageError(
            f"{folder} holds no {CONFIG}: it must be a model in the format of ONNX Runtime GenAI"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{folder / CONFIG} cannot be read: {error}") from error
    if not isinstance(settings, dict):
        raise UsageError(f"{folder / CONFIG} holds no settings: it must be an object")
    if name is None:
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.name).strip("-.") or "model"
        if not re.search(r"-(cpu|gpu|npu)$", name):
            name = f"{name}-{_variant(settings)}"
    if not _ID.fullmatch(name):
        raise UsageError(f"{name!r} is no model id: write it as my-model-generic-cpu:1, the number is its version")
    if ":" not in name:
        name = f"{name}:1"
    return name


def _variant(settings: dict[str, object]) -> str:
    """How the id ends: for the first execution provider that the settings name, else for the processor."""
    providers: object = settings
    for key in ("model", "decoder", "session_options", "provider_options"):
        if not isinstance(providers, dict):
            return "generic-cpu"
        providers = providers.get(key)
    if not isinstance(providers, list):
        return "generic-cpu"
    # A list of objects, each with a provider as its only key.
    first = next(itertools.chain.from_iterable(providers), "")
    return _VARIANTS.get(str(first).lower(), "generic-cpu")


# -- the runtime


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
    """A request that was sent to the child, and what it answers.

    Attributes:
        number: A cancel names it.
        doing: For the message where the child ends in the middle of it.
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


class Runtime:
    """Foundry Local's runtime; all calls block. Calls of several threads wait for each other, but for a cancel.

    Attributes:
        pid: Of the child process, which is the server too.
        version: Of the SDK.
    """

    def __init__(self, child: machine.Child, cache: Path, note: Callable[[str], None]) -> None:
        self.pid, self.version = child.process.pid, ""
        self._child, self._cache, self._note = child, cache, note
        self._root: str | None = None
        self._numbers = itertools.count(1)
        self._ready = Question(0, "start")
        self._questions = {0: self._ready}
        self._over, self._last_line = False, ""
        # A pipe that nobody reads fills up, and its writer blocks: the child would hang.
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read_log, self._read)]
        for reader in self._readers:
            reader.start()

    def wait_ready(self) -> None:
        """Wait until it takes requests.

        Raises:
            LoadbenchError: It does not in time, or at all.
        """
        answer = self._ready.answer(READY_TIMEOUT_S)
        if answer is None:
            raise LoadbenchError(f"Foundry Local's runtime is not ready after {READY_TIMEOUT_S:g} s")
        self.version = str(self._result(self._ready, answer))

    def serve(self, port: int = 0) -> str:
        """Start the web service, unless it runs: its root URL, as http://127.0.0.1:5273.

        Raises:
            LoadbenchError: The port is taken, or it runs at another.
        """
        self._root = str(self._ask("serve", port=port))
        return self._root

    def wait(self) -> None:
        """Wait until the runtime ends by itself, which it should not.

        Raises:
            LoadbenchError: It did.
        """
        while not self._child.ended:
            time.sleep(_LOOK_S)
        raise LoadbenchError(f"Foundry Local's runtime {self._ending()} as it served")

    def models(self) -> list[ModelFacts]:
        """Every variant of the catalogue, and every registered model.

        Where the catalogue cannot be reached these are the models that were known before, after 4 s.
        """
        return [self._facts(row) for row in self._ask("models")]

    def pull(self, id: str, progress: Callable[[float], None], cancelled: threading.Event) -> None:
        """Download a variant, watched and tried again; where it is there already, that is all.

        A cancel, and an exception in this thread as Ctrl-C raises it, ends the download and deletes what came of it.

        Args:
            progress: Called with the percentage, as it grows.
        Raises:
            LoadbenchError: Unknown, no room, broken too often, or cancelled.
        """
        with self._asked("pull", model=id) as question:
            is_cancelling = False
            try:
                while (answer := question.answer()) is None or answer.progress is not None:
                    if answer is not None and answer.progress is not None:
                        progress(answer.progress)
                    if cancelled.is_set() and not is_cancelling:
                        is_cancelling = True
                        self._child.send({"cancel": question.number})
                self._result(question, answer)
            except BaseException as error:
                if not isinstance(error, LoadbenchError):
                    self._abandon(question)
                elif not cancelled.is_set():
                    raise  # what there is of it stays: the next pull goes on from there
                # The SDK could not delete it where it was ended in the middle.
                for folder in half_downloads(self._cache, id):
                    shutil.rmtree(folder, ignore_errors=True)
                raise

    def load(self, id: str) -> None:
        """Load a variant into memory, by its full id.

        Raises:
            TargetError: Unknown, not downloaded, or its execution provider is not here.
            LoadbenchError: It does not fit into memory, or is broken.
        """
        self._ask("load", model=id)

    def unload(self, id: str) -> None:
        self._ask("unload", model=id)

    def remove(self, id: str) -> None:
        """Delete a download from the disk; forget a registered model, whose files stay."""
        self._ask("remove", model=id)

    def register(self, path: Path, name: str | None = None, reasoning: Sequence[str] | None = None) -> ModelFacts:
        """Enter a folder with an ONNX model into the local catalogue; its settings are read again, unless it is loaded.

        Args:
            name: As of `id_of`.
            reasoning: The texts before and after the model's thoughts, as <think> and </think>; None where it has none.
        Raises:
            UsageError: It is no folder of such a model, or this is no id.
        """
        path = expanded(path, "the model's folder").resolve()
        return self._facts(self._ask("register", path=str(path), model=id_of(path, name), reasoning=reasoning))

    def path(self, id: str) -> Path | None:
        path = self._ask("path", model=id)
        if not path:
            return None
        return Path(path)

    def stop(self) -> None:
        """Ask it to stop, kill it where it does not, and wait for the last of what it says."""
        self._child.stop(STOP_TIMEOUT_S)
        for reader in self._readers:
            reader.join()

    def _facts(self, row: Document) -> ModelFacts:
        from loadbench.server.facts import ModelFacts, licence_name, whole
        from loadbench.server.foundry import placed, registered

        is_registered = row.pop("registered")
        for name in ("size_bytes", "context"):  # as the catalogue writes them
            row[name] = whole(row[name])
        for name in ("aliases", "capabilities"):
            row[name] = tuple(row[name])
        facts = ModelFacts(**row)
        facts = dataclasses.replace(facts, licence=licence_name(facts.licence))
        if not is_registered:
            return placed(facts)
        if self._root:
            facts = dataclasses.replace(facts, base_url=self._root + LOCAL)
        return registered(facts)

    @contextlib.contextmanager
    def _asked(self, call: str, **arguments: object) -> Iterator[Question]:
        number = next(self._numbers)
        question = self._questions[number] = Question(number, f"{call} {arguments.get('model') or ''}".strip())
        try:
            self._child.send({"id": number, "call": call, **arguments})
            if self._over:
                question.answers.put(_ENDED)
            yield question
        finally:
            del self._questions[number]

    def _ask(self, call: str, **arguments: object) -> Any:
        with self._asked(call, **arguments) as question:
            while (answer := question.answer()) is None:  # waiting without end would keep Ctrl-C out on Windows
                pass
            return self._result(question, answer)

    def _result(self, question: Question, answer: Answer) -> object:
        """What a last answer brings; raises where it is an error, or the child has ended."""
        if answer is _ENDED:
            ending = self._ending(starved=question.doing.startswith("load "))
            raise LoadbenchError(f"Foundry Local's runtime {ending} while it was asked to {question.doing}")
        if answer.error is not None:
            raise getattr(errors, answer.kind, LoadbenchError)(answer.error)
        return answer.result

    def _abandon(self, question: Question) -> None:
        """End a download whose caller is about to leave; where it does not end, end the child."""
        self._child.send({"cancel": question.number})
        give_up_s = time.monotonic() + CANCEL_S
        while (answer := question.answer()) is None or answer.progress is not None:
            if time.monotonic() > give_up_s:
                self._child.kill()
                return

    def _ending(self, *, starved: bool = False) -> str:
        """How it ended, and why perhaps; `starved` where what it did takes much memory."""
        try:
            code = self._child.process.wait(1.0)
        except subprocess.TimeoutExpired:
            return "closed its answers"
        self._readers[0].join(1.0)
        name = machine.exit_name(code)
        if code >= 0:
            return f"ended with {name} ({self._last_line or 'no message'})"
        if starved and name in machine.STARVED:
            return f"was ended by {name}, most likely for want of memory,"
        return f"was ended by {name}"

    def _read(self) -> None:
        try:
            for line in self._child.stdout:
                if not line.endswith(b"\n"):  # it was killed as it wrote
                    break
                answer = Answer(**json.loads(line))
                if answer.note is not None:
                    self._note(answer.note)
                elif (question := self._questions.get(answer.id)) is not None:
                    question.answers.put(answer)
        finally:  # whoever waits for an answer gets one, whatever became of the child
            self._over = True
            for question in list(self._questions.values()):
                question.answers.put(_ENDED)

    def _read_log(self) -> None:
        """Keep the last line of the runtime's log, and report a catalogue out of reach: only the log does."""
        assert self._child.process.stderr is not None
        is_offline = False
        for line in self._child.process.stderr:
            self._last_line = line.decode(errors="replace").strip() or self._last_line
            if not is_offline and _OUT_OF_REACH in line:
                is_offline = True
                self._note("Foundry Local's catalogue cannot be reached; its models are listed as they last were")


@contextlib.contextmanager
def running(command: Sequence[str], cache: Path, note: Callable[[str], None] = lambda line: None) -> Iterator[Runtime]:
    """Start the child, yield its runtime when it is ready, and end it surely.

    Args:
        note: Called with a line about what takes a while, or is missing.
    """
    variables = {**os.environ, "CI": "true"}  # which keeps the runtime's telemetry in
    with machine.Child(command, stderr="piped", variables=variables) as child:
        runtime = Runtime(child, cache, note)
        try:
            runtime.wait_ready()
            yield runtime
            if child.ended:
                ending = runtime._ending()
                logging.getLogger(__name__).warning("Foundry Local's runtime %s before it was told to", ending)
        finally:
            runtime.stop()


@contextlib.contextmanager
def start(
    *, cache: Path | None = None, catalog_url: str | None = None, progress: Callable[[str], None] = lambda line: None
) -> Iterator[Runtime]:
    """Start the SDK in a child process, yield it when it is ready, and end it surely.

    Ctrl-C reaches only the caller. Where the caller dies without a word, the child sees its stdin end and stops. It
    sends no telemetry.

    Args:
        cache: The folder of the models; None takes `cache_folder`'s.
        catalog_url: The public catalogue; None takes LOADBENCH_CATALOG_URL, else the SDK's own.
        progress: Called with a line about what takes a while, or is missing.
    Raises:
        LoadbenchError: The SDK is not here, too old, or does not start.
    """
    if reason := available():
        raise LoadbenchError(reason)
    cache = expanded(cache or cache_folder(os.environ, home()), "--cache-dir").absolute()
    catalog_url = catalog_url or os.environ.get("LOADBENCH_CATALOG_URL") or None
    words = [str(cache)]
    if catalog_url is not None:
        words.append(catalog_url)
    with running(machine.python("loadbench.serve.foundry_sdk", *words), cache, progress) as runtime:
        yield runtime
