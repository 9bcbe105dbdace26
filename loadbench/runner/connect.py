"""From a job to a server that can be asked: the one that is named, one that is found, or one that is started for it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from loadbench import server as targets
from loadbench.errors import LoadbenchError, TargetError, UsageError
from loadbench.runner import folder as folders
from loadbench.runner.job import Job, Server
from loadbench.runner.turn import Control, Origin
from loadbench.scenario import Scenario
from loadbench.scenario.files import expanded, home
from loadbench.serve import foundry
from loadbench.server import Choice, Found, ModelFacts, Target, lookup
from loadbench.transport import StockTransport, Transport, tls_context

if TYPE_CHECKING:
    import ssl

    from loadbench.serve.foundry import Runtime
    from loadbench.serve.llama import Fetching

SDK = "Foundry Local's own runtime"
KEY = "API_KEY"  # the variable that holds a server's key where --api-key-env names none: the workshop's

OPENAI_KEY = "OPENAI_API_KEY"  # goes to the server of OPENAI_BASE_URL and to no other
Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Location:
    """Where the server is."""

    endpoint: str | None  # as a person would write it; None for a server that is started only for a real run
    how: str  # how it was found, in words
    # What is known of its models beside what it says; of one that is not started, what it will serve
    models: tuple[ModelFacts, ...] = ()
    pid: int | None = None  # of its process, where we started it
    runtime: Runtime | None = None  # Foundry Local's SDK, where that is the server
    load_s: float | None = None  # how long it took to start with its model in it, where we started it
    others: tuple[str, ...] = ()  # endpoints of further replicas of the service, as a person would write them


def locate(job: Job, stack: ExitStack, note: Note, fetching: Fetching | None = None) -> Location:
    """The server to ask: the one that is named, one that is found, or one that is started; it ends with the stack.

    Raises:
        LoadbenchError: There is none.
    """
    scenario, dry_run = job.scenario, job.limits.dry_run
    began_as = None if job.resume is None else folders.began_as(job.resume)
    if job.server.simulate or began_as == "simulator":
        from loadbench.serve import simulator

        if dry_run:
            return Location(None, "the simulator, started for the run", (ModelFacts(simulator.MODEL),))
        server = stack.enter_context(simulator.start())
        how = "the simulator, started for this run: its figures are no measurement of a model"
        return Location(server.url, how, pid=server.pid)
    if scenario.endpoint is not None:
        first, *others = targets.distinct(scenario.endpoints)
        return Location(first, "as given", others=tuple(others))
    found = None
    if job.resume is not None and began_as is None:
        found = folders.server_of(job.resume)
    elif began_as is None:
        found = _found(scenario, note)
    if found is not None:
        return Location(found.endpoint, found.how)
    try:
        cache = cache_folder(job.server)
        lacks = foundry.available() or (None if foundry.has_models(cache) else f"no model is in {cache}")
    except LoadbenchError as error:
        cache, lacks = None, str(error)
    if began_as == "sdk" and lacks is not None:
        raise LoadbenchError(f"{job.resume}: the run measured {SDK}, which cannot start now: {lacks}")
    if began_as != "embedded" and cache is not None and lacks is None:
        runtime = stack.enter_context(foundry.start(cache=cache, progress=note))
        how = f"{SDK}, started for this run: SDK {runtime.version}, models in {cache}"
        return Location(None if dry_run else runtime.serve(), how, pid=runtime.pid, runtime=runtime)
    return _embedded(scenario, stack, note, fetching, dry_run=dry_run)


def _found(scenario: Scenario, note: Note) -> Found | None:
    """The one server that is here: the one that the environment names, or a service that listens on this machine.

    Raises:
        UsageError: There are several.
    """
    named = targets.discover(os.environ, home())
    if named is not None and named.how in targets.VARIABLES:
        return named
    here = {} if named is None else {named.endpoint: f"Foundry Local, {named.how}"}
    has_key = key_source(scenario.api_key_env, scenario.api_key_file, lookup.HOW) is not None
    for one in asyncio.run(lookup.look(lookup.PORTS, environ=os.environ)):
        if one.is_locked and not has_key:
            note(f"{one.endpoint} wants a key: to measure it, add -e {one.endpoint} --api-key-env NAME")
        else:
            here.setdefault(one.endpoint, one.kind)
    if len(here) > 1:
        several = " or ".join(f"-e {url} ({kind})" for url, kind in here.items())
        raise UsageError(f"{len(here)} servers are here: name the one that is meant: {several}")
    return named or next((Found(url, lookup.HOW) for url in here), None)


def _embedded(
    scenario: Scenario, stack: ExitStack, note: Note, fetching: Fetching | None, *, dry_run: bool
) -> Location:
    from loadbench.serve import llama

    if reason := llama.available():
        raise LoadbenchError(
            f"no server to measure: no -e URL, no FOUNDRY_LOCAL_ENDPOINT, no server found on this machine, and the "
            f"embedded model cannot run here ({reason}); name a server with -e, or try --simulate"
        )
    # llama.cpp names neither device nor licence, but we start it.
    facts = ModelFacts(llama.MODEL, cached=True, device="CPU", licence="Apache-2.0")
    if dry_run:
        return Location(None, "the embedded model, started for the run", (facts,))
    most = max(scenario.concurrency or [8])
    llama.fetch_model(note, fetching=fetching)  # once, and no part of what it takes to load
    note(f"starting llama.cpp with {llama.MODEL}")
    began_s = time.monotonic()
    server = stack.enter_context(llama.start(slots=min(max(most, 4), 16), progress=note))
    load_s = round(time.monotonic() - began_s, 3)
    threads = "1 thread" if server.threads == 1 else f"{server.threads} threads"
    how = f"the embedded model, started for this run: {server.slots} slots, {threads}"
    facts = replace(facts, size_bytes=Path(server.gguf).stat().st_size)
    return Location(server.url, how, (facts,), server.pid, load_s=load_s)


def cache_folder(settings: Server) -> Path:
    """Where Foundry Local's SDK keeps its models.

    Raises:
        LoadbenchError: As of `foundry.cache_folder`.
    """
    if settings.cache_dir is None:
        return foundry.cache_folder(os.environ, home())
    return expanded(settings.cache_dir, "--cache-dir")


def origin(location: Location, facts: ModelFacts) -> Origin:
    """What is known of a model beside what its server says: how long that took to start, what it takes on the disk."""
    if location.runtime is not None and (folder := location.runtime.path(facts.id)) is not None:
        size_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        return Origin(None, size_bytes or None, "files")
    if any(one.id == facts.id and one.size_bytes for one in location.models):
        return Origin(location.load_s, facts.size_bytes, "files")
    if facts.size_bytes is None or not (facts.cached or facts.loaded):  # a catalogue's size is not on this disk
        return Origin()
    return Origin(None, facts.size_bytes, "server")


# -- a server that answers


@dataclass(frozen=True, slots=True)
class Reached:
    """A server that can be asked."""

    server: Target
    control: Control | None  # loads and unloads its models; None where it offers neither
    # Reads its own metrics; None where its kind has none
    scrape: Callable[[], Awaitable[dict[str, float] | None]] | None
    round_trip_ns: int | None = None  # of the network, the shortest TCP connect; None where it is not measured

    def choose(self, scenario: Scenario) -> Choice:
        """The models, devices and execution provider of a scenario.

        Raises:
            TargetError: The server has none of them.
        """
        names = scenario.models
        if isinstance(names, str) and names != "auto":
            names = [names]
        return self.chosen(names, scenario)

    def chosen(self, names: str | Sequence[str], scenario: Scenario) -> Choice:
        """These models, as the scenario's devices and execution provider allow."""
        devices, provider = scenario.device or (), scenario.execution_provider
        return targets.choose(self.server, names, devices=devices, execution_provider=provider)


