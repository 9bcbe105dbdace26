"""What a run shows while it goes on: the live table, plain lines, JSON lines."""

from __future__ import annotations

import io
import itertools
import json
import re
import sys
import types
from collections.abc import Sequence

import pytest
from rich.cells import cell_len
from rich.console import Console

from loadbench import plan
from loadbench.cli import live, table
from loadbench.cli.live import JsonLines, Lines, Silent
from loadbench.cli.table import Table
from loadbench.engine import Progress
from loadbench.histogram import Histogram
from loadbench.plan import Plan
from loadbench.scenario import Duration, Scenario

NOW_NS = 10**15
WEIRD = ("[bold]x", "[/]", "a\x1b[2Jb", "模型/" * 9, "phi-4-mini-instruct-cuda-gpu:5-and-what-else-may-come")


def planned(models: Sequence[str] = ("m",), **settings: object) -> Plan:
    return plan.make(Scenario(**{"concurrency": [1, 4], "duration": Duration(10.0), **settings}), models)  # type: ignore[arg-type]


def going(steps: Plan, at: int = 0, *, since_s: float = 6.0, measured_s: float = 5.0) -> Progress:
    """A level of the plan some seconds after its beginning, with two requests done and one failed."""
    progress = Progress(steps.levels[at].level, 1, steps.levels[at].limits)
    progress.began_ns = NOW_NS - int(since_s * 1e9)
    progress.measured_from_ns = NOW_NS - int(measured_s * 1e9)
    progress.phase = "measuring"
    progress.in_flight, progress.issued, progress.ended, progress.completed, progress.failed = 1, 4, 3, 2, 1
    progress.errors["http_429"] = 1
    progress.last_error = "http_429: HTTP 429: too many requests, please come back " + "later " * 20
    for us in (269_000, 481_000):
        progress.histograms["ttft"].record(us)
    return progress


def over(progress: Progress) -> Progress:
    progress.ended_ns = NOW_NS
    return progress


