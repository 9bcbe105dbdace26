"""Foundry Local (docs/foundry.md): where its service is, its ids and devices, its routes by generation, load, pull."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx

from loadbench.errors import TargetError, UsageError
from loadbench.machine import program
from loadbench.scenario.files import read_bytes
from loadbench.server import vendor
from loadbench.server.calls import NotReady, ask_all, ask_json, post_lines, read_json
from loadbench.server.endpoint import FOUNDRY_CATALOG, normalise, prefix, server_root
from loadbench.server.facts import (
    Kind,
    ModelFacts,
    Target,
    count,
    field,
    items,
    model_facts,
    model_rows,
    models_of,
    text,
    with_list,
)
from loadbench.server.vendor import Pace, Probe, Progress, Vendor, accept, ask, refusal

VARIABLE = "FOUNDRY_LOCAL_ENDPOINT"
OPENAI = "OPENAI_BASE_URL"
VARIABLES = (VARIABLE, OPENAI)
"""Variables that name the server to measure, the first one first."""
TTL_S = 86_400
"""How long generation 0 keeps an idle model: its SDK's ten minutes would end within a long run."""
CATALOG_S = 20.0
MOST_END = 1 << 20
"""Characters of what a service says at the end of a download."""
_ASK_S = 3.0
_CONNECT_S = 0.3
_LISTS_S = 6.0
"""The catalog asks the network first: 4.7 s for 2.2.1 where there is none."""
_UNLOAD_PAUSES_S = (0.1, 0.3, 1.0, 2.0, 0.0)
_URL = re.compile(r"https?://[^\s/\"'<>]+")
_VARIANT = re.compile(r"(?:-([a-z0-9]+))?-(cpu|gpu|npu)(?::\d+)?$", re.IGNORECASE)
_PERCENT = re.compile(r"(?<![\d.])(\d{1,3}(?:\.\d{1,20})?) {0,4}%")
_SHARE = re.compile(r'\( {0,4}"([^"]*+)" {0,4}, {0,4}(\d(?:\.\d{1,20})?) {0,4}\)')
_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "dml": "DmlExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "nvtensorrtrtx": "NvTensorRTRTXExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "vitisai": "VitisAIExecutionProvider",
    "webgpu": "WebGpuExecutionProvider",
}
_SYNONYMS = {"directml": "dml", "trtrtx": "nvtensorrtrtx", "tensorrtrtx": "nvtensorrtrtx", "vitis": "vitisai"}


# -- where its service is: the port changes with every start


@dataclass(frozen=True, slots=True)
class Found:
    """An endpoint that nobody had to name, and how it was found, for the first line of a run."""

    endpoint: str
    how: str


def discover(environ: Mapping[str, str], home: Path | None) -> Found | None:
    """The endpoint of the environment, or of a Foundry Local service that runs on this machine.

    In order: `FOUNDRY_LOCAL_ENDPOINT`, `OPENAI_BASE_URL`, the file that its service leaves in the home folder, and what
    the `foundry` command says. Blocks: some microseconds, and at worst the seconds that the command takes, where it is
    installed.

    Args:
        home: The user's home folder; None where there is none.
    Raises:
        UsageError: The variable holds no URL; it names the variable.
    """
    for variable in VARIABLES:
        url = named_by(variable, environ)
        if url is not None:
            return Found(url, variable)
    if home is not None:
        with contextlib.suppress(OSError, UnicodeError):
            daemon = read_bytes(home / ".foundry" / "daemon.json").decode("utf-8-sig")
            if found := _first_open(_web_urls(daemon), "~/.foundry/daemon.json"):
                return found
    command = program("foundry", environ)
    if command is None:
        return None
    status = _output([command, "server", "status", "--output", "json"], environ)
    if found := _first_open(_web_urls(status), "`foundry server status`"):
        return found
    # Older commands know no `server`: "... is running on http://127.0.0.1:52009/openai/status".
    status = _output([command, "service", "status"], environ)
    return _first_open(_URL.findall(status), "`foundry service status`")


def named_by(variable: str, environ: Mapping[str, str]) -> str | None:
    """The base URL that a variable holds; None where it is not set.

    Raises:
        UsageError: It holds no URL.
    """
    value = environ.get(variable, "").strip()
    if not value:
        return None
    try:
        return normalise(value)
    except UsageError as error:
        raise UsageError(f"{variable}: {error}") from error


