"""Objectives, goodput, and the tables by prompt and by length."""

import pytest

from tests.support.streams import MS, failed, in_turn, stream, summed

S = 1_000 * MS


def slo(results: list, *bounds: str, **changes) -> list[dict]:
    return summed(results, scenario={"slo": list(bounds)}, **changes)["slo"]


def test_a_percentile_bound_asks_that_share_of_the_offered_requests() -> None:
    nineteen_of_twenty = [stream(i) for i in range(19)] + [stream(19, ttft=900)]

    [row] = slo(nineteen_of_twenty, "ttft_p95=800ms")

    assert (row["bound"], row["attainment"], row["attained"], row["n"]) == ("ttft_p95=800ms", 0.95, True, 20)
    assert row["ci95"] == [pytest.approx(0.7639, abs=1e-4), pytest.approx(0.9911, abs=1e-4)]


def test_failed_and_dropped_requests_miss_every_bound() -> None:
    results = [*(stream(i) for i in range(18)), failed(18)]

    [row] = slo(results, "ttft_p95=800ms", offered=20, dropped=1)

    assert (row["attainment"], row["attained"], row["n"]) == (0.9, False, 20)


KILLED = {
    "status": "incomplete",
    **dict.fromkeys(("offered", "dropped", "measured_from_ns", "last_issue_ns", "full_ns")),
}
"""What run.json does not say of a level whose process died."""


def test_of_an_open_loop_that_was_killed_nobody_knows_what_was_dropped() -> None:
    bounds = {"slo": ["ttft_p95=800ms", "success>=99%", "failed<1%"]}

    level = summed(in_turn(40), scenario=bounds, concurrency=None, request_rate_per_s=1.0, **KILLED)

    assert (level["offered"], level["dropped"], level["attempted"]) == (None, None, 40)
    assert {(row["attainment"], row["attained"], row["n"]) for row in level["slo"]} == {(None, None, None)}
    [said] = [warning for warning in level["warnings"] if warning["code"] == "offered"]
    assert said["severity"] == "warn"
    assert "dropped" in said["text"]


def test_a_closed_loop_that_was_killed_dropped_nothing() -> None:
    level = summed(in_turn(40), scenario={"slo": ["ttft_p95=800ms"]}, **KILLED)

    assert (level["offered"], level["dropped"], level["slo"][0]["attainment"]) == (40, 0, 1.0)
    assert [warning for warning in level["warnings"] if warning["code"] == "offered"] == []


def test_warm_up_requests_attain_nothing() -> None:
    [row] = slo([stream(0, warmup=True), stream(1), failed(2)], "ttft_p95=800ms")

    assert (row["attainment"], row["n"]) == (0.5, 2)


BOUNDS = [
    # bound, attainment of a stream of TTFT 200, gaps 20 ms with one of 520, e2e 1320, attained
    ("ttft_p50<=200ms", 1.0, True),
    ("ttft_p50<200ms", 0.0, False),
    ("ttft_max=199ms", 0.0, False),
    ("e2e_p90=1320ms", 1.0, True),
    ("e2e_p90=1319ms", 0.0, False),
    ("itl_p95=20ms", 1.0, True),  # 30 of 31 gaps are 20 ms
    ("itl_p99=20ms", 0.0, False),
    ("itl_max=519ms", 0.0, False),
    ("itl_mean=36.2ms", 1.0, True),  # 1120 / 31 = 36.13
    ("itl_mean=36.1ms", 0.0, False),
    ("tpot_p50=37ms", 1.0, True),
    ("tpot_mean=36ms", 0.0, False),
    ("client_queue_p99=1ms", 1.0, True),
    ("success>=99%", 1.0, True),
    ("failed<1%", 1.0, True),
]


@pytest.mark.parametrize(("bound", "attainment", "attained"), BOUNDS)
def test_each_metric_is_held_against_its_bound(bound: str, attainment: float, attained: bool) -> None:
    one_stall = stream(gaps_us=[20_000] * 15 + [520_000] + [20_000] * 15, last_token_ns=1320 * MS, end_ns=1325 * MS)

    [row] = slo([one_stall], bound)

    assert (row["attainment"], row["attained"]) == (attainment, attained)


def test_a_mean_is_held_as_a_mean_not_request_by_request() -> None:
    [row] = slo([stream(0, ttft=100), stream(1, ttft=900)], "ttft_mean=500ms")

    assert (row["attainment"], row["attained"]) == (0.5, True)


def test_a_mean_of_requests_of_which_one_failed_has_no_end() -> None:
    [row] = slo([stream(0, ttft=100), stream(1, ttft=100), failed(2)], "ttft_mean=500ms")

    assert row["attained"] is False


def test_failures_that_come_together_make_a_share_less_sure() -> None:
    scattered = [failed(i) if i % 10 == 0 else stream(i) for i in range(400)]
    together = [failed(i) if i < 40 else stream(i) for i in range(400)]

    [one], [other] = slo(scattered, "success>=85%"), slo(together, "success>=85%")

    assert one["attainment"] == other["attainment"] == 0.9
    assert one["ci95"][0] > 0.86
    assert other["ci95"][0] < 0.7


def test_failed_is_a_share_of_the_attempted() -> None:
    results = [*(stream(i) for i in range(49)), failed(49)]

    low, high = slo(results, "failed<=2%", "failed<2%")

    assert (low["attained"], high["attained"]) == (True, False)


