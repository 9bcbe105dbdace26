"""What a report says of a run in sentences: each model, how many users it serves, thresholds, searches, gates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from loadbench.report import levels, objectives, run
from loadbench.store.summary import Level
from tests.support.plain import scaling, searched
from tests.support.searches import GENTLE, step
from tests.support.summaries import summary_of, with_levels

Plain = dict[str, Any]


def sentence(summary: Plain, model: int = 0) -> str:
    return run.models(levels.read(summary))[model].text


# The sentence of a model


def of_level(place: int, **changes: Any) -> Plain:
    """A run of a level of "closed_loop" alone, or with its neighbours before it."""
    summary = summary_of("closed_loop")
    summary["levels"][place] |= changes
    return summary


def curve(ttft_ms: float = 120.0, **changes: Any) -> Plain:
    """A run of one model at 1 and 8 streams; its TTFT p50 is 60 ms at 1 stream."""
    summary = summary_of("scaling")
    first, last = (summary["levels"][i] for i in (0, 3))
    ttft = {"n": 5, "p50": ttft_ms, "ci95": {"p50": [ttft_ms, ttft_ms]}}
    summary["levels"] = [first, last | {"ttft_ms": ttft} | changes]
    summary["scaling"] = [summary["scaling"][0] | {"knees": {"doubling": None}, "serial": False}]
    return summary


def only(case: str, *places: int) -> Plain:
    summary = summary_of(case)
    summary["levels"] = [summary["levels"][place] for place in places]
    return summary


def tpot(p50: float) -> Plain:
    return {"n": 5, "p50": p50, "ci95": {"p50": [p50, p50]}}


SENTENCES: list[tuple[Callable[[], Plain], int, str]] = [
    (lambda: only("interrupted", 0), 0, "16.8 tokens/s at 1 stream; median TTFT 210 ms."),
    (
        lambda: of_level(3, output_tokens_per_s=31.0),
        0,
        "peaks at 40.0 tokens/s and 177 characters/s at 4 streams (2.4x of 1 stream, efficiency 60%), 31.0 at 8 "
        "streams",
    ),
    (
        lambda: only("errors_and_gates", 2),
        0,
        "throughput not measured; 0 of 12 requests completed (failed: connect 12).",
    ),
    (lambda: summary_of("simulated"), 0, "1,327 to 1,337 tokens/s at 16 streams"),
    # by efficiency and TTFT, never by TPOT: a perfect one is no merit where first tokens wait, a slow one no fault
    (lambda: curve(efficiency=0.8, tpot_ms=tpot(18.6)), 0, "scales well to 8 streams: 270 tokens/s"),
    (lambda: curve(efficiency=0.79, tpot_ms=tpot(18.6)), 0, "270 tokens/s"),
    (lambda: curve(121.0, efficiency=0.8, tpot_ms=tpot(18.6)), 0, "270 tokens/s"),
    (lambda: curve(1200.0, efficiency=0.3, tpot_ms=tpot(18.6)), 0, "270 tokens/s"),
    (lambda: curve(efficiency=0.8, tpot_ms=tpot(900.0)), 0, "scales well to 8 streams: 270 tokens/s"),
    (lambda: curve(efficiency=None, tpot_ms=tpot(18.6)), 0, "270 tokens/s"),
    (lambda: summary_of("scaling"), 0, "saturated from 32 streams on: peaks at 436 tokens/s"),
    (
        lambda: summary_of("scaling"),
        1,
        "answers one request at a time: 8 streams get what one gets, and wait 8 times as long; 50.3 tokens/s",
    ),
    (
        lambda: with_levels(summary_of("scaling"), streamed=False),
        1,
        "answers as if one request at a time: 8 streams get what one gets",
    ),
]


@pytest.mark.parametrize(("summary", "model", "text"), SENTENCES)
def test_a_sentence_begins_with_what_a_model_did(summary: Callable[[], Plain], model: int, text: str) -> None:
    assert sentence(summary(), model).startswith(text)


def test_ttft_is_told_by_p95_only_where_both_ends_have_an_interval_for_it() -> None:
    summary = summary_of("closed_loop")
    assert "median TTFT grows from 210 ms at 1 stream to 1.09 s" in sentence(summary)

    summary["levels"][0]["ttft_ms"]["ci95"]["p95"] = [220.0, 240.0]

    assert "TTFT p95 grows from 229 ms at 1 stream to 1.90 s" in sentence(summary)
    assert "E2E p95 grows from 2.15 s" in sentence(summary_of("whole_answers"))


@pytest.mark.parametrize(("done", "more"), [(3.79, True), (3.05, False), (2.0, False)])
def test_more_completed_than_planned_is_put_down_to_chance(done: float, more: bool) -> None:
    summary = summary_of("open_loop")
    level = {**summary["levels"][-1], "request_rate_per_s": 3.0, "requests_per_s": done}
    text = sentence({**summary, "levels": [level]})

    assert f"planned, {done:.3g}" in text
    assert ("more than planned by chance" in text) == more


def test_a_flat_doubling_below_a_load_with_much_more_is_not_called_saturation() -> None:
    """c4 has 1.8 times the tokens/s of c1: the first doubling that gained nothing is no end of growth."""
    rows = only("closed_loop", 0, 1, 2)["levels"]
    for level, x in zip(rows, (50.0, 51.0, 90.0), strict=True):
        level |= {"output_tokens_per_s": x, "output_tokens_per_s_ci95": [x - 1, x + 1]}

    assert "saturated" not in sentence({**summary_of("closed_loop"), "levels": rows, "scaling": scaling(rows)})


def test_a_red_gate_forbids_the_verdict_in_the_first_sentence_and_warnings_alone_do_not() -> None:
    [red, *_] = run.models(levels.read(summary_of("errors_and_gates")))

    assert red.doubt == "Not a basis for a verdict: V1 short-window, V4 failures red at c4."
    assert [line.doubt for line in run.models(levels.read(summary_of("closed_loop")))] == ["", ""]


def test_reds_come_before_warnings_and_a_gate_is_said_once_with_all_its_levels() -> None:
    warnings = [{"code": "records", "severity": "red", "text": "x"}]
    found = run.gates(levels.read(summary_of("closed_loop") | {"warnings": warnings}))

    assert [finding.label for finding in found] == ["records red", "V1 warn", "V2 warn", "V12 warn"]
    assert found[0].texts == [("", "x")]
    assert found[1].texts[0][0] == "smollm2-135m c1, qwen2.5-0.5b-instruct-generic-cpu:4 c1"


# How many users a model serves


def rows_of(*loads: tuple[float, bool | None], **changes: Any) -> list[Level]:
    """Levels with one bound each, met or not."""
    rows = []
    for n, met in loads:
        slo = [{"bound": "ttft_p95=800ms", "attained": met}]
        rows.append(msgspec.convert({"concurrency": n, "slo": slo, **changes}, Level))
    return rows


CARRIED = [
    (rows_of((1, True), (4, True), (8, False)), "serves 4 users within ttft_p95=800ms, 8 is too many"),
    (rows_of((1, True), (4, False)), "serves 1 user within ttft_p95=800ms, 4 is too many"),
    (rows_of((1, True), (4, True)), "serves 4 users within ttft_p95=800ms, the most that was measured"),
    (
        rows_of((1, False), (2, False), (4, False)),
        "serves none of the levels measured (1, 2 or 4 users) within ttft_p95=800ms",
    ),
    # a higher load that holds again proves nothing
    (rows_of((8, True), (4, False), (1, True)), "serves 1 user within ttft_p95=800ms, 4 is too many"),
    # each repeat must hold
    (rows_of((4, True), (4, False), (1, True)), "serves 1 user within ttft_p95=800ms, 4 is too many"),
    (rows_of((1, None), (4, True)), "whether it keeps within ttft_p95=800ms is not known"),
    # one repeat missed a bound, which of the other is not known
    (rows_of((1, True), (4, None), (4, False)), "serves 1 user within ttft_p95=800ms, 4 is too many"),
    (rows_of((1, True), (4, False), (8, None)), "serves 1 user within ttft_p95=800ms, 4 is too many"),
    (
        rows_of((2, True), ran={"device": "GPU"}),
        "serves 2 users on GPU within ttft_p95=800ms, the most that was measured",
    ),
    # a device that only a name tells was not seen
    (
        rows_of((2, True), device="GPU", device_by_name=True),
        "serves 2 users within ttft_p95=800ms, the most that was measured",
    ),
    ([Level(concurrency=1, slo=[])], ""),
    (rows_of((1, True), status="interrupted"), ""),
    (
        [
            *rows_of((None, True), request_rate_per_s=0.5),
            *rows_of((None, False), request_rate_per_s=2),
        ],
        "serves 0.5 req/s within ttft_p95=800ms, 2 is too many",
    ),
]


@pytest.mark.parametrize(("rows", "text"), CARRIED)
def test_how_many_users_a_model_serves_is_said_in_words(rows: list[Level], text: str) -> None:
    assert run.carried(rows) == text


@pytest.mark.parametrize(
    ("place", "code", "severity", "hedge"),
    [
        (1, "V1", "red", ", by figures in doubt (V1 short-window red)"),
        (1, "V12", "warn", ", on few requests"),
        (1, "V1", "warn", ""),
        (0, "V1", "red", ""),  # a level that decides nothing
    ],
)
def test_doubt_at_the_levels_that_decide_hedges_what_is_carried(
    place: int, code: str, severity: str, hedge: str
) -> None:
    rows = rows_of((1, True), (4, True), (8, False))
    rows[place] = msgspec.structs.replace(
        rows[place], warnings=levels.read({"warnings": [{"code": code, "severity": severity, "text": ""}]}).warnings
    )

    assert run.carried(rows) == f"serves 4 users within ttft_p95=800ms, 8 is too many{hedge}"


# The answer of a search: one in the whole report, with its zones


def search(steps: list[Plain], **more: Any) -> Plain:
    record = {"model": "m", "by": "concurrency", "slo": ["ttft_p95=1s"], "found": 6, "bracket": [6, 9], "steps": steps}
    record |= {"reason": "the capacity was probed twice", "looks": 3, "confidence": 0.983333, "contradictions": []}
    return {**searched({"capacity": [record | more]}), "levels": []}


def answer(summary: Plain) -> str:
    [text] = objectives.capacity_sentences(levels.read(summary))
    return text


def test_the_answer_has_three_zones_and_an_estimate() -> None:
    [estimate] = [one["estimate"] for one in search(GENTLE)["capacity"]]

    assert answer(search(GENTLE)) == (
        "capacity 6 streams within ttft_p95=1s, not from 9 streams on, undecided between (the capacity was "
        f"probed twice); by all probes together about {estimate['load']:g} streams "
        f"(95% interval {estimate['ci95'][0]:g} to {estimate['ci95'][1]:g})"
    )


MET, MISSED = step(6, 1.0, 109), step(7, 0.4, 20, "not met", attained=False)
OPEN = step(7, 0.95, 240, "undecided")


@pytest.mark.parametrize(
    ("steps", "more", "text"),
    [
        ([MET, MISSED], {}, "capacity 6 streams within ttft_p95=1s; 7 streams not (why)"),
        ([MET], {}, "capacity 6 streams within ttft_p95=1s, or more (why)"),
        ([MET, OPEN], {}, "capacity 6 streams within ttft_p95=1s, undecided above (why)"),
        ([MET, OPEN], {"found": None}, "capacity at least 6 streams within ttft_p95=1s, undecided above (why)"),
        ([MET], {"found": None}, "capacity at least 6 streams within ttft_p95=1s (why)"),
        ([OPEN], {"found": None}, "capacity within ttft_p95=1s not known: undecided at 7 streams (why)"),
        ([], {"found": None}, "capacity within ttft_p95=1s not known (why)"),
        ([MISSED], {"found": None}, "capacity below 7 streams: ttft_p95=1s not met there (why)"),
        (
            [step(6, 0.95, 240, "undecided"), MISSED],
            {"found": None},
            "capacity below 7 streams: ttft_p95=1s not met there, undecided below (why)",
        ),
    ],
)
def test_each_end_of_a_search_has_its_words(steps: list[Plain], more: Plain, text: str) -> None:
    assert answer(search(steps, reason="why", **more)).partition("; by all probes")[0] == text


def test_a_report_of_a_search_has_one_answer_and_no_second_one_by_the_levels_shares() -> None:
    """The levels' own shares said "serves 7 users" where the search said 6."""
    slo = [{"bound": "ttft_p95=1s", "attainment": 0.951, "attained": True, "n": 240}]
    level = {"id": "m@c7", "model": "m", "concurrency": 7, "slo": slo, "output_tokens_per_s": 50.0}

    assert "serves 7 users" in sentence({"levels": [level]})
    assert "serves" not in sentence({**search(GENTLE), "levels": [level]})


