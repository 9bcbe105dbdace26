"""What of Foundry Local is on this machine: its SDK, which nothing here imports, its models, and ids for new ones."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from loadbench.errors import LoadbenchError, UsageError, how_to_install
from loadbench.scenario.files import expanded, read_bytes

CONFIG = "genai_config.json"
"""What every model folder holds: the settings of ONNX Runtime GenAI."""
REGISTERED = "foundry.local.modelinfo.json"
"""The runtime's list of registered models, in the cache folder."""

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


def available(installed: Callable[[str], str | None] | None = None) -> str | None:
    """None if the SDK is here and new enough; else one line that says why not and what to do.

    Args:
        installed: The version of a distribution, None where it is not there; for tests.

    >>> available({"foundry-local-sdk": "2.2.1"}.get)
    >>> str(available({"foundry-local-sdk": "1.2.4"}.get)).partition(": ")[0]
    "Foundry Local's SDK 1.2.4 is too old, 2.1 or newer is needed"
    """
    version = (installed or _installed)("foundry-local-sdk")
    if version is None:
        return f"Foundry Local's SDK is not installed: {_INSTALL}"
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < _OLDEST:
        return f"Foundry Local's SDK {version} is too old, 2.1 or newer is needed: {_INSTALL}"
    if installed is None and importlib.util.find_spec("foundry_local_sdk") is None:
        return f"Foundry Local's SDK {version} is installed without its package foundry_local_sdk: {_INSTALL}"
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
    """Whether anything was downloaded or registered, by a look at the disk that takes no time."""
    return any(_downloaded(cache)) or any(_registered(cache))


def half_downloads(cache: Path, model: str) -> list[Path]:
    """The folders of a model's unfinished downloads."""
    return [marker.parent for marker in cache.glob(f"*/{model.replace(':', '-')}/{_UNDER_WAY}")]


def _downloaded(cache: Path) -> Iterator[Path]:
    """Folders as the runtime's download leaves them, at any depth below that of the publisher.

    Source: `ScanDirectory` in sdk_v2/cpp/src/catalog/local_model_scanner.cc (microsoft/Foundry-Local).
    """
    for complete in cache.glob(f"*/**/{_COMPLETE}"):
        folder = complete.parent
        if (folder / CONFIG).exists() and not (folder / _UNDER_WAY).exists():
            yield folder


def _registered(cache: Path) -> list[object]:
    try:
        listed = json.loads(read_bytes(cache / REGISTERED))
    except (OSError, ValueError, RecursionError):
        return []
    if not isinstance(listed, dict) or not isinstance(listed.get("models"), list):
        return []
    models: list[object] = listed["models"]
    return models


def _installed(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def id_of(folder: Path, name: str | None) -> str:
    """The id to register a folder's model under, as NAME:VERSION.

    Args:
        name: With or without a version; None makes it of the folder's name and the provider in the model's settings,
            as my-model-generic-cpu:1, because loadbench tells a registered model's device from its id.
    Raises:
        UsageError: The folder holds no model of ONNX Runtime GenAI, or this is no id.
    """
    settings = _settings(folder)
    if name is None:
        stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.name).strip("-.") or "model"
        name = stem if re.search(r"-(cpu|gpu|npu)$", stem) else f"{stem}-{_variant(settings)}"
    if not _ID.fullmatch(name):
        raise UsageError(f"{name!r} is no model id: write it as my-model-generic-cpu:1, the number is its version")
    return name if ":" in name else f"{name}:1"


def _settings(folder: Path) -> dict[str, object]:
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
    return settings


def _variant(settings: dict[str, object]) -> str:
    """How the id ends: for the first execution provider that the settings name, else for the processor."""
    providers: object = settings
    for key in ("model", "decoder", "session_options", "provider_options"):
        providers = providers.get(key) if isinstance(providers, dict) else None
    for provider in providers if isinstance(providers, list) else ():
        for name in provider:
            return _VARIANTS.get(str(name).lower(), "generic-cpu")
    return "generic-cpu"
