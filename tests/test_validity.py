"""The gates of METRICS.md §7, each with cases just below and just above its thresholds."""

from typing import Any

import pytest
from streams import in_turn, stream, summed

from loadbench.validity import warnings

SOUND: dict[str, Any] = {
    "attempted": 1000,
    "completed": 1000,
    "failed": 0,
    "cancelled": 0,
    "offered": 1000,
    "dropped": 0,
    "errors": {},
    "concurrency": 4,
    "request_rate_per_s": None,
    "duration_s": 40.0,
    "window_s": 30.0,
    "in_flight_mean": 4.0,
    "ended_per_s": 20.0,
    "residence_ms": 200.0,
    "ttft_ms": {"n": 1000, "p50": 100.0},
    "itl_ms": {"p50": 10.0},
    "client_lag_ms": {"p99": 0.1},
    "round_trip_ms": 1.0,
    "merged_share": 0.0,
    "client_cpu_share": 0.2,
    "output_tokens": {"mean": 128.0},
    "token_source": "usage",
    "burst_share": 0.0,
    "cached_share": 0.0,
}
"""A level that no gate has anything against."""

FORCED = {"extra_body": {"ignore_eos": True}, "max_tokens": 128}
OPEN = {"concurrency": None, "request_rate_per_s": 10.0, "ttft_from_due_ms": {"n": 1000}}
BACKLOG = {**OPEN, "residence_growth": 2.1, "residence_ms": None, "requests_per_s": 16.7}
FEW = {"attempted": 100, "completed": 100, "offered": 100}


def gates(scenario: dict[str, Any] | None = None, **changes: Any) -> list[tuple[str, str]]:
    return [(w["code"], w["severity"]) for w in warnings(SOUND | changes, scenario or {})]


def test_nothing_speaks_against_a_sound_level() -> None:
    assert warnings(SOUND, {}) == []


