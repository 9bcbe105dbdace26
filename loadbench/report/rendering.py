"""A document in each format; the libraries of a format are imported when it is rendered."""

from __future__ import annotations

from loadbench.report.document import Document
from loadbench.report.levels import Record
from loadbench.text import in_json


def text(document: Document) -> str:
    """At most 100 columns wide, without colour."""
    from loadbench.report import text

    return text.render(document)


def markdown(document: Document) -> str:
    from loadbench.report import markdown

    return markdown.render(document)


def html(document: Document) -> str:
    from loadbench.report.html import page

    return page.render(document)


def json(record: Record) -> str:
    """A record as JSON: sorted keys and one value a line, so that two diff well; NaN becomes null.

    >>> print(json({"b": None, "a": 1}), end="")
    {
      "a": 1,
      "b": null
    }
    """
    import orjson

    options = orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY
    return in_json(orjson.dumps(record, option=options).decode())
