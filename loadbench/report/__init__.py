"""Reports of a run, one module a format: they take the summary alone and compute no statistic.

`write` puts the files into the run folder; `FORMATS` renders one of them as text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Render = Callable[[Mapping[str, Any]], str]


def _text(summary: Mapping[str, Any]) -> str:
    from loadbench.report import text

    return text.render(summary)


def _markdown(summary: Mapping[str, Any]) -> str:
    from loadbench.report import markdown

    return markdown.render(summary)


def _csv(summary: Mapping[str, Any]) -> str:
    from loadbench.report import csv

    return csv.render(summary)


def _json(summary: Mapping[str, Any]) -> str:
    from loadbench.report import json

    return json.render(summary)


def _html(summary: Mapping[str, Any]) -> str:
    from loadbench.report import html

    return html.render(summary)


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
