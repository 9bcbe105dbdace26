"""Rows of model lists, read in whichever dialect: keys in any casing, nulls, and fields nobody knows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from loadbench.server.facts import ModelFacts

MOST = 2**53
"""The largest whole number that a run folder holds: every reader of JSON takes it exactly."""
MOST_MODELS = 5_000
"""Of one list. The longest in the field, those of routers to many vendors, have some hundreds."""
MOST_CHARACTERS = 512
"""Of a name or another word of a server; some name models by their path."""
_MOST_WORDS = 50  # aliases or capabilities of one model


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
    """The field as text; None where it is empty, of another type, or longer than anything that is a name."""
    value = field(row, *names)
    return _word(value) or None


def whole(value: Any) -> int | None:
    """A whole number that a server told, from 0 to `MOST`; None for anything else: out of range is not told.

    All numbers of servers that are stored come in through here. Some write 1e30 for "no limit".

    >>> whole(7), whole(7.0), whole(7.5), whole(True), whole(-1), whole(2**53 + 1), whole(1e30)
    (7, 7, None, None, None, None, None)
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value <= MOST else None


def count(row: Any, *names: str) -> int | None:
    """The field as a positive whole number; None where it is none (a size of 0 was not measured)."""
    value = field(row, *names)
    if isinstance(value, float) and math.isfinite(value):  # a size in MB may have a fraction
        value = int(value)
    return whole(value) or None


def model_facts(row: Any) -> ModelFacts | None:
    """A row of ``/v1/models`` (any dialect), of Ollama's tags, of LM Studio's list or of Foundry's catalog."""
    name = _word(row) if isinstance(row, str) else text(row, "id", "model", "name", "key")
    if not name:
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
    """The rows of a model list in whichever wrapping; None where it is none, or has more than `MOST_MODELS`."""
    rows = document if isinstance(document, list) else field(document, "data", "models")
    return rows if isinstance(rows, list) and len(rows) <= MOST_MODELS else None


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
    known = dict.fromkeys(other for other in map(_word, names) if other and other != name)
    return tuple(known)[:_MOST_WORDS]


def _word(value: Any) -> str:
    """A word of a server; empty where it is no text, or of a length that nobody reads."""
    word = value.strip() if isinstance(value, str) else ""
    return word if len(word) <= MOST_CHARACTERS else ""


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
        told = [name for name, has in told.items() if has is True]
    if isinstance(told, str):
        told = told.split(",")
    return words(told) or (("tools",) if field(row, "supportsToolCalling") is True else ())


def words(told: Any) -> tuple[str, ...]:
    """The words of a list that a server told, as many as are of use; none where it is no list."""
    known = map(_word, told) if isinstance(told, list) else ()
    return tuple(word for word in known if word)[:_MOST_WORDS]


def _loaded(row: Any) -> bool | None:
    state = text(row, "state") or text(field(row, "status"), "value")  # LM Studio; llama.cpp as a router
    instances = field(row, "loaded_instances")  # LM Studio's newer list
    if state is None and isinstance(instances, list):
        return bool(instances)
    return state == "loaded" if state else _flag(row, "loaded", "isLoaded")


def _size_bytes(row: Any, meta: Any) -> int | None:
    megabytes = count(row, "fileSizeMb", "file_size_mb")
    in_megabytes = whole(megabytes * 1024 * 1024) if megabytes else None
    return count(row, "size", "size_bytes") or count(meta, "size") or in_megabytes


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
    return whole(prompt + answer) if prompt and answer else prompt


def _task(row: Any) -> str | None:
    told = text(row, "task", "type")
    return {"llm": "chat-completion", "vlm": "chat-completion", "model": None}.get(told, told) if told else None
