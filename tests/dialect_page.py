"""The tables of docs/dialects.md, made from those that the client reads with.

`python -m tests.dialect_page` writes them; tests/test_dialect.py fails where the page is not up to date.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from loadbench.client import tables as known

PAGE = Path(__file__).parents[1] / "docs" / "dialects.md"


def _table(*head: str, rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _code(words: Iterable[str]) -> str:
    return " ".join(f"`{word}`" for word in words)


def _named(who: dict[str, str]) -> list[tuple[str, str]]:
    return [(f"`{name}`" if name else "(none)", by) for name, by in who.items()]


def tables() -> dict[str, str]:
    """Each table of the page, in Markdown, by its name there."""
    texts = [(f"`{name}`", kind, who) for name, (kind, who) in known.TEXTS.items()]
    places = {
        "part of content, and part of a part": known.PARTS,
        "function of a tool call": known.TOOL_TEXTS,
        "event without `choices` (or Gemini's `candidates`)": known.BESIDE_CHOICES,
    }
    counts = [(role, _code(sorted(of))) for role, of in known.COUNT_WORDS.items()]
    ends = {
        "after these an answer may go on": known.GOES_ON,
        "no reason at all": {word for word in known.NO_REASONS if word},
        "failed, if it has one of these words": known.FAILURE_WORDS,
    }
    failures = {
        "a name of the event, or one of these fields, with a word of failure": known.STATES,
        "a field that says something, with one of these words in its name": sorted(known.ERROR_NAMES),
        "without choices: false": known.FLAGS,
        "without choices: 400 or more, or beside a message what is neither 0 nor 200 to 299": known.CODES,
        "without choices, state, code or flag": ("detail",),
    }
    return {
        "texts": _table("field of a delta or message", "text of", "who sends it", rows=texts),
        "parts": _table("text of", "in", rows=[(what, _code(of)) for what, of in places.items()]),
        "places": _table("place", "who sends it", rows=_named(known.USAGE_PLACES)),
        "counts": _table("count", "one of these words", rows=counts),
        "fillers": _table("and nothing else but", rows=[(_code(sorted(known.COUNT_FILLERS)),)]),
        "names": _table("name", "count", rows=_named(known.COUNTS)),
        "finishes": _table("finish reason", "who sends it", rows=_named(known.FINISHES)),
        "ends": _table("means", "reason", rows=[(what, _code(sorted(of))) for what, of in ends.items()]),
        "failures": _table("what says so", "where", rows=[(what, _code(of)) for what, of in failures.items()]),
    }


def written(page: str) -> str:
    """The page with its tables between their marks."""
    for name, table in tables().items():
        marks = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        page, n = re.subn(marks, lambda found, table=table: f"{found[1]}{table}\n{found[2]}", page, flags=re.S)
        if n != 1:
            raise SystemExit(f"{PAGE}: has {n} places for the table {name}")
    return page


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
