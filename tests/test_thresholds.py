"""Thresholds held against made-up summaries: metrics.thresholds, report.thresholds, cli.opening."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from loadbench.cli.opening import threshold_lines
from loadbench.errors import UsageError
from loadbench.report import FORMATS
from loadbench.report import objectives as reported
from loadbench.report.levels import read
from loadbench.runner.measure import Outcome, Ran, Verdict, verdict
from loadbench.runner.plan import check_thresholds
from loadbench.scenario import Scenario
from tests.support.plain import thresholds
from tests.support.streams import failed, stream, summed
from tests.support.summaries import TIMES, level, summary_of


def one(written: str, **changes: Any) -> dict[str, Any]:
    [row] = thresholds([level(**changes)], [written])
    return row


@pytest.mark.parametrize(
    ("written", "value", "n"),
    [
        ("ttft_p95 > 600ms", 700, 100),
        ("ttft_max >= 1s", 1000, 100),
        ("failed > 1%", 0.02, 100),
        ("success < 99%", 0.98, 100),
        ("output_tokens_per_s < 60", 50, 98),
        ("characters_per_s < 221", 220, 98),
        ("memory > 2.5GB", 3e9, None),
        ("efficiency < 50%", 0.4, 98),
        ("stalls > 0", 1, 100),
        ("j_per_1000_tokens > 10", 12, 98),
    ],
)
def test_a_threshold_fails_where_its_condition_holds(written: str, value: float, n: int | None) -> None:
    row = one(written)

    assert (row["result"], row["value"], row["n"], row["reason"]) == ("failed", value, n, None)


@pytest.mark.parametrize("written", ["ttft_p95 > 700ms", "failed > 2%", "output_tokens_per_s < 50", "memory > 3GB"])
def test_a_threshold_passes_where_its_condition_does_not_hold(written: str) -> None:
    assert one(written)["result"] == "passed"


def test_a_row_has_the_interval_of_its_figure() -> None:
    assert one("ttft_p95 > 1s")["interval"] == [650.0, 800.0]
    assert one("output_tokens_per_s < 1")["interval"] == [45.0, 55.0]
    assert one("failed > 5%")["interval"] == [0.0055, 0.07]
    assert one("ttft_p99 > 1s")["interval"] is None


@pytest.mark.parametrize(
    ("written", "changes", "reason"),
    [
        ("ttft_p95 > 1s", {"ttft_ms": {**TIMES, "p95": None}, "completed": 0}, "no request completed"),
        ("itl_p99 > 1s", {"itl_ms": None, "burst_share": 0.9}, "the server sends its answers in bursts"),
        ("itl_p99 > 1s", {"itl_ms": None, "streamed": False}, "answers that are asked for whole have no itl"),
        ("gpu_memory > 1GB", {}, "it could not be sampled"),
        ("output_tokens_per_s < 1", {"output_tokens_per_s": None}, "the steady window is too short"),
        ("efficiency < 50%", {"efficiency": None}, "no lower load of this model was measured"),
        ("goodput < 1", {}, "no SLO is given, or it could not be judged"),
        ("failed > 1%", {"attempted": 0, "status": "skipped", "reason": "no time"}, "skipped: no time"),
    ],
)
def test_what_was_not_measured_is_not_known_and_says_why(written: str, changes: Any, reason: str) -> None:
    row = one(written, **changes)

    assert (row["result"], row["value"], row["reason"]) == ("unknown", None, reason)


def every_second(n: int, **changes: Any) -> dict[str, Any]:
    """A level of n requests, of which every second one failed and the others were quick."""
    results = [stream(i, ttft=100) if i % 2 else failed(i) for i in range(n)]
    return {**summed(results), **changes}


@pytest.mark.parametrize("metric", ["ttft", "tpot", "itl", "e2e", "client_queue"])
@pytest.mark.parametrize("statistic", ["p95", "p99", "max", "mean"])
def test_a_server_that_fails_every_second_request_has_no_latency_to_pass_with(metric: str, statistic: str) -> None:
    [row] = thresholds([every_second(40)], [f"{metric}_{statistic} > 10s"])

    assert (row["result"], row["value"]) == ("failed", None)
    assert row["reason"] == "20 failed of 40 requests: they never ended"


def test_what_half_the_requests_reach_holds_of_a_server_that_fails_the_others() -> None:
    [row] = thresholds([every_second(41)], ["ttft_p50 > 10s"])  # 21 of 41 failed

    assert row["result"] == "failed"
    assert thresholds([every_second(40)], ["ttft_p50 > 10s"])[0]["value"] == 100.0


def test_dropped_requests_count_as_failed_ones() -> None:
    level = summed([stream(i) for i in range(18)], offered=20, dropped=2, concurrency=None, request_rate_per_s=5.0)

    [row] = thresholds([level], ["e2e_p95 > 10s"])

    assert (row["result"], row["reason"]) == ("failed", "2 were dropped of 20 requests: they never ended")


def test_requests_that_we_cancelled_are_no_failures() -> None:
    level = summed([*(stream(i) for i in range(18)), failed(18, error="cancelled"), failed(19, error="cancelled")])

    [row] = thresholds([level], ["e2e_p95 > 10s"])

    assert row["result"] == "passed"


def test_answers_asked_for_whole_have_no_first_token_however_many_fail() -> None:
    level = summed([failed(0), stream(1)], scenario={"stream": False})

    [row] = thresholds([level], ["ttft_p95 > 10s"])

    assert row["result"] == "unknown"


def test_in_open_loop_ttft_counts_from_when_a_request_was_due() -> None:
    row = one("ttft_p95 > 1s", request_rate_per_s=2.0, concurrency=None, ttft_from_due_ms={**TIMES, "p95": 5000.0})

    assert (row["result"], row["value"]) == ("failed", 5000)


def test_a_level_that_was_cut_off_can_fail_and_cannot_pass() -> None:
    cut = {"status": "interrupted", "reason": "stopped before it was whole"}

    assert one("ttft_p95 > 600ms", **cut)["result"] == "failed"
    assert one("ttft_p95 > 800ms", **cut)["reason"] == "interrupted: stopped before it was whole"


def test_each_level_is_judged_and_the_closing_one_is_not() -> None:
    levels = [level(id="phi@c1"), level(id="phi@c4"), level(id="phi@c1#end", closing=True)]

    assert [row["level"] for row in thresholds(levels, ["failed > 1%"])] == ["phi@c1", "phi@c4"]


def test_braces_leave_the_other_levels_out() -> None:
    levels = [level(id="phi@c1"), level(id="phi@c4"), level(id="phi@c4#2")]

    assert [row["level"] for row in thresholds(levels, ["failed{c4} > 1%"])] == ["phi@c4", "phi@c4#2"]


def test_a_threshold_about_no_level_is_not_known() -> None:
    [row] = thresholds([level()], ["failed{c8} > 1%"])

    assert (row["result"], row["level"], row["reason"]) == ("unknown", None, "no level is called c8")


def test_a_row_says_which_threshold_ended_the_run() -> None:
    found = thresholds([level(aborted="failed > 1%")], ["failed > 1% abort", "ttft_p95 > 1s"])

    assert [row["aborted"] for row in found] == [True, False]


# -- reports


def summary(*written: str, **changes: Any) -> dict[str, Any]:
    """A report's summary of two levels, c1 and c4, held against thresholds."""
    found = copy.deepcopy(summary_of("closed_loop"))
    levels = [level(id="phi@c1", concurrency=1), level(**changes)]
    return {**found, "levels": levels, "warnings": [], "scaling": [], "thresholds": thresholds(levels, written)}


