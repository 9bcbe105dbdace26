"""bounds: the grammars of durations, bounds, thresholds and requirements."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench import figures, scenario
from loadbench.errors import ScenarioError, UsageError
from loadbench.scenario import Scenario
from loadbench.scenario.bounds import AFTER_S, LONGEST_S, Bound, Duration, FailIf, Need, Threshold, check_written, share


def refusal(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        Bound.parse(text)
    message = str(caught.value)
    assert message.isprintable()
    return message


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30),
        ("1.5m", 90),
        (" 2 h ", 7200),
        ("30", 30),  # a bare number is seconds
        ("1m30s", 90),
        ("1m 30s", 90),
        ("1h5m", 3900),
        (" 1h 5m 1.5s 500ms ", 3902),
        ("1s500ms", 1.5),
        (0.25, 0.25),
        (0, 0),  # a wait of nothing; a scenario refuses it where it makes no sense
    ],
)
def test_durations_are_read_in_seconds(text: str | float, seconds: float) -> None:
    assert Duration.parse(text) == seconds


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("5min", 'unknown unit "min" in "5min": use ms, s, m or h'),
        ("5 S", 'unknown unit "S" in "5 S": use ms, s, m or h'),
        ("", '"" is no duration: write 500ms, 30s, 5m, 1h or 1m30s'),
        ("s", '"s" is no duration: write 500ms, 30s, 5m, 1h or 1m30s'),
        ("1m30", '"1m30" is no duration: write 500ms, 30s, 5m, 1h or 1m30s'),
        ("1m,30s", '"1m,30s" is no duration: write 500ms, 30s, 5m, 1h or 1m30s'),
        ("30s1m", '"30s1m" is no duration: write the larger unit first, as 1h5m or 1m30s'),
        ("1m1m", '"1m1m" is no duration: write the larger unit first, as 1h5m or 1m30s'),
        ("-1m30s", '"-1m30s" is out of range: a duration is at least 0 and at most 168h'),
        ("٣s", '"٣s" is no duration: write 500ms, 30s, 5m, 1h or 1m30s'),  # digits, but not ours
        ("nan", '"nan" is no duration: write 500ms, 30s, 5m, 1h or 1m30s'),
        ("-3s", '"-3s" is out of range: a duration is at least 0 and at most 168h'),
        ("1e300h", '"1e300h" is out of range: a duration is at least 0 and at most 168h'),
        (math.nan, "NaN is out of range: a duration is at least 0 and at most 168h"),
        (True, "true is no duration: write 500ms, 30s, 5m, 1h or 1m30s"),
    ],
)
def test_a_wrong_duration_says_what_to_write(text: str | float, line: str) -> None:
    with pytest.raises(ValueError, match=r"duration|unit") as caught:
        Duration.parse(text)

    assert str(caught.value) == line


def test_an_integer_that_no_float_holds_is_out_of_range() -> None:
    with pytest.raises(ValueError, match="is out of range"):
        Duration.parse(10**400)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (0.0005, "0.0005s"), (0.5, "500ms"), (1.5, "1500ms"), (90, "90s"), (7200, "2h")]
)
def test_durations_are_written_with_the_unit_that_reads_best(seconds: float, text: str) -> None:
    assert str(Duration(seconds)) == text


@given(st.floats(0, LONGEST_S))
def test_a_written_duration_reads_back_to_the_same_float(seconds: float) -> None:
    assert Duration.parse(str(Duration(seconds))) == seconds


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("ttft_p95=800ms", ("ttft", "p95", "<=", 800)),  # "=" is the good direction
        ("itl_p999 < 0.05s", ("itl", "p999", "<", 50)),  # ms inside
        ("e2e_p95 < 1m 30s", ("e2e", "p95", "<", 90_000)),
        ("TPOT_MEAN<=1m", ("tpot", "mean", "<=", 60_000)),
        ("client_queue_max=5ms", ("client_queue", "max", "<=", 5)),
        ("e2e_p50>1s", ("e2e", "p50", ">", 1000)),
        ("success=99%", ("success", None, ">=", 0.99)),
        ("failed > 1%", ("failed", None, ">", 0.01)),
        ("failed=0.5", ("failed", None, "<=", 0.5)),
        ("failed>0", ("failed", None, ">", 0)),
        ("output_tokens_per_s=25.5", ("output_tokens_per_s", None, ">=", 25.5)),
        ("goodput >= 2", ("goodput", None, ">=", 2)),
    ],
)
def test_bounds_are_read(text: str, parts: tuple[str, str | None, str, float]) -> None:
    bound = Bound.parse(text)

    assert (bound.metric, bound.statistic, bound.op, bound.value) == parts
    assert bound.text == text


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("ttft=800ms", "which statistic of ttft? Write ttft_p95, or one of p50, p90, p95, p99, p999, mean, max"),
        ("ttft_p99.9=1s", 'unknown statistic "p99.9" of ttft: use one of p50, p90, p95, p99, p999, mean, max'),
        ("ttft_p95=800", "a duration needs its unit: write 800ms or 800s"),
        ("ttft_p95=0ms", "a duration of 0 can never be met"),
        ("ttft_p95=5min", 'unknown unit "min" in "5min": use ms, s, m or h'),
        ("tffd_p95=1s", 'unknown metric "tffd_p95"; did you mean ttft_p95?'),
        ("succes=99%", 'unknown metric "succes"; did you mean success?'),
        ("success=99", "a share is at most 1 or 100%: write 99%"),
        ("success=101%", "a share is at most 1 or 100%"),
        ("success_p95=99%", "success has no statistics: write success alone"),
        ("failed=-1%", 'the value "-1%" must be a share, as 1% or 0.01'),
        ("goodput=5%", 'the value "5%" must be a number per second, as 25.5'),
        ("goodput=1e999", 'the value "1e999" must be a number per second, as 25.5'),
    ],
)
def test_a_wrong_bound_says_what_to_write(text: str, remedy: str) -> None:
    assert refusal(text) == f'"{text}": {remedy}'


@pytest.mark.parametrize(
    "text", ["", "=", "ttft_p95", "ttft_p95=", "ttft_p95==1s", "ttft_p95<>1s", "<=1s", "ttft p95=1s"]
)
def test_what_is_no_bound_at_all_shows_one(text: str) -> None:
    assert refusal(text) == f'"{text}" is no bound: write METRIC OP VALUE, as ttft_p95<=800ms or failed<1%'


@pytest.mark.parametrize("name", ["zzz", "speed", "p95", "tokens", "latency"])  # difflib finds the middle ones alike
def test_an_unknown_metric_without_a_near_name_lists_them_all(name: str) -> None:
    assert "did you mean" not in refusal(f"{name}=1")
    assert all(one.key in refusal(f"{name}=1") for one in figures.of("slo"))


@pytest.mark.parametrize(
    ("text", "held", "missed"),
    [("failed<1%", 0.0, 0.01), ("failed<=1%", 0.01, 0.02), ("goodput>2", 3, 2), ("goodput>=2", 2, 1.9)],
)
def test_a_bound_holds_up_to_its_value(text: str, held: float, missed: float) -> None:
    bound = Bound.parse(text)

    assert bound.holds(held)
    assert not bound.holds(missed)


# -- what people write and do not mean


@pytest.mark.parametrize("text", ["failed<1", "failed <= 1.0", "failed=1", "success>=1", "success=1"])
def test_a_share_of_1_is_refused_as_1_percent_may_be_meant(text: str) -> None:
    with pytest.raises(UsageError, match="1 is all of them: write 1%, or 100% where all are meant"):
        check_written(Bound.parse(text))


@pytest.mark.parametrize("text", ["failed<1%", "failed<=100%", "failed<0.01", "success=100%", "goodput>1", "failed>0"])
def test_a_share_that_can_be_meant_in_one_way_alone_is_taken(text: str) -> None:
    check_written(Bound.parse(text), holds=False)


@pytest.mark.parametrize(
    ("text", "turned"),
    [
        ("ttft_p95>300ms", "ttft_p95 <= 300ms"),
        ("e2e_max >= 2s", "e2e_max <= 2s"),
        ("failed>1%", "failed <= 1%"),
        ("success<99%", "success >= 99%"),
        ("goodput<=2", "goodput >= 2"),
        ("output_tokens_per_s < 25.5", "output_tokens_per_s >= 25.5"),
    ],
)
def test_an_slo_that_calls_for_a_bad_figure_is_refused_with_the_sign_turned(text: str, turned: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_written(Bound.parse(text))

    assert str(caught.value) == f'"{text}": this says what is to hold, and that would be bad: write {turned}'


@pytest.mark.parametrize("text", ["0", "20%", "0.2", "100%", "1%", "0.999", " 5 % "])
def test_a_share_alone_is_read(text: str) -> None:
    number = float(text.strip(" %"))

    assert share(text) == (number / 100 if "%" in text else number)


@pytest.mark.parametrize("text", ["1", "1.0", "2", "101%", "-1%", "wide", "", "nan", "1e999", "9" * 5000])
def test_what_is_no_share_alone_says_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match=r"write (a share as 20% or 0\.2|1%, or 100%)"):
        share(text)


# -- thresholds


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
            "percentiles of ttft, ttfat, tpot, e2e, normalised_latency, client_queue: leave abort out",
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


# -- requirements


@pytest.mark.parametrize(
    ("text", "name", "op", "value"),
    [
        ("ttft_p95 < 1s", "ttft_p95", "<", 1000.0),
        ("e2e_mean=500ms", "e2e_mean", "<=", 500.0),
        ("memory<=4GiB", "memory", "<=", 4 * 2.0**30),
        ("disk<500MB", "disk", "<", 5e8),
        ("quality=4", "quality", ">=", 4.0),
        ("rules>=90%", "rules", ">=", 0.9),
        ("failed<1%", "failed", "<", 0.01),
        ("characters_per_s>200", "characters_per_s", ">", 200.0),
        ("tokens_per_s=25", "output_tokens_per_s", ">=", 25.0),
        ("cost<0.002€", "cost", "<", 0.002),
        ("cost<$0.5", "cost", "<", 0.5),
        ("energy=3J", "energy", "<=", 3.0),
        ("e2e_mean<1m30s", "e2e_mean", "<", 90_000.0),
    ],
)
def test_a_need_is_read(text: str, name: str, op: str, value: float) -> None:
    need = Need.parse(text)

    assert need.bound is not None
    assert (need.name, need.bound.op, need.bound.value) == (name, op, pytest.approx(value))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("memory", "is no need: write ttft_p95<1s"),
        ("memory<4", '"4" is no size: write 4GB or 500MB'),
        ("memory<manyGB", "is no size"),
        ("quality>=9", "is no score: write a number from 1 to 5"),
        ("rules>=900%", "a share is at most 1 or 100%"),
        ("rules=1", "1 is all of them: write 1%, or 100% where all are meant"),
        ("failed<1", "1 is all of them: write 1%, or 100% where all are meant"),
        ("ttft_p95>1s", "that would be bad: write ttft_p95 <= 1s"),
        ("tokens_per_s<25", "that would be bad: write output_tokens_per_s >= 25"),
        ("memory>4GB", "that would be bad: write memory <= 4GB"),
        ("quality<=3", "that would be bad: write quality >= 3"),
        ("license<mit", "write license=a,b"),
        ("licence=,", "write licence=a,b"),
        ("speed<1s", 'unknown figure "speed"'),
        ("ttft<1s", "which statistic of ttft?"),
        ("ttft_p95<1", "a duration needs its unit"),
        ("cost<cheap", "is no amount"),
    ],
)
def test_a_need_that_is_none_is_one_line(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        Need.parse(text)

    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
