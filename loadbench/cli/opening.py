"""The lines that open a run: whom it measures, at which loads, and how long that may take."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from loadbench.runner.plan import Plan, PlannedLevel
from loadbench.scenario import Level
from loadbench.server import Choice, Target

_MINUTES_FROM_S = 90.0


def whom(
    server: Target,
    how: str,
    choice: Choice,
    name: str = "target",
    *,
    others: Sequence[Target] = (),
    weights: Sequence[int] | None = None,
) -> list[str]:
    """Which server and models are measured.

    Args:
        server: Without a `base_url` where it is started for the run itself, which a dry run does not do.
        how: How it was found, in words.
        choice: What is measured, and what of the asked is not there.
        name: What the server is to the run.
        others: Which take the requests in turns with it.
        weights: Of it and the others; None where all are equal.
    """
    where = _where(server) if server.base_url else "(not started)"
    told = [f"{name:<10}{where}, {how}", *(f"{'and':<10}{_where(one)}" for one in others)]
    if others:
        told.append(f"in turns  {':'.join(map(str, weights or [1] * (1 + len(others))))} of the requests")
    told.append(f"models    {', '.join(one.id for one in choice.chosen)}")
    return told + [f"absent    {one.reason}: skipped" for one in choice.absent]


def what(
    steps: Plan,
    levels: Sequence[PlannedLevel],
    models: Sequence[str],
    prompts: int,
    path: Path,
    *,
    search: Sequence[str] = (),
    fails_if: Sequence[str] = (),
    key: str | None = None,
    done: int = 0,
    workers: Sequence[str] = (),
    dry_run: bool = False,
) -> list[str]:
    """At which loads they are measured, how long that may take, and where it goes.

    Args:
        steps: The levels that are to come.
        levels: Those of one target.
        models: Of one target.
        prompts: How many there are.
        path: The run's folder.
        search: Lines on what is searched for, where no levels are planned.
        fails_if: Lines on what fails the run.
        key: The variable that holds the server's key.
        workers: Lines on who shares the load.
        done: Levels of a resumed run that are complete.
    """
    told = [f"key       from {key}"] * (key is not None)
    if done:
        told.append(f"complete  {done} of {done + len(steps.levels)} levels already")
    told += search
    if levels:
        turns = ", base and new in turns" if len(steps.levels) > len(levels) else ""
        told.append(f"levels    {_loads(levels, models)}{turns}; {_each(levels)}")
    if again := dict.fromkeys(_name(one.level) for one in levels if one.level.closing):
        told.append(f"again     {', '.join(again)} at the end, for the noise band (--no-repeat-first leaves it out)")
    if levels or search:
        told.append(f"prompts   {prompts}; results in {path}")
    if levels:
        told.append(f"time      {_span(steps)}{f' ({steps.assumption})' if steps.assumption else ''}")
    told += workers
    told += [f"budget    {cut}" for cut in steps.cuts]
    told += fails_if
    return told + ["dry run   nothing was measured, nothing was written"] * dry_run


def _where(server: Target) -> str:
    version = f" {server.version}" if server.version else ""
    return f"{server.base_url} ({server.kind}{version})"


def _loads(levels: Sequence[PlannedLevel], models: Sequence[str]) -> str:
    """As `c1, c4 (streams at once)`: how the levels are called, and what that means."""
    names = dict.fromkeys(_name(one.level) for one in levels)
    times = len({one.level.repeat for one in levels})
    often = f", {times} times" if times > 1 else ""
    what = "streams at once" if levels[0].level.concurrency is not None else "requests started per second"
    each = " for each model" if len(models) > 1 else ""
    return f"{', '.join(names)} ({what}){each}{often}"


def _name(level: Level) -> str:
    """As `c4`, whichever time it is."""
    return re.sub(r"#(\d+|end)$", "", level.id.rpartition("@")[2])


def _each(levels: Sequence[PlannedLevel]) -> str:
    """When a level ends, as `30 to 80 requests or 60 s each`."""
    requests = _range(one.limits.requests for one in levels)
    seconds = _range(one.limits.duration_s for one in levels)
    return " or ".join([f"{requests} requests"] * bool(requests) + [f"{seconds} s"] * bool(seconds)) + " each"


def _range(values: Iterable[float | None]) -> str:
    given = [value for value in values if value is not None]
    if not given:
        return ""
    low, high = min(given), max(given)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _span(steps: Plan) -> str:
    """As `about 5 to 15 min`."""
    low, low_unit = _time(steps.shortest_s)
    high, high_unit = _time(steps.longest_s)
    if low_unit != high_unit:
        return f"about {low} {low_unit} to {high} {high_unit}"
    return f"about {low} {low_unit}" if low == high else f"about {low} to {high} {high_unit}"


def _time(seconds: float) -> tuple[str, str]:
    return (f"{seconds:.0f}", "s") if seconds < _MINUTES_FROM_S else (f"{seconds / 60:.0f}", "min")
