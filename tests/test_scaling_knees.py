"""Four knees on known curves: one curve, four answers (METRICS.md §6)."""

from typing import Any

import pytest

from tests.support.curves import CURVE, levels
from tests.support.plain import scaling


def knees(found: list[dict[str, Any]]) -> dict[str, Any]:
    [curve] = scaling(found)
    return dict(curve["knees"])


def named(found: list[dict[str, Any]], name: str) -> tuple[float, str] | None:
    knee = knees(found)[name]
    return knee and (knee["n"], knee["relation"])


def test_on_one_curve_the_rules_say_16_and_over_32_and_8_4() -> None:
    found = levels()

    assert named(found, "power") == (16, "=")
    assert named(found, "doubling") == (32, ">")
    assert named(found, "corner") == (8.4, "=")


def test_a_power_that_still_rises_has_its_knee_at_the_highest_load_or_beyond() -> None:
    assert named(levels({n: 50.0 * n for n in (1, 2, 4)}), "power") == (4, ">=")


def test_a_power_that_only_falls_has_its_knee_at_the_lowest_load_or_before() -> None:
    assert named(levels(dict.fromkeys((2, 4, 8), 50.0)), "power") == (2, "<=")
    assert named(levels(dict.fromkeys((1, 2, 4), 50.0)), "power") == (1, "=")


def test_the_first_doubling_that_gains_less_than_5_percent_is_named_with_its_gain() -> None:
    knee = knees(levels(CURVE | {16: 285.0}))["doubling"]

    assert knee == {"n": 16, "relation": "=", "from_n": 8, "gain": 0.0364}


def test_steps_that_are_no_doublings_are_judged_by_the_gain_per_doubling() -> None:
    # Four times the streams: 8 % are 3.9 % a doubling, 11 % are 5.4 %.
    assert named(levels({1: 50.0, 4: 54.0, 8: 80.0}), "doubling") == (4, "=")
    assert named(levels({1: 50.0, 4: 55.5, 8: 80.0}), "doubling") == (8, ">")


def test_a_small_step_is_no_doubling() -> None:
    # 15 -> 16 gains 1 %; 8 -> 15 and 15 -> 32 gain 5 % a doubling and more.
    assert named(levels(CURVE | {15: 395.0}), "doubling") == (32, ">")


def test_a_corner_without_a_single_stream_is_a_bound() -> None:
    curve = {n: x for n, x in CURVE.items() if n > 1}

    assert named(levels(curve), "corner") == (8.84, "<=")


def test_the_corner_of_users_who_pause_counts_their_pauses() -> None:
    found = [level | {"think_time_s": 2.0} for level in levels()]

    assert named(found, "corner") == (25.2, "=")


def test_two_loads_have_no_bend() -> None:
    assert knees(levels({1: 50.0, 2: 90.0})) == {"power": None, "doubling": None, "corner": None, "slo": None}


# Objectives


def judged(p95_ms: dict[int, float], bound: str = "ttft_p95<=800ms", **more: Any) -> list[dict[str, Any]]:
    found = levels({n: CURVE.get(n, 50.0) for n in p95_ms})
    for level in found:
        p95 = p95_ms[level["concurrency"]]
        row = {"bound": bound, "attained": p95 <= 800, "attainment": 0.96 if p95 <= 800 else 0.9}
        level |= {"ttft_ms": {"p95": p95}, "slo": [row], **more}
    return found


def test_a_bound_is_crossed_on_a_line_over_log2_of_the_load() -> None:
    # 400 ms at 8 and 1600 ms at 16: 800 ms are half-way in logarithms, 8 * sqrt(2).
    knee = knees(judged({4: 300.0, 8: 400.0, 16: 1600.0}))["slo"]

    assert knee == {"n": 11.31, "relation": "=", "bound": "ttft_p95<=800ms", "between": [8, 16]}


