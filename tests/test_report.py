"""The reports: golden files for whole ones, and what must hold for any.

After a wanted change: `LOADBENCH_UPDATE_GOLDEN=1 python -m pytest tests/test_report.py`, then review the diff of
tests/golden/.
The .json files there are summaries made by hand; the others are what the reports say about them.
"""

from __future__ import annotations

import csv
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
from loadbench.report import levels, run, text
from loadbench.report.tables import headline, prompts
from tests.support.summaries import CASES, GOLDEN, on_terminal, summary_of, with_levels

pytestmark = pytest.mark.system

RENDERED = {
    "80.txt": lambda summary: on_terminal(summary, 80),
    "120.txt": lambda summary: on_terminal(summary, 120),
    "md": report.FORMATS["markdown"],
    "csv": report.FORMATS["csv"],
}
ESCAPE = "\x1b"


@pytest.mark.parametrize("kind", RENDERED)
@pytest.mark.parametrize("case", CASES)
def test_a_summary_reads_as_its_golden_file(case: str, kind: str) -> None:
    golden = GOLDEN / f"{case}.{kind}"
    rendered = RENDERED[kind](summary_of(case))
    if os.environ.get("LOADBENCH_UPDATE_GOLDEN"):
        golden.write_bytes(rendered.encode())

    assert rendered == golden.read_bytes().decode()


# A reader on a terminal


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
@pytest.mark.parametrize("case", CASES)
def test_no_line_is_wider_than_the_terminal(case: str, width: int) -> None:
    longest = max(on_terminal(summary_of(case), width).splitlines(), key=len)

    assert len(longest) <= width, longest


FIGURE = re.compile(r"(?<!\S)[~>≥]?[\d,.]+\*?(?!\S)")


def piped(case: str) -> str:
    file = io.StringIO()
    console = text.console(file)
    text.show(run.document(summary_of(case)), console)
    return file.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80])
@pytest.mark.parametrize("case", CASES)
def test_no_figure_of_any_table_is_cut_on_a_narrow_terminal(case: str, width: int) -> None:
    tables = [line for line in piped(case).splitlines() if len(re.findall(r"\S {2,}\S", line)) > 2]
    figures = {figure for line in tables for figure in FIGURE.findall(line)}

    assert figures <= set(re.split(r"[\s\[\]]+", on_terminal(summary_of(case), width)))


@pytest.mark.parametrize("case", CASES)
def test_a_pipe_gets_each_level_in_one_line_with_its_intervals(case: str) -> None:
    lines = piped(case).splitlines()
    rows = [row for table in headline(summary_of(case)) for row in table.rows]

    assert all(any(all(c.text in line and c.interval in line for c in row) for line in lines) for row in rows)


def test_each_starred_figure_has_its_reason_beneath() -> None:
    """Of 72 requests that resemble each other, beside levels of 60: neither reason stands for the other."""
    few = {"n": 60, "p50": 300.0, "p95": 500.0, "p50_ci95": [290.0, 310.0], "p95_ci95": None}
    alike = {"n": 72, "p50": 2500.0, "p95": 2800.0, "p50_ci95": [2400.0, 2600.0], "p95_ci95": None}
    summary = summary_of("closed_loop")
    rows = [{**level, "ttft_ms": ttft} for level, ttft in zip(summary["levels"][:2], (few, alike), strict=True)]
    table = headline({**summary, "levels": rows})[0]

    assert [cell.marked for row in table.rows for cell in row if cell.text in ("500", "2,800")] == [True, True]
    assert "* p95 needs ≥ 72 requests, has 60" in table.notes
    assert "* p95: no 95% interval; 72 requests resemble each other too much" in table.notes


