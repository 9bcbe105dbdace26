"""`loadbench run --against URL`: two targets in turns, each into a run folder of its own, compared at the end."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import click
from msgspec import structs

from loadbench import compare, scenario, store
from loadbench.cli import INTERRUPTED, live, measure, opening, reach, rig, verdict, workers
from loadbench.cli.live.sides import Sided, named
from loadbench.cli.pair import MEANT, SIDES, folders
from loadbench.cli.rig import Asked, Rig
from loadbench.errors import UsageError
from loadbench.report import comparison
from loadbench.runner.plan import Plan, PlannedLevel
from loadbench.runner.precision import Rounds
from loadbench.runner.session import Session
from loadbench.scenario import Scenario


def against(wanted: Scenario, given: dict[str, Any]) -> int:
    """Measure the scenario's target and another one, a level each in turns; the exit code.

    The first is the base. base, new, new, base, … at each level: a drift of the machine (heat, other programs) meets
    both alike, so that the runs of a level may be set against each other.

    Args:
        wanted: Names the other one in `against`, and its models in `against_model` where they differ.
        given: The command's options.
    """
    with ExitStack() as stack:
        root: Path = given["output"] or measure.default_folder(wanted, stack, claim=not given["dry_run"])
        store.check_new(root)
        base = structs.replace(wanted, against=None, against_model=None)
        new = scenario.merge(base, endpoint=wanted.against, models=wanted.against_model)
        return _measure(root, (base, new), (given, given | {"endpoint": wanted.against, "simulate": False}))


def again(root: Path, wanted: Sequence[Scenario], given: Sequence[dict[str, Any]]) -> int:
    """Go on with what `against` began; the exit code.

    Args:
        wanted: The scenario of each side, as its folder has it.
        given: The options for each side: `resume` is its folder.
    """
    return _measure(root, wanted, given)


def _measure(root: Path, wanted: Sequence[Scenario], given: Sequence[dict[str, Any]]) -> int:
    both = given[0]
    if both["junit"] is not None:
        raise UsageError(
            "--junit is for a run of one target: leave it out, or write it of one side by loadbench report"
        )
    shown = measure.view(both)
    with ExitStack() as stack:
        sides = zip(SIDES, wanted, given, strict=True)
        asked = [rig.asked(one, own, root / name, stack, shown) for name, one, own in sides]
        stack.callback(shown.close)
        sessions = measure.run(_in_turns, root, asked, shown)
        if not sessions:
            return 0
        summaries = [measure.write_report(one.path) for one in asked]
        for name, session, summary in zip(SIDES, sessions, summaries, strict=True):
            shown.summary(summary)
            measure.tell_failures(session, f"{name} ")
        if sessions[0].interrupted:
            if not both["quiet"]:
                click.echo(f"interrupted; go on with: loadbench run --resume {shlex.quote(str(root))}", err=True)
            return INTERRUPTED
        record = _compared(root, summaries, both, shown)
        if measure.tell_incomplete(summaries, root):
            return 1
        return _exit_code(sessions, summaries, record, strict=bool(both["strict"]))


async def _in_turns(root: Path, asked: Sequence[Asked], shown: live.View) -> list[Session]:
    """Both runs to their ends; none where that was not wanted."""
    async with AsyncExitStack() as stack:
        base, new = [await rig.reached(one, stack, shown, runs=len(SIDES)) for one in asked]
        _check_models(base.models, new.models)
        rig.make_room([base.steps, new.steps], None, base.spread)
        steps = _together(base.to_come, new.to_come)
        facts = {name: one.facts() for name, one in zip(SIDES, (base, new), strict=True)}
        shown.opening({"sides": facts, "folder": str(root)}, _opening(root, (base, new), steps), steps)
        for name, one in zip(SIDES, (base, new), strict=True):
            for warning in one.warnings():
                shown.note(f"{name}: {warning}")
        if asked[0].given["dry_run"]:
            return []
        rig.confirm([base, new], None)
        sides = zip(SIDES, (base, new), strict=True)
        rounds = Rounds()
        sessions = [await one.session(stack, Sided(shown, name), rounds) for name, one in sides]
        for name, session, other in zip(SIDES, sessions, (new, base), strict=True):
            session.folder.info["against"] = {"side": name, "other": other.server.base_url}
        await measure.to_the_end(sessions, shown)
    return sessions


def _check_models(base: Sequence[str], new: Sequence[str]) -> None:
    """Refuse sides of which nothing could be compared: the same names are, and one model with one."""
    if not set(base) & set(new) and not len(base) == len(new) == 1:
        raise UsageError(
            f"no model in common: the base has {', '.join(base)}, the other {', '.join(new)}: name one with -m, and "
            "the other's with --against-model"
        )


def _together(base: Plan, new: Plan) -> Plan:
    """The plan of both as it is shown: their levels in turns, under the names of their sides."""
    levels: list[PlannedLevel] = []
    for number, pair in enumerate(zip_longest(base.levels, new.levels)):
        sides = [
            replace(one, level=named(one.level, name)) for name, one in zip(SIDES, pair, strict=True) if one is not None
        ]
        levels += reversed(sides) if number % 2 else sides
    return Plan(tuple(levels), base.cuts, base.assumption or new.assumption, base.idle_s + new.idle_s)


def _opening(root: Path, sides: Sequence[Rig], steps: Plan) -> list[str]:
    wanted, given = sides[0].asked.scenario, sides[0].asked.given
    told = []
    for name, one in zip(SIDES, sides, strict=True):
        told += opening.whom(one.server, one.asked.place.how, one.choice, name)
    return told + opening.what(
        steps,
        sides[1].to_come.levels or sides[0].to_come.levels,
        sides[1].models,
        len(sides[0].asked.prompts),
        root,
        fails_if=verdict.lines(wanted, search=False),
        key=reach.key_source(wanted.api_key_env, wanted.api_key_file),
        done=sum(len(one.done) for one in sides),
        workers=workers.told(sides[0].spread),
        dry_run=given["dry_run"],
    )


def _compared(
    root: Path, summaries: Sequence[dict[str, Any]], given: Mapping[str, Any], shown: live.View
) -> dict[str, Any] | None:
    """The comparison, told and written; None where there is nothing to compare."""
    known = dict(zip(folders(root), summaries, strict=True))
    base, new = (compare.gather([store.read(folder)], folder.name, summaries=known) for folder in known)
    if not compare.matched(base.sides, new.sides):
        click.echo("loadbench: no level ran to its end on both sides: there is nothing to compare", err=True)
        return None
    found = compare.compare_runs(base, new, compare.Terms(meant=MEANT))
    document = compare.document([found])
    for kind, end in (("markdown", "md"), ("json", "json")):
        store.write_atomically(root / f"compare.{end}", comparison.FORMATS[kind](document).encode())
    shown.compared(document)
    if not given["quiet"] and not given["as_json"]:
        from loadbench.report import text

        text.show(comparison.document(document), text.console(sys.stdout))
        click.echo(f"report    {root / 'compare.md'}\nagain     loadbench compare {shlex.quote(str(root))}")
    return found


def _exit_code(
    sessions: Sequence[Session],
    summaries: Sequence[dict[str, Any]],
    record: Mapping[str, Any] | None,
    *,
    strict: bool,
) -> int:
    if record is None or any(session.failed for session in sessions):
        return 1
    reasons = [
        f"{name}: {reason}"
        for name, summary in zip(SIDES, summaries, strict=True)
        for reason in verdict.reasons(summary, strict=strict)
    ]
    if strict and (record["word"] == "no verdict" or verdict.unsettled(record)):
        word = "no verdict" if record["word"] == "no verdict" else "can't tell"
        reasons.append(f"{word}, and --strict wants one")
    for reason in reasons:
        click.echo(f"loadbench: {live.harmless(reason)}", err=True)
    return verdict.FAILED if reasons else 0
