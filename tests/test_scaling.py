"""What more load buys: efficiency, speed-up, stretch, reference lines, and what a curve is asked for."""

from typing import Any

import pytest

from tests.support.plain import scaling


def level(n: int | None, x: float | None, r_ms: float | None = 100.0, **more: Any) -> dict[str, Any]:
    name = f"{more.get('model', 'm')}@{n or more.get('request_rate_per_s')}#{more.get('repeat', 1)}"
    figures = {"output_tokens_per_s": x, "e2e_ms": {"mean": r_ms}}
    return {"id": name, "model": "m", "concurrency": n, "request_rate_per_s": None, "repeat": 1, **figures, **more}


def usl(n: float) -> float:
    return 50 * n / (1 + 0.06 * (n - 1) + 0.0008 * n * (n - 1))


def slo(attained: bool | None) -> dict[str, Any]:
    return {"bound": "ttft_p95<=800ms", "attained": attained, "attainment": None}


def rows(*levels: dict[str, Any]) -> list[tuple[Any, ...]]:
    [curve] = scaling(levels)
    return [(row["n"], row["efficiency"], row["speedup"], row["stretch"]) for row in curve["levels"]]


def test_each_level_is_held_against_the_lowest() -> None:
    found = rows(level(1, 50.0), level(2, 90.0, 110.0), level(8, 100.0, 400.0))

    assert found == [(1, 1.0, 1.0, 1.0), (2, 0.9, 1.8, 1.1), (8, 0.25, 2.0, 4.0)]


def test_levels_are_in_order_of_load_whatever_order_they_ran_in() -> None:
    assert [row[0] for row in rows(level(8, 1.0), level(1, 1.0), level(4, 1.0))] == [1, 4, 8]


def test_the_lowest_level_need_not_be_one_stream() -> None:
    assert rows(level(2, 100.0), level(4, 150.0))[1] == (4, 0.75, 1.5, 1.0)


def test_a_model_measured_at_one_level_is_its_own_base() -> None:
    assert rows(level(4, 80.0)) == [(4, 1.0, 1.0, 1.0)]


def test_repeats_of_the_lowest_level_are_averaged() -> None:
    found = rows(level(1, 40.0), level(1, 60.0, repeat=2), level(2, 100.0))

    assert found == [(1, 0.8, 0.8, 1.0), (1, 1.2, 1.2, 1.0), (2, 1.0, 2.0, 1.0)]


def test_a_lowest_level_without_throughput_leaves_the_base_to_the_next() -> None:
    [curve] = scaling([level(1, None, None), level(2, 80.0), level(4, 120.0)])

    assert curve["base_n"] == 2
    assert [row["efficiency"] for row in curve["levels"]] == [None, 1.0, 0.75]
    assert curve["levels"][0]["stretch"] is None


def test_a_level_that_did_not_run_to_its_end_is_no_base_and_has_no_efficiency() -> None:
    cut_short = level(1, 10.0, status="interrupted")

    found = rows(cut_short, level(2, 80.0, status="complete"), level(4, 120.0), level(8, 500.0, status="incomplete"))

    assert found == [(1, None, None, None), (2, 1.0, 1.0, 1.0), (4, 0.75, 1.5, 1.0), (8, None, None, None)]


def test_a_repeat_that_did_not_run_to_its_end_is_left_out_of_the_base() -> None:
    found = rows(level(1, 40.0), level(1, 60.0, 300.0, repeat=2, status="failed"), level(2, 80.0))

    assert found == [(1, 1.0, 1.0, 1.0), (1, None, None, None), (2, 1.0, 2.0, 1.0)]


def test_a_throughput_of_zero_is_no_base_to_divide_by() -> None:
    assert rows(level(1, 0.0), level(2, 80.0)) == [(1, 0.0, 0.0, 1.0), (2, 1.0, 1.0, 1.0)]


def test_nothing_measured_is_null_throughout() -> None:
    assert rows(level(1, None, None)) == [(1, None, None, None)]


def test_models_are_not_held_against_each_other() -> None:
    found = scaling([level(1, 50.0), level(1, 10.0, model="n"), level(2, 20.0, model="n")])

    assert [(curve["model"], [row["speedup"] for row in curve["levels"]]) for curve in found] == [
        ("m", [1.0]),
        ("n", [1.0, 2.0]),
    ]


def test_open_loop_scales_over_the_request_rate() -> None:
    [curve] = scaling([level(None, 10.0, request_rate_per_s=0.5), level(None, 18.0, request_rate_per_s=1.0)])

    assert (curve["loop"], [row["efficiency"] for row in curve["levels"]]) == ("open", [1.0, 0.9])


def test_a_run_without_levels_has_no_curve() -> None:
    assert scaling([]) == []


def test_a_level_repeated_at_the_end_is_no_point_of_the_curve() -> None:
    assert rows(level(1, 50.0), level(2, 90.0), level(1, 20.0, closing=True)) == [
        (1, 1.0, 1.0, 1.0),
        (2, 0.9, 1.8, 1.0),
    ]


def test_the_reference_lines_are_perfect_scaling_and_none() -> None:
    [curve] = scaling([level(1, 50.0), level(4, 120.0)])

    lines = [(row["serial_x_per_s"], row["x_per_s"], row["ideal_x_per_s"]) for row in curve["levels"]]
    assert lines == [(50.0, 50.0, 50.0), (50.0, 120.0, 200.0)]


def test_the_reference_lines_begin_at_the_lowest_load() -> None:
    [curve] = scaling([level(2, 50.0), level(8, 120.0)])

    assert (curve["levels"][1]["serial_x_per_s"], curve["levels"][1]["ideal_x_per_s"]) == (50.0, 200.0)


def test_the_law_is_fitted_to_what_was_in_flight_not_to_what_was_wanted() -> None:
    reached = [(n, 0.9 * n) for n in (2, 4, 8, 16, 32, 64)]
    [curve] = scaling([level(n, usl(real), in_flight_mean=real) for n, real in reached])

    assert curve["usl"]["sigma"] == pytest.approx(0.06, abs=1e-4)
    assert curve["usl"]["measured_to"] == pytest.approx(57.6)


def test_fewer_than_six_loads_have_no_law_and_say_so() -> None:
    [curve] = scaling([level(n, usl(n), repeat=k) for n in (1, 2, 4, 8, 16) for k in (1, 2)])

    assert (curve["usl"], curve["usl_reason"]) == (None, "needs 6 loads or more, has 5")


def test_an_open_loop_has_no_law_and_no_knee_but_that_of_its_objectives() -> None:
    rates = [level(None, x, request_rate_per_s=r, slo=[slo(r < 4)]) for r, x in ((1.0, 9.0), (2.0, 18.0), (4.0, 20.0))]
    [curve] = scaling(rates)

    assert (curve["usl"], curve["usl_reason"], curve["serial"]) == (None, None, None)
    assert {name for name, knee in curve["knees"].items() if knee} == {"slo"}


def test_efficiency_and_speed_up_have_intervals_from_those_of_both_throughputs() -> None:
    one = level(1, 50.0, output_tokens_per_s_ci95=[48.0, 52.0])
    four = level(4, 100.0, output_tokens_per_s_ci95=[97.0, 103.0])
    unsure = level(8, 110.0)

    [curve] = scaling([one, four, unsure])

    found = [(row["efficiency_ci95"], row["speedup_ci95"]) for row in curve["levels"]]
    assert found == [(None, None), ([0.4756, 0.5256], [1.9024, 2.1026]), (None, None)]
