"""`loadbench models`: which models are here; bring, load, check and remove them."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path

import anyio
import anyio.to_thread
import click

from loadbench import scenario, telemetry
from loadbench import server as targets
from loadbench.cli import catalogue, download
from loadbench.cli.catalogue import Options, alias, choose, failed, find, on_server_or_sdk, opened, say, sdk, show, tell
from loadbench.cli.job import Values, chat_job
from loadbench.cli.options import PATH, Group, scenario_file, under
from loadbench.cli.probe import SERVER, VARIANT, server_options
from loadbench.cli.surroundings import note
from loadbench.errors import FAILED, LoadbenchError, TargetError, UsageError
from loadbench.runner.watch import Watched
from loadbench.serve import foundry
from loadbench.serve.foundry import Runtime
from loadbench.server import VENDORS, Control, Http, ModelFacts, Target
from loadbench.server.foundry import OtherVariant
from loadbench.text import size, span

_models, _output = under("Models"), under("Output")
_json = _output("--json", "as_json", is_flag=True, help="One JSON object a line.")
_names = click.argument("names", metavar="NAMES", nargs=-1, required=True)

_EXITS = """\b
Exit: 0 fine, 1 no server, no such model or it failed, 2 arguments,
130 interrupted.
"""


def _options(values: Values) -> Options:
    own = {name: values[name] for name in ("names", "as_json", "cached", "everything", "yes") if name in values}
    return Options(chat_job(values), **own)


@click.group(
    cls=Group,
    short_help="Models: list, pull, load, unload, remove, register, verify.",
    epilog="""\b
Examples:
  loadbench models list --cached
  loadbench models pull phi-4-mini --device cpu
  loadbench models load phi-4-mini
  loadbench models verify summarizer
""",
)
def models() -> None:
    """Which models are here; bring them, load them, check them, remove them.

    Of the server given with -e, else of the Foundry Local service that is found (FOUNDRY_LOCAL_ENDPOINT first), else of
    Foundry Local's SDK (the extra foundry). NAMES are ids or aliases. An alias may stand for variants
    for several devices: --device and --ep choose one.
    """


@models.command(
    "list",
    short_help="Models with device, size, licence and state.",
    epilog="""\b
Examples:
  loadbench models list                   the whole catalogue
  loadbench models list --cached --device npu
  loadbench models list -e http://localhost:11434 --json
""",
)
@server_options(*SERVER, "cache_dir")
@_models("--cached", is_flag=True, help="Only what is on the disk already.")
@server_options(models=("device",))
@_output("--json", "as_json", is_flag=True, help="One JSON array, an object per model.")
def list_models(**values: object) -> None:
    """List models: alias, id, device, execution provider, size, licence, context, quantisation, cached, loaded.

    Loaded ones come first, then those on the disk. "-" stands for what the server does not tell.
    """
    show(_options(values))


@models.command(
    short_help="Download models.",
    epilog=f"""\b
Examples:
  loadbench models pull qwen2.5-0.5b
  loadbench models pull phi-4-mini --device gpu --ep cuda
  loadbench models pull qwen3:0.6b -e http://localhost:11434

{_EXITS}""",
)
@_names
@server_options(*SERVER, "cache_dir", models=VARIANT)
@_json
def pull(**values: object) -> int:
    """Download models into Foundry Local's cache, or onto an Ollama server.

    Free disk space is looked at first. A download that stalls or breaks is tried again, after a growing pause; Ctrl-C
    ends it and leaves no half model. What is there already is not fetched again.
    """
    return 0 if download.pull(_options(values)) else 1


@models.command(
    short_help="Load models into the server's memory.",
    epilog=f"""\b
Examples:
  loadbench models load phi-4-mini
  loadbench models load phi-4-mini --device gpu -e http://127.0.0.1:5273

{_EXITS}""",
)
@_names
@server_options(*SERVER, models=VARIANT)
@_json
def load(**values: object) -> int:
    """Load models, with how long that takes and what memory it costs.

    Models load into a running service: `loadbench serve foundry -m NAME` starts one.
    """
    return _load_or_unload(_options(values), _load)


@models.command(
    short_help="Unload models from the server's memory.",
    epilog=f"""\b
Examples:
  loadbench models unload phi-4-mini
  loadbench models unload --all

{_EXITS}""",
)
@click.argument("names", metavar="[NAMES]", nargs=-1)
@_models("--all", "everything", is_flag=True, help="All that are loaded.")
@server_options(*SERVER)
@_json
def unload(**values: object) -> int:
    """Unload models, with the memory that gives back."""
    options = _options(values)
    if options.everything == bool(options.names):
        raise click.UsageError("name the models to unload, or all with --all", click.get_current_context())
    return _load_or_unload(options, _unload)


@models.command(
    short_help="Delete models from the disk.",
    epilog=f"""\b
