"""docs/compare.md names every field, and what it shows works."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from loadbench.compare import NAMES
from loadbench.compare.record import Overall

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "compare.md").read_text(encoding="utf-8")
NAMED = {word for code in re.findall(r"`([^`\n]+)`", TEXT) for word in re.findall(r"\w+", code)}
RECORDS = [
    json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / "tests" / "golden" / "comparison").glob("*.json"))
]


def keys(value: Any) -> Iterator[str]:
    """The names of all fields; both values of a difference hold names of others."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield key
            if "what" not in value or key not in ("base", "new"):
                yield from keys(below)
    for item in value if isinstance(value, list) else ():
        yield from keys(item)


def test_every_field_of_the_json_is_named() -> None:
    told = set(keys(RECORDS))

    assert told > {"decisive", "exceptions", "interleaved", "p_value", "only_new", "server_version"}
    assert told - NAMED == set()


def test_every_word_is_explained() -> None:
    table = " ".join(re.findall(r"^\| ([^|`]+) \|", TEXT, flags=re.MULTILINE))

    assert [word for word in get_args(Overall) if word not in table] == []


def test_everything_that_may_be_compared_on_purpose_is_named() -> None:
    assert [name for name in NAMES if f"`{name}`" not in TEXT] == []


def test_the_docs_of_the_summary_lead_here() -> None:
    summary = (ROOT / "docs" / "summary.md").read_text(encoding="utf-8")

    assert "`models_compared`" in summary
    assert "[compare.md](compare.md)" in summary
