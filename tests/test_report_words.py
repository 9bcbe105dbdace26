"""What the reports say of doubtful figures, in one sentence a model; and text of others made harmless."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from loadbench import report
from loadbench.report import headline, objectives, run, tables, text
from loadbench.report.html import curves
from tests.support.plain import scaling
from tests.support.summaries import CASES, on_terminal, summary_of, with_levels


def sentence(summary: dict[str, Any]) -> str:
    return headline.lines(summary)[0].text


# What is doubtful looks doubtful


def test_simulated_figures_say_so_loudly_everywhere() -> None:
    summary = summary_of("simulated")

    assert on_terminal(summary).splitlines()[2].startswith(" SIMULATED: ")
    assert report.FORMATS["markdown"](summary).startswith(
        "## loadbench: demo, 2026-11-22 16:09 UTC (SIMULATED)\n\n> [!WARNING]\n"
    )
    assert ",simulated,value,1,flag," in report.FORMATS["csv"](summary)


@pytest.mark.parametrize("case", sorted(set(CASES) - {"simulated"}))
def test_measured_figures_are_not_called_simulated(case: str) -> None:
    summary = summary_of(case)

    assert not any("simulated" in render(summary).lower() for name, render in report.FORMATS.items() if name != "json")


def test_a_percentile_without_an_interval_is_marked_with_the_n_it_needs() -> None:
    rendered = on_terminal(summary_of("interrupted"), 80)

    assert "294*" in rendered
    assert "* p95 needs ≥ 72 requests, has 30 to 41" in rendered


def test_a_null_is_a_dash_and_never_a_zero() -> None:
    rendered = on_terminal(summary_of("tiny"), 80)
    row = next(line for line in rendered.splitlines() if line.startswith("c1 "))

    assert row.split() == ["c1", "2", "0", "11.2*", "15.7*", "19.1*", "-", "-", "-"]


ESTIMATED = "~ TPOT: tokens of the first arrival estimated from tokens per event"
ESTIMATES = [
    # tpot_k_estimated, itl_name, is it said
    (True, "inter-event", True),
    (True, "inter-token", False),  # an end-of-text token is counted but not sent: a guess of 1 that is 1
    (False, "inter-event", False),  # the server counted along
]


@pytest.mark.parametrize(("estimated", "itl_name", "said"), ESTIMATES)
def test_a_tpot_that_rests_on_a_guess_is_marked(estimated: bool, itl_name: str, said: bool) -> None:
    summary = with_levels(summary_of("interrupted"), tpot_k_estimated=estimated, itl_name=itl_name)
    terminal, markdown = on_terminal(summary, 120), report.FORMATS["markdown"](summary)

    assert ("~20.2" in terminal) == (ESTIMATED in terminal) == said
    assert markdown.count("&#126;20.2 [") == said
    assert markdown.count(ESTIMATED.replace("~", "&#126;")) == 2 * said  # TPOT p50, TPOT micro


def test_no_number_is_in_scientific_notation() -> None:
    summary = with_levels(summary_of("closed_loop"), output_tokens_per_s=1.5e-7, characters_per_s=2.5e17)
    for name in ("text", "markdown"):
        assert re.findall(r"\d[eE][+-]?\d", report.FORMATS[name](summary)) == []


def test_a_red_gate_forbids_the_verdict_in_the_first_sentence() -> None:
    doubt = headline.lines(summary_of("errors_and_gates"))[0].doubt

    assert doubt == "Not a basis for a verdict: V1 short-window, V4 failures red at c4."


def test_warnings_alone_do_not_forbid_it() -> None:
    assert [said.doubt for said in headline.lines(summary_of("closed_loop"))] == ["", ""]


def test_reds_come_before_warnings_and_a_gate_is_said_once_with_all_its_levels() -> None:
    found = run.gates(summary_of("closed_loop") | {"warnings": [{"code": "records", "severity": "red", "text": "x"}]})

    assert [finding.label for finding in found] == ["records red", "V1 warn", "V2 warn", "V12 warn"]
    assert found[0].texts == [("", "x")]
    assert found[1].texts[0][0] == "smollm2-135m c1, qwen2.5-0.5b-instruct-generic-cpu:4 c1"


# The sentence of a model


def test_one_level_is_told_without_a_comparison() -> None:
    summary = summary_of("interrupted")
    summary["levels"] = summary["levels"][:1]

    assert sentence(summary) == "16.8 tokens/s at 1 stream; median TTFT 210 ms."


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

    assert sentence(summary) == "throughput not measured; 0 of 12 requests completed (failed: connect 12)."


def test_repeats_of_a_load_are_told_as_a_range() -> None:
    assert sentence(summary_of("simulated")).startswith("1,327 to 1,337 tokens/s at 16 streams")


def curve(**changes: Any) -> dict[str, Any]:
    """A run of one model at 1 and 8 streams."""
    summary = summary_of("scaling")
    first, last = (summary["levels"][i] for i in (0, 3))
    summary["levels"] = [first, last | changes]
    summary["scaling"] = [summary["scaling"][0] | {"knees": {"doubling": None}, "serial": False}]
    return summary


def ttft(p50: float) -> dict[str, Any]:
    return {"n": 5, "p50": p50, "ci95": {"p50": [p50, p50]}}


WORDS = [
    # efficiency, TTFT p50 of 60 ms at 1 stream, TPOT p50: what is said
    (0.8, 120.0, 18.6, "scales well to 8 streams: 270 tokens/s"),
    (0.79, 120.0, 18.6, "270 tokens/s"),
    (0.8, 121.0, 18.6, "270 tokens/s"),  # a perfect TPOT is no merit where first tokens wait
    (0.3, 1200.0, 18.6, "270 tokens/s"),
    (0.8, 120.0, 900.0, "scales well to 8 streams: 270 tokens/s"),  # nor is a slow one a fault of its own
    (None, 120.0, 18.6, "270 tokens/s"),
]


@pytest.mark.parametrize(("efficiency", "ttft_ms", "tpot_ms", "said"), WORDS)
def test_whether_a_model_scales_is_judged_by_efficiency_and_ttft_never_by_tpot(
    efficiency: float | None, ttft_ms: float, tpot_ms: float, said: str
) -> None:
    summary = curve(efficiency=efficiency, ttft_ms=ttft(ttft_ms), tpot_ms=ttft(tpot_ms))

    assert sentence(summary).startswith(said)


def test_a_model_whose_doubling_gains_nothing_is_called_saturated_from_there_on() -> None:
    assert sentence(summary_of("scaling")).startswith("saturated from 32 streams on: peaks at 436 tokens/s")


def test_a_model_that_answers_one_by_one_is_called_so_first_of_all() -> None:
    said = headline.lines(summary_of("scaling"))[1].text

    assert said.startswith(
        "answers one request at a time: 8 streams get what one gets, and wait 8 times as long; 50.3 tokens/s"
    )


def test_whole_answers_only_look_as_if_they_came_one_by_one() -> None:
    said = headline.lines(with_levels(summary_of("scaling"), streamed=False))[1].text

    assert said.startswith("answers as if one request at a time: 8 streams get what one gets")


def test_a_level_measured_again_is_in_no_table_but_in_a_note_and_in_the_csv() -> None:
    summary = summary_of("scaling")
    rendered = on_terminal(summary, 100)

    assert len([line for line in rendered.splitlines() if line.startswith("c1 ")]) == 2 * 3  # a row a model and table
    assert "batch-1b c1: tokens/s 0.91x, TTFT p50 1.13x of the first time; in no table above" in rendered
    assert "batch-1b@c1#end,1,,closing,value,1,flag" in report.FORMATS["csv"](summary)


def test_a_peak_beyond_the_levels_measured_is_not_told() -> None:
    summary = summary_of("scaling")
    law = summary["scaling"][0]["usl"]
    law |= {"peak_n": None, "peak_x_per_s": None}
    law["ci95"]["peak_n"] = [51.2, None]

    assert "> 63.4 [51.2–> 63.4]" in report.FORMATS["markdown"](summary).replace("&gt;", ">")


def test_a_model_with_too_few_loads_for_the_law_says_so() -> None:
    assert "no scalability law of serial-1b: it needs 6 loads or more, has 4" in on_terminal(summary_of("scaling"), 100)


def test_only_an_objective_that_was_crossed_is_called_so() -> None:
    summary = summary_of("scaling")
    assert "first objective to be crossed: ttft_p95<=800ms" in on_terminal(summary, 100)

    for curve in summary["scaling"]:
        curve["knees"]["slo"]["relation"] = ">"

    assert "to be crossed" not in on_terminal(summary, 100)


def test_a_model_at_one_load_has_no_knees_and_no_law() -> None:
    summary = summary_of("scaling")
    summary["scaling"] = [one | {"levels": one["levels"][:1]} for one in summary["scaling"]]
    rendered = report.FORMATS["markdown"](summary)

    assert not re.findall(r"^### (?:Scaling|Knees|Universal)", rendered, flags=re.MULTILINE)


def test_percentiles_of_requests_that_resemble_each_other_are_marked_and_why() -> None:
    summary = summary_of("scaling")
    for level in summary["levels"]:
        level["ttft_ms"]["ci95"]["p99"] = None

    assert "* p99: no 95% interval; 400 requests resemble each other too much" in on_terminal(summary, 100)


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
        level |= {"alias": evil, "asked_device": evil, "ran": {"id": evil, "device": evil, "execution_provider": evil}}
        level |= {"energy_j": 1.0, "energy_source": evil, "power": evil, "server_metrics": {evil: 1.0}}
    summary["models"] = [{"id": evil, "name": evil, "load_s": 1.0, "load_source": evil, "load_error": evil}]
    summary["models"][0] |= {"served_as": evil, "ran": {"id": evil, "device": evil, "execution_provider": evil}}
    summary["scaling"] = summary_of("scaling")["scaling"]
    for curve in summary["scaling"]:
        curve.update(model=evil, usl_reason=evil)
        curve["knees"]["slo"].update(bound=evil, relation=evil)
    summary["noise"] = [{"model": evil, "level": evil, "ttft_p50": 1.0}]
    summary["absent"] = [{"name": evil, "device": evil, "execution_provider": evil, "reason": evil}]
    summary["run"]["telemetry"] = {"gpu_reason": evil, "cpu_energy_source": evil, "server_pid": 1}
    summary["run"]["name"] = summary["run"]["environment"]["cpu"] = summary["run"]["target"]["version"] = evil
    return summary


def test_a_terminal_is_safe_from_control_sequences_in_names_and_messages() -> None:
    for width in (80, 120):
        assert re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202e]", on_terminal(hostile(), width)) == []


def test_names_are_not_read_as_rich_markup() -> None:
    summary = with_levels(summary_of("interrupted"), model="[red]model[/red]")

    assert "[red]model[/red]" in on_terminal(summary, 80)


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

    assert "phi-4-mini: device unknown" in on_terminal(summary)
    assert "None" not in report.FORMATS["markdown"](summary)


def test_a_run_without_levels_still_has_a_report() -> None:
    for name, render in report.FORMATS.items():
        assert render({"schema": 1, "run": {}, "levels": []}), name
    assert "No level was measured." in on_terminal({"levels": []})


def test_a_terminal_shows_the_verdict_again_at_the_end_as_a_report_is_longer_than_a_screen() -> None:
    summary, screen = summary_of("closed_loop"), io.StringIO()
    text.show(run.document(summary), Console(file=screen, width=100, color_system=None, force_terminal=True))

    first, again = screen.getvalue().split("In short")
    for line in headline.lines(summary):
        assert line.name in first
        assert line.name in again


def test_what_a_prompt_cache_answered_is_a_column_where_usage_tells() -> None:
    summary = summary_of("scaling")
    assert "cached" not in on_terminal(summary, 100)

    summary["levels"][0]["cached_share"] = 0.43
    said = on_terminal(summary, 100)

    assert "cached: share of the input tokens" in said
    assert "43%" in said


def test_what_made_up_prompts_have_in_common_is_told() -> None:
    summary = summary_of("scaling")
    summary["run"]["scenario"] = {**(summary["run"].get("scenario") or {}), "max_tokens": 8, "shared_prefix": 0.5}

    assert "50% of each in common" in " ".join(on_terminal(summary, 100).split())


def test_a_flat_doubling_below_a_load_with_much_more_is_not_called_saturation() -> None:
    """c4 has 1.8 times the tokens/s of c1: the first doubling that gained nothing is no end of growth."""
    summary = summary_of("closed_loop")
    model = summary["levels"][0]["model"]
    rows = [level for level in summary["levels"] if level["model"] == model][:3]
    rates = zip(rows, (50.0, 51.0, 90.0), strict=True)
    flat = [{**level, "output_tokens_per_s": x, "output_tokens_per_s_ci95": [x - 1, x + 1]} for level, x in rates]

    assert "saturated" not in sentence({**summary, "levels": flat, "scaling": scaling(flat)})


# -- one answer


def searched(verdict: str, found: int | None) -> dict[str, Any]:
    """Two levels that a search for the capacity tried, the second with this verdict."""
    summary = summary_of("closed_loop")
    model = summary["levels"][0]["model"]
    rows = [level for level in summary["levels"] if level["model"] == model][:2]
    bound = {"bound": "ttft_p95=800ms", "attainment": 0.97, "attained": True, "n": 60}
    tried = [{**level, "slo": [bound], "warnings": []} for level in rows]
    share = {"bound": "ttft_p95=800ms", "share": 0.97, "wanted": 0.95, "interval": [0.9, 1.0], "attained": None}
    steps = [
        {"level": level["id"], "load": n, "verdict": word, "requests": 60, "shares": [share], "reason": None}
        for level, n, word in zip(tried, (1, 2), ("met", verdict), strict=True)
    ]
    record = {"model": model, "by": "concurrency", "slo": ["ttft_p95=800ms"], "found": found, "bracket": [1, 2]}
    more = {"steps": steps, "looks": 1, "confidence": 0.95, "contradictions": [], "reason": None, "estimate": None}
    more |= {"meets": 1, "misses": 2 if verdict == "not met" else None}
    more |= {"undecided": [2] if verdict == "undecided" else []}
    return {**summary, "levels": tried, "scaling": scaling(tried), "capacity": [record | more]}


def test_a_report_on_a_search_gives_its_answer_and_no_other() -> None:
    shown = on_terminal(searched("undecided", found=1), 120)

    assert "capacity 1 stream within ttft_p95=800ms, undecided above" in shown
    assert "carries" not in shown
    assert "too many" not in shown


@pytest.mark.parametrize(("verdict", "word"), [("undecided", "undecided"), ("not met", "NO"), ("met", "yes")])
def test_the_slo_table_says_of_a_probe_what_the_search_decided(verdict: str, word: str) -> None:
    [table] = [objectives.slo(searched(verdict, found=1))]

    assert table is not None
    assert [row[4].text for row in table.rows] == ["yes", word]


def mixed(*names: str | None) -> dict[str, Any]:
    """Levels whose gaps are so; None of a level without one."""
    summary = summary_of("closed_loop")
    model = summary["levels"][0]["model"]
    rows = [level for level in summary["levels"] if level["model"] == model][: len(names)]
    changed = [
        {**level, "itl_name": name or "inter-event", "itl_ms": level["itl_ms"] if name else {"n": 0, "p50": None}}
        for level, name in zip(rows, names, strict=True)
    ]
    return {**summary, "levels": changed}


def test_a_level_without_gaps_renames_none_of_the_others() -> None:
    table = tables.gaps(mixed("inter-token", "inter-token", None))[0]

    assert (table.title, table.columns[1].name) == ("Gaps between tokens", "ITL p50")
    assert "IET" not in " ".join(table.notes)
    assert curves.kinds(mixed("inter-token", None))[1].name == "ITL"


def test_gaps_of_two_kinds_are_named_level_by_level() -> None:
    table = tables.gaps(mixed("inter-token", "inter-event", None))[0]

    assert [row[1].text for row in table.rows] == ["ITL", "IET", "-"]
    assert table.columns[2].name == "gap p50"
    assert curves.kinds(mixed("inter-token", "inter-event"))[1].name == "ITL/IET"


@pytest.mark.parametrize(("done", "more"), [(3.79, True), (3.05, False), (2.0, False)])
def test_more_completed_than_planned_is_put_down_to_chance(done: float, more: bool) -> None:
    summary = summary_of("open_loop")
    level = {**summary["levels"][-1], "request_rate_per_s": 3.0, "requests_per_s": done}
    said = sentence({**summary, "levels": [level]})

    assert f"planned, {done:.3g}" in said
    assert ("more than planned by chance" in said) == more
