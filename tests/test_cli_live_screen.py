"""The live picture: what it says of levels, a search and the time left; any terminal; what is left at the end."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from loadbench.engine import Limits, Progress
from loadbench.runner.plan import Plan, PlannedLevel
from loadbench.scenario import Level
from loadbench.scenario.bounds import Duration
from loadbench.serve.simulator import Simulator
from tests.support.livelevels import ENDED, PROBE, Terminal, going, over, planned, shown, still
from tests.support.terminals import Glass, on_terminal

SEARCH = Plan((), (), "")
WEIRD = ("[bold]x", "[/]", "a\x1b[2Jb", "模型/" * 9, "phi-4-mini-instruct-cuda-gpu:5-and-what-else-may-come")


@pytest.fixture(autouse=True)
def clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    still(monkeypatch)


# -- models and levels


def test_a_model_tells_how_far_it_is_its_failures_and_its_best_level() -> None:
    steps = planned(["m", "n"])
    terminal = shown(steps)
    first = over(going(steps))
    first.text_events = 150
    terminal.screen.ended(first, ENDED)

    assert terminal.row(" m  ") == "  m  1 of 2 levels, 1 failed, best 25.0 tokens/s at c1"
    assert terminal.row(" n  ") == "  n  2 levels"


def test_what_has_no_room_beside_a_models_name_is_left_out_whole() -> None:
    assert shown(planned(["m"]), terminal=Terminal(24)).frame[1] == "▸ m  0 of 2 levels"


def test_a_level_that_is_over_is_ticked_off_and_one_that_was_cut_says_so() -> None:
    steps = planned()
    terminal = shown(steps)
    terminal.screen.ended(over(going(steps)), ENDED)
    terminal.screen.began(Progress(steps.levels[1].level, 1, steps.levels[1].limits), steps.levels[1])
    terminal.screen.tick(going(steps, 1), 90)
    terminal.screen.ended(over(going(steps, 1)), {**ENDED, "status": "interrupted"})

    assert terminal.row("✓ c1")
    assert terminal.row("✗ c4")


def test_a_level_that_failed_says_why_above_the_picture() -> None:
    steps = planned()
    terminal = shown(steps)
    terminal.screen.ended(over(going(steps)), {**ENDED, "status": "failed", "reason": "no request completed"})

    assert "m@c1 failed: no request completed" in terminal.lines
    assert terminal.row("✗ c1")


def test_a_level_that_is_left_out_says_so() -> None:
    steps = planned()
    terminal = shown(steps)
    terminal.screen.skipped(steps.levels[1].level, "the budget of time is spent")

    assert re.match(r"  - c4 +skipped: the budget of time is spent$", terminal.row("- c4"))
    assert "m@c4 skipped: the budget of time is spent" in terminal.lines


def test_repeats_and_the_first_level_again_have_rows_of_their_own() -> None:
    frame = shown(planned(concurrency=[1, 4, 4], repeat_first=True)).frame

    assert [line.strip() for line in frame[3:5]] == ["c4", "c4#2"]
    closing = shown(planned(repeat_first=True)).frame
    assert closing[4].strip() == "c1#end"


def test_a_sparkline_shows_a_dip() -> None:
    steps = planned()
    terminal = shown(steps)  # 90
    for text_events in (180, 270, 270, 360):
        terminal.screen.tick(going(steps), text_events)

    assert re.match(r"  ▸ c1 +███▁█ ", terminal.row("▸ c1"))


def test_of_whole_answers_the_times_are_of_e2e() -> None:
    steps = planned()
    progress = going(steps)
    progress.histograms["e2e"], progress.histograms["ttft"] = progress.histograms["ttft"], progress.histograms["e2e"]
    terminal = shown(steps)
    terminal.screen.tick(progress, 180)

    assert "E2E p50/p95" in terminal.frame[0]
    assert "269 / 481 ms" in terminal.row("▸ c1")


def test_of_many_levels_those_around_the_present_one_are_on_the_screen() -> None:
    frame = shown(planned(concurrency=list(range(1, 101))), 60).frame

    assert len(frame) < 24
    assert frame[2] == "    … 52 more levels above"
    assert "  ▸ c61 " in "\n".join(frame)
    assert next(line for line in frame if "below" in line) == "    … 32 more levels below"


def test_of_many_models_the_present_one_shows_its_levels() -> None:
    steps = planned([f"m{n}" for n in range(30)], concurrency=list(range(1, 13)))
    frame = shown(steps, 12 * 14 + 5).frame

    assert len(frame) < 24
    assert any(line.startswith("▸ m14 ") for line in frame)
    assert any(line.startswith("  ▸ c6 ") for line in frame)
    assert [line.strip() for line in frame if "more models" in line] == [
        "… 10 more models above",
        "… 12 more models below",
    ]


# -- a search


def probe_of(load: int) -> tuple[Progress, PlannedLevel]:
    level = Level(f"m@c{load}", "m", load, None, 1)
    limits = Limits(400, None, 1)
    progress = going(Plan((PlannedLevel(level, limits, 0.0, 0.0),), (), ""))
    return progress, PlannedLevel(level, limits, 0.0, 0.0)


def searched(*steps: tuple[int, str, Sequence[int | None]], found: int | None = None, **facts: object) -> Terminal:
    terminal = Terminal()
    terminal.screen.opening({"models": ["m"], **facts}, [], SEARCH)
    for load, verdict, bracket in steps:
        progress, given = probe_of(load)
        terminal.screen.began(progress, given)
        step = {"level": progress.level.id, "verdict": verdict, "bracket": bracket, "found": found}
        terminal.screen.step("m", step, f"c{load}: {verdict} (in words)")
        terminal.screen.ended(over(progress), ENDED)
    return terminal


def test_a_search_shows_its_steps_and_the_bracket() -> None:
    terminal = searched((4, "met", [4, None]), (8, "not met", [4, 8]))

    assert terminal.frame[1] == "✓ m  from 4 to less than 8 streams, 2 failed"
    assert re.match(r"  ✓ c4 .* met$", terminal.frame[2].rstrip())
    assert re.match(r"  ✗ c8 .* not met$", terminal.frame[3].rstrip())
    assert "last step  c8: not met (in words)" in terminal.frame


def test_a_search_that_found_its_answer_says_it() -> None:
    assert searched((4, "met", [4, 5]), found=4).frame[1].startswith("✓ m  capacity 4 streams")


def test_a_search_tells_how_much_of_its_budget_is_left() -> None:
    assert re.search(r"run  +[━─]+  9:5\d left at most, step 1", searched((4, "met", [4, 5]), budget_s=600.0).frame[-2])


# -- doubts


def test_failures_show_as_they_appear_with_the_last_message() -> None:
    assert shown(planned()).frame[-1].startswith("! c1: 1 http_429; last: HTTP 429: too many requests, please come")


def test_a_client_that_waits_for_a_core_is_told_of_while_it_does() -> None:
    steps = planned()
    progress = going(steps)
    progress.client_wait_share = 0.2
    terminal = shown(steps)
    for _ in range(4):
        terminal.screen.tick(progress, 90)

    assert "! c1: this client waited for a core 20 % of the time" in "\n".join(terminal.frame)


def test_a_lag_alone_is_no_fault_of_the_client() -> None:
    steps = planned()
    progress = going(steps)
    progress.histograms["itl"].record_many([10_000] * 300)
    progress.histograms["client_lag"].record_many([6_000] * 300)
    terminal = shown(steps)
    for _ in range(4):
        terminal.screen.tick(progress, 90)

    assert "lag" not in "\n".join(terminal.frame)


def sample(cpu_s: float, throttled: int, at_s: float) -> dict[str, Any]:
    machine = {"cpu_s": cpu_s, "throttled": throttled}
    return {"at_s": at_s, "level": "m@c1", "server": {"cpu_s": 0.0}, "client": {"cpu_s": 0.0}, "machine": machine}


def test_throttling_shows_as_it_appears() -> None:
    steps = planned()
    terminal = shown(steps)
    for number in range(8):
        terminal.screen.sampled(sample(0.0, number, number))
        terminal.screen.tick(going(steps), 90)

    assert "! c1: the processor or the GPU was throttled" in "\n".join(terminal.frame)


def test_a_message_cannot_move_the_cursor() -> None:
    steps = planned()
    progress = going(steps)
    progress.last_error = "http_429: a\x1b[2J\nb"
    terminal = shown(steps)
    terminal.screen.tick(progress, 90)

    assert terminal.frame[-1] == "! c1: 1 http_429; last: a[2Jb"


# -- the time left


def left(steps: Plan, progress: Progress, *done: Progress) -> str:
    terminal = Terminal()
    terminal.screen.opening({}, [], steps)
    for number, one in enumerate([*done, progress]):
        terminal.screen.began(Progress(one.level, 1, one.limits), steps.levels[number])
        terminal.screen.tick(one, 90)
        if one is not progress:
            terminal.screen.ended(over(one), ENDED)
    found = re.search(r"about (\d+:\d\d) left", "\n".join(terminal.frame))
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


def test_the_level_tells_its_own_time_left() -> None:
    row = next(line for line in shown(planned()).frame if line.startswith("c1 "))

    assert re.match(r"c1 +━+─+  0:05 left, measuring, 1 in flight$", row)


# -- any size, any name


@pytest.mark.parametrize("width", [120, 80, 60, 33])
@pytest.mark.parametrize("model", WEIRD)
def test_no_line_is_wider_than_the_terminal_whatever_the_model_is_called(model: str, width: int) -> None:
    steps = planned([model, "gpt"])
    terminal = shown(steps, terminal=Terminal(width))
    terminal.screen.note(f"{model}: stopping")
    terminal.screen.probed({**PROBE, "model": model})
    terminal.screen.ended(over(going(steps)), {**ENDED, "status": "interrupted"})
    terminal.screen.skipped(steps.levels[1].level, "its model failed")
    terminal.screen.tick(going(steps, 2), 120)
    terminal.screen.close()

    assert [line for line in terminal.lines if cell_len(line) > width] == []


@pytest.mark.parametrize(("width", "height"), [*itertools.product([1, 7, 20, 45, 80, 200], [1, 2, 3, 5, 9, 24, 70])])
def test_the_picture_fits_any_terminal(width: int, height: int) -> None:
    steps = planned([f"model-{n}" for n in range(30)], concurrency=list(range(1, 13)))
    terminal = shown(steps, 100, Terminal(width, height))
    lines = [line for line in terminal.frame if line]

    assert len(terminal.frame) < max(height, 2)
    assert [line for line in lines if cell_len(line) > width] == []


def test_a_model_called_like_markup_is_shown_as_it_is() -> None:
    assert "▸ [bold]x[/]  " in shown(planned(["[bold]x[/]"])).frame[1]


def test_a_models_name_cannot_move_the_cursor() -> None:
    assert "▸ a[2Jb  " in shown(planned(["a\x1b[2Jb"])).frame[1]


def test_a_long_name_keeps_its_end() -> None:
    steps = planned(["Phi-4-mini-instruct-cuda-gpu:5-" + "x" * 40, "Phi-4-mini-instruct-generic-" + "x" * 40 + "cpu:5"])
    terminal = shown(steps)

    assert re.match(r"▸ Phi-4-mini-instruct-…x+  0 of 2 levels", terminal.frame[1])
    assert re.match(r"  Phi-4-mini-instruct-…x+cpu:5  2 levels", terminal.frame[4])


def test_every_figure_is_whole_at_80_columns() -> None:
    head, _, row, *_ = shown(planned(["Phi-4-mini-instruct-cuda-gpu:5"])).frame

    assert head.split() == ["level", "tokens/s", "TTFT", "p50/p95", "done", "fail"]
    assert re.match(r"  ▸ c1 +█+ +\d+\.\d +█+ +269 / 481 ms +2 +1$", row)


def test_every_figure_but_how_many_were_done_is_whole_at_60_columns() -> None:
    head, _, row, *_ = shown(planned(["Phi-4-mini-instruct-cuda-gpu:5"]), terminal=Terminal(60)).frame

    assert head.split() == ["level", "tokens/s", "TTFT", "p50/p95", "fail"]
    assert re.match(r"  ▸ c1 +█+ +\d+\.\d +█+ +269 / 481 ms +1$", row)


# -- drawing


def test_a_note_leaves_the_picture_as_it_was() -> None:
    terminal = shown(planned())
    terminal.screen.note("stopping: requests in flight run to their end")
    before = terminal.drawn.partition("\n")[2]
    terminal.screen.note("once more")

    assert terminal.frame[0] == "once more"
    assert [line[:60] for line in terminal.drawn.partition("\n")[2].split("\n")[:5]] == [
        line[:60] for line in before.split("\n")[:5]
    ]  # in its own colours


def test_the_last_line_leaves_room_for_the_terminals_ctrl_c() -> None:
    last = shown(planned()).frame[-1]

    assert last.endswith("…")
    assert cell_len(last) <= 76


def test_the_terminal_is_given_back_at_the_end() -> None:
    terminal = shown(planned())
    glass = Glass(80)
    terminal.screen.close()
    glass.write(terminal.text)

    assert terminal.text.endswith("\x1b[2K")  # erased: the report follows
    assert [row for row in glass.rows if row] == []
    assert terminal.text.rindex("\x1b[?25h") > terminal.text.rindex("\x1b[?25l")


@pytest.mark.parametrize("widths", [(120, 60), (60, 120), (120, 80, 50, 33, 100)])
def test_a_terminal_that_changes_its_width_shows_the_picture_once(widths: Sequence[int]) -> None:
    steps = planned(["phi-4-mini-instruct-cuda-gpu:5"])
    terminal, glass, seen = Terminal(widths[0]), Glass(widths[0]), 0
    for width in widths:
        if width == widths[0]:
            shown(steps, terminal=terminal)
        else:
            glass.resize(width)
            terminal.console.width = width
            terminal.screen.tick(going(steps), 90)
        glass.write(terminal.text[seen:])
        seen = len(terminal.text)

    rows = [row for row in glass.rows if row]
    assert [sum(row.startswith(word) for row in rows) for word in ("level", "▸", "  ▸ c1", "run", "!")] == [1] * 5
    assert len(rows) == len([line for line in terminal.frame if line])


def test_a_note_after_a_change_of_width_leaves_no_torn_lines() -> None:
    terminal, glass = Terminal(120), Glass(120)
    shown(planned(), terminal=terminal)
    glass.write(terminal.text)
    seen = len(terminal.text)
    glass.resize(50)
    terminal.console.width = 50
    terminal.screen.note("stopping")
    glass.write(terminal.text[seen:])

    assert [row for row in glass.rows if row] == [line.rstrip() for line in terminal.frame if line]


def test_where_others_are_no_unicode_there_are_signs_of_ascii() -> None:
    terminal = shown(planned(["模型"]), terminal=Terminal(encoding="ascii"))

    assert terminal.text.isascii()
    assert terminal.frame[1].startswith("> ??  0 of 2 levels")
    assert re.match(r"  > c1 +@+ ", terminal.row("> c1"))


def test_a_terminal_that_cuts_its_lines_keeps_what_stands_above_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XTERM_VERSION", "XTerm(390)")
    terminal = shown(planned(), terminal=Terminal(120))
    lines, seen = len(terminal.frame), len(terminal.text)
    terminal.console.width = 50
    terminal.screen.tick(going(planned()), 90)

    assert terminal.text[seen:].count("\x1b[1A") == lines - 1


def test_the_c_locale_gets_signs_of_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANG", "C")

    assert shown(planned()).text.isascii()


def test_without_colour_the_marks_still_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = shown(planned(), terminal=Terminal(no_color=True))

    assert re.findall(r"\x1b\[(?:3|9)\d", terminal.text) == []
    assert terminal.row("▸ c1")


# -- a whole run on a terminal


RUN = ("-c", "1,2", "-d", "1.5s", "--max-tokens", "8", "--no-repeat-first")


def picture(glass: Glass) -> list[str]:
    """What is left of the picture."""
    return [row for row in glass.rows if re.match(r" *▸|level +tokens/s +TTFT|run  |c\d +[━─]|! c\d+:", row)]


@pytest.mark.system
@pytest.mark.parametrize(("columns", "narrowed"), [(80, None), (120, ("level 2 of 2", 60))])
def test_after_a_run_the_report_stands_where_the_picture_was(
    quick: Simulator, tmp_path: Path, columns: int, narrowed: tuple[str, int] | None
) -> None:
    glass = Glass(columns)
    code, seen = on_terminal(
        *("run", "-e", quick.url, *RUN, "-o", tmp_path / "run"), columns=columns, narrowed=narrowed, glass=glass
    )

    assert code == 0
    assert "▸ c2 " in seen
    assert glass.columns == (columns if narrowed is None else narrowed[1])
    assert picture(glass) == []
    assert any(row.lstrip().startswith("users ") for row in glass.rows)


@pytest.mark.system
def test_ctrl_c_leaves_no_torn_lines(quick: Simulator, tmp_path: Path) -> None:
    glass = Glass(80)
    code, _ = on_terminal(
        "run", "-e", quick.url, *RUN, "-o", tmp_path / "run", columns=80, until="measuring", glass=glass
    )

    assert code == 130
    assert picture(glass) == []
    assert any(row.startswith("stopping: requests in flight") for row in glass.rows)


@pytest.mark.system
def test_without_progress_a_terminal_gets_plain_lines(quick: Simulator, tmp_path: Path) -> None:
    _, seen = on_terminal("run", "-e", quick.url, *RUN, "-o", tmp_path / "run", "--no-progress", "-c", "1")

    assert "▸" not in seen
    assert "[1/1] simulator@c1  " in seen