@asynccontextmanager
async def reached(location: Location, job: Job, note: Note) -> AsyncIterator[Reached]:
    """The server at a location; control calls work as long as this is open.

    Raises:
        TargetError: Nobody answers there.
    """
    runtime = location.runtime
    if runtime is not None:  # this process knows it without HTTP
        base_url = SDK if location.endpoint is None else targets.normalise(location.endpoint)
        listed = tuple(await anyio.to_thread.run_sync(runtime.models))  # it may block for 4 s
        target = Target(base_url, "foundry2", runtime.version, models=listed, pid=runtime.pid, is_ours=True)
        yield Reached(target, RuntimeControl(runtime), None)
        return
    if location.endpoint is None:
        yield Reached(Target(location.how.partition(",")[0], "openai", models=location.models), None, None)
        return
    scenario, settings, endpoint = job.scenario, job.server, location.endpoint
    base_url = targets.normalise(endpoint)
    # Ours sets up its first connection in 3 ms, stock httpx in 100.
    transport = None if targets.is_proxied(base_url) else Transport(clock="user", tls=tls(base_url, settings))
    async with targets.open_http(
        endpoint,
        verify=not settings.insecure,
        ca_file=settings.ca_file,
        headers=scenario.headers,
        key=key(scenario.api_key_env, scenario.api_key_file, location.how),
        transport=transport,
    ) as http:
        named = scenario.models != "auto"
        wait_s = float(settings.wait or 0)
        server = await targets.wait(endpoint, http=http, wait_s=wait_s, waiting=note, named=named)
        known = {one.id: one for one in location.models}
        models = tuple(targets.merged(one, known[one.id]) if one.id in known else one for one in server.models)
        server = replace(server, models=models, pid=server.pid or location.pid)
        root = targets.server_root(server.base_url)
        scrape = (lambda: targets.scrape(http, root)) if targets.VENDORS[server.kind].has_metrics else None
        round_trip_ns = None if transport is None else transport.round_trip_ns
        yield Reached(server, targets.control(server, http), scrape, round_trip_ns)


