"""Reports of a choice: golden files for whole ones, and what must hold for any.

After a wanted change: `LOADBENCH_UPDATE_GOLDEN=1 python -m pytest tests/test_report_choice.py`, then review the diff of
tests/golden/choice/.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from loadbench.report import CHOICES, choice, text
from tests.support.choosing import GB, candidate, choose, info, lap
from tests.support.summaries import GOLDEN, check_golden

HOSTILE = "<script>alert(1)</script>|`x`\x1b[31m @all #1"
RENDERED: Mapping[str, Callable[[Any], str]] = {
    "80.txt": lambda record: text.render(choice.document(record), 80),
    "120.txt": lambda record: text.render(choice.document(record), 120),
    "brief.txt": lambda record: text.render(choice.document(record, short=True)),
    "md": CHOICES["markdown"],
    "json": CHOICES["json"],
}


def clear() -> dict[str, Any]:
    """A clear winner among three, with needs that one misses and quality that tells."""
    small = {"ttft": 90, "e2e": 420, "characters": 900, "memory": 1.1 * GB, "disk": 0.8 * GB, "quality": 2.8}
    large = {"ttft": 420, "e2e": 2400, "characters": 310, "memory": 5.2 * GB, "disk": 4.9 * GB, "quality": 4.4}
    middle = {"ttft": 160, "e2e": 800, "characters": 640, "memory": 2.2 * GB, "disk": 1.8 * GB, "quality": 3.9}
    return choose(
        candidate("qwen2.5-0.5b", **small, licence="apache-2.0"),
        candidate("phi-4-mini", **large),
        candidate("qwen2.5-1.5b", **middle, licence="apache-2.0"),
        needs=["ttft_p95 < 1s", "memory < 4GB", "licence=mit,apache-2.0"],
        weight=["quality=5"],
    )


def doubtful() -> dict[str, Any]:
    """A close call with a red gate, another prompt set, a figure that is missing, and few requests."""
    red = {"warnings": [{"code": "V9", "severity": "red", "text": "others used 80 % of the cores"}]}
    other = lap(ttft=190, seed=3, n=40, info=info("other", prompts={"sha256": "beef"}), run="other")
    return choose(
        candidate("a", level=red),
        candidate("b", [other], memory=None),
        candidate("c", ttft=900, e2e=9000, characters=50),
    )


def nobody() -> dict[str, Any]:
    """Nobody meets the needs: by far, not surely, and for want of a figure."""
    some = candidate("far", memory=8 * GB), candidate("near", ttft=200), candidate("silent", memory=None)
    return choose(*some, needs=["ttft_p95<217ms", "ttft_p50<199ms", "memory<4GB"])


def alone() -> dict[str, Any]:
    """One candidate, simulated."""
    return choose(replace(candidate("simulator"), simulated=True))


CASES = {"clear": clear, "doubtful": doubtful, "nobody": nobody, "alone": alone}


@pytest.mark.parametrize("case", CASES)
def test_a_choice_reads_as_its_golden_files_and_fits_any_terminal(case: str) -> None:
    record = CASES[case]()

    for kind, render in RENDERED.items():
        golden = GOLDEN / "choice" / f"{case}.{kind}"
        if kind == "json" and not os.environ.get("LOADBENCH_UPDATE_GOLDEN"):  # the last digits are the processor's
            assert nearly(json.loads(render(record))) == nearly(json.loads(golden.read_bytes()))
        else:
            check_golden(golden, render(record))
    for width in (60, 80, 100, 200):
        longest = max(text.render(choice.document(record), width).splitlines(), key=len)
        assert len(longest) <= width, longest


def nearly(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: nearly(below) for key, below in value.items()}
    if isinstance(value, list):
        return [nearly(below) for below in value]
    return float(f"{value:.9g}") if isinstance(value, float) and abs(value) > 1e-12 else value


def test_the_recommendation_names_the_winner_and_why_after_its_doubts() -> None:
    assert choice.headline(clear()).startswith("Choose qwen2.5-1.5b: score ")
    assert choice.reasons(clear())[0].startswith("For it: quality 3.90 of 5 against 2.80 of 5")
    assert choice.headline(doubtful()).startswith(
        "No clear recommendation (red: other-load, different-setup; see Warnings); by these figures: choose "
    )


def test_nobody_left_is_said_with_figures_and_how_sure() -> None:
    far, near, silent = choice.fell_out(nobody())

    assert choice.headline(nobody()) == "No candidate meets the requirements"
    assert far.startswith("far: ")
    assert near.endswith(", not certain: its interval includes the bound")
    assert "silent: " in silent


@pytest.mark.parametrize("kind", ["80.txt", "md"])
def test_hostile_names_stay_text(kind: str) -> None:
    record = choose(candidate(HOSTILE, licence=HOSTILE), candidate("b", ttft=300), needs=[f"model=b,{HOSTILE}"])
    rendered = RENDERED[kind](record)

    assert "\x1b" not in rendered
    assert kind != "md" or not any(mark in rendered for mark in ("<script", " @all"))


def test_a_decision_record_has_its_parts() -> None:
    heads = [line for line in RENDERED["md"](clear()).splitlines() if line.startswith("### ")]

    assert heads[:2] == ["### Decision", "### Context"]
    for title in ("Rank at", "Speed at", "Quality and footprint"):
        assert any(head.startswith(f"### {title}") for head in heads)
    assert heads[-3:] == ["### Alternatives", "### Consequences", "### Warnings"]


def test_the_scores_can_be_computed_again_from_the_json() -> None:
    record = json.loads(RENDERED["json"](clear()))

    shares = {one["name"]: one["share"] for one in record["figures"]}
    for row in record["candidates"]:
        if row["rank"]:
            score = 100 * math.exp(sum(shares[name] * log for name, log in row["log_ratios"].items()))
            assert score == pytest.approx(row["score"])
