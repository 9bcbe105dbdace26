"""Whether Foundry Local's SDK is here, and where its models are kept; nothing here imports it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from loadbench.errors import LoadbenchError, how_to_install
from loadbench.scenario.files import expanded, read_bytes

CONFIG = "genai_config.json"
"""What every model folder holds: the settings of ONNX Runtime GenAI."""
REGISTERED = "foundry.local.modelinfo.json"
"""The runtime's list of registered models, in the cache folder."""

_OLDEST = (2, 1)
_INSTALL = how_to_install("foundry")
_COMPLETE, _UNDER_WAY = "inference_model.json", "download.tmp"


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
    given = environ.get("LOADBENCH_CACHE_DIR")
    if given:
        return expanded(given, "LOADBENCH_CACHE_DIR")
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
    models = listed.get("models") if isinstance(listed, dict) else None
    return models if isinstance(models, list) else []


def _installed(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
