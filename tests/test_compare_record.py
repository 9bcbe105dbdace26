"""A whole comparison as one record: what forbids a verdict, what it comes to, what only one side has."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest

from loadbench import metrics, store
from loadbench.compare import NAMES, Group, Terms, compare_models, compare_runs, gather, summary
from loadbench.compare.record import Overall
from loadbench.errors import UsageError
from loadbench.store.summary import Band, Finding
from tests.support.compared import folder
from tests.support.documents import field_names, page


@pytest.fixture
def base(tmp_path: Path) -> Group:
    return group(folder(tmp_path / "base"))


def group(*paths: Path, **more: Any) -> Group:
    return gather([store.read(path) for path in paths], **more)


def red(path: Path, code: str) -> Group:
    """A run with a red gate at each level."""
    run = store.read(path)
    summary = metrics.summary(run)
    for level in summary.levels:
        level.warnings = [Finding(code=code, severity="red", text="for a reason")]
    return gather([run], summaries={run.path: summary})


def words(record: dict[str, Any], level: int = 0) -> dict[str, str]:
    return {verdict["metric"]: verdict["word"] for verdict in record["levels"][level]["verdicts"]}


def test_a_slower_run_is_called_slower_with_its_figures(base: Group, tmp_path: Path) -> None:
    record = compare_runs(base, group(folder(tmp_path / "new", 1.2, seed=2)))

    verdicts = {verdict["metric"]: verdict for verdict in record["levels"][0]["verdicts"]}
    assert record["word"] == "slower"
    assert verdicts["ttft"]["low"] < 1.2 < verdicts["ttft"]["high"]
    assert verdicts["output_tokens_per_s"]["word"] == "slower"
    assert json.loads(json.dumps(record)) == record  # plain values alone


def test_a_red_difference_forbids_every_verdict_and_leaves_the_figures(base: Group, tmp_path: Path) -> None:
    other = folder(tmp_path / "new", 1.2, seed=2, info={"target": {"version": "b200"}})

    record = compare_runs(base, group(other))

    assert record["word"] == "no verdict"
    assert set(words(record).values()) == {"no verdict"}
    assert record["levels"][0]["verdicts"][0]["note"] == "red: V8 server version"
    assert record["levels"][0]["verdicts"][0]["ratio"] == pytest.approx(1.2, rel=0.03)
    assert record["over_levels"] == []


def test_what_is_compared_on_purpose_forbids_nothing(base: Group, tmp_path: Path) -> None:
    other = folder(tmp_path / "new", 1.2, seed=2, info={"target": {"version": "b200"}})

    record = compare_runs(base, group(other), Terms(meant=["server version"]))

    assert record["word"] == "slower"
    assert [(one["what"], one["severity"]) for one in record["differences"]] == [("server version", "note")]


@pytest.mark.parametrize("turned", [False, True])
def test_a_red_gate_of_either_side_forbids_a_verdict(base: Group, tmp_path: Path, turned: bool) -> None:
    new = red(folder(tmp_path / "new", 1.2, seed=2), "V3")

    record = compare_runs(*((new, base) if turned else (base, new)), Terms(metrics=["ttft", "output_tokens_per_s"]))

    assert set(words(record).values()) == {"no verdict"}
    assert f"V3 client-lag of {'BASE' if turned else 'NEW'}" in record["levels"][0]["verdicts"][0]["note"]
    assert record["levels"][0]["gates"][0]["side"] == ("base" if turned else "new")


def test_only_missing_records_take_the_verdict_away_that_more_requests_fail(base: Group, tmp_path: Path) -> None:
    path = folder(tmp_path / "new", seed=5, failing=0.3)
    codes = ("V1", "V2", "V3", "V9", "V10", "V13", "client-starved", "paused", "records", "offered")

    found = {code: words(compare_runs(base, red(path, code), Terms(metrics=["failed"])))["failed"] for code in codes}

    assert found == dict.fromkeys(codes[:-2], "worse") | {"records": "no verdict", "offered": "no verdict"}


def test_a_short_window_forbids_verdicts_on_rates_alone(base: Group, tmp_path: Path) -> None:
    new = red(folder(tmp_path / "new", 1.2, seed=2), "V1")

    found = words(compare_runs(base, new))

    assert {metric for metric, word in found.items() if word == "no verdict"} == {"output_tokens_per_s"}
    assert found["ttft"] == "slower"


def test_failures_forbid_verdicts_on_times_and_not_the_one_on_failures(base: Group, tmp_path: Path) -> None:
    record = compare_runs(base, group(folder(tmp_path / "new", seed=5, failing=0.3)))

    assert words(record)["failed"] == "worse"
    assert words(record)["ttft"] == "no verdict"
    assert record["word"] == "worse"


def test_answers_of_other_lengths_leave_first_tokens_comparable(base: Group, tmp_path: Path) -> None:
    record = compare_runs(base, group(folder(tmp_path / "new", seed=2, tokens=24)))

    assert words(record)["e2e"] == words(record)["output_tokens_per_s"] == "no verdict"
    assert words(record)["ttft"] == words(record)["tpot"] == "same"


def test_one_model_a_side_called_differently_needs_to_be_meant(base: Group, tmp_path: Path) -> None:
    other = group(folder(tmp_path / "new", {"other@c1": 1.2}, seed=2))

    assert compare_runs(base, other)["word"] == "no verdict"
    meant = compare_runs(base, other, Terms(meant=["model"]))
    assert meant["word"] == "slower"
    assert "characters_per_s" in meant["metrics"]
    assert "tpot" not in meant["metrics"]


def test_a_model_that_one_side_has_more_is_no_difference_of_the_others(base: Group, tmp_path: Path) -> None:
    other = group(folder(tmp_path / "new", {"m@c1": 1.0, "m@c2": 1.0, "q@c1": 1.0}, seed=2))

    record = compare_runs(base, other)

    assert record["differences"] == []
    assert words(record)["ttft"] == "same"
    assert record["only_new"] == [{"model": "m", "load": "c2"}, {"model": "q", "load": "c1"}]
    assert record["only_base"] == []


def test_levels_are_summed_up_over_those_that_have_a_verdict(tmp_path: Path) -> None:
    names = ("m@c1", "m@c2", "m@c4")
    base = group(folder(tmp_path / "base", dict.fromkeys(names, 1.0)))
    run = store.read(folder(tmp_path / "new", dict.fromkeys(names, 1.2), seed=2))
    warned = metrics.summary(run)
    warned.levels[1].warnings = [Finding(code="V3", severity="red", text="a busy client")]

    every, some = (
        compare_runs(base, gather([run], summaries=known), Terms(metrics=["ttft"]))
        for known in ({}, {run.path: warned})
    )

    [mean] = every["over_levels"]
    assert (mean["levels"], mean["word"], mean["ratio"]) == (3, "slower", pytest.approx(1.2, rel=0.02))
    assert [level["verdicts"][0]["word"] for level in some["levels"]] == ["slower", "no verdict", "slower"]
    assert [mean["levels"] for mean in some["over_levels"]] == [2]


def test_a_machine_that_throttled_forbids_the_verdicts_of_the_model_it_was_seen_with(tmp_path: Path) -> None:
    levels = dict.fromkeys(("m@c1", "m@c2", "q@c1"), 1.0)
    base = group(folder(tmp_path / "base", levels))
    run = store.read(folder(tmp_path / "new", levels, seed=2))
    warned = metrics.summary(run)
    warned.noise = [Band(model="m", level="m@c1", closing_level="m@c1#2", output_tokens_per_s=0.5, ttft_p50=2.0)]

    record = compare_runs(base, gather([run], summaries={run.path: warned}), Terms(metrics=["ttft"]))

    assert [level["verdicts"][0]["note"] for level in record["levels"]] == [
        *["red: V11 noise-band of NEW"] * 2,
        "",
    ]


def test_a_level_that_stands_out_from_the_mean_is_named(tmp_path: Path) -> None:
    names = ("m@c1", "m@c2", "m@c4", "m@c8")
    base = group(folder(tmp_path / "base", dict.fromkeys(names, 1.0)))
    new = group(folder(tmp_path / "new", {**dict.fromkeys(names, 1.0), "m@c8": 1.2}, seed=2))

    record = compare_runs(base, new, Terms(metrics=["ttft"]))

    assert record["over_levels"][0]["word"] == "slightly slower"
    assert record["word"] == "slower"
    assert [(one["load"], one["word"]) for one in record["exceptions"]] == [("c8", "slower")]


def test_runs_of_one_side_that_differ_among_themselves_are_a_red_difference(tmp_path: Path) -> None:
    paths = [folder(tmp_path / name, seed=i) for i, name in enumerate("ab")]
    mixed = folder(tmp_path / "c", seed=9, info={"parameters": {"max_tokens": 64}})

    record = compare_runs(group(paths[0]), group(paths[1], mixed))

    texts = [one["text"] for one in record["differences"] if one["severity"] == "red"]
    assert any(text.startswith("runs of NEW differ among themselves: max_tokens") for text in texts)


def test_models_of_runs_that_differ_get_no_verdict(tmp_path: Path) -> None:
    both = {"m@c1": 1.0, "q@c1": 1.2}
    paths = [folder(tmp_path / "a", both), folder(tmp_path / "b", both, info={"target": {"version": "b200"}})]

    record = compare_models(group(*paths, name="all"), "m", "q")

    assert record["word"] == "no verdict"
    assert record["levels"][0]["verdicts"][0]["note"] == "red: V8 server version among runs of all"


def test_a_group_of_runs_counts_as_so_many_runs(tmp_path: Path) -> None:
    sides = [
        [
            folder(tmp_path / f"{name}{i}", pace, seed=10 * k + i, began=f"2026-01-01T1{2 * i + k}:00:00Z")
            for i in range(3)
        ]
        for k, (name, pace) in enumerate((("a", 1.0), ("b", 1.2)))
    ]

    (level,) = compare_runs(group(*sides[0]), group(*sides[1]))["levels"]

    assert (level["runs_base"], level["runs_new"], level["interleaved"]) == (3, 3, True)
    assert len(level["verdicts"][0]["by_run"]) == 3


def test_shares_that_nobody_can_tell_do_not_hold_back_the_word(base: Group, tmp_path: Path) -> None:
    record = compare_runs(base, group(folder(tmp_path / "new", seed=3)), Terms(metrics=["ttft", "failed"]))

    assert words(record) == {"ttft": "same", "failed": "can't tell"}
    assert record["word"] == "same"


def test_attainment_is_judged_where_both_sides_were_held_to_the_same_bounds(tmp_path: Path) -> None:
    held = {"scenario": {"slo": ["ttft_p95=400ms"]}}
    paths = [folder(tmp_path / name, seed=i, info=held) for i, name in enumerate("ab")]
    other = folder(tmp_path / "c", seed=3, info={"scenario": {"slo": ["ttft_p95=250ms"]}})

    assert "attainment" in compare_runs(group(paths[0]), group(paths[1]))["metrics"]
    assert "attainment" not in compare_runs(group(paths[0]), group(other))["metrics"]
    given = [group(path, slo=["ttft_p95=300ms"]) for path in (paths[0], other)]
    assert "attainment" in compare_runs(*given)["metrics"]


def test_models_of_one_run_are_judged_by_characters_and_without_tpot(tmp_path: Path) -> None:
    both = group(folder(tmp_path / "run", {"m@c1": 1.0, "q@c1": 1.2, "q@c2": 1.0}))

    record = compare_models(both, "m", "q")

    assert (record["kind"], record["base"]["name"], record["new"]["name"]) == ("models", "m", "q")
    assert record["word"] == "slower"
    assert {"characters_per_s", "output_tokens_per_s"} <= set(words(record))
    assert "tpot" not in words(record)
    assert record["only_new"] == [{"model": "q", "load": "c2"}]


def test_the_summary_of_a_run_has_its_further_models_against_the_first(tmp_path: Path) -> None:
    several = summary(store.read(folder(tmp_path / "run", {"m@c1": 1.0, "q@c1": 1.2, "p@c1": 1.0})))
    alone = summary(store.read(folder(tmp_path / "one")))

    assert [(one["base"]["name"], one["new"]["name"]) for one in several.models_compared] == [("m", "q"), ("m", "p")]
    assert alone.models_compared == []


def test_an_unknown_metric_is_one_line(base: Group, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no verdict on 'speed'"):
        compare_runs(base, group(folder(tmp_path / "new")), Terms(metrics=["speed"]))


# -- docs/compare.md names every field

TEXT, NAMED = page("compare.md")
GOLDEN = Path(__file__).parent / "golden" / "comparison"


def test_every_field_of_the_json_is_named() -> None:
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(GOLDEN.glob("*.json"))]
    # Both values of a difference may be by name, as finish reasons.
    told = field_names(records, lambda owner, key: "what" in owner and key in ("base", "new"))

    assert told > {"decisive", "exceptions", "interleaved", "p_value", "only_new", "server_version"}
    assert told - NAMED == set()


def test_every_word_is_explained() -> None:
    table = " ".join(re.findall(r"^\| ([^|`]+) \|", TEXT, flags=re.MULTILINE))

    assert [word for word in get_args(Overall) if word not in table] == []


def test_everything_that_may_be_compared_on_purpose_is_named() -> None:
    assert [name for name in NAMES if f"`{name}`" not in TEXT] == []


def test_the_docs_of_the_summary_lead_here() -> None:
    summary, _ = page("summary.md")

    assert "`models_compared`" in summary
    assert "[compare.md](compare.md)" in summary
