"""What went to each of several endpoints, and the doubts where they differ."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from loadbench.metrics import summarise
from loadbench.store.record import Result
from tests.support.streams import MS, failed, level_data, run, stream

TWO = [
    {"url": "http://a/v1", "weight": 3, "kind": "vllm", "version": "0.7", "round_trip_ms": 0.2},
    {"url": "http://b/v1", "weight": 1, "kind": "vllm", "version": "0.7", "round_trip_ms": 0.2},
]


def summed(results: list[Result], endpoints: Any = TWO, **changes: Any) -> dict[str, Any]:
    return summarise(run(level_data(results, **changes), endpoints=endpoints))


def turns(n: int, *ttft_ms: float) -> list[Result]:
    """One stream, whose requests go to the endpoints in turns; each endpoint has its TTFT."""
    results: list[Result] = []
    for number in range(n):
        at = number % len(ttft_ms)
        due = results[-1].end_ns / MS if results else 0.0
        results.append(stream(number, due=due, ttft=ttft_ms[at], tokens=8, endpoint=at))
    return results


def doubts(summary: dict[str, Any]) -> list[str]:
    return [one["text"] for one in summary["levels"][0]["warnings"] if one["code"] == "endpoints"]


def test_each_endpoint_has_the_figures_of_its_own_requests() -> None:
    level = summed([*turns(40, 100.0, 300.0), failed(40, due=20_000, endpoint=1)])["levels"][0]
    first, second = level["endpoints"]

    assert (first["url"], first["weight"], first["share"]) == ("http://a/v1", 3, round(20 / 41, 6))
    assert [(one["completed"], one["failed"], one["errors"]) for one in (first, second)] == [
        (20, 0, {}),
        (20, 1, {"http_5xx": 1}),
    ]
    assert [one["ttft_ms"]["p50"] for one in (first, second)] == [100.0, 300.0]
    assert [one["itl_ms"]["n"] for one in (first, second)] == [140, 140]


def test_all_other_figures_are_of_all_requests_together() -> None:
    results = turns(40, 100.0, 300.0)
    alone = summed([replace(one, endpoint=0) for one in results], None)["levels"][0]
    level = summed(results)["levels"][0]

    assert alone["endpoints"] is None
    assert {name for name in level if level[name] != alone[name]} == {"endpoints", "warnings"}


def test_rates_of_the_endpoints_add_up_to_that_of_all() -> None:
    level = summed(turns(40, 100.0, 300.0))["levels"][0]

    for rate in ("output_tokens_per_s", "requests_per_s", "characters_per_s", "in_flight_mean"):
        assert sum(one[rate] for one in level["endpoints"]) == pytest.approx(level[rate], rel=1e-4)


def test_an_endpoint_that_got_nothing_has_a_row_without_figures() -> None:
    level = summed([replace(one, endpoint=0) for one in turns(10, 100.0)])["levels"][0]

    assert level["endpoints"][1]["share"] == 0
    assert level["endpoints"][1]["ttft_ms"]["p50"] is None


def test_gaps_that_nobody_kept_are_of_no_endpoint() -> None:
    level = summed([replace(one, gaps_us=[]) for one in turns(10, 100.0, 100.0)], gaps_kept=False)["levels"][0]

    assert [one["itl_ms"]["n"] for one in level["endpoints"]] == [0, 0]


def test_records_of_endpoints_that_run_json_does_not_name_are_in_no_row() -> None:
    level = summed([replace(one, endpoint=7) for one in turns(10, 100.0)])["levels"][0]

    assert [one["attempted"] for one in level["endpoints"]] == [0, 0]


def test_an_endpoint_that_is_slower_is_named() -> None:
    [text] = doubts(summed(turns(40, 100.0, 300.0)))

    assert text.startswith("http://b/v1 is slower than http://a/v1: TTFT p50 300 ms against 100 ms: ")


@pytest.mark.parametrize("ttft_ms", [100.0, 119.0])
def test_endpoints_that_are_about_as_fast_are_no_doubt(ttft_ms: float) -> None:
    assert not doubts(summed(turns(40, 100.0, ttft_ms)))


def test_an_endpoint_that_fails_more_is_named() -> None:
    results = [failed(one.request, due=one.due_ns / MS, endpoint=1) if one.endpoint else one for one in turns(40, 9, 9)]

    [text] = doubts(summed(results))

    assert text.startswith("http://b/v1 failed 20 of 20 requests, http://a/v1 0 of 20: ")


def test_a_failure_that_may_be_chance_is_no_doubt() -> None:
    results = turns(40, 100.0, 100.0)
    results[1] = failed(1, due=results[1].due_ns / MS, endpoint=1)

    assert not doubts(summed(results))


@pytest.mark.parametrize("changes", [{"kind": "llama.cpp"}, {"version": "0.8"}])
def test_endpoints_of_different_servers_are_a_warning_on_the_run(changes: dict[str, str]) -> None:
    [warning] = summed(turns(10, 100.0, 100.0), [TWO[0], TWO[1] | changes])["warnings"]

    assert (warning["code"], warning["severity"]) == ("endpoints", "warn")
    assert "http://a/v1 is vllm 0.7; http://b/v1 is" in warning["text"]
    assert not summed(turns(10, 100.0, 100.0))["warnings"]
