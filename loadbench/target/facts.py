"""What is known of a server and its models; None where nothing told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from loadbench.target.endpoint import FOUNDRY_CATALOG, server_root

Kind = Literal["foundry0", "foundry1", "foundry2", "llama.cpp", "vllm", "ollama", "lmstudio", "simulator", "openai"]
"""Foundry Local by generation of its web service; `openai` is any other server of that API."""
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """One model as the server tells of it.

    Attributes:
        id: What requests must name.
        aliases: Other names the server tells for it.
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


@dataclass(frozen=True, slots=True)
class Chosen:
    """A model to measure.

    Attributes:
        id: What requests must name.
        name: As it was asked for.
        facts: None where the server lists no such model and it is taken on trust.
        device, execution_provider: As asked for, the device in upper case; None where any will do.
    """

    id: str
    name: str
    facts: ModelFacts | None = None
    device: str | None = None
    execution_provider: str | None = None


@dataclass(frozen=True, slots=True)
class Absent:
    """A variant that was asked for and is not there, and why, in one line."""

    name: str
    device: str | None
    execution_provider: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Choice:
    """What will be measured, and what of the asked cannot be."""

    chosen: tuple[Chosen, ...]
    absent: tuple[Absent, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """A server that answered.

    Attributes:
        base_url: Ends in ``/v1``, without a trailing slash.
        kind: Which server it is.
        version: Where the server tells it.
        server_header: The `Server` header, as sent.
        models: In the server's order.
        unlisted: Why there is no model list; None where the server gave one.
        registered: Ids that a Foundry Local 2.x serves under another prefix, `registered_url`.
        pid: Of the server, where it tells it (Foundry Local 2.x).
        proxied: Requests go through a forward proxy of the environment.
    """

    base_url: str
    kind: Kind
    version: str | None = None
    server_header: str | None = None
    models: tuple[ModelFacts, ...] = ()
    unlisted: str | None = None
    registered: tuple[str, ...] = ()
    pid: int | None = None
    proxied: bool = False

    @property
    def chat_url(self) -> str:
        """Where chat completions are posted."""
        return self.base_url + "/chat/completions"

    @property
    def models_url(self) -> str:
        """Where the models are listed."""
        return self.base_url + "/models"

    @property
    def registered_url(self) -> str:
        """The base URL of models that were registered with a Foundry Local 2.x rather than downloaded."""
        return server_root(self.base_url) + FOUNDRY_CATALOG + "/v1"


def ignore_eos_supported(kind: Kind) -> bool:
    """Whether `ignore_eos: true` makes answers run to max_tokens; the others ignore or refuse it."""
    return kind in ("llama.cpp", "vllm", "simulator")


def cache_prompt_supported(kind: Kind) -> bool:
    """Whether `cache_prompt: false` switches the prompt cache off."""
    return kind == "llama.cpp"


def continuous_usage_supported(kind: Kind) -> bool:
    """Whether `stream_options.continuous_usage_stats` puts the count so far into every event."""
    return kind in ("vllm", "simulator")


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
    name = row.strip() if isinstance(row, str) else text(row, "id", "model", "name")
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
        quantization=text(row, "quantization") or text(meta, "ftype") or text(details, "quantization_level"),
        device=text(runtime, "deviceType", "device_type") or text(row, "device", "deviceType"),
        execution_provider=text(runtime, "executionProvider", "execution_provider") or text(row, "executionProvider"),
        licence=text(row, "license", "licence"),
        task=_task(row),
    )


def model_rows(document: Any) -> list[Any] | None:
    """The rows of a model list in whichever wrapping; None where the document is no model list."""
    rows = document if isinstance(document, list) else field(document, "data", "models")
    return rows if isinstance(rows, list) else None


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
    return tuple(dict.fromkeys(other for other in names if isinstance(other, str) and other and other != name))


def _flag(row: Any, *names: str) -> bool | None:
    value = field(row, *names)
    return value if isinstance(value, bool) else None


def _loaded(row: Any) -> bool | None:
    state = text(row, "state") or text(field(row, "status"), "value")  # LM Studio; llama.cpp as a router
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
