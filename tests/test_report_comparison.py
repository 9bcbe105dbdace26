"""Reports of comparisons: golden files for whole ones, and what must hold for any.

After a wanted change: `LOADBENCH_UPDATE_GOLDEN=1 python -m pytest tests/test_report_comparison.py`, then review the
diff of tests/golden/comparison/. The .json files there are what `loadbench compare --format json` said of run folders
as those of compared.py; the others are what the reports make of them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from loadbench.report import COMPARISONS, FORMATS, comparison, text

GOLDEN = Path(__file__).parent / "golden" / "comparison"
CASES = sorted(path.stem for path in GOLDEN.glob("*.json"))
RENDERED = {
    "80.txt": lambda record: text.render(comparison.document(record), 80),
    "120.txt": lambda record: text.render(comparison.document(record), 120),
    "md": COMPARISONS["markdown"],
    "json": COMPARISONS["json"],
}


def document(case: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GOLDEN / f"{case}.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("kind", RENDERED)
@pytest.mark.parametrize("case", CASES)
def test_a_comparison_reads_as_its_golden_file(case: str, kind: str) -> None:
    golden = GOLDEN / f"{case}.{kind}"
    rendered = RENDERED[kind](document(case))
    if os.environ.get("LOADBENCH_UPDATE_GOLDEN") and kind != "json":
        golden.write_bytes(rendered.encode())

    assert rendered == golden.read_bytes().decode()


@pytest.mark.parametrize("width", [60, 80, 100, 200])
@pytest.mark.parametrize("case", CASES)
def test_no_line_is_wider_than_the_terminal(case: str, width: int) -> None:
    longest = max(text.render(comparison.document(document(case)), width).splitlines(), key=len)

    assert len(longest) <= width, longest


def test_the_verdict_comes_first() -> None:
    rendered = text.render(comparison.document(document("slower")), 120)

    assert rendered.startswith("● after is slower than before.\n  slower: TTFT +2")


@pytest.mark.parametrize("kind", ["80.txt", "md"])
def test_names_of_models_stay_text(kind: str) -> None:
    rendered = RENDERED[kind](document("models"))

    assert "\x1b" not in rendered
    if kind == "md":
        assert all(mark not in rendered for mark in ("<script>", "](http", " @octocat", " #1"))


def test_simulated_figures_are_called_so() -> None:
    assert all("SIMULATED" in RENDERED[kind](document("models")) for kind in ("80.txt", "md"))
    assert "SIMULATED" not in RENDERED["md"](document("slower"))


def test_what_forbids_a_verdict_is_named_with_the_way_out() -> None:
    rendered = COMPARISONS["markdown"](document("refused"))

    assert "**no verdict on refused against before.**" in rendered
    assert 'max_tokens differs, 16 against 32: the sides are not comparable (--expect "max_tokens" where' in rendered


def test_a_level_without_any_verdict_is_named_once() -> None:
    found = document("slower")
    rows = found["comparisons"][0]["decisive"]
    verdicts = found["comparisons"][0]["levels"][1]["verdicts"]
    for one in verdicts:
        one |= {"word": "no verdict", "note": "red: V3 of NEW"}
    rows += [{**rows[0], "load": "c4", "metric": one["metric"], "word": "no verdict"} for one in verdicts]

    assert "; no verdict at c4 (red: V3 of NEW)." in " ".join(text.render(comparison.document(found), 120).split())


def test_levels_that_one_side_lacks_are_named() -> None:
    assert "only NEW has phi at c8" in text.render(comparison.document(document("groups")), 120)


# The same in a run's own report


def run_summary() -> dict[str, Any]:
    levels = [{"id": "m@c1", "model": "m", "concurrency": 1, "attempted": 1, "completed": 1}]
    return {"run": {}, "levels": levels, "models_compared": document("models")["comparisons"]}


def test_a_runs_report_holds_its_models_against_each_other() -> None:
    for rendered in (FORMATS["text"](run_summary()), FORMATS["markdown"](run_summary())):
        assert comparison.AMONG_MODELS in rendered
        assert "q is the same as m within 10%" in " ".join(rendered.split())


def test_a_run_of_one_model_has_no_such_part() -> None:
    summary = {**run_summary(), "models_compared": []}

    assert comparison.AMONG_MODELS not in FORMATS["text"](summary) + FORMATS["markdown"](summary)


# Words


def verdict(**changes: Any) -> dict[str, Any]:
    known = {"metric": "ttft", "unit": "ms", "base": 100.0, "new": 121.0, "ratio": 1.21, "low": 1.17, "high": 1.25}
    return {**known, "word": "slower", "runs_needed": None, "runs_base": 1, "runs_new": 1, "note": "", **changes}


@pytest.mark.parametrize(
    ("changes", "change", "interval"),
    [
        ({}, "+21%", "+17 to +25%"),
        ({"ratio": 0.9996, "low": 0.98, "high": 1.02}, "0.0%", "-2.0 to +2.0%"),
        ({"ratio": 12.0, "low": None, "high": None}, "+1,100%", ""),
        (
            {"unit": "share", "base": 0.0, "new": 0.02, "ratio": None, "low": -0.001, "high": 0.05},
            "+2.0 pp",
            "-0.1 to +5.0 pp",
        ),
        ({"base": None, "new": None, "ratio": None, "low": None, "high": None}, "-", ""),
        ({"new": None, "ratio": None, "low": 1.5, "high": None}, "-", "over +50%"),  # too many of NEW's requests failed
    ],
)
def test_a_change_is_said_with_its_sign_and_its_interval(changes: dict[str, Any], change: str, interval: str) -> None:
    assert (comparison.change(verdict(**changes)), comparison.interval(verdict(**changes))) == (change, interval)


def test_who_cannot_tell_says_how_many_more_runs_it_takes() -> None:
    assert comparison.word(verdict(word="can't tell", runs_needed=4)) == "can't tell (about 3 more runs)"
    assert comparison.word(verdict(word="can't tell", runs_needed=90_000)) == "can't tell (over 1,000 more runs)"
    assert comparison.word(verdict(word="can't tell")) == "can't tell"


def test_a_share_without_a_failure_asks_for_no_runs() -> None:
    share = {"metric": "failed", "unit": "share", "base": 0.0, "new": 0.0, "ratio": None, "low": -0.1, "high": 0.1}

    assert comparison.word(verdict(**share, word="can't tell", runs_needed=113)) == "can't tell"