@pytest.mark.parametrize(
    ("written", "verdict", "sentences"),
    [
        ([], None, []),
        (
            ["ttft_p95 > 600ms", "failed > 5%"],
            "failed",
            ["FAILED: ttft_p95 > 600ms at c1 (700 ms), at c4 (1.24 s)"],
        ),
        (
            ["failed > 5%", "gpu_memory > 1GB"],
            "unknown",
            ["not known: gpu_memory > 1GB at c1, c4 (it could not be sampled)"],
        ),
        (
            ["ttft_p95 > 2s", "failed > 5%"],
            "passed",
            ["passed: none of 2 thresholds fails at any of 2 levels (ttft_p95 > 2s, failed > 5%)"],
        ),
    ],
)
def test_the_words_name_the_worst_where_and_by_how_much(
    written: list[str], verdict: str | None, sentences: list[str]
) -> None:
    found = read(summary(*written, ttft_ms={**TIMES, "p95": 1240.0}))

    assert reported.threshold_sentences(found) == sentences
    assert reported.verdict([row.result for row in found.thresholds]) == verdict
    assert (reported.threshold_table(found) is None) == (not written)


def test_text_and_markdown_begin_with_the_verdict_and_have_its_table() -> None:
    found = summary("ttft_p95 > 600ms", "memory > 2GB")

    plain, marked = FORMATS["text"](found), FORMATS["markdown"](found)

    assert plain.index("FAILED: ttft_p95 > 600ms") < plain.index("TTFT and throughput") < plain.index("\nThresholds\n")
    assert re.search(r"^c4 +memory > 2GB +3.00 GB .*FAILED$", plain, re.MULTILINE)
    assert marked.index("- **FAILED: ttft_p95 &gt; 600ms") < marked.index("### ") < marked.index("### Thresholds")


