"""docs/quality.md names every field, and what it shows works."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loadbench import quality
from loadbench.quality import Score, checks
from loadbench.quality.answers import Between, Repeats, row_id
from loadbench.quality.scores import Agreement
from tests.support.answered import ANSWERS, CAPITAL, SUM, folder

TEXT = (Path(__file__).parents[1] / "docs" / "quality.md").read_text(encoding="utf-8")
NAMED = {word for code in re.findall(r"`([^`\n]+)`", TEXT) for word in re.findall(r"\w+", code)}


def keys(value: Any) -> Iterator[str]:
    """The names of all fields; the keys of maps by prompt, kind and reason are no names."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield key
            if key not in ("by_prompt", "by_kind", "unusable"):
                yield from keys(below)
    for item in value if isinstance(value, list | tuple) else ():
        yield from keys(item)


def test_every_field_of_scores_json_is_named(tmp_path: Path) -> None:
    prompts = [{**CAPITAL, "checks": [{"contains": "Lisbon"}]}, SUM]
    run = quality.read(folder(tmp_path / "run", [*ANSWERS, ANSWERS[0]], prompts))
    scores = [
        Score(row_id(prompt, model, text), prompt, model, method, "x", "now", score=4, aspects={"Lisbon": 5})
        for model, prompt, text in ANSWERS
        for method in ("hand", "judge")
    ]

    told = set(keys(msgspec.to_builtins(quality.summarise(run, scores, against=run))))

    assert told > {"determinism", "kappa", "same_share", "pass_rate", "prompts_apart", "examples"}
    # Of a failed rule all is said by the rule itself.
    assert told - NAMED - {"check", "why"} == set()


@pytest.mark.parametrize("record", [Agreement, Between, Repeats, Score])
def test_every_field_of_a_record_is_named(record: type[msgspec.Struct]) -> None:
    assert set(record.__struct_fields__) - NAMED == set()


def test_every_kind_of_check_is_shown_and_understood() -> None:
    shown = [json.loads(code) for code in re.findall(r"`(\{\"\w+\": [^`]+\})`", TEXT) if "..." not in code]
    found = {
        checks.parse(quality.Question("q", "?", (), (one,)))[0].kind for one in shown if set(one) & set(checks.KINDS)
    }

    assert found == set(checks.KINDS) - {"json_schema"}
    assert '{"json_schema": {...}}' in TEXT


def test_every_option_of_a_check_and_keyword_of_a_schema_is_named() -> None:
    assert {option for options in checks.KINDS.values() for option in options} - NAMED == set()
    assert {*checks.KEYWORDS, *checks.PROSE} - NAMED == set()
