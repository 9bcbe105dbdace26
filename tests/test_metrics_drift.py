"""Drift within a level, stalls, a backlog, and the noise band of a run (V2, V10, V11)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from loadbench.metrics import summarise
from loadbench.store.histogram import Histogram
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


def slower_at_a_rate() -> list:
    noise = simulations.ar1(np.random.default_rng(2), 1, 300)[0]
    ttft_ms = [float(200 * (1 + i / 300) * math.exp(0.1 * noise[i])) for i in range(300)]
    return [stream(i, due=1000.0 * i, ttft=ttft, tokens=5) for i, ttft in enumerate(ttft_ms)]


# 8 streams: the first of a round waits 200 ms, the last 900; whatever third a round falls into.
IN_STEP = [
    stream(i, due=1000.0 * (i // 8) + 0.01 * (i % 8), ttft=200.0 + 100 * (i % 8), tokens=5, per_token=5)
    for i in range(400)
]
TWICE = one_by_one(300, lambda share: 200.0 * (1 + share))
DRIFTS = [
    pytest.param(one_by_one(300, lambda share: 200.0), {}, [], id="in one state"),
    pytest.param(TWICE, {}, ["red"], id="slower"),
    pytest.param(one_by_one(300, lambda share: 400.0 * (1 - 0.5 * share)), {}, ["red"], id="faster"),
    pytest.param(one_by_one(40, lambda share: 200.0 * (1 + share)), {}, [], id="few requests say nothing"),
    pytest.param(TWICE, {"shape": "ramp 1..8 over 2m"}, [], id="a load that is meant to change"),
    pytest.param(IN_STEP, {"concurrency": 8}, [], id="streams in step"),
    pytest.param(slower_at_a_rate(), {"concurrency": None, "request_rate_per_s": 1.0}, ["red"], id="slower at a rate"),
]


@pytest.mark.parametrize(("results", "changes", "severities"), DRIFTS)
def test_a_server_that_does_not_stay_in_one_state_drifts(results: list, changes: dict, severities: list[str]) -> None:
    level = summed(results, **changes)

    assert [severity for severity, _ in said(level, "V10")] == severities
    assert any(row["significant"] for row in (level["drift"] or {}).values()) == bool(severities)


def test_a_server_that_slows_down_drifts_and_the_gate_says_by_how_much() -> None:
    level = summed(one_by_one(300, lambda share: 200.0 * (1 + 0.2 * share)))

    [(severity, text)] = said(level, "V10")
    assert (severity, text[:14]) == ("warn", "TTFT rose by 1")
    assert level["drift"]["ttft"]["ratio"] == pytest.approx(1.14, abs=0.03)
    assert level["drift"]["tpot"] == {"ratio": 1.0, "significant": False}
    assert level["drift"]["output_tokens_per_s"]["ratio"] < 1


def test_whole_answers_drift_by_their_e2e() -> None:
    results = one_by_one(300, lambda share: 200.0 * (1 + share))

    level = summarise(run(level_data(results), scenario={"stream": False}))["levels"][0]

    assert set(level["drift"]) == {"e2e", "output_tokens_per_s"}
    assert level["drift"]["e2e"]["significant"]


def test_an_open_loop_is_not_judged_by_the_rate_that_was_asked_for() -> None:
    results = [stream(i, due=100.0 * i, ttft=200.0 + i % 7, tokens=20, per_token=5) for i in range(200)]

    level = summed(results, concurrency=None, request_rate_per_s=10.0)

    assert set(level["drift"]) == {"ttft", "tpot"}


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


WARM_UP = [stream(0, warmup=True, tokens=20, gaps_us=[900_000] + [20_000] * 18)]
SHORT = [stream(i, due=1000.0 * i, tokens=20, gaps_us=[20] * 15 + [9_900] * 4) for i in range(10)]


@pytest.mark.parametrize(
    "results",
    [
        pytest.param(one_by_one(40, lambda share: 200.0, per_token=20.0), id="none"),
        pytest.param(WARM_UP + one_by_one(40, lambda share: 200.0, per_token=20.0)[1:], id="one in the warm-up"),
        pytest.param(SHORT, id="below 10 ms, however short the others are"),
    ],
)
def test_a_level_without_stalls_says_nothing(results: list) -> None:
    level = summed(results)

    assert (level["stalls"]["n"], level["stalls"]["requests"], level["stalls"]["longest_ms"]) == (0, 0, None)
    assert said(level, "stalls") == []


def test_the_threshold_is_the_scenarios() -> None:
    results = one_by_one(40, lambda share: 200.0, per_token=20.0)
    results[7] = stream(7, tokens=20, due=results[7].due_ns / MS, gaps_us=[20_000] * 18 + [61_000])

    found = summarise(run(level_data(results), scenario={"stall_threshold": 3}))

    assert (found["stall_threshold"], found["levels"][0]["stalls"]["n"]) == (3, 1)
    assert summarise(run(level_data(results)))["stall_threshold"] == 10


def test_gaps_that_were_kept_in_a_histogram_alone_are_counted_without_a_name() -> None:
    histogram = Histogram()
    histogram.record_many([20_000] * 500 + [700_000, 900_000])

    level = summed([stream(gaps_us=[])], gaps_kept=False, histograms={"itl": histogram})

    assert level["stalls"]["n"] == 2
    assert level["stalls"]["longest_ms"] == 900.0
    assert level["stalls"]["longest_request"] is None
    assert "2 gaps longer than 200.2 ms" in said(level, "stalls")[0][1]


# The noise band


def closing(ttft_ms: float, **changes: Any) -> dict[str, Any]:
    first = level_data(one_by_one(60, lambda share: 200.0), id="m@c1")
    last = level_data(one_by_one(60, lambda share: ttft_ms, seed=2), id="m@c1#end", closing=True, **changes)
    return summarise(run(first, last))


BANDS = [(200.0, []), (220.0, ["warn"]), (250.0, ["red"]), (165.0, ["red"])]


@pytest.mark.parametrize(("ttft_ms", "expected"), BANDS)
def test_the_first_level_measured_again_gives_the_noise_band(ttft_ms: float, expected: list[str]) -> None:
    found = closing(ttft_ms)

    assert [w["severity"] for w in found["warnings"]] == expected
    assert found["noise"][0]["ttft_p50"] == pytest.approx(ttft_ms / 200, abs=0.04)
    for warning in found["warnings"]:
        assert warning["text"].startswith(f"m: median TTFT {'rose' if ttft_ms > 200 else 'fell'} by ")
        assert "when c1 was measured again at the end: smaller differences between levels are noise" in warning["text"]


def test_a_closing_level_is_no_point_of_the_curve_and_one_that_was_cut_short_says_nothing() -> None:
    found = closing(400.0)

    assert [row["id"] for row in found["scaling"][0]["levels"]] == ["m@c1"]
    assert found["levels"][1]["efficiency"] is None
    assert closing(400.0, status="interrupted")["noise"] == []


# -- open loop: a server that cannot keep up is told from a healthy one (gate V2)


def served(
    rate_per_s: float, *, n: int, slots: int, service_ms: Callable[[], float], seed: int = 0, constant: bool = False
) -> dict[str, Any]:
    """A level of n requests to a server that answers as many at once as it has slots, the others in turn."""
    rng = np.random.default_rng(seed)
    gaps_ms = np.full(n, 1.0) if constant else rng.exponential(1.0, n)
    free_ms = [0.0] * slots
    results = []
    for number, due in enumerate(np.cumsum(gaps_ms) * 1000 / rate_per_s):
        begin = max(due, min(free_ms))
        took = service_ms()
        free_ms[free_ms.index(min(free_ms))] = begin + took
        results.append(stream(number, due=due, ttft=begin - due + took / 2, per_token=took / 62, tokens=32))
    return summed(results, concurrency=None, request_rate_per_s=rate_per_s)


def test_twenty_a_second_to_a_server_of_ten_a_second_is_a_backlog() -> None:
    level = served(20.0, n=240, slots=1, service_ms=lambda: 100.0)

    [(severity, text)] = said(level, "V2")

    assert severity == "red"
    assert "/s that are due: the backlog grows" in text
    assert text.startswith("the server completes 9.9")
    assert level["residence_growth"] > 3


def test_a_constant_rate_needs_thirty_requests_to_show_a_backlog() -> None:
    level = served(2.0, n=40, slots=1, service_ms=lambda: 1000.0, constant=True)

    assert [severity for severity, _ in said(level, "V2")] == ["red"]


@pytest.mark.endurance
@pytest.mark.parametrize("n", [30, 300])
@pytest.mark.parametrize("load", [0.3, 0.5, 0.7])
def test_a_healthy_server_has_no_backlog_whatever_chance_does(load: float, n: int) -> None:
    one_by_one = [served(load, n=n, slots=1, service_ms=lambda: 1000.0, seed=seed) for seed in range(15)]
    eight_at_once = [served(8 * load, n=n, slots=8, service_ms=lambda: 1000.0, seed=seed) for seed in range(15)]

    assert [text for level in one_by_one + eight_at_once for _, text in said(level, "V2") if "backlog" in text] == []


@pytest.mark.parametrize("n", [30, 100])
def test_answers_as_long_as_the_window_are_no_backlog(n: int) -> None:
    # Two a second, 20 s each, all at once: in 15 s none ends, and yet nothing waits.
    rng = np.random.default_rng(2)
    levels = [
        served(2.0, n=n, slots=n, service_ms=lambda: float(20_000 * rng.lognormal(0, 0.4)), seed=seed)
        for seed in range(15)
    ]

    assert [text for level in levels for _, text in said(level, "V2") if "backlog" in text] == []


def test_a_closed_loop_and_two_requests_have_no_backlog() -> None:
    two = summed([stream(0), stream(1)], concurrency=None, request_rate_per_s=1.0)

    assert summed([stream(i, due=1000 * i) for i in range(9)])["residence_growth"] is two["residence_growth"] is None
