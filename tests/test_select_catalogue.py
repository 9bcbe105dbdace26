"""models.json written back: what was in it stays, what was measured is added, and a run reads it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loadbench import scenario, select
from loadbench.scenario.reading import read_models
from loadbench.select import Candidate
from tests.support.choosing import candidate, choose

MODELS = Path(__file__).parents[1] / "scenarios" / "models.json"


def called(name: str, model: str, device: str = "CPU", **figures: Any) -> Candidate:
    """A candidate that was asked for by another name than it has."""
    facts = {"id": model, "name": name, "alias": name, "licence": "MIT", "context": 4096}
    return replace(candidate(model, **figures), device=device, facts=facts)


def test_a_new_file_holds_each_candidate_with_its_figures() -> None:
    record = choose(candidate("a"), candidate("b", ttft=400))

    found = select.updated({}, record)

    assert {key: found["a"][key] for key in ("capabilities", "size_mb", "licence")} == {
        "capabilities": ["chat"],
        "size_mb": 1000,
        "licence": "mit",
    }
    [measured] = found["a"]["measured"]
    assert measured["ttft_p95_ms"] == pytest.approx(record["candidates"][0]["figures"]["ttft_p95"]["value"], rel=1e-4)
    assert (measured["memory_bytes"], measured["quality"], measured["load"]) == (2_000_000_000, None, "c4")
    assert (measured["device"], measured["runs"], measured["when"]) == ("CPU", ["models"], "2026-11-22T18:30:00Z")


def test_what_a_file_held_stays() -> None:
    known = {"a": {"capabilities": ["tools"], "note": [1], "size_mb": 5}, "other": {"size_mb": 3}}

    found = select.updated(known, choose(candidate("a", disk=None)))

    assert found["a"] | {"measured": None} == {**known["a"], "licence": "mit", "measured": None}
    assert found["other"] == {"size_mb": 3}
    assert "measured" not in known["a"]


def test_a_candidate_goes_under_the_name_that_the_file_has_for_it() -> None:
    found = select.updated({"phi-4-mini": {}}, choose(called("phi-4-mini", "Phi-4-mini-instruct-generic-cpu")))

    assert list(found) == ["phi-4-mini"]
    assert found["phi-4-mini"]["context_tokens"] == 4096


def test_variants_of_one_alias_go_under_their_own_ids() -> None:
    record = choose(called("phi", "phi-cpu"), called("phi", "phi-gpu", "GPU", ttft=50))

    assert list(select.updated({"phi": {}}, record)) == ["phi", "phi-gpu", "phi-cpu"]


def test_one_model_on_two_devices_has_an_entry_for_each() -> None:
    on_cpu, on_gpu = (
        replace(candidate("m", ttft=ttft), name=f"m on {d}", device=d) for d, ttft in (("CPU", 200), ("GPU", 50))
    )

    measured = select.updated({}, choose(on_cpu, on_gpu))["m"]["measured"]

    assert [(one["device"], one["chosen"], one["rank"]) for one in measured] == [("GPU", True, 1), ("CPU", False, 2)]


def test_who_fell_out_is_written_as_such() -> None:
    record = choose(candidate("a"), candidate("b", memory=9e9), needs=["memory<4GB"])

    [measured] = select.updated({}, record)["b"]["measured"]
    assert (measured["meets_needs"], measured["rank"], measured["chosen"]) == (False, None, False)


def test_what_a_scenario_said_of_a_new_model_is_taken_over() -> None:
    found = select.updated(
        {}, choose(candidate("a", disk=None)), {"a": {"capabilities": ["chat", "tools"], "size_mb": 7}}
    )

    assert (found["a"]["capabilities"], found["a"]["size_mb"]) == (["chat", "tools"], 7)


def test_writing_twice_is_writing_once() -> None:
    record = choose(candidate("a"), candidate("b"))
    once = select.updated(read_models(MODELS), record)

    assert select.updated(once, record) == once


def test_a_scenario_reads_what_was_written(tmp_path: Path) -> None:
    content = select.updated(read_models(MODELS), choose(candidate("a"), candidate("qwen2.5-0.5b")))
    (tmp_path / "models.json").write_text(json.dumps(content))
    (tmp_path / "s.toml").write_text('models = "models.json"')

    found = scenario.read(tmp_path / "s.toml")

    assert [*read_models(MODELS), "a"] == list(found.models)
    assert found.model_facts["qwen2.5-0.5b"]["parameters_b"] == 0.5
