"""`loadbench models load`, `unload`, `remove` and `register`: what is in memory, on the disk, in the catalogue."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import click

from loadbench import server as targets
from loadbench import telemetry
from loadbench.cli import reach
from loadbench.cli.models import Options
from loadbench.cli.models.listing import alias
from loadbench.cli.models.service import choose, failed, find, on_server_or_sdk, opened, say, sdk, tell
from loadbench.errors import LoadbenchError, TargetError, UsageError
from loadbench.runner.watch import Watched
from loadbench.serve import foundry
from loadbench.server import VENDORS, Control, Found, Http, ModelFacts, Target
from loadbench.server.foundry import OtherVariant
from loadbench.text import size, span

if TYPE_CHECKING:
    from loadbench.serve.foundry import Runtime

Report = tuple[dict[str, object], str]
"""What was done, for a program and for a person."""
SETTLE_S = 1.0
"""From an unload to the look at what memory it gave back: allocators and drivers let go a moment later."""


# -- load and unload


def load_or_unload(options: Options, *, load: bool) -> bool:
    """Load or unload the models; whether all went well.

    Raises:
        LoadbenchError: There is no service, or it offers neither.
    """
    found = find(options)
    if found is None:
        reason = foundry.available()
        start = f"install Foundry Local's SDK ({reason})" if reason else "`loadbench serve foundry -m NAME` starts one"
        raise LoadbenchError(
            f"models load into a running service, and none was found: {start}, or name a server with -e URL"
        )
    return anyio.run(_change, found, options, _load if load else _unload)


async def _change(
    found: Found, options: Options, change: Callable[[Target, Control, ModelFacts], Awaitable[Report]]
) -> bool:
    async with opened(found, options) as (server, http):
        tell(server, found.how, options)
        control = targets.control(server, http)
        if control is None:
            raise LoadbenchError(
                f"{server.base_url} ({server.kind}) offers no loading and unloading over HTTP: it holds what it was "
                "started with"
            )
        if options.everything:
            models, ok = [facts for facts in server.models if facts.loaded], True
            if not models:
                reach.note(f"no model is loaded at {server.base_url}")
        else:
            models, ok = choose(server, options)
        for facts in models:
            try:
                document, text = await change(server, control, facts)
            except OtherVariant as error:
                variant = options.devices or options.execution_provider
                advice = ", or leave out --device and --ep" if variant else ""
                ok = failed(facts.id, TargetError(f"{error}{advice}"), options)
            except TargetError as error:
                ok = failed(facts.id, error, options)
            else:
                say(document, text, options)
        return ok


async def _load(server: Target, control: Control, facts: ModelFacts) -> Report:
    if facts.loaded:
        return {"model": facts.id, "action": "load", "already": True}, f"{facts.id}: loaded already"
    if (warning := Watched(server).memory_warning(facts)) is not None:
        reach.note(f"Warning: {warning}")
    before_bytes = await _memory_bytes(server)
    reach.note(f"{facts.id}: loading")
    began_s = time.monotonic()
    await control.load(facts)
    load_s = round(time.monotonic() - began_s, 3)
    running = await control.running(facts) or facts
    after_bytes = await _memory_bytes(server)
    document = {
        "model": facts.id,
        "action": "load",
        "already": False,
        "load_s": load_s,
        "device": running.device,
        "execution_provider": running.execution_provider,
        "memory_before_bytes": before_bytes,
        "memory_after_bytes": after_bytes,
    }
    provider = f"({running.execution_provider})" if running.execution_provider else None
    place = " ".join(filter(None, (running.device, provider)))
    text = f"{facts.id}: loaded in {span(load_s * 1000)}" + (f" on {place}" if place else "")
    return document, text + _memory(before_bytes, after_bytes)


async def _unload(server: Target, control: Control, facts: ModelFacts) -> Report:
    if facts.loaded is False:
        return {"model": facts.id, "action": "unload", "already": True}, f"{facts.id}: not loaded"
    before_bytes = await _memory_bytes(server)
    await control.unload(facts)
    if before_bytes is not None:
        await anyio.sleep(SETTLE_S)
    after_bytes = await _memory_bytes(server)
    document = {
        "model": facts.id,
        "action": "unload",
        "already": False,
        "memory_before_bytes": before_bytes,
        "memory_after_bytes": after_bytes,
    }
    return document, f"{facts.id}: unloaded" + _memory(before_bytes, after_bytes)


def _memory(before_bytes: int | None, after_bytes: int | None) -> str:
    if before_bytes is None or after_bytes is None:
        return ""
    return f"; the server's memory: {size(before_bytes)}, now {size(after_bytes)}"


async def _memory_bytes(server: Target) -> int | None:
    """Of the server's processes, where they are on this machine."""

    def look() -> int | None:
        pid = Watched(server).pid
        if pid is None:
            return None
        sampler = telemetry.Sampler(pid)
        try:
            sample = sampler.sample()["server"]
        finally:
            sampler.close()
        return None if sample is None else int(sample["memory_bytes"])

    return await anyio.to_thread.run_sync(look)


