"""A run from the command line: the target is set up (`rig`), the plan shown, measured, reported."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar, TypeVarTuple

import anyio
import click

from loadbench import report, select, store
from loadbench.cli import INTERRUPTED, live, opening, reach, rig, verdict, workers
from loadbench.cli.rig import Asked
from loadbench.engine import process
from loadbench.errors import UsageError
from loadbench.runner.session import Schedule, Session, in_turns
from loadbench.scenario import Scenario

_MOST_IN_A_SECOND = 1000
T = TypeVar("T")
Words = TypeVarTuple("Words")


class Course(Protocol):
    """What a command measures in place of a plan's levels: one level at a time, as it decides.

    Attributes:
        command: Its name, with which the run goes on after Ctrl-C.
        streams: Most requests in flight that it may come to.
        needed: How many of them this machine must be able to open.
        per_s: Most requests started in a second that it may come to; 0 where it starts none at a rate.
    """

    @property
    def command(self) -> str: ...
    @property
    def streams(self) -> int: ...
    @property
    def needed(self) -> int: ...
    @property
    def per_s(self) -> float: ...
    def lines(self, models: Sequence[str]) -> list[str]:
        """What the opening says of it."""

    def info(self, models: Sequence[str]) -> dict[str, Any]:
        """What run.json says of it from the start."""

    def schedule(self, info: Mapping[str, Any], view: live.View) -> Schedule: ...
    def exit_code(self, info: Mapping[str, Any]) -> int:
        """What its answer comes to, of a run that was neither interrupted nor failed."""


def measure(wanted: Scenario, given: dict[str, Any], course: Course | None = None) -> int:
    """Run it all; the exit code.

    Args:
        wanted: The scenario with all settings in it.
        given: The command's options, for what is no part of a scenario.
        course: Unset, the scenario's levels are planned and measured.
    """
    if wanted.against is not None:
        raise UsageError("against: only the command loadbench run measures two servers: leave it out here")
    shown = view(given)
    with ExitStack() as stack:
        path = given["resume"] or given["output"] or default_folder(wanted, stack, claim=not given["dry_run"])
        asked = rig.asked(wanted, given, path, stack, shown)
        stack.callback(shown.close)
        session = run(_alone, asked, shown, course)
        if session is None:
            return 0
        summary = _report(path, given, shown)
        tell_failures(session)
        if session.interrupted:
            if not given["quiet"]:
                command = course.command if course else "run"
                click.echo(f"interrupted; go on with: loadbench {command} --resume {shlex.quote(str(path))}", err=True)
            return INTERRUPTED
        if session.failed:
            return 1
        if course is not None:  # which tries again by itself
            return course.exit_code(session.folder.info)
        return 1 if tell_incomplete([summary], path) else verdict.exit_code(summary, strict=bool(given["strict"]))


async def _alone(asked: Asked, shown: live.View, course: Course | None) -> Session | None:
    async with AsyncExitStack() as stack:
        found = await rig.reached(asked, stack, shown, course)
        rig.make_room([found.steps], course, found.spread)
        wanted, given = asked.scenario, asked.given
        told = opening.whom(
            *(found.server, asked.place.how, found.choice), others=found.servers[1:], weights=wanted.weights
        )
        told += opening.what(
            found.to_come,
            found.to_come.levels,
            found.models,
            len(asked.prompts),
            asked.path,
            search=course.lines(found.models) if course else (),
            fails_if=verdict.lines(wanted, search=course is not None),
            key=reach.key_source(wanted.api_key_env, wanted.api_key_file),
            done=len(found.done),
            workers=workers.told(found.spread),
            dry_run=given["dry_run"],
        )
        shown.opening(found.facts(), told, found.to_come)
        for warning in found.warnings():
            shown.note(warning)
        if given["dry_run"]:
            return None
        rig.confirm([found], course)
        session = await found.session(stack, shown)
        await to_the_end([session], shown)
    return session


async def to_the_end(sessions: Sequence[Session], shown: live.View) -> None:
    """Run them to their ends, the collector of garbage held back."""
    process.hold_collector()
    try:
        await in_turns(sessions, shown.note)
    finally:
        shown.close()


def view(given: Mapping[str, Any]) -> live.View:
    """What shows the run to this user."""
    process.share_the_interpreter()
    return live.view(as_json=given["as_json"], quiet=given["quiet"], progress=not given["no_progress"])


def run(work: Callable[[*Words], Awaitable[T]], *words: *Words) -> T:
    """Run async work on the event loop that measures best here."""
    return anyio.run(work, *words, backend="asyncio", backend_options={"use_uvloop": process.has_uvloop()})


def tell_failures(session: Session, name: str = "") -> None:
    """Say which models completed nothing, and why.

    Args:
        name: Of the side, as "base ".
    """
    for model, reason in session.failed.items():
        click.echo(live.harmless(f"loadbench: {name}{model}: {reason}"), err=True)


def tell_incomplete(summaries: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """Say which levels lost a part of their load on the way; whether there are any.

    Args:
        path: With which they are measured again.
    """
    levels = [level for summary in summaries for level in summary["levels"]]
    lost = [level for level in levels if level.get("status") == "incomplete"]
    for level in lost:
        click.echo(live.harmless(f"loadbench: {level['id']}: {level['reason']}"), err=True)
    if lost:
        click.echo(f"loadbench: measure them again with: loadbench run --resume {shlex.quote(str(path))}", err=True)
    return bool(lost)


def default_folder(asked: Scenario, stack: ExitStack, *, claim: bool) -> Path:
    """Where a run goes that was given no place: results/<UTC time>-<its name>, with a number where that is taken.

    Args:
        stack: With it goes the folder, where nothing came into it.
        claim: Make it, so that no other run that begins in this second takes it.

    Raises:
        StoreError: It cannot be made.
    """
    name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{asked.name}"
    path = Path("results") / name
    made = [] if os.path.lexists(path.parent) else [path.parent]
    for number in range(2, _MOST_IN_A_SECOND):
        try:
            if claim:
                path.mkdir(parents=True)
                stack.callback(_remove_empty, [path, *made])
                return path
        except FileExistsError:
            pass
        except OSError as error:
            raise store.cannot_write(path, error) from error
        if not os.path.lexists(path):
            return path
        path = path.with_name(f"{name}-{number}")
    return path


def _remove_empty(folders: Sequence[Path]) -> None:
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def write_report(path: Path) -> dict[str, Any]:
    """Everything that can be said, from the folder alone, as `loadbench report` would; the summary."""
    summary = select.summarise(store.read(path))
    report.write(summary, None, path)
    return summary


def _report(path: Path, given: dict[str, Any], view: live.View) -> dict[str, Any]:
    summary = write_report(path)
    view.summary(summary)
    if not given["quiet"] and not given["as_json"]:
        from loadbench.report import run, text

        text.show(run.document(summary), text.console(sys.stdout))
        click.echo(f"report    {path / 'report.html'}\nagain     loadbench report {shlex.quote(str(path))}")
    if given["junit"] is not None:  # last: where it cannot be written, all else was said
        verdict.write_junit(given["junit"], summary, strict=bool(given["strict"]))
    return summary
