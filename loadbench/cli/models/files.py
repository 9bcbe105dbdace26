"""`loadbench models remove` and `register`: what is on the disk, and what Foundry Local is told of it."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import click

from loadbench.cli import reach
from loadbench.cli.models import catalogue, outcome
from loadbench.errors import LoadbenchError, UsageError
from loadbench.server import VENDORS, Found, ModelFacts, Target
from loadbench.text import size

if TYPE_CHECKING:
    from loadbench.serve.foundry import Runtime

Delete = Callable[[ModelFacts], Awaitable[None]]


def remove(given: dict[str, Any]) -> bool:
    """Delete the models; whether all went well.

    Raises:
        UsageError: Nobody can be asked, and --yes was not given.
        LoadbenchError: Neither server nor SDK deletes models here.
    """
    if not given["yes"] and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("remove asks before it deletes, and here is nobody to ask: confirm with --yes")
    found, why = reach.found(given), "no server was named or found"
    if found is not None:
        removed = anyio.run(_on_server, found, given)
        if removed is not None:
            return removed
        why = f"the service at {found.endpoint} deletes nothing over HTTP"
    with reach.sdk(given, why) as runtime:
        return anyio.run(_by_sdk, runtime, reach.listed(runtime, given), given)


async def _on_server(found: Found, given: dict[str, Any]) -> bool | None:
    """Delete on a server; None where one that was found leaves that to the SDK."""
    async with reach.server(found, given) as (server, http):
        if VENDORS[server.kind].lists_catalogue and given["endpoint"] is None:
            return None
        reach.tell(server, found.how, given)

        async def delete(facts: ModelFacts) -> None:
            await VENDORS[server.kind].remove(server, http, facts)

        return await _each(server, delete, given)


async def _by_sdk(runtime: Runtime, listed: Target, given: dict[str, Any]) -> bool:
    async def delete(facts: ModelFacts) -> None:
        await anyio.to_thread.run_sync(runtime.remove, facts.id)

    there = tuple(facts for facts in listed.models if facts.cached is not False)
    if not there:
        raise LoadbenchError(f"{reach.cache(given)} holds no model: there is nothing to remove")
    return await _each(Target(listed.base_url, listed.kind, models=there), delete, given)


async def _each(listed: Target, delete: Delete, given: dict[str, Any]) -> bool:
    chosen, ok = outcome.chosen(listed, given)
    for facts in chosen:
        what = f"{facts.id} ({size(facts.size_bytes)})" if facts.size_bytes else facts.id
        if not given["yes"] and not click.confirm(f"Remove {what}?", err=True):
            outcome.say({"model": facts.id, "action": "remove", "removed": False}, f"{facts.id}: kept", given)
            continue
        try:
            await delete(facts)
        except LoadbenchError as error:
            ok = outcome.failed(facts.id, error, given)
        else:
            outcome.say({"model": facts.id, "action": "remove", "removed": True}, f"{facts.id}: removed", given)
    return ok


def register(given: dict[str, Any]) -> None:
    """Put a folder with a model into Foundry Local's local catalogue.

    Raises:
        UsageError: It is no folder of an ONNX model.
        LoadbenchError: The SDK is not installed, or refuses it.
    """
    path = given["path"]
    if not (path / "genai_config.json").is_file():
        why = (
            "no such folder"
            if not path.exists()
            else "no folder"
            if not path.is_dir()
            else "no genai_config.json in it"
        )
        raise UsageError(f"{path}: {why}: give the folder of an ONNX model made for onnxruntime-genai")
    if given["reasoning"] is not None and not all(given["reasoning"]):
        raise UsageError("--reasoning takes two texts, as --reasoning '<think>' '</think>': one of them is empty")
    with reach.sdk(given, "registering takes Foundry Local's SDK") as runtime:
        thoughts = {} if given["reasoning"] is None else {"reasoning": given["reasoning"]}
        facts = runtime.register(path.resolve(), given["name"], **thoughts)
    name = catalogue.alias(facts)
    outcome.say(
        {"action": "register", "path": str(path.resolve()), **asdict(facts)},
        f"{facts.id}: registered; serve it with: loadbench serve foundry -m {name}",
        given,
    )
