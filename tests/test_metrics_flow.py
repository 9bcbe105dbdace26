"""What flowed when: the timeline of a level, and the intervals of its rates."""

import numpy as np
import pytest

from loadbench.metrics import summarise
from loadbench.metrics import window as flow
from tests.support.streams import MS, failed, in_turn, level_data, run, stream, summed

S = 1_000 * MS


def reals(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)


def test_amounts_flow_evenly_from_their_begin_to_their_end() -> None:
    found = flow.flow_by(reals(0, 5, 10, 15, 30), reals(0, 10), reals(10, 20), reals(100, 10))

    assert found.tolist() == [0, 50, 100, 105, 110]


def test_an_amount_without_a_length_flows_at_once_after_its_time() -> None:
    assert flow.flow_by(reals(5, 6), reals(5), reals(5), reals(3)).tolist() == [0, 3]


def test_an_amount_without_a_mark_or_a_number_does_not_flow() -> None:
    nan = float("nan")

    assert flow.flow_by(reals(99), reals(nan, 0, 0), reals(1, nan, 1), reals(1, 1, nan)).tolist() == [0]


def test_many_amounts_are_summed_as_one_by_one() -> None:
    random = np.random.default_rng(1)
    begin = random.uniform(0, 1e13, 500)
    end = begin + random.choice([0.0, 1e6, 1e11], 500)
    amounts = random.uniform(0, 100, 500)
    at = np.sort(random.uniform(0, 1e13, 20))

    one_by_one = sum(flow.flow_by(at, begin[i : i + 1], end[i : i + 1], amounts[i : i + 1]) for i in range(500))

    assert flow.flow_by(at, begin, end, amounts) == pytest.approx(one_by_one, rel=1e-8)


# The timeline


def test_the_timeline_covers_the_level_in_at_most_120_stretches() -> None:
    for duration_s in (0.05, 3.0, 12.0, 12.1, 30.0, 500.0, 100_000.0):
        line = summed([stream()], duration_s=duration_s)["timeline"]

        assert len(line["t_s"]) <= 120
        assert line["t_s"][-1] < duration_s <= line["t_s"][-1] + line["every_s"] + 1e-9


def test_the_timeline_tells_what_was_in_flight_and_what_arrived() -> None:
    # Two at once from 0 to 825 ms, then one; each stretch is 0.1 s. 32 tokens from 200 to 820 ms, 50 a second.
    line = summed([stream(0), stream(1), stream(2, due=1000)], duration_s=2.0)["timeline"]

    assert line["every_s"] == 0.1
    assert line["in_flight"][:12] == [2, 2, 2, 2, 2, 2, 2, 2, 0.5, 0, 1, 1]
    assert line["output_tokens_per_s"][3:8] == [100] * 5
    assert sum(line["output_tokens_per_s"]) * 0.1 == pytest.approx(3 * 32)


def test_the_timeline_counts_requests_that_failed_when_they_ended() -> None:
    results = [stream(0), failed(1, due=500), failed(2, due=520), failed(3, due=700, error="cancelled")]

    line = summed(results, duration_s=1.0)["timeline"]

    assert {t: n for t, n in zip(line["t_s"], line["errors"], strict=True) if n} == {0.5: 2}


def test_an_error_at_the_very_end_is_in_the_last_stretch() -> None:
    line = summed([failed(0, due=970)], duration_s=1.0)["timeline"]

    assert line["errors"][-1] == 1


def test_tokens_that_nobody_counted_have_no_line() -> None:
    whole = stream(usage=False)

    level = summarise(run(level_data([whole]), scenario={"stream": False}))["levels"][0]

    assert level["timeline"]["output_tokens_per_s"] is None


def test_a_level_without_requests_has_no_timeline() -> None:
    assert summed([])["timeline"] is None


# Rates


def turns(n: int, seed: int, spread: float = 0.2) -> list:
    """One stream: requests of 1 s on average, 20 tokens each, one after the other."""
    random = np.random.default_rng(seed)
    found, at = [], 0.0
    for number in range(n):
        ttft = 1000 * float(random.gamma(1 / spread**2, spread**2)) - 100
        found.append(stream(number, due=at, ttft=max(ttft, 1.0), per_token=5.0, tokens=20))
        at = found[-1].end_ns / MS
    return found


def test_a_rate_that_never_changes_has_an_interval_of_its_own_width() -> None:
    level = summed(in_turn(60))

    low, high = level["requests_per_s_ci95"]
    assert low <= level["requests_per_s"] <= high
    assert high - low < 0.01 * level["requests_per_s"]


@pytest.mark.endurance
@pytest.mark.parametrize("name", ["output_tokens_per_s", "characters_per_s", "input_tokens_per_s", "requests_per_s"])
def test_the_interval_of_a_rate_holds_the_true_one(name: str) -> None:
    per_request = {"output_tokens_per_s": 20, "characters_per_s": 80, "input_tokens_per_s": 10, "requests_per_s": 1}
    held = 0
    for seed in range(120):
        low, high = summed(turns(80, seed))[f"{name}_ci95"]
        held += low <= per_request[name] <= high

    assert held >= 108  # of 120 at 95 %: 90 % are left by two standard deviations and what blocks miss


def test_a_window_that_holds_few_requests_one_after_the_other_has_no_interval_of_its_rates() -> None:
    level = summed(turns(4, 1))

    assert level["output_tokens_per_s"] is not None
    assert level["output_tokens_per_s_ci95"] is None


def test_a_rate_that_nobody_knows_has_no_interval() -> None:
    assert summed(in_turn(60, usage=False))["input_tokens_per_s_ci95"] is None


def test_without_a_window_rates_have_no_intervals() -> None:
    assert summed(in_turn(60), full_ns=None)["requests_per_s_ci95"] is None
