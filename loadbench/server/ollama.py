"""Ollama: what is on disk, what is in memory and on which device; load, unload, pull, remove."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import httpx

from loadbench.errors import TargetError
from loadbench.server import vendor
from loadbench.server.calls import ask_all, ask_json, post_lines, read_json
from loadbench.server.endpoint import server_root
from loadbench.server.facts import (
    ModelFacts,
    Target,
    count,
    field,
    licence_name,
    model_facts,
    model_rows,
    models_of,
    text,
    with_list,
    words,
)
from loadbench.server.vendor import Pace, Probe, Progress, Vendor, change, refusal

KEEP_ALIVE = -1
"""For as long as the server runs: its own five minutes would end within an idle gap."""
_MOST_SHOWN = 20  # models asked one by one; those loaded first
VARIABLE = "OLLAMA_HOST"


def host(environ: Mapping[str, str]) -> str | None:
    """Where Ollama's own variable says that its server is; None where it is not set, or not read.

    Its forms: host, host:port, a URL; without a port 11434, or that of the scheme that is written. A server that
    listens on all addresses is asked on this machine's.

    >>> [host({"OLLAMA_HOST": text}) for text in ("gpu-box", "0.0.0.0:8080", "https://gpu-box/a", "")]
    ['http://gpu-box:11434/v1', 'http://127.0.0.1:8080/v1', 'https://gpu-box:443/a/v1', None]
    """
    value = environ.get(VARIABLE, "").strip().strip("\"'")
    if not value:
        return None
    scheme, has_scheme, rest = value.rpartition("://")
    try:
        parts = urlsplit(f"{scheme or 'http'}://{rest}")
        port = parts.port
    except ValueError:
        return None
    if port is None:
        port = 11434
        if has_scheme:
            port = 443 if scheme == "https" else 80
    name = parts.hostname or "127.0.0.1"
    if name in ("0.0.0.0", "::"):
        name = "127.0.0.1"
    if ":" in name:
        name = f"[{name}]"
    return f"{parts.scheme}://{name}:{port}{parts.path.rstrip('/')}/v1"


async def recognise(probe: Probe) -> Target | None:
    """`/api/version` is Ollama's own."""
    # Each of its names has a tag.
    if probe.is_owned and not any(":" in facts.id for facts in probe.target.models):
        return None
    version = text(await probe.get("/api/version"), "version")
    if version is None:
        return None
    http, root, within_s = probe.http, probe.root, probe.within_s
    tags, running = await ask_all(http, (root + "/api/tags", root + "/api/ps"), within_s)
    models = [replace(facts, cached=True) for facts in with_list(probe.target.models, models_of(tags))]
    if model_rows(running) is not None:
        in_memory = {facts.id: facts for facts in _in_memory(running)}
        models = [_placed(facts, in_memory.get(facts.id)) for facts in models]
    first = sorted(models, key=lambda facts: not facts.loaded)[:_MOST_SHOWN]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_details(http, root, facts.id, within_s)) for facts in first]
    described = with_list(models, [task.result() for task in tasks])
    return replace(probe.target, kind="ollama", version=version, models=described)


async def _details(http: httpx.AsyncClient, root: str, model: str, within_s: float) -> ModelFacts:
    details = await ask_json(http, root + "/api/show", within_s=within_s, document={"model": model})
    model_info, licence = field(details, "model_info"), field(details, "license")
    context = None
    if isinstance(model_info, dict):
        # By the architecture's name: llama.context_length, qwen2.context_length.
        context = count(model_info, *(key for key in model_info if key.endswith(".context_length")))
    if not isinstance(licence, str):
        licence = None
    return ModelFacts(
        model,
        context=context,
        quantization=text(field(details, "details"), "quantization_level"),
        licence=licence_name(licence),
        capabilities=words(field(details, "capabilities")),
    )


def _in_memory(document: object) -> list[ModelFacts]:
    models = []
    for row in model_rows(document) or ():
        facts = model_facts(row)
        if facts is not None:
            models.append(replace(facts, device=device_of_row(row), context=count(row, "context_length")))
    return models


def _placed(facts: ModelFacts, in_memory: ModelFacts | None) -> ModelFacts:
    if in_memory is None:
        return replace(facts, loaded=False)
    return replace(facts, loaded=True, device=in_memory.device, context=in_memory.context or facts.context)


def device_of_row(row: object) -> str | None:
    """Where a row of `/api/ps` is loaded: `size` and `size_vram` are memory, all of it and on the GPU."""
    size, on_gpu = count(row, "size"), field(row, "size_vram")
    if size is None or isinstance(on_gpu, bool) or not isinstance(on_gpu, int | float):
        return None
    if on_gpu <= 0:
        return "CPU"
    if on_gpu >= size:
        return "GPU"
    return "GPU+CPU"


@dataclass(frozen=True, slots=True)
class OllamaControl:
    """An empty prompt loads, and a time to live of 0 unloads."""

    root: str
    http: httpx.AsyncClient

    async def load(self, model: ModelFacts) -> None:
        await self._generate("load", model, KEEP_ALIVE, vendor.LOAD_S)

    async def unload(self, model: ModelFacts) -> None:
        await self._generate("unload", model, 0, vendor.UNLOAD_S)

    async def running(self, model: ModelFacts) -> ModelFacts | None:
        document = await ask_json(self.http, self.root + "/api/ps", within_s=vendor.LIST_S)
        for facts in _in_memory(document):
            if facts.id == model.id:
                return _placed(model, facts)
        return None

    async def _generate(self, action: str, model: ModelFacts, keep_alive: int, within_s: float) -> None:
        document = {"model": model.id, "prompt": "", "stream": False, "keep_alive": keep_alive}
        url = self.root + "/api/generate"
        await change(self.http, "POST", url, action=action, model=model.id, within_s=within_s, document=document)


async def pull(target: Target, http: httpx.AsyncClient, name: str, progress: Progress) -> None:
    """The bytes of all layers make one percentage."""
    url = server_root(target.base_url) + "/api/pull"
    completed: dict[str, int] = {}
    totals: dict[str, int] = {}
    percent: float | None = None
    done, error = False, None
    pace = Pace(name, progress)
    async with aclosing(post_lines(http, url, {"model": name}, stall_s=vendor.STALL_S)) as lines:
        async for line in lines:
            row = read_json(line)
            error = error or vendor.sentence(field(row, "error"))
            status = text(row, "status") or ""
            done = done or status == "success"
            layer = text(row, "digest") or status
            if (total := count(row, "total")) and (layer in totals or len(totals) < vendor.MOST_STEPS):
                totals[layer], completed[layer] = total, count(row, "completed") or 0
                # A layer that is announced later makes the total grow: `Pace` keeps the percentage from falling.
                percent = 100 * sum(completed.values()) / sum(totals.values())
            pace.moved(percent, status)
    if error is not None:
        raise TargetError(refusal("download", name, 400, error))
    if not done:
        raise vendor.broke_off(name)


async def remove(target: Target, http: httpx.AsyncClient, model: ModelFacts) -> None:
    url = server_root(target.base_url) + "/api/delete"
    document, within_s = {"model": model.id}, vendor.UNLOAD_S
    await change(http, "DELETE", url, action="removal", model=model.id, within_s=within_s, document=document)


OLLAMA = Vendor(
    pull_hint="pull {them} with `ollama pull {name}`",
    load_hint="fetch one with `ollama pull NAME`",
    preferred=lambda facts: facts.id.endswith(":latest"),
    control=lambda target, http: OllamaControl(server_root(target.base_url), http),
    download=pull,
    delete=remove,
)
