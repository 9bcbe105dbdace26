"""The live picture on a terminal: any size, name and encoding, a width that changes, and what is left at the end."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.cells import cell_len

from loadbench.serve.simulator import Simulator
from tests.support.livelevels import ENDED, PROBE, Terminal, going, over, planned, shown, still
from tests.support.terminals import Glass, on_terminal

pytestmark = pytest.mark.system

WEIRD = ("[bold]x", "[/]", "a\x1b[2Jb", "模型/" * 9, "phi-4-mini-instruct-cuda-gpu:5-and-what-else-may-come")


@pytest.fixture(autouse=True)
def clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    still(monkeypatch)


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
    assert any(row.startswith("TTFT and throughput") for row in glass.rows)


def test_ctrl_c_leaves_no_torn_lines(quick: Simulator, tmp_path: Path) -> None:
    glass = Glass(80)
    code, _ = on_terminal(
        "run", "-e", quick.url, *RUN, "-o", tmp_path / "run", columns=80, until="measuring", glass=glass
    )

    assert code == 130
    assert picture(glass) == []
    assert any(row.startswith("stopping: requests in flight") for row in glass.rows)


def test_without_progress_a_terminal_gets_plain_lines(quick: Simulator, tmp_path: Path) -> None:
    _, seen = on_terminal("run", "-e", quick.url, *RUN, "-o", tmp_path / "run", "--no-progress", "-c", "1")

    assert "▸" not in seen
    assert "[1/1] simulator@c1  " in seen
