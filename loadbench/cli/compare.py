"""`loadbench compare`: which of two runs is faster, and how sure that is; or of the models of one run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loadbench.cli.options import MORE, HeadedCommand, file_of_end, under
from loadbench.cli.options import share as part

if TYPE_CHECKING:
    from loadbench.compare import Group, Terms

EPILOG = """\b
Examples:
  loadbench compare results/before results/after
  loadbench compare results/before results/after --margin 4% --metric ttft
  loadbench compare --base results/baseline results/one results/other
  loadbench compare results/b1 results/b2 --expect "server version"
  loadbench compare results/models          its models against each other
  loadbench compare results/before results/after --fail-on slower

\b
A folder that holds several run folders is one side of as many runs: with
five runs a side the verdict knows what changes from run to run.
Words: faster, slower, same, can't tell (about k more runs); of shares better
and worse; slightly slower is sure, but within the margin. A red gate, or
sides that differ in more than what is compared (V8), leave the figures and
take the verdict away.

\b
Exit: 0 whatever the verdict, unless --fail-on or --strict; 2 arguments or
files; 3 a verdict that --fail-on names, or none where one of both is given.
"""
FEWEST_RUNS = 3
"""Runs a side from which a build may fail by them without a word."""
WORDS = ("slower", "worse", "faster", "better", "same", "can't-tell")

_what, _terms, _out = under("What"), under("On which terms"), under(MORE)
_FOLDER = click.Path(path_type=Path)
_OWN = {"variable": False}


def _fail_on(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    """A callback for slower,can't-tell."""
    words = [word.strip().lower().replace("cant", "can't").replace(" ", "-") for word in (value or "").split(",")]
    for word in words:
        if word and word not in WORDS:
            raise click.BadParameter(f"{word!r}: write {', '.join(WORDS)}, several as slower,can't-tell", ctx, param)
    return tuple(word.replace("-", " ") for word in words if word)