# -- remove and register


def remove(options: Options) -> bool:
    """Delete the models; whether all went well.

    Raises:
        UsageError: Nobody can be asked, and --yes was not given.
        LoadbenchError: Neither server nor SDK deletes models here.
    """
    if not options.yes and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("remove asks before it deletes, and here is nobody to ask: confirm with --yes")
    return on_server_or_sdk(options, "deletes", _remove_from_server, _remove_by_sdk)


async def _remove_from_server(server: Target, http: Http, options: Options) -> bool:
    async def delete(facts: ModelFacts) -> None:
        await VENDORS[server.kind].remove(server, http, facts)

    return await _remove_each(server, delete, options)


async def _remove_by_sdk(runtime: Runtime, target: Target, options: Options) -> bool:
    async def delete(facts: ModelFacts) -> None:
        await anyio.to_thread.run_sync(runtime.remove, facts.id)

    on_disk = tuple(facts for facts in target.models if facts.cached is not False)
    if not on_disk:
        raise LoadbenchError(f"{options.cache} holds no model: there is nothing to remove")
    return await _remove_each(Target(target.base_url, target.kind, models=on_disk), delete, options)


async def _remove_each(target: Target, delete: Callable[[ModelFacts], Awaitable[None]], options: Options) -> bool:
    models, ok = choose(target, options)
    for facts in models:
        question = f"Remove {facts.id} ({size(facts.size_bytes)})?" if facts.size_bytes else f"Remove {facts.id}?"
        if not options.yes and not click.confirm(question, err=True):
            say({"model": facts.id, "action": "remove", "removed": False}, f"{facts.id}: kept", options)
            continue
        try:
            await delete(facts)
        except LoadbenchError as error:
            ok = failed(facts.id, error, options)
        else:
            say({"model": facts.id, "action": "remove", "removed": True}, f"{facts.id}: removed", options)
    return ok


def register(path: Path, name: str | None, reasoning: Sequence[str] | None, options: Options) -> None:
    """Put a folder with a model into Foundry Local's local catalogue.

    Raises:
        UsageError: It is no folder of an ONNX model.
        LoadbenchError: The SDK is not installed, or refuses it.
    """
    if not (path / "genai_config.json").is_file():
        why = "no folder" if path.exists() else "no such folder"
        if path.is_dir():
            why = "no genai_config.json in it"
        raise UsageError(f"{path}: {why}: give the folder of an ONNX model made for onnxruntime-genai")
    if reasoning is not None and not all(reasoning):
        raise UsageError("--reasoning takes two texts, as --reasoning '<think>' '</think>': one of them is empty")
    with sdk(options, "registering takes Foundry Local's SDK") as runtime:
        facts = runtime.register(path.resolve(), name, reasoning)
    say(
        {"action": "register", "path": str(path.resolve()), **asdict(facts)},
        f"{facts.id}: registered; serve it with: loadbench serve foundry -m {alias(facts)}",
        options,
    )
