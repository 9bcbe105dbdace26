"""The answer of a search in words: one in the whole report, with its zones."""

from __future__ import annotations

from typing import Any

import pytest

from loadbench.report import headline, objectives
from tests.support.plain import searched
from tests.support.searches import GENTLE, step


def summary(steps: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    record = {"model": "m", "by": "concurrency", "slo": ["ttft_p95=1s"], "found": 6, "bracket": [6, 9], "steps": steps}
    record |= {"reason": "confirmed by a second probe", "looks": 3, "confidence": 0.983333, "contradictions": []}
    return {**searched({"capacity": [record | more]}), "levels": []}


def test_the_answer_has_three_zones_and_an_estimate() -> None:
    [said] = objectives.capacity_sentences(summary(GENTLE))
    [found] = [one["estimate"] for one in summary(GENTLE)["capacity"]]

    assert said == (
        "capacity 6 streams within ttft_p95=1s, not from 9 streams on, undecided between (confirmed by a second "
        f"probe); by all probes together about {found['load']:g} streams (95% interval {found['ci95'][0]:g} to "
        f"{found['ci95'][1]:g})"
    )


MET, MISSED = step(6, 1.0, 109), step(7, 0.4, 20, "not met", attained=False)
OPEN = step(7, 0.95, 240, "undecided")


@pytest.mark.parametrize(
    ("steps", "more", "said"),
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
def test_each_end_of_a_search_has_its_words(steps: list[dict[str, Any]], more: dict[str, Any], said: str) -> None:
    [answer] = objectives.capacity_sentences(summary(steps, reason="why", **more))

    assert answer.partition("; by all probes")[0] == said


def test_a_report_of_a_search_has_one_answer_and_no_second_one_by_the_levels_shares() -> None:
    """The levels' own shares said "carries 7 users" where the search said 6."""
    slo = [{"bound": "ttft_p95=1s", "attainment": 0.951, "attained": True, "n": 240}]
    level = {
        "id": "m@c7",
        "model": "m",
        "concurrency": 7,
        "status": "complete",
        "slo": slo,
        "output_tokens_per_s": 50.0,
    }
    without, searched_for = {"levels": [level]}, {**summary(GENTLE), "levels": [level]}

    assert "carries 7 users" in headline.lines(without)[0].text
    assert "carries" not in headline.lines(searched_for)[0].text


def test_the_steps_say_how_a_verdict_was_reached() -> None:
    [old] = objectives.steps(summary(GENTLE))
    [new] = objectives.steps(summary([{**MET, "shares": [{**MET["shares"][0], "worth": 109}]}], by="rate"))

    assert "which takes requests as independent" in " ".join(old.notes)
    assert "wider where requests depend on each other" in " ".join(new.notes)
    assert "at a rate a load is met only once its queue is steady" in " ".join(new.notes)
