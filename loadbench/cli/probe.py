"""`loadbench probe`: one chat per model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unicodedata import category

import click

from loadbench.cli import reach
from loadbench.cli.harmless import data, harmless
from loadbench.cli.options import LIST, HeadedCommand, under

if TYPE_CHECKING:
    from loadbench.runner.connect import Location
    from loadbench.runner.job import Job
    from loadbench.scenario import Scenario
    from loadbench.server import Chosen

PROMPT = "Explain in two sentences what a load test of a language model finds out."

_models, _what, _output = under("Models"), under("Question"), under("Output")


def model_option(command: reach.Command) -> reach.Command:
    """The option that names models, one or several."""
    option = _models(
        *("-m", "--model", "models"),
        multiple=True,
        type=LIST,
        metavar="MODEL",
        workshop="BENCH_MODELS",
        help="To ask; repeat it, or a,b.  [default: auto]",
    )
    return option(command)


@click.command(
    cls=HeadedCommand,
    short_help="One chat per model: does it answer, and how fast?",
    epilog="""\b
Examples:
  loadbench probe                        the models at hand, one after another
  loadbench probe -m phi-4-mini --device gpu
  loadbench probe -e http://gpu-box:8000/v1 --prompt "Why is the sky blue?"
  loadbench probe --json

\b
Exit: 0 all answered, 1 one did not, or there is none, 2 arguments,
130 interrupted.
""",
)
@reach.server_options
@reach.cache_option
@model_option
@reach.variant_options
@_what("--prompt", metavar="TEXT", default=PROMPT, help="Ask this.", workshop="BENCH_PROMPT")
@_what(
    "--max-tokens",
    type=click.IntRange(1),
    default=64,
    metavar="N",
    show_default=True,
    help="Most tokens of an answer.",
    workshop="BENCH_MAX_TOKENS",
)
@_what(
    "--temperature",
    type=float,
    default=0.0,
    metavar="T",
    help="0 for answers that repeat.",
    workshop="BENCH_TEMPERATURE",
)
@_output("--json", "as_json", is_flag=True, variable=False, help="One JSON object a line, one per model.")
def probe(**given: Any) -> None:
    """Ask each model one question and show its answer as it comes.

    Below the answer stand the time to first token (TTFT), the tokens and their speed after the first one, and the time
    of the whole answer (E2E), got as in a run. One request says that a model works, not how fast it is: for that,
    measure it with `loadbench run`. A model that is not loaded is loaded first, where the server allows it, and
    unloaded again.
    """
    import anyio

    from loadbench.cli import chat

    asked = wanted(given, max_tokens=given["max_tokens"], temperature=given["temperature"])
    job = reach.job(asked, given)
    with chat.opened(job) as location:
        ok = anyio.run(_probe, location, job, given)
    reach.finish(ok)


def wanted(given: dict[str, Any], scenario: Scenario | None = None, **settings: Any) -> Scenario:
    """A scenario that asks for the models, the variants and the server of the options, else for its own."""
    from loadbench import scenario as scenarios

    names = [name.strip() for part in given["models"] for name in part.split(",") if name.strip()]
    automatic = [name.lower() for name in names] in (["auto"], ["all"])
    return scenarios.merge(
        scenario or scenarios.Scenario(),
        models="auto" if automatic else names or None,
        endpoint=given["endpoint"],
        device=given["devices"],
        execution_provider=given["execution_provider"],
        headers=given["headers"],
        api_key_env=given["api_key_env"],
        api_key_file=given["api_key_file"],
        concurrency=[1],
        **settings,
    )


async def _probe(location: Location, job: Job, given: dict[str, Any]) -> bool:
    """Ask all; whether all answered."""
    from loadbench.cli import chat

    ok = True
    async with chat.stage(location, job) as stage:
        reach.tell(stage.server, stage.how, given)
        choice = stage.reached.choose(job.scenario)
        for absent in choice.absent:
            ok = False
            _say(given, {"model": absent.name, "device": absent.device, **_failed("absent", absent.reason)})
        for model in choice.chosen:
            said = await _one(stage, model, given)
            ok = ok and said["error"] is None
    return ok


async def _one(stage: Any, model: Chosen, given: dict[str, Any]) -> dict[str, Any]:
    from loadbench.cli.chat import figures
    from loadbench.errors import TargetError

    facts = model.facts
    said = {
        "model": model.id,
        "name": model.name,
        "device": facts.device if facts else None,
        "execution_provider": facts.execution_provider if facts else None,
        "load_s": None,
        "reasoning": "",
        "answer": "",
    }
    if not given["as_json"]:
        click.secho(harmless(model.id), bold=True)
    try:
        async with stage.loaded(model) as load_s:
            result, reasoning = await stage.ask(model, given["prompt"], None if given["as_json"] else _show)
    except TargetError as error:
        said |= _failed("load", str(error))
    else:
        load_s = None if load_s is None else round(load_s, 3)
        said |= {"load_s": load_s, "reasoning": reasoning, "answer": result.text, **figures(result)}
        if not given["as_json"] and (reasoning or result.text):
            click.echo()
    _say(given, said)
    return said


def _failed(kind: str, message: str) -> dict[str, Any]:
    return {"error": kind, "error_message": message}


_KEPT = "\n\t\u200c\u200d"  # line ends; and what joins and parts letters in Persian, and emoji
_SPACES = {"Zs": " ", "Zl": "\n", "Zp": "\n"}


def _show(text: str) -> None:
    """A piece of an answer: with its line ends and spaces of all kinds, without what could move the cursor."""
    signs = (sign if sign.isprintable() or sign in _KEPT else _SPACES.get(category(sign), "") for sign in text)
    click.echo("".join(signs), nl=False)


def _say(given: dict[str, Any], said: dict[str, Any]) -> None:
    """What came of one model: a JSON line, or a line of figures."""
    if given["as_json"]:
        click.echo(data(said))
    elif said["error"] is not None:
        model, error, message = said["model"], said["error"], said["error_message"]
        what = "" if error in ("absent", "load") else f"{error}: "
        reach.note(f"loadbench: {message}" if model in message else f"loadbench: {model}: {what}{message}")
    else:
        click.echo(f"{line(said)}\n")


def line(said: dict[str, Any]) -> str:
    """The figures of one chat in words."""
    from loadbench.text import figure, plural, span

    tokens = plural(said["output_tokens"], "token") + (" (estimated)" if said["token_source"] == "events" else "")
    words = [f"TTFT {span(said['ttft_ms'])}", tokens]
    if said["tokens_per_s"] is not None:
        words.append(f"{figure(said['tokens_per_s'])} tokens/s after the first")
    return ", ".join([*words, f"E2E {span(said['e2e_ms'])}"])
