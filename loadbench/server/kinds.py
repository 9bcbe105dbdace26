"""All kinds of servers and how to tell them apart; those that hold what they were started with are described here."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from loadbench.server import foundry, lmstudio, ollama
from loadbench.server.calls import ask_json
from loadbench.server.facts import Kind, ModelFacts, Target, count, field, text
from loadbench.server.vendor import Control, Probe, Vendor

if TYPE_CHECKING:
    import httpx

_QUANTIZATION = re.compile(r"(?<![A-Za-z0-9])(I?Q\d(?:_[A-Z0-9]+)*|BF16|F16|F32|MXFP4)(?![A-Za-z0-9])", re.IGNORECASE)

VENDORS: dict[Kind, Vendor] = {
    "foundry0": foundry.FOUNDRY_0,
    "foundry1": foundry.FOUNDRY_1,
    "foundry2": foundry.FOUNDRY_2,
    "llama.cpp": Vendor(
        pull_hint="start llama-server with {them} (-m FILE, or -hf REPOSITORY)",
        has_metrics=True,
        ignore_eos=True,
        cache_prompt=True,
    ),
    "vllm": Vendor(
        pull_hint="start its server with {them} (`vllm serve {name}`)",
        has_metrics=True,
        ignore_eos=True,
        min_tokens=True,
        continuous_usage=True,
    ),
    "ollama": ollama.OLLAMA,
    "lmstudio": lmstudio.LM_STUDIO,
    "simulator": Vendor(
        pull_hint="pull {them} with Foundry Local (`foundry model download {name}`) and measure its service",
        ignore_eos=True,
        continuous_usage=True,
    ),
    "openai": Vendor(pull_hint="add {them} to what this server offers"),
}
KINDS: tuple[Kind, ...] = tuple(VENDORS)


def control(target: Target, http: httpx.AsyncClient) -> Control | None:
    """The control of a server's models; None where it offers none: it holds what it was started with."""
    make = VENDORS[target.kind].control
    return None if make is None else make(target, http)


async def identify(probe: Probe) -> Target:
    """The server by its `Server` header, its model list, and what its own routes answer, one after the other.

    Source: FOUNDRY.md §2 for Foundry Local's generations; llama.cpp and the simulator name themselves in `Server`;
    `/api/version` is Ollama's, `/version` vLLM's, `/api/v0/models` LM Studio's own.
    """
    name, _, version = (probe.target.server_header or "").partition("/")
    if name.lower() == "loadbench-simulator":
        return _all_loaded(probe.target, "simulator", version or None)
    if name.lower() == "llama.cpp":
        return _llama(probe.target, await ask_json(probe.http, probe.root + "/props", within_s=probe.within_s))
    if "vllm" in probe.owners:
        document = await ask_json(probe.http, probe.root + "/version", within_s=probe.within_s)
        return _all_loaded(probe.target, "vllm", text(document, "version"))
    for recognise in (foundry.recognise, lmstudio.recognise, ollama.recognise, _llama_by_props, _vllm_by_version):
        target = await recognise(probe)
        if target is not None:
            return target
    return replace(probe.target, limited=probe.limited)


async def _llama_by_props(probe: Probe) -> Target | None:
    props = await probe.get("/props")
    return None if field(props, "default_generation_settings") is None else _llama(probe.target, props)


async def _vllm_by_version(probe: Probe) -> Target | None:
    document = await probe.get("/version")
    if not isinstance(document, dict) or set(document) != {"version"}:
        return None
    return _all_loaded(probe.target, "vllm", text(document, "version"))


def _all_loaded(target: Target, kind: Kind, version: str | None) -> Target:
    models = tuple(replace(facts, loaded=True) for facts in target.models)
    return replace(target, kind=kind, version=version, models=models)


def _llama(target: Target, props: object) -> Target:
    """What its properties add to its list: a single model is held by the process, a router says which are loaded."""
    alone = len(target.models) == 1
    context = count(field(props, "default_generation_settings"), "n_ctx") if alone else None
    path = text(props, "model_path") or ""

    def described(facts: ModelFacts) -> ModelFacts:
        quantization = facts.quantization or _quantization(path if alone else facts.id)
        loaded = facts.loaded is not False
        return replace(facts, loaded=loaded, context=facts.context or context, quantization=quantization)

    return replace(
        target,
        kind="llama.cpp",
        version=text(props, "build_info"),
        models=tuple(map(described, target.models)),
        slots=count(props, "total_slots"),
    )


def _quantization(path: str) -> str | None:
    """What a GGUF file's name says: SmolLM2-135M-Instruct-Q4_1.gguf."""
    names = _QUANTIZATION.findall(path.replace("\\", "/").rpartition("/")[2])
    return names[-1].upper() if names else None
