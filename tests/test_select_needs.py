"""Hard needs: how they are written, which models they eliminate, and how sure that is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from loadbench.compare.sides import Outcomes
from loadbench.report import choice
from loadbench.select import Candidate
from tests.support.choosing import GB, candidate, choose, doubts, lap, row


def test_who_misses_a_need_falls_out_however_good_it_is() -> None:
    record = choose(candidate("best", ttft=20, memory=8 * GB), candidate("light", memory=1 * GB), needs=["memory<4GB"])

    best = row(record, "best")
    assert (record["winner"], best["status"], best["rank"], best["out"]) == ("light", "out", None, "memory<4GB")
    assert best["needs"][0]["value"] == 8 * GB


def test_a_figure_far_from_its_bound_is_sure() -> None:
    record = choose(candidate("a", ttft=200), needs=["ttft_p95<1s", "memory<4GB"])

    assert [(need["outcome"], need["sure"]) for need in row(record, "a")["needs"]] == [("met", True), ("met", True)]


def test_an_interval_that_holds_the_bound_is_not_sure() -> None:
    record = choose(candidate("near", ttft=200), candidate("far", ttft=100), needs=["ttft_p95<217ms"])

    need = row(record, "near")["needs"][0]
    assert need["low"] < 217 < need["high"]
    assert need["sure"] is False


def test_the_winner_that_meets_a_need_not_surely_is_doubted() -> None:
    value = row(choose(candidate("a")), "a")["figures"]["ttft_p95"]["value"]
    record = choose(candidate("a"), needs=[f"ttft_p95<{value * 1.001:.3f}ms"])

    assert doubts(record, "need")[0].endswith("but not for certain: its interval includes the bound")


def test_who_falls_out_not_surely_is_told() -> None:
    value = row(choose(candidate("a")), "a")["figures"]["ttft_p95"]["value"]
    record = choose(candidate("a"), candidate("b", ttft=100), needs=[f"ttft_p95<{value * 0.999:.3f}ms"])

    assert record["winner"] == "b"
    assert "a was eliminated by" in doubts(record, "need")[0]


def test_what_is_not_known_does_not_meet_a_need() -> None:
    record = choose(candidate("silent", ttft=20, memory=None), candidate("light"), needs=["memory<4GB"])

    assert (record["winner"], row(record, "silent")["out"]) == ("light", "memory<4GB: not known")


def test_what_is_not_known_may_be_let_pass_with_a_doubt() -> None:
    record = choose(
        candidate("silent", ttft=20, e2e=100, memory=None), candidate("light"), needs=["memory<4GB"], missing="allow"
    )

    assert record["winner"] == "silent"
    assert doubts(record, "need") == ["whether silent meets memory<4GB is not known"]


def test_a_licence_is_one_of_those_that_are_good_in_either_case() -> None:
    some = [
        candidate("a", licence="MIT"),
        candidate("b", licence="gemma", ttft=20),
        candidate("c", licence=None, ttft=20),
    ]
    record = choose(*some, needs=["license=mit,Apache-2.0"])

    assert [row(record, name)["status"] for name in "abc"] == ["left", "out", "out"]


def test_a_device_is_one_of_those_that_are_good() -> None:
    record = choose(candidate("a"), replace(candidate("b", ttft=20), device="GPU"), needs=["device=cpu,npu"])

    assert record["winner"] == "a"


def test_failures_are_counted_over_all_runs_with_their_interval() -> None:
    failing = {"failed": 4, "completed": 196}
    record = choose(candidate("a", [lap(), lap(seed=2)], level=failing), needs=["failed<1.5%"])

    need = row(record, "a")["needs"][0]
    assert (need["value"], need["outcome"]) == (pytest.approx(0.02), "missed")
    assert need["low"] < 0.015 < need["high"]


def test_a_model_that_fails_every_second_request_misses_what_the_others_would_meet() -> None:
    times = np.where(np.arange(200) % 2, 200.0, np.inf)
    half = lap(due_values=dict.fromkeys(("ttft", "tpot", "e2e", "client_queue"), times))
    record = choose(candidate("half", [half]), candidate("whole", ttft=900), needs=["ttft_p95<1500ms"])

    need = row(record, "half")["needs"][0]
    assert (record["winner"], need["outcome"], need["sure"]) == ("whole", "missed", True)
    assert choice.value(need, need["value"]) == "unbounded, as requests failed"


def test_failures_that_come_together_make_a_need_less_sure() -> None:
    def failing(flags: np.ndarray) -> Candidate:
        some = lap(outcomes={"failed": Outcomes(flags, ["p"] * 200)})
        return candidate("a", [some], level={"failed": 20, "completed": 180})

    scattered = row(choose(failing(np.arange(200) % 10 == 0), needs=["failed<20%"]), "a")["needs"][0]
    together = row(choose(failing(np.arange(200) < 20), needs=["failed<20%"]), "a")["needs"][0]

    assert (scattered["value"], scattered["sure"]) == (0.1, True)
    assert (together["value"], together["sure"]) == (0.1, False)


def test_when_nobody_is_left_nobody_wins() -> None:
    record = choose(candidate("a"), candidate("b"), needs=["ttft_p95<1ms"])

    assert (record["winner"], record["robustness"], record["doubts"]) == (None, None, [])
    assert [one["status"] for one in record["candidates"]] == ["out", "out"]