Examples:
  loadbench models remove phi-4-mini --device gpu
  loadbench models remove my-model --yes

{_EXITS}""",
)
@_names
@_models("-y", "--yes", is_flag=True, help="Do not ask first.")
@server_options(*SERVER, "cache_dir", models=VARIANT)
@_json
def remove(**values: object) -> int:
    """Delete models from the disk; a registered one is forgotten, and its files stay.

    Asks first. Where nobody can be asked, in a pipe or a script, it wants --yes.
    """
    options = _options(values)
    if not options.yes and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("remove asks before it deletes, and here is nobody to ask: confirm with --yes")
    return 0 if on_server_or_sdk(options, "deletes", _remove_from_server, _remove_by_sdk) else 1


@models.command(
    short_help="Give Foundry Local a model of your own.",
    epilog=f"""\b
Examples:
  loadbench models register models/my-model-cpu
  loadbench models register models/my-model-cpu --name my-model

{_EXITS}""",
)
@click.argument("path", metavar="PATH", type=PATH)
@_models("--name", metavar="NAME", help="To call it.  [default: the folder's name]")
@_models("--reasoning", nargs=2, metavar="START END", help="Texts around its thoughts, as '<think>' '</think>'.")
@server_options("cache_dir")
@_json
def register(path: Path, name: str | None, reasoning: tuple[str, str] | None, **values: object) -> None:
    """Register the folder of an ONNX model (with its genai_config.json) in Foundry Local's local catalogue.

    The thoughts of a reasoning model are streamed where --reasoning tells them; else Foundry Local counts them alone.
    Its files stay where they are. `loadbench serve foundry -m NAME` serves it, `loadbench run` measures it then.
    """
    if not (path / "genai_config.json").is_file():
        why = "no folder" if path.exists() else "no such folder"
        if path.is_dir():
            why = "no genai_config.json in it"
        raise UsageError(f"{path}: {why}: give the folder of an ONNX model made for onnxruntime-genai")
    if reasoning is not None and not all(reasoning):
        raise UsageError("--reasoning takes two texts, as --reasoning '<think>' '</think>': one of them is empty")
    options = _options(values)
    with sdk(options, "registering takes Foundry Local's SDK") as runtime:
        facts = runtime.register(path.resolve(), name, reasoning)
    say(
        {"action": "register", "path": str(path.resolve()), **asdict(facts)},
        f"{facts.id}: registered; serve it with: loadbench serve foundry -m {alias(facts)}",
        options,
    )


@models.command(
    short_help="Check that every target model is there and answers.",
    epilog="""\b
Examples:
  loadbench models verify                 the models at hand
  loadbench models verify -m phi-4-mini,qwen2.5-0.5b
  loadbench models verify summarizer --json

