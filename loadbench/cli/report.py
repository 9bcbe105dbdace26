"""`loadbench report`: a run folder read again, its summary computed anew, printed in one of the formats."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loadbench.cli import reach
from loadbench.cli.harmless import harmless
from loadbench.cli.options import file_of_end
from loadbench.errors import FAILED
from loadbench.report import FORMATS

if TYPE_CHECKING:
    from loadbench.store import Run

EXPORTS = ("hgrm", "vllm")
"""Formats with a file a level: report/exports.py has them."""


@click.command(
    epilog="""\b
Examples:
  loadbench report results/20260112T090000Z-cpu
  loadbench report results/20260112T090000Z-cpu --format markdown > pr.md
  loadbench report results/20260112T090000Z-cpu --format csv -o figures.csv
  loadbench report results/20260112T090000Z-cpu --format html -o cpu.html
  loadbench report results/cpu results/gpu --format html -o both.html
  loadbench report results/20260112T090000Z-cpu --junit loadbench.xml --strict
  loadbench report results/cpu --format hgrm -o percentiles
  loadbench report results/cpu --format hgrm --metric ttft --level c4
  loadbench report results/cpu --format vllm -o for-vllm-tools

\b
Formats with a file a level, into the folder that -o names: hgrm, histograms
by percentile as HdrHistogram's plotters read them; vllm, result files as
`vllm bench serve --save-result` writes them.
"""
)
@click.argument("folders", metavar="RUN …", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--format",
    "kind",
    type=click.Choice([*FORMATS, *EXPORTS]),
    default="text",
    show_default=True,
    help="What to print.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write there, not to stdout; of several files, into this folder.",
)
@click.option("--level", "levels", multiple=True, metavar="ID", help="Of hgrm and vllm: this level, as c4. Repeatable.")
@click.option("--metric", "metrics", multiple=True, metavar="M", help="Of hgrm: ttft, itl, tpot, e2e or client_lag.")
@click.option(
    "--junit",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=file_of_end,
    metavar="FILE",
    help="Write JUnit XML for CI there, too.",
)
@click.option(
    "--strict", is_flag=True, help="Exit 3 where a threshold of the run failed or is not known, or a gate is red."
)
def report(
    folders: tuple[Path, ...],
    kind: str,
    output: Path | None,
    levels: tuple[str, ...],
    metrics: tuple[str, ...],
    junit: Path | None,
    strict: bool,
) -> None:
    """Print the report of the run in folder RUN.

    With --format html, several RUNs make one page, side by side.

    All figures are computed again from the folder's records; its summary.json, report.md, report.html and
    summary.csv are written again too.
    """
    from loadbench import report as reports
    from loadbench import select, store
    from loadbench.errors import StoreError, UsageError

    if kind not in EXPORTS:
        if levels or metrics:
            raise UsageError(f"{'--level' if levels else '--metric'} is for --format hgrm and vllm, not for {kind}")
        if output is not None and output.is_dir():
            raise UsageError(f"{output}: is a folder; name a file with -o")
    if len(folders) > 1:
        if kind != "html" or junit is not None or strict:
            raise UsageError(f"{len(folders)} runs: several go side by side with --format html alone; else name one")
        _side_by_side(folders, output)
        return
    [folder] = folders
    run = store.read(folder)
    summary = select.summarise(run)
    try:
        reports.write(summary, folder)
    except StoreError as error:
        # A folder that cannot be written, such as a mounted archive, can still be read.
        click.echo(harmless(f"warning: {error}"), err=True)
    if kind in EXPORTS:
        _write_exports(kind, run, summary, output, levels, metrics)
    elif output is not None:
        write(output, FORMATS[kind](summary))
    elif kind == "text":
        _print(summary)
    elif kind == "html" and sys.stdout.isatty():
        click.echo(folder / "report.html")  # no terminal shows a page
    else:
        # Bytes, so that neither the terminal's encoding nor Windows line ends change the file.
        click.echo(FORMATS[kind](summary).encode(), nl=False)
    if junit is not None:
        from loadbench.report import junit as tests

        write(junit, tests.of_run(summary, strict=strict))
    if strict:
        from loadbench.report import objectives

        reasons = objectives.reasons(summary, strict=True)
        reach.say(reasons)
        click.get_current_context().exit(FAILED if reasons else 0)


def _write_exports(
    kind: str,
    run: Run,
    summary: Mapping[str, Any],
    output: Path | None,
    levels: Sequence[str],
    metrics: Sequence[str],
) -> None:
    """Write what was chosen; a folder that -o names is made where it is missing, files of the same names replaced.

    Raises:
        UsageError: If several files have no folder to go to, or nothing was chosen.
        StoreError: If the folder cannot be written.
    """
    from loadbench.errors import StoreError, UsageError
    from loadbench.report import exports

    files = exports.files(kind, run, summary, levels, metrics)
    if len(files) == 1 and (output is None or not output.is_dir()):
        (text,) = files.values()
        if output is None:
            click.echo(text.encode(), nl=False)
        else:
            write(output, text)
        return
    if output is None:
        choose = "--level and --metric" if kind == "hgrm" else "--level"
        raise UsageError(f"--format {kind}: {len(files)} files: name a folder for them with -o, or choose by {choose}")
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output}: is a file, and there are {len(files)} to write: name a folder with -o")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{output}: cannot be made: {error.strerror or error}") from error
    for name, text in files.items():
        write(output / name, text)
    click.echo(f"wrote {len(files)} files to {output}", err=True)


def _side_by_side(folders: Sequence[Path], output: Path | None) -> None:
    """One page of several runs; their folders are read alone."""
    from loadbench import report as reports
    from loadbench import select, store
    from loadbench.errors import UsageError
    from loadbench.report.html import matrix

    if output is None and sys.stdout.isatty():
        raise UsageError("a page of several runs needs a file: -o runs.html")
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    runs = [(name, select.summarise(store.read(folder))) for name, folder in zip(names, folders, strict=True)]
    page = reports.rendered(matrix.document(runs), "html")
    if output is not None:
        write(output, page)
    else:
        click.echo(page.encode(), nl=False)


def write(path: Path, content: str) -> None:
    """Write a report where the user says: a file whole or not at all, a pipe as it is.

    Raises:
        UsageError: If its folder is not there.
        StoreError: If it cannot be written.
    """
    from loadbench.errors import StoreError, UsageError
    from loadbench.store import write_atomically

    try:
        if not path.parent.is_dir():
            raise UsageError(f"{path}: no folder {path.parent}; make it first or choose another -o")
        if path.exists() and not path.is_file():
            path.write_text(content, encoding="utf-8")  # /dev/stderr or a pipe: must not be replaced by a file
        else:
            write_atomically(path.resolve(), content.encode())
    except (OSError, StoreError) as error:
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        why = getattr(cause, "strerror", None) or cause
        raise StoreError(f"{path}: cannot write: {why}; free some space, or name another file") from error


def _print(summary: Mapping[str, Any]) -> None:
    from loadbench.report import run, text

    text.show(run.document(summary), text.console(sys.stdout))
