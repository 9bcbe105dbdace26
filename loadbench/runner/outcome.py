"""What became of a run: its folders, its report, and as which exit code `loadbench run` ends, and why."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from loadbench import compare, report, select, store
from loadbench.errors import FAILED, INTERRUPTED
from loadbench.report import objectives
from loadbench.runner.capacity import UNDECIDED
from loadbench.runner.watch import Facts
from loadbench.store.summary import Summary

MEANT = ("model", "device", "execution provider", "server", "server version")
"""What two targets may differ in: it is what they are compared for."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What one run left."""

    name: str  # `base` or `new`; "" of a run alone
    folder: Path
    failed: Mapping[str, str]  # models that completed nothing, and why
    info: Facts  # run.json


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a job came to."""

    folder: Path  # where all of it is
    runs: tuple[Ran, ...]  # one, or those of both sides; none after a dry run
    interrupted: bool  # whether the user ended it
    is_search: bool

    @property
    def goes_on_with(self) -> str:
        """The command that goes on with it."""
        return f"loadbench {'capacity' if self.is_search else 'run'} --resume {shlex.quote(str(self.folder))}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The exit code of the command, and the reasons for it, a line of stderr each."""

    code: int
    reasons: tuple[str, ...] = ()


def reported(folder: Path) -> dict[str, Any]:
    """Write the reports, from the folder alone, as `loadbench report` would; the summary."""
    summary = select.summarise(store.read(folder))
    report.write(summary, folder)
    return summary


def verdict(outcome: Outcome, summary: Facts, *, strict: bool = False) -> Verdict:
    """How a run alone ends."""
    ran = outcome.runs[0]
    if outcome.interrupted or ran.failed:
        return Verdict(INTERRUPTED if outcome.interrupted else 1, tuple(failures(ran)))
    if outcome.is_search:  # which tries again by itself
        for record in ran.info["capacity"]:
            low, high = record["bracket"]
            if record["found"] is None and low is None and (high is not None or record["reason"] == UNDECIDED):
                return Verdict(FAILED)  # some model does not surely meet the SLO even at the lowest load
        return Verdict(0)
    lost = incomplete([summary], outcome)
    if lost:
        return Verdict(1, tuple(lost))
    missed = objectives.reasons(summary, strict=strict)
    return Verdict(FAILED if missed else 0, tuple(missed))


def compared(outcome: Outcome, summaries: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The comparison of both sides, written beside their folders; None where there is nothing to compare."""
    folders = [one.folder for one in outcome.runs]
    known = dict(zip(folders, (msgspec.convert(one, Summary) for one in summaries), strict=True))
    base, new = (compare.gather([store.read(folder)], folder.name, summaries=known) for folder in known)
    if not compare.matched(base.sides, new.sides):
        return None
    document = compare.document([compare.compare_runs(base, new, compare.Terms(meant=MEANT))])
    for kind, end in (("markdown", "md"), ("json", "json")):
        store.write_atomically(outcome.folder / f"compare.{end}", report.COMPARISONS[kind](document).encode())
    return document


def failures(ran: Ran) -> list[str]:
    """Which models completed nothing, and why."""
    name = f"{ran.name} " if ran.name else ""
    return [f"{name}{model}: {reason}" for model, reason in ran.failed.items()]


def incomplete(summaries: Sequence[Facts], outcome: Outcome) -> list[str]:
    """Which levels lost a part of their load on the way, and how they are measured again; empty where none did."""
    found = []
    for summary in summaries:
        found += [f"{one['id']}: {one['reason']}" for one in summary["levels"] if one.get("status") == "incomplete"]
    if found:
        found.append(f"measure them again with: loadbench run --resume {shlex.quote(str(outcome.folder))}")
    return found
