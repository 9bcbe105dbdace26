"""The parent's side: what Foundry Local's runtime can be asked."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadbench.errors import LoadbenchError
from loadbench.scenario.files import expanded, home
from loadbench.serve.foundry.child import Child, Question, running
from loadbench.serve.foundry.download import GRACE_S
from loadbench.serve.foundry.places import available, cache_folder, half_downloads
from loadbench.serve.foundry.registration import id_of

if TYPE_CHECKING:
    from loadbench.server.facts import ModelFacts

LOCAL = "/catalogs/local/v1"
"""Where the web service answers for registered models."""
CANCEL_S = GRACE_S + 5
"""How long a cancelled download gets to end; the child gives up a little earlier by itself."""
_LOOK_S = 0.1


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
            told = False
            try:
                while (answer := question.answer(_LOOK_S)) is None or "progress" in answer:
                    if answer is not None:
                        progress(answer["progress"])
                    if cancelled.is_set() and not told:
                        told = True
                        self._child.cancel(question)
                question.result(answer)
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
        """Unload a variant from memory."""
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
        asked: dict[str, Any] = {"path": str(path), "model": id_of(path, name)}
        if reasoning is not None:
            asked["reasoning"] = list(reasoning)
        return self._facts(self._child.ask("register", **asked))

    def path(self, id: str) -> Path | None:
        """The folder of its files; None where it is not downloaded."""
        found = self._child.ask("path", model=id)
        return Path(found) if found else None

    def _facts(self, row: dict[str, Any]) -> ModelFacts:
        from loadbench.server.facts import ModelFacts, licence_name, whole
        from loadbench.server.foundry import placed, registered

        is_registered = row.pop("registered")
        row |= {name: whole(row[name]) for name in ("size_bytes", "context")}  # as the catalogue tells them
        lists: dict[str, Any] = {name: tuple(row.pop(name)) for name in ("aliases", "capabilities")}
        base_url = self._root + LOCAL if is_registered and self._root else None
        facts = ModelFacts(**row, **lists, base_url=base_url)
        facts = dataclasses.replace(facts, licence=licence_name(facts.licence))
        return registered(facts) if is_registered else placed(facts)

    def _abandon(self, question: Question) -> None:
        """End a download whose caller is about to leave; where it does not end, end the child."""
        self._child.cancel(question)
        give_up_s = time.monotonic() + CANCEL_S
        while (answer := question.answer(_LOOK_S)) is None or "progress" in answer:
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
    from loadbench.machine import python

    if reason := available():
        raise LoadbenchError(reason)
    cache = expanded(cache or cache_folder(os.environ, home()), "--cache-dir").absolute()
    catalog_url = catalog_url or os.environ.get("LOADBENCH_CATALOG_URL")
    command = python("loadbench.serve.foundry", f"--cache={cache}")
    command += [f"--catalogue={catalog_url}"] if catalog_url else []
    with running(command, progress) as child:
        yield Runtime(child, cache)
        if child.ended:
            logging.getLogger(__name__).warning("Foundry Local's runtime %s before it was told to", child.ending())
