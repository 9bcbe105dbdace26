"""Where the server is that a command asks: named, found, or started for it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from loadbench import server as targets
from loadbench.cli import nearby, reach, resume
from loadbench.errors import LoadbenchError, TargetError, UsageError
from loadbench.runner.session import Control, Origin
from loadbench.scenario import Scenario
from loadbench.scenario.files import home
from loadbench.serve import foundry
from loadbench.server import Choice, Found, ModelFacts, Target
from loadbench.transport import Transport

if TYPE_CHECKING:
    from loadbench.serve.foundry import Runtime

SDK = "Foundry Local's own runtime"

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the server is.

    Attributes:
        endpoint: As a person would write it; None for a server that is started only for a real run.
        how: How it was found, in words.
        models: What is known of its models beside what it tells; of one that is not started, what it will serve.
        pid: Of its process, where we started it.
        runtime: Foundry Local's SDK, where that is the server.
        load_s: How long it took to start with its model in it, where we started it.
        others: Endpoints of further replicas of the service, as a person would write them.
    """

    endpoint: str | None
    how: str
    models: tuple[ModelFacts, ...] = ()
    pid: int | None = None
    runtime: Runtime | None = None
    load_s: float | None = None
    others: tuple[str, ...] = ()


def find(asked: Scenario, given: dict[str, Any], stack: ExitStack, note: Note) -> Place:
    """The server to ask: the one that is named, one that is found, or one that is started; it ends with the stack.

    Args:
        given: The command's options: `simulate`, `resume`, `dry_run`, and `cache_dir` where it has one.
        note: Told in a line what takes a while.
    Raises:
        LoadbenchError: There is none.
    """
    again = resume.began_as(given["resume"])
    if given["simulate"] or again == "simulator":
        return _simulator(given, stack)
    if asked.endpoint is not None:
        first, *others = targets.distinct(asked.endpoints)
        return Place(first, "as given", others=tuple(others))
    if given["resume"] is not None and again is None:
        found = resume.place(given["resume"])
    else:
        found = _found(asked, note) if again is None else None
    if found is not None:
        return Place(found.endpoint, found.how)
    try:
        cache = reach.cache(given)
        lacks = foundry.available() or (None if foundry.has_models(cache) else f"no model is in {cache}")
    except LoadbenchError as error:
        cache, lacks = None, str(error)
    if again == "sdk" and lacks is not None:
        raise LoadbenchError(f"{given['resume']}: the run measured {SDK}, which cannot start now: {lacks}")
    if again != "embedded" and cache is not None and lacks is None:
        return _sdk(cache, given, stack, note)
    return _embedded(asked, given, stack, note)


def _found(asked: Scenario, note: Note) -> Found | None:
    """The one server that is here: the one that the environment names, or a service that listens on this machine.

    Raises:
        UsageError: There are several.
    """
    told = targets.discover(os.environ, home())
    if told is not None and told.how == targets.VARIABLE:
        return told
    here = {} if told is None else {told.endpoint: f"Foundry Local, {told.how}"}
    has_key = reach.key_source(asked.api_key_env, asked.api_key_file) is not None
    for one in asyncio.run(nearby.look(nearby.PORTS)):
        if one.is_locked and not has_key:
            note(f"{one.endpoint} wants a key: to measure it, add -e {one.endpoint} --api-key-env NAME")
        else:
            here.setdefault(one.endpoint, one.kind)
    if len(here) > 1:
        several = " or ".join(f"-e {url} ({kind})" for url, kind in here.items())
        raise UsageError(f"{len(here)} servers are here: name the one that is meant: {several}")
    return told or next((Found(url, nearby.HOW) for url in here), None)


@dataclass(frozen=True, slots=True)
class Reached:
    """A server that can be asked.

    Attributes:
        control: Loads and unloads its models; None where it offers neither.
        scrape: Reads its own metrics; None where its kind has none.
        round_trip_ns: Of the network, the shortest TCP connect; None where nobody measured it.
    """

    server: Target
    control: Control | None
    scrape: Callable[[], Awaitable[dict[str, float] | None]] | None
    round_trip_ns: int | None = None

    def choose(self, asked: Scenario) -> Choice:
        """The models, devices and execution provider that a scenario asks for.

        Raises:
            TargetError: The server has none of them.
        """
        wanted = asked.models
        return self.chosen("auto" if wanted == "auto" else [wanted] if isinstance(wanted, str) else wanted, asked)

    def chosen(self, wanted: Any, asked: Scenario) -> Choice:
        """These models, as the devices and the execution provider that were asked for allow."""
        devices, provider = asked.device or (), asked.execution_provider
        return targets.choose(self.server, wanted, devices=devices, execution_provider=provider)


