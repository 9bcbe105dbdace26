"""What every `loadbench serve` command shares: where it listens, and what it says when it is ready."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import click

HOST = "127.0.0.1"


def listening(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a server for this machine or for others."""
    host = click.option("--host", default=HOST, metavar="ADDRESS", show_default=True, help="Address to listen on.")
    return _port(host(_json(command)))


def local(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a server for this machine alone."""
    return _port(_json(command))


_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON line with url, pid and model when ready.")
_port = click.option(
    "--port", default=0, type=click.IntRange(0, 65535), metavar="PORT", help="Port to listen on.  [default: a free one]"
)


def warn_if_open(host: str) -> None:
    """Say so where other machines reach the address: no server here asks who it is."""
    import ipaddress

    if host == "localhost":
        return
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, of whatever machine
        loopback = False
    if not loopback:
        click.echo(f"Warning: {host} can be reached from other machines; anyone there can use this server.", err=True)


def announce(facts: Mapping[str, Any], what: str, as_json: bool) -> None:
    """Say where it listens, for people or for programs, and how to measure it."""
    if as_json:
        click.echo(json.dumps(dict(facts)))
    else:
        click.echo(f"{facts['url']}  {what}")
        click.echo(f"Measure it in another terminal: loadbench run -e {facts['url']} -c 1,2,4   (Ctrl-C stops it)")
    sys.stdout.flush()