def _first_open(urls: list[str], how: str) -> Found | None:
    """The first that takes a connection: the file outlives a service that was killed."""
    for url in urls:
        with contextlib.suppress(UsageError, OSError):
            endpoint = normalise(url)
            parts = urlsplit(endpoint)
            socket.create_connection((parts.hostname, parts.port or 80), timeout=_CONNECT_S).close()
            return Found(endpoint, how)
    return None


def _web_urls(document: str) -> list[str]:
    urls = items(field(read_json(document), "web_urls", "webUrls"))
    return [url for url in urls if isinstance(url, str)]


def _output(command: list[str], environ: Mapping[str, str]) -> str:
    try:
        done = subprocess.run(
            command, env=dict(environ), stdin=subprocess.DEVNULL, capture_output=True, timeout=_ASK_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace")


# -- its ids, which name device and execution provider


def short_provider(name: str) -> str:
    """An execution provider's short name, so that long, short and differently cased names compare.

    >>> short_provider("NvTensorRTRTXExecutionProvider"), short_provider("trtrtx"), short_provider("WebGPU")
    ('nvtensorrtrtx', 'nvtensorrtrtx', 'webgpu')
    """
    short = name.strip().lower().removesuffix("executionprovider")
    return _SYNONYMS.get(short, short)


def device_of_id(model: str) -> tuple[str | None, str | None]:
    """Device and execution provider in the id of a Foundry Local model; None for what it does not name.

    ``generic-gpu`` names no provider: the runtime takes CUDA where it has it, else WebGPU.

    Source: `LoadModel` in sdk_v2/cpp/src/inferencing/model_load_manager.cc (microsoft/Foundry-Local).

    >>> device_of_id("Phi-4-mini-instruct-cuda-gpu:5")
    ('GPU', 'CUDAExecutionProvider')
    >>> device_of_id("qwen2.5-0.5b-instruct-generic-gpu:4")
    ('GPU', None)
    """
    variant = _VARIANT.search(model)
    if variant is None:
        return None, None
    device, word = variant[2].upper(), (variant[1] or "").lower()
    if word == "generic" and device == "CPU":
        word = "cpu"
    return device, _PROVIDERS.get(short_provider(word))


def stem_of_id(model: str) -> str:
    """An id without version, execution provider and device.

    >>> stem_of_id("Phi-4-mini-instruct-cuda-gpu:5"), stem_of_id("tiny:1")
    ('Phi-4-mini-instruct', 'tiny')
    """
    variant = _VARIANT.search(model)
    if variant is None:
        return without_version(model)
    if _names_provider(variant):
        return model[: variant.start()]
    return model[: variant.start(2) - 1]


def alias_of_id(model: str) -> str:
    """The alias that Foundry Local 2.x makes of the id of a model that is registered by hand.

    A device without a provider before it is a part of the name (seen in 2.2.1).

    >>> alias_of_id("tiny-a-generic-gpu:1"), alias_of_id("tiny-a-gpu:1")
    ('tiny-a', 'tiny-a-gpu')
    """
    variant = _VARIANT.search(model)
    if variant is not None and _names_provider(variant):
        return model[: variant.start()]
    return without_version(model)


def _names_provider(variant: re.Match[str]) -> bool:
    word = (variant[1] or "").lower()
    return word == "generic" or short_provider(word) in _PROVIDERS


def without_version(model: str) -> str:
    """An id up to its colon."""
    return model.partition(":")[0]


def version_of_id(model: str) -> int:
    """The number behind the colon of an id; 0 where there is none."""
    number = model.partition(":")[2]
    if not number.isdecimal():
        return 0
    return int(number)


def is_same(one: str, other: str) -> bool:
    """Whether two ids name one variant; where one of them has no version, it counts for any.

    Foundry Local 1.x lists tiny-generic-cpu, and tiny-generic-cpu:1 as loaded.
    """
    one, other = one.strip().lower(), other.strip().lower()
    (name, _, version), (other_name, _, other_version) = one.partition(":"), other.partition(":")
    return one == other or (name == other_name and not (version and other_version))


def placed(facts: ModelFacts) -> ModelFacts:
    """The facts, with what the id says of device and provider where nothing else did."""
    device, provider = device_of_id(facts.id)
    if facts.device not in (None, device):
        provider = None
    return replace(facts, device=facts.device or device, execution_provider=facts.execution_provider or provider)


def registered(facts: ModelFacts) -> ModelFacts:
    """The same of a model that somebody registered: a catalogue's names are true, this one was chosen freely."""
    model = placed(facts)
    if model.device != facts.device:
        model = replace(model, device_by_name=True)
    return model


# -- its lists


async def recognise(probe: Probe) -> Target | None:
    """`/status` is that of generations 2 and 1, `/openai/status` that of generation 0."""
    http, target, within_s = probe.http, probe.target, max(probe.within_s, _LISTS_S)
    status = await probe.get("/status")
    pid = count(status, "pid")
    if field(status, "modelCachePath") and field(status, "pid") is not None:
        return replace(target, kind="foundry2", pid=pid, models=await _models_2(http, target, within_s))
    if field(status, "modelDirPath"):
        [loaded] = await ask_all(http, [prefix(target.base_url) + "/models/loaded"], within_s)
        models = tuple(map(placed, _with_loaded(target.models, loaded)))
        return replace(target, kind="foundry1", pid=pid, models=models)
    if probe.is_owned and "Microsoft" not in probe.owners:
        return None
    if field(await probe.get("/openai/status"), "modelDirPath", "endpoints"):
        return replace(target, kind="foundry0", models=await _models_0(http, target, within_s))
    return None


async def _models_0(http: httpx.AsyncClient, target: Target, within_s: float) -> tuple[ModelFacts, ...]:
    root = server_root(target.base_url)
    routes = ("/openai/loadedmodels", "/openai/models", "/foundry/list")
    loaded, cached, listed = await ask_all(http, (root + route for route in routes), within_s)
    catalog = models_of(listed) or ()
    models = with_list(target.models, catalog)
    if (on_disk := _by_stem(cached)) is not None:
        listed_ids = {facts.id.lower() for facts in models}
        models += tuple(facts for facts in catalog if facts.id.lower() not in listed_ids)
        models = tuple(replace(facts, cached=_is_among(facts, on_disk)) for facts in models)
    return tuple(map(placed, _with_loaded(models, loaded)))


async def _models_2(http: httpx.AsyncClient, target: Target, within_s: float) -> tuple[ModelFacts, ...]:
    """The models of the catalog that is listed, and those registered by hand, which answer under another prefix.

    The list does not say what is downloaded: `cached` stays None unless a model is loaded or registered.
    """
    own, local = prefix(target.base_url), server_root(target.base_url) + FOUNDRY_CATALOG
    if own == local:
        [loaded] = await ask_all(http, [local + "/models/loaded"], within_s)
        return tuple(_registered(facts, None) for facts in _with_loaded(target.models, loaded))
    routes = (own + "/models/loaded", local + "/models/loaded", local + "/v1/models")
    loaded, local_loaded, local_models = await ask_all(http, routes, within_s)
    by_hand = models_of(local_models) or ()
    ids = {facts.id for facts in by_hand}
    of_catalog = [placed(facts) for facts in _with_loaded(target.models, loaded) if facts.id not in ids]
    return (*of_catalog, *(_registered(facts, local + "/v1") for facts in _with_loaded(by_hand, local_loaded)))


def _registered(facts: ModelFacts, base_url: str | None) -> ModelFacts:
    """Its alias is what the runtime makes of its id: `tiny` for tiny-generic-cpu:1."""
    aliases, alias = facts.aliases, alias_of_id(facts.id)
    if not aliases and alias != facts.id:
        aliases = (alias,)
    return registered(replace(facts, aliases=aliases, cached=True, base_url=base_url))


def _with_loaded(models: Sequence[ModelFacts], document: object) -> tuple[ModelFacts, ...]:
    loaded = _by_stem(document)
    if loaded is None:
        return tuple(models)
    marked = []
    for facts in models:
        if _is_among(facts, loaded):
            marked.append(replace(facts, loaded=True, cached=True))
        else:
            marked.append(replace(facts, loaded=False))
    return tuple(marked)


def _by_stem(document: object) -> dict[str, list[str]] | None:
    models = models_of(document)
    if models is None:
        return None
    names: dict[str, list[str]] = {}
    for facts in models:
        names.setdefault(without_version(facts.id.lower()), []).append(facts.id)
    return names


def _is_among(facts: ModelFacts, names: Mapping[str, Sequence[str]]) -> bool:
    return any(is_same(facts.id, name) for name in names.get(without_version(facts.id.lower()), ()))


# -- load and unload


class OtherVariant(TargetError):
    """The service loads another variant for an alias than the one that was named."""


@dataclass(frozen=True, slots=True)
class FoundryControl:
    """A Foundry Local service; `base_url` is the target's, a model's own goes before it.

    Generation 2 loads by alias, and itself decides which variant that is: `running` tells which one it was.
    """

    kind: Kind
    base_url: str
    http: httpx.AsyncClient
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def load(self, model: ModelFacts) -> None:
        if model.cached is False:
            raise TargetError(vendor.not_downloaded(model.id))
        if self.kind == "foundry1":
            await self._ask("load", model, f"/models/load/{_quoted(model.id)}")
            return
        if self.kind == "foundry0":
            await self._ask("load", model, f"/openai/load/{_quoted(model.id)}?ttl={TTL_S}")
            return
        response = await self._by_alias("load", model)
        accept(response, self.http, action="load", model=model.id)
        running = await self.running(model)
        if running is None or is_same(running.id, model.id):
            return
        # Requests that name a variant which is not loaded are refused, one by one.
        if text(read_json(response.content), "status") == "loaded":
            with contextlib.suppress(TargetError):
                await self.unload(running)
        raise OtherVariant(f"{model.id}: the service loads {running.id} for that alias: measure that one with -m")

    async def unload(self, model: ModelFacts) -> None:
        if self.kind == "foundry2":
            accept(await self._by_alias("unload", model), self.http, action="unload", model=model.id)
        elif self.kind == "foundry1":
            await self._ask("unload", model, f"/models/unload/{_quoted(model.id)}")
        else:
            await self._ask("unload", model, f"/openai/unload/{_quoted(model.id)}?force=true")

    async def running(self, model: ModelFacts) -> ModelFacts | None:
        """The model if it is loaded, else the one other variant of it that is."""
        route = "/openai/loadedmodels" if self.kind == "foundry0" else "/models/loaded"
        loaded = models_of(await ask_json(self.http, self._root(model) + route, within_s=vendor.LIST_S)) or ()
        stem = stem_of_id(model.id).lower()
        others = []
        for facts in loaded:
            if is_same(facts.id, model.id):
                # Only what is loaded has its version, in 1.x.
                name = model.id
                if ":" not in name:
                    name = facts.id
                return placed(replace(model, id=name, loaded=True))
            if stem_of_id(facts.id).lower() == stem:
                others.append(facts.id)
        if len(others) != 1:
            return None
        return placed(ModelFacts(others[0], model.aliases, loaded=True, base_url=model.base_url))

    async def _by_alias(self, action: str, model: ModelFacts) -> httpx.Response:
        """The answer under the first name that the server knows; its lists do not name aliases."""
        stem = stem_of_id(model.id)
        names = dict.fromkeys(
            (*model.aliases, alias_of_id(model.id), stem, stem.lower().removesuffix("-instruct"), model.id)
        )
        for name in names:
            for pause_s in _UNLOAD_PAUSES_S:
                response = await self._answer(action, model, f"/models/{action}/{_quoted(name)}")
                # A stream that just ended still holds the model for a moment.
                if action == "load" or response.status_code < 500:
                    break
                await self.sleep(pause_s)
            if response.status_code != 404:
                break
        return response

    async def _ask(self, action: str, model: ModelFacts, route: str) -> None:
        accept(await self._answer(action, model, route), self.http, action=action, model=model.id)

    async def _answer(self, action: str, model: ModelFacts, route: str) -> httpx.Response:
        within_s = vendor.LOAD_S if action == "load" else vendor.UNLOAD_S
        url = self._root(model) + route
        return await ask(self.http, "GET", url, action=action, model=model.id, within_s=within_s)

    def _root(self, model: ModelFacts) -> str:
        base_url = model.base_url or self.base_url
        if self.kind == "foundry0":
            return server_root(base_url)
        return prefix(base_url)


def _quoted(name: str) -> str:
    return quote(name, safe=":")


# -- pull and remove


async def pull(target: Target, http: httpx.AsyncClient, name: str, progress: Progress) -> None:
    """Generation 0 downloads by the catalog's own row, as its SDK asks for it.

    Source: sdk/python/foundry_local/api.py and client.py (microsoft/Foundry-Local, 0.5).
    """
    root = server_root(target.base_url)
    row = _catalog_row(await ask_json(http, root + "/foundry/list", within_s=CATALOG_S), name)
    provider = text(row, "providerType")
    if provider == "AzureFoundry":
        provider = "AzureFoundryLocal"
    document = {
        "model": {
            "Name": text(row, "name", "id"),
            "Uri": text(row, "uri"),
            "Publisher": text(row, "publisher"),
            "ProviderType": provider,
            "PromptTemplate": field(row, "promptTemplate") or {},
        },
        "token": None,
        "IgnorePipeReport": True,
    }
    end = ""
    pace = Pace(name, progress)
    async with aclosing(post_lines(http, root + "/openai/download", document, stall_s=vendor.STALL_S)) as lines:
        async for line in lines:
            if end or line.startswith("{"):
                end += line
                if len(end) > MOST_END:
                    raise NotReady(f"{name}: the service says no end of its download")
            elif share := _SHARE.search(line):  # ("model.onnx", 0.5), as documented
                pace.moved(100 * float(share[2]), share[1])
            elif percent := _PERCENT.search(line):  # 12.5%, as its SDK reads it
                pace.moved(float(percent[1]), line)
            else:
                pace.moved(None, line)
    outcome = read_json(end)
    if outcome is None:
        raise vendor.broke_off(name)
    if field(outcome, "success") is not True:
        reason = vendor.sentence(field(outcome, "errorMessage")) or "no reason given"
        raise TargetError(refusal("download", name, 400, reason))


def _catalog_row(document: object, name: str) -> object:
    """The catalog's row for a name: its id, with or without version, or its alias; the newest version of it."""
    rows = model_rows(document)
    if not rows:
        raise NotReady(f"{name}: the service shows no catalog: is it offline?")
    sought = name.strip().lower()
    exact, matches = [], []
    for row in rows:
        facts = model_facts(row)
        if facts is None:
            continue
        if facts.id.lower() == sought:
            exact.append((facts, row))
        elif sought in (without_version(facts.id.lower()), *map(str.lower, facts.aliases)):
            matches.append((facts, row))
    matches = exact or matches
    if not matches:
        raise TargetError(refusal("download", name, 404, "not in its catalog"))
    if len({without_version(facts.id) for facts, _ in matches}) > 1:
        ids = ", ".join(facts.id for facts, _ in matches)
        raise TargetError(f"{name!r} may be any of {ids}: name one of them")
    return max(matches, key=lambda match: version_of_id(match[0].id))[1]


# -- what its models are called


FOUNDRY_2 = Vendor(
    pull_hint="pull {them} with `foundry model download {name}`",
    load_hint="load one with `foundry model load ALIAS`",
    lists_catalogue=True,
    placed=placed,
    # Generation 1 lists ids without their version, and its SDK names them with it.
    exact_names=(lambda sought, facts: ":" not in facts.id and is_same(facts.id, sought),),
    # Aliases are ids without device, and without the word that most of them have; ids go on where aliases end:
    # phi-4-mini, phi-4-mini-instruct-generic-cpu:5.
    loose_names=(
        lambda sought, facts: stem_of_id(facts.id).lower() in (sought, sought + "-instruct"),
        lambda sought, facts: facts.id.lower().startswith(sought + "-"),
    ),
    control=lambda target, http: FoundryControl(target.kind, target.base_url, http),
    no_download="{name}: this generation of Foundry Local downloads through its SDK alone: leave out -e, and "
    "`loadbench models pull` uses that",
    no_delete="{name}: the service deletes nothing over HTTP: `foundry cache remove {alias}` does, and "
    "`loadbench models remove` without -e, in the SDK's own cache",
)
FOUNDRY_1 = FOUNDRY_2
FOUNDRY_0 = replace(FOUNDRY_2, lists_catalogue=False, download=pull)
