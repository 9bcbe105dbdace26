"""`loadbench report` and `results`: a run folder read again and printed in one of the formats; and which there are."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from loadbench import report as reports
from loadbench import select, store
from loadbench.cli.options import FILE_OF_END, PATH, RUN, Command, or_last
from loadbench.cli.surroundings import data, note, put, say, write
from loadbench.errors import FAILED, StoreError, UsageError
from loadbench.report import FORMATS, brief, exports, listing, matrix, objectives, text
from loadbench.report import junit as junit_report
from loadbench.report import run as run_report
from loadbench.store import Run


@click.command(
    cls=Command,
    epilog="""\b
Examples:
  loadbench report last --full
  loadbench report last --format markdown --brief    to paste in an issue
  loadbench report last --format llama-bench         rows as that tool's
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
""",
)
@click.argument("folders", metavar="[RUN …]", nargs=-1, type=RUN, callback=or_last)
@click.option(
    *("--format", "kind"),
    type=click.Choice([*FORMATS, *exports.FORMATS]),
    default="text",
    show_default=True,
    help="What to print.",
)
@click.option(
    *("-o", "--output"),
    type=PATH,
    metavar="FILE",
    help="Write there, not to stdout; of several files, into this folder.",
)
@click.option(
    "--full/--brief", default=None, help="Of text and markdown: all of it, or one screen.  [default: text --brief]"
)
@click.option("--open", "opens", is_flag=True, help="Open report.html in a browser.")
@click.option("--level", "levels", multiple=True, metavar="ID", help="Of hgrm and vllm: this level, as c4. Repeatable.")
@click.option(
    "--metric", "metrics", multiple=True, metavar="M", help="Of hgrm: ttft, itl, tpot, e2e, client_lag or client_wait."
)
@click.option("--junit", type=FILE_OF_END, metavar="FILE", help="Write JUnit XML for CI there, too.")
@click.option(
    "--strict", is_flag=True, help="Exit 3 where a threshold of the run failed or is not known, or a gate is red."
)
def report(
    folders: tuple[Path, ...],
    kind: str,
    output: Path | None,
    full: bool | None,
    opens: bool,
    levels: tuple[str, ...],
    metrics: tuple[str, ...],
    junit: Path | None,
    strict: bool,
) -> int:
    """Print the report of the run in folder RUN, or of the newest one.

    "last" is the newest run in results/. One screen has the answer, --full all of it.

    With --format html, several RUNs make one page, side by side.

    All figures are computed again from the folder's records; its summary.json, report.md, report.html and
    summary.csv are written again too.
    """
    if kind not in exports.FORMATS:
        if levels or metrics:
            raise UsageError(f"{'--level' if levels else '--metric'} is for --format hgrm and vllm, not for {kind}")
        if output is not None and output.is_dir():
            raise UsageError(f"{output}: is a folder; name a file with -o")
    if full is not None and kind not in ("text", "markdown"):
        raise UsageError(f"{'--full' if full else '--brief'} is for --format text and markdown, not for {kind}")
    if len(folders) > 1:
        if kind != "html" or junit is not None or strict:
            raise UsageError(f"{len(folders)} runs: several go side by side with --format html alone; else name one")
        _side_by_side(folders, output)
        if opens and output is not None:
            click.launch(str(output))
        return 0
    [folder] = folders
    run = store.read(folder)
    summary = select.summarise(run)
    try:
        reports.write(summary, folder)
    except StoreError as error:
        # A folder that cannot be written, such as a mounted archive, can still be read.
        note(f"warning: {error}")
    if kind in exports.FORMATS:
        _write_exports(kind, run, summary, output, levels, metrics)
    elif kind == "text":
        document = run_report.document(summary) if full else brief.document(summary)
        if output is None:
            text.show(document, text.console(sys.stdout))
        else:
            write(output, reports.rendered(document, "text"))
    elif kind == "markdown" and full is False:
        put(reports.rendered(brief.pasted(summary), "markdown"), output)
    elif kind == "html" and output is None and sys.stdout.isatty():
        click.echo(folder / "report.html")  # no terminal shows a page
    else:
        put(FORMATS[kind](summary), output)
    if opens:
        click.launch(str(folder / "report.html"))
    if junit is not None:
        write(junit, junit_report.of_run(summary, strict=strict))
    reasons = objectives.reasons(summary, strict=True) if strict else []
    say(reasons)
    return FAILED if reasons else 0


def _write_exports(
    kind: str, run: Run, summary: Mapping[str, Any], output: Path | None, levels: Sequence[str], metrics: Sequence[str]
) -> None:
    """Write what was chosen; a folder that -o names is made where it is missing, files of the same names replaced."""
    files = exports.files(kind, run, summary, levels, metrics)
    if len(files) == 1 and (output is None or not output.is_dir()):
        (content,) = files.values()
        put(content, output)
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
    for name, content in files.items():
        write(output / name, content)
    note(f"wrote {len(files)} files to {output}")


def _side_by_side(folders: Sequence[Path], output: Path | None) -> None:
    """One page of several runs; their folders are read alone."""
    if output is None and sys.stdout.isatty():
        raise UsageError("a page of several runs needs a file: -o runs.html")
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    runs = [(name, select.summarise(store.read(folder))) for name, folder in zip(names, folders, strict=True)]
    put(reports.rendered(matrix.document(runs), "html"), output)


@click.command(
    cls=Command,
    epilog="""\b
Examples:
  loadbench results
  loadbench results results/nightly -n 10
  loadbench results --json | jq '.results[0].folder'

\b
Exit: 0 fine, runs that are broken or failed or not; 2 no such folder.
""",
)
@click.argument("folder", metavar="[DIR]", default="results", type=PATH)
@click.option("-n", "--last", type=click.IntRange(1), metavar="N", help="The newest N alone.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: results, and skipped folders.")
def results(folder: Path, last: int | None, as_json: bool) -> None:
    """List the runs in DIR, by default results/, newest first.

    Each with its begin, models and levels, the highest tokens/s and the TTFT there, and how it went: its status if it
    is not complete, thresholds, and the worst gates (red, then warn). Folders that are no runs are passed over with a
    note, runs that cannot be read are listed as broken.
    """
    entries, skipped = listing.entries(folder)
    shown = entries[:last]
    if as_json:
        click.echo(data({"results": [one.plain() for one in shown], "skipped": skipped}, indent=True))
        return
    if shown:
        text.show_tables([listing.table_of(shown, folder)], text.console(sys.stdout))
    for one in shown:
        if one.error is not None:
            note(f"broken: {one.error}")
    if len(entries) > len(shown):
        note(f"{len(entries) - len(shown)} older ones are not shown")
    if skipped:
        more = f" and {len(skipped) - 5} more" if len(skipped) > 5 else ""
        note(f"no runs, passed over: {', '.join(skipped[:5])}{more}")
    if not entries:
        note(f"{folder}: no run is in it yet; `loadbench run` makes one")
