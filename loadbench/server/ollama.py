"""Ollama's own routes: what is on disk, what is in memory and on which device, and what each model is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import httpx

from loadbench.server.calls import get_all, post_json
from loadbench.server.facts import ModelFacts
from loadbench.server.foundry import with_rows
from loadbench.server.licence import licence_name
from loadbench.server.rows import count, field, merged, model_facts, model_rows, text, words

_SHOWN = 20  # models asked one by one; those loaded first


async def ollama_models(
    http: httpx.AsyncClient, root: str, models: Sequence[ModelFacts], within_s: float
) -> tuple[ModelFacts, ...]:
    """The models listed with their size, quantization, context, licence, capabilities, and where they are loaded."""
    tags, running = await get_all(http, (root + "/api/tags", root + "/api/ps"), within_s)
    known = [replace(facts, cached=True) for facts in with_rows(models, model_rows(tags))]
    in_memory = model_rows(running)
    if in_memory is not None:
        by_id = {facts.id: row for row in in_memory if (facts := model_facts(row)) is not None}
        known = [_placed(facts, by_id.get(facts.id)) for facts in known]
    first = sorted(known, key=lambda facts: not facts.loaded)[:_SHOWN]
    async with asyncio.TaskGroup() as group:
        tasks = {facts.id: group.create_task(_shown(http, root, facts.id, within_s)) for facts in first}
    return tuple(merged(facts, tasks[facts.id].result()) if facts.id in tasks else facts for facts in known)


def device_of_row(row: Any) -> str | None:
    """Where a row of `/api/ps` is loaded: `size` and `size_vram` are memory, all of it and on the GPU."""
    size, on_gpu = count(row, "size"), field(row, "size_vram")
    if size is None or isinstance(on_gpu, bool) or not isinstance(on_gpu, int | float):
        return None
    return "CPU" if on_gpu <= 0 else "GPU" if on_gpu >= size else "GPU+CPU"


def _placed(facts: ModelFacts, row: Any) -> ModelFacts:
    if row is None:
        return replace(facts, loaded=False)
    # The context is the one really allocated.
    context = count(row, "context_length") or facts.context
    return replace(facts, loaded=True, device=device_of_row(row), context=context)


async def _shown(http: httpx.AsyncClient, root: str, model: str, within_s: float) -> ModelFacts:
    shown = await post_json(http, root + "/api/show", {"model": model}, within_s=within_s)
    model_info, licence = field(shown, "model_info"), field(shown, "license")
    contexts = [key for key in model_info if key.endswith(".context_length")] if isinstance(model_info, dict) else []
    return ModelFacts(
        model,
        context=count(model_info, *contexts),
        quantization=text(field(shown, "details"), "quantization_level"),
        licence=licence_name(licence) if isinstance(licence, str) else None,
        capabilities=words(field(shown, "capabilities")),
    )
