"""What every `loadbench serve` command shares: where it listens, and what it says when it is ready."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import click

from loadbench.cli.harmless import harmless

HOST = "127.0.0.1"


def listening(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a server for this machine or for others."""
    host = click.option("--host", default=HOST, metavar="ADDRESS", show_default=True, help="Address to listen on.")
    name = click.option("--api-key-env", metavar="NAME", help="Variable with the key that requests must carry.")
    file = click.option("--api-key-file", metavar="FILE", help="File with it alone in it.")
    return _port(host(name(file(_json(command)))))


def local(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a server for this machine alone."""
    return _port(_json(command))


_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON line with url, pid and model when ready.")
_port = click.option(
    "--port", default=0, type=click.IntRange(0, 65535), metavar="PORT", help="Port to listen on.  [default: a free one]"
)


def key_of(host: str, name: str | None, file: str | None) -> str | None:
    """The key that requests must carry; where other machines reach the address there is one, a new one if need be.

    Args:
        name, file: What holds the key.
    Raises:
        UsageError: Both are named, or hold none.
    """
    import secrets

    from loadbench.cli import reach
    from loadbench.runner import connect
    from loadbench.serve import admission

    key = connect.key(name, file) if name or file else None
    if admission.is_local_address(host):
        return key
    said = f"Warning: {host} can be reached from other machines, which must send the key, unencrypted:"
    if key is not None:
        reach.note(f"{said} that of {file or name}")
        return key
    key = secrets.token_urlsafe(24)
    reach.note(f"{said} {key} (made for this time; --api-key-env or --api-key-file sets one)")
    return key


def announce(facts: Mapping[str, Any], what: str, as_json: bool) -> None:
    """Say where it listens, for people or for programs, and how to measure it."""
    if as_json:
        click.echo(json.dumps(dict(facts)))
    else:
        click.echo(harmless(f"{facts['url']}  {what}"))
        click.echo(f"Measure it in another terminal: loadbench run -e {facts['url']} -c 1,2,4   (Ctrl-C stops it)")
    sys.stdout.flush()