@pytest.mark.parametrize("width", [80, 100, 120])
def test_no_figure_of_the_headline_is_cut_or_broken(width: int) -> None:
    # Times of six digits with intervals: the widest that a level of 15 minutes can show.
    summary = with_levels(summary_of("closed_loop"), completed=123_456, failed=12_345, output_tokens_per_s=98_765.4)
    for level in summary["levels"]:
        ttft = {"n": 400, "p50": 99.0, "p95": 654_321.0, "p99": 765_432.0}
        level["ttft_ms"] = ttft | {"ci95": {name: [ttft[name] - 9, ttft[name] + 9] for name in ("p50", "p95", "p99")}}
    rendered = on_terminal(summary, width)

    rows = [line for line in rendered.splitlines() if line.startswith("c8 ")]

    assert "654,321" in rows[0]
    assert "765,432" in rows[0]
    assert "98,765" in rows[0]


def test_intervals_that_find_no_room_are_promised_in_report_md() -> None:
    rendered = on_terminal(summary_of("closed_loop"), 60)

    assert "95% intervals are in report.md" in rendered


def test_the_report_leads_with_ttft_and_throughput_before_any_tpot() -> None:
    for rendered in (on_terminal(summary_of("closed_loop"), 80), report.FORMATS["markdown"](summary_of("closed_loop"))):
        assert 0 < rendered.index("TTFT and throughput") < rendered.index("TPOT")


def printed(summary: dict[str, Any], **settings: Any) -> str:
    file = io.StringIO()
    text.show(run.document(summary), Console(file=file, width=100, **settings))
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
    text.show(run.document(summary_of("closed_loop")), Console(file=file, width=100))
    file.flush()

    assert b"p99 needs >= 368 requests, has 60 to 160" in raw.getvalue()
    assert b"[202-218]" in raw.getvalue()


def test_the_report_says_what_its_intervals_know_and_what_not() -> None:
    said = "intervals count them as fewer (blocks of neighbours, whole requests). Of what changes from run to run they"

    assert said in report.FORMATS["markdown"](summary_of("closed_loop"))


# The tables


def test_prompts_are_listed_slowest_first_and_what_is_left_out_is_said() -> None:
    table = prompts(summary_of("closed_loop")["levels"][0] | {"prompts_left_out": 5}, 3)

    assert table is not None
    assert [row[0].text for row in table.rows] == ["proof", "weather", "haiku"]
    assert table.notes == ("14 more prompts: see requests.jsonl",)


def test_models_under_one_another_share_one_unit() -> None:
    heads = [line for line in on_terminal(summary_of("closed_loop"), 120).splitlines() if line.startswith("level")]

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


def test_csv_says_of_how_many_and_how_sure_its_shares_are() -> None:
    slo = [{"bound": "ttft_p95=800ms", "attainment": 0.95, "attained": True, "n": 20, "ci95": [0.7639, 0.9911]}]
    changes = {"attempted": 20, "completed": 19, "errors": {"reset": 1}, "finish_reasons": {"stop": 19}, "slo": slo}

    rows = list(csv.DictReader(io.StringIO(report.FORMATS["csv"](with_levels(summary_of("tiny"), **changes)))))

    found = {(row["metric"], row["statistic"]): (row["n"], row["ci_low"], row["ci_high"]) for row in rows}
    assert found["errors", "reset"] == ("20", "", "")
    assert found["finish_reasons", "stop"] == ("19", "", "")
    assert found["slo", "ttft_p95=800ms"] == ("20", "0.7639", "0.9911")


def test_json_has_sorted_keys_and_reads_back_as_the_summary() -> None:
    summary = summary_of("open_loop")
    rendered = report.FORMATS["json"](summary)

    assert rendered == json.dumps(summary, indent=2, sort_keys=True) + "\n"


def test_write_puts_the_summary_the_report_and_the_csv_into_the_folder(tmp_path: Path) -> None:
    summary = summary_of("open_loop")
    info = summary.pop("run") | {"levels": ["raw facts"]}

    paths = report.write(summary, info, tmp_path)

    assert sorted(path.name for path in paths) == sorted(path.name for path in tmp_path.iterdir())
    assert {path.name for path in paths} == {"summary.json", "report.md", "report.html", "summary.csv"}
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
