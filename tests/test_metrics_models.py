"""One record a model: turns merged, probes chosen, what ran."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loadbench.metrics import summarise
from loadbench.store import summary as summaries
from tests.support.plain import ran, records
from tests.support.streams import level_data, run, stream


def turn(**known: Any) -> dict[str, Any]:
    names = ("name", "alias", "asked_device", "ran", "served_as", "was_loaded", "load_s", "load_source", "load_error")
    return {"model": "m", **dict.fromkeys(names), **known}


def probe(purpose: str, **known: Any) -> dict[str, Any]:
    named = ("ttft_ms", "e2e_ms", "after_s", "every_s", "error")
    return {"model": "m", "purpose": purpose, "cold": False, "requests": 1, **dict.fromkeys(named), **known}


def record(*turns: dict[str, Any], levels: tuple[dict[str, Any], ...] = (), **info: Any) -> dict[str, Any]:
    [found] = records({"models": list(turns), **info}, levels)
    return found


def test_a_resumed_run_fills_up_what_an_earlier_turn_knew() -> None:
    found = record(
        turn(load_s=8.0, load_source="loaded by this run", memory_before_load_bytes=100, memory_after_load_bytes=900),
        turn(memory_after_load_bytes=950),
    )

    assert (found["load_s"], found["load_source"]) == (8.0, "loaded by this run")
    assert (found["memory_before_load_bytes"], found["memory_after_load_bytes"]) == (100, 950)


def test_a_load_that_failed_and_then_succeeded_is_no_failure() -> None:
    found = record(turn(load_error="no memory"), turn(load_s=3.0, load_source="loaded by this run"))

    assert (found["load_error"], found["load_s"]) == (None, 3.0)


def test_a_figure_and_its_source_come_from_one_turn() -> None:
    found = record(turn(disk_bytes=5, disk_source="files"), turn(disk_bytes=None, disk_source="server"))

    assert (found["disk_bytes"], found["disk_source"]) == (5, "files")


def test_a_models_facts_are_those_of_the_servers_list() -> None:
    facts = {"id": "m", "aliases": ["em"], "licence": "MIT", "context": 4096, "size_bytes": 7, "device": "GPU"}

    found = record(turn(), target={"models": [{"id": "other"}, facts]})

    assert (found["alias"], found["licence"], found["context"], found["device"]) == ("em", "MIT", 4096, "GPU")


def test_the_peak_of_memory_is_that_of_the_models_levels() -> None:
    levels = [{"model": "m", "server_memory_peak_bytes": b} for b in (5, None, 9)]

    found = records({}, [*levels, {"model": "n", "server_memory_peak_bytes": 99}])

    assert [one["memory_peak_bytes"] for one in found] == [9, 99]


def test_models_stand_in_the_order_of_the_run_and_those_that_never_had_a_level_are_among_them() -> None:
    info = {"models": [{"model": "b"}, {"model": "a"}]}

    assert [found["id"] for found in records(info, [{"model": "a"}, {"model": "c"}])] == ["b", "a", "c"]


PROBES = [
    pytest.param([], None, id="none"),
    pytest.param([probe("first", ttft_ms=9.0)], 9.0, id="one"),
    pytest.param([probe("first", ttft_ms=9.0), probe("first", ttft_ms=3.0)], 3.0, id="the last"),
    pytest.param([probe("first", ttft_ms=9.0, cold=True), probe("first", ttft_ms=3.0)], 9.0, id="rather a cold one"),
    pytest.param([probe("first", ttft_ms=9.0), probe("first", error="reset")], 9.0, id="rather an answered one"),
]


@pytest.mark.parametrize(("probes", "ttft_ms"), PROBES)
def test_of_several_first_requests_one_is_told(probes: list[dict[str, Any]], ttft_ms: float | None) -> None:
    first = record(turn(), probes=probes)["first"]

    assert (first or {}).get("ttft_ms") == ttft_ms


def test_a_request_that_failed_is_told_where_none_was_answered() -> None:
    found = record(turn(), probes=[probe("idle", error="reset", after_s=60.0)])

    assert (found["idle"]["error"], found["idle"]["after_s"]) == ("reset", 60.0)


RAN = [
    # what the lists say, the name in the answers; the device that ran
    ({"id": "m-gpu:1", "device": "GPU", "execution_provider": "X"}, None, "GPU"),
    ({"id": "m-gpu:1", "device": "GPU", "execution_provider": "X"}, "m-gpu:1", "GPU"),
    ({"id": "m-gpu:1", "device": "GPU", "execution_provider": "X"}, "m-generic-cpu:1", "CPU"),
    (None, "m-cuda-gpu", "GPU"),
    (None, "m", None),
    (None, None, None),
]


@pytest.mark.parametrize(("listed", "served_as", "device"), RAN)
def test_what_ran_is_what_the_answers_say_where_their_name_tells_a_device(
    listed: dict[str, Any] | None, served_as: str | None, device: str | None
) -> None:
    assert (ran({"ran": listed, "served_as": served_as}) or {}).get("device") == device


def test_a_run_from_before_there_were_turns_has_a_record_a_model_all_the_same() -> None:
    [found] = records({}, [{"model": "m"}])

    assert (found["id"], found["load_s"], found["first"]) == ("m", None, None)


def test_a_fallback_is_red_in_the_summary_and_what_is_absent_stands_there_too() -> None:
    fell = turn(asked_device="GPU", ran={"id": "m-cpu", "device": "CPU", "execution_provider": None})
    absent = [{"name": "m", "device": "NPU", "execution_provider": None, "reason": "no"}]

    summary = summarise(run(level_data([stream()], asked_device="GPU"), models=[fell], absent=absent))

    assert ("V15", "red") in {(w["code"], w["severity"]) for w in summary["levels"][0]["warnings"]}
    assert (summary["models"][0]["ran"], summary["absent"]) == (fell["ran"], absent)


def fields(kind: type) -> set[str]:
    """The fields of a struct, and of all that it holds."""
    found = set()
    for field in msgspec.structs.fields(kind):
        found.add(field.name)
        for part in re.findall(r"\b[A-Z]\w+", str(field.type)):
            inner = getattr(summaries, part, None)
            if inner is not kind and isinstance(inner, type) and issubclass(inner, msgspec.Struct):
                found |= fields(inner)
    return found


def test_docs_summary_md_names_every_field_of_the_summary() -> None:
    docs = (Path(__file__).parents[1] / "docs/summary.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\b[a-z][a-z0-9_]*", docs))

    assert len(fields(summaries.Summary)) > 200
    assert fields(summaries.Summary) - named == set()
