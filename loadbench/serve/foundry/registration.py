"""The id of a model of one's own, from the folder it lies in."""

from __future__ import annotations

import json
import re
from pathlib import Path

from loadbench.errors import UsageError
from loadbench.scenario.files import read_bytes
from loadbench.serve.foundry.places import CONFIG

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
    found: object = settings
    for key in ("model", "decoder", "session_options", "provider_options"):
        found = found.get(key) if isinstance(found, dict) else None
    first = next((name for each in found for name in each), "") if isinstance(found, list) else ""
    return _VARIANTS.get(str(first).lower(), "generic-cpu")