def _margin(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    found = part(ctx, param, value)
    if found == 0:
        raise click.BadParameter("a margin of 0 can never be held: write 4% or more", ctx, param)
    return found


@click.command(cls=HeadedCommand, epilog=EPILOG)
@click.argument("folders", metavar="BASE [NEW …]", nargs=-1, required=True, type=_FOLDER)
@_what("--base", type=_FOLDER, metavar="DIR", help="BASE; all folders given are NEW then.", **_OWN)
@_what(
    "--base-model", metavar="NAME", help="Of models of one run, the one to compare with.  [default: the first]", **_OWN
)
@_what(
    *("--expect", "expected"),
    multiple=True,
    metavar="NAME",
    help="What is compared on purpose, as 'server version': no reason against a verdict. May be repeated.",
    **_OWN,
)
@_terms(
    "--margin",
    callback=_margin,
    default="10%",
    metavar="10%",
    help="Ratios within it are the same.  [default: 10%]",
    **_OWN,
)
@_terms(
    "--share-margin",
    callback=_margin,
    default="1%",
    metavar="1%",
    help="Shares (failed, attainment) within so many points are the same.  [default: 1%]",
    **_OWN,
)
@_terms(
    *("--metric", "metrics"),
    multiple=True,
    metavar="M",
    help="Judge this, as ttft, ttft_p95, itl_p99, failed. May be repeated.  [default: the usual six]",
    **_OWN,
)
@_terms("--slo", multiple=True, metavar="BOUND", help="Judge attainment of this, as ttft_p95=800ms, too.", **_OWN)
@_terms(
    "--fail-on", callback=_fail_on, metavar="WORDS", help="Exit 3 on these: slower (worse too), can't-tell, …", **_OWN
)
@_terms("--strict", is_flag=True, help="Exit 3 where nobody can tell, or no verdict may be given.", **_OWN)
@_out(
    *("--format", "kind"),
    type=click.Choice(["text", "markdown", "json"]),
    default="text",
    help="What to print.  [default: text]",
    **_OWN,
)
@_out(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write there, not to stdout.",
    **_OWN,
)
@_out(
    "--junit",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=file_of_end,
    metavar="FILE",
    help="Write JUnit XML for CI there, too.",
    **_OWN,
)
def compare(folders: tuple[Path, ...], **given: Any) -> None:
    """Compare runs: faster, slower, same, or can't tell.

    Each folder NEW is held against BASE. Requests are paired by prompt, each metric of each level gets a word by its
    interval against the margin, and all levels together one more. With one folder alone the models of that run are
    compared with each other; one that `run --against` wrote has both sides in it.
    """
    from loadbench import compare as comparing
    from loadbench import report as reports
    from loadbench.store import sides

    _check(given)
    if given["base"] is None and len(folders) == 1 and (both := sides(folders[0])):
        from loadbench.runner.outcome import MEANT

        folders, given["expected"] = tuple(both), (*given["expected"], *MEANT)
    terms = comparing.Terms(
        margin=given["margin"],
        share_margin=given["share_margin"],
        metrics=_metrics(given),
        meant=given["expected"],
    )
    records = _records(folders, given, terms)
    document = comparing.document(records)
    kind, output = given["kind"], given["output"]
    if output is not None:
        from loadbench.cli.report import write

        write(output, reports.COMPARISONS[kind](document))
    elif kind == "text":
        from loadbench.report import comparison, text

        text.show(comparison.document(document), text.console(sys.stdout))
    else:
        click.echo(reports.COMPARISONS[kind](document).encode(), nl=False)
    if given["fail_on"]:
        _warn_of_few_runs(records)
    if given["junit"] is not None:
        from loadbench.cli.report import write
        from loadbench.report import junit

        write(given["junit"], junit.of_comparison(document, strict=given["strict"]))
    if any(_fails(record, given["fail_on"], strict=given["strict"]) for record in records):
        click.get_current_context().exit(3)


def _check(given: dict[str, Any]) -> None:
    """What can be said before a folder is read: unknown names, metrics and bounds."""
    from loadbench.compare import NAMES, figure
    from loadbench.errors import UsageError
    from loadbench.scenario.bounds import Bound, check_written

    for name in given["expected"]:
        if name not in NAMES:
            raise UsageError(f"--expect {name!r}: there is no such difference: write one of {', '.join(NAMES)}")
    for name in given["metrics"]:
        figure(name)
    for bound in given["slo"]:
        check_written(Bound.parse(bound))


def _metrics(given: dict[str, Any]) -> tuple[str, ...] | None:
    """The metrics that were named; with bounds, attainment among them."""
    named: tuple[str, ...] = given["metrics"]
    return (*named, "attainment") if named and given["slo"] else named or None


def _records(folders: tuple[Path, ...], given: dict[str, Any], terms: Terms) -> list[dict[str, Any]]:
    from loadbench import compare as comparing
    from loadbench.errors import UsageError

    base, news = given["base"], folders
    if base is None:
        base, *news_ = folders
        news = tuple(news_)
    slo = given["slo"] or None
    found = _group(base, slo, news)
    if not news:
        return _models(found, base, given, terms)
    if given["base_model"] is not None:
        raise UsageError("--base-model is for the models of one run: give one folder, or leave it out")
    records = []
    for folder in news:
        if folder.resolve() == base.resolve():
            raise UsageError(f"{folder}: is BASE and NEW at once: give two folders")
        new = _group(folder, slo, (base,))
        if not comparing.matched(found.sides, new.sides):
            raise UsageError(
                f"no level in common: BASE {base} has {_loads(found)}; NEW {folder} has {_loads(new)}: "
                "measure both with the same models and loads"
            )
        if new.name == found.name:
            records.append(
                comparing.compare_runs(replace(found, name=str(base)), replace(new, name=str(folder)), terms)
            )
        else:
            records.append(comparing.compare_runs(found, new, terms))
    return records


def _models(group: Group, folder: Path, given: dict[str, Any], terms: Terms) -> list[dict[str, Any]]:
    """The models of one run: the first, or the one that was named, against each other one."""
    from loadbench import compare as comparing
    from loadbench.errors import UsageError

    models = group.models
    first = given["base_model"] or models[0]
    if first not in models:
        raise UsageError(f"--base-model {first!r}: {folder} has no such model, it has {', '.join(models)}")
    if len(models) == 1:
        raise UsageError(f"{folder}: has one model, {first}: give a second run folder to compare it with")
    return [comparing.compare_models(group, first, other, terms) for other in models if other != first]


def _group(folder: Path, slo: tuple[str, ...] | None, apart: Sequence[Path]) -> Group:
    """One side: a run folder, or a folder that holds several; `apart` are those of the other side."""
    from loadbench import compare as comparing
    from loadbench import store
    from loadbench.errors import UsageError

    paths = [folder]
    if folder.is_dir() and not (folder / "run.json").exists():
        paths = sorted(path.parent for path in folder.glob("*/run.json"))
        if not paths:
            raise UsageError(
                f"{folder}: is no run folder, and holds none: runs are in results/ unless -o said otherwise"
            )
    group = comparing.gather([store.read(path) for path in paths], folder.resolve().name, slo=slo, apart=apart)
    if not group.sides:
        raise UsageError(
            f"{folder}: no level of it ran to its end with an answer, so there is nothing to compare; go on with "
            f"`loadbench run --resume {paths[-1]}`"
        )
    return group


def _loads(group: Group) -> str:
    """The levels of a side: "phi at c1, c4; qwen at c1"."""
    loads: dict[str, list[str]] = {}
    for model, load in group.sides:
        loads.setdefault(model, []).append(load)
    return "; ".join(f"{model} at {', '.join(names)}" for model, names in loads.items())


def _warn_of_few_runs(records: Sequence[dict[str, Any]]) -> None:
    """Why a build that fails by so few runs may fail by chance."""
    fewest = min(min(level["runs_base"], level["runs_new"]) for record in records for level in record["levels"])
    if fewest >= FEWEST_RUNS:
        return
    runs = "one run" if fewest == 1 else f"{fewest} runs"
    click.echo(
        f"loadbench: --fail-on rests on {runs} a side, which hardly say how much runs differ: measure three pairs or "
        "more, as `loadbench run --against URL --repeat 3`",
        err=True,
    )


def _fails(record: dict[str, Any], words: tuple[str, ...], *, strict: bool) -> bool:
    """Whether a comparison is one that --fail-on or --strict refuse: what cannot be judged passes neither."""
    said = {one["word"] for level in record["levels"] for one in level["verdicts"]} - {"can't tell"}
    said |= {one["word"] for one in record["over_levels"]} - {"can't tell"}
    if (words or strict) and (record["word"] == "no verdict" or "no verdict" in said):
        return True
    if strict and unsettled(record):
        return True
    said |= {"can't tell"} if unsettled(record) else set()
    one_level = said & {"slower", "worse", "faster", "better", "can't tell"}
    wanted = {*words, *(("worse",) if "slower" in words else ()), *(("better",) if "faster" in words else ())}
    return bool(wanted & {*one_level, record["word"]})


def unsettled(record: dict[str, Any]) -> bool:
    """Whether nobody can tell if a comparison's sides are the same: nothing differs, and not all was settled."""
    return record["word"] == "can't tell" or (record["word"] == "same" and bool(record["open"]))
