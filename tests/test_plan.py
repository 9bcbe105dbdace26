"""The plan: when levels end, how long they may take, and what a budget takes away."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.engine import MAX_STREAMS, Limits
from loadbench.errors import UsageError
from loadbench.runner import plan
from loadbench.runner.plan import Plan
from loadbench.scenario import Scenario
from loadbench.scenario.bounds import Duration

REQUEST_S = 0.5 + 128 / 30
"""A request's estimated seconds at the default of 128 tokens: first token, then 30 tokens/s."""


def planned(models: list[str] | None = None, *, budget_s: float | None = None, **scenario: Any) -> Plan:
    if "duration" in scenario:
        scenario["duration"] = Duration(scenario["duration"])
    return plan.make(Scenario(**{"repeat_first": False, **scenario}), models or ["m"], budget_s=budget_s)


def ids(steps: Plan) -> list[str]:
    return [one.level.id for one in steps.levels]


# -- limits


@pytest.mark.parametrize(
    ("scenario", "limits"),
    [
        ({"concurrency": [4]}, Limits(40, None, 4)),  # ten a stream
        ({"concurrency": [1]}, Limits(30, None, 1)),  # at least thirty
        ({"concurrency": [4], "requests": 7}, Limits(7, None, 4)),
        ({"concurrency": [4], "duration": 30}, Limits(None, 30.0, 4)),
        ({"concurrency": [4], "duration": 30, "requests": 7}, Limits(7, 30.0, 4)),
        ({"concurrency": [4], "warmup": 0}, Limits(40, None, 0)),
        ({"request_rate": [2.0], "max_streams": 9}, Limits(60, None, 2, 9)),  # half a minute's worth
        ({"request_rate": [0.1]}, Limits(30, None, 1, MAX_STREAMS)),
    ],
)
def test_a_level_ends_as_the_scenario_says(scenario: dict[str, Any], limits: Limits) -> None:
    assert planned(**scenario).levels[0].limits == limits


def test_levels_follow_model_by_model() -> None:
    steps = planned(["a", "b"], concurrency=[1, 4])

    assert ids(steps) == ["a@c1", "a@c4", "b@c1", "b@c4"]


# -- estimates


@pytest.mark.parametrize(
    ("scenario", "shortest_s", "longest_s"),
    [
        # Four streams at once: a quarter of the time, if the server does not slow down.
        ({"concurrency": [4], "requests": 36, "warmup": 4}, 10 * REQUEST_S, 40 * REQUEST_S),
        # A last round that is not full takes as long as a full one.
        ({"concurrency": [4], "requests": 37, "warmup": 4}, 11 * REQUEST_S, 41 * REQUEST_S),
        ({"concurrency": [1], "requests": 9, "warmup": 1}, 10 * REQUEST_S, 10 * REQUEST_S),
        # Of a duration, only the warm-up before and the drain after are unknown.
        ({"concurrency": [1], "duration": 30}, 30 + REQUEST_S, 30 + 2 * REQUEST_S),
        # Open loop: the rate decides; the last request has to end.
        ({"request_rate": [2.0], "requests": 100, "warmup": 0}, 50 + REQUEST_S, 50 + REQUEST_S),
        ({"request_rate": [0.1], "duration": 60, "warmup": 2}, 80 + REQUEST_S, 80 + REQUEST_S),
        # Whichever ends first.
        ({"concurrency": [1], "requests": 10_000, "duration": 30}, 30 + REQUEST_S, 30 + 2 * REQUEST_S),
        ({"concurrency": [1], "requests": 4, "warmup": 0, "duration": 3000}, 4 * REQUEST_S, 4 * REQUEST_S),
    ],
)
def test_a_level_is_estimated_from_its_requests_and_its_duration(
    scenario: dict[str, Any], shortest_s: float, longest_s: float
) -> None:
    steps = planned(**scenario)

    assert (steps.shortest_s, steps.longest_s) == (pytest.approx(shortest_s), pytest.approx(longest_s))


def test_longer_answers_take_longer() -> None:
    short, long = (planned(concurrency=[2], max_tokens=tokens).longest_s for tokens in (16, 512))

    assert long > 5 * short


def test_a_run_takes_what_its_levels_take() -> None:
    one, two = planned(concurrency=[4]), planned(["a", "b"], concurrency=[4])

    assert (two.shortest_s, two.longest_s) == (pytest.approx(2 * one.shortest_s), pytest.approx(2 * one.longest_s))


def test_an_estimate_by_requests_says_what_it_rests_on() -> None:
    assert "30 tokens/s" in planned(concurrency=[4]).assumption


def test_durations_alone_need_no_assumption() -> None:
    assert planned(concurrency=[4], duration=30).assumption == ""


@given(
    loads=st.lists(st.integers(1, 64), min_size=1, max_size=5, unique=True),
    requests=st.none() | st.integers(1, 500),
    duration_s=st.none() | st.floats(0.1, 600),
    warmup=st.none() | st.integers(0, 50),
)
def test_the_shortest_estimate_never_exceeds_the_longest(
    loads: list[int], requests: int | None, duration_s: float | None, warmup: int | None
) -> None:
    duration = None if duration_s is None else Duration(duration_s)
    scenario = Scenario(concurrency=loads, requests=requests, duration=duration, warmup=warmup)

    for one in plan.make(scenario, ["m"]).levels:
        assert 0 < one.shortest_s <= one.longest_s


