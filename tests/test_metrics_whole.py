"""Runs of whole answers, and requests that repeat failed ones."""

from __future__ import annotations

from typing import Any

from tests.support.streams import failed, in_turn, stream, summed

WHOLE = {"stream": False}


def test_whole_answers_have_no_first_token_and_no_gaps() -> None:
    level = summed(in_turn(30), scenario=WHOLE)

    assert level["streamed"] is False
    assert (level["ttft_ms"]["n"], level["ttft_ms"]["p50"], level["ttfe_ms"]["n"]) == (0, None, 0)
    assert (level["itl_ms"], level["tpot_ms"], level["tpot_micro_ms"], level["burst_share"]) == (None,) * 4


def test_whole_answers_have_e2e_and_throughput() -> None:
    level = summed(in_turn(30), scenario=WHOLE)

    assert (level["e2e_ms"]["n"], level["e2e_ms"]["p50"]) == (30, 820.0)
    assert level["output_tokens_per_s"] > 0
    assert level["requests_per_s"] > 0


def test_bounds_on_what_whole_answers_do_not_have_are_neither_met_nor_missed() -> None:
    bounds = {"slo": ["ttft_p95=1ms", "itl_p99=1ms", "tpot_p50=1ms", "e2e_p95=1s"], **WHOLE}

    rows = summed(in_turn(30), scenario=bounds)["slo"]

    assert [(row["attainment"], row["attained"]) for row in rows] == [(None, None)] * 3 + [(1.0, True)]


def test_goodput_under_a_bound_that_is_undecided_is_unknown() -> None:
    assert summed(in_turn(30), scenario={"slo": ["ttft_p95=1ms"], **WHOLE})["goodput_per_s"] is None


def test_too_few_whole_answers_are_counted_by_their_e2e() -> None:
    said = {w["code"]: w["text"] for w in summed(in_turn(30), scenario=WHOLE)["warnings"]}

    assert said["V12"].startswith("too few requests for E2E's intervals: p95 needs >= 72, have 30")


def test_streams_are_called_so() -> None:
    assert summed(in_turn(3))["streamed"] is True


def retries(*results: Any) -> tuple[int, int, int]:
    level = summed(results)
    return level["retried"], level["recovered"], level["failed"]


def test_requests_that_repeat_failed_ones_are_counted_and_the_failure_stays() -> None:
    first, second = failed(0), failed(1, retry_of=0)

    assert retries(first, second, stream(2, retry_of=1), stream(3)) == (2, 1, 2)


def test_retries_in_the_warm_up_do_not_count() -> None:
    assert retries(failed(0, warmup=True), stream(1, warmup=True, retry_of=0), stream(2)) == (0, 0, 0)


def test_the_share_of_failures_is_of_the_attempted() -> None:
    level = summed([stream(0), failed(1), stream(2), failed(3, error="cancelled")])

    assert level["failure_share"] == 0.25