def test_the_steps_say_how_a_verdict_was_reached() -> None:
    [old] = objectives.steps(levels.read(search(GENTLE)))
    weighed = {**MET, "shares": [{**MET["shares"][0], "worth": 109}]}
    [new] = objectives.steps(levels.read(search([weighed], by="rate")))

    assert "at each of 3 looks, 95% for all of them), which takes requests as independent" in " ".join(old.notes)
    assert "wider where requests depend on each other" in " ".join(new.notes)
    assert "at a rate a load is met only once its queue is steady" in " ".join(new.notes)


@pytest.mark.parametrize(("verdict", "word"), [("undecided", "undecided"), ("not met", "NO"), ("met", "yes")])
def test_the_slo_table_says_of_a_probe_what_the_search_decided(verdict: str, word: str) -> None:
    rows = only("closed_loop", 0, 1)["levels"]
    for level in rows:
        level |= {"slo": [{"bound": "ttft_p95=800ms", "attainment": 0.97, "attained": True, "n": 60}]}
    steps = [step(1, 0.97, 60) | {"level": rows[0]["id"]}, step(2, 0.97, 60, verdict) | {"level": rows[1]["id"]}]

    table = objectives.slo(levels.read({**search(steps, model=rows[0]["model"]), "levels": rows}))

    assert table is not None
    assert [row[4].text for row in table.rows] == ["yes", word]
