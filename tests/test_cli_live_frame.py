"""What the live picture says: of models and levels, of a search, of doubts, of the time left."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest

from loadbench.bounds import Duration
from loadbench.engine import Limits, Progress
from loadbench.runner.plan import Plan, PlannedLevel
from loadbench.scenario import Level
from tests.support.livelevels import ENDED, Terminal, going, over, planned, shown, still

SEARCH = Plan((), (), "")


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
