"""What is said and asked before a run: whom it measures, at which loads, how long that takes, whether it is meant."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from loadbench.cli.lines import about
from loadbench.runner import connect
from loadbench.runner.capacity import Grid, level_of
from loadbench.runner.measure import Opening, Person
from loadbench.runner.plan import Plan, PlannedLevel
from loadbench.runner.probe import CONFIRM_S, STEADY_S, Rule
from loadbench.scenario import Level, Scenario
from loadbench.server import Choice, Target
from loadbench.text import harmless

_LISTED = 40  # models, to a person who is to choose


@dataclass(frozen=True, slots=True)
class Terminal(Person):
    """The person at this terminal, if there is one to be asked."""

    as_json: bool

    @property
    def _answers(self) -> bool:
        return not self.as_json and sys.stdin.isatty() and sys.stderr.isatty()

    def lines(self, opening: Opening) -> list[str]:
        """All that is said of what a run is about to do."""
        first, last = opening.prepared[0], opening.prepared[-1]
        scenario = first.scenario
        text: list[str] = []
        for one in opening.prepared:
            name, how = one.side.name or "target", one.side.location.how
            text += whom(one.server, how, one.choice, name, others=one.servers[1:], weights=one.scenario.weights)
        workers = []
        if isinstance(first.spread, int):
            processes = "process" if first.spread == 1 else "processes"
            workers.append(f"workers   {first.spread} {processes} of this machine share each level")
        elif first.spread is not None:
            workers.append(f"workers   those of the Dask cluster {first.spread} share each level")
        search = [] if first.grid is None else _search(scenario, first.grid, first.models, opening.job.budget_s)
        return text + what(
            opening.plan,
            last.to_come.levels or first.to_come.levels,
            last.models,
            len(first.side.questions),
            opening.folder,
            search=search,
            fails_if=threshold_lines(scenario, search=first.grid is not None),
            key=connect.key_source(scenario.api_key_env, scenario.api_key_file, first.side.location.how),
            done=sum(len(one.done) for one in opening.prepared),
            workers=workers,
            dry_run=opening.job.limits.dry_run,
        )

    def choose(self, question: str, names: Sequence[str]) -> list[str] | None:
        """Which of these models are meant."""
        if not self._answers:
            return None
        click.echo(f"{question}:", err=True)
        for number, name in enumerate(names[:_LISTED], start=1):
            click.echo(f"{number:4}  {harmless(name)}", err=True)
        if len(names) > _LISTED:
            click.echo(f"      and {len(names) - _LISTED} more", err=True)
        answer = str(click.prompt("Which ones (numbers or names, as 1,3, or all)", err=True))
        return [word.strip() for word in answer.split(",") if word.strip()]

    def confirm(self, question: str) -> bool | None:
        return click.confirm(question, err=True) if self._answers else None


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
        name: What the server is to the run.
        others: Which take the requests in turns with it, by their weights.
    """
    where, *more = [f"{one.base_url} ({' '.join(filter(None, (one.kind, one.version)))})" for one in (server, *others)]
    if not server.base_url:
        where = "(not started)"
    text = [f"{name:<10}{where}, {how}", *(f"{'and':<10}{one}" for one in more)]
    if others:
        parts = weights or [1] * (1 + len(others))
        text.append(f"in turns  {':'.join(map(str, parts))} of the requests")
    text.append(f"models    {', '.join(one.id for one in choice.chosen)}")
    return text + [f"absent    {one.reason}: skipped" for one in choice.absent]


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
        levels, models: Those of one target.
        search, fails_if, workers: Lines on what is searched for, what fails the run, who shares the load.
        key: The variable that holds the server's key.
        done: Levels of a resumed run that are complete.
    """
    text = [] if key is None else [f"key       from {key}"]
    if done:
        text.append(f"complete  {done} of {done + len(steps.levels)} levels already")
    text += search
    if levels:
        turns = ", base and new in turns" if len(steps.levels) > len(levels) else ""
        text.append(f"levels    {_loads(levels, models)}{turns}; {_ends(levels)}")
    if again := dict.fromkeys(_name(one.level) for one in levels if one.level.closing):
        text.append(f"again     {', '.join(again)} at the end, for the noise band (--no-repeat-first leaves it out)")
    if levels or search:
        text.append(f"prompts   {prompts}; results in {path}")
    if levels:
        assumption = f" ({steps.assumption})" if steps.assumption else ""
        text.append(f"time      {about(steps.shortest_s, steps.longest_s)}{assumption}")
    text += workers
    text += [f"budget    {cut}" for cut in steps.cuts]
    text += fails_if
    if dry_run:
        text.append("dry run   nothing was measured, nothing was written")
    return text


def _loads(levels: Sequence[PlannedLevel], models: Sequence[str]) -> str:
    """As `c1, c4 (streams at once)`: how the levels are called, and what that means."""
    names = dict.fromkeys(_name(one.level) for one in levels)
    times = len({one.level.repeat for one in levels})
    often = f", {times} times" if times > 1 else ""
    meaning = "streams at once" if levels[0].level.concurrency is not None else "requests started per second"
    each = " for each model" if len(models) > 1 else ""
    return f"{', '.join(names)} ({meaning}){each}{often}"


def _name(level: Level) -> str:
    """As `c4`, whichever time it is."""
    return re.sub(r"#(\d+|end)$", "", level.id.rpartition("@")[2])


def _ends(levels: Sequence[PlannedLevel]) -> str:
    """When a level ends, as `30 to 80 requests or 60 s each`."""
    ends = []
    for unit, name in (("requests", "requests"), ("s", "duration_s")):
        values = [value for one in levels if (value := getattr(one.limits, name)) is not None]
        if values:
            low, high = min(values), max(values)
            ends.append(f"{low:.3g} {unit}" if low == high else f"{low:.3g} to {high:.3g} {unit}")
    return f"{' or '.join(ends)} each"


def _search(scenario: Scenario, grid: Grid, models: Sequence[str], budget_s: float | None) -> list[str]:
    """What is searched for, and how."""
    rule = Rule.of(scenario.bounds, level_of("", grid, grid.start, 1), scenario.requests)
    streams = grid.by == "concurrency"
    each, meaning = ("c", "streams at once") if streams else ("r", "requests started per second")
    ends = [f"{rule.sizes[-1]} requests"]
    if scenario.duration is not None:
        ends.append(str(scenario.duration))
    looks = f"judged after {', '.join(map(str, rule.sizes))}, each time by an interval of {100 * rule.confidence:.4g} %"
    if not streams:
        looks += (
            f"; met only where its queue is steady for {STEADY_S:g} s after a warm-up, for {CONFIRM_S:g} s or as "
            "long as the SLO needs where the answer is confirmed"
        )
    if budget_s is not None:
        end = f"{budget_s:g} s at most, by --budget"
    elif streams:
        end = "open; --budget 10m sets an end"
    else:
        first_s, last_s = rule.sizes[0] / grid.start, rule.warmed_up_s
        end = (
            f"a probe that meets it takes {max(first_s, last_s):.0f} s at r{grid.start:g} and {last_s:.0f} s or more "
            "at higher rates; a search of 10 to 15 probes 10 to 20 minutes; --budget 10m sets an end, --from N begins "
            "nearer to it"
        )
    return [
        f"slo       {', '.join(scenario.slo)}",
        f"search    {each}{grid.start:g} ({meaning}), doubled up to {each}{grid.most:g} until the SLO fails, then "
        f"bisected to {100 * grid.within:g} %{' for each model' if len(models) > 1 else ''}",
        f"probes    of up to {' or '.join(ends)}, more at higher loads; {looks}",
        f"time      {end}",
    ]


def threshold_lines(scenario: Scenario, *, search: bool) -> list[str]:
    """What fails the run; a search tries loads that fail, so it judges none."""
    thresholds = scenario.thresholds
    if not thresholds:
        return []
    if search:
        texts = ", ".join(one.text for one in thresholds)
        return [f"fail_if   {texts}: not judged, a search tries loads that fail"]
    texts = "; ".join(f"{one.text} (aborts after {one.after_s:g} s)" if one.abort else one.text for one in thresholds)
    # k6 and --slo write what is to hold, which here is the failure.
    odd = [one.text for one in thresholds if one.bound.op.startswith("<") != one.bound.figure.more_is_better]
    return [f"fails if  {texts}"] + [
        f"          {text}: that fails a run for doing well; turn the sign unless that is meant" for text in odd
    ]
