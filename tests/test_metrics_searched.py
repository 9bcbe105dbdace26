"""What a search comes to: its zones, and the estimate from all its probes; records of older runs too."""

from __future__ import annotations

from typing import Any

import pytest

from loadbench.metrics.slo import Tried, Zones, zones
from tests.support.plain import estimate, searched
from tests.support.searches import GENTLE, step

RECORD = {"model": "m", "by": "concurrency", "slo": ["ttft_p95=1s"], "found": 6, "bracket": [6, 9], "steps": GENTLE}


def test_what_is_undecided_is_neither_met_nor_missed() -> None:
    [told] = searched({"capacity": [RECORD]})["capacity"]

    assert (told["meets"], told["undecided"], told["misses"]) == (6, [7, 8], 9)


def test_a_load_that_met_it_above_a_doubtful_one_is_undecided() -> None:
    tried = [Tried(4, "met"), Tried(8, "met"), Tried(6, "undecided"), Tried(9, "not met")]

    assert zones(tried) == Zones(4, 9, (6, 8))


def test_all_probes_together_give_an_estimate_with_an_interval_around_the_exact_answer() -> None:
    found = estimate(GENTLE, "concurrency")

    assert found is not None
    assert found["load"] == pytest.approx(7, rel=0.05)
    assert found["ci95"][0] < found["load"] < found["ci95"][1]
    assert found["ci95"][0] > 5
    assert found["ci95"][1] < 10


def test_the_estimate_lies_between_the_zones() -> None:
    steps = [step(4, 0.999, 400), step(8, 0.99, 400), step(10, 0.3, 30, "not met", attained=False)]
    found = estimate([*steps, step(9, 0.999, 400), step(9, 0.999, 400)], "concurrency")

    assert found is not None
    assert 9 <= found["load"] <= 10


def test_a_growing_backlog_counts_as_missed_though_its_first_requests_met_it() -> None:
    steps = [step(20, 1.0, 400), step(40, 0.97, 400, "undecided"), step(80, 1.0, 60, "not met")]
    found = estimate(steps, "concurrency")

    assert found is not None
    assert 20 < found["load"] < 80


def test_at_a_rate_the_interval_holds_the_zones() -> None:
    steps = [step(40, 1.0, 400, worth=30), step(45, 0.98, 400, worth=30), step(50, 0.5, 90, "not met", attained=False)]
    found = estimate(steps, "rate")

    assert found is not None
    assert found["ci95"][0] <= 45
    assert found["ci95"][1] >= 50


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("no step", []),
        ("one load", [step(1, 1.0, 109), step(1, 1.0, 109)]),
        ("nothing falls", [step(1, 0.96, 436), step(2, 0.98, 436), step(4, 0.99, 436)]),
        ("a maximum", [step(1, 1.0, 100, wanted=1.0), step(2, 0.9, 10, "not met", wanted=1.0)]),
        ("a mean", [step(1, None, 100, wanted=None), step(2, None, 10, "not met", wanted=None)]),
    ],
)
def test_where_no_share_falls_there_is_no_estimate(name: str, steps: list[dict[str, Any]]) -> None:
    assert estimate(steps, "concurrency") is None


def test_of_several_bounds_the_one_that_is_crossed_first_counts() -> None:
    def both(load: float, ttft: float, itl: float) -> dict[str, Any]:
        one = step(load, ttft, 436, "undecided")
        one["shares"].append({**one["shares"][0], "bound": "itl_p95=1s", "share": itl})
        return one

    found = estimate([both(4, 0.99, 0.999), both(8, 0.9, 0.99), both(16, 0.5, 0.9)], "concurrency")
    alone = estimate([step(4, 0.99, 436), step(8, 0.9, 436), step(16, 0.5, 436)], "concurrency")

    assert found is not None
    assert alone is not None
    assert 4 < found["load"] < 8
    assert found["load"] == pytest.approx(6.4, abs=0.6)


def test_a_record_of_an_older_run_has_its_zones_and_its_estimate() -> None:
    """Its bracket took undecided as not met, and its shares do not say what they are worth."""
    old = {**RECORD, "bracket": [6, 7], "steps": GENTLE[:7]}
    [told] = searched({"capacity": [old]})["capacity"]

    assert (told["meets"], told["undecided"], told["misses"]) == (6, [7, 8], None)
    assert told["estimate"]["load"] == pytest.approx(7, rel=0.1)
    assert searched({"capacity": [old]})["capacity_concurrency"] == 6


def test_steps_that_say_nothing_of_the_load_are_left_out() -> None:
    lost = {**step(2, 0.0, 3, "not met"), "counted": False}
    [told] = searched({"capacity": [{**RECORD, "steps": [step(1, 1.0, 109), lost]}]})["capacity"]

    assert (told["meets"], told["misses"]) == (1, None)