def test_a_bound_that_is_always_kept_is_crossed_beyond_the_highest_load() -> None:
    assert named(judged({1: 100.0, 2: 200.0}), "slo") == (2, ">")


def test_a_bound_that_is_never_kept_is_crossed_below_the_lowest_load() -> None:
    assert named(judged({1: 900.0, 2: 950.0}), "slo") == (1, "<")


def test_where_failures_broke_the_bound_the_share_that_met_it_is_the_line() -> None:
    # The p95 of those that completed is fine at 16 too: 96 % and 90 % around 95 %, a sixth of the way.
    found = judged({8: 400.0, 16: 500.0})
    found[1]["slo"][0] |= {"attained": False, "attainment": 0.9}

    assert named(found, "slo") == (pytest.approx(8 * 2 ** (1 / 6), abs=0.01), "=")


def test_of_several_bounds_the_first_that_is_crossed_counts() -> None:
    found = judged({4: 300.0, 8: 400.0, 16: 1600.0})
    for level, attained in zip(found, (True, False, False), strict=True):
        level["slo"] += [{"bound": "failed<=1%", "attained": attained, "attainment": None}]
        level["failure_share"] = 0.0 if attained else 0.02

    knee = knees(found)["slo"]

    assert (knee["n"], knee["bound"]) == (pytest.approx(4 * 2**0.5, abs=0.01), "failed<=1%")


def test_a_repeat_that_breaks_the_bound_breaks_it_for_its_load() -> None:
    found = [*judged({4: 300.0, 8: 400.0}), judged({8: 1600.0})[0] | {"repeat": 2}]

    assert named(found, "slo")[0] < 8  # type: ignore[index]


def test_an_objective_that_nobody_could_judge_has_no_crossing() -> None:
    found = judged({4: 300.0, 8: 400.0})
    found[0]["slo"][0]["attained"] = None

    assert knees(found)["slo"] is None


# -- where throughput grows no more


def saturated(curve: dict[int, float], half: float | None = None) -> float | None:
    found = levels(curve)
    for level in found if half is not None else ():
        x = level["output_tokens_per_s"]
        level["output_tokens_per_s_ci95"] = [x * (1 - half), x * (1 + half)]
    [one] = scaling(found)
    return one["saturated_n"]


@pytest.mark.parametrize(
    ("curve", "n"),
    [
        ({1: 50.0, 2: 51.0, 4: 90.0}, None),  # 1.8 times the tokens/s of one stream: the flat doubling was none
        ({1: 50.0, 2: 51.0, 4: 90.0, 8: 92.0}, 4),
        ({1: 50.0, 2: 95.0, 4: 96.0, 8: 97.0}, 2),
        ({1: 50.0, 2: 49.0, 4: 51.0, 8: 50.0}, 1),
        ({1: 50.0, 2: 100.0, 4: 80.0, 8: 60.0}, 2),  # falls
        ({1: 50.0, 2: 51.0, 4: 52.0, 8: 53.0}, 2),  # creeps: 6 % over three doublings are more than one stream has
        ({1: 50.0, 2: 100.0, 4: 200.0}, None),
        ({1: 50.0, 2: 51.0}, None),  # two points have no bend
        ({1: 50.0, 8: 100.0, 9: 101.0}, None),  # a step of an eighth says nothing
    ],
)
def test_a_curve_is_saturated_from_where_no_higher_load_has_more(curve: dict[int, float], n: int | None) -> None:
    assert saturated(curve) == n


def test_a_gain_within_the_intervals_is_no_growth() -> None:
    curve = {1: 50.0, 2: 90.0, 4: 97.0, 8: 98.0}

    assert saturated(curve, half=0.01) == 4
    assert saturated(curve, half=0.1) == 2


def test_an_open_loop_has_no_such_load() -> None:
    found = [{**level, "request_rate_per_s": level.pop("concurrency")} for level in levels()]

    assert scaling(found)[0]["saturated_n"] is None
