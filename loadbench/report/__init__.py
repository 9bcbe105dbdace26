"""Reports, from what `metrics`, `compare` and `select` made of runs; no statistic is computed here.

document.py               what a report is made of: blocks, tables, plots
run.py comparison.py choice.py listing.py   one composition a subject
text.py markdown.py html/                   one renderer a format
csv.py exports.py junit.py                  formats for machines

`write` puts the files of a run into its folder; `FORMATS` renders one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Render = Callable[[Mapping[str, Any]], str]


def _text(summary: Mapping[str, Any]) -> str:
    from loadbench.report import rendering, run

    return rendering.text(run.document(summary))


def _markdown(summary: Mapping[str, Any]) -> str:
    from loadbench.report import rendering, run

    return rendering.markdown(run.document(summary))


def _html(summary: Mapping[str, Any]) -> str:
    from loadbench.report import rendering, run

    return rendering.html(run.document(summary, plots=True))


def _csv(summary: Mapping[str, Any]) -> str:
    from loadbench.report import csv

    return csv.render(summary)


def _json(summary: Mapping[str, Any]) -> str:
    from loadbench.report import rendering

    return rendering.json(summary)


FORMATS: Mapping[str, Render] = {"text": _text, "markdown": _markdown, "csv": _csv, "json": _json, "html": _html}
"""How each format is rendered. Each imports its library when called: `loadbench --help` needs none."""

_FILES = {"summary.json": "json", "report.md": "markdown", "summary.csv": "csv", "report.html": "html"}


def write(summary: Mapping[str, Any], run_info: Mapping[str, Any] | None, folder: Path) -> list[Path]:
    """Writes summary.json, report.md, summary.csv and report.html; each is old or new at every moment, never half.

    Args:
        summary: What `metrics.summarise` returns.
        run_info: run.json; its facts replace the summary's own `run`. None leaves those.
        folder: The run folder.
    Returns:
        The paths written.
    Raises:
        StoreError: If the folder cannot be written.
    """
    from loadbench.store import write_atomically

    whole = with_run(summary, run_info)
    contents = {folder / name: FORMATS[kind](whole).encode() for name, kind in _FILES.items()}
    for path, content in contents.items():
        write_atomically(path, content)
    return list(contents)


def with_run(summary: Mapping[str, Any], run_info: Mapping[str, Any] | None) -> dict[str, Any]:
    """The summary with the facts of run.json under `run`, levels left out: the summary has its own."""
    if run_info is None:
        return dict(summary)
    return {**summary, "run": {name: fact for name, fact in run_info.items() if name != "levels"}}
