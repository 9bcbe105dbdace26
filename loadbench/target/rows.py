"""Rows of model lists, read in whichever dialect: keys in any casing, nulls, and fields nobody knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from loadbench.target.facts import ModelFacts

LONGEST_NAME = 1000
"""Characters of a model's id; what is longer is no name, and would make records that nobody can read."""
MOST_MODELS = 10_000


def field(row: Any, *names: str) -> Any:
    """The first of the names that the row has with a value; the casing of keys varies between versions.

    >>> field({"MaxInputTokens": 7, "alias": None}, "alias", "maxInputTokens")
    7
    """
    if not isinstance(row, Mapping):
        return None
    lower = {str(key).lower(): value for key, value in row.items()}
    return next((value for name in names if (value := lower.get(name.lower())) is not None), None)


def text(row: Any, *names: str) -> str | None:
    """The field as text; None where it is empty or of another type."""
    value = field(row, *names)
    return value.strip() or None if isinstance(value, str) else None


def count(row: Any, *names: str) -> int | None:
    """The field as a positive whole number; None where it is none (a size of 0 was not measured)."""
    value = field(row, *names)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        return None
    return int(value)


def model_facts(row: Any) -> ModelFacts | None:
    """A row of ``/v1/models`` (any dialect), of Ollama's tags, of LM Studio's list or of Foundry's catalog."""
    name = row.strip() if isinstance(row, str) else text(row, "id", "model", "name", "key")
    if not name or len(name) > LONGEST_NAME:
        return None
    meta, details, runtime = field(row, "meta"), field(row, "details"), field(row, "runtime")
    return ModelFacts(
        id=name,
        aliases=_aliases(row, name),
        loaded=_loaded(row),
        cached=_flag(row, "cached", "isCached"),
        size_bytes=_size_bytes(row, meta),
        context=_context(row, meta, details),
        quantization=_quantization(row) or text(meta, "ftype") or text(details, "quantization_level"),
        device=_device(row, runtime),
        execution_provider=text(runtime, "executionProvider", "execution_provider") or text(row, "executionProvider"),
        licence=text(row, "license", "licence"),
        task=_task(row),
        capabilities=_capabilities(row),
    )


def model_rows(document: Any) -> list[Any] | None:
    """The rows of a model list in whichever wrapping; None where the document is no model list."""
    rows = document if isinstance(document, list) else field(document, "data", "models")
    return rows[:MOST_MODELS] if isinstance(rows, list) else None


def merged(first: ModelFacts, second: ModelFacts) -> ModelFacts:
    """The first's facts, filled up with the second's."""
    values = {
        name: getattr(first, name) if getattr(first, name) is not None else getattr(second, name)
        for name in ModelFacts.__slots__
    }
    values["aliases"] = tuple(dict.fromkeys(first.aliases + second.aliases))
    values["capabilities"] = tuple(dict.fromkeys(first.capabilities + second.capabilities))
    return ModelFacts(**values)


def _aliases(row: Any, name: str) -> tuple[str, ...]:
    told = field(row, "aliases")
    names: Iterable[Any] = told if isinstance(told, list) else ()
    # Foundry Local names the alias `parent` in some versions; vLLM's `parent` is a LoRA's base, another model.
    if text(row, "owned_by") != "vllm":
        names = (*names, text(row, "alias"), text(row, "parent"))
    short = (other for other in names if isinstance(other, str) and other and len(other) <= LONGEST_NAME)
    return tuple(dict.fromkeys(other for other in short if other != name))


def _flag(row: Any, *names: str) -> bool | None:
    value = field(row, *names)
    return value if isinstance(value, bool) else None


def _quantization(row: Any) -> str | None:
    return text(row, "quantization") or text(field(row, "quantization"), "name")  # LM Studio's older and newer list


def _device(row: Any, runtime: Any) -> str | None:
    told = text(runtime, "deviceType", "device_type") or text(row, "device", "deviceType")
    return told.upper() if told else None


def _capabilities(row: Any) -> tuple[str, ...]:
    told = field(row, "capabilities")
    if isinstance(told, Mapping):
        return tuple(str(name) for name, has in told.items() if has is True)
    if isinstance(told, str):
        told = told.split(",")
    words = [word.strip() for word in told if isinstance(word, str)] if isinstance(told, list) else []
    return tuple(word for word in words if word) or (("tools",) if field(row, "supportsToolCalling") is True else ())


def _loaded(row: Any) -> bool | None:
    state = text(row, "state") or text(field(row, "status"), "value")  # LM Studio; llama.cpp as a router
    instances = field(row, "loaded_instances")  # LM Studio's newer list
    if state is None and isinstance(instances, list):
        return bool(instances)
    return state == "loaded" if state else _flag(row, "loaded", "isLoaded")


def _size_bytes(row: Any, meta: Any) -> int | None:
    megabytes = count(row, "fileSizeMb", "file_size_mb")
    return count(row, "size", "size_bytes") or count(meta, "size") or (megabytes * 1024 * 1024 if megabytes else None)


def _context(row: Any, meta: Any, details: Any) -> int | None:
    told = (
        count(row, "loaded_context_length", "context_length", "contextLength", "max_model_len", "max_context_length")
        or count(meta, "n_ctx")
        or count(details, "context_length")
    )
    if told:
        return told
    # Foundry Local 0.x splits its context: 114,688 + 16,384 = 131,072 for Phi-3.5.
    prompt, answer = count(row, "maxInputTokens"), count(row, "maxOutputTokens")
    return prompt + answer if prompt and answer else prompt


def _task(row: Any) -> str | None:
    told = text(row, "task", "type")
    return {"llm": "chat-completion", "vlm": "chat-completion", "model": None}.get(told, told) if told else None
