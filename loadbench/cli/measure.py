"""A run from the command line: find the target, show the plan, measure, report."""

from __future__ import annotations

import gc
import hashlib
import os
import re
import shlex
import ssl
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import click

from loadbench import metrics, plan, prompts, report, scenario, store, target, telemetry
from loadbench.cli import INTERRUPTED, live, opening, resume
from loadbench.cli.run import NOT_STORED
from loadbench.client import Client, Parameters
from loadbench.errors import LoadbenchError, UsageError
from loadbench.plan import Plan
from loadbench.prompts import Prompt
from loadbench.scenario import Scenario
from loadbench.session import Session, Watch
from loadbench.target import ModelFacts, Target
from loadbench.transport import StockTransport, Transport, tls_context

_SECRET = re.compile(r"auth|key|token|secret|cookie|password", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the server is.

    Attributes:
        endpoint: As a person would write it; None for a server that we start only for a real run.
        how: How it was found, in words.
        models: What it will serve, where we start it.
    """

    endpoint: str | None
    how: str
    models: tuple[str, ...] = ()


def measure(asked: Scenario, given: dict[str, Any]) -> int:
    """Run it all; the exit code.

    Args:
        asked: The scenario with all settings in it.
        given: The command's options, for what is no part of a scenario.
    """
    path = given["resume"] or given["output"] or _default_folder(asked)
    if given["resume"] is None:
        questions = prompts.for_scenario(asked)
        store.check_new(path)
    else:
        questions = resume.questions(path, asked)
    view = live.view(as_json=given["as_json"], quiet=given["quiet"], progress=not given["no_progress"])
    sys.setswitchinterval(0.001)  # a thread that draws or writes holds up the reader for this long at most
    with ExitStack() as stack:
        place = _place(asked, given, stack, view)
        stack.callback(view.close)
        return anyio.run(
            _measure,
            asked,
            given,
            questions,
            place,
            path,
            view,
            backend="asyncio",
            backend_options={"use_uvloop": _uvloop()},
        )


def _uvloop() -> bool:
    try:
        import uvloop
    except ImportError:
        return False
    return uvloop is not None


def _place(asked: Scenario, given: dict[str, Any], stack: ExitStack, view: live.View) -> Place:
    """The server to measure: the one named, one that is found, or one that we start."""
    again = resume.began_as(given["resume"])
    if given["simulate"] or again == "simulator":
        from loadbench import simulator

        if given["dry_run"]:
            return Place(None, "the simulator, started for the run", (simulator.MODEL,))
        server = stack.enter_context(simulator.start())
        return Place(server.url, "the simulator, started for this run: its figures are no measurement of a model")
    if asked.endpoint is not None:
        return Place(asked.endpoint, "as given")
    if given["resume"] is not None and again is None:
        found = resume.place(given["resume"])
    else:
        found = None if again == "embedded" else target.discover(os.environ, Path.home())
    if found is not None:
        return Place(found.endpoint, found.how)
    from loadbench import llama

    if reason := llama.available():
        raise LoadbenchError(
            f"no server to measure: no -e URL, no FOUNDRY_LOCAL_ENDPOINT, no Foundry Local service found, and the "
            f"embedded model cannot run here ({reason}); name a server with -e, or try --simulate"
        )
    if given["dry_run"]:
        return Place(None, "the embedded model, started for the run", (llama.MODEL,))
    most = max(asked.concurrency or [8])
    embedded = stack.enter_context(llama.start(slots=min(max(most, 4), 16), progress=view.note))
    threads = "1 thread" if embedded.threads == 1 else f"{embedded.threads} threads"
    how = f"the embedded model, started for this run: {embedded.slots} slots, {threads}"
    return Place(embedded.url, how, (embedded.model,))


def _digest(questions: Sequence[Prompt]) -> str:
    return hashlib.sha256(repr([(one.id, one.messages) for one in questions]).encode()).hexdigest()


async def _measure(
    asked: Scenario, given: dict[str, Any], questions: list[Prompt], place: Place, path: Path, view: live.View
) -> int:
    key = target.read_key(asked.api_key_env, os.environ)
    if place.endpoint is None:
        server = Target(
            base_url=place.how.partition(",")[0],
            kind="openai",
            models=tuple(ModelFacts(id=model) for model in place.models),
        )
    else:
        server = await _find(place.endpoint, asked, given, key, view)
        if given["resume"] is not None:
            resume.check_server(given["resume"], server)
    if place.models and place.endpoint is not None:  # llama.cpp tells neither, but we started it
        known = tuple(replace(one, device="CPU", licence="Apache-2.0") for one in server.models)
        server = replace(server, models=known)
    chosen = target.choose(server, "auto" if asked.models == "auto" else _names(asked.models)).chosen
    models = [one.id for one in chosen]
    if place.endpoint is None:
        server = replace(server, base_url="")
    budget_s = None if given["budget"] is None else float(given["budget"])
    steps = plan.make(asked, models, budget_s=budget_s)
    _make_room(steps)
    done = resume.complete(given["resume"]) & {one.level.id for one in steps.levels}
    steps = replace(steps, levels=tuple(one for one in steps.levels if one.level.id not in done))
    facts = {
        "target": server.base_url or None,
        "kind": server.kind if server.base_url else None,
        "found": place.how,
        "models": models,
        "folder": str(path),
        "scenario": scenario.to_builtins(asked),
    }
    told = opening.lines(
        server, place.how, models, steps, len(questions), path, done=len(done), dry_run=given["dry_run"]
    )
    view.opening(facts, told, steps)
    if given["dry_run"]:
        return 0
    parameters = Parameters(asked.max_tokens, asked.temperature, _extra_body(asked, server))
    transport = _transport(server, given)
    client = Client(
        transport,
        server.chat_url,
        headers=target.request_headers(asked.headers, key),
        parameters=parameters,
        timeouts=asked.timeouts,
        now_ns=time.perf_counter_ns,
    )
    if given["resume"] is not None:
        folder = store.RunFolder.reopen(path)
    else:
        info = _info(asked, server, place, models, parameters, questions, transport.clock)
        info["budget_s"] = budget_s
        folder = store.RunFolder.create(path, info, answers=given["answers"])
        store.write_atomically(path / resume.PROMPTS, prompts.to_json(questions))
    watch = Watch(folder, None)
    session = Session(asked, questions, server, chosen, steps, folder, client, view, watch, budget_s=budget_s)
    # What is alive now lives to the end: the collector need not look at it while tokens arrive.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
    try:
        await session.run()
    finally:
        await transport.aclose()
        view.close()
    _report(path, given, view)
    for model, reason in session.failed.items():
        click.echo(f"loadbench: {model}: {reason}", err=True)
    if session.interrupted:
        if not given["quiet"]:
            click.echo(f"interrupted; go on with: loadbench run --resume {shlex.quote(str(path))}", err=True)
        return INTERRUPTED
    return 1 if session.failed else 0


async def _find(endpoint: str, asked: Scenario, given: dict[str, Any], key: str | None, view: live.View) -> Target:
    base_url = target.normalise(endpoint)
    # Ours sets up its first connection in 3 ms, stock httpx in 100.
    transport = None if target.is_proxied(base_url) else Transport(clock="user", tls=_tls(base_url, given))
    async with target.open_http(
        endpoint,
        verify=not given["insecure"],
        ca_file=given["ca_file"],
        headers=asked.headers,
        key=key,
        transport=transport,
    ) as http:
        wait_s = 0.0 if given["wait_for"] is None else float(given["wait_for"])
        return await target.wait(endpoint, http=http, wait_s=wait_s, waiting=view.note)


def _names(models: str | list[str]) -> list[str]:
    return [models] if isinstance(models, str) else models


def _extra_body(asked: Scenario, server: Target) -> dict[str, Any]:
    """The scenario's extra keys; llama.cpp is told not to answer from its prompt cache unless they say otherwise."""
    cold = {"cache_prompt": False} if target.cache_prompt_supported(server.kind) else {}
    return {**cold, **asked.extra_body}


def _tls(base_url: str, given: dict[str, Any]) -> ssl.SSLContext | None:
    if not base_url.startswith("https:"):
        return None
    return tls_context(ca_file=given["ca_file"], insecure=given["insecure"])


def _transport(server: Target, given: dict[str, Any]) -> Transport | StockTransport:
    tls = _tls(server.base_url, given)
    if not server.proxied:
        return Transport(clock=given["stamps"], tls=tls)
    from urllib.request import getproxies

    proxies = getproxies()
    proxy = proxies.get(server.base_url.partition(":")[0]) or proxies.get("all")
    if proxy is None:
        raise LoadbenchError(f"{server.base_url} needs a proxy, but the environment names none for it")
    return StockTransport(proxy, tls=tls)


def _make_room(steps: Plan) -> None:
    """Raise the open-files limit to what the plan's streams need."""
    from loadbench.cli.limits import raise_file_limit

    room = raise_file_limit(max(one.level.concurrency or one.limits.max_streams for one in steps.levels))
    worst = max((one.level.concurrency or 0 for one in steps.levels), default=0)
    if room is not None and room < worst:
        raise UsageError(
            f"-c {worst}: this system lets a process open {room} streams; raise its limit (ulimit -Hn) or ask for fewer"
        )


def _default_folder(asked: Scenario) -> Path:
    return Path("results") / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{asked.name}"


def _info(
    asked: Scenario,
    server: Target,
    place: Place,
    models: Sequence[str],
    parameters: Parameters,
    questions: Sequence[Prompt],
    clock: str,
) -> dict[str, Any]:
    """What run.json says from the start. No key, no header that may hold one."""
    stored = scenario.to_builtins(asked)
    stored["headers"] = {name: NOT_STORED if _SECRET.search(name) else value for name, value in asked.headers.items()}
    facts = asdict(server)
    facts["models"] = [one for one in facts["models"] if one["id"] in models]
    source = (
        asked.prompts if isinstance(asked.prompts, str) else "the scenario" if asked.prompts else "the built-in set"
    )
    own_limits = any(one.max_tokens is not None for one in questions)
    return {
        "name": asked.name,
        "start": store.utc_now(),
        "command": _command(sys.argv),
        "versions": telemetry.versions(),
        "scenario": stored,
        "seed": asked.seed,
        "prompts": {"count": len(questions), "source": source, "sha256": _digest(questions), "own_limits": own_limits},
        "parameters": asdict(parameters),
        "target": facts,
        "target_found": place.how,
        "environment": telemetry.environment(),
        "clock": clock,
        "event_loop": "uvloop" if _uvloop() else "asyncio",
        "hlog": store.hlog_works(),
    }


def _command(words: Sequence[str]) -> list[str]:
    """The command line, without the values of headers that may be secret."""
    shown = ["loadbench", *words[1:]]
    for i, word in enumerate(shown):
        name, colon, _ = word.partition(":")
        if colon and _SECRET.search(name) and (shown[i - 1] == "--header" or word.startswith("--header=")):
            shown[i] = f"{name}: {NOT_STORED}"
    return shown


def _report(path: Path, given: dict[str, Any], view: live.View) -> None:
    """Everything that can be said, from the folder alone, as `loadbench report` would."""
    data = store.read(path)
    summary = report.with_run(metrics.summarise(data), data.info)
    report.write(summary, None, path)
    view.summary(summary)
    if given["quiet"] or given["as_json"]:
        return
    from rich.console import Console

    from loadbench.report import text

    text.tables(summary, Console(file=sys.stdout))
    click.echo(f"report    {path / 'report.md'}\nagain     loadbench report {shlex.quote(str(path))}")
