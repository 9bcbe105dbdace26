"""`loadbench serve adapter`: a model of one's own behind the OpenAI API."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from loadbench.cli.serving import announce, key_of, listening


@click.command(
    short_help="A model of your own: a Python class with load and generate.",
    epilog="""\b
Examples:
  loadbench serve adapter echo --option delay_ms=20 --option words=50
  loadbench serve adapter my_model:MyModel weights/ --option threads=2
  loadbench serve adapter my_model:MyModel weights/ --port 8080 --slots 4
  loadbench run -e http://127.0.0.1:8080 -c 1,2,4      in another terminal
""",
)
@listening
@click.argument("spec")
@click.argument("weights", required=False)
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    help="Given to its load, may be repeated; the value is JSON, or else text.",
)
@click.option("--model", metavar="ID", help="The model id to serve under.  [default: the adapter's own]")
@click.option(
    "--slots",
    default=1,
    show_default=True,
    type=click.IntRange(1, 1024),
    metavar="N",
    help="Answers generated at once; the adapter must be able to.",
)
@click.option(
    "--queue",
    default=256,
    show_default=True,
    type=click.IntRange(0, 65_536),
    metavar="N",
    help="Requests that wait for a slot; more get status 429.",
)
def adapter(as_json: bool, spec: str, weights: str | None, options: tuple[str, ...], **given: Any) -> None:
    """A model of your own behind the OpenAI API, so that it is measured as any other.

    SPEC is module:Class, in this folder or installed, or the name of an adapter that a package brings (echo is
    one). Its load gets WEIGHTS and the options; its generate yields the answer piece by piece. docs/adapter.md
    shows how to write one. It runs in a process of its own, whose output is shown on stderr.
    """
    from loadbench.serve import adapter

    key = key_of(given["host"], given.pop("api_key_env"), given.pop("api_key_file"))
    adapter.serve(
        lambda server: announce(
            asdict(server),
            f"{server.model} by {server.adapter}: {server.slots} slot{'s' * (server.slots > 1)}, "
            f"a queue of {server.queue}",
            as_json,
        ),
        spec,
        weights,
        options=dict(map(adapter.option, options)),
        api_key=key,
        **given,
    )
