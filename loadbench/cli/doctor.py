"""`loadbench doctor`: what works here, and what this client can measure."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING

import click

from loadbench.cli.options import certificates

if TYPE_CHECKING:
    from loadbench.cli.checks import Check

    Servers = Callable[[], Coroutine[object, object, list[Check]]]

EPILOG = """\b
Examples:
  loadbench doctor
  loadbench doctor -e http://gpu-box:8000/v1 --streams 2000
  loadbench doctor --json > doctor.json

\b
Exit: 0 fine, warnings included; 1 something makes measuring impossible.
"""
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red bold"}


@click.command(epilog=EPILOG, short_help="What works here, and what this client can measure.")
@click.option("-e", "--endpoint", metavar="URL", help="Look at this server alone.  [default: all that are found here]")
@click.option(
    "--streams", default=512, type=click.IntRange(1), metavar="N", show_default=True, help="Streams you want to open."
)
@click.option("--api-key-env", metavar="NAME", help="Variable that holds the key of the server given with -e.")
@click.option("--api-key-file", metavar="FILE", help="File with that key alone in it.")
@click.option("--ca-file", callback=certificates, metavar="FILE", help="Certificate authorities to trust (PEM).")
@click.option("--insecure", is_flag=True, help="Trust any certificate.")
@click.option("--quick", is_flag=True, help="Leave out the self-test, 3 seconds against the simulator.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(
    endpoint: str | None,
    streams: int,
    api_key_env: str | None,
    api_key_file: str | None,
    ca_file: str | None,
    insecure: bool,
    quick: bool,
    as_json: bool,
) -> None:
    """Look at this machine, the servers on it, and the client itself.

    Each row is ok, warn or fail, and says what to do. The self-test measures a server whose timing is known, so that
    you see how far this client's figures can be trusted here.
    """
    from loadbench.cli import checks, reach
    from loadbench.cli.harmless import harmless
    from loadbench.runner import connect
    from loadbench.server import normalise

    key = connect.key(api_key_env, api_key_file) if api_key_env or api_key_file else None
    for warning in connect.warnings(endpoint, api_key_file, insecure=insecure):
        reach.note(warning)
    servers: Servers = checks.servers
    if endpoint is not None:
        endpoint = normalise(endpoint)
        servers = partial(checks.named, endpoint, key=key, ca_file=ca_file, verify=not insecure)
    rows: list[Check] = []
    live = None if as_json else _printer()
    for found in _checks(servers, streams, quick):
        advice = None if found.advice is None else harmless(found.advice)
        check = replace(found, text=harmless(found.text), advice=advice)
        rows.append(check)
        if live is not None:
            live(check)
    failed = any(check.mark == "fail" for check in rows)
    if as_json:
        click.echo(_json(rows, failed))
    sys.exit(1 if failed else 0)


def _checks(servers: Servers, streams: int, quick: bool) -> Iterator[Check]:
    """All checks, quick ones first; the self-test last and alone, so that nothing of ours disturbs it."""
    import asyncio

    from loadbench.cli import checks, selftest

    yield checks.python()
    yield checks.machine()
    yield checks.clock()
    yield checks.event_loop()
    yield checks.files(streams)
    yield checks.extras()
    yield checks.samples()
    yield checks.embedded()
    yield from asyncio.run(servers())
    if not quick:
        yield selftest.check()


def _printer() -> Callable[[Check], None]:
    """Rows as they come: coloured to a person, plain lines to a pipe."""
    if not sys.stdout.isatty():
        return lambda check: click.echo("\n".join(_lines(check)))
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()

    def show(check: Check) -> None:
        row = Table.grid(padding=(0, 2))
        row.add_column(width=4, style=_COLOURS[check.mark])
        row.add_column(width=14, style="bold")
        row.add_column(overflow="fold")
        row.add_row(check.mark, check.name, escape(check.text))
        if check.advice:
            row.add_row("", "", escape(check.advice), style="dim")
        console.print(row)

    return show


def _lines(check: Check) -> Iterator[str]:
    yield f"{check.mark:<4}  {check.name:<14}  {check.text}"
    if check.advice:
        yield f"{'':<22}-> {check.advice}"


def _json(rows: list[Check], failed: bool) -> str:
    import orjson

    from loadbench.cli.harmless import data

    return data({"schema": 1, "ok": not failed, "checks": [asdict(check) for check in rows]}, orjson.OPT_INDENT_2)
