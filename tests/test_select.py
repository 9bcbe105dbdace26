"""Which model is chosen: planted winners, missing values, loads, repeats, runs that do not compare, red gates."""

from __future__ import annotations

import json
import math
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loadbench import scenario, select
from loadbench.errors import UsageError
from loadbench.metrics import summary
from loadbench.scenario.reading import read_models
from loadbench.select import COMPARED, NAMES, Candidate, Measured, Need, policy
from loadbench.select.candidates import Rating, Scored
from loadbench.select.rank import CRITERIA
from loadbench.store.summary import Finding, Level
from tests.support.choosing import GB, candidate, choose, doubts, info, lap, measured, row
from tests.support.documents import COMMANDS, field_names, page
from tests.support.streams import in_turn, level_data
from tests.support.streams import run as run_of


def read(*levels: Any, **more: Any) -> Measured:
    """A run of these levels, as a choice reads it."""
    run = run_of(*levels, **more)
    return Measured(run, summary(run))


def level(model: str, load: str = "c1", ttft: float = 200.0, **changes: Any) -> Any:
    """A level of 40 requests one after the other."""
    known = {"id": f"{model}@{load}", "model": model, "concurrency": int(load[1:]), **changes}
    return level_data(in_turn(40, ttft=ttft), **known)


# -- the winner


def test_who_is_better_in_everything_wins() -> None:
    record = choose(
        candidate("slow", ttft=400, e2e=2000, characters=200), candidate("fast"), candidate("middle", ttft=300)
    )

    assert record["winner"] == "fast"
    assert [one["name"] for one in record["candidates"]] == ["fast", "middle", "slow"]
    assert row(record, "fast")["score"] > 95


def test_the_weights_decide_between_speed_and_quality() -> None:
    quick, good = candidate("quick", ttft=50, e2e=300, quality=2.0), candidate("good", quality=4.8)

    assert choose(quick, good, weight=["quality=1"])["winner"] == "quick"
    assert choose(quick, good, weight=["quality=20"])["winner"] == "good"


def test_tokens_per_second_do_not_count_unless_they_are_weighed() -> None:
    cutter, other = candidate("cutter", tokens=400.0), candidate("other", tokens=100.0, characters=440.0)

    assert choose(cutter, other)["winner"] == "other"
    assert choose(cutter, other, weight=["tokens=3"])["winner"] == "cutter"


def test_one_candidate_is_shown_and_said_to_be_alone() -> None:
    record = choose(candidate("only"))

    assert (record["winner"], row(record, "only")["rank"]) == ("only", 1)
    assert doubts(record, "one") == ["there is only one candidate: nothing to compare it with"]


# -- what is not known


def test_what_is_not_known_never_wins_by_default() -> None:
    record = choose(
        candidate("silent", memory=None), candidate("heavy", memory=8 * GB), candidate("light", memory=1 * GB)
    )

    silent, heavy = row(record, "silent"), row(record, "heavy")
    assert silent["missing"] == ["memory"]
    assert silent["log_ratios"]["memory"] == pytest.approx(heavy["log_ratios"]["memory"] - math.log(2))
    assert silent["ratios"]["memory"] is None
    assert doubts(record, "missing")[-1] == "memory of silent is unknown: it counts as half as good as the worst"


def test_what_nobody_knows_has_its_weight_spread_and_is_said() -> None:
    record = choose(candidate("a"), candidate("b"))

    assert sum(one["share"] for one in record["criteria"]) == pytest.approx(1)
    assert next(one for one in record["criteria"] if one["name"] == "quality")["share"] == 0
    assert "quality, energy or cost" in doubts(record, "missing")[0]


def test_a_figure_that_is_missing_is_named_where_it_would_change_the_choice() -> None:
    record = choose(
        candidate("known"), candidate("silent", ttft=150, characters=None), candidate("slow", characters=20)
    )

    assert record["winner"] == "known"
    assert {"name": "silent", "figure": "characters_per_s"} in record["would_change"]["unknown"]


def test_too_few_requests_for_an_interval_are_said() -> None:
    record = choose(candidate("a", n=20), candidate("b", ttft=300))

    assert doubts(record, "V12") == [
        "TTFT p95 of a rests on 20 requests, too few for an interval: taken within a factor of two"
    ]


