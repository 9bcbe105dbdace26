"""A run from the command line: find the target, show the plan, measure, report."""

from __future__ import annotations

import gc
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import anyio
import click

from loadbench import abort, compare, plan, precision, prompts, report, scenario, store, target
from loadbench.cli import INTERRUPTED, live, opening, reach, record, resume, verdict
from loadbench.cli import place as places
from loadbench.cli.place import Place
from loadbench.cli.watched import Shown, Watched
from loadbench.client import Client, Parameters
from loadbench.errors import UsageError
from loadbench.plan import Plan
from loadbench.prompts import Prompt
from loadbench.scenario import Scenario
from loadbench.session import Fixed, Schedule, Session, Watch
from loadbench.target import Target


class Course(Protocol):
    """What a command measures in place of a plan's levels: one level at a time, as it decides.

    Attributes:
        command: Its name, with which the run goes on after Ctrl-C.
        streams: Most requests in flight that it may come to.
        needed: How many of them this machine must be able to open.
    """

    @property
    def command(self) -> str: ...
    @property
    def streams(self) -> int: ...
    @property
    def needed(self) -> int: ...
    def lines(self, models: Sequence[str]) -> list[str]:
        """What the opening says of it."""

    def info(self, models: Sequence[str]) -> dict[str, Any]:
        """What run.json says of it from the start."""

    def schedule(self, info: Mapping[str, Any], view: live.View) -> Schedule: ...
    def exit_code(self, info: Mapping[str, Any]) -> int:
        """What its answer comes to, of a run that was neither interrupted nor failed."""


def measure(asked: Scenario, given: dict[str, Any], course: Course | None = None, *, lap: int | None = None) -> int:
    """Run it all; the exit code.

    Args:
        asked: The scenario with all settings in it.
        given: The command's options, for what is no part of a scenario.
        course: Unset, the scenario's levels are planned and measured.
        lap: Measure this round through all levels alone, and leave the report to who asked for it.
    """
    path = given["resume"] or given["output"] or default_folder(asked)
    if given["resume"] is None:
        questions = prompts.for_scenario(asked)
        store.check_new(path)
    else:
        questions = resume.questions(path, asked)
    view = live.view(as_json=given["as_json"], quiet=given["quiet"], progress=not given["no_progress"])
    sys.setswitchinterval(0.001)  # a thread that draws or writes holds up the reader for this long at most
    with ExitStack() as stack:
        place = places.find(asked, given, stack, view.note)
        stack.callback(view.close)
        return anyio.run(
            _measure,
            asked,
            given,
            questions,
            place,
            path,
            view,
            course,
            lap,
            backend="asyncio",
            backend_options={"use_uvloop": record.has_uvloop()},
        )


