"""A job from the command line: carried out, and what came of it in words, tables and an exit code."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import click

from loadbench import store
from loadbench.cli import live
from loadbench.cli.compare import unsettled
from loadbench.cli.opening import Terminal
from loadbench.cli.reach import say
from loadbench.errors import FAILED, INTERRUPTED, UsageError
from loadbench.report import objectives
from loadbench.runner import outcome as outcomes
from loadbench.runner.job import Job
from loadbench.runner.measure import measure
from loadbench.runner.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Shown:
    """What the user wants to see, and when the command is to fail."""

    as_json: bool
    quiet: bool
    progress: bool
    strict: bool = False
    junit: Path | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """As the options say; a search has neither --strict nor --junit."""
        return cls(
            as_json=values["as_json"],
            quiet=values["quiet"],
            progress=not values["no_progress"],
            strict=values.get("strict", False),
            junit=values.get("junit"),
        )

    @property
    def tables(self) -> bool:
        """Whether a person reads stdout."""
        return not self.quiet and not self.as_json


def carry_out(job: Job, shown: Shown) -> int:
    """Run it all; the exit code."""
    both = job.scenario.against is not None or bool(store.sides(job.resume))
    if both and shown.junit is not None:
        raise UsageError(
            "--junit is for a run of one target: leave it out, or write it of one side by loadbench report"
        )
    view = live.view(as_json=shown.as_json, quiet=shown.quiet, progress=shown.progress)
    outcome = measure(job, view, Terminal(as_json=shown.as_json))
    if not outcome.runs:
        return 0
    summaries = [outcomes.reported(one.folder) for one in outcome.runs]
    for summary in summaries:
        view.summary(summary)
    if len(summaries) > 1:
        return _both(outcome, summaries, view, shown)
    if shown.tables:
        from loadbench.report import run, text

        path = outcome.folder
        text.show(run.document(summaries[0]), text.console(sys.stdout))
        click.echo(f"report    {path / 'report.html'}\nagain     loadbench report {shlex.quote(str(path))}")
    if shown.junit is not None:  # last: where it cannot be written, all else was said
        from loadbench.cli.report import write
        from loadbench.report import junit

        write(shown.junit, junit.of_run(summaries[0], strict=shown.strict))
    verdict = outcomes.verdict(outcome, summaries[0], strict=shown.strict)
    say(verdict.reasons)
    _say_how_to_go_on(outcome, shown)
    return verdict.code


def _both(outcome: Outcome, summaries: Sequence[dict[str, Any]], view: live.View, shown: Shown) -> int:
    """What two runs in turns came to, and how they compare; the exit code."""
    for one in outcome.runs:
        say(outcomes.failures(one))
    if outcome.interrupted:
        _say_how_to_go_on(outcome, shown)
        return INTERRUPTED
    document = outcomes.compared(outcome, summaries)
    if document is None:
        say(["no level ran to its end on both sides: there is nothing to compare"])
    else:
        view.compared(document)
        if shown.tables:
            from loadbench.report import comparison, text

            root = outcome.folder
            text.show(comparison.document(document), text.console(sys.stdout))
            click.echo(f"report    {root / 'compare.md'}\nagain     loadbench compare {shlex.quote(str(root))}")
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