def test_a_score_of_one_prompt_is_no_certainty() -> None:
    one, other = candidate("a", quality=3.0), candidate("b", quality=3.2)
    single = [("hand", Scored(score=Rating(mean=mean, n=1))) for mean in (3.0, 3.2)]
    record = choose(
        *(replace(c, scores=[s]) for c, s in zip((one, other), single, strict=True)), weights={"quality": 1}
    )

    assert 0.5 < record["robustness"]["winner"]["figures"] < 0.8
    assert doubts(record, "V12") == ["quality of b, a rests on 1 prompt, too few for an interval: taken within a point"]


# -- the load


LOADS = [
    (["c1", "c4", "c8"], ["c1", "c4", "r2"], "c4", "4 streams at once"),
    (["r9", "c1"], ["c1", "r9"], "c1", "1 stream at once"),  # before rates
    (["r0.5", "r2", "c1"], ["c4", "r2"], "r2", "2 requests/s"),
]


@pytest.mark.parametrize(("one", "other", "name", "words"), LOADS)
def test_the_highest_load_that_all_completed_is_taken(one: list[str], other: list[str], name: str, words: str) -> None:
    record = choose(candidate("a", loads=one), candidate("b", loads=other))

    assert record["load"] == {"name": name, "words": words, "asked": False}


# -- figures of levels


def test_energy_and_cost_are_told_per_characters() -> None:
    level = {"j_per_1000_tokens": 40.0, "cost_per_1000_tokens": 0.2, "energy_source": "cpu"}
    spent = {"output_tokens": {"total": 1000}, "characters": 4000}
    figures = row(choose(candidate("a", level={**level, **spent})), "a")["figures"]

    assert (figures["energy"]["value"], figures["energy"]["source"]) == (10.0, "cpu")
    assert figures["cost"]["value"] == pytest.approx(0.05)


def test_energy_that_was_told_in_several_ways_is_doubted() -> None:
    spent = {"j_per_1000_tokens": 40.0, "output_tokens": {"total": 1000}, "characters": 4000}
    some = [candidate(name, level={**spent, "energy_source": name}) for name in ("cpu", "declared")]

    assert doubts(choose(*some), "energy") == [
        "energy was obtained in several ways (cpu, declared): it cannot be compared"
    ]


def test_memory_is_the_servers_largest_with_what_it_holds_on_the_gpu() -> None:
    one = candidate("a", memory=1 * GB)
    on_gpu = candidate("a", memory=1 * GB, level={"gpu_memory_peak_bytes": 3 * GB, "gpu_memory_source": "server"})
    levels = [*on_gpu.levels["c4"], *one.levels["c4"]]
    memory = row(choose(replace(one, levels={"c4": levels})), "a")["figures"]["memory"]

    assert (memory["value"], memory["source"]) == (4 * GB, "resident and on the GPU")


def test_who_was_not_measured_at_the_load_that_is_asked_for_falls_out() -> None:
    record = choose(candidate("a", loads=["c1", "c8"]), candidate("b", ttft=20, loads=["c1"]), at="c8")

    assert record["winner"] == "a"
    assert row(record, "b")["out"] == "not measured at c8: it completed c1"


def test_without_a_common_load_or_the_named_one_one_line_says_what_there_is() -> None:
    with pytest.raises(UsageError, match=r"a has c1; b has c8; choose one with --at"):
        choose(candidate("a", load="c1"), candidate("b", load="c8"))
    with pytest.raises(UsageError, match=r"--at c9: no candidate completed that load; there are c4"):
        choose(candidate("a"), at="c9")


# -- candidates of run folders


def test_every_model_of_a_run_is_a_candidate_and_its_closing_level_is_none() -> None:
    found = read(level("a"), level("b"), level("a", ttft=900, closing=True))

    candidates = select.candidates([found])

    assert [one.name for one in candidates] == ["a", "b"]
    assert [len(one.sides["c1"].laps) for one in candidates] == [1, 1]
    assert [len(one.levels["c1"]) for one in candidates] == [1, 1]


BOTH: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any], list[str]]] = [
    # two levels of one model, what their runs say; the candidates
    ({}, {"ttft": 220}, {}, ["m"]),
    ({"device": "CPU"}, {"device": "GPU"}, {}, ["m on CPU", "m on GPU"]),
    (
        {"endpoint": "http://box1:8000/v1"},
        {"endpoint": "http://box2:8000/v1"},
        {"target": {"kind": "vllm"}},
        ["m at box1:8000", "m at box2:8000"],
    ),
    # A server that was started for its run is the same on another port.
    (
        {"endpoint": "http://127.0.0.1:41001/v1"},
        {"endpoint": "http://127.0.0.1:41002/v1"},
        {"target_found": "the embedded model, started for this run"},
        ["m"],
    ),
]