def test_ttft_counts_from_due_in_open_loop() -> None:
    [row] = slo([stream(queued=700)], "ttft_p95=800ms", concurrency=None, request_rate_per_s=1.0)

    assert row["attainment"] == 0.0


def test_an_undefined_tpot_breaks_no_bound() -> None:
    rows = slo([stream(tokens=1)], "tpot_p95=1ms", "itl_p95=1ms", "itl_mean=1ms")

    assert [row["attainment"] for row in rows] == [1.0, 1.0, 1.0]
    assert [row["attained"] for row in rows] == [True, True, None]  # there is no mean to hold


def test_bounds_on_tpot_of_a_burst_server_are_undecided() -> None:
    burst = stream(tokens=8, per_event=8, text_events=8, first_events=8)

    level = summed([burst], scenario={"slo": ["tpot_p95=50ms"]}, full_ns=0, last_issue_ns=2 * S)

    assert (level["slo"][0]["attainment"], level["slo"][0]["attained"], level["goodput_per_s"]) == (None, None, None)


def test_bounds_on_gaps_that_were_not_kept_are_undecided() -> None:
    [row] = slo([stream(gaps_us=[])], "itl_p95=50ms", gaps_kept=False)

    assert row["attained"] is None


def test_nothing_offered_attains_nothing() -> None:
    [row] = slo([], "ttft_p95=800ms")

    assert (row["attainment"], row["attained"], row["ci95"]) == (None, None, None)


def test_a_rate_is_held_as_a_figure_of_the_level() -> None:
    tokens, good = slo(in_turn(10), "output_tokens_per_s>=38", "goodput>=2")

    assert (tokens["attained"], tokens["attainment"]) == (True, None)
    assert good["attained"] is None  # no bound says which requests are good


def test_goodput_is_the_rate_of_requests_that_met_every_bound() -> None:
    slow = stream(10, due=8500, ttft=900)
    results = [*in_turn(10), slow, failed(11, due=9500)]

    level = summed(results, scenario={"slo": ["ttft_p95=800ms", "e2e_p95=5s"]}, full_ns=0, last_issue_ns=20 * S)

    assert (level["goodput_per_s"], level["requests_per_s"]) == (0.5, 0.55)


def test_goodput_has_an_interval_that_holds_it_and_is_that_of_all_where_all_are_good() -> None:
    results = in_turn(100)

    good = summed(results, scenario={"slo": ["e2e_p95=5s"]})
    half = [stream(i, due=825.0 * i, ttft=900 if i % 2 else 200) for i in range(100)]
    some = summed(half, scenario={"slo": ["ttft_p95=800ms"]})

    assert good["goodput_per_s_ci95"] == good["requests_per_s_ci95"]
    assert some["goodput_per_s_ci95"][0] < some["goodput_per_s"] < some["goodput_per_s_ci95"][1]
    assert some["goodput_per_s_ci95"][1] < some["requests_per_s"]


def test_without_objectives_there_is_no_goodput() -> None:
    level = summed(in_turn(10))

    assert (level["goodput_per_s"], level["slo"]) == (None, [])


def test_prompts_have_a_row_each_with_their_outliers_flagged() -> None:
    slow = stream(9, prompt="a", ttft=9000)
    results = [*(stream(i, prompt="a", ttft=200 + i) for i in range(9)), slow, stream(10, prompt="b"), failed(11)]

    level = summed(results)

    assert level["prompts"] == [
        {"prompt": "a", "n": 10, "ttft_median_ms": 204.0, "e2e_median_ms": 824.0, "e2e_worst_ms": 9620.0,
         "output_tokens_median": 32.0, "outliers": 1},
        {"prompt": "b", "n": 1, "ttft_median_ms": 200.0, "e2e_median_ms": 820.0, "e2e_worst_ms": 820.0,
         "output_tokens_median": 32.0, "outliers": None},
    ]  # fmt: skip
    assert level["ttft_ms"]["max"] == 9000.0  # flagged, never dropped


def test_a_thousand_distinct_prompts_leave_the_two_hundred_slowest() -> None:
    level = summed([stream(i, prompt=f"p{i}", ttft=200 + i, tokens=2) for i in range(1000)])

    assert (len(level["prompts"]), level["prompts_left_out"]) == (200, 800)
    assert min(row["ttft_median_ms"] for row in level["prompts"]) == 1000.0


def test_up_to_four_input_lengths_have_a_row_each() -> None:
    rows = summed([stream(i, input_tokens=length) for i, length in enumerate((7, 7, 9, 30, 400))])["input_lengths"]

    assert [(row["from_tokens"], row["to_tokens"], row["n"]) for row in rows] == [
        (7, 7, 2),
        (9, 9, 1),
        (30, 30, 1),
        (400, 400, 1),
    ]


def test_more_input_lengths_are_quartered() -> None:
    assert len(summed([stream(i, input_tokens=10 + i) for i in range(5)])["input_lengths"]) == 4

    rows = summed([stream(i, input_tokens=10 + i, ttft=10 * (10 + i)) for i in range(100)])["input_lengths"]

    assert [(row["from_tokens"], row["to_tokens"], row["n"]) for row in rows] == [
        (10, 34, 25),
        (35, 59, 25),
        (60, 84, 25),
        (85, 109, 25),
    ]
    assert [row["ttft_median_ms"] for row in rows] == [220.0, 470.0, 720.0, 970.0]


def test_input_lengths_that_nobody_counted_give_no_table() -> None:
    assert summed([stream(usage=False)])["input_lengths"] == []
