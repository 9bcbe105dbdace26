"""scenario.threshold: the grammar of what fails a run, as text and as a table of a scenario."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench import scenario
from loadbench.errors import ScenarioError, UsageError
from loadbench.scenario import FailIf, Scenario, Threshold
from loadbench.scenario.threshold import AFTER_S


@pytest.mark.parametrize(
    ("text", "metric", "op", "value"),
    [
        ("ttft_p95 > 800ms", "ttft", ">", 800),
        ("failed>1%", "failed", ">", 0.01),
        ("success < 99%", "success", "<", 0.99),
        ("output_tokens_per_s < 25.5", "output_tokens_per_s", "<", 25.5),
        ("characters_per_s <= 100", "characters_per_s", "<=", 100),
        ("dropped >= 0.5%", "dropped", ">=", 0.005),
        ("memory > 2GB", "memory", ">", 2e9),
        ("gpu_memory > 1.5 GiB", "gpu_memory", ">", 1.5 * 2**30),
        ("memory > 512B", "memory", ">", 512),
        ("stalls > 3", "stalls", ">", 3),
        ("efficiency < 50%", "efficiency", "<", 0.5),
    ],
)
def test_a_threshold_is_the_failure_as_written(text: str, metric: str, op: str, value: float) -> None:
    found = Threshold.parse(text)

    assert (found.bound.metric, found.bound.op, found.bound.value) == (metric, op, pytest.approx(value))
    assert (found.text, found.abort, found.level) == (text, False, None)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        # What an SLO would say, the other way round.
        (
            "ttft_p95=800ms",
            '"ttft_p95=800ms": = says what is to hold; a threshold says what fails: write ttft_p95 > 800ms',
        ),
        (
            "success = 99%",
            '"success = 99%": = says what is to hold; a threshold says what fails: write success < 99%',
        ),
        (
            "abort",
            '"abort" is no threshold: write what fails as METRIC OP VALUE, as ttft_p95 > 800ms or failed > 1%',
        ),
        ("memory > 2", '"memory > 2": the value "2" must be a size, as 800MB, 2GB or 2GiB'),
        ("stalls > 5%", '"stalls > 5%": the value "5%" must be a number, as 25.5'),
        (
            "ttft_p95{} > 1s",
            '"ttft_p95{} > 1s": name a level in the braces, as ttft_p95{c8}, or leave them out',
        ),
        (
            "memory > 2GB abort",
            '"memory > 2GB abort": abort cannot be decided early of memory, only of failed, success, dropped and of '
            "percentiles of ttft, tpot, e2e, client_queue: leave abort out",
        ),
        ("e2e_mean > 2s abort", '"e2e_mean > 2s abort": abort cannot be decided early of a mean: leave abort out'),
        (
            "e2e_max < 2s abort",
            '"e2e_max < 2s abort": abort cannot be decided early of a maximum that is to be small: leave abort out',
        ),
        (
            "failed > 1% abort after 5x",
            '"failed > 1% abort after 5x": unknown unit "x" in "5x": use ms, s, m or h',
        ),
    ],
)
def test_a_wrong_threshold_says_what_to_write(text: str, line: str) -> None:
    with pytest.raises(UsageError) as caught:
        Threshold.parse(text)

    assert str(caught.value) == line


def test_an_slo_knows_no_figure_that_no_request_can_meet() -> None:
    with pytest.raises(ScenarioError, match="unknown metric"):
        Scenario(slo=["memory < 2GB"])


def test_abort_ends_the_run_after_ten_seconds_unless_it_says_when() -> None:
    assert [(one.abort, one.after_s) for one in map(Threshold.parse, ("failed > 1% abort", "failed > 1%"))] == [
        (True, AFTER_S),
        (False, AFTER_S),
    ]
    assert Threshold.parse("failed > 1%  ABORT after 500ms").after_s == 0.5


@pytest.mark.parametrize(
    ("restricted", "matches"),
    [
        ("{c8}", ["phi@c8", "phi@c8#2", "qwen@c8"]),
        ("{phi}", ["phi@c8", "phi@c8#2", "phi@c1"]),
        ("{phi@c8}", ["phi@c8", "phi@c8#2"]),
        ("{phi@c8#2}", ["phi@c8#2"]),
        ("", ["phi@c8", "phi@c8#2", "phi@c1", "qwen@c8"]),
    ],
)
def test_braces_restrict_a_threshold_to_a_load_or_a_model(restricted: str, matches: list[str]) -> None:
    one = Threshold.parse(f"ttft_p95{restricted} > 1s")
    levels = ["phi@c8", "phi@c8#2", "phi@c1", "qwen@c8"]

    assert [level for level in levels if one.is_about(level, level.partition("@")[0])] == matches


def test_a_scenario_holds_thresholds_as_texts_and_as_tables(tmp_path: Path) -> None:
    file = tmp_path / "gate.toml"
    file.write_text('fail_if = ["ttft_p95 > 800ms", {if = "failed > 10%", abort = true, after = "5s"}]')

    one, other = scenario.read(file).thresholds

    assert (one.text, one.abort) == ("ttft_p95 > 800ms", False)
    assert (other.text, other.abort, other.after_s) == ("failed > 10%", True, 5.0)


def test_a_table_and_the_same_words_are_the_same_threshold() -> None:
    table = Threshold.of({"if": "failed > 10%", "abort": True, "after": "5s"})

    assert table == Threshold.parse("failed > 10% abort after 5s")


def test_thresholds_come_back_from_run_json(tmp_path: Path) -> None:
    asked = Scenario(fail_if=["ttft_p95 > 800ms", FailIf("failed > 10%", True)])

    assert scenario.from_json(scenario.to_builtins(asked)).thresholds == asked.thresholds


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('fail_if = ["speed > 3"]', 'fail_if[0]: "speed > 3": unknown metric "speed"'),
        ('fail_if = [{if = "failed > 1%", after = "5s"}]', "add abort = true, or leave it out"),
        ('fail_if = "failed > 1%"', 'fail_if is "failed > 1%": must be a list; write ["failed > 1%"]'),
        ('fail_if = [{if = "failed > 1%", abort = true, after = "5x"}]', 'fail_if[0].after: unknown unit "x"'),
    ],
)
def test_a_wrong_threshold_of_a_scenario_names_its_place(tmp_path: Path, text: str, line: str) -> None:
    file = tmp_path / "gate.toml"
    file.write_text(text)

    with pytest.raises(ScenarioError) as caught:
        scenario.read(file)

    assert line in str(caught.value)


def test_the_command_lines_thresholds_replace_the_files() -> None:
    merged = scenario.merge(Scenario(fail_if=["failed > 1%"]), fail_if=["ttft_p95 > 1s"])

    assert merged.fail_if == ["ttft_p95 > 1s"]


@given(st.text(alphabet="ftd_p95{}c8<>=% .0ms1aborteduri\n", max_size=40))
def test_any_text_is_a_threshold_or_one_line_that_says_why_not(text: str) -> None:
    said, found = "", None
    try:
        found = Threshold.parse(text)
    except UsageError as error:
        said = str(error)

    assert said.isprintable()
    assert found is None or Threshold.parse(found.text).bound == found.bound
