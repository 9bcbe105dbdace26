"""`loadbench models list`: the models of a server or of Foundry Local's catalogue, as a table or as JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict

import anyio
import click
import orjson

from loadbench.cli import reach
from loadbench.cli.harmless import data, harmless
from loadbench.cli.models import Options, service
from loadbench.errors import LoadbenchError
from loadbench.server import VENDORS, Found, ModelFacts, Target
from loadbench.text import ABSENT, count, size

_HEADS = ("alias", "id", "device", "provider", "size", "licence", "context", "quantisation", "cached", "loaded")
_RIGHT = ("size", "context")
_MARKS = {True: "yes", False: "no", None: ABSENT}


def show(options: Options) -> None:
    """List the models on stdout.

    Raises:
        LoadbenchError: There is nothing to list.
    """
    found = service.find(options)
    if found is None:
        with service.sdk(options) as runtime:
            target = service.listed(runtime, options)
    else:
        target = anyio.run(_ask, found, options)
    models = rows(target.models, devices=options.devices or (), cached=options.cached)
    if options.as_json:
        click.echo(data([asdict(facts) for facts in models], orjson.OPT_INDENT_2))
    if not target.models:
        raise LoadbenchError(empty(target))
    if VENDORS[target.kind].lists_catalogue and all(facts.cached or facts.base_url for facts in target.models):
        reach.note(
            "the catalogue lists nothing to download: is this machine offline? What is cached or registered works all "
            "the same"
        )
    if not models:
        reach.note(f"none of the {len(target.models)} models is so; leave out --cached or --device")
    elif not options.as_json:
        _print([cells(facts) for facts in models])


async def _ask(found: Found, options: Options) -> Target:
    async with service.opened(found, options) as (target, _):
        service.tell(target, found.how, options)
        return target


def empty(target: Target) -> str:
    """Why there is nothing to list, and what to do."""
    if VENDORS[target.kind].lists_catalogue:
        return (
            f"{target.base_url} lists no model, as its catalogue cannot be reached from here: go online, or register a "
            "model of your own with `loadbench models register PATH`"
        )
    if target.unlisted is not None:
        return f"{target.unlisted}: it shows no list of models; `loadbench probe -m MODEL` asks one by its name"
    return f"{target.base_url} lists no model: load or pull one there"


def rows(models: Iterable[ModelFacts], *, devices: Sequence[str] = (), cached: bool = False) -> list[ModelFacts]:
    """The models to show: loaded ones first, then cached ones, each by alias.

    Args:
        devices: Only for these, in lower case; empty for all.
        cached: Only what is on the disk, as all that is loaded is.
    """
    shown = []
    for facts in models:
        on_disk = facts.cached or (facts.cached is None and facts.loaded)
        for_device = not devices or set(devices) & set((facts.device or "").lower().split("+"))
        if for_device and (on_disk or not cached):
            shown.append(facts)
    return sorted(shown, key=lambda facts: (not facts.loaded, not facts.cached, alias(facts).lower(), facts.id))


def alias(facts: ModelFacts) -> str:
    """What people call it."""
    return facts.aliases[0] if facts.aliases else facts.id


def cells(facts: ModelFacts) -> list[str]:
    """A row of the table, in the order of its columns."""
    texts = (
        facts.aliases[0] if facts.aliases else ABSENT,
        facts.id,
        facts.device or ABSENT,
        (facts.execution_provider or ABSENT).removesuffix("ExecutionProvider"),
        size(facts.size_bytes),
        facts.licence or ABSENT,
        count(facts.context),
        facts.quantization or ABSENT,
        _MARKS[facts.cached],
        _MARKS[facts.loaded],
    )
    return [harmless(text) for text in texts]


def _print(texts: Sequence[Sequence[str]]) -> None:
    """To a pipe in plain columns; to a person in columns that fit the terminal.

    What no model tells has no column on a terminal: it is named below, so that there is room for the rest.
    """
    if not sys.stdout.isatty():
        for line in columns([_HEADS, *texts]):
            click.echo(line)
        return
    from loadbench.report import text
    from loadbench.report.document import Cell, Column, Table

    untold = [name for i, name in enumerate(_HEADS) if all(row[i] == ABSENT for row in texts)]
    shown = [i for i, name in enumerate(_HEADS) if name not in untold]
    heads = tuple(Column(_HEADS[i], left=_HEADS[i] not in _RIGHT) for i in shown)
    table_rows = tuple(tuple(Cell(row[i]) for i in shown) for row in texts)
    notes = (f"not told: {', '.join(untold)}",) if untold else ()
    text.show_tables([Table("", heads, table_rows, notes)], text.console(sys.stdout))


def columns(texts: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines, two spaces between columns; numbers stand right.

    >>> columns([["a", "b"], ["1", "22"]])
    ['a  b', '1  22']
    """
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = []
    for row in texts:
        padded = [
            text.rjust(width) if head in _RIGHT else text.ljust(width)
            for head, text, width in zip(texts[0], row, widths, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return lines
