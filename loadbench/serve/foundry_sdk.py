"""Foundry Local's SDK in the child process: its catalogues, its downloads, its errors. It is imported here alone.

One request a line comes on stdin, in JSON, and its answer goes in lines of JSON to stdout.

    {"id": 3, "call": "pull", "model": "…"}     {"id": 3, "progress": 12.5} …, then {"id": 3, "result": null}
    {"cancel": 3}                               {"id": 3, "error": "…", "kind": "LoadbenchError"}

Requests are carried out one by one; a cancel goes past the one that runs. It ends when stdin ends.

The SDK's own download goes on where it was broken off: it keeps what it has, and reports progress by whole chunks. It
has no time-out of its own that a person would wait for, so it is watched here: tried again with growing pauses, and
cancelled without a half model left.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import queue
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from loadbench.errors import LoadbenchError, TargetError
from loadbench.serve import Document
from loadbench.serve.foundry import available

if TYPE_CHECKING:
    from foundry_local_sdk import Catalog, FoundryLocalManager, IModel

END_S = 3.0
"""How long a call that still runs gets to end, before the process ends without it."""
STALL_S = 120.0
"""Without progress for so long, it is begun again: 0.1 % of 20 GB takes 20 s at 1 MB/s."""
TRIES = 4
BACKOFF_S = 2.0
"""Before the second try; each further pause is twice as long."""
GRACE_S = 10.0
"""How long the SDK gets to end a cancelled download: it looks between two chunks."""
_LOOK_S = 0.1
_MIB = 1 << 20
_MARGIN, _SPARE_BYTES = 1.05, 256 * _MIB
"""For what the sizes in the catalogue leave out, and so that the disk is not filled to its last byte."""

Say = Callable[..., None]
Row = Document
"""A model in the terms of ModelFacts, and `registered`: whether somebody registered it."""
Wait = Callable[[threading.Event, float], bool]
INTERNAL, CANCELLED, NETWORK = 2, 5, 6
"""Of FoundryLocalException.error_code; 1 is not implemented, 3 a bad argument, 4 bad usage."""

_PLACE = re.compile(r"^\S+\.(?:cc|cpp|h):\d+ ")
_MEMORY = re.compile(
    r"bad.?alloc|bad allocation|out of memory|failed to allocate|cannot allocate|not enough memory|ALLOC_FAILED", re.I
)
_PROVIDER = re.compile(r"requires (\w+) which is not registered")
_IN_USE = re.compile(r"(?<!\d)(\d{1,9}) session\(s\) still using it")
_PAUSES_S = (0.1, 0.3, 0.6, 1.0)


class Sdk:
    """The runtime and its two catalogues; for one thread at a time.

    Args:
        cache: The folder of the models.
        catalogue: Another URL of the public catalogue than the SDK's own.
        note: Called with a line about what takes a while.
    """

    def __init__(self, cache: Path, catalogue: str | None, note: Callable[[str], None]) -> None:
        self._cache, self._catalogue, self._note = cache, catalogue, note
        self._providers_sought = False
        self._port = 0
        self._runtime = self._open()

    def serve(self, port: int) -> str:
        """Start the web service, unless it runs; its root URL.

        The SDK takes the port as it is initialised, so for another one it is closed and opened, and what was loaded
        is loaded again.
        """
        if self._runtime.urls:
            url = str(self._runtime.urls[0])
            if port not in (0, self._port):
                raise LoadbenchError(f"the web service runs at {url} already: it has one port")
            return url
        if port != self._port:
            loaded = [model.id for _, model in self._each() if model.is_loaded]
            self._runtime.close()
            self._port = port
            self._runtime = self._open()
            for model in loaded:
                self.load(model)
        with _translated(lambda message: on_serve(port, message)):
            self._runtime.start_web_service()
        assert self._runtime.urls
        return str(self._runtime.urls[0])

    def models(self) -> list[Row]:
        """Every variant of both catalogues."""
        return [_row(model, registered) for registered, model in self._each()]

    def pull(self, model: str, progress: Callable[[float], None], cancelled: threading.Event) -> None:
        registered, found = self._find(model)
        if registered or found.is_cached:
            return
        check_space(model, _size_bytes(found), self._cache)
        download(found, progress, cancelled)

    def load(self, model: str) -> None:
        _, found = self._find(model)
        if not found.is_cached:
            raise _not_cached(model)
        with _translated(lambda message: on_load(model, message)):
            found.load()

    def unload(self, model: str) -> None:
        _, found = self._find(model)
        for pause_s in (*_PAUSES_S, None):
            try:
                with _translated(lambda message: on_unload(found.id, message)):
                    found.unload()
                return
            except Busy:  # a stream that just ended still holds the model for a moment
                if pause_s is None:
                    raise
                time.sleep(pause_s)

    def remove(self, model: str) -> None:
        """Delete a download, or forget a registered model, whose files stay."""
        registered, found = self._find(model)
        if not found.is_cached:
            raise _not_cached(model)
        self.unload(model)
        with _translated(lambda message: LoadbenchError(f"{model} cannot be removed: {message}")):
            if registered:
                self._local.unregister_model(model)
            else:
                found.remove_from_cache()

    def register(self, path: str, model: str, reasoning: Sequence[str] | None = None) -> Row:
        """Enter a model's folder into the local catalogue, or read its settings again, unless it is loaded.

        Args:
            reasoning: The texts before and after the model's thoughts: 2.2.1 streams them then, else it counts them.
        """
        from foundry_local_sdk import ModelInfoBuilder

        there = self._local.get_model_variant(model)
        if there is not None and there.get_path() != path:
            raise LoadbenchError(
                f"{model} is registered already, for {there.get_path()}: remove that first, or give another name"
            )
        if there is not None and there.is_loaded:
            return _row(there, True)
        with (
            _translated(lambda message: LoadbenchError(f"{path} cannot be registered: {message}")),
            ModelInfoBuilder() as facts,
        ):
            if there is not None:
                self._local.unregister_model(model)  # what its settings say is read as it is registered
            facts.set_string_property("task", "chat-completion")
            if reasoning is not None:
                facts.set_string_property("reasoning_start", reasoning[0])
                facts.set_string_property("reasoning_end", reasoning[1])
                facts.set_int_property("supports_reasoning", 1)
            return _row(self._local.register_model(path, model, facts), True)

    def path(self, model: str) -> str | None:
        return self._find(model)[1].get_path() or None

    def close(self) -> None:
        """Unload all, and end the web service."""
        self._runtime.close()

    @property
    def _local(self) -> Catalog:
        from foundry_local_sdk import CatalogType

        return self._runtime.get_catalog(CatalogType.LOCAL)

    def _open(self) -> FoundryLocalManager:
        from foundry_local_sdk import Configuration, FoundryLocalManager, LogLevel

        catalogues: list[tuple[str, str | None]] | None = None
        if self._catalogue:
            catalogues = [(self._catalogue, None)]
        settings = Configuration(
            app_name="loadbench",  # after it the SDK names its folder in the user's home
            model_cache_dir=str(self._cache),
            log_level=LogLevel.ERROR,
            web=Configuration.WebService(urls=f"http://127.0.0.1:{self._port}"),
            catalog_urls=catalogues,
            disable_nonessential_telemetry=True,
        )
        with _translated(lambda message: LoadbenchError(f"Foundry Local cannot start: {message}")):
            FoundryLocalManager.initialize(settings)
        self._providers_sought = False
        assert FoundryLocalManager.instance is not None
        return FoundryLocalManager.instance

    def _each(self) -> Iterator[tuple[bool, IModel]]:
        """Each variant, and whether it was registered; the local catalogue first: it asks no network."""
        for model in self._local.list_models():
            for variant in model.variants:
                yield True, variant
        self._seek_providers()
        for model in self._runtime.catalog.list_models():
            for variant in model.variants:
                yield False, variant

    def _find(self, model: str) -> tuple[bool, IModel]:
        """A variant by its full id; TargetError where there is none, or no catalogue."""
        known = []
        for registered, variant in self._each():
            if variant.id == model:
                return registered, variant
            known.append(variant.id)
        if not known:  # no catalogue: the runtime then lists nothing, and raises nothing
            where = ""
            if self._catalogue:
                where = f" at {self._catalogue}"
            raise TargetError(
                f"Foundry Local's catalogue{where} cannot be reached, and none was read before: connect to the "
                "network, or register a model of your own: loadbench models register FOLDER"
            )
        # The list has the newest versions; others are looked up by their id, at the cost of a request.
        older = self._runtime.catalog.get_model_variant(model) if ":" in model else None
        if older is None:
            raise unknown(model, known)
        return False, older

    def _seek_providers(self) -> None:
        """Register the execution providers for this machine's devices, once: the catalogue lists variants for those.

        On a machine without a GPU or NPU there are none to seek. Where there is one, its provider is downloaded by
        the SDK at the first time.
        """
        if self._providers_sought:
            return
        self._providers_sought = True
        missing = [provider.name for provider in self._runtime.discover_eps() if not provider.is_registered]
        noted = set()

        def progress(provider: str, percent: float) -> None:
            if 0 < percent < 80 and provider not in noted:  # above is what takes no network: to unpack and register
                noted.add(provider)
                self._note(f"Foundry Local fetches {provider} for this machine, once")

        if missing:
            done = self._runtime.download_and_register_eps(missing, progress)
            for provider in done.failed_eps:
                self._note(f"Foundry Local could not get {provider}: models that need it are neither listed nor loaded")


@contextlib.contextmanager
def _translated(error: Callable[[str], LoadbenchError]) -> Iterator[None]:
    from foundry_local_sdk import FoundryLocalException

    try:
        yield
    except FoundryLocalException as failed:
        raise error(plain(str(failed))) from failed


def _row(model: IModel, registered: bool) -> Row:
    info = model.info
    device, provider = None, None
    if runtime := info.runtime:
        provider = runtime.execution_provider or None
        if runtime.device_type:
            device = str(runtime.device_type)
    aliases = []
    if model.alias and model.alias != model.id:
        aliases.append(model.alias)
    capabilities = map(str.strip, (info.capabilities or "").split(","))
    return {
        "registered": registered,
        "id": model.id,
        "aliases": aliases,
        "loaded": model.is_loaded,
        "cached": model.is_cached,
        "size_bytes": _size_bytes(model),
        "context": model.context_length,
        "device": device,
        "execution_provider": provider,
        "licence": info.license,
        "task": info.task,
        "capabilities": list(filter(None, capabilities)),
    }


def _size_bytes(model: IModel) -> int | None:
    """As in the catalogue, else of the files on disk: a registered model has no size in its catalogue."""
    if model.info.file_size_mb:
        return int(model.info.file_size_mb) * _MIB
    folder = model.get_path()
    if not folder:
        return None
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()) or None


class Hung(LoadbenchError):
    """The SDK does not let go of a download: only the end of its process frees it."""


def download(
    model: IModel,
    progress: Callable[[float], None],
    cancelled: threading.Event,
    *,
    stall_s: float = STALL_S,
    clock: Callable[[], float] = time.monotonic,
    wait: Wait = threading.Event.wait,
) -> None:
    """Download a model; where it is cached already, that is all.

    Args:
        progress: Called with the percentage, as it grows.
        cancelled: Set by whoever wants no more of it.
        clock: In seconds.
        wait: Waits for an event, for at most this many seconds; whether it came.
    Raises:
        LoadbenchError: It was cancelled, and nothing of it is left; or it broke or stalled each time.
        Hung: As the class.
    """
    why = ""
    for attempt in range(TRIES):
        if attempt and wait(cancelled, BACKOFF_S * 2 ** (attempt - 1)):
            break
        why = _try(model, progress, cancelled, stall_s, clock, wait)
        if not why:
            return
        if cancelled.is_set():
            break
    if cancelled.is_set():
        with contextlib.suppress(Exception):  # it may have ended before its folder was made
            model.remove_from_cache()
        raise LoadbenchError(f"the download of {model.id} was cancelled; nothing of it is left")
    raise LoadbenchError(
        f"{model.id} cannot be downloaded, tried {TRIES} times: {why}; pull it again to go on where it stopped"
    )


def check_space(
    model: str,
    size_bytes: int | None,
    cache: Path,
    free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
) -> None:
    """See that the disk has room for a download.

    Args:
        size_bytes: None is taken on trust.
        cache: Need not be there yet.
    Raises:
        LoadbenchError: It has not.
    """
    if size_bytes is None:
        return
    there = next(folder for folder in (cache, *cache.absolute().parents) if folder.exists())
    free, needed = free_bytes(there), size_bytes * _MARGIN + _SPARE_BYTES
    if free < needed:
        raise LoadbenchError(
            f"{model} needs {needed / 1e9:.1f} GB of disk and {cache} has {free / 1e9:.1f} GB free: make room, "
            "or name another folder with --cache-dir"
        )


def _try(
    model: IModel,
    progress: Callable[[float], None],
    cancelled: threading.Event,
    stall_s: float,
    clock: Callable[[], float],
    wait: Wait,
) -> str:
    """One attempt; empty where it went well, else why not. It raises where a further attempt would not help."""
    stop, ended = threading.Event(), threading.Event()
    error: list[Exception] = []
    best, moved_s = -1.0, clock()

    def moved(percent: float) -> None:
        nonlocal best, moved_s
        if percent > best and not stop.is_set():
            best, moved_s = percent, clock()
            progress(percent)

    def fetch() -> None:
        try:
            model.download(moved, stop)
        except Exception as failure:
            error.append(failure)
        finally:
            ended.set()

    threading.Thread(target=fetch, daemon=True).start()
    stopped_s: float | None = None
    while not wait(ended, _LOOK_S):
        now_s = clock()
        if stopped_s is None and (cancelled.is_set() or now_s - moved_s > stall_s):
            stop.set()
            stopped_s = now_s
        elif stopped_s is not None and now_s - stopped_s > GRACE_S:
            raise Hung(f"the download of {model.id} hangs: it neither goes on nor ends; pull it again")
    if model.is_cached:
        return ""
    if stopped_s is not None:
        return f"it made no progress for {stall_s:g} s"
    if error:
        return _why(model.id, error[0])
    return "the SDK says that it ended, and the model is not there"


def _why(model: str, error: Exception) -> str:
    message = plain(str(error))
    if "no space left" in message.lower() or "not enough space" in message.lower():
        raise LoadbenchError(f"the disk is full before {model} is complete: make room and pull it again") from error
    if getattr(error, "error_code", INTERNAL) not in (INTERNAL, CANCELLED, NETWORK):
        raise LoadbenchError(f"{model} cannot be downloaded: {message}") from error
    if getattr(error, "error_code", None) == NETWORK:
        return f"the network failed ({message})"
    return message


class Busy(LoadbenchError):
    """A model answers requests."""


def plain(message: str) -> str:
    """An SDK message without the place in its source and the signature that it begins with, on one line.

    >>> plain("model.cc:530 void fl::Model::Load(fl::ExecutionProvider) model not found at path: /x")
    'model not found at path: /x'
    """
    text = " ".join(message.split())
    found = _PLACE.match(text)
    if found is None:
        return text
    depth = 0
    for i in range(found.end(), len(text)):
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        if text[i] == ")" and depth == 0 and text[i + 1 : i + 2] == " ":
            return text[i + 1 :].strip()
    return text[found.end() :]


def on_load(model: str, message: str) -> LoadbenchError:
    if _MEMORY.search(message):
        return LoadbenchError(
            f"{model} does not fit into memory: unload other models, or take a smaller model or variant ({message})"
        )
    if found := _PROVIDER.search(message):
        return TargetError(
            f"{model} needs {found[1]}, which is not on this machine: install the device's driver and let the SDK "
            "fetch the provider (it needs a network once), or take another variant, as with --device cpu"
        )
    return LoadbenchError(f"{model} cannot be loaded: {message}")


def on_unload(model: str, message: str) -> LoadbenchError:
    if found := _IN_USE.search(message):
        return Busy(f"{model} still answers {found[1]} request(s): unload it when they have ended")
    return LoadbenchError(f"{model} cannot be unloaded: {message}")


def on_serve(port: int, message: str) -> LoadbenchError:
    if "bind" in message.lower():
        return LoadbenchError(f"port {port} of 127.0.0.1 is taken by another program: give another --port")
    return LoadbenchError(f"Foundry Local's web service cannot start on port {port}: {message}")


def _not_cached(model: str) -> TargetError:
    return TargetError(f"{model} is not downloaded yet: loadbench models pull {model}")


def unknown(name: str, known: Iterable[str]) -> TargetError:
    """No model of this id; near ones are named.

    >>> print(unknown("phi-4-mini-cpu:5", ["Phi-4-mini-cpu:5", "qwen-cpu:1"]))
    Foundry Local knows no model 'phi-4-mini-cpu:5'; did you mean Phi-4-mini-cpu:5?
    """
    names = {each.lower(): each for each in known}
    near = [names[each] for each in difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.6)]
    hint = "see loadbench models list"
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    return TargetError(f"Foundry Local knows no model {name!r}; {hint}")


# -- the process


def main(cache: str, catalogue: str | None = None) -> int:
    """Answer requests until stdin ends; the arguments are those of `Sdk`."""
    # The runtime logs to stdout: that becomes stderr, and the answers get a descriptor of their own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    writing = threading.Lock()

    def say(**answer: object) -> None:
        with writing:
            answers.write(json.dumps(answer) + "\n")

    try:
        if reason := available():
            raise LoadbenchError(reason)
        sdk = Sdk(Path(cache), catalogue, lambda text: say(note=text))
        from foundry_local_sdk import __version__
    except LoadbenchError as error:
        say(id=0, error=str(error), kind=type(error).__name__)
        return error.exit_code
    except (ImportError, OSError) as error:  # a wheel for another system, or a library that it lacks
        say(id=0, error=f"Foundry Local's SDK cannot be loaded: {error}", kind="LoadbenchError")
        return 1
    say(id=0, result=str(__version__))
    if serve(sdk, say):
        sdk.close()
        return 0
    answers.flush()
    os._exit(0)  # a call that does not end holds the SDK


def serve(sdk: Sdk, say: Say) -> bool:
    """Carry out the requests on stdin; whether all of them had ended when stdin did."""
    waiting: queue.SimpleQueue[Document | None] = queue.SimpleQueue()
    cancelled: dict[int, threading.Event] = {}

    def work() -> None:
        while (request := waiting.get()) is not None:
            number = request.pop("id")
            call = getattr(sdk, request.pop("call"))
            if call == sdk.pull:
                request["progress"] = lambda percent, number=number: say(id=number, progress=percent)
                request["cancelled"] = cancelled[number]
            try:
                say(id=number, result=call(**request))
            except LoadbenchError as error:
                say(id=number, error=str(error), kind=type(error).__name__)
                if isinstance(error, Hung):
                    os._exit(1)
            except Exception as error:  # whatever else the SDK raises: the parent reports it, and the child goes on
                failure = f"Foundry Local's SDK failed: {type(error).__name__}: {error}"
                say(id=number, error=failure, kind="LoadbenchError")
            finally:
                del cancelled[number]

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    for line in sys.stdin:
        request = json.loads(line)
        if "cancel" in request:
            if event := cancelled.get(request["cancel"]):
                event.set()
        else:
            cancelled[request["id"]] = threading.Event()
            waiting.put(request)
    for event in list(cancelled.values()):
        event.set()
    waiting.put(None)
    worker.join(END_S)
    return not worker.is_alive()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
