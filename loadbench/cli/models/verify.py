"""`loadbench models verify`: every target model is listed by the server, and answers."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import Any

import anyio
import click
import orjson

from loadbench.cli import chat, reach
from loadbench.cli.chat import Stage
from loadbench.cli.harmless import data, harmless
from loadbench.errors import TargetError
from loadbench.runner.connect import Location
from loadbench.runner.job import Job
from loadbench.scenario import Scenario
from loadbench.server import Chosen
from loadbench.text import span

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


def verify(asked: Scenario, given: dict[str, Any]) -> bool:
    """Check the models that a scenario asks for; whether all is well.

    Raises:
        LoadbenchError: There is no server.
    """
    job = reach.job(asked, given)
    with chat.opened(job) as location:
        return anyio.run(_verify, location, job, given)


async def _verify(location: Location, job: Job, given: dict[str, Any]) -> bool:
    asked = job.scenario
    checks: list[Check] = []

    def done(model: str, check: str, ok: bool, text: str) -> None:
        checks.append(Check(model, check, ok, text))
        if not given["as_json"]:
            _print(checks[-1])

    async with chat.stage(location, job) as stage:
        server = reach.told(stage.server, stage.how)
        reach.tell(stage.server, stage.how, given)
        wanted = asked.models
        names = [None] if wanted == "auto" else [wanted] if isinstance(wanted, str) else wanted
        for name in names:
            try:
                choice = stage.reached.chosen("auto" if name is None else [name], asked)
            except TargetError as error:
                done(name or "auto", _LISTED, False, str(error))
                continue
            for absent in choice.absent:
                done(absent.name, _LISTED, False, absent.reason)
            for model in choice.chosen:
                unlisted = stage.server.unlisted or "the server does not list it"
                done(model.name, _LISTED, model.facts is not None, f"as {model.id}" if model.facts else unlisted)
                done(model.name, _ANSWERS, *await _answer(stage, model))
    ok = all(check.ok for check in checks)
    if given["as_json"]:
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
    said = " ".join((reasoning + result.text).split())
    return True, f"{loaded}TTFT {span(chat.figures(result)['ttft_ms'])}: {said!r}"


def _print(check: Check) -> None:
    mark = click.style("ok  ", fg="green") if check.ok else click.style("FAIL", fg="red", bold=True)
    click.echo(f"{mark}  {harmless(check.model)} {check.check}: {harmless(check.text)}")
    sys.stdout.flush()
