"""The models of a server, or of Foundry Local's SDK: which one a command asks, what it lists, whether models answer."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import anyio
import click

from loadbench import server as targets
from loadbench.cli.job import server_text, with_key
from loadbench.cli.probe import Stage, figures, on_stage
from loadbench.cli.surroundings import data, note
from loadbench.errors import LoadbenchError, TargetError
from loadbench.report import text
from loadbench.report.document import Cell, Column, Table
from loadbench.runner import connect
from loadbench.runner.job import Job
from loadbench.scenario.files import home
from loadbench.serve import foundry
from loadbench.serve.foundry import Runtime
from loadbench.server import VENDORS, Chosen, Found, Http, ModelFacts, Target
from loadbench.text import ABSENT, count, harmless, size, span

SDK = "Foundry Local's SDK"
_NO_SERVER = "no server was named or found"


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a command on models; those that it does not have keep their defaults."""

    job: Job
    as_json: bool
    names: tuple[str, ...] = ()
    cached: bool = False
    everything: bool = False
    yes: bool = False

    @property
    def devices(self) -> Sequence[str]:
        """In lower case; empty for any."""
        return self.job.scenario.device or ()

    @property
    def cache(self) -> Path:
        """Where the SDK keeps its models."""
        return connect.cache_folder(self.job.server)


# -- whom a command asks


def find(options: Options) -> Found | None:
    """The server to ask: the one that is named, else a Foundry Local service; None where there is neither."""
    scenario = options.job.scenario
    found = Found(scenario.endpoints[0], "as given") if scenario.endpoint else targets.discover(os.environ, home())
    return None if found is None else Found(found.endpoint, with_key(found.how, scenario))


@asynccontextmanager
async def opened(found: Found, options: Options) -> AsyncIterator[tuple[Target, Http]]:
    """The server that answers there, and the client for control calls."""
    scenario, server = options.job.scenario, options.job.server
    for warning in connect.warnings(found.endpoint, scenario.api_key_file, insecure=server.insecure):
        note(warning)
    async with targets.open_http(
        found.endpoint,
        verify=not server.insecure,
        ca_file=server.ca_file,
        headers=scenario.headers,
        key=connect.key(scenario.api_key_env, scenario.api_key_file),
    ) as http:
        target = await targets.wait(found.endpoint, http=http, wait_s=float(server.wait or 0.0), waiting=note)
        yield target, http


@contextmanager
def sdk(options: Options, why: str = _NO_SERVER) -> Iterator[Runtime]:
    """Foundry Local's runtime in a child process.

    Args:
        why: It takes the SDK.
    """
    if reason := foundry.available():
        raise LoadbenchError(f"{why}, and {SDK} is not at hand ({reason}): name a server with -e URL, or install it")
    with foundry.start(cache=options.cache, progress=note) as runtime:
        yield runtime


def listed(runtime: Runtime, options: Options) -> Target:
    """The SDK's models, as a server would list them; a line says where they are from. Blocks: 4 s where offline."""
    models = tuple(runtime.models())
    target = Target(SDK, "foundry2", runtime.version, models=models, pid=runtime.pid, is_ours=True)
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
            if VENDORS[target.kind].lists_catalogue and options.job.scenario.endpoint is None:
                return None
            tell(target, found.how, options)
            return await on_server(target, http, options)

    found, why = find(options), _NO_SERVER
    if found is not None:
        ok = anyio.run(served, found)
        if ok is not None:
            return ok
        why = f"the service at {found.endpoint} {action} nothing over HTTP"
    with sdk(options, why) as runtime:
        return anyio.run(by_sdk, runtime, listed(runtime, options), options)


def choose(target: Target, options: Options) -> tuple[list[ModelFacts], bool]:
    """The models that the names, devices and execution provider mean, and whether all names are there."""
    provider = options.job.scenario.execution_provider
    choice = targets.choose(target, options.names, devices=options.devices, execution_provider=provider)
    for one in choice.absent:
        failed(one.name, TargetError(one.reason), options)
    return [one.facts or ModelFacts(one.id) for one in choice.chosen], not choice.absent


def tell(target: Target, how: str, options: Options) -> None:
    if not options.as_json:
        note(server_text(target, how))