@pytest.mark.parametrize(("one", "other", "info", "names"), BOTH)
def test_runs_are_repeats_of_one_candidate_unless_device_or_server_differ(one, other, info, names: list[str]) -> None:
    found = select.candidates([read(level("m", **each), **info) for each in (one, other)])

    assert [each.name for each in found] == names
    assert sum(len(each.sides["c1"].laps) for each in found) == 2


def test_a_candidate_that_completed_nothing_is_out_and_does_not_block_the_load() -> None:
    found = [read(level("good"), level("bad", status="failed"))]

    record = select.choose(select.candidates(found), found)

    assert record["winner"] == "good"
    assert row(record, "bad")["out"] == "not measured at c1: it completed no level"


def test_what_the_server_does_not_say_is_taken_from_models_json() -> None:
    facts = {"m": {"licence": "MIT", "size_mb": 820}}
    found = [read(level("m"), scenario={"model_facts": facts})]

    one = row(select.choose(select.candidates(found), found), "m")

    assert (one["licence"], one["figures"]["disk"]["value"]) == ("MIT", 820e6)
    assert one["figures"]["disk"]["source"] == "as models.json says"


# -- several runs


def test_what_runs_differ_by_widens_the_interval_of_who_was_measured_once_too() -> None:
    steady = [lap(ttft=200, seed=i) for i in range(3)]
    wild = [lap(ttft=ttft, seed=i) for i, ttft in enumerate((100, 200, 400))]

    calm = choose(candidate("twice", steady), candidate("once"))
    rough = choose(candidate("twice", wild), candidate("once"))

    low, high = (row(calm, "once")["figures"]["ttft_p95"][end] for end in ("low", "high"))
    wider = [row(rough, "once")["figures"]["ttft_p95"][end] for end in ("low", "high")]
    assert wider[0] < low / 2
    assert wider[1] > high * 2


# -- what does not compare


def test_another_prompt_set_forbids_a_plain_word() -> None:
    other = lap(info=info("other", prompts={"sha256": "beef"}), run="other")
    record = choose(candidate("a"), candidate("b", [other]))

    [text] = doubts(record, "V8")
    assert record["doubts"][0]["severity"] == "red"
    assert text == "prompts differs between the runs models (5e1f) and other (beef): their figures do not compare"


OWN = {**info()["parameters"], "extra_body": {"cache_prompt": False}}
"""What loadbench adds for a kind of server."""


@pytest.mark.parametrize(
    "own",
    [
        {"target": {"kind": "vllm"}},
        {"target": {"kind": "llama.cpp", "version": "b9"}},
        {"target": {"kind": "vllm"}, "parameters": OWN},
    ],
)
def test_servers_may_differ_since_they_are_chosen_between(own: dict[str, Any]) -> None:
    record = choose(candidate("a"), candidate("b", [lap(info=info("other", **own))]))

    assert doubts(record, "V8") == []


def test_answers_of_other_lengths_are_a_doubt() -> None:
    record = choose(candidate("short", length=20), candidate("long", length=80, ttft=300))

    assert doubts(record, "V5")[0].startswith("answers of short have 20 tokens, of long 80: E2E compares lengths too")


def test_a_red_gate_of_the_winner_comes_first_and_one_of_another_is_a_warning() -> None:
    red = {"warnings": [{"code": "V9", "severity": "red", "text": "others used 80 % of the cores"}]}
    record = choose(candidate("a", level=red), candidate("b", ttft=400, level=red))

    assert [(one["severity"], one["about"]) for one in record["doubts"] if one["code"] == "V9"] == [
        ("red", "a"),
        ("warn", "b"),
    ]
    assert record["doubts"][0]["text"] == "V9 other-load red at c4: others used 80 % of the cores"


def test_a_gate_that_was_red_in_each_repeat_is_told_once() -> None:
    one = candidate("a", [lap(), lap(seed=2), lap(seed=3)])
    texts = ("kept 70 %", "kept 80 %", "kept 90 %")
    levels = [Level(warnings=[Finding(code="V9", severity="red", text=text)]) for text in texts]

    [text] = doubts(choose(replace(one, levels={"c4": levels})), "V9")

    assert text == "V9 other-load red at c4: kept 70 % (and 2 more times)"


