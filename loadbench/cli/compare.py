"""`loadbench compare`: which of two runs is faster, and how sure that is; or of the models of one run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import click

from loadbench import compare as comparing
from loadbench import report, store
from loadbench.cli.options import FILE, FILE_OF_END, MORE, RUN, Command, Parsed, or_last, share, under
from loadbench.cli.surroundings import note, put, write
from loadbench.compare import MEANT, Group, Terms
from loadbench.errors import FAILED, UsageError
from loadbench.report import comparison, text
from loadbench.report import junit as junit_report
from loadbench.scenario.bounds import Bound, check_written
from loadbench.store.folder import sides

Read = Callable[[Path], store.Run]
_EPILOG = """\b
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
sides that differ in more than what is compared (different-setup), leave
the figures and take the verdict away.

\b
Exit: 0 whatever the verdict, unless --fail-on or --strict; 2 arguments or
files; 3 a verdict that --fail-on names, or none where one of both is given.
"""
_FEWEST_RUNS = 3
"""Runs a side from which a build may fail by them without a word."""
_WORDS = ("slower", "worse", "faster", "better", "same", "can't-tell")


def _fail_on(text: str) -> tuple[str, ...]:
    """The words of slower,can't-tell as verdicts have them."""
    words = [word.strip().lower().replace("cant", "can't").replace(" ", "-") for word in text.split(",")]
    for word in words:
        if word and word not in _WORDS:
            raise ValueError(f"{word!r}: write {', '.join(_WORDS)}, several as slower,can't-tell")
    return tuple(word.replace("-", " ") for word in words if word)


def _margin(text: str) -> float:
    margin = share(text)
    if margin == 0:
        raise ValueError("a margin of 0 can never be held: write 4% or more")
    return margin


_what, _terms, _out = under("What"), under("On which terms"), under(MORE)
_MARGIN = Parsed(_margin)
_SHARE_MARGIN_HELP = "Shares (failed, attainment) that differ by less are the same.  [default: 1%]"
_METRIC_HELP = "Judge this, as ttft, ttft_p95, itl_p99, failed. May be repeated.  [default: the usual six]"
_EXPECT_HELP = "What differs on purpose, as 'server version'. Repeatable."


@click.command(cls=Command, epilog=_EPILOG)
@click.argument("folders", metavar="[BASE [NEW …]]", nargs=-1, type=RUN, callback=or_last)
@_what("--base", type=RUN, metavar="DIR", help="BASE; all folders given are NEW then.")
@_what("--base-model", metavar="NAME", help="Of models of one run, the one to compare with.  [default: the first]")
@_what("--expect", "expected", multiple=True, metavar="NAME", help=_EXPECT_HELP)
@_terms("--margin", type=_MARGIN, default="10%", metavar="10%", help="Ratios within it are the same.  [default: 10%]")
@_terms("--share-margin", type=_MARGIN, default="1%", metavar="1%", help=_SHARE_MARGIN_HELP)
@_terms("--metric", "metrics", multiple=True, metavar="M", help=_METRIC_HELP)
@_terms("--slo", multiple=True, metavar="BOUND", help="Judge attainment of this, as ttft_p95=800ms, too.")
@_terms(
    "--fail-on",
    type=Parsed(_fail_on),
    default=(),
    metavar="WORDS",
    help="Exit 3 on these: slower (worse too), can't-tell, …",
)
@_terms("--strict", is_flag=True, help="Exit 3 on can't tell and on no verdict.")
@_out(
    *("--format", "kind"),
    type=click.Choice(["text", "markdown", "json"]),
    default="text",
    help="What to print.  [default: text]",
)
@_out("--explain", is_flag=True, help="Print every verdict with its interval, and the method.")
@_out("-o", "--output", type=FILE, metavar="FILE", help="Write there, not to stdout.")
@_out("--junit", type=FILE_OF_END, metavar="FILE", help="Write JUnit XML for CI there, too.")
def compare(
    folders: tuple[Path, ...],
    base: Path | None,
    base_model: str | None,
    expected: tuple[str, ...],
    margin: float,
    share_margin: float,
    metrics: tuple[str, ...],
    slo: tuple[str, ...],
    fail_on: tuple[str, ...],
    strict: bool,
    kind: str,
    explain: bool,
    output: Path | None,
    junit: Path | None,
) -> int:
    """Compare runs: faster, slower, same, or can't tell.

    Each folder NEW is compared with BASE. Requests are paired by prompt, each metric of each level gets a word by its
    interval against the margin, and all levels together one more. With one folder alone the models of that run are
    compared with each other; one that `run --against` wrote has both sides in it. "last" is the newest run in results/,
    and is taken where no folder is named.
    """
    if explain and kind != "text":
        raise UsageError(f"--explain is for --format text; {kind} always has every verdict: leave it out")
    for name in expected:
        if name not in comparing.NAMES:
            known = ", ".join(comparing.NAMES)
            raise UsageError(f"--expect {name!r}: there is no such difference: write one of {known}")
    for name in metrics:
        comparing.figure(name)
    for bound in slo:
        check_written(Bound.parse(bound))
    if base is None and len(folders) == 1 and (both := sides(folders[0])):
        folders, expected = tuple(both), (*expected, *MEANT)
    if base is None:
        base, *rest = folders
        folders = tuple(rest)
    if metrics and slo:
        metrics = (*metrics, "attainment")
    terms = Terms(margin=margin, share_margin=share_margin, metrics=metrics or None, meant=expected)
    read = cache(store.read)  # both sides may have the same earlier runs
    group = _group(base, slo, folders, read)
    if not folders:
        records = _models(group, base, base_model, terms)
    elif base_model is not None:
        raise UsageError("--base-model is for the models of one run: give one folder, or leave it out")
    else:
        records = [_against(group, base, folder, slo, terms, read) for folder in folders]
    document = comparing.document(records)
    if kind == "text" and output is None:
        compose = comparison.document if explain else comparison.brief
        text.show(compose(document), text.console(sys.stdout))
    else:
        put(report.COMPARISONS[kind](document), output)
    if fail_on:
        _warn_of_few_runs(records)
    if junit is not None:
        write(junit, junit_report.of_comparison(document, strict=strict))
    return FAILED if any(_fails(record, fail_on, strict=strict) for record in records) else 0


