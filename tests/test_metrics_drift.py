"""Drift within a level, stalls in its streams, and the noise band of a run (METRICS.md §7: V10, V11)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from loadbench.metrics import summarise
from tests.support import simulations
from tests.support.streams import MS, level_data, run, said, stream, summed


def one_by_one(n: int, ttft_ms: Callable[[float], float], *, per_token: float = 5.0, seed: int = 1) -> list:
    """One stream of n requests; ttft_ms is given the share of them that went before."""
    random, found, at = np.random.default_rng(seed), [], 0.0
    for number in range(n):
        ttft = ttft_ms(number / n) * math.exp(0.1 * random.standard_normal())
        found.append(stream(number, due=at, ttft=ttft, per_token=per_token, tokens=20))
        at = found[-1].end_ns / MS
    return found


def test_a_server_in_one_state_does_not_drift() -> None:
    level = summed(one_by_one(300, lambda share: 200.0))

    assert {row["significant"] for row in level["drift"].values()} == {False}
    assert said(level, "V10") == []


def test_a_server_that_slows_down_drifts_and_the_gate_says_by_how_much() -> None:
    level = summed(one_by_one(300, lambda share: 200.0 * (1 + 0.2 * share)))

    [(severity, text)] = said(level, "V10")
    assert severity == "warn"
    assert text.startswith("TTFT rose by 1")
    assert level["drift"]["ttft"]["ratio"] == pytest.approx(1.14, abs=0.03)
    assert level["drift"]["tpot"] == {"ratio": 1.0, "significant": False}
    assert level["drift"]["output_tokens_per_s"]["ratio"] < 1


def test_a_drift_of_more_than_20_percent_is_red() -> None:
    level = summed(one_by_one(300, lambda share: 200.0 * (1 + share)))

    assert [severity for severity, _ in said(level, "V10")] == ["red"]


def test_a_server_that_becomes_faster_drifts_too() -> None:
    level = summed(one_by_one(300, lambda share: 400.0 * (1 - 0.5 * share)))

    [(severity, text)] = said(level, "V10")
    assert (severity, "TTFT fell by" in text) == ("red", True)


def test_few_requests_say_nothing_of_a_drift() -> None:
    assert summed(one_by_one(40, lambda share: 200.0 * (1 + share)))["drift"] is None


def test_whole_answers_drift_by_their_e2e() -> None:
    results = one_by_one(300, lambda share: 200.0 * (1 + share))

    level = summarise(run(level_data(results), scenario={"stream": False}))["levels"][0]

    assert set(level["drift"]) == {"e2e", "output_tokens_per_s"}
    assert level["drift"]["e2e"]["significant"]


def test_an_open_loop_is_not_judged_by_the_rate_that_was_asked_for() -> None:
    results = [stream(i, due=100.0 * i, ttft=200.0 + i % 7, tokens=20, per_token=5) for i in range(200)]

    level = summed(results, concurrency=None, request_rate_per_s=10.0)

    assert set(level["drift"]) == {"ttft", "tpot"}


def test_a_load_that_is_meant_to_change_is_not_judged() -> None:
    results = one_by_one(300, lambda share: 200.0 * (1 + share))

    assert summed(results, shape="ramp 1..8 over 2m")["drift"] is None


def test_streams_in_step_are_no_drift() -> None:
    # 8 streams: the first of a round waits 200 ms, the last 900; whatever third a round falls into.
    results = [
        stream(i, due=1000.0 * (i // 8) + 0.01 * (i % 8), ttft=200.0 + 100 * (i % 8), tokens=5, per_token=5)
        for i in range(400)
    ]

    assert said(summed(results, concurrency=8), "V10") == []


def dependent(n: int, seed: int) -> list:
    """Requests each of which resembles the one before (AR(1), 0.5)."""
    random, found, at, state = np.random.default_rng(seed), [], 0.0, 0.0
    for number in range(n):
        state = 0.5 * state + math.sqrt(0.75) * float(random.standard_normal())
        found.append(stream(number, due=at, ttft=200 * math.exp(0.2 * state), per_token=5.0, tokens=8))
        at = found[-1].end_ns / MS
    return found


@pytest.mark.endurance
def test_requests_that_resemble_each_other_raise_no_more_alarms_than_stated() -> None:
    levels = [summed(dependent(120, seed)) for seed in range(150)]

    alarms = sum(any(row["significant"] for row in level["drift"].values()) for level in levels)

    assert alarms <= 5  # 1 % of 150 is 1.5; more than 5 come by chance once in 200 times


def red_levels(load: float, n: int, levels: int) -> int:
    """How many levels of a queue in its steady state, at Poisson arrivals, have a red V10."""
    random, red = np.random.default_rng(1), 0
    for times in simulations.queue(random, levels, n, load):
        due_ms = np.cumsum(random.exponential(1000 / load, n))
        results = [
            stream(i, due=float(at), ttft=1000 * float(time), tokens=5)
            for i, (at, time) in enumerate(zip(due_ms, times, strict=True))
        ]
        found = said(summed(results, concurrency=None, request_rate_per_s=load), "V10")
        red += any(severity == "red" for severity, _ in found)
    return red


@pytest.mark.endurance
@pytest.mark.parametrize("load", [0.8, 0.9])
def test_a_queue_near_saturation_that_is_in_one_state_is_seldom_red(load: float) -> None:
    assert red_levels(load, 400, 100) <= 4  # 1 % of 100 is 1; more than 4 come by chance once in 250 times


def test_a_server_that_slows_down_at_a_rate_drifts_though_some_requests_wait() -> None:
    random = np.random.default_rng(2)
    noise = simulations.ar1(random, 1, 300)[0]
    results = [
        stream(i, due=1000.0 * i, ttft=float(200 * (1 + i / 300) * math.exp(0.1 * noise[i])), tokens=5)
        for i in range(300)
    ]

    assert [s for s, _ in said(summed(results, concurrency=None, request_rate_per_s=1.0), "V10")] == ["red"]


# Stalls


def test_a_gap_of_more_than_ten_median_ones_is_a_stall_and_the_longest_has_a_name() -> None:
    results = one_by_one(40, lambda share: 200.0, per_token=20.0)
    gaps = list(results[7].gaps_us)
    gaps[3], gaps[9] = 700_000, 201_000
    held_up = stream(7, due=results[7].due_ns / MS, ttft=200.0, prompt="weather", gaps_us=gaps)
    results[7] = held_up

    level = summed(results)

    assert level["stalls"] == {
        "n": 2,
        "threshold_ms": 200.0,
        "requests": 1,
        "longest_ms": 700.0,
        "longest_request": 7,
        "longest_prompt": "weather",
        "at_s": round((held_up.first_token_ns or 0) / 1e9 + 0.76, 3),
        "longest": [
            {"at_s": round((held_up.first_token_ns or 0) / 1e9 + 0.76, 3), "ms": 700.0, "request": 7},
            {"at_s": round((held_up.first_token_ns or 0) / 1e9 + 1.061, 3), "ms": 201.0, "request": 7},
        ],
    }
    [(severity, text)] = said(level, "stalls")
    assert severity == "note"
    assert text.startswith("2 gaps of 1 request longer than 200 ms, the longest 700 ms, in request 7 (prompt weather)")


def test_a_level_without_stalls_says_nothing() -> None:
    level = summed(one_by_one(40, lambda share: 200.0, per_token=20.0))

    assert (level["stalls"]["n"], level["stalls"]["requests"], level["stalls"]["longest_ms"]) == (0, 0, None)
    assert said(level, "stalls") == []


def test_a_stall_in_the_warm_up_is_none() -> None:
    results = one_by_one(40, lambda share: 200.0, per_token=20.0)
    results[0] = stream(0, warmup=True, tokens=20, gaps_us=[900_000] + [20_000] * 18)

    assert summed(results)["stalls"]["n"] == 0


def test_gaps_below_10_ms_are_no_stalls_however_short_the_others_are() -> None:
    results = [stream(i, due=1000.0 * i, tokens=20, gaps_us=[20] * 15 + [9_900] * 4) for i in range(10)]

    assert summed(results)["stalls"]["n"] == 0


def test_the_threshold_is_the_scenarios() -> None:
    results = one_by_one(40, lambda share: 200.0, per_token=20.0)
    results[7] = stream(7, tokens=20, due=results[7].due_ns / MS, gaps_us=[20_000] * 18 + [61_000])

    found = summarise(run(level_data(results), scenario={"stall_threshold": 3}))

    assert (found["stall_threshold"], found["levels"][0]["stalls"]["n"]) == (3, 1)
    assert summarise(run(level_data(results)))["stall_threshold"] == 10


def test_gaps_that_were_kept_in_a_histogram_alone_are_counted_without_a_name() -> None:
    from loadbench.store.histogram import Histogram

    histogram = Histogram()
    histogram.record_many([20_000] * 500 + [700_000, 900_000])

    level = summed([stream(gaps_us=[])], gaps_kept=False, histograms={"itl": histogram})

    assert level["stalls"]["n"] == 2
    assert level["stalls"]["longest_ms"] == 900.0
    assert level["stalls"]["longest_request"] is None
    assert "2 gaps longer than 200.2 ms" in said(level, "stalls")[0][1]


def test_whole_answers_have_no_stalls() -> None:
    assert summarise(run(level_data([stream()]), scenario={"stream": False}))["levels"][0]["stalls"] is None


# The noise band


def closing(ttft_ms: float, **changes: Any) -> dict[str, Any]:
    first = level_data(one_by_one(60, lambda share: 200.0), id="m@c1")
    last = level_data(one_by_one(60, lambda share: ttft_ms, seed=2), id="m@c1#end", closing=True, **changes)
    return summarise(run(first, last))


BANDS = [(200.0, []), (220.0, ["warn"]), (250.0, ["red"]), (165.0, ["red"])]


@pytest.mark.parametrize(("ttft_ms", "expected"), BANDS)
def test_the_first_level_measured_again_gives_the_noise_band(ttft_ms: float, expected: list[str]) -> None:
    found = closing(ttft_ms)

    assert [w["severity"] for w in found["warnings"] if w["code"] == "V11"] == expected
    assert found["noise"][0]["ttft_p50"] == pytest.approx(ttft_ms / 200, abs=0.04)


def test_the_noise_is_told_once_of_the_run_with_figure_reason_and_remedy() -> None:
    [warning] = closing(250.0)["warnings"]

    assert warning["text"].startswith("m: median TTFT rose by 2")
    assert "when c1 was measured again at the end: smaller differences between levels are noise" in warning["text"]


def test_a_closing_level_is_no_point_of_the_curve_and_no_base() -> None:
    found = closing(400.0)

    assert [row["id"] for row in found["scaling"][0]["levels"]] == ["m@c1"]
    assert found["levels"][1]["efficiency"] is None


def test_a_closing_level_that_was_cut_short_says_nothing() -> None:
    assert closing(400.0, status="interrupted")["noise"] == []


def test_a_run_without_a_closing_level_has_no_noise_band() -> None:
    found = summarise(run(level_data(one_by_one(60, lambda share: 200.0))))

    assert (found["noise"], found["warnings"]) == ([], [])