CASES = [
    # V1: the window in s, and as a share of the run
    ({"window_s": 20.0}, []),
    ({"window_s": 19.9}, [("V1", "warn")]),
    ({"window_s": 5.0}, [("V1", "warn")]),
    ({"window_s": 4.99}, [("V1", "red")]),
    ({"window_s": None}, [("V1", "red")]),
    ({"window_s": 40.0, "duration_s": 100.0}, []),
    ({"window_s": 39.9, "duration_s": 100.0}, [("V1", "warn")]),
    ({"window_s": 30.0, "duration_s": None}, []),
    # V2: in flight on average, of 4; X and R fit N where it is lowered
    ({"in_flight_mean": 3.8, "ended_per_s": 19.0}, []),
    ({"in_flight_mean": 3.79, "ended_per_s": 18.95}, [("V2", "warn")]),
    ({"in_flight_mean": 3.2, "ended_per_s": 16.0}, [("V2", "warn")]),
    ({"in_flight_mean": 3.19, "ended_per_s": 15.95}, [("V2", "red")]),
    ({"in_flight_mean": None}, []),
    ({"in_flight_mean": 1.0, "ended_per_s": 5.0, "think_time_s": 2.0}, []),  # 4 users, most of them pausing
    # V2: Little's law, N = 20 * R; one round of R seconds more or less in 30 s is 0.67 % here
    ({"residence_ms": 211.0}, []),
    ({"residence_ms": 212.0}, [("V2", "warn")]),
    ({"residence_ms": 189.0}, []),
    ({"residence_ms": 188.0}, [("V2", "warn")]),
    ({"residence_ms": 231.0}, [("V2", "warn")]),
    ({"residence_ms": 232.0}, [("V2", "red")]),
    # … 4.67 % here: 9.4 % off, 10.1 % off
    ({"ended_per_s": 2.59, "residence_ms": 1400.0}, []),
    ({"ended_per_s": 2.57, "residence_ms": 1400.0}, [("V2", "warn")]),
    # … and a sixth where 7 rounds were counted and 6 fit; but never an excuse for a law that is wholly off
    ({"ended_per_s": 28 / 30, "residence_ms": 5000.0}, []),
    ({"ended_per_s": 0.8, "residence_ms": 1000.0}, [("V2", "red")]),
    ({"residence_ms": None}, []),
    # V2 in open loop: due requests that were dropped
    ({**OPEN, "attempted": 999, "completed": 999, "dropped": 1}, [("V2", "warn")]),
    ({**OPEN, "attempted": 800, "completed": 800, "dropped": 200}, [("V2", "warn")]),
    ({**OPEN, "attempted": 799, "completed": 799, "dropped": 201}, [("V2", "red")]),
    (OPEN, []),
    # V2 in open loop: of 1000 that were due 940, 760 ended, and the last ones took more than twice as long as the first
    ({**BACKLOG, "ended_per_s": 950 / 30}, []),
    ({**BACKLOG, "ended_per_s": 935 / 30}, [("V2", "warn")]),
    ({**BACKLOG, "ended_per_s": 805 / 30}, [("V2", "warn")]),
    ({**BACKLOG, "ended_per_s": 795 / 30}, [("V2", "red")]),
    ({**BACKLOG, "ended_per_s": 500 / 30, "residence_growth": 2.0}, []),
    ({**BACKLOG, "ended_per_s": 500 / 30, "residence_growth": None}, []),
    # … where chance leaves 2 * sqrt(99) = 19.9 of 100
    ({**BACKLOG, **FEW, "ended_per_s": 79.5 / 30}, []),
    ({**BACKLOG, **FEW, "ended_per_s": 79.0 / 30}, [("V2", "red")]),
    # … the worse of a backlog and of drops speaks
    ({**BACKLOG, "ended_per_s": 500 / 30, "attempted": 900, "completed": 900, "dropped": 100}, [("V2", "red")]),
    # V3: lag p99 against a gap p50 of 10 ms
    ({"client_lag_ms": {"p99": 2.5}}, []),
    ({"client_lag_ms": {"p99": 2.51}}, [("V3", "warn")]),
    ({"client_lag_ms": {"p99": 5.0}}, [("V3", "warn")]),
    ({"client_lag_ms": {"p99": 5.01}}, [("V3", "red")]),
    ({"client_lag_ms": None}, []),
    ({"client_lag_ms": {"p99": 9.0}, "itl_ms": None}, []),
    # V3: merged arrivals, unless answers come in one burst
    ({"merged_share": 0.001}, []),
    ({"merged_share": 0.0011}, [("V3", "warn")]),
    ({"merged_share": 0.01}, [("V3", "warn")]),
    ({"merged_share": 0.0101}, [("V3", "red")]),
    ({"merged_share": 0.99}, [("V3", "red")]),  # a starved client
    ({"merged_share": 0.99, "burst_share": 0.5}, [("V3", "red")]),
    ({"merged_share": 0.99, "burst_share": 0.51}, [("V13", "red")]),
    ({"merged_share": None}, []),
    # V3: the client's share of a core is never red
    ({"client_cpu_share": 0.8}, []),
    ({"client_cpu_share": 0.81}, [("V3", "warn")]),
    ({"client_cpu_share": 1.9}, [("V3", "warn")]),
    ({"client_cpu_share": None}, []),
    # V4: failures among 1000
    ({"failed": 1, "completed": 999, "errors": {"reset": 1}}, [("V4", "warn")]),
    ({"failed": 10, "completed": 990, "errors": {"reset": 10}}, [("V4", "warn")]),
    ({"failed": 11, "completed": 989, "errors": {"reset": 11}}, [("V4", "red")]),
    ({"cancelled": 11, "completed": 989}, []),
    # V6
    ({"token_source": "events"}, [("V6", "warn")]),
    ({"token_source": "mixed"}, [("V6", "red")]),
    ({"token_source": None}, []),
    ({"tokens_per_event": 1.5}, []),
    ({"tokens_per_event": 1.51}, [("V6", "warn")]),
    ({"tokens_per_event": None}, []),
    ({"tokens_per_event": 4.0, "token_source": "mixed"}, [("V6", "red")]),
    ({"undercounted": 0}, []),
    ({"undercounted": 1}, [("V6", "warn")]),
    ({"undercounted": 1, "token_source": "mixed"}, [("V6", "red")]),
    ({"undercounted": None}, []),
    # what the client's tables do not know
    ({"unknown": {}}, []),
    ({"unknown": {"finish_reason odd": 4}}, [("dialect", "note")]),
    # V7: round trip against a TTFT p50 of 100 ms
    ({"round_trip_ms": 30.0}, []),
    ({"round_trip_ms": 30.1}, [("V7", "warn")]),
    ({"round_trip_ms": None}, []),
    # V12: n for p50 and p95
    ({"ttft_ms": {"n": 72, "p50": 100.0}}, []),
    ({"ttft_ms": {"n": 71, "p50": 100.0}}, [("V12", "warn")]),
    ({"ttft_ms": {"n": 0, "p50": None}}, []),
    ({**OPEN, "ttft_from_due_ms": {"n": 71}}, [("V12", "warn")]),
    # V13
    ({"burst_share": 0.5}, []),
    ({"burst_share": 0.51}, [("V13", "red")]),
    ({"burst_share": None}, []),
    # V14 with fixed prompts is a fact to know
    ({"cached_share": 0.05}, []),
    ({"cached_share": 0.051}, [("V14", "note")]),
    ({"cached_share": None}, []),
    # V12 of whole answers rests on E2E
    ({"streamed": False, "ttft_ms": {"n": 0, "p50": None}, "e2e_ms": {"n": 72}}, []),
    ({"streamed": False, "ttft_ms": {"n": 0, "p50": None}, "e2e_ms": {"n": 71}}, [("V12", "warn")]),
    # V9: share of all cores that neither server nor client used
    ({"others_cpu_share": 0.1}, []),
    ({"others_cpu_share": 0.101}, [("V9", "warn")]),
    ({"others_cpu_share": 0.5}, [("V9", "warn")]),
    ({"others_cpu_share": 0.501}, [("V9", "red")]),
    ({"others_cpu_share": None}, []),
    # V15: what ran is what was asked for, or what the model's name stands for
    ({"asked_device": "GPU", "ran": {"id": "m-gpu:1", "device": "GPU"}}, []),
    ({"asked_device": "gpu", "ran": {"device": "GPU"}}, []),
    ({"asked_device": "GPU", "ran": {"device": "CPU"}}, [("V15", "red")]),
    ({"device": "GPU", "ran": {"device": "CPU"}}, [("V15", "red")]),
    ({"asked_device": "GPU", "ran": {"device": "GPU+CPU"}}, []),
    ({"asked_device": "GPU", "ran": {"device": "CPU+GPU"}}, [("V15", "red")]),
    ({"asked_device": "GPU", "ran": {"device": None}}, []),
    ({"asked_device": "GPU", "ran": None}, []),
    ({"asked_device": None, "device": None, "ran": {"device": "CPU"}}, []),
    # heat and power
    # a client that stood still, in a window of 30 s
    ({"client_pause_s": 0.249}, []),
    ({"client_pause_s": 0.25}, [("paused", "warn")]),
    ({"client_pause_s": 3.0}, [("paused", "warn")]),
    ({"client_pause_s": 3.1}, [("paused", "red")]),
    ({"client_pause_s": None}, []),
    ({"throttled": True}, [("throttled", "note")]),
    ({"throttled": False}, []),
    ({"throttled": None}, []),
    ({"power": "mains"}, []),
    ({"power": "battery"}, [("power", "note")]),
    ({"power": "changed"}, [("power", "warn")]),
    # requests that no record tells of
    ({"offered": 1001}, [("offered", "red")]),
    ({"completed": 999}, [("offered", "red")]),
]


