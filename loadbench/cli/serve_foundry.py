"""`loadbench serve foundry`: Foundry Local's own runtime, with the models it is told to load."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from loadbench.cli import reach
from loadbench.cli.serving import announce, local

if TYPE_CHECKING:
    from loadbench.serve.foundry import Runtime
    from loadbench.server import ModelFacts


@click.command(
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
@local
@reach.cache_option
@click.option(
    *("-m", "--model", "names"),
    multiple=True,
    metavar="NAME",
    help="Id or alias; repeat it, or a,b.  [default: the only one that is here]",
)
@reach.variant_options
def foundry(**given: Any) -> None:
    """Foundry Local's own runtime, which needs no service and no command of Microsoft's.

    It loads the models named, of those downloaded or registered, serves them on this machine alone, and unloads them as
    it stops. Needs the extra foundry: pip install -e ".[foundry]" in the clone.
    """
    from loadbench.serve import foundry

    with foundry.start(cache=reach.cache(given), progress=reach.note) as runtime:
        root = runtime.serve(given["port"])  # first: what is listed then has its URL
        served = chosen(runtime.models(), given)
        for facts in served:
            _load(runtime, facts)
        try:
            _announce(runtime, root, served, given)
            runtime.wait()
        except KeyboardInterrupt:
            return


def chosen(models: Sequence[ModelFacts], given: dict[str, Any]) -> list[ModelFacts]:
    """The models to load: those named, else the only one that is on the disk.

    Args:
        given: `names`, `devices`, `execution_provider`, `cache_dir`.
    Raises:
        TargetError: There is none, or no such one, or it is not downloaded, or there are several and none was named.
    """
    from loadbench import server
    from loadbench.errors import TargetError

    names = [part.strip() for name in given["names"] for part in name.split(",") if part.strip()]
    here = tuple(facts for facts in models if facts.cached)
    if not names and not here:
        raise TargetError(
            f"no model is in {reach.cache(given)}: download one with `loadbench models pull NAME`, or register one of "
            "your own with `loadbench models register PATH`"
        )
    there = server.Target(reach.SDK, "foundry2", models=tuple(models) if names else here)
    devices, provider = given["devices"] or (), given["execution_provider"]
    choice = server.choose(there, names or "auto", devices=devices, execution_provider=provider)
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
        reach.note(f"Warning: {warning}")
    runtime.load(facts.id)


def _announce(runtime: Runtime, root: str, served: Sequence[ModelFacts], given: dict[str, Any]) -> None:
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
    announce(facts, f"{names} on Foundry Local's runtime, SDK {runtime.version}", given["as_json"])
    for each in served if not given["as_json"] else ():
        if urls[each.id] != url:
            reach.note(f"{each.id} answers at {urls[each.id]}, where `loadbench run` finds it by itself")
