"""How commands reach a server: the options that say which and how, keys, TLS, proxies; and lines on stderr."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loadbench.cli.options import certificates, devices, duration, header_lines, under

if TYPE_CHECKING:
    import ssl

    from loadbench.server import Target
    from loadbench.transport import StockTransport, Transport

Command = Callable[..., Any]
SDK = "Foundry Local's SDK"
KEY = "API_KEY"
"""The variable that holds a server's key where --api-key-env names none: the workshop's."""

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
        _server("--api-key-env", metavar="NAME", help=f"Variable that holds the key.  [default: {KEY}]"),
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


def cache(given: dict[str, Any]) -> Path:
    """Where the SDK keeps its models.

    Raises:
        LoadbenchError: As of `foundry.cache_folder`.
    """
    from loadbench.scenario.files import expanded, home
    from loadbench.serve import foundry

    folder: Path | None = given.get("cache_dir")
    return foundry.cache_folder(os.environ, home()) if folder is None else expanded(folder, "--cache-dir")


def told(target: Target, how: str) -> str:
    """As `http://127.0.0.1:5273/v1 (foundry2), FOUNDRY_LOCAL_ENDPOINT`: whom a command asked."""
    return f"{target.base_url} ({' '.join(filter(None, (target.kind, target.version)))}), {how}"


def tell(target: Target, how: str, given: dict[str, Any]) -> None:
    """Tell people whom a command asked."""
    if not given["as_json"]:
        note(told(target, how))


def key(name: str | None, file: str | None) -> str | None:
    """The server's key.

    Args:
        name: The variable that holds it.
        file: The file that does. Where neither is named, API_KEY, the workshop's, is taken where it is set.
    Raises:
        UsageError: Both are named; or the variable is not set, or the file holds no key.
    """
    from loadbench import server as targets
    from loadbench.errors import UsageError
    from loadbench.scenario.files import expanded

    if file is None:
        return targets.read_key(name or key_variable(), os.environ)
    if name is not None:
        raise UsageError("--api-key-env and --api-key-file are both given: keep one")
    return targets.read_key_file(expanded(file, "--api-key-file"))


def key_source(name: str | None, file: str | None) -> str | None:
    """Which variable or file the key is from: what nobody named is told too, as it is sent."""
    return file or name or key_variable()


def with_key(how: str, source: str | None) -> str:
    """How a server was found, and where its key is from."""
    return how if source is None else f"{how}, key from {source}"


def warnings(endpoint: str | None, given: Mapping[str, Any], key_file: str | None) -> list[str]:
    """What a person should know of how a server is reached, a line each."""
    from loadbench import server as targets
    from loadbench.scenario.files import expanded

    found = []
    if given["insecure"] and (endpoint is None or endpoint.lower().startswith("https:")):
        found.append(
            "Warning: --insecure: no certificate is checked: whoever is on the way may read the key and the answers, "
            "and answer in the server's place"
        )
    if key_file is not None and (warning := targets.key_file_warning(expanded(key_file, "--api-key-file"))) is not None:
        found.append(warning)
    return found


def key_variable() -> str | None:
    """The variable that holds a key where none is named; None where it is not set."""
    return KEY if os.environ.get(KEY, "").strip() else None


def finish(ok: bool, *, or_else: int = 1) -> None:
    """End the command with the exit code of its outcome."""
    click.get_current_context().exit(0 if ok else or_else)


def note(text: str) -> None:
    """What a person should know and a program need not read: a line on stderr."""
    from loadbench.cli.harmless import harmless

    click.echo(harmless(text), err=True)


def tls(base_url: str, given: dict[str, Any]) -> ssl.SSLContext | None:
    """The TLS settings of measured requests; None on plain http."""
    from loadbench.transport import tls_context

    if not base_url.startswith("https:"):
        return None
    return tls_context(ca_file=given["ca_file"], insecure=given["insecure"])


def transport(target: Target, given: dict[str, Any]) -> Transport | StockTransport:
    """The path of measured requests: ours, or stock httpx where the environment demands a proxy.

    Raises:
        LoadbenchError: As of `proxy`.
    """
    from loadbench.transport import StockTransport, Transport

    context, through = tls(target.base_url, given), proxy([target])
    if through is None:
        return Transport(clock=given.get("stamps"), tls=context)
    return StockTransport(through, tls=context)


def authorities(given: dict[str, Any]) -> str | None:
    """The text of `--ca-file`, for whoever cannot read the file itself."""
    return None if given["ca_file"] is None else Path(given["ca_file"]).read_text(encoding="ascii", errors="ignore")


def proxy(targets: Sequence[Target]) -> str | None:
    """The proxy that the environment demands for these targets; None where it demands none.

    Raises:
        LoadbenchError: It is none that can be used, or not of each target the same one.
    """
    from loadbench.errors import LoadbenchError
    from loadbench.server import proxy_of

    proxies = [proxy_of(one.base_url) for one in targets]
    for one, found in zip(targets, proxies, strict=True):
        if found != proxies[0]:
            raise LoadbenchError(
                f"{one.base_url} and {targets[0].base_url} are not reached by one proxy: measure each in a run "
                "of its own"
            )
    return proxies[0]
