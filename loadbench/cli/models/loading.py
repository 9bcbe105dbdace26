"""`loadbench models load` and `unload`: into a server's memory, and out of it."""

from __future__ import annotations

import time
from typing import Any

import anyio
import anyio.to_thread

from loadbench import server as targets
from loadbench import telemetry
from loadbench.cli import reach
from loadbench.cli.models import outcome
from loadbench.errors import LoadbenchError, TargetError
from loadbench.runner.session import Control
from loadbench.runner.watched import Watched
from loadbench.serve import foundry
from loadbench.server import Found, ModelFacts, Target
from loadbench.server.foundry import OtherVariant
from loadbench.text import size, span

SETTLE_S = 1.0
"""From an unload to the look at what memory it gave back: allocators and drivers let go a moment later."""


def change(given: dict[str, Any], *, load: bool) -> bool:
    """Load or unload the models; whether all went well.

    Raises:
        LoadbenchError: There is no service, or it offers neither.
    """
    found = reach.found(given)
    if found is None:
        reason = foundry.available()
        start = f"install Foundry Local's SDK ({reason})" if reason else "`loadbench serve foundry -m NAME` starts one"
        raise LoadbenchError(
            f"models load into a running service, and none was found: {start}, or name a server with -e URL"
        )
    return anyio.run(_change, found, given, load)


async def _change(found: Found, given: dict[str, Any], load: bool) -> bool:
    async with reach.server(found, given) as (server, http):
        reach.tell(server, found.how, given)
        control = targets.control(server, http)
        if control is None:
            raise LoadbenchError(
                f"{server.base_url} ({server.kind}) offers no loading and unloading over HTTP: it holds what it was "
                "started with"
            )
        chosen, ok = _loaded(server) if given.get("everything") else outcome.chosen(server, given)
        for facts in chosen:
            try:
                said = await (_load if load else _unload)(server, control, facts)
            except OtherVariant as error:
                asked = given.get("devices") or given.get("execution_provider")
                advice = ", or leave out --device and --ep" if asked else ""
                ok = outcome.failed(facts.id, TargetError(f"{error}{advice}"), given)
            except TargetError as error:
                ok = outcome.failed(facts.id, error, given)
            else:
                outcome.say(said, _words(said), given)
        return ok


def _loaded(server: Target) -> tuple[list[ModelFacts], bool]:
    loaded = [facts for facts in server.models if facts.loaded]
    if not loaded:
        reach.note(f"no model is loaded at {server.base_url}")
    return loaded, True


async def _load(server: Target, control: Control, facts: ModelFacts) -> dict[str, Any]:
    said: dict[str, Any] = {"model": facts.id, "action": "load", "already": bool(facts.loaded)}
    if facts.loaded:
        return said
    local = targets.is_loopback(server.base_url)
    if local and (warning := targets.free_memory_warning(facts, _free_bytes(facts))) is not None:
        reach.note(f"Warning: {warning}")
    before_bytes = await _memory_bytes(server)
    reach.note(f"{facts.id}: loading")
    began_s = time.monotonic()
    await control.load(facts)
    load_s = round(time.monotonic() - began_s, 3)
    ran = await control.running(facts) or facts
    return {
        **said,
        "load_s": load_s,
        "device": ran.device,
        "execution_provider": ran.execution_provider,
        "memory_before_bytes": before_bytes,
        "memory_after_bytes": await _memory_bytes(server),
    }


async def _unload(server: Target, control: Control, facts: ModelFacts) -> dict[str, Any]:
    said: dict[str, Any] = {"model": facts.id, "action": "unload", "already": facts.loaded is False}
    if facts.loaded is False:
        return said
    before_bytes = await _memory_bytes(server)
    await control.unload(facts)
    if before_bytes is not None:
        await anyio.sleep(SETTLE_S)
    return {**said, "memory_before_bytes": before_bytes, "memory_after_bytes": await _memory_bytes(server)}


def _words(said: dict[str, Any]) -> str:
    """What was done, in a line."""
    model, load = said["model"], said["action"] == "load"
    if said["already"]:
        return f"{model}: {'loaded already' if load else 'not loaded'}"
    words = f"{model}: {'loaded' if load else 'unloaded'}"
    if load:
        words += f" in {span(said['load_s'] * 1000)}"
        on = [said["device"], f"({said['execution_provider']})" if said["execution_provider"] else None]
        words += f" on {' '.join(filter(None, on))}" if any(on) else ""
    before, after = said["memory_before_bytes"], said["memory_after_bytes"]
    return (
        words if before is None or after is None else f"{words}; the server's memory: {size(before)}, now {size(after)}"
    )


async def _memory_bytes(server: Target) -> int | None:
    """Of the server's processes, where they are on this machine."""
    return await anyio.to_thread.run_sync(_look, server)


def _look(server: Target) -> int | None:
    pid = Watched(server).pid
    if pid is None:
        return None
    sampler = telemetry.Sampler(pid)
    try:
        sample = sampler.sample()["server"]
    finally:
        sampler.close()
    return None if sample is None else int(sample["memory_bytes"])


def _free_bytes(facts: ModelFacts) -> int | None:
    on_gpu = "GPU" in (facts.device or "")
    return telemetry.gpu_free_memory_bytes() if on_gpu else telemetry.free_memory_bytes()
