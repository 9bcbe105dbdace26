"""figures: one declaration makes a figure known wherever a user may name it, and wherever it is printed."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from loadbench import figures, scenario
from loadbench.compare.sides import Flow, Side
from loadbench.errors import UsageError
from loadbench.figures import FIGURES, Figure
from loadbench.report import FORMATS, comparison, exports, provenance
from loadbench.scenario.bounds import Bound, Need, Threshold
from tests.support.choosing import candidate, choose, lap, row
from tests.support.comparisons import judge
from tests.support.plain import thresholds
from tests.support.summaries import summary_of, with_levels

WORDS = Figure(
    key="words_per_s",
    unit="/s",
    better="more",
    title="words/s",
    doors=("slo", "threshold", "need", "verdict"),
    path="words_per_s",
    meaning="words that arrived in the steady window, divided by its length.",
)


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more figure, as a line in figures.py would declare it."""
    monkeypatch.setitem(FIGURES, WORDS.key, WORDS)


def flowing(per_s: float) -> Side:
    slices = np.full(30, per_s)
    return Side("m", "c1", (lap(flows={"words_per_s": Flow(per_s, slices, 30.0, 0.2)}),))


def test_without_its_declaration_nobody_knows_it() -> None:
    for read in (Bound.parse, Threshold.parse, Need.parse):
        with pytest.raises(UsageError, match="unknown"):
            read("words_per_s > 40")


@pytest.mark.usefixtures("declared")
def test_a_figure_that_is_declared_once_can_be_named_in_bounds_thresholds_and_needs(tmp_path: Path) -> None:
    file = tmp_path / "gate.toml"
    file.write_text('slo = ["words_per_s = 40"]\nfail_if = ["words_per_s < 30"]')

    asked = scenario.read(file)

    assert [(bound.metric, bound.op, bound.value) for bound in asked.bounds] == [("words_per_s", ">=", 40.0)]
    assert asked.thresholds[0].bound.holds(29)
    assert Need.parse("words_per_s > 40").unit == "/s"


def test_its_threshold_is_judged_by_the_levels_of_the_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of a field that a level has: to measure something new is a field of its own.
    monkeypatch.setitem(FIGURES, WORDS.key, replace(WORDS, path="characters_per_s"))
    level = {"id": "m@c1", "model": "m", "status": "complete", "completed": 9, "characters_per_s": 12.5}

    [judged] = thresholds([level], ["words_per_s < 30"])

    assert (judged["result"], judged["value"], judged["unit"]) == ("failed", 12.5, "per_s")


@pytest.mark.usefixtures("declared")
def test_its_need_is_met_by_what_flowed() -> None:
    fast = candidate("fast", [lap(flows={"words_per_s": Flow(90.0)})])
    slow = candidate("slow", [lap(flows={"words_per_s": Flow(20.0)})])

    record = choose(fast, slow, needs=["words_per_s > 40"])

    assert (record["winner"], row(record, "slow")["out"]) == ("fast", "words_per_s > 40")


@pytest.mark.usefixtures("declared")
def test_a_comparison_has_a_verdict_on_it_under_its_title() -> None:
    [verdict] = judge(flowing(20.0), flowing(40.0), ["words_per_s"])

    assert (verdict.ratio, verdict.unit) == (pytest.approx(2.0), "/s")
    assert comparison.metric("words_per_s") == "words/s"


@pytest.mark.usefixtures("declared")
def test_it_has_a_row_in_the_csv_file_and_a_definition_in_the_report() -> None:
    summary = with_levels(summary_of("tiny"), words_per_s=12.5)

    found = [each for each in exports.rows(summary) if each[exports.COLUMNS.index("metric")] == "words_per_s"]

    assert {(each[exports.COLUMNS.index("value")], each[exports.COLUMNS.index("unit")]) for each in found} == {
        (12.5, "1/s")
    }
    assert ("words/s", WORDS.meaning) in provenance.definitions()
    assert WORDS.meaning in FORMATS["markdown"](summary)


# -- the declarations themselves


def test_the_documentation_of_the_summary_describes_every_key_that_a_figure_is_read_from() -> None:
    text = (Path(__file__).parents[1] / "docs" / "summary.md").read_text(encoding="utf-8")
    described = set(re.findall(r"`([a-z_0-9]+)`", text))

    assert sorted({one.path.partition(".")[0] for one in FIGURES.values() if one.path} - described) == []


def test_what_users_can_name_has_a_title_in_verdicts_and_a_heading_among_the_definitions() -> None:
    assert [one.key for one in figures.of("verdict") if not one.title] == []
    assert [key for key, (heading, _) in figures.definitions().items() if not heading] == []


def test_no_name_can_be_read_as_two_figures() -> None:
    """ "output_tokens_p95" is a statistic of one figure; none is called like another with a statistic."""
    keys = [f"{one.key}_{statistic}" for one in FIGURES.values() if one.values for statistic in figures.STATISTICS]

    assert FIGURES.keys() & set(keys) == set()


@pytest.mark.parametrize("name", ["ttft_p96", "failed_p95", "speed", "", "_p95"])
def test_what_is_no_figure_is_none(name: str) -> None:
    assert figures.named(name) is None
