"""What is known of a server and its models; None where nothing told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from loadbench.server.endpoint import route

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
        base_url: As `normalise` has it: nearly always it ends in ``/v1``.
        kind: Which server it is.
        version: Where the server tells it.
        server_header: The `Server` header, as sent.
        models: In the server's order.
        unlisted: Why there is no model list; None where the server gave one.
        pid: Of the server, where it tells it (Foundry Local 2.x).
        slots: Requests it answers at once, where it tells it (llama.cpp).
        proxied: Requests go through a forward proxy of the environment.
        is_ours: It is Foundry Local's SDK, in a process of ours.
        limited: It refused to be asked so often, before anything was measured.
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


def ignore_eos_supported(kind: Kind) -> bool:
    """Whether `ignore_eos: true` makes answers run to max_tokens; the others ignore or refuse it."""
    return kind in ("llama.cpp", "vllm", "simulator")


def min_tokens_supported(kind: Kind) -> bool:
    """Whether `min_tokens` keeps an answer from ending before it has so many."""
    return kind == "vllm"


def cache_prompt_supported(kind: Kind) -> bool:
    """Whether `cache_prompt: false` switches the prompt cache off."""
    return kind == "llama.cpp"


def continuous_usage_supported(kind: Kind) -> bool:
    """Whether `stream_options.continuous_usage_stats` puts the count so far into every event."""
    return kind in ("vllm", "simulator")
