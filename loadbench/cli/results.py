"""`loadbench results`: the runs of a folder, newest first."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from loadbench.report.listing import Entry


@click.command(
    short_help="The runs in results/, newest first.",
    epilog="""\b
Examples:
  loadbench results
  loadbench results results/nightly -n 10
  loadbench results --json | jq '.results[0].folder'

\b
Exit: 0 fine, runs that are broken or failed or not; 2 no such folder.
""",
)
@click.argument("folder", metavar="[DIR]", default="results", type=click.Path(path_type=Path))
@click.option("-n", "--last", type=click.IntRange(1), metavar="N", help="The newest N alone.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: results, and skipped folders.")
def results(folder: Path, last: int | None, as_json: bool) -> None:
    """List the runs in DIR, by default results/, newest first.

    Each with its begin, models and levels, the highest tokens/s and the TTFT there, and how it went: its status if it
    is not complete, thresholds, and the worst gates (red, then warn). Folders that are no runs are passed over with a
    note, runs that cannot be read are listed as broken.
    """
    from loadbench.cli.harmless import data, harmless
    from loadbench.report import listing

    found, skipped = listing.entries(folder)
    shown = found[:last]
    if as_json:
        import orjson

        document = {"results": [one.plain() for one in shown], "skipped": skipped}
        click.echo(data(document, orjson.OPT_INDENT_2))
        return
    if shown:
        _print(shown, folder)
    for one in shown:
        if one.error is not None:
            click.echo(harmless(f"broken: {one.error}"), err=True)
    if len(found) > len(shown):
        click.echo(f"{len(found) - len(shown)} older ones are not shown", err=True)
    if skipped:
        names = ", ".join(skipped[:5]) + (f" and {len(skipped) - 5} more" if len(skipped) > 5 else "")
        click.echo(harmless(f"no runs, passed over: {names}"), err=True)
    if not found:
        click.echo(f"{folder}: no run is in it yet; `loadbench run` makes one", err=True)


def _print(shown: list[Entry], folder: Path) -> None:
    from loadbench.report import listing, text

    text.show_tables([listing.table_of(shown, folder)], text.console(sys.stdout))