async def _measure(
    asked: Scenario,
    given: dict[str, Any],
    questions: list[Prompt],
    place: Place,
    path: Path,
    view: live.View,
    course: Course | None,
    lap: int | None,
) -> int:
    async with places.reached(place, asked, given, view.note) as reached:
        server = reached.server
        if given["resume"] is not None and place.endpoint is not None:
            resume.check_server(given["resume"], server)
        choice = reached.choose(asked)
        names = [one.id for one in choice.chosen]
        if place.endpoint is None:
            server = replace(server, base_url="")
        budget_s = None if given["budget"] is None else float(given["budget"])
        steps = Plan((), (), "") if course else plan.make(asked, names, prompts=questions, budget_s=budget_s)
        _make_room(steps, course)
        if course is None:
            verdict.check(asked, names)
        done = resume.complete(given["resume"]) & {one.level.id for one in steps.levels}
        to_come = (one for one in steps.levels if lap is None or one.level.repeat == lap)
        steps = replace(steps, levels=tuple(one for one in to_come if one.level.id not in done))
        facts = {
            "target": server.base_url or None,
            "kind": server.kind if server.base_url else None,
            "found": place.how,
            "models": names,
            "absent": [asdict(one) for one in choice.absent],
            "folder": str(path),
            "scenario": scenario.to_builtins(asked),
            "budget_s": budget_s,
        }
        told = opening.lines(
            server,
            place.how,
            choice,
            steps,
            len(questions),
            path,
            search=course.lines(names) if course else (),
            fails_if=verdict.lines(asked, search=course is not None),
            key=asked.api_key_env or reach.key_variable(),
            done=len(done),
            dry_run=given["dry_run"],
        )
        view.opening(facts, told, steps)
        watched = Watched(server)
        for warning in watched.memory_warnings(choice):
            view.note(f"Warning: {warning}")
        if asked.output_exact and not target.ignore_eos_supported(server.kind):
            view.note(f"--output-exact: {server.kind} is not known to honour it: answers end where the model ends them")
        if given["dry_run"]:
            return 0
        parameters = Parameters(
            asked.max_tokens, asked.temperature, _extra_body(asked, server), asked.stream, _min_tokens(asked, server)
        )
        transport = reach.transport(server, given)
        client = Client(
            transport,
            server.chat_url,
            own_urls={name: server.chat_url_of(name) for name in names},
            headers=target.request_headers(asked.headers, reach.key(asked.api_key_env)),
            parameters=parameters,
            timeouts=asked.timeouts,
            now_ns=time.perf_counter_ns,
        )
        with watched.sampling(given["telemetry"]) as sampler:
            if given["resume"] is not None:
                folder = store.RunFolder.reopen(path)
            else:
                info = record.info(asked, server, place.how, choice, parameters, questions, transport.clock)
                info |= {"budget_s": budget_s, "telemetry": watched.facts(sampler)}
                info |= course.info(names) if course else {}
                info |= {"until": precision.begun(asked)} if asked.until is not None and course is None else {}
                folder = store.RunFolder.create(path, info, answers=given["answers"])
                store.write_atomically(path / resume.PROMPTS, prompts.to_json(questions))
            session = Session(
                asked,
                questions,
                server,
                choice.chosen,
                steps,
                folder,
                client,
                view,
                Watch(Shown(folder, view), sampler, reached.scrape, local=watched.local),
                control=reached.control,
                origins={one.id: places.origin(place, one.facts) for one in choice.chosen if one.facts is not None},
                budget_s=None if course else budget_s,
                schedule=course.schedule(folder.info, view) if course else _levels(asked, steps, folder, view),
            )
            # What is alive now lives to the end: the collector need not look at it while tokens arrive.
            gc.collect()
            gc.freeze()
            gc.set_threshold(20_000, 50, 100)
            try:
                await session.run()
            finally:
                await transport.aclose()
                view.close()
    summary = _report(path, given, view) if lap is None else {}
    for model, reason in session.failed.items():
        click.echo(f"loadbench: {model}: {reason}", err=True)
    if session.interrupted:
        if not given["quiet"] and lap is None:
            command = course.command if course else "run"
            click.echo(f"interrupted; go on with: loadbench {command} --resume {shlex.quote(str(path))}", err=True)
        return INTERRUPTED
    if session.failed:
        return 1
    return course.exit_code(folder.info) if course else verdict.exit_code(summary, strict=bool(given["strict"]))


def _levels(asked: Scenario, steps: Plan, folder: store.RunFolder, view: live.View) -> Schedule:
    """The levels of the plan: all, or until the figures are known well enough, or until a threshold ends the run."""
    record = folder.info.get("until")
    found = precision.Precise(steps.levels, record, view.note, asked.stream) if record else Fixed(steps.levels)
    return abort.watched(found, asked.thresholds, streamed=asked.stream)


def _extra_body(asked: Scenario, server: Target) -> dict[str, Any]:
    """The scenario's extra keys; llama.cpp is told not to answer from its prompt cache unless they say otherwise."""
    cold = {"cache_prompt": False} if target.cache_prompt_supported(server.kind) else {}
    whole = {"ignore_eos": True} if asked.output_exact and target.ignore_eos_supported(server.kind) else {}
    return {**cold, **whole, **asked.extra_body}


def _min_tokens(asked: Scenario, server: Target) -> bool:
    return asked.output_exact and target.min_tokens_supported(server.kind)


def _make_room(steps: Plan, course: Course | None) -> None:
    """Raise the open-files limit to what the streams need."""
    from loadbench.cli.limits import raise_file_limit

    streams = [one.level.concurrency or one.limits.max_streams for one in steps.levels]
    room = raise_file_limit(max(streams + ([course.streams] if course else [])))
    worst = course.needed if course else max((one.level.concurrency or 0 for one in steps.levels), default=0)
    if room is not None and room < worst:
        raise UsageError(
            f"{'--max' if course else '-c'} {worst}: this system lets a process open {room} streams; raise its limit "
            "(ulimit -Hn) or ask for fewer"
        )


def default_folder(asked: Scenario) -> Path:
    """Where a run goes that was given no place: results/<UTC time>-<its name>."""
    return Path("results") / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{asked.name}"


def write_report(path: Path) -> dict[str, Any]:
    """Everything that can be said, from the folder alone, as `loadbench report` would; the summary."""
    data = store.read(path)
    summary = report.with_run(compare.summarise(data), data.info)
    report.write(summary, None, path)
    return summary


def _report(path: Path, given: dict[str, Any], view: live.View) -> dict[str, Any]:
    summary = write_report(path)
    view.summary(summary)
    if given["junit"] is not None:
        verdict.write_junit(given["junit"], summary, strict=bool(given["strict"]))
    if given["quiet"] or given["as_json"]:
        return summary
    from rich.console import Console

    from loadbench.report import text

    text.tables(summary, Console(file=sys.stdout))
    click.echo(f"report    {path / 'report.md'}\nagain     loadbench report {shlex.quote(str(path))}")
    return summary
