"""metrics: when the answer began, what was thought before it, and the speeds of prefill, of a user and of a token."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from loadbench.compare.sides import Lap, lap
from loadbench.store.record import Result
from tests.support.choosing import candidate, choose, row
from tests.support.comparisons import judge, side_of
from tests.support.plain import thresholds
from tests.support.streams import MS, failed, figures, level_data, run, stream, summed


def thinking(number: int = 0, *, thought: int = 8, answer_at: float | None = 360.0, **changes: Any) -> Result:
    """32 tokens of 4 characters from 200 ms on, of which so many are reasoning; the answer at 360 ms, or never."""
    at_ns = None if answer_at is None else round(answer_at * MS)
    return stream(number, reasoning_characters=4 * thought, reasoning_tokens=thought, first_answer_ns=at_ns, **changes)


def plain(number: int = 0, **changes: Any) -> Result:
    """The same without reasoning."""
    one = stream(number, reasoning_characters=0, **changes)
    return replace(one, first_answer_ns=one.first_token_ns)


ONLY = {"thought": 32, "answer_at": None}
UNCOUNTED = {"reasoning_tokens": None}
FALSELY = {"reasoning_tokens": 0}


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([thinking()], {"ttfat_ms.p50": 360.0, "thinking_ms.p50": 160.0, "reasoned": 1, "only_reasoned": 0}),
        ([thinking()], {"ttft_ms.p50": 200.0, "thinking_share": 0.25, "thinking_share_source": "usage"}),
        # The first answer of a model that does not reason is its first token.
        ([plain()], {"ttfat_ms.p50": 200.0, "thinking_ms": None, "thinking_share": None, "reasoned": 0}),
        # A request that only reasoned has no first answer, and is none of 0 ms.
        ([thinking(), thinking(1, **ONLY)], {"ttfat_ms.n": 1, "thinking_ms.n": 1, "reasoned": 2, "only_reasoned": 1}),
        ([thinking(**ONLY)], {"ttfat_ms.n": 0, "ttfat_ms.p50": None, "only_reasoned": 1, "thinking_share": 1.0}),
        # Without a count the share is one of characters; so is it where the count is wrong.
        ([replace(thinking(), **UNCOUNTED)], {"thinking_share": 0.25, "thinking_share_source": "characters"}),
        ([replace(thinking(), **FALSELY)], {"thinking_share": 0.25, "thinking_share_source": "characters"}),
        ([replace(plain(), **FALSELY)], {"thinking_share": 0.0, "thinking_share_source": "usage", "reasoned": 0}),
        # Reasoning that nobody sees has a share and no time.
        ([replace(plain(), reasoning_tokens=16)], {"thinking_share": 0.5, "thinking_ms": None, "reasoned": 1}),
        # Records of versions before the mark.
        ([stream()], {"ttfat_ms": None, "thinking_ms": None, "thinking_share": None, "reasoned": None}),
        (
            [replace(stream(), reasoning_tokens=8)],
            {"ttfat_ms": None, "thinking_share": 0.25, "reasoned": 1, "only_reasoned": None},
        ),
    ],
)
def test_a_level_says_when_the_answer_began(results: list[Result], expected: dict[str, Any]) -> None:
    assert figures(summed(results), expected) == expected


def test_in_open_loop_the_first_answer_counts_from_when_the_request_was_due() -> None:
    late = thinking(queued=100, answer_at=460)

    assert summed([late], concurrency=None, request_rate_per_s=1.0)["ttfat_ms"]["p50"] == 460.0
    assert summed([late])["ttfat_ms"]["p50"] == 360.0


def test_of_whole_answers_nobody_saw_the_first_answer() -> None:
    level = summed([thinking()], scenario={"stream": False})

    assert (level["ttfat_ms"], level["thinking_ms"], level["thinking_share"]) == (None, None, 0.25)


@pytest.mark.parametrize(
    ("change", "round_trip_ms", "expected"),
    [
        ({}, 0.0, 50.0),  # 10 tokens in 200 ms
        ({}, 100.0, 100.0),  # of which 100 are the way there and back
        ({"cached_tokens": 6}, 0.0, 20.0),
        ({"cached_tokens": 10}, 0.0, None),
        ({"input_tokens": None}, 0.0, None),
        ({}, 200.0, None),
        ({}, None, None),
    ],
)
def test_prefill_is_what_was_read_in_the_time_to_the_first_token(
    change: dict[str, Any], round_trip_ms: float | None, expected: float | None
) -> None:
    assert summed([stream(**change)], round_trip_ms=round_trip_ms)["prefill_tokens_per_s"] == expected


def test_the_speed_of_one_user_is_tpot_turned_round_and_so_is_its_interval() -> None:
    level = summed([stream(i, per_token=10 + 7 * i % 40) for i in range(40)])
    low, high = level["tpot_ms"]["ci95"]["p50"]

    assert level["tokens_per_s_per_user"] == pytest.approx(1000 / level["tpot_ms"]["p50"], rel=1e-5)
    assert level["tokens_per_s_per_user_ci95"] == pytest.approx([1000 / high, 1000 / low], rel=1e-5)


def test_prefill_has_an_interval_of_its_median() -> None:
    level = summed([stream(i, ttft=100 + 70 * i % 400) for i in range(40)], round_trip_ms=0.0)
    low, high = level["prefill_tokens_per_s_ci95"]

    assert low < level["prefill_tokens_per_s"] < high


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (stream(), 820 / 32),  # 200 ms and 31 gaps of 20 ms
        (stream(tokens=1), 200.0),
        (stream(usage=False), 820 / 32),
    ],
)
def test_normalised_latency_is_the_whole_time_a_token(result: Result, expected: float) -> None:
    assert summed([result])["normalised_latency_ms"]["p50"] == pytest.approx(expected, abs=1e-3)


def test_whole_answers_without_a_count_have_no_normalised_latency() -> None:
    level = summed([stream(usage=False)], scenario={"stream": False, "slo": ["normalised_latency_p95=1s"]})

    assert (level["normalised_latency_ms"]["n"], level["slo"][0]["attained"]) == (0, None)


def test_a_burst_has_neither_the_speed_of_a_user_nor_of_prefill() -> None:
    level = summed([stream(i, per_token=0.01, ttft=800) for i in range(3)], round_trip_ms=0.0)

    assert (level["tokens_per_s_per_user"], level["prefill_tokens_per_s"]) == (None, None)


# -- where they are named

MIXED = [*(thinking(i) for i in range(3)), thinking(3, **ONLY)]


@pytest.mark.parametrize(
    ("bound", "results", "attainment", "attained"),
    [
        ("ttfat_p50=400ms", MIXED, 0.75, True),
        ("ttfat_p95=5s", MIXED, 0.75, False),  # one never answered
        ("ttfat_mean=5s", MIXED, 0.75, False),
        ("ttfat_mean=400ms", MIXED[:3], 1.0, True),
        ("ttfat_p95=5s", [stream()], None, None),  # of a version that did not mark it
        ("ttfat_p95=5s", [plain(), failed(1, reasoning_characters=0)], 0.5, False),
        ("normalized_latency_p95=26ms", [stream()], 1.0, True),
        ("normalised_latency_p95=25ms", [stream()], 0.0, False),
        ("tokens_per_s_per_user>49", [stream()], None, True),
        ("interactivity>51", [stream()], None, False),
        ("prefill_tokens_per_s>49", [stream()], None, True),
        ("prefill>51", [stream()], None, False),
        ("prefill>51", [stream(usage=False)], None, None),
    ],
)
def test_slos_can_be_about_them(
    bound: str, results: list[Result], attainment: float | None, attained: bool | None
) -> None:
    [row] = summed(results, scenario={"slo": [bound]}, round_trip_ms=0.0)["slo"]

    assert (row["attainment"], row["attained"]) == (attainment, attained)


def test_where_all_completed_and_one_only_reasoned_other_times_stay_as_they_are() -> None:
    level = summed(MIXED)

    assert level["with_failures_ms"]["itl"] == level["itl_ms"]
    assert level["with_failures_ms"]["e2e"] == level["e2e_ms"]
    assert level["with_failures_ms"]["ttfat"]["p95"] is None
    assert summed(MIXED[:3])["with_failures_ms"] is None


def test_a_request_that_only_reasoned_fails_a_threshold_on_the_first_answer() -> None:
    [judged] = thresholds([summed(MIXED)], ["ttfat_p95 > 5s"])

    assert (judged["result"], judged["value"]) == ("failed", None)
    assert judged["reason"] == "1 only reasoned of 4 requests: they never answered"


@pytest.mark.parametrize(
    ("written", "result"),
    [
        ("ttfat_p50 > 300ms", "failed"),
        ("ttfo_p50 > 400ms", "passed"),
        ("thinking_share > 50%", "passed"),
        ("prefill < 60", "failed"),
        ("tokens_per_s_per_user < 20", "passed"),
    ],
)
def test_thresholds_can_be_about_them(written: str, result: str) -> None:
    level = summed([thinking(i) for i in range(2)], round_trip_ms=0.0)
    [judged] = thresholds([level], [written])

    assert judged["result"] == result


def measured(**shape: Any) -> Lap:
    """40 requests of three speeds that take turns."""
    results = [thinking(i, ttft=200 + 10 * (i % 3), per_token=20 + i % 3, **shape) for i in range(40)]
    found = lap(run(), level_data(results, round_trip_ms=0.0))

    assert found is not None
    return found


def test_comparisons_can_be_about_them() -> None:
    metrics = ["tokens_per_s_per_user", "prefill_tokens_per_s", "ttfat_p50", "thinking", "normalised_latency"]
    verdicts = judge(side_of(measured()), side_of(measured(answer_at=460.0, input_tokens=20)), metrics)

    assert [verdict.ratio for verdict in verdicts] == pytest.approx([1.0, 2.0, 460 / 360, 250 / 150, 1.0], rel=0.01)
    assert [verdict.word for verdict in verdicts] == ["same", "faster", "slower", "slower", "same"]


def test_a_choice_can_require_them() -> None:
    one, other = candidate("one", [measured()]), candidate("other", [measured(input_tokens=40)])

    record = choose(one, other, needs=["prefill_tokens_per_s > 100", "tokens_per_s_per_user > 40", "ttfat_p95 < 400ms"])

    assert (record["winner"], row(record, "one")["out"]) == ("other", "prefill_tokens_per_s > 100")
