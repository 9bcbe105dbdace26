"""`summary.json`: sorted keys and one value a line, so that two summaries diff well."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from loadbench.text import in_json

_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY


def render(summary: Mapping[str, Any]) -> str:
    """The summary as JSON text; NaN becomes null.

    >>> print(render({"b": None, "a": 1}), end="")
    {
      "a": 1,
      "b": null
    }
    """
    return in_json(orjson.dumps(summary, option=_OPTIONS).decode())