@asynccontextmanager
async def reached(place: Place, asked: Scenario, given: dict[str, Any], note: Note) -> AsyncIterator[Reached]:
    """The server at a place; control calls work as long as this is open.

    Args:
        given: The command's options: `insecure`, `ca_file`, `wait_for`.
        note: Told what is waited for.
    Raises:
        TargetError: Nobody answers there.
    """
    known = await anyio.to_thread.run_sync(_known_target, place)
    if known is not None:
        control = None if place.runtime is None else RuntimeControl(place.runtime)
        yield Reached(known, control, None)
        return
    endpoint = place.endpoint or ""
    base_url = targets.normalise(endpoint)
    # Ours sets up its first connection in 3 ms, stock httpx in 100.
    transport = None if targets.is_proxied(base_url) else Transport(clock="user", tls=reach.tls(base_url, given))
    async with targets.open_http(
        endpoint,
        verify=not given["insecure"],
        ca_file=given["ca_file"],
        headers=asked.headers,
        key=reach.key(asked.api_key_env, asked.api_key_file),
        transport=transport,
    ) as http:
        wait_s = 0.0 if given["wait_for"] is None else float(given["wait_for"])
        named = asked.models != "auto"
        server = _with_known(await targets.wait(endpoint, http=http, wait_s=wait_s, waiting=note, named=named), place)
        root = targets.server_root(server.base_url)
        scrape = (lambda: targets.scrape(http, root)) if targets.VENDORS[server.kind].has_metrics else None
        round_trip_ns = None if transport is None else transport.round_trip_ns
        yield Reached(server, targets.control(server, http), scrape, round_trip_ns)


def _known_target(place: Place) -> Target | None:
    """The server as this process knows it without asking over HTTP; None where it must be asked. May block for 4 s."""
    if place.runtime is not None:
        base_url = SDK if place.endpoint is None else targets.normalise(place.endpoint)
        models = tuple(place.runtime.models())
        runtime = place.runtime
        return Target(base_url, "foundry2", runtime.version, models=models, pid=runtime.pid, is_ours=True)
    if place.endpoint is None:
        return Target(place.how.partition(",")[0], "openai", models=place.models)
    return None


def _with_known(server: Target, place: Place) -> Target:
    """A server that answered, with what the place tells beside it."""
    known = {one.id: one for one in place.models}
    models = (targets.merged(one, known[one.id]) if one.id in known else one for one in server.models)
    return replace(server, models=tuple(models), pid=server.pid or place.pid)


@dataclass(frozen=True, slots=True)
class RuntimeControl:
    """Foundry Local's runtime as what loads and unloads: each exact variant, which its web service cannot."""

    runtime: Runtime

    async def load(self, model: ModelFacts) -> None:
        await self._do(self.runtime.load, model)

    async def unload(self, model: ModelFacts) -> None:
        await self._do(self.runtime.unload, model)

    async def running(self, model: ModelFacts) -> ModelFacts | None:
        """The model as the runtime tells of it, if it is loaded."""
        listed = await anyio.to_thread.run_sync(self.runtime.models)
        return next((facts for facts in listed if facts.id == model.id and facts.loaded), None)

    async def _do(self, call: Callable[[str], None], model: ModelFacts) -> None:
        try:
            await anyio.to_thread.run_sync(call, model.id)
        except TargetError:
            raise
        except LoadbenchError as error:  # of this model alone: the others of a run go on
            raise TargetError(str(error)) from error


def _simulator(given: dict[str, Any], stack: ExitStack) -> Place:
    from loadbench.serve import simulator

    if given["dry_run"]:
        return Place(None, "the simulator, started for the run", (ModelFacts(simulator.MODEL),))
    server = stack.enter_context(simulator.start())
    how = "the simulator, started for this run: its figures are no measurement of a model"
    return Place(server.url, how, pid=server.pid)


def _sdk(cache: Path, given: dict[str, Any], stack: ExitStack, note: Note) -> Place:
    runtime = stack.enter_context(foundry.start(cache=cache, progress=note))
    how = f"{SDK}, started for this run: SDK {runtime.version}, models in {cache}"
    return Place(None if given["dry_run"] else runtime.serve(), how, pid=runtime.pid, runtime=runtime)


def _embedded(asked: Scenario, given: dict[str, Any], stack: ExitStack, note: Note) -> Place:
    from loadbench.serve import llama

    if reason := llama.available():
        raise LoadbenchError(
            f"no server to measure: no -e URL, no FOUNDRY_LOCAL_ENDPOINT, no server found on this machine, and the "
            f"embedded model cannot run here ({reason}); name a server with -e, or try --simulate"
        )
    # llama.cpp tells neither device nor licence, but we start it.
    facts = ModelFacts(llama.MODEL, cached=True, device="CPU", licence="Apache-2.0")
    if given["dry_run"]:
        return Place(None, "the embedded model, started for the run", (facts,))
    most = max(asked.concurrency or [8])
    llama.fetch_model(note)  # once, and no part of what it takes to load
    began_s = time.monotonic()
    server = stack.enter_context(llama.start(slots=min(max(most, 4), 16), progress=note))
    load_s = round(time.monotonic() - began_s, 3)
    threads = "1 thread" if server.threads == 1 else f"{server.threads} threads"
    how = f"the embedded model, started for this run: {server.slots} slots, {threads}"
    facts = replace(facts, size_bytes=Path(server.gguf).stat().st_size)
    return Place(server.url, how, (facts,), server.pid, load_s=load_s)


def origin(place: Place, facts: ModelFacts) -> Origin:
    """What is known of a model beside what its server tells: how long that took to start, what it takes on the disk."""
    if place.runtime is not None and (folder := place.runtime.path(facts.id)) is not None:
        return Origin(None, _disk_bytes(folder), "files")
    if any(one.id == facts.id and one.size_bytes for one in place.models):
        return Origin(place.load_s, facts.size_bytes, "files")
    if facts.size_bytes is None or not (facts.cached or facts.loaded):  # a catalogue's size is not on this disk
        return Origin()
    return Origin(None, facts.size_bytes, "server")


def _disk_bytes(folder: Path) -> int | None:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) or None