async def replicas(location: Location, job: Job, stack: AsyncExitStack, note: Note) -> tuple[Reached, ...]:
    """Those that take turns with the server at a location; the same key goes to each.

    Raises:
        TargetError: Nobody answers at one of them.
    """
    found = []
    for url in location.others:
        one = replace(location, endpoint=url, others=())
        found.append(await stack.enter_async_context(reached(one, job, note)))
    return tuple(found)


def check_replicas(choice: Choice, others: Sequence[Reached]) -> None:
    """Whether all have the models that the first one is to be asked for, by the same names.

    Raises:
        TargetError: One has not.
    """
    for one in others:
        for model in choice.chosen:
            found = targets.choose(one.server, [model.id]).chosen[0].id
            if found != model.id:
                raise TargetError(
                    f"{one.server.base_url} has {found}, not {model.id}: replicas serve one model, so name "
                    "it alike on each"
                )


@dataclass(frozen=True, slots=True)
class RuntimeControl:
    """Foundry Local's runtime as what loads and unloads: each exact variant, which its web service cannot."""

    runtime: Runtime

    async def load(self, model: ModelFacts) -> None:
        await self._do(self.runtime.load, model)

    async def unload(self, model: ModelFacts) -> None:
        await self._do(self.runtime.unload, model)

    async def running(self, model: ModelFacts) -> ModelFacts | None:
        """The model as the runtime lists it, if it is loaded."""
        listed = await anyio.to_thread.run_sync(self.runtime.models)
        return next((facts for facts in listed if facts.id == model.id and facts.loaded), None)

    async def _do(self, call: Callable[[str], None], model: ModelFacts) -> None:
        try:
            await anyio.to_thread.run_sync(call, model.id)
        except TargetError:
            raise
        except LoadbenchError as error:  # of this model alone: the others of a run go on
            raise TargetError(str(error)) from error


# -- keys, certificates, proxies


def key(name: str | None, file: str | None, how: str = "") -> str | None:
    """The server's key.

    Args:
        name: The variable that holds it.
        file: The file that does. Where neither is named, API_KEY, the workshop's, is taken where it is set; before
            it, for the server of OPENAI_BASE_URL alone, OPENAI_API_KEY.
        how: How the server was found. One that nobody named gets no key that nobody named: whatever listens on a usual
            port of this machine may be another user's.
    Raises:
        UsageError: Both are named; or the variable is not set, or the file holds no key.
    """
    if file is None:
        return targets.read_key(key_source(name, None, how), os.environ)
    if name is not None:
        raise UsageError("--api-key-env and --api-key-file are both given: keep one")
    return targets.read_key_file(expanded(file, "--api-key-file"))


def key_source(name: str | None, file: str | None, how: str = "") -> str | None:
    """Which file or variable the key is from: API_KEY too is shown, as it is sent; None where there is none."""
    named = file or name
    if named is None and how == targets.OPENAI and os.environ.get(OPENAI_KEY, "").strip():
        return OPENAI_KEY
    if named is None and how != lookup.HOW and os.environ.get(KEY, "").strip():
        return KEY
    return named


def warnings(endpoint: str | None, key_file: str | None, *, insecure: bool) -> list[str]:
    """What a person should know of how a server is reached, a line each."""
    found = []
    if insecure and (endpoint is None or endpoint.lower().startswith("https:")):
        found.append(
            "Warning: --insecure: no certificate is checked: whoever is on the way may read the key and the answers, "
            "and answer in the server's place"
        )
    if key_file is not None and (warning := targets.key_file_warning(expanded(key_file, "--api-key-file"))) is not None:
        found.append(warning)
    return found


def tls(base_url: str, settings: Server) -> ssl.SSLContext | None:
    """The TLS settings of measured requests; None on plain http."""
    if not base_url.startswith("https:"):
        return None
    return tls_context(ca_file=settings.ca_file, insecure=settings.insecure)


def transport(target: Target, settings: Server) -> Transport | StockTransport:
    """The path of measured requests: ours, or stock httpx where the environment demands a proxy.

    Raises:
        LoadbenchError: As of `proxy`.
    """
    context, through = tls(target.base_url, settings), proxy([target])
    if through is None:
        return Transport(clock=settings.stamps, tls=context)
    return StockTransport(through, tls=context)


def authorities(settings: Server) -> str | None:
    """The text of `--ca-file`, for workers that cannot read the file itself."""
    return None if settings.ca_file is None else Path(settings.ca_file).read_text(encoding="ascii", errors="ignore")


def proxy(servers: Sequence[Target]) -> str | None:
    """The proxy that the environment demands for these servers; None where it demands none.

    Raises:
        LoadbenchError: It is none that can be used, or not of each server the same one.
    """
    first, *others = [targets.proxy_of(one.base_url) for one in servers]
    for one, found in zip(servers[1:], others, strict=True):
        if found != first:
            raise LoadbenchError(
                f"{one.base_url} and {servers[0].base_url} are not reached by one proxy: measure each in a run "
                "of its own"
            )
    return first