@pytest.mark.parametrize(("changes", "expected"), CASES)
def test_a_gate_speaks_beyond_its_threshold_and_not_before(
    changes: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    assert gates(**changes) == expected


LENGTHS = [
    # V5: mean output tokens of 128 forced; 95 % are 121.6
    (FORCED, {"output_tokens": {"mean": 121.6}}, []),
    (FORCED, {"output_tokens": {"mean": 121.5}}, [("V5", "warn")]),
    (FORCED, {"output_tokens": {"mean": None}}, []),
    (FORCED, {"output_tokens": {"mean": 32.0}, "token_source": "events"}, [("V6", "warn")]),  # an estimate cannot say
    ({"max_tokens": 128}, {"output_tokens": {"mean": 32.0}}, []),
    ({"max_tokens": 128, "extra_body": {"ignore_eos": False}}, {"output_tokens": {"mean": 32.0}}, []),
]


@pytest.mark.parametrize(("scenario", "changes", "expected"), LENGTHS)
def test_the_output_length_is_judged_where_it_was_forced(
    scenario: dict[str, Any], changes: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    assert gates(scenario, **changes) == expected


PROVIDERS = [
    # V15: asked for, ran
    ("cuda", "CUDAExecutionProvider", []),
    ("NvTensorRTRTXExecutionProvider", "trtrtx", []),
    ("cuda", "WebGpuExecutionProvider", [("V15", "red")]),
    ("cuda", None, []),
    (None, "WebGpuExecutionProvider", []),
]


@pytest.mark.parametrize(("asked", "ran", "expected"), PROVIDERS)
def test_another_execution_provider_than_asked_is_a_fallback(
    asked: str | None, ran: str | None, expected: list[tuple[str, str]]
) -> None:
    changes = {"asked_device": "GPU", "ran": {"device": "GPU", "execution_provider": ran}}

    assert gates({"execution_provider": asked}, **changes) == expected


def test_a_fallback_says_what_ran_and_what_was_asked() -> None:
    [said] = warnings(SOUND | {"asked_device": "GPU", "ran": {"id": "m-cpu:1", "device": "CPU"}}, {})

    assert said["text"].startswith("CPU ran (as m-cpu:1), not GPU as asked")


@pytest.mark.parametrize(("share", "expected"), [(0.05, []), (0.051, [("V14", "warn")])])
def test_a_cache_that_answered_distinct_prompts_is_a_doubt(share: float, expected: list[tuple[str, str]]) -> None:
    assert gates({"distinct_prompts": True}, cached_share=share) == expected


def test_the_worse_of_load_and_littles_law_speaks() -> None:
    assert gates(in_flight_mean=3.7, residence_ms=300.0) == [("V2", "red")]
    assert gates(in_flight_mean=3.0, residence_ms=160.0) == [("V2", "red")]


def test_a_gate_gives_the_figure_the_reason_and_the_remedy() -> None:
    [said] = warnings(SOUND | {"failed": 11, "completed": 989, "errors": {"reset": 9, "http_5xx": 2}}, {})

    assert said["text"] == (
        "11 of 1000 requests failed (http_5xx 2, reset 9): times are of the others alone; "
        "read error_message in requests.jsonl"
    )


def test_too_few_requests_are_told_with_the_number_needed() -> None:
    [said] = warnings(SOUND | {"ttft_ms": {"n": 5, "p50": 100.0}}, {})

    assert "p50 needs >= 6, p95 needs >= 72, have 5" in said["text"]


def test_a_level_that_attempted_nothing_is_not_judged() -> None:
    assert warnings({"attempted": 0, "offered": 0, "window_s": None}, {}) == []


def test_the_summary_of_a_run_holds_its_warnings() -> None:
    level = summed(in_turn(30), client_cpu_s=29.0, scenario={"extra_body": {"ignore_eos": True}, "max_tokens": 64})

    assert [(w["code"], w["severity"]) for w in level["warnings"]] == [
        ("V3", "warn"),
        ("V5", "warn"),
        ("V12", "warn"),
    ]


def test_fewer_tokens_than_events_with_text_are_warned_of_whenever_it_happens() -> None:
    """https://github.com/UKGovernmentBEIS/inspect_ai/issues/5528."""
    level = summed([*in_turn(3, tokens=50), stream(3, due=4000, tokens=50, output_tokens=49)])
    [warning] = [warning for warning in warnings(level) if warning["code"] == "V6"]

    assert level["undercounted"] == 1
    assert "in 1 of 4 requests" in warning["text"]


def test_whole_answers_have_no_events_to_count() -> None:
    level = summed(in_turn(4, tokens=50, output_tokens=1), scenario={"stream": False})

    assert level["undercounted"] is None


def test_what_requests_bring_that_nobody_knows_is_one_note_with_their_number() -> None:
    odd = [stream(i, due=2000 * i, unknown="finish_reason odd; text in delta.x") for i in range(3)]
    level = summed([*odd, stream(3, due=8000, unknown="finish_reason odd")])
    [note] = [warning for warning in warnings(level) if warning["code"] == "dialect"]

    assert level["unknown"] == {"finish_reason odd": 4, "text in delta.x": 3}
    assert "finish_reason odd (4 of 4 requests), text in delta.x (3 of 4 requests)" in note["text"]
