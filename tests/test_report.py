"""The reports: golden files for whole ones, and what must hold for any.

After a wanted change: `LOADBENCH_UPDATE_GOLDEN=1 pytest tests/test_report.py`, then review the diff of tests/golden/.
The .json files there are summaries made by hand; the others are what the reports say about them.
"""

from __future__ import annotations

import copy
import csv
import doctest
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from loadbench import report
from loadbench.errors import StoreError
from loadbench.report import clean, headline, levels, notes, text, units
from loadbench.report import json as json_report
from loadbench.report.breakdowns import prompts

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.stem for path in GOLDEN.glob("*.json"))
RENDERED = {
    "80.txt": lambda summary: text.render(summary, 80),
    "120.txt": lambda summary: text.render(summary, 120),
    "md": report.FORMATS["markdown"],
    "csv": report.FORMATS["csv"],
}
ESCAPE = "\x1b"


def summary_of(case: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GOLDEN / f"{case}.json").read_text(encoding="utf-8"))
    return found


def with_levels(summary: dict[str, Any], **changes: Any) -> dict[str, Any]:
    changed = copy.deepcopy(summary)
    for level in changed["levels"]:
        level.update(changes)
    return changed


def sentence(summary: dict[str, Any]) -> str:
    return headline.sentences(summary)[0].text


@pytest.mark.parametrize("kind", RENDERED)
@pytest.mark.parametrize("case", CASES)
def test_a_summary_reads_as_its_golden_file(case: str, kind: str) -> None:
    golden = GOLDEN / f"{case}.{kind}"
    rendered = RENDERED[kind](summary_of(case))
    if os.environ.get("LOADBENCH_UPDATE_GOLDEN"):
        golden.write_bytes(rendered.encode())

    assert rendered == golden.read_bytes().decode()


@pytest.mark.parametrize("module", [clean, json_report, units], ids=lambda module: module.__name__)
def test_the_examples_of_the_docstrings_hold(module: Any) -> None:
    assert doctest.testmod(module).failed == 0


# A reader on a terminal


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
@pytest.mark.parametrize("case", CASES)
def test_no_line_is_wider_than_the_terminal(case: str, width: int) -> None:
    longest = max(text.render(summary_of(case), width).splitlines(), key=len)

    assert len(longest) <= width, longest


@pytest.mark.parametrize("width", [80, 100, 120])
def test_no_figure_of_the_headline_is_cut_or_broken(width: int) -> None:
    # Times of six digits with intervals: the widest that a level of 15 minutes can show.
    summary = with_levels(summary_of("closed_loop"), completed=123_456, failed=12_345, output_tokens_per_s=98_765.4)
    for level in summary["levels"]:
        ttft = {"n": 400, "p50": 99.0, "p95": 654_321.0, "p99": 765_432.0}
        level["ttft_ms"] = ttft | {"ci95": {name: [ttft[name] - 9, ttft[name] + 9] for name in ("p50", "p95", "p99")}}
    rendered = text.render(summary, width)

    rows = [line for line in rendered.splitlines() if line.startswith("c8 ")]

    assert "654,321" in rows[0]
    assert "765,432" in rows[0]
    assert "98,765" in rows[0]


def test_intervals_that_find_no_room_are_promised_in_report_md() -> None:
    rendered = text.render(summary_of("closed_loop"), 60)

    assert "95% intervals are in report.md" in rendered


def test_the_report_leads_with_ttft_and_throughput_before_any_tpot() -> None:
    for rendered in (text.render(summary_of("closed_loop"), 80), report.FORMATS["markdown"](summary_of("closed_loop"))):
        assert 0 < rendered.index("TTFT and throughput") < rendered.index("TPOT")


def printed(summary: dict[str, Any], **settings: Any) -> str:
    file = io.StringIO()
    text.tables(summary, Console(file=file, width=100, **settings))
    return file.getvalue()


def test_a_terminal_gets_colour_and_a_pipe_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)

    assert f"{ESCAPE}[" in printed(summary_of("open_loop"), force_terminal=True, color_system="standard")
    assert ESCAPE not in printed(summary_of("open_loop"))


def test_no_color_takes_the_colours_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    colours = re.findall(r"\x1b\[[\d;]*3[0-7][\d;]*m", printed(summary_of("errors_and_gates"), force_terminal=True))

    assert colours == []


def test_an_output_without_our_signs_gets_ascii() -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    text.tables(summary_of("closed_loop"), Console(file=file, width=100))
    file.flush()

    assert b"p99 needs >= 368 requests, has 60 to 160" in raw.getvalue()
    assert b"[202-218]" in raw.getvalue()


# What is doubtful looks doubtful


def test_simulated_figures_say_so_loudly_everywhere() -> None:
    summary = summary_of("simulated")

    assert text.render(summary).splitlines()[2].startswith(" SIMULATED: ")
    assert report.FORMATS["markdown"](summary).startswith("## loadbench: demo (SIMULATED)\n\n> [!WARNING]\n")
    assert ",simulated,value,1,flag," in report.FORMATS["csv"](summary)


