"""Throughput and the steady window (METRICS.md §4)."""

import pytest

from loadbench.metrics import summarise
from tests.support.streams import MS, failed, in_turn, level_data, run, stream, summed

S = 1_000 * MS


def test_the_closed_window_runs_from_the_full_load_to_the_last_issue() -> None:
    level = summed([stream()], measured_from_ns=1 * S, full_ns=3 * S, last_issue_ns=9 * S)

    assert level["window_s"] == 6.0


def test_the_closed_window_does_not_begin_before_measurement() -> None:
    level = summed([stream()], measured_from_ns=4 * S, full_ns=3 * S, last_issue_ns=9 * S)

    assert level["window_s"] == 5.0


@pytest.mark.parametrize(
    "marks",
    [
        pytest.param({"full_ns": None}, id="the load was never reached"),
        pytest.param({"last_issue_ns": None}, id="nothing was issued"),
        pytest.param({"full_ns": 9 * S, "last_issue_ns": 9 * S}, id="empty"),
    ],
)
def test_without_a_window_there_are_no_window_figures_but_those_of_the_whole_run(marks: dict) -> None:
    level = summed(in_turn(4), **marks)

    rates = ("output_tokens_per_s", "input_tokens_per_s", "characters_per_s", "requests_per_s", "in_flight_mean")
    assert {level[name] for name in (*rates, "window_s")} == {None}
    assert level["whole_run"]["output_tokens_per_s"] == pytest.approx(128 / (4 * 0.825), abs=0.001)


def test_a_window_under_a_second_gives_no_rates() -> None:
    level = summed(in_turn(4), measured_from_ns=0, full_ns=0, last_issue_ns=S - 1)

    assert (level["window_s"], level["output_tokens_per_s"], level["goodput_per_s"]) == (1.0, None, None)


def test_the_open_window_runs_from_the_first_to_the_last_measured_due() -> None:
    results = [stream(0, due=0, warmup=True), stream(1, due=2000), stream(2, due=3000), stream(3, due=7000)]

    level = summed(results, concurrency=None, request_rate_per_s=0.5)

    assert level["window_s"] == 5.0


def test_the_open_window_runs_to_the_last_due_that_was_dropped() -> None:
    # Ten were sent within 90 ms, then the cap of streams was reached and all others up to 30 s were dropped.
    sent = [stream(i, due=10 * i, tokens=100, per_token=500) for i in range(10)]

    level = summed(sent, concurrency=None, request_rate_per_s=100.0, last_issue_ns=30 * S, offered=3000, dropped=2990)

    assert level["window_s"] == 30.0
    assert level["output_tokens_per_s"] == pytest.approx(20, rel=0.01)
    assert ("V2", "red") in [(w["code"], w["severity"]) for w in level["warnings"]]


def test_the_open_window_of_a_level_cut_short_is_that_of_its_records() -> None:
    results = [stream(0, due=0, warmup=True), stream(1, due=2000), stream(2, due=7000)]

    level = summed(results, concurrency=None, request_rate_per_s=0.5, measured_from_ns=None, last_issue_ns=None)

    assert level["window_s"] == 5.0


def test_a_level_that_dropped_all_says_so() -> None:
    all_dropped = {"measured_from_ns": 0, "last_issue_ns": 29 * S, "offered": 30, "dropped": 30}

    level = summed([], concurrency=None, request_rate_per_s=1.0, **all_dropped)

    assert [(w["code"], w["severity"]) for w in level["warnings"]] == [("V2", "red")]
    assert level["warnings"][0]["text"].startswith("30 of 30 due requests were dropped")
    assert (level["window_s"], level["output_tokens_per_s"], level["ended_per_s"]) == (29.0, None, 0.0)


def test_tokens_count_when_they_arrive() -> None:
    # 101 tokens at 1000, 1020, … 3000 ms; the window [1500, 2500) ms sees those at 1500 … 2480.
    straddling = stream(ttft=1000, tokens=101)

    level = summed([straddling], measured_from_ns=1500 * MS, full_ns=0, last_issue_ns=2500 * MS)

    assert level["output_tokens_per_s"] == 50.0
    assert level["characters_per_s"] == 200.0
    assert level["requests_per_s"] == pytest.approx(1 / 3, abs=1e-6)  # 1 of its 3 seconds


def test_the_first_arrival_carries_its_k_tokens() -> None:
    # 4 of 100 tokens at 1000 ms, 96 in 24 arrivals of 4 from 1080 on; the window ends before 1080.
    level = summed([stream(ttft=940, tokens=100, per_event=4)], full_ns=0, last_issue_ns=1050 * MS)

    assert level["output_tokens_per_s"] == pytest.approx(4 / 1.05, abs=0.001)


def test_arrivals_that_were_not_kept_are_spread_evenly() -> None:
    lost = stream(ttft=1000, tokens=101, gaps_us=[])  # 100 tokens between 1000 and 3000 ms, one before

    level = summed([lost], gaps_kept=False, full_ns=0, last_issue_ns=2000 * MS)

    assert level["output_tokens_per_s"] == pytest.approx((1 + 50) / 2, abs=0.001)


def test_warm_up_and_later_failed_requests_are_part_of_the_flow() -> None:
    results = [
        stream(0, warmup=True),
        stream(1, due=1000, error="truncated", output_tokens=None, input_tokens=None),
        stream(2, due=2000),
    ]

    level = summed(results, measured_from_ns=0, full_ns=0, last_issue_ns=4 * S)

    assert level["output_tokens_per_s"] == 3 * 32 / 4
    assert level["requests_per_s"] == 2 / 4  # the one that failed is no completed request
    assert level["ttft_ms"]["n"] == 1


