"""How the commands on models reach them: the server that is named or found, else Foundry Local's SDK."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loadbench.cli.options import certificates, devices, duration, header_lines, under

if TYPE_CHECKING:
    from loadbench.runner.job import Job
    from loadbench.scenario import Scenario
    from loadbench.server import Target

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


def with_key(how: str, name: str | None, file: str | None) -> str:
    """How a server was found, and which variable or file its key is from."""
    from loadbench.runner import connect

    source = connect.key_source(name, file, how)
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