ENDED = {"status": "complete", "reason": None, "duration_s": 6.0}
PROBE = {
    **{"model": "m", "purpose": "first", "requests": 1, "error": None, "error_message": None},
    **{"ttft_ms": 50.0, "e2e_ms": 90.0},
}


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of the marks stands still at NOW_NS; that of the speed moves on by a second with each look."""
    seconds = itertools.count(NOW_NS // 10**9)
    monkeypatch.setattr(table, "time", types.SimpleNamespace(perf_counter_ns=lambda: NOW_NS))
    monkeypatch.setattr(live, "time", types.SimpleNamespace(monotonic=lambda: next(seconds)))


class Screen:
    """A terminal that takes down all that a live table writes."""

    def __init__(self, width: int = 80, height: int = 24) -> None:
        self._file = io.StringIO()
        console = Console(
            file=self._file, width=width, height=height, force_terminal=True, color_system="standard", no_color=False
        )
        self.table = Table(console)

    @property
    def lines(self) -> list[str]:
        """All lines that were ever written, control sequences left out."""
        return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", self._file.getvalue()).replace("\r", "\n").split("\n")

    @property
    def drawn(self) -> str:
        """What was drawn last, with its colours."""
        return self._file.getvalue().rpartition("\x1b[2K")[2]

    @property
    def frame(self) -> list[str]:
        """The lines that were drawn last."""
        return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", self.drawn).replace("\r", "").split("\n")


def shown(steps: Plan, at: int = 0, screen: Screen | None = None) -> Screen:
    """A screen on which a level of the plan is going on."""
    screen = screen or Screen()
    screen.table.opening({}, [], steps)
    screen.table.began(Progress(steps.levels[at].level, 1, steps.levels[at].limits), steps.levels[at])
    screen.table.tick(going(steps, at), 90)
    return screen


# -- the table


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("model", WEIRD)
def test_no_line_is_wider_than_the_terminal_whatever_the_model_is_called(model: str, width: int) -> None:
    steps = planned([model, "gpt"])
    screen = shown(steps, screen=Screen(width))
    screen.table.note(f"{model}: stopping")
    screen.table.probed({**PROBE, "model": model})
    screen.table.ended(over(going(steps)), {**ENDED, "status": "interrupted"})
    screen.table.skipped(steps.levels[1].level, "its model failed")
    screen.table.tick(going(steps, 2), 120)
    screen.table.close()

    assert [line for line in screen.lines if cell_len(line) > width] == []


def test_a_model_called_like_markup_is_shown_as_it_is() -> None:
    screen = shown(planned(["[bold]x[/]"]))

    assert screen.frame[2].startswith("[bold]x[/]@c1  ")


def test_a_models_name_cannot_move_the_cursor() -> None:
    assert shown(planned(["a\x1b[2Jb"])).frame[2].startswith("a[2Jb@c1  ")


def test_a_long_name_keeps_its_end_and_its_load() -> None:
    steps = planned(["Phi-4-mini-instruct-cuda-gpu:5", "Phi-4-mini-instruct-generic-cpu:5"])
    rows = shown(steps).frame[2:6]

    names = [row.split("  ")[0] for row in rows]
    assert len(set(names)) == 4
    assert [name[-8:] for name in names] == ["gpu:5@c1", "gpu:5@c4", "cpu:5@c1", "cpu:5@c4"]


def test_every_figure_is_whole_at_80_columns() -> None:
    header, _, row, *_ = shown(planned(["Phi-4-mini-instruct-cuda-gpu:5"])).frame

    assert header.split()[-5:] == ["done", "fail", "tok/s", "TTFT", "p50/p95"]
    assert re.search(r" 1 +2 +1 +\d+ +269 / 481 ms$", row)


@pytest.mark.parametrize(
    ("us", "text"), [((269_000, 481_000), "269 / 481 ms"), ((269_000, 1_204_000), "0.27 / 1.20 s"), ((), "-")]
)
def test_both_times_have_one_unit(us: Sequence[int], text: str) -> None:
    steps = planned()
    progress = going(steps)
    progress.histograms["ttft"] = type(progress.histograms["ttft"])()
    for value in us:
        progress.histograms["ttft"].record(value)
    screen = shown(steps)
    screen.table.tick(progress, 90)

    assert screen.frame[2].endswith(f"  {text}")


def test_a_note_leaves_the_table_as_it_was() -> None:
    screen = shown(planned())
    before = screen.drawn
    screen.table.note("stopping: requests in flight run to their end")

    assert screen.frame[0] == "stopping: requests in flight run to their end"
    assert screen.drawn.partition("\n")[2] == before  # in its own colours


def test_the_last_line_leaves_room_for_the_terminals_ctrl_c() -> None:
    last = shown(planned()).frame[-1]

    assert last.startswith("measuring · about ")
    assert last.endswith("…")
    assert cell_len(last) <= 76


def test_the_time_left_stands_before_an_error_however_long() -> None:
    assert re.match(r"measuring · about \d+:\d\d left · last error: http_429: ", shown(planned()).frame[-1])


def test_a_level_that_is_over_is_ticked_off_and_one_that_was_cut_says_so() -> None:
    steps = planned()
    screen = shown(steps)
    screen.table.ended(over(going(steps)), ENDED)
    screen.table.tick(going(steps, 1), 90)
    complete = screen.frame
    screen.table.ended(over(going(steps, 1)), {**ENDED, "status": "interrupted"})
    screen.table.tick(going(steps, 1), 90)
    screen.table.note("")

    assert re.match(r"m@c1 +✓ ", complete[2])
    assert re.match(r"m@c4 +━+ ", complete[3])


def test_a_level_that_is_left_out_says_so() -> None:
    steps = planned()
    screen = shown(steps)
    screen.table.skipped(steps.levels[1].level, "the budget of time is spent")
    screen.table.tick(going(steps), 90)

    assert re.match(r"m@c4 +skipped ", screen.frame[3])
    assert "m@c4 skipped: the budget of time is spent" in screen.lines


def test_of_many_levels_those_around_the_present_one_are_on_the_screen() -> None:
    steps = planned(concurrency=list(range(1, 101)))
    frame = shown(steps, 60).frame

    assert len(frame) < 24
    assert [row.split()[0] for row in frame[2:-1]] == [f"m@c{n}" for n in range(52, 70)]


def test_the_console_is_given_back_at_the_end() -> None:
    screen = shown(planned())
    screen.table.close()

    assert screen._file.getvalue().endswith("\x1b[2K")  # erased: the report follows


# -- the time left


def left(steps: Plan, progress: Progress, *done: Progress) -> str:
    screen = Screen()
    screen.table.opening({}, [], steps)
    for number, one in enumerate([*done, progress]):
        screen.table.began(Progress(one.level, 1, one.limits), steps.levels[number])
        screen.table.tick(one, 90)
        if one is not progress:
            screen.table.ended(over(one), ENDED)
    found = re.search(r"about (\d+:\d\d) left", screen.frame[-1])
    assert found
    return found[1]


def test_half_of_the_time_is_left_after_half_of_the_measurement() -> None:
    assert left(planned(concurrency=[1]), going(planned(concurrency=[1]), since_s=6, measured_s=5)) == "0:05"


def test_the_warm_up_is_no_part_of_the_measurement() -> None:
    slow = going(planned(concurrency=[1]), since_s=105, measured_s=5)

    assert left(planned(concurrency=[1]), slow) == "0:05"


def test_requests_tell_the_time_left_where_there_is_no_duration() -> None:
    steps = planned(concurrency=[1], duration=None, requests=30)

    assert left(steps, going(steps, since_s=3, measured_s=3)) == "0:27"  # 3 of 30 in 3 s


def test_levels_to_come_take_as_much_longer_than_planned_as_those_that_are_done() -> None:
    steps = planned(duration=None, requests=10, warmup=0, concurrency=[1, 1, 1], max_tokens=15)  # 10 s each, planned
    first = going(steps, since_s=20, measured_s=20)
    second = going(steps, 1, since_s=6, measured_s=6)  # 3 of 10: 20 s

    assert left(steps, second, first) == "0:34"


def test_the_time_left_is_never_sixty_seconds() -> None:
    steps = planned(concurrency=[1], duration=Duration(64.7))

    assert left(steps, going(steps, since_s=5, measured_s=5)) == "1:00"


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
        monkeypatch.setattr(live, "time", types.SimpleNamespace(monotonic=lambda at_s=at_s: at_s))
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
    view = JsonLines()
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
        (False, False, True, True, Table),
        (False, False, True, False, Lines),
        (False, False, False, True, Lines),
        (False, True, True, True, Silent),
        (True, False, True, True, JsonLines),
        (True, True, True, True, JsonLines),  # what was asked for outright goes on
    ],
)
def test_each_reader_gets_the_view_that_suits(
    monkeypatch: pytest.MonkeyPatch, as_json: bool, quiet: bool, progress: bool, terminal: bool, kind: type
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)

    assert type(live.view(as_json=as_json, quiet=quiet, progress=progress)) is kind
