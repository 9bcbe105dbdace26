"""docs/select.md names every field, and what it shows works."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loadbench import select
from loadbench.cli import main
from loadbench.select import COMPARED, NAMES, Need, policy
from loadbench.select.weights import CRITERIA
from tests.support.choosing import candidate, choose

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "select.md").read_text(encoding="utf-8")
NAMED = {word for code in re.findall(r"`([^`\n]+)`", TEXT) for word in re.findall(r"\w+", code)}
GOLDEN = ROOT / "tests" / "golden" / "choice"


def keys(value: Any) -> Iterator[str]:
    """The names of all fields; those of maps by figure are no fields."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield key
            if key in ("ratios", "log_ratios") or (key == "figures" and isinstance(below, dict)):
                below = list((below or {}).values())
            yield from keys(below)
    for item in value if isinstance(value, list) else ():
        yield from keys(item)


@pytest.mark.parametrize("case", ["clear", "doubtful", "nobody", "alone"])
def test_every_field_of_the_json_is_named(case: str) -> None:
    record = json.loads((GOLDEN / f"{case}.json").read_bytes())

    assert set(keys(record)) - NAMED == set()


def test_every_field_of_models_json_is_named() -> None:
    [measured] = select.updated({}, choose(candidate("a")))["a"]["measured"]

    assert set(measured) - NAMED == set()


def test_every_criterion_is_told_with_its_weight() -> None:
    table = dict(re.findall(r"^\| `(\w+)` \|[^|]*\| ([\d.]+) \|", TEXT, flags=re.MULTILINE))

    assert {name: float(parts) for name, parts in table.items()} == {one.name: one.weight for one in CRITERIA}
    assert list(table) == list(NAMES)


def test_the_help_tells_the_weights() -> None:
    epilog = " ".join((main.commands["select"].epilog or "").split())

    assert f"the usual ones are {', '.join(f'{one.weight:g}' for one in CRITERIA)}." in epilog
    assert re.findall(r"(\w+)(?: \([^)]*\))?[,.]", epilog.partition("Criteria: ")[2].partition(" Weights")[0]) == list(
        NAMES
    )


def test_every_need_that_is_shown_is_read() -> None:
    shown = [code for code in re.findall(r"`([a-z]\w*[<>=]+[^`]+)`", TEXT) if "latency" not in code]

    assert {Need.parse(code).name for code in shown} >= {
        "memory",
        "disk",
        "quality",
        "rules",
        "energy",
        "cost",
        "licence",
    }


def test_the_file_of_weights_that_is_shown_is_read() -> None:
    [block] = re.findall(r"```toml\n(.*?)```", TEXT, flags=re.DOTALL)
    found = policy(tomllib.loads(block))

    assert found.licences["apache-2.0"] == 1
    assert [Need.parse(need).name for need in found.needs] == ["ttft_p95", "failed"]


def test_every_figure_that_counts_has_a_criterion() -> None:
    assert {name for one in CRITERIA for name in one.figures} == set(COMPARED)