@pytest.mark.parametrize("case", set(CASES) - {"simulated"})
def test_measured_figures_are_not_called_simulated(case: str) -> None:
    summary = summary_of(case)

    assert not any("simulated" in render(summary).lower() for name, render in report.FORMATS.items() if name != "json")


def test_a_percentile_without_an_interval_is_marked_with_the_n_it_needs() -> None:
    rendered = text.render(summary_of("interrupted"), 80)

    assert "294*" in rendered
    assert "* p95 needs ≥ 72 requests, has 30 to 41" in rendered


def test_a_null_is_a_dash_and_never_a_zero() -> None:
    rendered = text.render(summary_of("tiny"), 80)
    row = next(line for line in rendered.splitlines() if line.startswith("c1 "))

    assert row.split() == ["c1", "2", "0", "11.2*", "15.7*", "19.1*", "-", "-", "-"]


def test_no_number_is_in_scientific_notation() -> None:
    summary = with_levels(summary_of("closed_loop"), output_tokens_per_s=1.5e-7, characters_per_s=2.5e17)
    for name in ("text", "markdown"):
        assert re.findall(r"\d[eE][+-]?\d", report.FORMATS[name](summary)) == []


def test_a_red_gate_forbids_the_verdict_in_the_first_sentence() -> None:
    doubt = headline.sentences(summary_of("errors_and_gates"))[0].doubt

    assert doubt == "not a basis for a verdict: V1, V4 red at c4"


def test_warnings_alone_do_not_forbid_it() -> None:
    assert [said.doubt for said in headline.sentences(summary_of("closed_loop"))] == ["", ""]


def test_reds_come_before_warnings_and_a_gate_is_said_once_with_all_its_levels() -> None:
    found = notes.gates(summary_of("closed_loop") | {"warnings": [{"code": "records", "severity": "red", "text": "x"}]})

    assert [(note.code, note.severity) for note in found] == [
        ("records", "red"),
        ("V1", "warn"),
        ("V2", "warn"),
        ("V12", "warn"),
    ]
    assert found[0].texts == (("", "x"),)
    assert found[1].texts[0][0] == "smollm2-135m c1, qwen2.5-0.5b-instruct-generic-cpu:4 c1"


# The sentence of a model


def test_one_level_is_told_without_a_comparison() -> None:
    summary = summary_of("interrupted")
    summary["levels"] = summary["levels"][:1]

    assert sentence(summary) == "16.8 tokens/s at 1 stream; median TTFT 210 ms"


def test_a_model_past_its_peak_is_told_by_its_peak() -> None:
    summary = summary_of("closed_loop")
    summary["levels"][3]["output_tokens_per_s"] = 31.0

    assert sentence(summary).startswith(
        "peaks at 40.0 tokens/s and 177 characters/s at 4 streams (2.4x of 1 stream, efficiency 60%), 31.0 at 8 streams"
    )


def test_ttft_is_told_by_p95_only_where_both_ends_have_an_interval_for_it() -> None:
    summary = summary_of("closed_loop")
    assert "median TTFT grows from 210 ms at 1 stream to 1.09 s" in sentence(summary)

    summary["levels"][0]["ttft_ms"]["ci95"]["p95"] = [220.0, 240.0]

    assert "TTFT p95 grows from 229 ms at 1 stream to 1.90 s" in sentence(summary)


def test_a_model_that_completed_nothing_says_why() -> None:
    summary = summary_of("errors_and_gates")
    summary["levels"] = summary["levels"][2:]

    assert sentence(summary) == "throughput not measured; 0 of 12 requests completed (failed: connect 12)"


def test_repeats_of_a_load_are_told_as_a_range() -> None:
    assert sentence(summary_of("simulated")).startswith("1,327 to 1,337 tokens/s at 16 streams")


def test_dropped_requests_of_an_open_loop_are_told() -> None:
    assert "38 of 654 requests dropped" in sentence(summary_of("open_loop"))


# Text of others


def hostile() -> dict[str, Any]:
    summary = summary_of("errors_and_gates")
    evil = "\x1b]0;owned\x07\x1b[2J|`<script>x</script>\r\n# @everyone \u202e\u200b\x9b31m$x$ [a](http://b)"
    for level in summary["levels"]:
        level.update(model=evil, reason=evil, errors={evil: 1}, finish_reasons={evil: 1}, device=evil)
        level["warnings"] = [{"code": evil, "severity": "red", "text": evil}]
        level["slo"] = [{"bound": evil, "attainment": 0.5, "attained": False, "n": 2}]
        level["prompts"] = [{"prompt": evil, "n": 1}, {"prompt": "p", "n": 1}]
    summary["run"]["name"] = summary["run"]["environment"]["cpu"] = summary["run"]["target"]["version"] = evil
    return summary


