"""A job carried out for the command line, and what came of it in words, tables and an exit code."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from loadbench.cli.lines import Lines
from loadbench.cli.opening import Terminal
from loadbench.cli.screen import Screen
from loadbench.cli.surroundings import say, write
from loadbench.errors import FAILED, INTERRUPTED, UsageError
from loadbench.machine import program
from loadbench.runner import measure as outcomes
from loadbench.runner.job import Job
from loadbench.runner.measure import Outcome, measure
from loadbench.runner.watch import JsonLines, View
from loadbench.store.folder import sides
from loadbench.text import starred

if TYPE_CHECKING:
    from loadbench.cli.run import Shown


def view(shown: Shown) -> View:
    """What a run shows while it goes on: JSON lines, nothing, a live picture on a terminal, else plain lines."""
    if shown.as_json:
        return JsonLines(sys.stdout.buffer)
    if shown.quiet:
        return View()
    console = Console(stderr=True)
    # TERM=dumb is a terminal that cannot move its cursor.
    if shown.no_progress or not sys.stderr.isatty() or not console.is_interactive:
        return Lines()
    return Screen(console)


def carry_out(job: Job, shown: Shown) -> int:
    """Run it all; the exit code."""
    both = job.scenario.against is not None or bool(sides(job.resume))
    if both and shown.junit is not None:  # a file of JUnit's has one suite, and there are two runs
        raise UsageError(
            "--junit is for a run of one target: leave it out, or write it of one side by loadbench report"
        )
    observer = view(shown)
    outcome = measure(job, observer, Terminal(as_json=shown.as_json))
    if not outcome.runs:
        return 0
    if shown.quiet and not shown.as_json:
        click.echo(outcome.folder)
    # What reads a run is imported once there is one: nobody waits for it before the first request.
    from loadbench.report import brief, junit, text
    from loadbench.report import run as run_report

    summaries = [outcomes.reported(one.folder) for one in outcome.runs]
    for summary in summaries:
        observer.summary(summary)
    if shown.opens:
        for one in outcome.runs:
            click.launch(str(one.folder / "report.html"))
    if len(summaries) > 1:
        return _both(outcome, summaries, observer, shown)
    if shown.tables:
        path = outcome.folder
        compose = run_report.document if shown.full else brief.document
        text.show(compose(summaries[0]), text.console(sys.stdout))
        more = "" if shown.full else " --full"
        click.echo(f"report    {path / 'report.html'}\nagain     {_called()} report {shlex.quote(str(path))}{more}")
        if job.limits.first_look and not outcome.interrupted:
            click.echo(f"firmer    {_firmer(job, summaries[0])}")
    if shown.junit is not None:  # last: where it cannot be written, all else was said
        write(shown.junit, junit.of_run(summaries[0], strict=shown.strict))
    verdict = outcomes.verdict(outcome, summaries[0], strict=shown.strict)
    say(verdict.reasons)
    _say_how_to_go_on(outcome, shown)
    return verdict.code


def _called() -> str:
    """The command, as it is typed here: in a clone it is on no path."""
    beside = Path(sys.executable).with_name("loadbench")
    if program("loadbench", os.environ) or not beside.exists():
        return "loadbench"
    with suppress(ValueError):
        return str(beside.relative_to(Path.cwd()))
    return str(beside)


def _firmer(job: Job, summary: Mapping[str, Any]) -> str:
    """The command that measures the same longer, and how long that takes."""
    words = list(job.command[1:])
    for name in ("-o", "--output"):  # that folder is taken now
        if name in words:
            at = words.index(name)
            del words[at : at + 2]
    words = [word for word in words if not word.startswith(("--output=", "-o"))]
    again = starred(shlex.join([_called(), *words, "-d", "60s"]))
    return f"{again}   (about {1 + len(summary['levels'])} min)"


def _both(outcome: Outcome, summaries: Sequence[dict[str, Any]], observer: View, shown: Shown) -> int:
    """What two runs in turns came to, and how they compare; the exit code."""
    from loadbench.cli.compare import unsettled
    from loadbench.report import comparison, objectives, text

    for one in outcome.runs:
        say(outcomes.failures(one))
    if outcome.interrupted:
        _say_how_to_go_on(outcome, shown)
        return INTERRUPTED
    document = outcomes.compared(outcome, summaries)
    if document is None:
        say(["no level ran to its end on both sides: there is nothing to compare"])
    else:
        observer.compared(document)
        if shown.tables:
            root = outcome.folder
            compose = comparison.document if shown.full else comparison.brief
            text.show(compose(document), text.console(sys.stdout))
            more = "" if shown.full else " --explain"
            click.echo(f"report    {root / 'compare.md'}\nagain     loadbench compare {shlex.quote(str(root))}{more}")
    lost = outcomes.incomplete(summaries, outcome)
    if lost:
        say(lost)
        return 1
    if document is None or any(one.failed for one in outcome.runs):
        return 1
    reasons = []
    for one, summary in zip(outcome.runs, summaries, strict=True):
        reasons += [f"{one.name}: {reason}" for reason in objectives.reasons(summary, strict=shown.strict)]
    (record,) = document["comparisons"]
    if shown.strict and (record["word"] == "no verdict" or unsettled(record)):
        word = "no verdict" if record["word"] == "no verdict" else "can't tell"
        reasons.append(f"{word}, and --strict wants one")
    say(reasons)
    return FAILED if reasons else 0


def _say_how_to_go_on(outcome: Outcome, shown: Shown) -> None:
    if outcome.interrupted and not shown.quiet:
        click.echo(f"interrupted; go on with: {outcome.goes_on_with}", err=True)
