"""The SDK itself: imported here alone, inside functions, in the child process."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from loadbench.errors import LoadbenchError
from loadbench.serve.foundry import download, failure

APP = "loadbench"
"""The application's name, after which the SDK names its folder in the user's home."""
MIB = 1 << 20  # the SDK tells sizes in whole ones
_PAUSES_S = (0.1, 0.3, 0.6, 1.0)


class Sdk:
    """The runtime and its two catalogues; for one thread at a time.

    Args:
        cache: The folder of the models.
        catalogue: Another URL of the public catalogue than the SDK's own.
        note: Told in a line what takes a while.
    """

    def __init__(self, cache: Path, catalogue: str | None, note: Callable[[str], None]) -> None:
        self._cache, self._catalogue, self._note = cache, catalogue, note
        self._providers_sought = False
        self._port = 0
        self._runtime = self._open()

    @property
    def version(self) -> str:
        """Of the SDK."""
        from foundry_local_sdk import __version__

        return str(__version__)

    def serve(self, port: int) -> str:
        """Start the web service, unless it runs; its root URL.

        The SDK takes the port as it is initialised, so for another one it is closed and opened, and what was loaded
        is loaded again.
        """
        if self._runtime.urls:
            if port not in (0, self._port):
                raise LoadbenchError(f"the web service runs at {self._runtime.urls[0]} already: it has one port")
            return str(self._runtime.urls[0])
        if port != self._port:
            loaded = [model.id for _, model in self._each() if model.is_loaded]
            self._runtime.close()
            self._port = port
            self._runtime = self._open()
            for model in loaded:
                self.load(model)
        with _translated(lambda told: failure.on_serve(port, told)):
            self._runtime.start_web_service()
        return str(self._runtime.urls[0])

    def models(self) -> list[dict[str, Any]]:
        """Every variant of both catalogues, in the terms of ModelFacts, `registered` apart."""
        return [_row(model, registered) for registered, model in self._each()]

    def pull(self, model: str, progress: Callable[[float], None], cancelled: threading.Event) -> None:
        """Download."""
        registered, found = self._find(model)
        if registered or found.is_cached:
            return
        download.check_space(model, _size_bytes(found), self._cache)
        download.pull(found, progress, cancelled)

    def load(self, model: str) -> None:
        """Load into memory."""
        _, found = self._find(model)
        if not found.is_cached:
            raise failure.not_cached(model)
        with _translated(lambda told: failure.on_load(model, told)):
            found.load()

    def unload(self, model: str) -> None:
        """Unload from memory."""
        _, found = self._find(model)
        for pause_s in _PAUSES_S:
            try:
                self._unload(found)
                return
            except failure.Busy:  # a stream that just ended still holds the model for a moment
                time.sleep(pause_s)
        self._unload(found)

    def remove(self, model: str) -> None:
        """Delete a download, or forget a registered model, whose files stay."""
        registered, found = self._find(model)
        if not found.is_cached:
            raise failure.not_cached(model)
        self.unload(model)
        with _translated(lambda told: LoadbenchError(f"{model} cannot be removed: {failure.plain(told)}")):
            if registered:
                self._local.unregister_model(model)
            else:
                found.remove_from_cache()

    def register(self, path: str, model: str, reasoning: Sequence[str] | None = None) -> dict[str, Any]:
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
            _translated(lambda told: LoadbenchError(f"{path} cannot be registered: {failure.plain(told)}")),
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
        """The folder of its files."""
        return self._find(model)[1].get_path() or None

    def close(self) -> None:
        """Unload all, and end the web service."""
        self._runtime.close()

    @property
    def _local(self) -> Any:
        from foundry_local_sdk import CatalogType

        return self._runtime.get_catalog(CatalogType.LOCAL)

    def _unload(self, found: Any) -> None:
        with _translated(lambda told: failure.on_unload(found.id, told)):
            found.unload()

    def _open(self) -> Any:
        from foundry_local_sdk import Configuration, FoundryLocalManager, LogLevel

        settings = Configuration(
            app_name=APP,
            model_cache_dir=str(self._cache),
            log_level=LogLevel.ERROR,
            web=Configuration.WebService(urls=f"http://127.0.0.1:{self._port}"),
            catalog_urls=[(self._catalogue, None)] if self._catalogue else None,
            disable_nonessential_telemetry=True,
        )
        with _translated(lambda told: LoadbenchError(f"Foundry Local cannot start: {failure.plain(told)}")):
            FoundryLocalManager.initialize(settings)
        self._providers_sought = False
        return FoundryLocalManager.instance

    def _each(self) -> Iterator[tuple[bool, Any]]:
        """Each variant, and whether it was registered; the local catalogue first: it asks no network."""
        for model in self._local.list_models():
            yield from ((True, variant) for variant in model.variants)
        self._seek_providers()
        for model in self._runtime.catalog.list_models():
            yield from ((False, variant) for variant in model.variants)

    def _find(self, model: str) -> tuple[bool, Any]:
        """A variant by its full id.

        Raises:
            TargetError: There is none, or no catalogue.
        """
        known = []
        for registered, variant in self._each():
            if variant.id == model:
                return registered, variant
            known.append(variant.id)
        if not known:
            raise failure.unreachable(self._catalogue)
        # The list has the newest versions; others are asked for by their id, at the cost of a request.
        older = self._runtime.catalog.get_model_variant(model) if ":" in model else None
        if older is None:
            raise failure.unknown(model, known)
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
        told = set()

        def progress(provider: str, percent: float) -> None:
            if 0 < percent < 80 and provider not in told:  # above is what takes no network: to unpack and register
                told.add(provider)
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
        raise error(str(failed)) from failed


def _row(model: Any, registered: bool) -> dict[str, Any]:
    told = model.info
    runtime = told.runtime
    return {
        "registered": registered,
        "id": model.id,
        "aliases": [model.alias] if model.alias and model.alias != model.id else [],
        "loaded": model.is_loaded,
        "cached": model.is_cached,
        "size_bytes": _size_bytes(model),
        "context": model.context_length,
        "device": str(runtime.device_type) if runtime and runtime.device_type else None,
        "execution_provider": (runtime and runtime.execution_provider) or None,
        "licence": told.license,
        "task": told.task,
        "capabilities": [word.strip() for word in (told.capabilities or "").split(",") if word.strip()],
    }


def _size_bytes(model: Any) -> int | None:
    """As the catalogue tells, else of the files on disk: a registered model has no size in its catalogue."""
    told: int | None = model.info.file_size_mb
    if told:
        return told * MIB
    folder = model.get_path()
    files = [path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()] if folder else []
    return sum(files) or None
