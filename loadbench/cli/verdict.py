"""What a run's thresholds, and with --strict its red gates, come to as an exit code, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from loadbench.bounds import Threshold
from loadbench.cli.harmless import harmless
from loadbench.errors import UsageError
from loadbench.report import levels
from loadbench.scenario import Scenario

FAILED = 3
"""Exit code of a run whose threshold failed; with --strict also of one that nobody can judge."""


def unsettled(record: Mapping[str, Any]) -> bool:
    """Whether nobody can tell if a comparison's sides are the same: nothing differs, and not all was settled."""
    return record["word"] == "can't tell" or (record["word"] == "same" and bool(record["open"]))


def reasons(summary: Mapping[str, Any], *, strict: bool) -> list[str]:
    """Why the run failed, a line each; empty where it did not.

    Args:
        strict: Whether unknown thresholds and red gates fail it too.
    """
    from loadbench.metrics.gates import titled
    from loadbench.report import objectives

    found = objectives.thresholds(summary)
    said = [objectives.in_words(row, summary) for row in found if row["result"] == "failed"]
    if not strict:
        return said
    said += [f"not known: {objectives.in_words(row, summary)}" for row in found if row["result"] == "unknown"]

    red: dict[str, list[str]] = {}
    for level, warning in levels.warnings(summary):
        if warning.get("severity") == "red":
            where = levels.full_label(level, summary) if level else "the whole run"
            red.setdefault(where, []).append(titled(str(warning.get("code"))))
    return said + [f"{levels.joined(codes)} red at {where}: no basis for a verdict" for where, codes in red.items()]


def exit_code(summary: Mapping[str, Any], *, strict: bool) -> int:
    """The exit code, told on stderr why where it is not 0."""
    found = reasons(summary, strict=strict)
    for reason in found:
        click.echo(f"loadbench: {harmless(reason)}", err=True)
    return FAILED if found else 0


def write_junit(path: Path, summary: Mapping[str, Any], *, strict: bool) -> None:
    """Write the run as JUnit XML."""
    from loadbench.cli.report import write
    from loadbench.report import junit

    write(path, junit.of_run(summary, strict=strict))


def lines(asked: Scenario, *, search: bool) -> list[str]:
    """What the opening says of the thresholds; a search tries loads that fail, so it judges none."""
    found = asked.thresholds
    if not found:
        return []
    if search:
        return [f"fail_if   {', '.join(one.text for one in found)}: not judged, a search tries loads that fail"]
    said = [f"{one.text} (aborts after {one.after_s:g} s)" if one.abort else one.text for one in found]
    odd = [one.text for one in found if _is_odd(one)]
    return [f"fails if  {'; '.join(said)}"] + [
        f"          {text}: that fails a run for doing well; turn the sign unless that is meant" for text in odd
    ]


def check(asked: Scenario, models: Sequence[str]) -> None:
    """Refuse a threshold that is about no level of the plan.

    Raises:
        UsageError: It names the levels there are.
    """
    planned = asked.levels(models)
    for one in asked.thresholds:
        if not any(one.is_about(level.id, level.model) for level in planned):
            names = ", ".join(dict.fromkeys(level.id.rpartition("@")[2].partition("#")[0] for level in planned))
            raise UsageError(f"{one.text}: no level is called {one.level}: write one of {names}, or a model's name")


def _is_odd(one: Threshold) -> bool:
    """Whether it fails what is good: k6 and --slo write what is to hold, which here is the failure."""
    return one.bound.op.startswith("<") != one.bound.figure.more_is_better