def say(document: Mapping[str, object], words: str, options: Options) -> None:
    """Report what was done, to a program or to a person."""
    click.echo(data(document) if options.as_json else harmless(words))


def failed(model: str, error: LoadbenchError, options: Options) -> bool:
    """Report that it failed, in a line on stderr; False, for "all went well"."""
    message = str(error)
    if options.as_json:
        click.echo(data({"model": model, "error": message}))
    note(f"loadbench: {message}" if model in message else f"loadbench: {model}: {message}")
    return False


# -- the list

_HEADS = ("alias", "id", "device", "provider", "size", "licence", "context", "quantisation", "cached", "loaded")
_RIGHT = ("size", "context")
_MARKS = {True: "yes", False: "no", None: ABSENT}


def show(options: Options) -> None:
    """List the models on stdout."""

    async def ask(found: Found) -> Target:
        async with opened(found, options) as (target, _):
            tell(target, found.how, options)
            return target

    found = find(options)
    if found is None:
        with sdk(options) as runtime:
            target = listed(runtime, options)
    else:
        target = anyio.run(ask, found)
    models = rows(target.models, devices=options.devices, cached=options.cached)
    if options.as_json:
        click.echo(data([asdict(facts) for facts in models], indent=True))
    if not target.models:
        raise LoadbenchError(empty(target))
    if VENDORS[target.kind].lists_catalogue and all(facts.cached or facts.base_url for facts in target.models):
        note(
            "the catalogue lists nothing to download: is this machine offline? What is cached or registered works all "
            "the same"
        )
    if not models:
        note(f"none of the {len(target.models)} models is so; leave out --cached or --device")
    elif not options.as_json:
        _print([cells(facts) for facts in models])


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
    return facts.aliases[0] if facts.aliases else facts.id


def cells(facts: ModelFacts) -> list[str]:
    """A row of the table, in the order of its columns."""
    values = (
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
    return [harmless(value) for value in values]


def _print(texts: Sequence[Sequence[str]]) -> None:
    """To a pipe in plain columns; to a person in columns that fit the terminal."""
    if not sys.stdout.isatty():
        for line in columns([_HEADS, *texts]):
            click.echo(line)
        return
    # What no model tells has no column: it is named below, so that there is room for the rest.
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
        line = ""
        for head, cell, width in zip(texts[0], row, widths, strict=True):
            line += (cell.rjust(width) if head in _RIGHT else cell.ljust(width)) + "  "
        lines.append(line.rstrip())
    return lines


# -- verify: every target model is listed by the server, and answers

QUESTION = "Say hello."
TOKENS = 8
MOST_TOKENS = 512
"""Of an answer that comes with so few tokens not at all, as after hidden reasoning."""
_LISTED, _ANSWERS = "is listed", "answers"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the list."""

    model: str
    check: str
    ok: bool
    text: str


def verify(job: Job, *, as_json: bool) -> bool:
    """Check the models that a job's scenario asks for; whether all is well."""
    checks: list[Check] = []

    def done(model: str, check: str, ok: bool, words: str) -> None:
        checks.append(Check(model, check, ok, words))
        if not as_json:
            mark = click.style("ok  ", fg="green") if ok else click.style("FAIL", fg="red", bold=True)
            click.echo(f"{mark}  {harmless(model)} {check}: {harmless(words)}")
            sys.stdout.flush()

    async def check_all(stage: Stage) -> bool:
        if not as_json:
            note(stage.whom)
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
                unlisted = stage.reached.server.unlisted or "the server does not list it"
                done(model.name, _LISTED, model.facts is not None, f"as {model.id}" if model.facts else unlisted)
                done(model.name, _ANSWERS, *await _answer(stage, model))
        failures = sum(not check.ok for check in checks)
        if as_json:
            plain = [asdict(check) for check in checks]
            click.echo(data({"ok": not failures, "server": stage.whom, "checks": plain}, indent=True))
        elif failures:
            click.echo(f"{failures} of {len(checks)} checks failed")
        else:
            click.echo(f"all {len(checks)} checks are ok")
        return not failures

    return on_stage(job, check_all)


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
    return True, f"{loaded}TTFT {span(figures(result)['ttft_ms'])}: {answer!r}"
