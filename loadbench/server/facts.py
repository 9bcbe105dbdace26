"""A server and its models, and how the rows of its lists are read: keys in any casing, nulls, unknown fields.

None is what the server does not report.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Literal

from loadbench.server.endpoint import route

Kind = Literal["foundry0", "foundry1", "foundry2", "llama.cpp", "vllm", "ollama", "lmstudio", "simulator", "openai"]
"""Foundry Local by generation of its web service; `openai` is any other server of that API."""

MOST = 2**53
"""The largest whole number that a run folder holds: every reader of JSON takes it exactly."""
MOST_MODELS = 5_000
"""Of one list. The longest in the field, those of routers to many vendors, have some hundreds."""
MOST_CHARACTERS = 512
"""Of a name or another word of a server; some name models by their path."""
_MOST_WORDS = 50  # aliases or capabilities of one model
_TASKS = {"llm": "chat-completion", "vlm": "chat-completion", "model": None}
"""What a row's type says; `model` says nothing."""
_LOAD_FACTOR = 1.2  # the context and the runtime's own buffers take memory beside the weights
_LICENCE_HEAD = 4000  # characters: a name stands at the start; the texts run to 15,000
_LICENCES = (
    (r"apache license,?\s+version 2\.0|apache-2\.0", "Apache-2.0"),
    (r"\bmit license\b|permission is hereby granted, free of charge", "MIT"),
    (r"\bllama\s+(\d(?:\.\d)?)\s+community license", "Llama {} Community"),
    (r"gemma terms of use", "Gemma"),
    (r"qwen research license", "Qwen Research"),
    (r"(?:tongyi qianwen|qwen) license", "Qwen"),
    (r"deepseek license", "DeepSeek"),
    (r"mistral ai (\w+(?:-\w+)?) licen[cs]e", "Mistral {}"),
    (r"redistribution and use in source and binary forms", "BSD"),
    (r"gnu affero general public license", "AGPL"),
    (r"gnu general public license", "GPL"),
    (r"attribution-noncommercial 4\.0|cc-by-nc-4\.0", "CC-BY-NC-4.0"),
    (r"attribution 4\.0|cc-by-4\.0", "CC-BY-4.0"),
)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """One model as the server describes it.

    Attributes:
        id: What requests must name.
        loaded, cached: In memory; on the server's disk.
        size_bytes: On disk.
        context: In tokens, prompt and answer together.
        quantization: As the server writes it, e.g. ``Q4_K_M``.
        device: CPU, GPU or NPU.
        execution_provider: Foundry Local's, e.g. ``CUDAExecutionProvider``.
        licence: As the catalog writes it.
        task: e.g. ``chat-completion``, ``embeddings``.
        base_url: Where it answers, if not at the target's: models registered with a Foundry Local 2.x have a prefix.
        capabilities: As the server lists them, e.g. ``vision``, ``tools``.
        device_by_name: True where the device is that of a name which whoever registered the model chose.
    """

    id: str
    aliases: tuple[str, ...] = ()
    loaded: bool | None = None
    cached: bool | None = None
    size_bytes: int | None = None
    context: int | None = None
    quantization: str | None = None
    device: str | None = None
    execution_provider: str | None = None
    licence: str | None = None
    task: str | None = None
    base_url: str | None = None
    capabilities: tuple[str, ...] = ()
    device_by_name: bool | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """A server that answered.

    Attributes:
        base_url: As `normalise` has it: nearly always it ends in ``/v1``.
        server_header: The `Server` header, as sent.
        models: In the server's order.
        unlisted: Why there is no model list; None where the server gave one.
        pid: Of the server, where it tells it (Foundry Local 2.x).
        slots: Requests it answers at once, where it tells it (llama.cpp).
        proxied: Requests go through a forward proxy of the environment.
        limited: It refused to be asked so often, before anything was measured.
        is_ours: It is Foundry Local's SDK, in a process of ours.
    """

    base_url: str
    kind: Kind
    version: str | None = None
    server_header: str | None = None
    models: tuple[ModelFacts, ...] = ()
    unlisted: str | None = None
    pid: int | None = None
    slots: int | None = None
    proxied: bool = False
    limited: bool = False
    is_ours: bool = False

    @property
    def chat_url(self) -> str:
        """Where chat completions are posted."""
        return route(self.base_url)

    @property
    def models_url(self) -> str:
        """Where the models are listed."""
        return route(self.base_url, "models")

    def chat_urls(self, models: Iterable[str]) -> dict[str, str]:
        """Where chat completions of these models, by their ids, are posted: some have a base URL of their own."""
        own = {facts.id: facts.base_url for facts in reversed(self.models) if facts.base_url}
        return {model: route(own.get(model, self.base_url)) for model in models}

    def chat_url_of(self, model: str) -> str:
        """Where those of one model are posted."""
        return self.chat_urls([model])[model]


