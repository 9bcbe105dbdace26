"""Cold starts, memory, energy, devices, the server's own metrics: what is shown, what is left out, what is said."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from loadbench import report
from loadbench.report import breakdowns, costs, headline, provenance, tables
from loadbench.report.document import Table
from tests.support.summaries import on_terminal, summary_of, with_levels


def heads(table: Table | None) -> list[str]:
    assert table is not None
    return [column.name for column in table.columns]


def column(table: Table | None, name: str) -> list[str]:
    at = heads(table).index(name)
    assert table is not None
    return [row[at].text for row in table.rows]


def with_models(**changes: Any) -> dict[str, Any]:
    summary = summary_of("devices")
    for model in summary["models"]:
        model.update(changes)
    return summary


# -- what is not known


@pytest.mark.parametrize("case", ["closed_loop", "tiny", "open_loop"])
def test_a_run_without_samples_has_none_of_their_tables(case: str) -> None:
    summary = summary_of(case)

    assert costs.machine(summary) == costs.energy(summary) == costs.server(summary) == breakdowns.devices(summary) == []
    assert costs.cold_start(summary) is costs.memory(summary) is None


def test_a_column_that_nobody_knows_is_left_out_and_a_single_unknown_cell_is_a_dash() -> None:
    gpu, cpu = costs.machine(summary_of("devices"))
    assert column(cpu, "GPU") == ["-", "-"]

    without = with_levels(summary_of("devices"), gpu_utilisation_mean=None)

    assert "GPU" in heads(gpu)
    assert "GPU" not in heads(costs.machine(without)[0])


def test_an_unknown_is_never_a_zero() -> None:
    summary = with_levels(summary_of("devices"), energy_j=None, j_per_1000_tokens=None)

    assert "energy" not in heads(costs.energy(summary)[0])


def test_a_model_whose_size_alone_is_listed_has_no_table_of_memory() -> None:
    names = ("before_load", "after_load", "peak", "after_unload")
    summary = with_models(
        **{f"memory_{name}_bytes": None for name in names}, disk_bytes=None, gpu_memory_peak_bytes=None
    )

    assert costs.memory(summary) is None


# -- cold start


def test_a_first_answer_is_called_cold_only_where_its_load_was_seen() -> None:
    summary = summary_of("devices")
    summary["models"][1]["first"]["cold"] = False

    table = costs.cold_start(summary)

    assert column(table, "TTFT cold") == ["1,910", "-"]
    assert column(table, "TTFT first") == ["-", "702"]


def test_a_load_that_failed_says_so_and_why() -> None:
    table = costs.cold_start(with_models(load_s=None, load_source=None, load_error="not enough memory"))

    assert table is not None
    assert column(table, "load") == ["failed", "failed"]
    assert any("not enough memory" in note for note in table.notes)


def test_a_request_that_failed_after_a_pause_says_so() -> None:
    summary = summary_of("devices")
    summary["models"][0]["idle"]["error"] = "timeout_first_token"

    assert column(costs.cold_start(summary), "after idle") == ["failed", "402"]


def test_pauses_are_told_with_their_length() -> None:
    table = costs.cold_start(summary_of("devices"))

    assert table is not None
    assert table.notes[2:] == (
        "after idle = after 60 s of silence",
        "kept warm = after 60 s with a one-token request every 20 s",
    )


def test_whole_answers_start_by_their_e2e() -> None:
    assert heads(costs.cold_start(summary_of("whole_answers"))) == ["model", "E2E first", "E2E warm"]


# -- energy


def test_declared_energy_is_called_declared_with_its_watts() -> None:
    [table] = costs.energy(summary_of("whole_answers"))

    assert column(table, "energy of") == ["declared", "declared"]
    assert "declared: 350 W times the time that the level took; nobody measured it" in table.notes


def test_measured_energy_says_of_what_and_what_is_in_it() -> None:
    gpu, cpu = costs.energy(summary_of("devices"))

    assert (set(column(gpu, "energy of")), set(column(cpu, "energy of"))) == ({"GPU + CPU"}, {"CPU"})
    assert any("idle power and other programs included" in note for note in gpu.notes)


def test_gpu_memory_of_the_whole_device_is_called_so() -> None:
    summary = with_levels(summary_of("devices"), gpu_memory_source="device")

    assert any("all that was used on the device" in note for note in costs.machine(summary)[0].notes)


def test_throttling_is_a_column_where_it_happened_and_a_note_where_it_did_not() -> None:
    assert column(costs.energy(summary_of("devices"))[0], "throttled") == ["no", "no", "yes"]

    cool = with_levels(summary_of("devices"), throttled=False)

    assert "throttled" not in heads(costs.energy(cool)[0])
    assert "neither CPU nor GPU was throttled" in costs.machine(cool)[0].notes


def test_a_power_source_is_a_column_where_it_changed() -> None:
    summary = summary_of("devices")
    summary["levels"][1]["power"] = "changed"

    assert column(costs.energy(summary)[0], "power") == ["mains", "changed", "mains"]
    assert "power: mains" in costs.machine(summary_of("devices"))[0].notes


# -- the server's own metrics


def test_what_the_server_counted_stands_beside_what_we_counted_over_the_same_time() -> None:
    [table] = costs.server(summary_of("whole_answers"))

    assert list(zip(column(table, "server says"), column(table, "we measured"), strict=True)) == [
        ("25.4", "25.3"),
        ("48.6", "48.4"),
    ]


# -- devices


def test_devices_stand_side_by_side_and_absent_variants_are_marked() -> None:
    [table] = breakdowns.devices(summary_of("devices"))

    assert table.title == "Devices side by side: qwen2.5-0.5b"
    assert column(table, "device") == ["GPU webgpu"] * 3 + ["CPU"] * 2 + ["NPU"]
    assert column(table, "level")[-1] == "absent"
    assert "absent: NPU: qwen2.5-0.5b is for GPU, CPU, not for NPU" in table.notes


def test_a_device_that_only_a_name_tells_is_told_so_and_not_judged() -> None:
    summary = summary_of("devices")
    told = [dict(level, device_by_name=True) for level in summary["levels"]]
    [table] = breakdowns.devices({**summary, "levels": told})

    assert column(table, "device") == ["GPU by its name, not seen"] * 3 + ["CPU by its name, not seen"] * 2 + ["NPU"]
    assert "a device told by the model's name alone was not seen" in table.notes[0]
    assert " on GPU" not in headline.carried(told[:3])


def test_an_absent_variant_is_found_by_the_name_that_was_asked_for() -> None:
    summary = with_models(name="qwen-small")
    summary["absent"][0]["name"] = "qwen-small"

    assert column(breakdowns.devices(summary)[0], "device")[-1] == "NPU"


def test_one_device_beside_an_absent_one_is_a_table_and_alone_it_is_none() -> None:
    summary = summary_of("devices")
    summary["levels"] = summary["levels"][:3]
    assert len(breakdowns.devices(summary)) == 1

    summary["absent"] = []

    assert breakdowns.devices(summary) == []


def test_models_of_different_names_are_no_devices_of_one() -> None:
    assert breakdowns.devices(summary_of("closed_loop")) == []


def test_a_device_that_fell_back_shows_what_ran_and_what_was_asked() -> None:
    level = {"asked_device": "GPU", "device": "GPU", "ran": {"device": "CPU"}}

    assert breakdowns.device_words(level) == "CPU, asked GPU"


# -- how many users


def levels_of(*loads: tuple[float, bool | None], **changes: Any) -> list[dict[str, Any]]:
    """Levels with one bound each, met or not."""
    return [
        {"concurrency": n, "slo": [{"bound": "ttft_p95=800ms", "attained": met}], "warnings": [], **changes}
        for n, met in loads
    ]


CARRIED = [
    (levels_of((1, True), (4, True), (8, False)), "carries 4 users within ttft_p95=800ms, 8 are too many"),
    (levels_of((1, True), (4, False)), "carries 1 user within ttft_p95=800ms, 4 are too many"),
    (levels_of((1, True), (4, True)), "carries 4 users within ttft_p95=800ms, the most that was measured"),
    (
        levels_of((1, False), (2, False), (4, False)),
        "carries none of the levels measured (1, 2 or 4 users) within ttft_p95=800ms",
    ),
    # a higher load that holds again proves nothing
    (levels_of((8, True), (4, False), (1, True)), "carries 1 user within ttft_p95=800ms, 4 are too many"),
    # each repeat must hold
    (levels_of((4, True), (4, False), (1, True)), "carries 1 user within ttft_p95=800ms, 4 are too many"),
    (levels_of((1, None), (4, True)), "whether it keeps within ttft_p95=800ms is not known"),
    # one repeat missed a bound, which of the other is not known
    (levels_of((1, True), (4, None), (4, False)), "carries 1 user within ttft_p95=800ms, 4 are too many"),
    (levels_of((1, True), (4, False), (8, None)), "carries 1 user within ttft_p95=800ms, 4 are too many"),
    (
        levels_of((2, True), ran={"device": "GPU"}),
        "carries 2 users on GPU within ttft_p95=800ms, the most that was measured",
    ),
    ([{"concurrency": 1, "slo": []}], ""),
    (levels_of((1, True), status="interrupted"), ""),
]


@pytest.mark.parametrize(("rows", "said"), CARRIED)
def test_how_many_users_a_model_carries_is_said_in_words(rows: list[dict[str, Any]], said: str) -> None:
    assert headline.carried(rows) == said


def test_an_open_loop_carries_requests_per_second() -> None:
    rows = [
        level | {"request_rate_per_s": level["concurrency"], "concurrency": None}
        for level in levels_of((0.5, True), (2, False))
    ]

    assert headline.carried(rows) == "carries 0.5 req/s within ttft_p95=800ms, 2 are too many"


@pytest.mark.parametrize(
    ("code", "severity", "hedge"),
    [
        ("V1", "red", ", by figures that are in doubt (V1 short-window red)"),
        ("V12", "warn", ", by few requests"),
        ("V1", "warn", ""),
    ],
)
def test_doubt_at_the_levels_that_decide_hedges_what_is_carried(code: str, severity: str, hedge: str) -> None:
    rows = levels_of((1, True), (4, True), (8, False))
    rows[1]["warnings"] = [{"code": code, "severity": severity}]

    assert headline.carried(rows) == f"carries 4 users within ttft_p95=800ms, 8 are too many{hedge}"


def test_doubt_at_a_level_that_decides_nothing_hedges_nothing() -> None:
    rows = levels_of((1, True), (4, True), (8, False))
    rows[0]["warnings"] = [{"code": "V1", "severity": "red"}]

    assert headline.carried(rows).endswith("8 are too many")


# -- whole answers


def test_whole_answers_lead_with_e2e_in_table_and_sentence() -> None:
    summary = summary_of("whole_answers")
    [table] = tables.headline(summary)

    assert table.title == "E2E and throughput"
    assert heads(table)[3:6] == ["E2E p50", "E2E p95", "E2E p99"]
    assert "answers were asked for whole: no first token, no gaps between tokens" in table.notes
    assert "E2E p95 grows from 2.15 s" in headline.lines(summary)[0].text


def test_whole_answers_show_no_table_and_no_column_of_what_they_lack() -> None:
    rendered = report.FORMATS["markdown"](summary_of("whole_answers")).partition("<summary>Definitions")[0]

    assert "Gaps between" not in rendered
    assert "TTFT" not in rendered.replace("ttft", "")
    assert "TTFE" not in rendered


def test_slowest_prompts_of_whole_answers_are_those_with_the_longest_e2e() -> None:
    level = {
        "streamed": False,
        "prompts": [{"prompt": name, "n": 1, "e2e_median_ms": ms} for name, ms in (("a", 1.0), ("b", 9.0))],
    }

    assert column(tables.prompts(level, 2), "prompt") == ["b", "a"]


def test_an_open_loop_of_whole_answers_does_not_speak_of_ttft() -> None:
    whole = {"n": 0, "p50": None, "p95": None}
    summary = with_levels(summary_of("open_loop"), streamed=False, ttft_ms=whole, ttft_from_due_ms=whole, prompts=[])

    assert "TTFT" not in on_terminal(summary, 120)


# -- retries


def test_retries_are_shown_only_where_there_were_any() -> None:
    assert heads(tables.answers(summary_of("devices"))[0])[-2:] == ["retried", "recovered"]
    assert "retried" not in heads(tables.answers(summary_of("closed_loop"))[0])


# -- provenance


def facts(summary: dict[str, Any]) -> dict[str, str]:
    return dict(provenance.facts(summary))


def test_a_server_on_another_machine_says_why_there_is_no_memory_and_no_energy() -> None:
    found = facts(summary_of("whole_answers"))

    assert found["not known"] == "memory, CPU and energy of the server: it is on another machine"
    assert found["assumed"].startswith("350 W under load where nothing was measured")
    assert "watched" not in found


def test_what_was_watched_and_by_what_is_told() -> None:
    said = facts(summary_of("devices"))["watched"]

    assert said == "this machine, server process 4711, GPU by NVML, CPU energy by RAPL, every 1 s"


def test_what_could_not_be_watched_is_told_with_its_reason() -> None:
    samples = {
        "local": True,
        "server_pid": None,
        "gpu_source": None,
        "gpu_reason": "no NVIDIA driver",
        "cpu_energy_source": "rapl",
    }

    said = provenance.unwatched({"telemetry": samples})

    assert said == "memory and CPU of the server: its process was not found; GPU: no NVIDIA driver"


def test_a_run_without_samples_says_nothing_of_them() -> None:
    assert (provenance.watched({}), provenance.unwatched({"telemetry": None}), provenance.assumed({})) == ("", "", "")


RAN = [
    ({"id": "m", "device": "GPU", "execution_provider": None}, None, ""),  # as listed
    ({"id": "m", "device": "CPU", "execution_provider": None}, None, "m: on CPU, asked for GPU"),
    ({"id": "m-cpu:1", "device": "CPU", "execution_provider": "X"}, None, "m: as m-cpu:1, on CPU, X, asked for GPU"),
    (None, "m", ""),
    (None, "m-v2", "m: answers say m-v2"),
]


@pytest.mark.parametrize(("what", "served_as", "said"), RAN)
def test_what_ran_is_told_where_it_is_not_what_was_listed(
    what: dict[str, Any] | None, served_as: str | None, said: str
) -> None:
    assert (
        provenance.ran({"id": "m", "device": "GPU", "asked_device": "GPU", "ran": what, "served_as": served_as}) == said
    )


# -- csv


def rows_of(case: str) -> dict[tuple[str, str, str], tuple[str, str]]:
    rows = csv.DictReader(io.StringIO(report.FORMATS["csv"](summary_of(case))))
    return {
        (row["level"] or row["model"], row["metric"], row["statistic"]): (row["value"], row["unit"]) for row in rows
    }


def test_csv_has_the_cost_of_a_level_with_units_and_sources() -> None:
    found = rows_of("devices")
    level = "qwen2.5-0.5b-instruct-generic-gpu:4@c8"

    assert found[level, "energy_j", "gpu+cpu"] == ("10900.0", "J")
    assert found[level, "server_memory_peak_bytes", "value"] == ("1401000000", "bytes")
    assert found[level, "throttled", "value"] == ("1", "flag")
    assert found[level, "gpu_memory_peak_bytes", "server"] == ("1260000000", "bytes")
    assert rows_of("whole_answers")["qwen3-4b@c2", "energy_j", "declared"] == ("25200.0", "J")


def test_csv_has_rows_of_a_model_without_a_level() -> None:
    found = rows_of("devices")
    model = "qwen2.5-0.5b-instruct-generic-cpu:4"

    assert found[model, "load_s", "value"] == ("1.874", "s")
    assert found[model, "first.ttft_ms", "value"] == ("702.5", "ms")
    assert found[model, "first.cold", "value"] == ("1", "flag")
    assert (model, "gpu_memory_peak_bytes", "value") not in found
