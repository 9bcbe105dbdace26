"""Reports, from what `metrics`, `compare` and `select` made of runs; no statistic is computed here.

document.py               what a report is made of: blocks, tables, plots
run.py comparison.py choice.py listing.py   one composition a subject
text.py markdown.py html/                   one renderer a format
exports.py junit.py                         formats for machines

`write` puts the files of a run into its folder; `FORMATS` renders one of them. Each imports its library when called:
`loadbench --help` needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loadbench.report.document import Document

Render = Callable[[Mapping[str, object]], str]


def rendered(document: Document, kind: str) -> str:
    """A document as text (at most 100 columns wide, without colour), markdown or html."""
    from loadbench.report import html, markdown, text

    return {"text": text.render, "markdown": markdown.render, "html": html.render}[kind](document)


def json(record: Mapping[str, object]) -> str:
    """A record as JSON: sorted keys and one value a line, so that two diff well; NaN becomes null.

    >>> print(json({"b": None, "a": 1}), end="")
    {
      "a": 1,
      "b": null
    }
    """
    import orjson

    from loadbench.text import in_json

    options = orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY
    return in_json(orjson.dumps(record, option=options).decode())


def _formats(subject: str, *kinds: str) -> dict[str, Render]:
    return {kind: partial(_render, subject, kind) for kind in kinds}


def _render(subject: str, kind: str, record: Mapping[str, object]) -> str:
    # By name, and when it is rendered: rich and numpy take longer to import than most commands run.
    module = import_module(f"loadbench.report.{subject}")
    match kind:
        case "csv" | "llama-bench":
            return str(getattr(module, kind.replace("-", "_"))(record))
        case "json":  # of a choice, with its sentences
            return json({**record, "words": module.in_words(record)})
        case "html":
            return rendered(module.document(record), kind)
    return rendered(module.document(record), kind)


FORMATS: Mapping[str, Render] = {
    **_formats("run", "text", "markdown"),
    **_formats("exports", "csv", "llama-bench"),
    "json": json,
    **_formats("page", "html"),
}
"""How each format of a run is rendered, from what `metrics.summarise` returns."""
COMPARISONS: Mapping[str, Render] = {**_formats("comparison", "text", "markdown"), "json": json}
"""The same of what `compare.document` returns."""
CHOICES: Mapping[str, Render] = _formats("choice", "text", "markdown", "json")
"""The same of what `select.choose` returns."""

_FILES = {"summary.json": "json", "report.md": "markdown", "summary.csv": "csv", "report.html": "html"}


def write(summary: Mapping[str, object], folder: Path) -> list[Path]:
    """Writes summary.json, report.md, summary.csv and report.html; each is old or new at every moment, never half.

    Raises:
        StoreError: If the folder cannot be written.
    """
    from loadbench.store.files import write_atomically

    contents = {folder / name: FORMATS[kind](summary).encode() for name, kind in _FILES.items()}
    for path, content in contents.items():
        write_atomically(path, content)
    return list(contents)
