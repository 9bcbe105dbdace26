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


LOADED = {"load_s": 8.0, "load_source": "loaded by this run", "memory_before_load_bytes": 100}
TURNS = [
    # what two turns of a model knew, and what its record says
    (
        [{**LOADED, "memory_after_load_bytes": 900}, {"memory_after_load_bytes": 950}],
        {**LOADED, "memory_after_load_bytes": 950},
    ),
    ([{"load_error": "no memory"}, {"load_s": 3.0}], {"load_error": None, "load_s": 3.0}),
    ([{"disk_bytes": 5, "disk_source": "files"}, {"disk_source": "server"}], {"disk_bytes": 5, "disk_source": "files"}),
]


@pytest.mark.parametrize(("turns", "expected"), TURNS)
def test_a_resumed_run_fills_up_what_an_earlier_turn_knew(
    turns: list[dict[str, Any]], expected: dict[str, Any]
) -> None:
    found = record(*(turn(**known) for known in turns))

    assert {name: found[name] for name in expected} == expected


def test_a_models_facts_are_those_of_the_servers_list() -> None:
    facts = {"id": "m", "aliases": ["em"], "licence": "MIT", "context": 4096, "size_bytes": 7, "device": "GPU"}

    found = record(turn(), target={"models": [{"id": "other"}, facts]})

    assert (found["alias"], found["licence"], found["context"], found["device"]) == ("em", "MIT", 4096, "GPU")


def test_the_peak_of_memory_is_that_of_the_models_levels() -> None:
    levels = [{"model": "m", "server_memory_peak_bytes": b} for b in (5, None, 9)]

    found = records({}, [*levels, {"model": "n", "server_memory_peak_bytes": 99}])

    assert [one["memory_peak_bytes"] for one in found] == [9, 99]


def test_models_stand_in_the_order_of_the_run_and_those_that_never_had_a_level_or_turn_are_among_them() -> None:
    info = {"models": [{"model": "b"}, {"model": "a"}]}
    found = records(info, [{"model": "a"}, {"model": "c"}])

    assert [one["id"] for one in found] == ["b", "a", "c"]
    assert (found[2]["load_s"], found[2]["first"]) == (None, None)


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

    idle = record(turn(), probes=[probe("idle", error="reset", after_s=60.0)])["idle"]

    assert (first or {}).get("ttft_ms") == ttft_ms
    assert (idle["error"], idle["after_s"]) == ("reset", 60.0)


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
