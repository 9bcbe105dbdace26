"""`loadbench run --against URL`: two targets in turns, each into a run folder of its own, compared at the end."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from loadbench import scenario, store
from loadbench.cli import INTERRUPTED, measure
from loadbench.errors import UsageError
from loadbench.scenario import Scenario

MEANT = ("model", "device", "execution provider", "server", "server version")
"""What two targets may differ in: it is what they are compared for."""
SIDES = ("base", "new")


def against(asked: Scenario, given: dict[str, Any]) -> int:
    """Measure both targets, round by round: base new, new base, base new, …; the exit code.

    A round is every level once. A drift of the machine (heat, other programs) meets both alike, so that the verdict may
    set the runs of a round against each other.

    Args:
        asked: The scenario; its own target is the base.
        given: The command's options, `against` and `against_model` among them.
    """
    if given["budget"] is not None or asked.until is not None:
        raise UsageError("--against takes --repeat K: leave out --budget and --until")
    root: Path = given["output"] or measure.default_folder(asked)
    store.check_new(root)
    other = scenario.merge(asked, endpoint=given["against"], models=_models(given))
    sides = dict(zip(SIDES, (asked, other), strict=True))
    worst = 0
    for lap in range(1, asked.repeat + 1):
        for name in SIDES if lap % 2 else reversed(SIDES):
            if not given["quiet"]:
                click.echo(f"{name:<8}  round {lap} of {asked.repeat}", err=True)
            folder = root / name
            own = given | {"resume": folder} if (folder / "run.json").exists() else given | {"output": folder}
            if name == "new":
                own |= {"endpoint": given["against"], "simulate": False}
            code = measure.measure(sides[name], own, lap=lap)
            if given["dry_run"]:
                continue
            if code == INTERRUPTED:
                _tell_how_to_go_on(root, given)
                return code
            worst = max(worst, code)
    if given["dry_run"]:
        return 0
    for name in SIDES:
        measure.write_report(root / name)
    _compare(root, given)
    return worst


def _compare(root: Path, given: dict[str, Any]) -> None:
    from loadbench import compare
    from loadbench.report import comparison

    base, new = (compare.gather([store.read(root / name)], name) for name in SIDES)
    if not compare.matched(base.sides, new.sides):
        click.echo("loadbench: no level ran to its end on both sides: there is nothing to compare", err=True)
        return
    document = compare.document([compare.compare_runs(base, new, compare.Terms(meant=MEANT))])
    store.write_atomically(root / "compare.md", comparison.FORMATS["markdown"](document).encode())
    if given["as_json"]:
        click.echo(comparison.FORMATS["json"](document).encode(), nl=False)
    elif not given["quiet"]:
        from rich.console import Console

        from loadbench.report.comparison import text

        text.show(document, Console(file=sys.stdout))
        again = " ".join(shlex.quote(str(root / name)) for name in SIDES)
        click.echo(f"report    {root / 'compare.md'}\nagain     loadbench compare {again}")


def _tell_how_to_go_on(root: Path, given: dict[str, Any]) -> None:
    """A run in turns does not go on in turns: each side does, and both can be compared."""
    if given["quiet"]:
        return
    begun = [shlex.quote(str(root / name)) for name in SIDES if (root / name / "run.json").exists()]
    steps = [f"loadbench run --resume {folder}" for folder in begun]
    steps += [f"loadbench compare {' '.join(begun)}"] * (len(begun) == len(SIDES))
    click.echo(f"interrupted; go on with: {'; '.join(steps)}", err=True)


def _models(given: dict[str, Any]) -> list[str] | None:
    names = [name.strip() for part in given["against_model"] for name in part.split(",") if name.strip()]
    return names or None
