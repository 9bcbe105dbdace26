"""What a run says while it goes on: plain lines, JSON lines, and which view a reader gets."""

from __future__ import annotations

import itertools
import json
import sys
import types

import pytest

from loadbench.cli import outcome, run
from loadbench.cli.lines import Lines
from loadbench.cli.screen import Screen
from loadbench.runner.watch import JsonLines, View
from loadbench.store.histogram import Histogram
from tests.support.livelevels import ENDED, NOW_NS, PROBE, going, over, planned


@pytest.fixture(autouse=True)
def clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock moves on by a second with each look."""
    seconds = itertools.count(NOW_NS // 10**9)
    monkeypatch.setattr("loadbench.cli.lines.time", types.SimpleNamespace(monotonic=lambda: next(seconds)))


# -- plain lines


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Lines:
    steps = planned()
    view = Lines()
    view.opening({}, ["target    http://x/v1"], steps)
    capsys.readouterr()
    view.began(going(steps), steps.levels[0])
    return view


def test_a_level_ends_with_one_plain_line(lines: Lines, capsys: pytest.CaptureFixture[str]) -> None:
    lines.ended(over(going(planned())), ENDED)

    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "[1/2] m@c1  6.0 s, 2 completed, 1 http_429, TTFT p50 269 ms, p95 481 ms\n"


def test_a_level_that_was_cut_says_why(lines: Lines, capsys: pytest.CaptureFixture[str]) -> None:
    lines.ended(over(going(planned())), {**ENDED, "status": "failed", "reason": "no request completed"})

    assert capsys.readouterr().err.endswith("  failed: no request completed\n")


def test_lines_come_every_five_seconds(
    lines: Lines, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for second in range(1, 13):
        at_s = NOW_NS // 10**9 + 2 + second  # two looks began the level
        monkeypatch.setattr("loadbench.cli.lines.time", types.SimpleNamespace(monotonic=lambda at_s=at_s: at_s))
        lines.tick(going(planned()), 30 * second)

    said = capsys.readouterr().err.splitlines()
    assert (
        said == ["[1/2] m@c1  measuring, 1 in flight, 3 done, 30 tokens/s, TTFT p50 269 ms, p95 481 ms, 1 http_429"] * 2
    )


def test_levels_are_counted_those_left_out_too(lines: Lines, capsys: pytest.CaptureFixture[str]) -> None:
    lines.skipped(planned().levels[1].level, "the budget of time is spent")

    assert capsys.readouterr().err == "[2/2] m@c4  skipped: the budget of time is spent\n"


def test_dropped_requests_are_said(lines: Lines, capsys: pytest.CaptureFixture[str]) -> None:
    progress = over(going(planned()))
    progress.dropped = 7
    lines.ended(progress, ENDED)

    assert ", 7 dropped, " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("probe", "line"),
    [
        (PROBE, "m: answers, first token after 50 ms\n"),
        ({**PROBE, "ttft_ms": 3210.0}, "m: answers, first token after 3.21 s\n"),
        (
            {**PROBE, "error": "http_4xx", "error_message": "HTTP 404: gone", "ttft_ms": None},
            "m: does not answer: http_4xx: HTTP 404: gone\n",
        ),
        ({**PROBE, "ttft_ms": None}, "m: answers, whole after 90 ms\n"),  # a whole one was asked for
        ({**PROBE, "purpose": "warm"}, ""),  # the second one is no news
    ],
)
def test_whether_a_model_answers_is_a_line(
    lines: Lines, capsys: pytest.CaptureFixture[str], probe: dict[str, object], line: str
) -> None:
    lines.probed(probe)

    assert capsys.readouterr().err == line


def test_of_whole_answers_a_line_tells_how_long_they_took(lines: Lines, capsys: pytest.CaptureFixture[str]) -> None:
    progress = over(going(planned()))
    progress.histograms["e2e"].record(900_000)
    progress.histograms["ttft"] = Histogram()
    lines.ended(progress, ENDED)

    assert "E2E p50 900 ms, p95 900 ms" in capsys.readouterr().err


def test_plain_lines_hold_no_control_characters(lines: Lines, capsys: pytest.CaptureFixture[str]) -> None:
    lines.note("a\x1b[2Jb\rc\nd")

    assert capsys.readouterr().err == "a[2Jbcd\n"


# -- JSON lines


def test_json_lines_say_each_event_with_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    steps = planned(["[bold]x\n"])
    view = JsonLines(sys.stdout.buffer)
    view.opening({"target": "http://x/v1"}, ["for people"], steps)
    view.probed(PROBE)
    view.began(going(steps), steps.levels[0])
    view.tick(going(steps), 90)
    view.note("stopping")
    view.ended(going(steps), ENDED)
    view.skipped(steps.levels[1].level, "no time")
    view.summary({"schema": 1})

    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one.pop("event") for one in said] == [
        *("plan", "probe", "level_began", "progress", "note", "level_ended", "level_skipped", "summary")
    ]
    assert said[0]["levels"] == ["[bold]x\n@c1", "[bold]x\n@c4"]
    assert said[0]["target"] == "http://x/v1"
    assert 0 < said[0]["shortest_s"] <= said[0]["longest_s"]
    assert said[3] == {
        "level": "[bold]x\n@c1",
        "phase": "measuring",
        "in_flight": 1,
        "ended": 3,
        "completed": 2,
        "failed": 1,
        "dropped": 0,
        "text_events": 90,
        "ttft_p50_us": pytest.approx(269_000, rel=1e-3),
        "ttft_p95_us": pytest.approx(481_000, rel=1e-3),
    }
    assert said[5] == {"level": "[bold]x\n@c1", "status": "complete", "reason": None}
    assert said[-1] == {"summary": {"schema": 1}}


# -- which one


@pytest.mark.parametrize(
    ("as_json", "quiet", "progress", "terminal", "kind"),
    [
        (False, False, True, True, Screen),
        (False, False, True, False, Lines),
        (False, False, False, True, Lines),
        (False, True, True, True, View),
        (True, False, True, True, JsonLines),
        (True, True, True, True, JsonLines),  # what was asked for outright goes on
    ],
)
def test_each_reader_gets_the_view_that_suits(
    monkeypatch: pytest.MonkeyPatch, as_json: bool, quiet: bool, progress: bool, terminal: bool, kind: type
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    monkeypatch.setenv("TERM", "xterm")

    assert type(outcome.view(run.Shown(as_json=as_json, quiet=quiet, no_progress=not progress))) is kind


def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")

    assert type(outcome.view(run.Shown())) is Lines
