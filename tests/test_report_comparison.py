"""Reports of comparisons: golden files for whole ones, and what must hold for any.

After a wanted change: `LOADBENCH_UPDATE_GOLDEN=1 python -m pytest tests/test_report_comparison.py`, then review the
diff of tests/golden/comparison/. The .json files there are what `loadbench compare --format json` said of run folders
as those of compared.py; the others are what the reports make of them.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from loadbench.report import COMPARISONS, FORMATS, comparison, text
from tests.support.summaries import GOLDEN, check_golden

FOLDER = GOLDEN / "comparison"
CASES = sorted(path.stem for path in FOLDER.glob("*.json"))


def document(case: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{case}.json").read_text(encoding="utf-8"))
    return found


def rendered(case: str, width: int = 120) -> str:
    return text.render(comparison.document(document(case)), width)


@pytest.mark.parametrize("case", CASES)
def test_a_comparison_reads_as_its_golden_files_and_fits_any_terminal(case: str) -> None:
    check_golden(FOLDER / f"{case}.80.txt", rendered(case, 80))
    check_golden(FOLDER / f"{case}.120.txt", rendered(case))
    check_golden(FOLDER / f"{case}.brief.txt", text.render(comparison.brief(document(case))))
    check_golden(FOLDER / f"{case}.md", COMPARISONS["markdown"](document(case)))
    assert COMPARISONS["json"](document(case)) == (FOLDER / f"{case}.json").read_text(encoding="utf-8")
    for width in (60, 80, 100, 200):
        longest = max(rendered(case, width).splitlines(), key=len)
        assert len(longest) <= width, longest


@pytest.mark.parametrize("case", CASES)
def test_one_screen_has_a_row_a_level_and_three_warnings_at_most(case: str) -> None:
    record = document(case)
    lines = text.render(comparison.brief(record)).splitlines()
    one = text.render(comparison.brief({"comparisons": record["comparisons"][:1]})).splitlines()

    assert len(one) <= 25
    assert sum(line.startswith("!") for line in one) <= 3 + 1  # the last one counts the others
    assert max(map(len, lines)) <= 100


def test_the_verdict_comes_first() -> None:
    assert rendered("slower").startswith("● after is slower than before.\n  slower: TTFT +2")


def test_names_of_models_stay_text_and_simulated_figures_are_called_so() -> None:
    markdown = COMPARISONS["markdown"](document("models"))

    assert "\x1b" not in rendered("models")
    assert all(mark not in markdown for mark in ("\x1b", "<script>", "](http", " @octocat", " #1"))
    assert "SIMULATED" in rendered("models", 80)
    assert "SIMULATED" in markdown
    assert "SIMULATED" not in COMPARISONS["markdown"](document("slower"))


def test_what_forbids_a_verdict_is_named_with_the_way_out() -> None:
    markdown = COMPARISONS["markdown"](document("refused"))

    assert "**no verdict on refused against before.**" in markdown
    assert 'max_tokens differs, 16 against 32: the sides are not comparable (--expect "max_tokens" where' in markdown
    assert "only NEW has phi at c8" in rendered("groups")


def test_a_level_without_any_verdict_is_named_once() -> None:
    found = document("slower")
    rows = found["comparisons"][0]["decisive"]
    verdicts = found["comparisons"][0]["levels"][1]["verdicts"]
    for one in verdicts:
        one |= {"word": "no verdict", "note": "red: V3 of NEW"}
    rows += [{**rows[0], "load": "c4", "metric": one["metric"], "word": "no verdict"} for one in verdicts]

    assert "; no verdict at c4 (red: V3 of NEW)." in " ".join(text.render(comparison.document(found), 120).split())


def test_a_runs_report_compares_its_models_where_it_has_several() -> None:
    levels = [{"id": "m@c1", "model": "m", "concurrency": 1, "attempted": 1, "completed": 1}]
    summary = {"run": {}, "levels": levels, "models_compared": document("models")["comparisons"]}

    for kind in ("text", "markdown"):
        report = " ".join(FORMATS[kind](summary).split())
        assert comparison.AMONG_MODELS in report
        assert "whether q and m are the same within 10%" in report
        assert comparison.AMONG_MODELS not in FORMATS[kind]({**summary, "models_compared": []})


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


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"runs_needed": 4}, "can't tell (about 3 more runs)"),
        ({"runs_needed": 90_000}, "can't tell (over 1,000 more runs)"),
        ({}, "can't tell"),
        # a share without a failure asks for no runs
        ({"unit": "share", "base": 0.0, "new": 0.0, "ratio": None, "runs_needed": 113}, "can't tell"),
    ],
)
def test_who_cannot_tell_says_how_many_more_runs_it_takes(changes: dict[str, Any], word: str) -> None:
    assert comparison.word(verdict(word="can't tell", **changes)) == word
