"""How the commands on models reach them: the server that is named or found, else Foundry Local's SDK."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loadbench.cli.options import certificates, devices, duration, header_lines, under

if TYPE_CHECKING:
    from loadbench.runner.job import Job
    from loadbench.scenario import Scenario
    from loadbench.serve.foundry import Runtime
    from loadbench.server import Found, Target

Command = Callable[..., Any]
SDK = "Foundry Local's SDK"

_server, _models = under("Server"), under("Models")


def server_options(command: Command) -> Command:
    """The options that say which server, and how to get in."""
    for option in (
        _server("--insecure", is_flag=True, help="Accept any certificate."),
        _server("--ca-file", callback=certificates, metavar="FILE", help="Certificate authorities to trust (PEM)."),
        _server(
            *("--header", "headers"),
            multiple=True,
            variable=False,
            callback=lambda ctx, param, value: header_lines(value),
            metavar="'NAME: VALUE'",
            help="More HTTP headers.",
        ),
        _server("--api-key-file", metavar="FILE", help="File with the key alone in it."),
        _server("--api-key-env", metavar="NAME", help="Variable that holds the key.  [default: API_KEY]"),
        _server("--wait", "wait_for", callback=duration, metavar="60s", help="Wait until the server answers."),
        _server("-e", "--endpoint", metavar="URL", help="With or without /v1.  [default: what is found]"),
    ):
        command = option(command)
    return command


def cache_option(command: Command) -> Command:
    """The option that says where the SDK keeps its models."""
    text = "Models of Foundry Local's SDK.  [default: ~/.loadbench/cache/models]"
    return _server("--cache-dir", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help=text)(command)


def device_option(command: Command) -> Command:
    """The option that says for which devices."""
    return _models("--device", "devices", callback=devices, metavar="DEVICE", help="For cpu, gpu or npu.")(command)


def variant_options(command: Command) -> Command:
    """The options that say which variant of a model."""
    option = _models("--ep", "execution_provider", metavar="NAME", help="For a provider, as cuda or webgpu.")
    return device_option(option(command))


def found(given: dict[str, Any]) -> Found | None:
    """The server to ask: the one that is named, else a Foundry Local service; None where there is neither."""
    from loadbench import server as targets
    from loadbench.scenario.files import home

    place = given["endpoint"]
    found = targets.discover(os.environ, home()) if place is None else targets.Found(place, "as given")
    if found is None:
        return None
    return targets.Found(found.endpoint, with_key(found.how, given["api_key_env"], given["api_key_file"]))


@asynccontextmanager
async def server(found: Found, given: dict[str, Any]) -> AsyncIterator[tuple[Target, Any]]:
    """Who answers at a place, and the httpx client for control calls.

    Raises:
        TargetError: Nobody does.
    """
    from loadbench import server as targets
    from loadbench.runner import connect

    for warning in connect.warnings(found.endpoint, given["api_key_file"], insecure=given["insecure"]):
        note(warning)
    async with targets.open_http(
        found.endpoint,
        verify=not given["insecure"],
        ca_file=given["ca_file"],
        headers=given["headers"],
        key=connect.key(given["api_key_env"], given["api_key_file"]),
    ) as http:
        wait_s = 0.0 if given["wait_for"] is None else float(given["wait_for"])
        yield await targets.wait(found.endpoint, http=http, wait_s=wait_s, waiting=note), http


@contextmanager
def sdk(given: dict[str, Any], why: str = "no server was named or found") -> Iterator[Runtime]:
    """Foundry Local's runtime in a child process.

    Args:
        why: It takes the SDK.
    Raises:
        LoadbenchError: It is not installed.
    """
    from loadbench.errors import LoadbenchError
    from loadbench.serve import foundry

    if reason := foundry.available():
        raise LoadbenchError(f"{why}, and {SDK} is not at hand ({reason}): name a server with -e URL, or install it")
    with foundry.start(cache=cache(given), progress=note) as runtime:
        yield runtime


def listed(runtime: Runtime, given: dict[str, Any]) -> Target:
    """The SDK's models, as a server would list them; a line says where they are from. Blocks: 4 s where offline."""
    from loadbench.server import Target

    models = tuple(runtime.models())
    target = Target(SDK, "foundry2", runtime.version, models=models, pid=runtime.pid, is_ours=True)
    tell(target, f"cache {cache(given)}", given)
    return target


def with_key(how: str, name: str | None, file: str | None) -> str:
    """How a server was found, and which variable or file its key is from."""
    from loadbench.runner import connect

    source = connect.key_source(name, file)
    return how if source is None else f"{how}, key from {source}"


def job(scenario: Scenario, given: Mapping[str, Any]) -> Job:
    """What asks the server of a scenario, as the options say how it is reached."""
    from loadbench.runner.job import Job, Server

    server = Server(
        wait=given["wait_for"],
        insecure=given["insecure"],
        ca_file=given["ca_file"],
        cache_dir=given.get("cache_dir"),
    )
    return Job(scenario=scenario, server=server)


def cache(given: Mapping[str, Any]) -> Path:
    """Where Foundry Local's SDK keeps its models.

    Raises:
        LoadbenchError: As of `foundry.cache_folder`.
    """
    from loadbench.runner import connect
    from loadbench.runner.job import Server

    return connect.cache_folder(Server(cache_dir=given.get("cache_dir")))


def told(target: Target, how: str) -> str:
    """As `http://127.0.0.1:5273/v1 (foundry2), FOUNDRY_LOCAL_ENDPOINT`: whom a command asked."""
    return f"{target.base_url} ({' '.join(filter(None, (target.kind, target.version)))}), {how}"


def tell(target: Target, how: str, given: dict[str, Any]) -> None:
    """Tell people whom a command asked."""
    if not given["as_json"]:
        note(told(target, how))


def finish(ok: bool, *, or_else: int = 1) -> None:
    """End the command with the exit code of its outcome."""
    click.get_current_context().exit(0 if ok else or_else)


def say(reasons: Sequence[str]) -> None:
    """Why a command fails, a line each on stderr."""
    for reason in reasons:
        note(f"loadbench: {reason}")


def note(text: str) -> None:
    """What a person should know and a program need not read: a line on stderr."""
    from loadbench.cli.harmless import harmless

    click.echo(harmless(text), err=True)