def merged(first: ModelFacts, second: ModelFacts) -> ModelFacts:
    """The first's facts, completed with the second's."""
    missing = {}
    for one in fields(ModelFacts):
        if getattr(first, one.name) is None:
            missing[one.name] = getattr(second, one.name)
    aliases = tuple(dict.fromkeys(first.aliases + second.aliases))
    capabilities = tuple(dict.fromkeys(first.capabilities + second.capabilities))
    return replace(first, aliases=aliases, capabilities=capabilities, **missing)


def with_list(models: Iterable[ModelFacts], others: Iterable[ModelFacts] | None) -> tuple[ModelFacts, ...]:
    """The models, completed with another list of the same server."""
    by_id = {facts.id.lower(): facts for facts in others or ()}
    return tuple(merged(facts, by_id.get(facts.id.lower(), facts)) for facts in models)


def free_memory_warning(facts: ModelFacts, available_bytes: int | None) -> str | None:
    """One line where a model is larger than the free memory; None where it fits, is loaded, or nothing is known.

    >>> free_memory_warning(ModelFacts("phi-4", size_bytes=8_000_000_000), 6_100_000_000)
    'phi-4 needs about 9.6 GB of memory (8.0 GB of weights and its context), but 6.1 GB are free: it may swap or fail'
    """
    if facts.size_bytes is None or available_bytes is None or facts.loaded:
        return None
    needed = facts.size_bytes * _LOAD_FACTOR
    if needed <= available_bytes:
        return None
    return (
        f"{facts.id} needs about {needed / 1e9:.1f} GB of memory ({facts.size_bytes / 1e9:.1f} GB of weights and its "
        f"context), but {available_bytes / 1e9:.1f} GB are free: it may swap or fail"
    )


def licence_name(text: str | None) -> str | None:
    """The licence that a text names first; its first line where it is an unknown one; None without a text.

    >>> licence_name("                 Apache License\\n           Version 2.0, January 2004")
    'Apache-2.0'
    >>> licence_name("LLAMA 3.2 COMMUNITY LICENSE AGREEMENT\\nLlama 3.2 Version Release Date")
    'Llama 3.2 Community'
    """
    text = (text or "").strip()
    head = " ".join(text[:_LICENCE_HEAD].split())
    named = []
    for pattern, name in _LICENCES:
        if match := re.search(pattern, head, re.IGNORECASE):
            named.append((match.start(), name.format(*map(str.title, match.groups()))))
    if named:
        return min(named)[1]
    first = next(iter(text.splitlines()), "").strip()
    if len(first) > 40:
        first = first[:37] + "..."
    return first or None


# -- the rows of a list


def models_of(document: object) -> tuple[ModelFacts, ...] | None:
    """The models of a list in whichever wrapping; None where it is no list, or has more than `MOST_MODELS` rows."""
    rows = model_rows(document)
    if rows is None:
        return None
    return tuple(filter(None, map(model_facts, rows)))


def model_rows(document: object) -> list[object] | None:
    """The rows of a model list, as `models_of`."""
    rows = document
    if not isinstance(document, list):
        rows = field(document, "data", "models")
    if isinstance(rows, list) and len(rows) <= MOST_MODELS:
        return rows
    return None


def model_facts(row: object) -> ModelFacts | None:
    """A row of ``/v1/models`` (any dialect), of Ollama's tags, of LM Studio's list or of Foundry's catalog."""
    # Some gateways list bare names.
    name = _word(row) or text(row, "id", "model", "name", "key")
    if not name:
        return None
    runtime, meta, details = field(row, "runtime"), field(row, "meta"), field(row, "details")
    megabytes = count(row, "fileSizeMb", "file_size_mb") or 0
    # LM Studio's older list, its newer one, llama.cpp, Ollama.
    quantization = (
        text(row, "quantization")
        or text(field(row, "quantization"), "name")
        or text(meta, "ftype")
        or text(details, "quantization_level")
    )
    device = text(runtime, "deviceType", "device_type") or text(row, "device", "deviceType") or ""
    task = text(row, "task", "type")
    return ModelFacts(
        id=name,
        aliases=_aliases(row, name),
        loaded=_loaded(row),
        cached=_flag(row, "cached", "isCached"),
        size_bytes=count(row, "size", "size_bytes") or count(meta, "size") or whole(megabytes << 20) or None,
        context=_context(row),
        quantization=quantization,
        device=device.upper() or None,
        execution_provider=text(runtime, "executionProvider", "execution_provider") or text(row, "executionProvider"),
        licence=text(row, "license", "licence"),
        task=_TASKS.get(task or "", task),
        capabilities=_capabilities(row),
    )


