"""Which server answers: few short GETs, none of which can make a run fail.

Source: FOUNDRY.md §2 for Foundry Local's generations; llama.cpp and the simulator name themselves in `Server`;
`/api/version` is Ollama's, `/version` vLLM's, `/api/v0/models` LM Studio's own.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx

from loadbench.errors import TargetError
from loadbench.server.calls import call, get_json, parsed
from loadbench.server.endpoint import server_root
from loadbench.server.facts import Kind, ModelFacts
from loadbench.server.foundry import generation_0, generation_1, generation_2, with_rows
from loadbench.server.ollama import ollama_models
from loadbench.server.rows import count, field, model_facts, model_rows, text

# A server that takes longer to say who it is stays a generic one.
PROBE_S = 1.5
_QUANTIZATION = re.compile(r"(?<![A-Za-z0-9])(I?Q\d(?:_[A-Z0-9]+)*|BF16|F16|F32|MXFP4)(?![A-Za-z0-9])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who answers, and what its own routes add to the model list."""

    kind: Kind
    version: str | None = None
    pid: int | None = None
    models: tuple[ModelFacts, ...] = ()
    slots: int | None = None
    limited: bool = False


async def identify(
    http: httpx.AsyncClient, base_url: str, *, server: str | None, rows: list[Any] | None, within_s: float = PROBE_S
) -> Identity:
    """The server behind a base URL, by its `Server` header, its model list, and what its own routes answer."""
    models = tuple(facts for row in rows or () if (facts := model_facts(row)) is not None)
    name, _, version = (server or "").partition("/")
    if name.lower() == "loadbench-simulator":
        return Identity("simulator", version or None, models=_all_loaded(models))
    root = server_root(base_url)
    if name.lower() == "llama.cpp":
        return _llama(await get_json(http, root + "/props", within_s=within_s), models)
    if any(text(row, "owned_by") == "vllm" for row in rows or ()):
        told = await get_json(http, root + "/version", within_s=within_s)
        return Identity("vllm", text(told, "version"), models=_all_loaded(models))
    return await _by_its_routes(http, base_url, models, [text(row, "owned_by") for row in rows or ()], within_s)


async def _by_its_routes(
    http: httpx.AsyncClient,
    base_url: str,
    models: tuple[ModelFacts, ...],
    owners: Sequence[str | None],
    within_s: float,
) -> Identity:
    """Who answers on a route of its own; one after the other, as gateways count what they are asked.

    Routes that the model list speaks against are left out.
    """
    root, end_s = server_root(base_url), asyncio.get_running_loop().time() + 2 * within_s
    owned = bool(owners) and all(owners)

    limited = False

    async def told(route: str) -> Any:
        nonlocal limited
        left_s = end_s - asyncio.get_running_loop().time()
        if limited or left_s <= 0:
            return None
        try:
            response = await call(http, "GET", root + route, within_s=min(within_s, left_s), again=False)
        except TargetError:
            return None
        limited = response.status_code == 429
        return parsed(response) if response.status_code == 200 else None

    status = await told("/status")
    if field(status, "modelCachePath") and field(status, "pid") is not None:
        models = await generation_2(http, base_url, models, within_s)
        return Identity("foundry2", pid=count(status, "pid"), models=models)
    if field(status, "modelDirPath"):
        models = await generation_1(http, base_url, models, within_s)
        return Identity("foundry1", pid=count(status, "pid"), models=models)
    if (not owned or "Microsoft" in owners) and field(await told("/openai/status"), "modelDirPath", "endpoints"):
        return Identity("foundry0", models=await generation_0(http, root, models, within_s))
    if not owned or "organization_owner" in owners:
        lmstudio = await told("/api/v0/models")
        if any(text(row, "state") for row in model_rows(lmstudio) or ()):
            return Identity("lmstudio", models=await _lmstudio(http, root, models, lmstudio, within_s))
    # Each of Ollama's names has a tag.
    if not owned or any(":" in facts.id for facts in models):
        version = text(await told("/api/version"), "version")
        if version:
            return Identity("ollama", version, models=await ollama_models(http, root, models, within_s))
    props = await told("/props")
    if field(props, "default_generation_settings") is not None:
        return _llama(props, models)
    version = await told("/version")
    if isinstance(version, Mapping) and set(version) == {"version"}:
        return Identity("vllm", text(version, "version"), models=_all_loaded(models))
    return Identity("openai", models=models, limited=limited)


def _llama(props: Any, models: tuple[ModelFacts, ...]) -> Identity:
    context = count(field(props, "default_generation_settings"), "n_ctx")
    path = text(props, "model_path") or ""
    # One model is held by the process; only a router says otherwise, row by row.
    alone = len(models) == 1
    known = (
        replace(
            facts,
            loaded=True if facts.loaded is None else facts.loaded,
            context=facts.context or (context if alone else None),
            quantization=facts.quantization or _quantization(path if alone else facts.id),
        )
        for facts in models
    )
    return Identity("llama.cpp", text(props, "build_info"), models=tuple(known), slots=count(props, "total_slots"))


def _quantization(path: str) -> str | None:
    """What a GGUF file's name tells: SmolLM2-135M-Instruct-Q4_1.gguf."""
    found = _QUANTIZATION.findall(path.replace("\\", "/").rpartition("/")[2])
    return found[-1].upper() if found else None


async def _lmstudio(
    http: httpx.AsyncClient, root: str, models: tuple[ModelFacts, ...], listed: Any, within_s: float
) -> tuple[ModelFacts, ...]:
    """Its older list, of what is downloaded, and the newer one, which tells sizes too."""
    newer = await get_json(http, root + "/api/v1/models", within_s=within_s)
    on_disk = {facts.id for row in model_rows(listed) or () if (facts := model_facts(row)) is not None}
    known = with_rows(with_rows(models, model_rows(listed)), model_rows(newer))
    return tuple(replace(facts, cached=True if facts.id in on_disk else None) for facts in known)


def _all_loaded(models: tuple[ModelFacts, ...]) -> tuple[ModelFacts, ...]:
    return tuple(replace(facts, loaded=True) for facts in models)
