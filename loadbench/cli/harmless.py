"""Text of others on its way to a terminal: names and messages come from servers, files and folders."""

from __future__ import annotations

from typing import Any


def harmless(text: str) -> str:
    """Without what could move the cursor or break the line.

    >>> harmless("a\\x1b]52;c;ZXZpbA==\\x07b\\u202ec\\x9bd")
    'a]52;c;ZXZpbA==bcd'
    """
    return "".join(sign for sign in text if sign.isprintable())


def harmless_lines(text: str) -> str:
    """The same of several lines: their ends stay."""
    return "\n".join(map(harmless, text.split("\n")))


def data(document: Any, option: int = 0) -> str:
    """JSON for a program, which a terminal may show all the same.

    Args:
        option: Of orjson.
    """
    import orjson

    from loadbench.text import in_json

    return in_json(orjson.dumps(document, option=option).decode())