# -- exit codes


def test_only_what_failed_fails_a_run_unless_strict() -> None:
    red = [{"code": "V1", "severity": "red", "text": "too short"}, {"code": "V12", "severity": "warn", "text": "few"}]
    found = summary("failed > 5%", "gpu_memory > 1GB", warnings=red)

    assert reported.reasons(found, strict=False) == []
    assert reported.reasons(found, strict=True) == [
        "not known: gpu_memory > 1GB at c1 (it could not be sampled)",
        "not known: gpu_memory > 1GB at c4 (it could not be sampled)",
        "V1 short-window red at c4: no basis for a verdict",
    ]


def test_a_failed_threshold_is_exit_code_3_with_its_reason() -> None:
    ran = Ran("", Path("run"), {}, {})
    ended = verdict(Outcome(ran.folder, (ran,), interrupted=False, is_search=False), summary("ttft_p95{c4} > 600ms"))

    assert ended == Verdict(3, ("ttft_p95{c4} > 600ms at c4 (700 ms)",))


def test_braces_that_name_no_level_are_refused_before_anything_is_measured() -> None:
    asked = Scenario(concurrency=[1, 4], fail_if=["failed{c8} > 1%"])

    with pytest.raises(UsageError, match=r"failed\{c8\} > 1%: no level is called c8: write one of c1, c4, or a model"):
        check_thresholds(asked, ["phi"])


@pytest.mark.parametrize("model", ["phi", "phi@c1"])
def test_braces_may_name_a_model(model: str) -> None:
    check_thresholds(Scenario(concurrency=[1, 4], fail_if=[f"failed{{{model}}} > 1%"]), ["phi", "qwen"])


def test_the_opening_warns_of_a_threshold_that_fails_what_is_good() -> None:
    said = threshold_lines(Scenario(fail_if=["ttft_p95 < 800ms", "success < 99%", "failed > 1% abort"]), search=False)

    assert said == [
        "fails if  ttft_p95 < 800ms; success < 99%; failed > 1% (aborts after 10 s)",
        "          ttft_p95 < 800ms: that fails a run for doing well; turn the sign unless that is meant",
    ]
