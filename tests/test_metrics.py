"""The figures of requests and levels: METRICS.md §1 and §3, and the defects of §8 that must not come back."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.metrics import Requests, summarise
from loadbench.metrics.distribution import distribution
from loadbench.store.histogram import Histogram
from loadbench.store.record import SPEECHLESS, Results
from tests.support import simulations
from tests.support.streams import MS, failed, in_turn, level_data, run, stream, summed

STREAMS = [
    # METRICS.md §1: token source, TTFT, TPOT, whether k was estimated
    pytest.param({}, "usage", 200.0, 20.0, False, id="A: one token per event, late usage"),
    pytest.param({"per_event": 4}, "usage", 260.0, 20.0, True, id="B: four tokens per event"),
    pytest.param({"tokens": 20, "usage": False}, "events", 200.0, 20.0, False, id="C: no usage, 20 of 32 tokens"),
]


@pytest.mark.parametrize(("shape", "source", "ttft", "tpot", "k_estimated"), STREAMS)
def test_the_three_streams_read_as_the_law_says(
    shape: dict[str, int], source: str, ttft: float, tpot: float, k_estimated: bool
) -> None:
    level = summed([stream(**shape)])

    assert (level["ttft_ms"]["p50"], level["tpot_ms"]["p50"]) == (ttft, tpot)
    assert (level["token_source"], level["tpot_k_estimated"]) == (source, k_estimated)
    assert level["tpot_micro_ms"] == tpot


def test_tokens_counted_as_they_came_need_no_estimate() -> None:
    # The first arrival carried 2 of 5 tokens, the three later ones 1 each, 30 ms apart.
    counted = stream(
        tokens=5, first_tokens=2, text_events=4, gaps_us=[30_000] * 3, last_token_ns=290 * MS, end_ns=300 * MS
    )

    level = summed([counted])

    assert (level["tpot_ms"]["p50"], level["tpot_k_estimated"]) == (30.0, False)


UNDEFINED_TPOT = [
    pytest.param(stream(tokens=1), id="one token"),
    pytest.param(stream(tokens=3, per_event=3), id="all tokens in one arrival"),
    pytest.param(stream(tokens=3, per_event=3, first_tokens=2), id="one arrival and an end-of-text token"),
    pytest.param(stream(tokens=4, first_tokens=4), id="all tokens counted in the first"),
]


@pytest.mark.parametrize("result", UNDEFINED_TPOT)
def test_tpot_without_a_second_token_is_none_and_no_failure(result) -> None:
    level = summed([result])

    assert level["tpot_ms"] == {"n": 0, **dict.fromkeys(("mean", "p50", "p90", "p95", "p99", "p999", "max")), "ci95":
        dict.fromkeys(("mean", "p50", "p90", "p95", "p99", "p999"))}  # fmt: skip
    assert level["tpot_micro_ms"] is None
    assert (level["completed"], level["failed"]) == (1, 0)


def test_each_time_starts_where_its_definition_says() -> None:
    # 3 ms until it was sent, of which 1 ms set up a connection; 200 ms to the first token, 620 to the last.
    level = summed([stream(due=100, queued=3, connect_ns=MS)], concurrency=None, request_rate_per_s=1.0)

    assert level["ttft_ms"]["p50"] == 200.0
    assert level["ttft_from_due_ms"]["p50"] == 203.0
    assert level["ttfe_ms"]["p50"] == 50.0
    assert level["e2e_ms"]["p50"] == 823.0
    assert level["client_queue_ms"]["p50"] == 2.0
    assert level["connect_ms"] == {**level["connect_ms"], "n": 1, "p50": 1.0}


def test_a_silent_retry_waits_in_the_client_queue_not_in_ttft() -> None:
    level = summed([stream(queued=500, retries=1)])

    assert (level["ttft_ms"]["p50"], level["client_queue_ms"]["p50"], level["retries"]) == (200.0, 500.0, 1)


def test_warm_connections_have_no_setup_to_speak_of() -> None:
    level = summed([stream(0, warmup=True, connect_ns=3 * MS), stream(1, connect_ns=0), stream(2, connect_ns=None)])

    assert (level["connect_ms"]["n"], level["connect_ms"]["p50"]) == (1, 3.0)


def test_a_request_that_was_never_sent_spent_no_time_in_flight() -> None:
    level = summed([*in_turn(4), failed(4, error="connect", sent_ns=None, due=1000)])

    assert level["residence_ms"] == 825.0


def test_connection_setup_longer_than_the_queue_leaves_a_queue_of_zero() -> None:
    assert summed([stream(queued=3, connect_ns=4 * MS)])["client_queue_ms"]["p50"] == 0.0


def test_ttft_from_due_is_for_open_loop_alone() -> None:
    assert summed([stream()])["ttft_from_due_ms"] is None


def test_gaps_are_those_of_measured_completed_requests() -> None:
    slow_gaps = {"per_token": 99.0}
    results = [
        stream(0, warmup=True, **slow_gaps),
        stream(1),
        stream(2, error="truncated", **slow_gaps),
        stream(3),
    ]

    level = summed(results)

    assert level["itl_ms"] == {**level["itl_ms"], "n": 62, "mean": 20.0, "p50": 20.0, "max": 20.0}
    assert level["ttft_ms"]["n"] == 2


def test_gaps_kept_in_a_histogram_alone_are_read_from_it() -> None:
    histogram = Histogram()
    histogram.record_many([20_000] * 99 + [500_001])

    level = summed([replace(stream(), gaps_us=[])], gaps_kept=False, histograms={"itl": histogram})

    assert level["itl_ms"] == {**level["itl_ms"], "n": 100, "max": 500.001, "mean": 24.8, "p999": 500.001}
    assert level["itl_ms"]["p50"] == pytest.approx(20, rel=0.001)
    assert level["merged_share"] is None


@pytest.mark.parametrize(
    ("shape", "name"),
    [
        ({}, "inter-token"),
        ({"text_events": 31}, "inter-token"),  # the end-of-text token is counted but carries no text
        ({"per_event": 4}, "inter-event"),
        ({"usage": False}, "inter-event"),  # nobody knows what an event carries
        ({"per_event": 2, "text_events": 32}, "inter-event"),  # single events that arrive in pairs
    ],
)
def test_gaps_are_called_inter_token_only_where_an_arrival_is_a_token(shape: dict[str, int], name: str) -> None:
    assert summed([stream(**shape)])["itl_name"] == name


def test_what_came_together_is_counted_by_arrivals() -> None:
    pairs = summed([stream(per_event=2, text_events=32)])
    kept_in_a_histogram = Histogram()
    kept_in_a_histogram.record_many([40_000] * 15)
    alone = summed(
        [stream(per_event=2, text_events=32, gaps_us=[])], gaps_kept=False, histograms={"itl": kept_in_a_histogram}
    )

    assert (pairs["events_per_arrival"], pairs["tokens_per_arrival"]) == (2.0, 2.0)
    assert (alone["events_per_arrival"], alone["tokens_per_arrival"]) == (2.0, 2.0)


@pytest.mark.parametrize("shape", [{"error": "truncated"}, {"warmup": True}])
def test_where_nothing_arrived_nobody_knows_what_an_arrival_carries(shape: dict[str, Any]) -> None:
    level = summed([stream(**shape)])

    assert (level["events_per_arrival"], level["tokens_per_arrival"], level["late_share"]) == (None, None, None)


LATENESS = [
    # the lag's histogram in us, the level's facts of it, reads later than half a gap of 20 ms
    ([5_000] * 90 + [15_000] * 10, None, 0.1),
    ([5_000] * 100, None, 0.0),
    (None, {"n": 100, "p50": 20, "p99": 9_000, "p999": 11_000, "max": 30_000}, 0.01),
    (None, {"n": 100, "p50": 20, "p99": 9_000, "p999": 9_500, "max": 9_900}, 0.0),
    (None, {"n": 100, "p50": 11_000, "p99": 19_000, "p999": 19_500, "max": 19_900}, 1.0),
    (None, None, None),
]


@pytest.mark.parametrize(("lags", "facts", "share"), LATENESS)
def test_late_reads_are_those_later_than_half_a_gap(
    lags: list[int] | None, facts: dict[str, int] | None, share: float | None
) -> None:
    histograms = {}
    if lags is not None:
        histograms["client_lag"] = Histogram()
        histograms["client_lag"].record_many(lags)

    assert summed([stream()], client_lag_us=facts, histograms=histograms)["late_share"] == share


def test_one_server_count_and_one_estimate_make_a_mixed_source() -> None:
    level = summed([stream(0), stream(1, usage=False)])

    assert (level["token_source"], level["tokens_per_event"]) == ("mixed", 1.0)


def test_attempted_is_completed_and_failed_by_kind_and_cancelled() -> None:
    results = [stream(0), failed(1), failed(2), failed(3, error="cancelled"), failed(4, error="reset")]

    level = summed([*results, failed(5, warmup=True)], offered=7, dropped=2)

    assert (level["offered"], level["dropped"], level["attempted"]) == (7, 2, 5)
    assert (level["completed"], level["failed"], level["cancelled"]) == (1, 3, 1)
    assert level["errors"] == {"http_5xx": 2, "reset": 1}
    assert not [w for w in level["warnings"] if w["code"] == "offered"]


def test_records_that_are_missing_are_told() -> None:
    level = summed([stream(0)], offered=2)

    assert [w["severity"] for w in level["warnings"] if w["code"] == "offered"] == ["red"]


def test_finish_reasons_count_the_completed() -> None:
    results = [stream(0), stream(1, finish_reason="stop"), stream(2, finish_reason=None), stream(3, error="reset")]

    assert summed(results)["finish_reasons"] == {"length": 1, "none": 1, "stop": 1}


def test_a_level_where_all_failed_has_no_times_and_no_rates_but_its_errors() -> None:
    level = summed([failed(i, due=10_000 * i) for i in range(3)])

    assert (level["ttft_ms"]["n"], level["ttft_ms"]["mean"]) == (0, None)
    assert (level["output_tokens_per_s"], level["token_source"]) == (None, None)
    assert level["output_tokens"]["total"] is None
    assert level["errors"] == {"http_5xx": 3}


def test_a_level_that_was_skipped_is_all_null_and_zero() -> None:
    level = summed([], status="skipped", reason="the model is absent", duration_s=None)

    assert (level["status"], level["reason"]) == ("skipped", "the model is absent")
    assert (level["attempted"], level["ttft_ms"]["p50"], level["whole_run"]["duration_s"]) == (0, None, None)
    assert level["warnings"] == []


def test_the_clients_lag_comes_in_ms() -> None:
    level = summed([stream()], client_lag_us={"n": 32, "p50": 40, "p99": 900, "p999": 1200, "max": 1300})

    assert level["client_lag_ms"] == {**level["client_lag_ms"], "n": 32, "p50": 0.04, "p99": 0.9, "mean": None}


def test_the_clients_lag_has_every_percentile_where_its_histogram_was_kept() -> None:
    lag = Histogram()
    lag.record_many([40, 50, 900])

    level = summed([stream()], client_lag_us={"n": 3, "p99": 900}, histograms={"client_lag": lag})

    assert level["client_lag_ms"] == {**level["client_lag_ms"], "n": 3, "mean": 0.33, "p50": 0.05, "p95": 0.9}


@given(st.lists(st.floats(0, 1e12), min_size=1, max_size=60))
def test_percentiles_are_values_that_occurred_in_order_and_never_beyond_the_maximum(values: list[float]) -> None:
    found = distribution(np.array(values))

    ordered = [found.p50, found.p90, found.p95, found.p99, found.p999, found.max]
    assert ordered == sorted(ordered)
    assert all(any(math.isclose(p, v / 1e6, abs_tol=0.0006) for v in values) for p in ordered)


def test_the_p95_of_three_is_the_largest_of_them() -> None:
    # statistics.quantiles says 39.19 s of [.., .., 39.06 s].
    assert distribution(np.array([1.0e9, 20.0e9, 39.06e9])).p95 == 39_060.0


def test_cached_tokens_are_a_share_of_the_input_tokens_they_belong_to() -> None:
    results = [stream(0, cached_tokens=5), stream(1, cached_tokens=0), stream(2, usage=False)]

    assert summed(results)["cached_share"] == 0.25


def test_the_columns_know_which_rows_count() -> None:
    requests = Requests.of(Results.from_results([stream(0, warmup=True), stream(1), failed(2, error="cancelled")]))

    assert requests.population.tolist() == [False, True, False]
    assert requests.cancelled.tolist() == [False, False, True]


def test_a_summary_is_json_and_the_same_every_time() -> None:
    data = level_data([*in_turn(9), failed(9)])
    scenario = {"slo": ["ttft_p95=800ms"], "max_tokens": 32}
    target = {"kind": "simulator"}

    first, second = (summarise(run(data, scenario=scenario, target=target, clock="kernel")) for _ in range(2))

    assert json.dumps(first, allow_nan=False, sort_keys=True) == json.dumps(second, allow_nan=False, sort_keys=True)
    assert (first["levels"][0]["simulated"], first["levels"][0]["clock"]) == (True, "kernel")
    assert "levels" not in first["run"]


@pytest.mark.parametrize(("prompts", "told"), [({"own_limits": True}, 0), ({"own_limits": False}, 1), ({}, 1)])
def test_an_output_length_is_forced_on_prompts_without_limits_of_their_own(prompts: dict, told: int) -> None:
    forced = {"extra_body": {"ignore_eos": True}, "max_tokens": 64}

    [level] = summarise(run(level_data(in_turn(9)), scenario=forced, prompts=prompts))["levels"]

    assert [warning["code"] for warning in level["warnings"]].count("V5") == told


def test_conversations_that_ended_early_are_told() -> None:
    cut = replace(stream(), error_message=SPEECHLESS)

    [level] = summarise(run(level_data([cut, replace(stream(), request=1)])))["levels"]

    assert (level["completed"], level["failed"]) == (2, 0)
    assert [one["text"][:58] for one in level["warnings"] if one["code"] == "conversations"] == [
        "1 conversation ended before the last turn: an answer had n"
    ]


def test_lines_that_could_not_be_read_are_told() -> None:
    broken = replace(run(level_data([stream()])), unreadable_lines=2)

    assert [w["code"] for w in summarise(broken)["warnings"]] == ["records"]


def test_means_and_the_mean_over_all_tokens_have_intervals() -> None:
    random = np.random.default_rng(1)
    results = [
        stream(i, due=2000.0 * i, ttft=200 + 50 * float(random.random()), per_token=20 + float(random.random()))
        for i in range(60)
    ]

    level = summed(results)

    for name in ("ttft_ms", "tpot_ms", "e2e_ms", "itl_ms"):
        low, high = level[name]["ci95"]["mean"]

        assert low < level[name]["mean"] < high < 1.1 * low
    low, high = level["tpot_micro_ms_ci95"]
    assert low < level["tpot_micro_ms"] < high


def test_of_too_few_requests_for_a_p95_its_lower_end_is_given() -> None:
    random = np.random.default_rng(1)
    results = [stream(i, due=2000.0 * i, ttft=200 + 50 * float(random.random())) for i in range(60)]

    level = summed(results)

    low, high = level["ttft_ms"]["ci95"]["p95"]
    assert low < level["ttft_ms"]["p95"]
    assert high is None


def test_near_saturation_withholds_every_interval_of_those_times_and_of_no_others() -> None:
    random = np.random.default_rng(1)
    [waits] = simulations.queue(random, 1, 400, 0.9)
    due_ms = np.cumsum(random.exponential(1000 / 0.9, 400))
    results = [
        stream(i, due=float(due), ttft=1000 * float(wait), per_token=20 + float(random.random()))
        for i, (due, wait) in enumerate(zip(due_ms, waits, strict=True))
    ]

    level = summed(results, concurrency=None, request_rate_per_s=0.9)

    assert set(level["ttft_from_due_ms"]["ci95"].values()) == {None}
    assert level["ttft_from_due_ms"]["p50"] is not None
    assert level["tpot_ms"]["ci95"]["p50"] is not None
    [text] = [w["text"] for w in level["warnings"] if w["code"] == "near-saturation"]
    assert "TTFT and E2E have no intervals to be trusted: a queue near saturation" in text
