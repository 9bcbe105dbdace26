"""Reports of a choice, one module a format: they take the record of `loadbench.select` alone.

words.py    what is said of it in sentences
tables.py   the rank, the figures, the needs
text.py markdown.py   a terminal; a decision record
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Record = Mapping[str, Any]
Render = Callable[[Record], str]


def _text(record: Record) -> str:
    from loadbench.report.choice import text

    return text.render(record)


def _markdown(record: Record) -> str:
    from loadbench.report.choice import markdown

    return markdown.render(record)


def _json(record: Record) -> str:
    from loadbench.report import json
    from loadbench.report.choice import words

    return json.render({**record, "words": words.all_of(record)})


FORMATS: Mapping[str, Render] = {"text": _text, "markdown": _markdown, "json": _json}
"""How each format is rendered, from what `select.choose` returns."""