def test_memory_of_several_models_in_one_process_is_doubted() -> None:
    records = [{"model": name, "was_loaded": True} for name in "ab"]
    found = [read(level("a"), level("b"), models=records)]

    assert [one.shared for one in select.candidates(found)] == [True, True]


def test_scores_of_two_methods_do_not_count() -> None:
    one, other = candidate("a", quality=5.0), candidate("b", quality=1.0)
    record = choose(one, replace(other, scores=[("judge", other.scores[0][1])]))

    assert "quality" not in row(record, "a")["figures"]
    assert doubts(record, "quality") == ["the runs were scored in different ways: their scores cannot be compared"]


def test_the_runs_are_named_as_evidence() -> None:
    record = select.choose([candidate("a")], [measured("first"), measured("second")])

    assert [run["folder"] for run in record["runs"]] == ["first", "second"]


# -- models.json written back

MODELS = Path(__file__).parents[1] / "scenarios" / "models.json"


def called(name: str, model: str, device: str = "CPU", **figures: Any) -> Candidate:
    """A candidate that was asked for by another name than it has."""
    facts = {"id": model, "name": name, "alias": name, "licence": "MIT", "context": 4096}
    return replace(candidate(model, **figures), device=device, facts=facts)


def test_a_new_file_holds_each_candidate_with_its_figures() -> None:
    record = choose(candidate("a"), candidate("b", ttft=400))

    found = select.updated({}, record)

    assert [found["a"][key] for key in ("capabilities", "size_mb", "licence")] == [["chat"], 1000, "mit"]
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


def test_who_fell_out_is_written_as_such_and_what_a_scenario_said_of_it_is_taken_over() -> None:
    record = choose(candidate("a"), candidate("b", memory=9e9, disk=None), needs=["memory<4GB"])

    found = select.updated({}, record, {"b": {"capabilities": ["chat", "tools"], "size_mb": 7}})

    [measured] = found["b"]["measured"]
    assert (measured["meets_needs"], measured["rank"], measured["chosen"]) == (False, None, False)
    assert (found["b"]["capabilities"], found["b"]["size_mb"]) == (["chat", "tools"], 7)


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


# -- docs/select.md names every field, and what it shows works

TEXT, NAMED = page("select.md")


def test_every_field_of_the_json_and_of_models_json_is_named() -> None:
    golden = Path(__file__).parent / "golden" / "choice"
    records = [json.loads((golden / f"{case}.json").read_bytes()) for case in ("clear", "doubtful", "nobody", "alone")]
    [measured] = select.updated({}, choose(candidate("a")))["a"]["measured"]

    fields = field_names(records, lambda owner, key: key in ("ratios", "log_ratios", "figures"))
    assert {*fields, *measured} - NAMED == set()


def test_every_criterion_is_told_with_its_weight() -> None:
    table = dict(re.findall(r"^\| `(\w+)` \|[^|]*\| ([\d.]+) \|", TEXT, flags=re.MULTILINE))

    assert {name: float(parts) for name, parts in table.items()} == {one.name: one.weight for one in CRITERIA}
    assert list(table) == list(NAMES)


def test_the_help_tells_the_weights() -> None:
    epilog = " ".join((COMMANDS["select",].epilog or "").split())

    assert f"the usual ones are {', '.join(f'{one.weight:g}' for one in CRITERIA)}." in epilog
    assert re.findall(r"(\w+)(?: \([^)]*\))?[,.]", epilog.partition("Criteria: ")[2].partition(" Weights")[0]) == list(
        NAMES
    )


def test_every_need_that_is_shown_is_read() -> None:
    shown = [code for code in re.findall(r"`([a-z]\w*[<>=]+[^`]+)`", TEXT) if "latency" not in code]

    assert {Need.parse(code).name for code in shown} >= {
        "memory",
        "disk",
        "quality",
        "rules",
        "energy",
        "cost",
        "licence",
    }


def test_the_file_of_weights_that_is_shown_is_read() -> None:
    [block] = re.findall(r"```toml\n(.*?)```", TEXT, flags=re.DOTALL)
    found = policy(tomllib.loads(block))

    assert found.licences["apache-2.0"] == 1
    assert [Need.parse(need).name for need in found.needs] == ["ttft_p95", "failed"]


def test_every_figure_that_counts_has_a_criterion() -> None:
    assert {name for one in CRITERIA for name in one.figures} == set(COMPARED)
