"""`loadbench models`: which models are here; bring, load, check and remove them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from loadbench.cli import reach
from loadbench.cli.options import HeadedCommand, scenario_file, under
from loadbench.cli.probe import model_option, wanted

_models, _output = under("Models"), under("Output")
_json = _output("--json", "as_json", is_flag=True, variable=False, help="One JSON object a line.")
_names = click.argument("names", metavar="NAMES", nargs=-1, required=True)

EXITS = """\b
Exit: 0 fine, 1 no server, no such model or it failed, 2 arguments,
130 interrupted.
"""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a command; those that it does not have keep their defaults."""

    as_json: bool
    endpoint: str | None = None
    wait_for: float | None = None
    api_key_env: str | None = None
    api_key_file: str | None = None
    headers: Mapping[str, str] | None = None
    ca_file: str | None = None
    insecure: bool = False
    cache_dir: Path | None = None
    names: tuple[str, ...] = ()
    devices: Sequence[str] | None = None
    execution_provider: str | None = None
    cached: bool = False
    everything: bool = False
    yes: bool = False

    @property
    def cache(self) -> Path:
        """Where the SDK keeps its models."""
        return reach.cache({"cache_dir": self.cache_dir})


@click.group(
    short_help="Models: list, pull, load, unload, remove, register, verify.",
    epilog="""\b
Examples:
  loadbench models list --cached
  loadbench models pull phi-4-mini --device cpu
  loadbench models load phi-4-mini
  loadbench models verify scenarios/summarizer.toml
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
    cls=HeadedCommand,
    short_help="Models with device, size, licence and state.",
    epilog="""\b
Examples:
  loadbench models list                   the whole catalogue
  loadbench models list --cached --device npu
  loadbench models list -e http://localhost:11434 --json
""",
)
@reach.server_options
@reach.cache_option
@_models("--cached", is_flag=True, variable=False, help="Only what is on the disk already.")
@reach.device_option
@_output("--json", "as_json", is_flag=True, variable=False, help="One JSON array, an object per model.")
def list_models(**options: Any) -> None:
    """List models: alias, id, device, execution provider, size, licence, context, quantisation, cached, loaded.

    Loaded ones come first, then those on the disk. "-" stands for what the server does not tell.
    """
    from loadbench.cli.models import listing

    listing.show(Options(**options))


@models.command(
    cls=HeadedCommand,
    short_help="Download models.",
    epilog=f"""\b
Examples:
  loadbench models pull qwen2.5-0.5b
  loadbench models pull phi-4-mini --device gpu --ep cuda
  loadbench models pull qwen3:0.6b -e http://localhost:11434

{EXITS}""",
)
@_names
@reach.server_options
@reach.cache_option
@reach.variant_options
@_json
def pull(**options: Any) -> None:
    """Download models into Foundry Local's cache, or onto an Ollama server.

    Free disk space is looked at first. A download that stalls or breaks is tried again, after a growing pause; Ctrl-C
    ends it and leaves no half model. What is there already is not fetched again.
    """
    from loadbench.cli.models import download

    reach.finish(download.pull(Options(**options)))


@models.command(
    cls=HeadedCommand,
    short_help="Load models into the server's memory.",
    epilog=f"""\b
Examples:
  loadbench models load phi-4-mini
  loadbench models load phi-4-mini --device gpu -e http://127.0.0.1:5273

{EXITS}""",
)
@_names
@reach.server_options
@reach.variant_options
@_json
def load(**options: Any) -> None:
    """Load models, with how long that takes and what memory it costs.

    Models load into a running service: `loadbench serve foundry -m NAME` starts one.
    """
    from loadbench.cli.models import changes

    reach.finish(changes.load_or_unload(Options(**options), load=True))


@models.command(
    cls=HeadedCommand,
    short_help="Unload models from the server's memory.",
    epilog=f"""\b
Examples:
  loadbench models unload phi-4-mini
  loadbench models unload --all

{EXITS}""",
)
@click.argument("names", metavar="[NAMES]", nargs=-1)
@_models("--all", "everything", is_flag=True, variable=False, help="All that are loaded.")
@reach.server_options
@_json
def unload(**options: Any) -> None:
    """Unload models, with the memory that gives back."""
    if options["everything"] == bool(options["names"]):
        raise click.UsageError("name the models to unload, or all with --all", click.get_current_context())
    from loadbench.cli.models import changes

    reach.finish(changes.load_or_unload(Options(**options), load=False))


@models.command(
    cls=HeadedCommand,
    short_help="Delete models from the disk.",
    epilog=f"""\b
Examples:
  loadbench models remove phi-4-mini --device gpu
  loadbench models remove my-model --yes

{EXITS}""",
)
@_names
@_models("-y", "--yes", is_flag=True, variable=False, help="Do not ask first.")
@reach.server_options
@reach.cache_option
@reach.variant_options
@_json
def remove(**options: Any) -> None:
    """Delete models from the disk; a registered one is forgotten, and its files stay.

    Asks first. Where nobody can be asked, in a pipe or a script, it wants --yes.
    """
    from loadbench.cli.models import changes

    reach.finish(changes.remove(Options(**options)))


@models.command(
    cls=HeadedCommand,
    short_help="Give Foundry Local a model of your own.",
    epilog=f"""\b
Examples:
  loadbench models register models/my-model-cpu
  loadbench models register models/my-model-cpu --name my-model

{EXITS}""",
)
@click.argument("path", metavar="PATH", type=click.Path(path_type=Path))
@_models("--name", metavar="NAME", variable=False, help="To call it.  [default: the folder's name]")
@_models(
    "--reasoning",
    nargs=2,
    metavar="START END",
    variable=False,
    help="Texts around its thoughts, as '<think>' '</think>'.",
)
@reach.cache_option
@_json
def register(path: Path, name: str | None, reasoning: tuple[str, str] | None, **options: Any) -> None:
    """Register the folder of an ONNX model (with its genai_config.json) in Foundry Local's local catalogue.

    The thoughts of a reasoning model are streamed where --reasoning tells them; else Foundry Local counts them alone.
    Its files stay where they are. `loadbench serve foundry -m NAME` serves it, `loadbench run` measures it then.
    """
    from loadbench.cli.models import changes

    changes.register(path, name, reasoning, Options(**options))


@models.command(
    cls=HeadedCommand,
    short_help="Check that every target model is there and answers.",
    epilog="""\b
Examples:
  loadbench models verify                 the models at hand
  loadbench models verify -m phi-4-mini,qwen2.5-0.5b
  loadbench models verify scenarios/summarizer.toml --json

\b
Exit: 0 all are fine, 1 no server, 2 arguments or files, 3 a check failed,
130 interrupted.
""",
)
@click.argument("scenario_file", metavar="[SCENARIO]", required=False, callback=scenario_file)
@reach.server_options
@reach.cache_option
@model_option
@reach.variant_options
@_output("--json", "as_json", is_flag=True, variable=False, help="One JSON object with all checks.")
def verify(**given: Any) -> None:
    """Check that the server lists every target model, and that each answers a short chat.

    The target models are those of -m, else those of SCENARIO, else those that are loaded or on the disk. A model that
    is not loaded is loaded first, where the server allows it, and unloaded again.
    """
    from loadbench import scenario
    from loadbench.cli.models import listing

    path = given["scenario_file"]
    asked = wanted(given, None if path is None else scenario.read(path), max_tokens=listing.TOKENS)
    reach.finish(listing.verify(reach.job(asked, given), as_json=given["as_json"]), or_else=3)
