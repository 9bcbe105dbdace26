"""scenario.bound: the grammar of durations and of bounds."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.errors import UsageError
from loadbench.scenario import Bound, Duration
from loadbench.scenario.bound import DURATIONS, LONGEST_S, METRICS, STATISTICS, check_written, share


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
    assert all(metric in refusal(f"{name}=1") for metric in METRICS)


@given(st.text(max_size=30) | st.from_regex(r"(ttft|failed|goodput)\w{0,5}[<>=]{1,2}.{0,9}", fullmatch=True))
def test_any_text_is_a_bound_or_a_usage_error(text: str) -> None:
    try:
        bound = Bound.parse(text)
    except UsageError:
        return

    assert math.isfinite(bound.value)
    assert bound.statistic in STATISTICS if bound.metric in DURATIONS else bound.statistic is None


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