def test_a_terminal_is_safe_from_control_sequences_in_names_and_messages() -> None:
    for width in (80, 120):
        assert re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202e]", text.render(hostile(), width)) == []


def test_names_are_not_read_as_rich_markup() -> None:
    summary = with_levels(summary_of("interrupted"), model="[red]model[/red]")

    assert "[red]model[/red]" in text.render(summary, 80)


def test_markdown_is_safe_from_html_links_mentions_and_formulas() -> None:
    rendered = report.FORMATS["markdown"](hostile())

    assert re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]|<script|(?<!\w)@everyone|\$x|\]\(http", rendered) == []


@pytest.mark.parametrize("summary", [*map(summary_of, CASES), hostile()], ids=[*CASES, "hostile"])
def test_every_row_of_a_markdown_table_has_as_many_cells_as_its_head(summary: dict[str, Any]) -> None:
    cells = 0
    for line in report.FORMATS["markdown"](summary).splitlines():
        found = line.count("|")
        if not line.startswith("|"):
            cells = 0
        else:
            assert found == (cells or found), line
            cells = found


def test_secrets_in_the_url_are_not_printed() -> None:
    for name in ("text", "markdown", "csv"):
        rendered = report.FORMATS[name](summary_of("errors_and_gates"))

        assert "s3cret" not in rendered
        assert "api_key" not in rendered


@pytest.mark.parametrize("run", [None, {}, {"target": {}, "scenario": {}, "environment": {}}, {"start": "yesterday"}])
def test_facts_that_nobody_recorded_are_left_out(run: Any) -> None:
    summary = summary_of("tiny") | {"run": run}

    assert "phi-4-mini: device unknown" in text.render(summary)
    assert "None" not in report.FORMATS["markdown"](summary)


def test_a_run_without_levels_still_has_a_report() -> None:
    for name, render in report.FORMATS.items():
        assert render({"schema": 1, "run": {}, "levels": []}), name
    assert "No level was measured." in text.render({"levels": []})


# The tables


def test_prompts_are_listed_slowest_first_and_what_is_left_out_is_said() -> None:
    table = prompts(summary_of("closed_loop")["levels"][0] | {"prompts_left_out": 5}, 3)

    assert table is not None
    assert [row[0].text for row in table.rows] == ["proof", "weather", "haiku"]
    assert table.notes == ("14 more prompts: see requests.jsonl",)


def test_models_under_one_another_share_one_unit() -> None:
    heads = [line for line in text.render(summary_of("closed_loop"), 120).splitlines() if line.startswith("level")]

    assert len(heads) == 6
    assert [heads[i] for i in (0, 2, 4)] == [heads[i] for i in (1, 3, 5)]


def test_open_loop_counts_ttft_from_due() -> None:
    rows = levels.by_model(summary_of("open_loop"))["smollm2-135m"]

    assert levels.ttft(rows[3])["p50"] == rows[3]["ttft_from_due_ms"]["p50"] != rows[3]["ttft_ms"]["p50"]


# Files


def test_csv_has_a_row_for_what_was_measured_and_none_for_nulls() -> None:
    rows = list(csv.DictReader(io.StringIO(report.FORMATS["csv"](summary_of("tiny")))))

    assert {row["metric"] for row in rows if row["level"] == "phi-4-mini@c1"} >= {"ttft_ms", "completed"}
    assert not any(row["value"] == "" for row in rows)
    p50 = next(row for row in rows if (row["metric"], row["statistic"]) == ("ttft_ms", "p50"))
    assert (p50["value"], p50["unit"], p50["n"], p50["ci_low"]) == ("11210.0", "ms", "2", "")


def test_json_has_sorted_keys_and_reads_back_as_the_summary() -> None:
    summary = summary_of("open_loop")
    rendered = report.FORMATS["json"](summary)

    assert rendered == json.dumps(summary, indent=2, sort_keys=True) + "\n"


def test_write_puts_the_summary_the_report_and_the_csv_into_the_folder(tmp_path: Path) -> None:
    summary = summary_of("open_loop")
    info = summary.pop("run") | {"levels": ["raw facts"]}

    paths = report.write(summary, info, tmp_path)

    assert sorted(path.name for path in paths) == sorted(path.name for path in tmp_path.iterdir())
    assert {path.name for path in paths} == {"summary.json", "report.md", "summary.csv"}
    written = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert written["run"] == {name: fact for name, fact in info.items() if name != "levels"}
    assert "smollm2-135m" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"summary\.json: cannot write: No such file or directory") as caught:
        report.write(summary_of("tiny"), None, tmp_path / "gone")

    assert "\n" not in str(caught.value)


def test_the_formats_load_no_library_before_they_are_used() -> None:
    heavy = "{'rich', 'numpy', 'orjson', 'httpx', 'msgspec'}"
    code = f"import sys, loadbench.report; print(sorted({heavy} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
