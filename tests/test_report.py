"""The reports of a run: golden files for whole ones, and what must hold for any.

After a wanted change: `LOADBENCH_UPDATE_GOLDEN=1 python -m pytest tests/test_report.py`, then review the diff of
tests/golden/.
The .json files there are summaries made by hand; the others are what the reports say about them.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from loadbench import report
from loadbench.errors import StoreError
from loadbench.report import levels, run, tables, text
from loadbench.report.document import Cell, Column, Table
from tests.support.summaries import CASES, GOLDEN, check_golden, on_terminal, summary_of, with_levels

RENDERED = {
    "80.txt": lambda summary: on_terminal(summary, 80),
    "120.txt": lambda summary: on_terminal(summary, 120),
    "md": report.FORMATS["markdown"],
    "csv": report.FORMATS["csv"],
}


@pytest.mark.parametrize("kind", RENDERED)
@pytest.mark.parametrize("case", CASES)
def test_a_summary_reads_as_its_golden_file(case: str, kind: str) -> None:
    check_golden(GOLDEN / f"{case}.{kind}", RENDERED[kind](summary_of(case)))


# A reader on a terminal


FIGURE = re.compile(r"(?<!\S)[~>≥]?[\d,.]+\*?(?!\S)")


def printed(summary: dict[str, Any], **settings: Any) -> str:
    file = io.StringIO()
    text.show(run.document(summary), Console(file=file, **{"width": 100, **settings}))
    return file.getvalue()


def piped(case: str) -> list[str]:
    file = io.StringIO()
    text.show(run.document(summary_of(case)), text.console(file))
    return file.getvalue().splitlines()


@pytest.mark.parametrize("case", CASES)
def test_a_table_fits_the_terminal_and_keeps_every_figure(case: str) -> None:
    rows = [line for line in piped(case) if len(re.findall(r"\S {2,}\S", line)) > 2]
    figures = set(FIGURE.findall(" ".join(rows)))

    for width in (40, 60, 80, 100, 120, 200):
        rendered = on_terminal(summary_of(case), width)
        longest = max(rendered.splitlines(), key=len)
        assert width == 40 or len(longest) <= width, longest
        assert figures <= set(re.split(r"[\s\[\]]+", rendered)), width


@pytest.mark.parametrize("case", CASES)
def test_a_pipe_gets_each_level_in_one_line_with_its_intervals(case: str) -> None:
    lines = piped(case)

    for table in tables.headline(levels.read(summary_of(case))):
        for row in table.rows:
            assert any(all(c.text in line and c.interval in line for c in row) for line in lines), row


@pytest.mark.parametrize("width", [80, 100, 120])
def test_no_figure_of_the_headline_is_cut_or_broken(width: int) -> None:
    # Times of six digits with intervals: the widest that a level of 15 minutes can show.
    summary = with_levels(summary_of("closed_loop"), completed=123_456, failed=12_345, output_tokens_per_s=98_765.4)
    for level in summary["levels"]:
        ttft = {"n": 400, "p50": 99.0, "p95": 654_321.0, "p99": 765_432.0}
        level["ttft_ms"] = ttft | {"ci95": {name: [ttft[name] - 9, ttft[name] + 9] for name in ("p50", "p95", "p99")}}

    row = next(line for line in on_terminal(summary, width).splitlines() if line.startswith("c8 "))

    assert all(figure in row for figure in ("654,321", "765,432", "98,765"))


def test_a_column_without_a_word_leaves_its_room_to_those_that_fold() -> None:
    out = io.StringIO()
    empty, long = Column("", left=True), Column("result", left=True)
    table = Table("", (empty, long), ((Cell(""), Cell("thresholds not known, serves 12 users")),))
    text.show_tables([table], Console(file=out, width=20, force_terminal=True, color_system=None))

    assert "".join(out.getvalue().split()).endswith("thresholdsnotknown,serves12users")


def test_intervals_that_find_no_room_are_promised_in_report_md() -> None:
    assert "95% intervals are in report.md" in on_terminal(summary_of("closed_loop"), 60)


def test_the_report_leads_with_ttft_and_throughput_before_any_tpot() -> None:
    for rendered in (on_terminal(summary_of("closed_loop"), 80), report.FORMATS["markdown"](summary_of("closed_loop"))):
        assert 0 < rendered.index("TTFT and throughput") < rendered.index("TPOT")


def test_a_terminal_gets_colour_and_a_pipe_or_no_color_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    assert "\x1b[" in printed(summary_of("open_loop"), force_terminal=True, color_system="standard")
    assert "\x1b" not in printed(summary_of("open_loop"))

    monkeypatch.setenv("NO_COLOR", "1")

    assert not re.search(r"\x1b\[[\d;]*3[0-7][\d;]*m", printed(summary_of("errors_and_gates"), force_terminal=True))


def test_an_output_without_our_signs_gets_ascii() -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    text.show(run.document(summary_of("closed_loop")), Console(file=file, width=100))
    file.flush()

    assert b"p99 needs >= 368 requests, has 60 to 160" in raw.getvalue()
    assert b"[202-218]" in raw.getvalue()


def test_a_terminal_shows_the_verdict_again_at_the_end_as_a_report_is_longer_than_a_screen() -> None:
    summary = summary_of("closed_loop")
    first, again = printed(summary, color_system=None, force_terminal=True).split("In short")

    for line in run.models(levels.read(summary)):
        assert line.name in first
        assert line.name in again


# Text of others


def hostile() -> dict[str, Any]:
    summary = summary_of("errors_and_gates")
    evil = "\x1b]0;owned\x07\x1b[2J|`<script>x</script>\r\n# @everyone \u202e\u200b\x9b31m$x$ [a](http://b)"
    ran = {"id": evil, "device": evil, "execution_provider": evil}
    prompt = dict.fromkeys(("ttft_median_ms", "e2e_median_ms", "e2e_worst_ms", "output_tokens_median", "outliers"))
    for level in summary["levels"]:
        level.update(model=evil, reason=evil, errors={evil: 1}, finish_reasons={evil: 1}, device=evil)
        level["warnings"] = [{"code": evil, "severity": "red", "text": evil}]
        level["slo"] = [{"bound": evil, "attainment": 0.5, "attained": False, "n": 2}]
        level["prompts"] = [{"prompt": name, "n": 1, **prompt} for name in (evil, "p")]
        level |= {"alias": evil, "asked_device": evil, "ran": ran}
        level |= {"energy_j": 1.0, "energy_source": evil, "power": evil, "server_metrics": {evil: 1.0}}
    summary["models"] = [{"id": evil, "name": evil, "load_s": 1.0, "load_source": evil, "load_error": evil}]
    summary["models"][0] |= {"served_as": evil, "ran": ran}
    summary["scaling"] = summary_of("scaling")["scaling"]
    for curve in summary["scaling"]:
        curve.update(model=evil, usl_reason=evil)
        curve["knees"]["slo"].update(bound=evil, relation=evil)
    summary["noise"] = [{"model": evil, "level": evil, "ttft_p50": 1.0}]
    summary["absent"] = [{"name": evil, "device": evil, "execution_provider": evil, "reason": evil}]
    summary["run"]["telemetry"] = {"gpu_reason": evil, "cpu_energy_source": evil, "server_pid": 1}
    summary["run"]["name"] = summary["run"]["environment"]["cpu"] = summary["run"]["target"]["version"] = evil
    return summary


def test_a_terminal_and_markdown_are_safe_from_names_and_messages() -> None:
    markdown = report.FORMATS["markdown"](hostile())

    for width in (80, 120):
        assert re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202e]", on_terminal(hostile(), width)) == []
    assert re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]|<script|(?<!\w)@everyone|\$x|\]\(http", markdown) == []
    assert "[red]model[/red]" in on_terminal(with_levels(summary_of("interrupted"), model="[red]model[/red]"), 80)


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


@pytest.mark.parametrize("kind", ["text", "markdown", "csv"])
def test_secrets_in_the_url_are_not_printed(kind: str) -> None:
    rendered = report.FORMATS[kind](summary_of("errors_and_gates"))

    assert "s3cret" not in rendered
    assert "api_key" not in rendered


# What is doubtful looks doubtful


def test_simulated_figures_say_so_loudly_everywhere_and_measured_ones_never() -> None:
    summary = summary_of("simulated")

    assert on_terminal(summary).splitlines()[2].startswith(" SIMULATED: ")
    assert report.FORMATS["markdown"](summary).startswith(
        "## loadbench: demo, 2026-11-22 16:09 UTC (SIMULATED)\n\n> [!WARNING]\n"
    )
    assert ",simulated,value,1,flag," in report.FORMATS["csv"](summary)
    for case in set(CASES) - {"simulated"}:
        for kind in ("text", "markdown", "csv", "html"):
            assert "simulated" not in report.FORMATS[kind](summary_of(case)).lower(), (case, kind)


@pytest.mark.parametrize(
    ("estimated", "itl_name", "marked"),
    [
        (True, "inter-event", True),
        (True, "inter-token", False),  # an end-of-text token is counted but not sent: a guess of 1 that is 1
        (False, "inter-event", False),  # the server counted along
    ],
)
def test_a_tpot_that_rests_on_a_guess_is_marked(estimated: bool, itl_name: str, marked: bool) -> None:
    summary = with_levels(summary_of("interrupted"), tpot_k_estimated=estimated, itl_name=itl_name)
    terminal, markdown = on_terminal(summary, 120), report.FORMATS["markdown"](summary)
    note = "~ TPOT: tokens of the first arrival estimated from tokens per event"

    assert ("~20.2" in terminal) == (note in terminal) == marked
    assert markdown.count("&#126;20.2 [") == marked
    assert markdown.count(note.replace("~", "&#126;")) == 2 * marked  # TPOT p50, TPOT micro


def test_no_number_is_in_scientific_notation_and_a_null_is_a_dash() -> None:
    summary = with_levels(summary_of("closed_loop"), output_tokens_per_s=1.5e-7, characters_per_s=2.5e17)
    row = next(line for line in on_terminal(summary_of("tiny"), 80).splitlines() if line.startswith("c1 "))

    for name in ("text", "markdown"):
        assert re.findall(r"\d[eE][+-]?\d", report.FORMATS[name](summary)) == []
    assert row.split() == ["c1", "2", "0", "11.2*", "15.7*", "19.1*", "-", "-", "-"]


@pytest.mark.parametrize("facts", [{}, {"target": {}, "scenario": {}, "environment": {}}, {"start": "yesterday"}])
def test_facts_that_nobody_recorded_are_left_out(facts: dict[str, Any]) -> None:
    summary = summary_of("tiny") | {"run": facts}

    assert "phi-4-mini: device unknown" in on_terminal(summary)
    assert "None" not in report.FORMATS["markdown"](summary)


def test_a_run_without_levels_still_has_a_report() -> None:
    for name, render in report.FORMATS.items():
        assert render({"schema": 1, "run": {}, "levels": []}), name
    assert "No level was measured." in on_terminal({"levels": []})


# Files


def test_json_has_sorted_keys_and_reads_back_as_the_summary() -> None:
    summary = summary_of("open_loop")

    assert report.FORMATS["json"](summary) == json.dumps(summary, indent=2, sort_keys=True) + "\n"


def test_write_puts_the_summary_the_report_and_the_csv_into_the_folder(tmp_path: Path) -> None:
    summary = summary_of("open_loop")

    paths = report.write(summary, tmp_path)

    assert sorted(path.name for path in paths) == sorted(path.name for path in tmp_path.iterdir())
    assert {path.name for path in paths} == {"summary.json", "report.md", "report.html", "summary.csv"}
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8")) == summary
    with pytest.raises(StoreError, match=r"^.*summary\.json: cannot write: No such file or directory.*$"):
        report.write(summary, tmp_path / "gone")


@pytest.mark.system
def test_the_formats_load_no_library_before_they_are_used() -> None:
    heavy = "{'rich', 'numpy', 'orjson', 'httpx', 'msgspec'}"
    code = f"import sys, loadbench.report; print(sorted({heavy} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
