"""The run folder's beginning: what run.json says of a run from its start, and what a run that goes on takes from it."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

from msgspec import structs

from loadbench import prompts, scenario, telemetry
from loadbench import server as targets
from loadbench.client import Parameters
from loadbench.engine import process
from loadbench.errors import TargetError, UsageError
from loadbench.prompts import Prompt
from loadbench.runner.job import Job, Search
from loadbench.scenario import Scenario
from loadbench.scenario.bounds import Duration
from loadbench.scenario.files import home
from loadbench.server import Choice, Found, Target, lookup
from loadbench.store.files import cannot_write, hlog_works, read_info, utc_now, write_atomically
from loadbench.text import NOT_STORED, not_stored, starred, stored_body, stored_header
from loadbench.transport import reader_place

PROMPTS = "prompts.json"
_MOST_IN_A_SECOND = 1000


def new(name: str, stack: ExitStack, *, claim: bool) -> Path:
    """Where a run without a folder of its own goes: results/<UTC time>-<its name>, with a number where that is taken.

    Args:
        stack: With it goes the folder, where nothing came into it.
        claim: Make it, so that no other run that begins in this second takes it.

    Raises:
        StoreError: It cannot be made.
    """
    name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{name}"
    path = Path("results") / name
    had_results = os.path.lexists(path.parent)

    def remove_empty(claimed: Path) -> None:
        with suppress(OSError):
            claimed.rmdir()
            if not had_results:
                claimed.parent.rmdir()

    for number in range(2, _MOST_IN_A_SECOND):
        try:
            if claim:
                path.mkdir(parents=True)
                stack.callback(remove_empty, path)
                return path
        except FileExistsError:
            pass
        except OSError as error:
            raise cannot_write(path, error) from error
        if not os.path.lexists(path):
            return path
        path = path.with_name(f"{name}-{number}")
    return path


def info(
    job: Job,
    server: Target,
    how: str,
    choice: Choice,
    parameters: Parameters,
    questions: Sequence[Prompt],
    clock: str,
) -> dict[str, object]:
    """What run.json says from the start. No key, no header that may hold one."""
    settings = job.scenario
    chosen = {one.id for one in choice.chosen}
    models = [facts for facts in server.models if facts.id in chosen]
    source = "the scenario" if settings.prompts else "the built-in set"
    if settings.trace is not None:
        source = settings.trace
    elif settings.input_length is not None:
        source = f"made up, {settings.input_length}"
    elif isinstance(settings.prompts, str):
        source = settings.prompts
    asked = []
    for one in questions:
        question = (one.id, one.messages, *one.turns)
        if one.recipe is not None:
            question += (str(one.recipe),)
        asked.append(question)
    return {
        "name": settings.name,
        "start": utc_now(),
        "command": _command(job.command or sys.argv),
        "versions": telemetry.versions(),
        "scenario": scenario.to_builtins(settings, NOT_STORED),
        "seed": settings.seed,
        "prompts": {
            "count": len(questions),
            "source": source,
            "sha256": hashlib.sha256(repr(asked).encode()).hexdigest(),
            "own_limits": any(one.max_tokens is not None for one in questions),
        },
        "parameters": {**asdict(parameters), "extra_body": stored_body(parameters.extra_body)},
        "target": asdict(replace(server, models=tuple(models))),
        "target_found": how,
        "absent": [asdict(one) for one in choice.absent],
        "environment": telemetry.environment(),
        "clock": clock,
        "reader_place": reader_place() if clock == "thread" else None,
        "event_loop": "uvloop" if process.has_uvloop() else "asyncio",
        "hlog": hlog_works(),
    }


def _command(words: Sequence[str]) -> list[str]:
    """The command line, without what may be a secret in it."""
    shown = ["loadbench"]
    for before, word in pairwise(words):
        option, equals, value = word.partition("=")
        if not equals or not option.startswith("--"):
            option, equals, value = before, "", word
        if option == "--header":
            name, _, text = value.partition(":")
            value = f"{name}: {stored_header(name, text.strip())}"
        elif option == "--extra-body":
            with suppress(ValueError):  # else it is no body, but the word behind a value that is called like the option
                body = json.loads(value)
                stored = stored_body(body)
                if stored != body:  # else as it was typed
                    value = json.dumps(stored)
        if equals:
            value = f"{option}={value}"
        shown.append(starred(value))
    return shown


# -- a run that goes on


def continued(job: Job) -> Job:
    """The job of the run that goes on, its scenario, models, budget and search as they were.

    Args:
        job: Its scenario has the headers and the keys of extra_body that the folder does not store.
    Raises:
        UsageError: The folder holds no such run, or not all that it lacks is given.
    """
    folder = job.resume
    assert folder is not None
    info = read_info(folder)
    command = "run" if info.get("capacity") is None else "capacity"
    if (command == "capacity") != (job.search is not None):
        raise UsageError(f"{folder}: continue it with loadbench {command} --resume, which began it")
    if not isinstance(info.get("scenario"), dict):
        raise UsageError(f"{folder}: its run.json holds no scenario to continue")
    before = scenario.from_json(info["scenario"], str(folder / "run.json"))
    headers, body = job.scenario.headers, job.scenario.extra_body
    again = set(map(str.lower, headers))
    for name, value in list(before.headers.items()):
        if name.lower() in again:
            del before.headers[name]  # or it would be sent twice, in two spellings
        elif value == NOT_STORED:
            raise UsageError(f"{folder}: sent a header {name}, whose value is not stored: give it with --header")
    lacking = not_stored(before.extra_body)
    if not set(lacking) <= set(body):
        raise UsageError(
            f"{folder}: sent {', '.join(lacking)} in extra_body, whose value is not stored: give it with --extra-body"
        )
    if set(body) - set(lacking):
        raise UsageError("--resume takes its plan from the folder: leave out --extra-body, but for what is not stored")
    models = []
    if before.models == "auto" and isinstance(facts := info.get("target"), dict):
        for one in facts.get("models") or ():
            if isinstance(one, dict) and "id" in one:
                models.append(one["id"])
    search = None
    if job.search is not None:
        if not info["capacity"]:
            raise UsageError(f"{folder}: its run.json holds no search to continue")
        first = info["capacity"][0]
        search = Search(by=first["by"], start=first["start"], most=first["most"], within=first["within"])
    budget, budget_s = None, info.get("budget_s")
    if isinstance(budget_s, int | float):
        budget = Duration(budget_s)
    return structs.replace(
        job,
        scenario=scenario.merge(before, headers=headers or None, extra_body=body or None, models=models or None),
        limits=structs.replace(job.limits, budget=budget),
        search=search,
    )


def questions(folder: Path, settings: Scenario) -> list[Prompt]:
    """The prompts that the run began with, whatever became of their file since."""
    kept = folder / PROMPTS
    if kept.exists():
        return prompts.read(kept)
    return prompts.for_scenario(settings)  # the run was killed before it could keep them


def keep_questions(folder: Path, questions: Sequence[Prompt]) -> None:
    """Keep the prompts of a run that begins, or of one that was killed before it could keep them."""
    if not (folder / PROMPTS).exists():
        write_atomically(folder / PROMPTS, prompts.to_json(questions))


def began_as(folder: Path) -> str | None:
    """Whether the run measured a server that loadbench started: `simulator`, `embedded`, `sdk`, or None."""
    how = str(read_info(folder).get("target_found") or "")
    starts = {"the simulator": "simulator", "the embedded": "embedded", "Foundry Local's own": "sdk"}
    for words, name in starts.items():
        if how.startswith(words):
            return name
    return None


def server_of(folder: Path) -> Found | None:
    """Where the run's server was; a Foundry Local service may have moved to another port since."""
    info = read_info(folder)
    server = info.get("target") or {}
    if str(server.get("kind") or "").startswith("foundry"):
        found = targets.discover(os.environ, home())
        if found is not None and found.how != targets.OPENAI:
            return found
    url = server.get("base_url")
    if not url:
        return None
    how = info.get("target_found")
    if how == lookup.HOW:
        return Found(url, lookup.HOW)  # such a server got no API_KEY, nor does it now
    if how == targets.OPENAI and targets.named_by(targets.OPENAI, os.environ) == url:
        return Found(url, targets.OPENAI)  # and so OPENAI_API_KEY is its key
    return Found(url, "as the run began")


def check_servers(folder: Path, servers: Sequence[Target]) -> None:
    """Refuse to go on with another kind of server than the run began with.

    Raises:
        TargetError: If one of them is another one.
    """
    info = read_info(folder)
    began = info.get("endpoints") or [info.get("target") or {}]
    for server, before in zip(servers, began, strict=False):
        kind = before.get("kind")
        if kind is not None and kind != server.kind:
            raise TargetError(
                f"{server.base_url} is now {server.kind}, the run in {folder} began with {kind}: start that one again, "
                "or begin a new run"
            )


def complete(folder: Path) -> set[str]:
    """Ids of the levels that need not be done again."""
    return {level["id"] for level in read_info(folder)["levels"] if level["status"] == "complete"}