def _group(folder: Path, slo: tuple[str, ...], apart: Sequence[Path], read: Read) -> Group:
    """One side: a run folder, or a folder that holds several; `apart` are those of the other side."""
    paths = [folder]
    if folder.is_dir() and not (folder / "run.json").exists():
        paths = sorted(path.parent for path in folder.glob("*/run.json"))
        if not paths:
            raise UsageError(
                f"{folder}: is no run folder, and holds none: runs are in results/ unless -o said otherwise"
            )
    runs = [read(path) for path in paths]
    group = comparing.gather(runs, folder.resolve().name, slo=slo or None, apart=apart, read=read)
    if not group.sides:
        raise UsageError(
            f"{folder}: no level of it ran to its end with an answer, so there is nothing to compare; go on with "
            f"`loadbench run --resume {paths[-1]}`"
        )
    return group


def _models(group: Group, folder: Path, base_model: str | None, terms: Terms) -> list[dict[str, Any]]:
    """The models of one run: the first, or the one that was named, against each other one."""
    models = group.models
    first = base_model or models[0]
    if first not in models:
        raise UsageError(f"--base-model {first!r}: {folder} has no such model, it has {', '.join(models)}")
    if len(models) == 1:
        raise UsageError(f"{folder}: has one model, {first}: give a second run folder to compare it with")
    return [comparing.compare_models(group, first, other, terms) for other in models if other != first]


def _against(group: Group, base: Path, folder: Path, slo: tuple[str, ...], terms: Terms, read: Read) -> dict[str, Any]:
    """One folder NEW against BASE."""
    if folder.resolve() == base.resolve():
        raise UsageError(f"{folder}: is BASE and NEW at once: give two folders")
    new = _group(folder, slo, (base,), read)
    if not comparing.matched(group.sides, new.sides):
        raise UsageError(
            f"no level in common: BASE {base} has {_loads(group)}; NEW {folder} has {_loads(new)}: "
            "measure both with the same models and loads"
        )
    if new.name == group.name:
        group, new = replace(group, name=str(base)), replace(new, name=str(folder))
    return comparing.compare_runs(group, new, terms)


def _loads(group: Group) -> str:
    """The levels of a side: "phi at c1, c4; qwen at c1"."""
    loads: dict[str, list[str]] = {}
    for model, load in group.sides:
        loads.setdefault(model, []).append(load)
    return "; ".join(f"{model} at {', '.join(names)}" for model, names in loads.items())


def _warn_of_few_runs(records: Sequence[Mapping[str, Any]]) -> None:
    """Why a build that fails by so few runs may fail by chance."""
    fewest = min(min(level["runs_base"], level["runs_new"]) for record in records for level in record["levels"])
    if fewest >= _FEWEST_RUNS:
        return
    runs = "one run" if fewest == 1 else f"{fewest} runs"
    note(
        f"loadbench: --fail-on rests on {runs} a side, which hardly say how much runs differ: measure three pairs or "
        "more, as `loadbench run --against URL --repeat 3`"
    )


def _fails(record: Mapping[str, Any], fail_on: tuple[str, ...], *, strict: bool) -> bool:
    """Whether a comparison is one that --fail-on or --strict refuse: what cannot be judged passes neither."""
    words = {one["word"] for one in record["over_levels"]}
    for level in record["levels"]:
        words |= {one["word"] for one in level["verdicts"]}
    if (fail_on or strict) and "no verdict" in {*words, record["word"]}:
        return True
    # A single level that cannot be told counts only where all levels together leave it open.
    words.discard("can't tell")
    if unsettled(record):
        if strict:
            return True
        words.add("can't tell")
    refused = set(fail_on)
    if "slower" in refused:
        refused.add("worse")
    if "faster" in refused:
        refused.add("better")
    refused_by_level = refused & {"slower", "worse", "faster", "better", "can't tell"}
    return bool(words & refused_by_level) or record["word"] in refused


def unsettled(record: Mapping[str, Any]) -> bool:
    """Whether nobody can tell if a comparison's sides are the same: nothing differs, and not all was settled."""
    return record["word"] == "can't tell" or (record["word"] == "same" and bool(record["open"]))
