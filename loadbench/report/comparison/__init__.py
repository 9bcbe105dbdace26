"""Reports of comparisons, one module a format: they take the records of `loadbench.compare` alone.

words.py     what is said of a comparison in sentences
tables.py    its verdicts, level by level and over levels
doubts.py    what the sides differ in, and which gates spoke
of_run.py    the models of one run, for its own report
text.py markdown.py junit.py   a terminal, GitHub, CI servers
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Document = Mapping[str, Any]
Render = Callable[[Document], str]


def _text(document: Document) -> str:
    from loadbench.report.comparison import text

    return text.render(document)


def _markdown(document: Document) -> str:
    from loadbench.report.comparison import markdown

    return markdown.render(document)


def _json(document: Document) -> str:
    from loadbench.report import json

    return json.render(document)


FORMATS: Mapping[str, Render] = {"text": _text, "markdown": _markdown, "json": _json}
"""How each format is rendered, from what `compare.document` returns."""
