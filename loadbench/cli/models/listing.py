"""`loadbench models list` and `verify`: which models there are, and whether those of a scenario answer."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import anyio
import click
import orjson

from loadbench.cli import chat, reach
from loadbench.cli.chat import Stage
from loadbench.cli.harmless import data, harmless
from loadbench.cli.models import Options, service
from loadbench.errors import LoadbenchError, TargetError
from loadbench.runner.connect import Location
from loadbench.runner.job import Job
from loadbench.server import VENDORS, Chosen, Found, ModelFacts, Target
from loadbench.text import ABSENT, count, size, span

QUESTION = "Say hello."
TOKENS = 8
MOST_TOKENS = 512
"""Of an answer that comes with so few tokens not at all, as after hidden reasoning."""
_LISTED, _ANSWERS = "is listed", "answers"
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


# -- verify: every target model is listed by the server, and answers


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the list."""

    model: str
    check: str
    ok: bool
    text: str


def verify(job: Job, *, as_json: bool) -> bool:
    """Check the models that a job's scenario asks for; whether all is well.

    Raises:
        LoadbenchError: There is no server.
    """
    with chat.opened(job) as location:
        return anyio.run(_verify, location, job, as_json)


async def _verify(location: Location, job: Job, as_json: bool) -> bool:
    checks: list[Check] = []

    def done(model: str, check: str, ok: bool, text: str) -> None:
        checks.append(Check(model, check, ok, text))
        if not as_json:
            _print_check(checks[-1])

    async with chat.stage(location, job) as stage:
        server = reach.told(stage.server, stage.how)
        if not as_json:
            reach.note(server)
        models = job.scenario.models
        for name in [models] if isinstance(models, str) else models:
            try:
                choice = stage.reached.chosen("auto" if models == "auto" else [name], job.scenario)
            except TargetError as error:
                done(name, _LISTED, False, str(error))
                continue
            for absent in choice.absent:
                done(absent.name, _LISTED, False, absent.reason)
            for model in choice.chosen:
                unlisted = stage.server.unlisted or "the server does not list it"
                done(model.name, _LISTED, model.facts is not None, f"as {model.id}" if model.facts else unlisted)
                done(model.name, _ANSWERS, *await _answer(stage, model))
    ok = all(check.ok for check in checks)
    if as_json:
        document = {"ok": ok, "server": server, "checks": [asdict(check) for check in checks]}
        click.echo(data(document, orjson.OPT_INDENT_2))
    else:
        failed = sum(not check.ok for check in checks)
        click.echo(f"{failed} of {len(checks)} checks failed" if failed else f"all {len(checks)} checks are ok")
    return ok


async def _answer(stage: Stage, model: Chosen) -> tuple[bool, str]:
    """Whether the model answers a short chat, and what it said or what went wrong."""
    try:
        async with stage.loaded(model) as load_s:
            result, reasoning = await stage.ask(model, QUESTION)
            if result.error in ("empty", "http_4xx"):
                again, reasoning = await stage.ask(model, QUESTION, max_tokens=MOST_TOKENS)
                result = again if again.error is None else result
    except TargetError as error:
        return False, f"it does not load: {error}"
    if result.error is not None:
        return False, f"{result.error}: {result.error_message}"
    loaded = "" if load_s is None else f"loaded in {span(load_s * 1000)}, "
    answer = " ".join((reasoning + result.text).split())
    return True, f"{loaded}TTFT {span(chat.figures(result)['ttft_ms'])}: {answer!r}"


def _print_check(check: Check) -> None:
    mark = click.style("ok  ", fg="green") if check.ok else click.style("FAIL", fg="red", bold=True)
    click.echo(f"{mark}  {harmless(check.model)} {check.check}: {harmless(check.text)}")
    sys.stdout.flush()
