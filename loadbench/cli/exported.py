"""Where the files of `loadbench report --format hgrm` and `vllm` go: one to stdout or a file, several into a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from loadbench.store import Run


def write_files(
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
    from loadbench.cli.report import write
    from loadbench.errors import UsageError
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
    _make(output)
    for name, text in files.items():
        write(output / name, text)
    click.echo(f"wrote {len(files)} files to {output}", err=True)


def _make(folder: Path) -> None:
    from loadbench.errors import StoreError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be made: {error.strerror or error}") from error
