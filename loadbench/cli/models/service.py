"""What the commands on models share: the server or SDK that they ask, and how they report."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import anyio
import click

from loadbench import server as targets
from loadbench.cli import reach
from loadbench.cli.harmless import data, harmless
from loadbench.cli.models import Options
from loadbench.errors import LoadbenchError, TargetError
from loadbench.runner import connect
from loadbench.scenario.files import home
from loadbench.serve import foundry
from loadbench.server import VENDORS, Found, Http, ModelFacts, Target

if TYPE_CHECKING:
    from loadbench.serve.foundry import Runtime

NO_SERVER = "no server was named or found"


def find(options: Options) -> Found | None:
    """The server to ask: the one that is named, else a Foundry Local service; None where there is neither."""
    found = targets.discover(os.environ, home()) if options.endpoint is None else Found(options.endpoint, "as given")
    if found is None:
        return None
    return Found(found.endpoint, reach.with_key(found.how, options.api_key_env, options.api_key_file))


@asynccontextmanager
async def opened(found: Found, options: Options) -> AsyncIterator[tuple[Target, Http]]:
    """The server that answers there, and the client for control calls.

    Raises:
        TargetError: None does.
    """
    for warning in connect.warnings(found.endpoint, options.api_key_file, insecure=options.insecure):
        reach.note(warning)
    async with targets.open_http(
        found.endpoint,
        verify=not options.insecure,
        ca_file=options.ca_file,
        headers=options.headers,
        key=connect.key(options.api_key_env, options.api_key_file),
    ) as http:
        wait_s = float(options.wait_for or 0.0)
        yield await targets.wait(found.endpoint, http=http, wait_s=wait_s, waiting=reach.note), http


@contextmanager
def sdk(options: Options, why: str = NO_SERVER) -> Iterator[Runtime]:
    """Foundry Local's runtime in a child process.

    Args:
        why: It takes the SDK.
    Raises:
        LoadbenchError: It is not installed.
    """
    if reason := foundry.available():
        raise LoadbenchError(
            f"{why}, and {reach.SDK} is not at hand ({reason}): name a server with -e URL, or install it"
        )
    with foundry.start(cache=options.cache, progress=reach.note) as runtime:
        yield runtime


def listed(runtime: Runtime, options: Options) -> Target:
    """The SDK's models, as a server would list them; a line says where they are from. Blocks: 4 s where offline."""
    models = tuple(runtime.models())
    target = Target(reach.SDK, "foundry2", runtime.version, models=models, pid=runtime.pid, is_ours=True)
    tell(target, f"cache {options.cache}", options)
    return target


def on_server_or_sdk(
    options: Options,
    action: str,
    on_server: Callable[[Target, Http, Options], Awaitable[bool]],
    by_sdk: Callable[[Runtime, Target, Options], Awaitable[bool]],
) -> bool:
    """Change models on the server that is named or found; one that was found may leave that to the SDK.

    Args:
        action: What it takes the SDK for, as ``deletes``.
    """

    async def served(found: Found) -> bool | None:
        async with opened(found, options) as (target, http):
            if VENDORS[target.kind].lists_catalogue and options.endpoint is None:
                return None
            tell(target, found.how, options)
            return await on_server(target, http, options)

    found, why = find(options), NO_SERVER
    if found is not None:
        ok = anyio.run(served, found)
        if ok is not None:
            return ok
        why = f"the service at {found.endpoint} {action} nothing over HTTP"
    with sdk(options, why) as runtime:
        return anyio.run(by_sdk, runtime, listed(runtime, options), options)


def choose(target: Target, options: Options) -> tuple[list[ModelFacts], bool]:
    """The models that the names, devices and execution provider mean, and whether none that was asked for is absent.

    Raises:
        TargetError: One of the names means none, or several.
    """
    choice = targets.choose(
        target, options.names, devices=options.devices or (), execution_provider=options.execution_provider
    )
    for one in choice.absent:
        failed(one.name, TargetError(one.reason), options)
    return [one.facts or ModelFacts(one.id) for one in choice.chosen], not choice.absent


def tell(target: Target, how: str, options: Options) -> None:
    """Tell people which server a command asks."""
    if not options.as_json:
        reach.note(reach.told(target, how))


def say(document: Mapping[str, object], text: str, options: Options) -> None:
    """Report what was done, to a program or to a person."""
    click.echo(data(document) if options.as_json else harmless(text))


def failed(model: str, error: LoadbenchError, options: Options) -> bool:
    """Report that it failed, in a line on stderr; False, for "all went well"."""
    message = str(error)
    if options.as_json:
        click.echo(data({"model": model, "error": message}))
    reach.note(f"loadbench: {message}" if model in message else f"loadbench: {model}: {message}")
    return False
