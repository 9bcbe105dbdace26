"""The tables of a run, and the facts above them: what is shown, what is left out, what the notes say."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from loadbench import report
from loadbench.report import breakdowns, levels, provenance, tables
from loadbench.report.document import Table
from loadbench.report.html import plots
from loadbench.store.schema import RunFacts
from loadbench.store.summary import Level, Model, PromptRow, Summary
from tests.support.summaries import on_terminal, summary_of, with_levels

Plain = dict[str, Any]


def read(case: str, **changes: Any) -> Summary:
    """A golden summary, with the same changes in each level."""
    return levels.read(with_levels(summary_of(case), **changes))


def with_models(**changes: Any) -> Summary:
    summary = summary_of("devices")
    for model in summary["models"]:
        model.update(changes)
    return levels.read(summary)


def heads(table: Table | None) -> list[str]:
    assert table is not None
    return [column.name for column in table.columns]


def column(table: Table | None, name: str) -> list[str]:
    at = heads(table).index(name)
    assert table is not None
    return [row[at].text for row in table.rows]


def rendered(summary: Plain) -> str:
    return " ".join(on_terminal(summary, 100).split())


# -- what is unknown


@pytest.mark.parametrize("case", ["closed_loop", "tiny", "open_loop"])
def test_a_run_without_samples_has_none_of_their_tables(case: str) -> None:
    summary = read(case)

    for table in (breakdowns.machine, breakdowns.energy, breakdowns.server, breakdowns.devices):
        assert table(summary) == []
    assert breakdowns.cold_start(summary) is breakdowns.memory(summary) is None


def test_a_column_that_nobody_knows_is_left_out_and_a_single_unknown_cell_is_a_dash() -> None:
    gpu, cpu = breakdowns.machine(read("devices"))

    assert column(cpu, "GPU") == ["-", "-"]
    assert "GPU" in heads(gpu)
    assert "GPU" not in heads(breakdowns.machine(read("devices", gpu_utilisation_mean=None))[0])
    assert "energy" not in heads(breakdowns.energy(read("devices", energy_j=None, j_per_1000_tokens=None))[0])


def test_a_model_whose_size_alone_is_listed_has_no_table_of_memory() -> None:
    names = ("before_load", "after_load", "peak", "after_unload")
    without = {f"memory_{name}_bytes": None for name in names} | {"disk_bytes": None, "gpu_memory_peak_bytes": None}

    assert breakdowns.memory(with_models(**without)) is None


# -- times, and what stars mean


def test_each_starred_figure_has_its_reason_beneath() -> None:
    """Of 72 requests that resemble each other, beside levels of 60: neither reason stands for the other."""
    few = {"n": 60, "p50": 300.0, "p95": 500.0, "ci95": {"p50": [290.0, 310.0], "p95": None}}
    alike = {"n": 72, "p50": 2500.0, "p95": 2800.0, "ci95": {"p50": [2400.0, 2600.0], "p95": None}}
    summary = summary_of("closed_loop")
    rows = [{**level, "ttft_ms": ttft} for level, ttft in zip(summary["levels"][:2], (few, alike), strict=True)]
    table = tables.headline(levels.read({**summary, "levels": rows}))[0]

    assert [cell.marked for row in table.rows for cell in row if cell.text in ("500", "2,800")] == [True, True]
    assert "* p95 needs ≥ 72 requests, has 60" in table.notes
    assert "* p95: no 95% interval; 72 requests resemble each other too much" in table.notes


def test_open_loop_counts_ttft_from_due() -> None:
    level = levels.of(read("open_loop"))[3]

    assert level.ttft_ms
    assert level.ttft_from_due_ms
    assert levels.ttft(level).p50 == level.ttft_from_due_ms.p50 != level.ttft_ms.p50


def mixed(*names: str | None) -> Summary:
    """Levels with such gaps; None of a level without one."""
    summary = summary_of("closed_loop")
    rows = []
    for level, name in zip(summary["levels"], names, strict=False):
        gaps = level["itl_ms"] if name else {"n": 0, "p50": None}
        rows.append({**level, "itl_name": name or "inter-event", "itl_ms": gaps})
    return levels.read({**summary, "levels": rows})


def test_a_level_without_gaps_renames_none_of_the_others() -> None:
    table = tables.gaps(mixed("inter-token", "inter-token", None))[0]

    assert (table.title, table.columns[1].name) == ("Inter-token latency", "ITL p50")
    assert "IET" not in " ".join(table.notes)
    assert plots.kinds(mixed("inter-token", None))[1].name == "ITL"


def test_gaps_of_two_kinds_are_named_level_by_level() -> None:
    table = tables.gaps(mixed("inter-token", "inter-event", None))[0]

    assert [row[1].text for row in table.rows] == ["ITL", "IET", "-"]
    assert table.columns[2].name == "gap p50"
    assert plots.kinds(mixed("inter-token", "inter-event"))[1].name == "ITL/IET"


def test_a_column_of_what_happened_in_few_runs_is_there_only_then() -> None:
    cached = with_levels(summary_of("scaling"), cached_share=0.43)

    assert heads(tables.answers(read("devices"))[0])[-2:] == ["retried", "recovered"]
    assert {"retried", "cached"}.isdisjoint(heads(tables.answers(read("closed_loop"))[0]))
    assert "cached: share of the input tokens" in rendered(cached)
    assert " 43% " in rendered(cached)


# -- prompts


def prompt(name: str, e2e_ms: float) -> PromptRow:
    return PromptRow(
        prompt=name,
        n=1,
        ttft_median_ms=None,
        e2e_median_ms=e2e_ms,
        e2e_worst_ms=None,
        output_tokens_median=None,
        outliers=0,
    )


def test_prompts_are_listed_slowest_first_and_what_is_left_out_is_said() -> None:
    [level, *_] = read("closed_loop", prompts_left_out=5).levels
    table = tables.prompts(level, 3)
    whole = tables.prompts(Level(streamed=False, prompts=[prompt("a", 1.0), prompt("b", 9.0)]), 2)

    assert column(table, "prompt") == ["proof", "weather", "haiku"]
    assert table is not None
    assert table.notes == ("14 more prompts: see requests.jsonl",)
    assert column(whole, "prompt") == ["b", "a"]


# -- whole answers


def test_whole_answers_lead_with_e2e_and_show_nothing_that_they_lack() -> None:
    [table] = tables.headline(read("whole_answers"))
    markdown = report.FORMATS["markdown"](summary_of("whole_answers")).partition("<summary>Metric definitions")[0]

    assert table.title == "E2E and throughput"
    assert heads(table)[3:6] == ["E2E p50", "E2E p95", "E2E p99"]
    assert "answers were asked for whole: no first token, no gaps between tokens" in table.notes
    assert heads(breakdowns.cold_start(read("whole_answers"))) == ["model", "E2E first", "E2E warm"]
    assert not any(name in markdown.replace("ttft", "") for name in ("Inter-token", "TTFT", "TTFE"))


def test_an_open_loop_of_whole_answers_does_not_speak_of_ttft() -> None:
    whole = {"n": 0, "p50": None, "p95": None}
    summary = with_levels(summary_of("open_loop"), streamed=False, ttft_ms=whole, ttft_from_due_ms=whole, prompts=[])

    assert "TTFT" not in on_terminal(summary, 120)


# -- what more load buys


def test_a_peak_beyond_the_levels_measured_is_not_told() -> None:
    summary = summary_of("scaling")
    law = summary["scaling"][0]["usl"]
    law |= {"peak_n": None, "peak_x_per_s": None}
    law["ci95"]["peak_n"] = [51.2, None]

    assert "> 63.4 [51.2–> 63.4]" in report.FORMATS["markdown"](summary).replace("&gt;", ">")


def test_only_an_objective_that_was_crossed_is_called_so() -> None:
    summary = summary_of("scaling")
    assert "first objective to be crossed: ttft_p95<=800ms" in rendered(summary)
    assert "no scalability law of serial-1b: it needs 6 loads or more, has 4" in rendered(summary)

    for curve in summary["scaling"]:
        curve["knees"]["slo"]["relation"] = ">"

    assert "to be crossed" not in rendered(summary)


def test_a_model_at_one_load_has_no_knees_and_no_law() -> None:
    summary = summary_of("scaling")
    summary["scaling"] = [one | {"levels": one["levels"][:1]} for one in summary["scaling"]]
    found = levels.read(summary)

    assert (tables.scaling(found), tables.knees(found), tables.law(found)) == ([], None, None)


# -- cold start


def test_a_first_answer_is_called_cold_only_where_its_load_was_seen() -> None:
    summary = summary_of("devices")
    summary["models"][1]["first"]["cold"] = False
    summary["models"][0]["idle"]["error"] = "timeout_first_token"

    table = breakdowns.cold_start(levels.read(summary))

    assert column(table, "TTFT cold") == ["1,910", "-"]
    assert column(table, "TTFT first") == ["-", "702"]
    assert column(table, "after idle") == ["failed", "402"]
    assert table is not None
    assert table.notes[2:] == (
        "after idle = after 60 s of silence",
        "kept warm = after 60 s with a one-token request every 20 s",
    )


def test_a_load_that_failed_says_so_and_why() -> None:
    table = breakdowns.cold_start(with_models(load_s=None, load_source=None, load_error="not enough memory"))

    assert column(table, "load") == ["failed", "failed"]
    assert table is not None
    assert any("not enough memory" in note for note in table.notes)


# -- machine and energy


def test_gpu_memory_of_the_whole_device_is_called_so() -> None:
    [table, *_] = breakdowns.machine(read("devices", gpu_memory_source="device"))

    assert any("all that was in use on the device" in note for note in table.notes)


def test_throttling_and_power_are_columns_where_they_changed_and_notes_where_they_did_not() -> None:
    summary = summary_of("devices")
    summary["levels"][1]["power"] = "changed"
    cool = read("devices", throttled=False)

    assert column(breakdowns.energy(read("devices"))[0], "throttled") == ["no", "no", "yes"]
    assert "throttled" not in heads(breakdowns.energy(cool)[0])
    assert "neither CPU nor GPU was throttled" in breakdowns.machine(cool)[0].notes
    assert column(breakdowns.energy(levels.read(summary))[0], "power") == ["mains", "changed", "mains"]
    assert "power: mains" in breakdowns.machine(read("devices"))[0].notes


# -- devices


def test_a_device_that_a_name_alone_tells_is_called_so() -> None:
    [table] = breakdowns.devices(read("devices", device_by_name=True))

    assert column(table, "device") == ["GPU by its name, not seen"] * 3 + ["CPU by its name, not seen"] * 2 + ["NPU"]
    assert "a device known only from the model's name was not observed" in table.notes[0]


def test_an_absent_variant_is_found_by_the_name_that_the_user_wrote() -> None:
    summary = with_models(name="qwen-small")
    summary.absent = [msgspec.structs.replace(row, name="qwen-small") for row in summary.absent]

    assert column(breakdowns.devices(summary)[0], "device")[-1] == "NPU"


def test_one_device_beside_an_absent_one_is_a_table_and_alone_it_is_none() -> None:
    summary = read("devices")
    summary.levels = summary.levels[:3]
    assert len(breakdowns.devices(summary)) == 1

    summary.absent = []

    assert breakdowns.devices(summary) == []
    assert breakdowns.devices(read("closed_loop")) == []  # models of different names are no devices of one


def test_a_device_that_fell_back_shows_what_ran_and_what_the_user_wrote() -> None:
    level = msgspec.convert({"asked_device": "GPU", "device": "GPU", "ran": {"device": "CPU"}}, Level)

    assert breakdowns.device_words(level) == "CPU, asked GPU"


# -- provenance


def run_facts(**facts: Any) -> RunFacts:
    return msgspec.convert(facts, RunFacts)


def test_what_was_watched_and_what_could_not_be_is_told() -> None:
    remote = dict(provenance.facts(read("whole_answers")))
    samples = {"local": True, "gpu_reason": "no NVIDIA driver", "cpu_energy_source": "rapl"}

    assert "telemetry" not in remote
    assert provenance.unwatched(run_facts(telemetry=samples)) == (
        "memory and CPU of the server: its process was not found; GPU: no NVIDIA driver"
    )
    for said in (provenance.watched, provenance.unwatched, provenance.assumed):
        assert said(run_facts()) == ""


def test_what_made_up_prompts_have_in_common_is_told() -> None:
    summary = summary_of("scaling")
    summary["run"]["scenario"] = {**(summary["run"].get("scenario") or {}), "max_tokens": 8, "shared_prefix": 0.5}

    assert "50% of each in common" in rendered(summary)


@pytest.mark.parametrize(
    ("ran", "served_as", "text"),
    [
        ({"id": "m", "device": "GPU", "execution_provider": None}, None, ""),  # as listed
        ({"id": "m", "device": "CPU", "execution_provider": None}, None, "m: on CPU, asked for GPU"),
        ({"id": "n:1", "device": "CPU", "execution_provider": "X"}, None, "m: as n:1, on CPU, X, asked for GPU"),
        (None, "m", ""),
        (None, "m-v2", "m: answers say m-v2"),
    ],
)
def test_what_ran_is_told_where_it_is_not_what_was_listed(ran: Plain | None, served_as: str | None, text: str) -> None:
    model = {"id": "m", "device": "GPU", "asked_device": "GPU", "ran": ran, "served_as": served_as}

    assert provenance.ran(msgspec.convert(model, Model)) == text


# -- prefill, and what the model thought

MEDIANS = dict.fromkeys(("ttft_median_ms", "e2e_median_ms", "e2e_worst_ms", "output_tokens_median", "outliers"))
PROMPTS = [{"prompt": f"p{n}", "n": 5, **MEDIANS} for n in range(12)]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"cached_share": None, "prompts": PROMPTS}, "prompts repeat, and the server does not say what it caches"),
        ({"cached_share": 0.5, "prompts": PROMPTS}, "input that the server took from its cache is not counted"),
    ],
)
def test_prefill_says_what_it_assumes_of_a_cache(changes: dict[str, Any], says: str) -> None:
    [*_, found] = tables.prefill(read("closed_loop", **changes))

    assert heads(found)[:3] == ["level", "prefill", "per user"]
    assert len([note for note in found.notes if note.startswith(says)]) == 1


def test_a_cache_that_had_nothing_to_answer_is_no_matter() -> None:
    [*_, found] = tables.prefill(read("closed_loop", cached_share=0.0, prompts=PROMPTS))

    assert not [note for note in found.notes if "cache" in note]


def test_thinking_has_a_table_only_where_a_model_reasons() -> None:
    [found] = tables.thinking(read("closed_loop"))

    assert found.model.startswith("qwen")
    assert column(found, "no answer") == ["0", "0", "0", "2"]
    assert tables.thinking(read("closed_loop", reasoned=0)) == []
    assert tables.thinking(read("tiny")) == tables.prefill(read("tiny")) == []  # of an earlier version


def test_a_cost_per_thousand_of_an_earlier_version_is_printed_per_million() -> None:
    [found] = breakdowns.energy(read("whole_answers"))

    assert column(found, "cost") == ["0.400", "0.0804"]