def field(row: object, *names: str) -> object:
    """The first of the names that the row has with a value; the casing of keys varies between versions.

    >>> field({"MaxInputTokens": 7, "alias": None}, "alias", "maxInputTokens")
    7
    """
    if not isinstance(row, dict):
        return None
    lower = {str(key).lower(): value for key, value in row.items()}
    for name in names:
        if (value := lower.get(name.lower())) is not None:
            return value
    return None


def text(row: object, *names: str) -> str | None:
    """The field as text; None where it is empty, of another type, or longer than anything that is a name."""
    return _word(field(row, *names)) or None


def items(value: object) -> list[object]:
    """The items of a list; none where it is none."""
    if isinstance(value, list):
        return value
    return []


def words(value: object) -> tuple[str, ...]:
    """The words of a list, as many as are of use; none where it is no list."""
    return tuple(filter(None, map(_word, items(value))))[:_MOST_WORDS]


def whole(value: object) -> int | None:
    """A whole number from 0 to `MOST`; None for anything else.

    All numbers of servers that are stored come in through here. Some write 1e30 for "no limit".

    >>> whole(7), whole(7.0), whole(7.5), whole(True), whole(-1), whole(2**53 + 1), whole(1e30)
    (7, 7, None, None, None, None, None)
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST:
        return None
    return value


def count(row: object, *names: str) -> int | None:
    """The field as a positive whole number; None where it is none (a size of 0 was not measured)."""
    value = field(row, *names)
    if isinstance(value, float) and math.isfinite(value):  # a size in MB may have a fraction
        value = int(value)
    return whole(value) or None


def _word(value: object) -> str:
    """A word of a server; empty where it is no text, or of a length that nobody reads."""
    if not isinstance(value, str):
        return ""
    word = value.strip()
    if len(word) > MOST_CHARACTERS:
        return ""
    return word


def _flag(row: object, *names: str) -> bool | None:
    value = field(row, *names)
    if isinstance(value, bool):
        return value
    return None


def _aliases(row: object, name: str) -> tuple[str, ...]:
    names = [_word(one) for one in items(field(row, "aliases"))]
    # Foundry Local names the alias `parent` in some versions; vLLM's `parent` is a LoRA's base, another model.
    if text(row, "owned_by") != "vllm":
        names += [text(row, "alias") or "", text(row, "parent") or ""]
    distinct = dict.fromkeys(names)
    distinct.pop("", None)
    distinct.pop(name, None)
    return tuple(distinct)[:_MOST_WORDS]


def _loaded(row: object) -> bool | None:
    state = text(row, "state") or text(field(row, "status"), "value")  # LM Studio; llama.cpp as a router
    if state:
        return state == "loaded"
    instances = field(row, "loaded_instances")  # LM Studio's newer list
    if isinstance(instances, list):
        return bool(instances)
    return _flag(row, "loaded", "isLoaded")


def _context(row: object) -> int | None:
    context = (
        count(row, "loaded_context_length", "context_length", "contextLength", "max_model_len", "max_context_length")
        or count(field(row, "meta"), "n_ctx")
        or count(field(row, "details"), "context_length")
    )
    if context:
        return context
    # Foundry Local 0.x splits its context: 114,688 + 16,384 = 131,072 for Phi-3.5.
    prompt, answer = count(row, "maxInputTokens"), count(row, "maxOutputTokens")
    if prompt and answer:
        return whole(prompt + answer)
    return prompt


def _capabilities(row: object) -> tuple[str, ...]:
    listed = field(row, "capabilities")
    if isinstance(listed, dict):
        listed = [name for name, has in listed.items() if has is True]
    if isinstance(listed, str):
        listed = listed.split(",")
    capabilities = words(listed)
    if not capabilities and field(row, "supportsToolCalling") is True:
        return ("tools",)
    return capabilities