# -- budgets


def test_without_a_budget_nothing_is_cut() -> None:
    assert planned(concurrency=[1, 2, 4, 8]).cuts == ()


def test_each_level_gets_an_equal_share_of_the_budget() -> None:
    steps = planned(concurrency=[1, 2, 4, 8], budget_s=160)

    assert [one.limits.duration_s for one in steps.levels] == [30.0] * 4  # 40 s each, a quarter for warm-up and drain
    assert steps.cuts == ("each level ends after 30 s of measurement, if its requests do not end it before",)


def test_a_budget_keeps_the_requests_of_a_level() -> None:
    assert planned(concurrency=[4], requests=17, budget_s=160).levels[0].limits.requests == 17


@pytest.mark.parametrize(("duration_s", "kept_s"), [(5, 5.0), (50, 30.0)])
def test_a_budget_only_ever_shortens_a_duration(duration_s: float, kept_s: float) -> None:
    steps = planned(concurrency=[1, 2, 4, 8], duration=duration_s, budget_s=160)

    assert steps.levels[0].limits.duration_s == kept_s


@pytest.mark.parametrize(
    ("budget_s", "kept", "cuts"),
    [
        (32, ["m@c1", "m@c2", "m@c4", "m@c8"], None),  # 8 s each is enough
        (31, ["m@c1", "m@c2", "m@c4"], "left out: m@c8"),
        (16, ["m@c1", "m@c2"], "left out: m@c4, m@c8"),
        (8, ["m@c1"], "left out: m@c2, m@c4, m@c8"),
    ],
)
def test_the_highest_loads_go_first(budget_s: float, kept: list[str], cuts: str | None) -> None:
    steps = planned(concurrency=[1, 2, 4, 8], budget_s=budget_s)

    assert ids(steps) == kept
    assert steps.cuts[:-1] == (() if cuts is None else (cuts,))


def test_repeats_go_before_loads_and_the_rest_keeps_its_order() -> None:
    steps = planned(concurrency=[8, 1], repeat=2, budget_s=24)  # m@c8 m@c1 m@c1#2 m@c8#2

    assert ids(steps) == ["m@c8", "m@c1", "m@c1#2"]


def test_the_highest_rates_go_first_in_open_loop() -> None:
    assert ids(planned(request_rate=[4.0, 0.5, 1.0], budget_s=16)) == ["m@r0.5", "m@r1"]


def test_the_first_load_again_goes_before_all_others() -> None:
    assert ids(planned(concurrency=[1, 2], repeat_first=True)) == ["m@c1", "m@c2", "m@c1#end"]
    assert ids(planned(concurrency=[1, 2], repeat_first=True, budget_s=16)) == ["m@c1", "m@c2"]


def test_every_model_keeps_its_lowest_load() -> None:
    assert ids(planned(["a", "b", "c"], concurrency=[1, 8], budget_s=24)) == ["a@c1", "b@c1", "c@c1"]


def test_too_short_a_budget_says_how_much_is_needed() -> None:
    with pytest.raises(UsageError, match=r"--budget 7s is too short for one level: give at least 8s"):
        planned(concurrency=[1], budget_s=7)


@given(budget_s=st.floats(8, 3600), loads=st.integers(1, 12), models=st.integers(1, 4))
def test_measured_time_stays_within_the_budget_and_no_level_gets_too_short(
    budget_s: float, loads: int, models: int
) -> None:
    steps = planned(
        [f"m{i}" for i in range(models)], concurrency=list(range(1, loads + 1)), duration=10_000, budget_s=budget_s
    )
    durations = [one.limits.duration_s or 0.0 for one in steps.levels]

    assert sum(durations) <= 0.76 * budget_s
    assert min(durations) >= plan.SHORTEST_LEVEL_S - 1e-9


# -- idle gaps


@pytest.mark.parametrize(("pings", "gaps"), [(None, 1), (Duration(5), 2)])  # with pings, a second gap of its own
def test_idle_gaps_take_their_time_once_a_model(pings: Duration | None, gaps: int) -> None:
    idle = {"idle_gap": Duration(20), "keep_warm": pings}

    steps = planned(["a", "b"], concurrency=[1], duration=30, **idle)

    without = planned(["a", "b"], concurrency=[1], duration=30)
    assert steps.idle_s == 2 * gaps * 20
    assert steps.shortest_s == without.shortest_s + steps.idle_s
    assert steps.longest_s == without.longest_s + steps.idle_s


def test_a_budget_covers_idle_gaps_too() -> None:
    steps = planned(concurrency=[1, 2], duration=60, budget_s=100, idle_gap=Duration(20))

    assert [one.limits.duration_s for one in steps.levels] == [30.0, 30.0]  # 3/4 of 80 s, for two


def test_a_budget_that_idle_gaps_use_up_is_refused_with_the_least_that_does() -> None:
    with pytest.raises(UsageError, match=r"--budget 25s .* beside 20s of idle gaps: give at least 28s"):
        planned(concurrency=[1], budget_s=25, idle_gap=Duration(20))