def in_step(streams: int, rounds: int) -> list:
    """Streams that start and end together, a round a second; the first round is the warm-up."""
    found = []
    for number in range(streams * (rounds + 1)):
        due = 1000 * (number // streams) + 0.05 * (number % streams)
        end_ns = round((due + 1000) * MS)
        found.append(stream(number, due=due, tokens=41, end_ns=end_ns, warmup=number < streams))
    return found


@pytest.mark.parametrize("rounds", [4, 6, 7, 10, 25])
def test_streams_in_step_count_no_round_too_many(rounds: int) -> None:
    changes = {"concurrency": 8, "full_ns": MS, "last_issue_ns": round((1000 * rounds + 0.35) * MS)}

    level = summed(in_step(8, rounds), scenario={"slo": ["ttft_p95=1s"]}, **changes)

    assert level["requests_per_s"] == pytest.approx(8, rel=1e-3)
    assert level["goodput_per_s"] == level["requests_per_s"]
    assert level["ended_per_s"] > 8.2  # which Little's law is checked with, and which gate V2 forgives
    assert [w["text"] for w in level["warnings"] if "Little" in w["text"]] == []


def test_an_open_loop_counts_what_is_done_not_what_waits() -> None:
    # Two a second to a server that answers one a second: the later half waits beyond the window.
    waiting = [stream(i, due=500 * i, ttft=500 * i + 100, per_token=20, tokens=46) for i in range(120)]

    level = summed(waiting, concurrency=None, request_rate_per_s=2.0)

    assert level["requests_per_s"] == pytest.approx(1, rel=0.02)


def test_prompt_tokens_are_never_in_output_tokens_per_s() -> None:
    level = summed([stream(input_tokens=100_000)], full_ns=0, last_issue_ns=2 * S)

    assert (level["output_tokens_per_s"], level["input_tokens_per_s"]) == (16.0, 50_000.0)


def test_input_tokens_that_nobody_counted_are_null() -> None:
    assert summed([stream(usage=False)], full_ns=0, last_issue_ns=2 * S)["input_tokens_per_s"] is None


def test_a_window_in_which_nothing_arrived_measured_zero() -> None:
    level = summed([stream()], measured_from_ns=10 * S, full_ns=0, last_issue_ns=20 * S)

    assert (level["output_tokens_per_s"], level["requests_per_s"], level["in_flight_mean"]) == (0.0, 0.0, 0.0)


def test_in_flight_is_the_time_spent_between_sent_and_end() -> None:
    # Two of 825 ms inside the window, one of which half of it is, one never sent.
    half_out = stream(2, due=4000 - 412.5)
    results = [stream(0), stream(1, due=100), half_out, failed(3, sent_ns=None)]

    level = summed(results, measured_from_ns=0, full_ns=0, last_issue_ns=4 * S)

    assert level["in_flight_mean"] == pytest.approx(2.5 * 0.825 / 4, abs=0.001)


def test_a_server_that_works_one_by_one_shows_its_rate_and_one_in_flight() -> None:
    level = summed(in_turn(40))

    assert level["requests_per_s"] == pytest.approx(1 / 0.825, rel=0.01)
    assert level["output_tokens_per_s"] == pytest.approx(32 / 0.825, rel=0.01)
    assert level["in_flight_mean"] == pytest.approx(1.0, abs=0.001)


def test_a_server_that_takes_twenty_minutes_an_answer_keeps_its_rates_and_littles_law() -> None:
    # 20 tokens, one a minute: 1/1200 requests and 1/60 tokens a second.
    level = summed(in_turn(24, tokens=20, per_token=60_000.0, ttft=60_000.0), scenario={"slo": ["ttft_p95=2m"]})

    assert level["requests_per_s"] == pytest.approx(1 / 1200, rel=1e-4)
    assert level["goodput_per_s"] == level["requests_per_s"]
    assert level["output_tokens_per_s"] == pytest.approx(1 / 60, rel=1e-4)
    assert level["whole_run"]["requests_per_s"] == pytest.approx(1 / 1200, rel=1e-4)
    assert [warning for warning in level["warnings"] if warning["code"] == "V2"] == []


def test_the_whole_run_counts_everything_over_all_of_its_time() -> None:
    results = [stream(0, warmup=True), stream(1, due=1000)]

    whole = summed(results, duration_s=10.0)["whole_run"]

    assert whole == {
        "duration_s": 10.0,
        "output_tokens_per_s": 6.4,
        "input_tokens_per_s": 2.0,
        "characters_per_s": 25.6,
        "requests_per_s": 0.2,
    }


def test_a_level_cut_short_takes_its_length_from_its_requests() -> None:
    assert summed([stream()], duration_s=None)["whole_run"]["duration_s"] == 0.825


def test_efficiency_speed_up_and_stretch_stand_in_each_level() -> None:
    one = level_data(in_turn(40), id="m@c1", concurrency=1)
    # Four at once, but each takes twice as long per token.
    four = level_data([r for i in range(4) for r in in_turn(40, per_token=40.0)], id="m@c4", concurrency=4)

    levels = summarise(run(one, four))["levels"]

    assert (levels[0]["efficiency"], levels[0]["speedup"], levels[0]["stretch"]) == (1.0, 1.0, 1.0)
    assert levels[1]["speedup"] == pytest.approx(4 * 825 / 1445, rel=0.01)
    assert levels[1]["efficiency"] == pytest.approx(825 / 1445, rel=0.01)
    assert levels[1]["stretch"] == pytest.approx(1440 / 820, rel=0.01)
