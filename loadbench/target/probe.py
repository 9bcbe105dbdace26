"""Which server answers: few, short, parallel GETs, none of which can make a run fail.

Source: FOUNDRY.md §2 for Foundry Local's generations; llama.cpp and the simulator name themselves in `Server`;
`/api/version` is Ollama's, `/version` vLLM's, `/api/v0/models` LM Studio's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import httpx

from loadbench.target.access import get_json
from loadbench.target.endpoint import FOUNDRY_CATALOG, server_root
from loadbench.target.facts import Kind, ModelFacts, count, field, merged, model_facts, model_rows, text

# A server that takes longer to say who it is stays a generic one.
PROBE_S = 1.5
# Foundry Local's catalog may ask the network first.
_CATALOG_S = 3.0


@dataclass(frozen=True, slots=True)
class Identity:
    """Who answers, and what its own routes add to the model list."""

    kind: Kind
    version: str | None = None
    pid: int | None = None
    models: tuple[ModelFacts, ...] = ()
    registered: tuple[str, ...] = ()


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
    routes = ("/status", "/openai/status", "/api/version", "/api/v0/models", "/props", "/version")
    status, status0, ollama, lmstudio, props, told = await _all(http, [root + route for route in routes], within_s)
    if field(status, "modelCachePath") and count(status, "pid"):
        return await _foundry(http, base_url, models, Identity("foundry2", pid=count(status, "pid")), within_s)
    if field(status, "modelDirPath"):
        return await _foundry(http, base_url, models, Identity("foundry1", pid=count(status, "pid")), within_s)
    if field(status0, "modelDirPath", "endpoints"):
        return await _foundry0(http, root, models, within_s)
    if any(text(row, "state") for row in model_rows(lmstudio) or ()):
        return Identity("lmstudio", models=_with(models, model_rows(lmstudio)))
    if text(ollama, "version"):
        return await _ollama(http, root, models, text(ollama, "version"), within_s)
    if field(props, "default_generation_settings") is not None:
        return _llama(props, models)
    if isinstance(told, Mapping) and set(told) == {"version"}:
        return Identity("vllm", text(told, "version"), models=_all_loaded(models))
    return Identity("openai", models=models)


async def _all(http: httpx.AsyncClient, urls: Iterable[str], within_s: float) -> list[Any]:
    """What each URL answers with a 200, as JSON, or None; asked at once."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(get_json(http, url, within_s=within_s)) for url in urls]
    return [task.result() for task in tasks]


def _llama(props: Any, models: tuple[ModelFacts, ...]) -> Identity:
    context = count(field(props, "default_generation_settings"), "n_ctx")
    # One model is held by the process; only a router says otherwise, row by row.
    known = (
        replace(
            facts,
            loaded=True if facts.loaded is None else facts.loaded,
            context=facts.context or (context if len(models) == 1 else None),
        )
        for facts in models
    )
    return Identity("llama.cpp", text(props, "build_info"), models=tuple(known))


async def _ollama(
    http: httpx.AsyncClient, root: str, models: tuple[ModelFacts, ...], version: str | None, within_s: float
) -> Identity:
    tags, running = await _all(http, (root + "/api/tags", root + "/api/ps"), within_s)
    known = tuple(replace(facts, cached=True) for facts in _with(models, model_rows(tags)))
    in_memory = model_rows(running)
    if in_memory is None:
        return Identity("ollama", version, models=known)
    # `size` is memory there; the context is the one really allocated.
    contexts = {facts.id: facts.context for row in in_memory if (facts := model_facts(row)) is not None}
    known = tuple(
        replace(facts, loaded=facts.id in contexts, context=contexts.get(facts.id) or facts.context) for facts in known
    )
    return Identity("ollama", version, models=known)


async def _foundry(
    http: httpx.AsyncClient, base_url: str, models: tuple[ModelFacts, ...], found: Identity, within_s: float
) -> Identity:
    prefix = base_url.rpartition("/")[0]
    routes = [prefix + "/models/loaded"]
    if found.kind == "foundry2" and not prefix.endswith(FOUNDRY_CATALOG):
        routes.append(prefix + FOUNDRY_CATALOG + "/v1/models")
    loaded, *registered = await _all(http, routes, within_s)
    rows = model_rows(registered[0]) if registered else None
    ids = tuple(facts.id for row in rows or () if (facts := model_facts(row)) is not None)
    return replace(found, models=_with_loaded(models, loaded), registered=ids)


async def _foundry0(http: httpx.AsyncClient, root: str, models: tuple[ModelFacts, ...], within_s: float) -> Identity:
    routes = ("/openai/loadedmodels", "/openai/models", "/foundry/list")
    loaded, cached, catalog = await _all(http, (root + route for route in routes), max(within_s, _CATALOG_S))
    on_disk = {_bare(facts.id) for row in model_rows(cached) or () if (facts := model_facts(row)) is not None}
    if on_disk:
        models = tuple(replace(facts, cached=_bare(facts.id) in on_disk) for facts in models)
    return Identity("foundry0", models=_with_loaded(_with(models, model_rows(catalog)), loaded))


def _with(models: tuple[ModelFacts, ...], rows: list[Any] | None) -> tuple[ModelFacts, ...]:
    """The models, filled up from another list of the same server."""
    others = {_bare(facts.id): facts for row in rows or () if (facts := model_facts(row)) is not None}
    return tuple(merged(facts, others[_bare(facts.id)]) if _bare(facts.id) in others else facts for facts in models)


def _with_loaded(models: tuple[ModelFacts, ...], loaded: Any) -> tuple[ModelFacts, ...]:
    rows = model_rows(loaded)
    if rows is None:
        return models
    names = {_bare(facts.id) for row in rows if (facts := model_facts(row)) is not None}
    return tuple(replace(facts, loaded=_bare(facts.id) in names) for facts in models)


def _all_loaded(models: tuple[ModelFacts, ...]) -> tuple[ModelFacts, ...]:
    return tuple(replace(facts, loaded=True) for facts in models)


def _bare(name: str) -> str:
    return name.strip().lower()