\b
Exit: 0 all are fine, 1 no server, 2 arguments or files, 3 a check failed,
130 interrupted.
""",
)
@click.argument("scenario_file", metavar="[SCENARIO]", required=False, callback=scenario_file)
@server_options(*SERVER, "cache_dir", models=("models", *VARIANT))
@_output("--json", "as_json", is_flag=True, help="One JSON object with all checks.")
def verify(scenario_file: Path | None, as_json: bool, **values: object) -> int:
    """Check that the server lists every target model, and that each answers a short chat.

    The target models are those of -m, else those of SCENARIO, else those that are loaded or on the disk. A model that
    is not loaded is loaded first, where the server allows it, and unloaded again.
    """
    file = None if scenario_file is None else scenario.read(scenario_file)
    job = chat_job(values, file, max_tokens=catalogue.TOKENS)
    return 0 if catalogue.verify(job, as_json=as_json) else FAILED


# -- load and unload

Report = tuple[dict[str, object], str]
"""What was done, for a program and for a person."""
SETTLE_S = 1.0
"""From an unload to the look at what memory it gave back: allocators and drivers let go a moment later."""


def _load_or_unload(options: Options, change: Callable[[Target, Control, ModelFacts], Awaitable[Report]]) -> int:
    found = find(options)
    if found is None:
        reason = foundry.available()
        start = f"install Foundry Local's SDK ({reason})" if reason else "`loadbench serve foundry -m NAME` starts one"
        raise LoadbenchError(
            f"models load into a running service, and none was found: {start}, or name a server with -e URL"
        )

    async def change_all() -> bool:
        async with opened(found, options) as (server, http):
            tell(server, found.how, options)
            control = targets.control(server, http)
            if control is None:
                raise LoadbenchError(
                    f"{server.base_url} ({server.kind}) offers no loading and unloading over HTTP: it holds what it "
                    "was started with"
                )
            if options.everything:
                models, ok = [facts for facts in server.models if facts.loaded], True
                if not models:
                    note(f"no model is loaded at {server.base_url}")
            else:
                models, ok = choose(server, options)
            for facts in models:
                try:
                    document, words = await change(server, control, facts)
                except OtherVariant as error:
                    variant = options.devices or options.job.scenario.execution_provider
                    advice = ", or leave out --device and --ep" if variant else ""
                    ok = failed(facts.id, TargetError(f"{error}{advice}"), options)
                except TargetError as error:
                    ok = failed(facts.id, error, options)
                else:
                    say(document, words, options)
            return ok

    return 0 if anyio.run(change_all) else 1


async def _load(server: Target, control: Control, facts: ModelFacts) -> Report:
    if facts.loaded:
        return {"model": facts.id, "action": "load", "already": True}, f"{facts.id}: loaded already"
    if (warning := Watched(server).memory_warning(facts)) is not None:
        note(f"Warning: {warning}")
    before_bytes = await _memory_bytes(server)
    note(f"{facts.id}: loading")
    began_s = time.monotonic()
    await control.load(facts)
    load_s = round(time.monotonic() - began_s, 3)
    running = await control.running(facts) or facts
    after_bytes = await _memory_bytes(server)
    document = {
        "model": facts.id,
        "action": "load",
        "already": False,
        "load_s": load_s,
        "device": running.device,
        "execution_provider": running.execution_provider,
        "memory_before_bytes": before_bytes,
        "memory_after_bytes": after_bytes,
    }
    provider = f"({running.execution_provider})" if running.execution_provider else None
    place = " ".join(filter(None, (running.device, provider)))
    words = f"{facts.id}: loaded in {span(load_s * 1000)}" + (f" on {place}" if place else "")
    return document, words + _memory(before_bytes, after_bytes)


async def _unload(server: Target, control: Control, facts: ModelFacts) -> Report:
    if facts.loaded is False:
        return {"model": facts.id, "action": "unload", "already": True}, f"{facts.id}: not loaded"
    before_bytes = await _memory_bytes(server)
    await control.unload(facts)
    if before_bytes is not None:
        await anyio.sleep(SETTLE_S)
    after_bytes = await _memory_bytes(server)
    document = {
        "model": facts.id,
        "action": "unload",
        "already": False,
        "memory_before_bytes": before_bytes,
        "memory_after_bytes": after_bytes,
    }
    return document, f"{facts.id}: unloaded" + _memory(before_bytes, after_bytes)


def _memory(before_bytes: int | None, after_bytes: int | None) -> str:
    if before_bytes is None or after_bytes is None:
        return ""
    return f"; the server's memory: {size(before_bytes)}, now {size(after_bytes)}"


async def _memory_bytes(server: Target) -> int | None:
    """Of the server's processes, where they are on this machine."""

    def look() -> int | None:
        pid = Watched(server).pid
        if pid is None:
            return None
        sampler = telemetry.Sampler(pid)
        try:
            sample = sampler.sample()["server"]
        finally:
            sampler.close()
        return None if sample is None else int(sample["memory_bytes"])

    return await anyio.to_thread.run_sync(look)


# -- remove


async def _remove_from_server(server: Target, http: Http, options: Options) -> bool:
    async def delete(facts: ModelFacts) -> None:
        await VENDORS[server.kind].remove(server, http, facts)

    return await _remove_each(server, delete, options)


async def _remove_by_sdk(runtime: Runtime, target: Target, options: Options) -> bool:
    async def delete(facts: ModelFacts) -> None:
        await anyio.to_thread.run_sync(runtime.remove, facts.id)

    on_disk = tuple(facts for facts in target.models if facts.cached is not False)
    if not on_disk:
        raise LoadbenchError(f"{options.cache} holds no model: there is nothing to remove")
    return await _remove_each(Target(target.base_url, target.kind, models=on_disk), delete, options)


async def _remove_each(target: Target, delete: Callable[[ModelFacts], Awaitable[None]], options: Options) -> bool:
    models, ok = choose(target, options)
    for facts in models:
        question = f"Remove {facts.id} ({size(facts.size_bytes)})?" if facts.size_bytes else f"Remove {facts.id}?"
        if not options.yes and not click.confirm(question, err=True):
            say({"model": facts.id, "action": "remove", "removed": False}, f"{facts.id}: kept", options)
            continue
        try:
            await delete(facts)
        except LoadbenchError as error:
            ok = failed(facts.id, error, options)
        else:
            say({"model": facts.id, "action": "remove", "removed": True}, f"{facts.id}: removed", options)
    return ok
