"""The lines of the live picture, from what is known and the room there is. Pure: nothing is drawn here.

level                tokens/s                  TTFT p50/p95  done  fail
▸ qwen2.5-0.5b  1 of 3 levels, best 60.2 tokens/s at c1
  ✓ c1     ▇▇█▇▇▇▇▇      60.2  ▃▃▂▂▄▄▃▂        288 / 467 ms    66     0
  ▸ c2     ▇▇█▇▇         55.0  ▃▃▂▂▄           374 / 711 ms    21     2
    c4

c2   ━━━━━━━━────────────  0:12 left, measuring, 2 in flight
run  ━━━━────────────────  about 1:20 left, level 2 of 3
! c2: 2 http_429; last: HTTP 429: too many requests
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from loadbench.cli.live.clock import share
from loadbench.cli.live.course import Course
from loadbench.cli.live.levels import body
from loadbench.cli.live.signs import BLOCKS, NAME_MOST, Signs, append, short
from loadbench.cli.live.words import clock

_DOUBTS_MOST = 3
_LAST_FREE = 4
"""Columns at the end of the last line: a terminal writes ^C there, and at the edge that would wrap."""


def lines(
    course: Course, doubts: Sequence[tuple[str, str]], width: int, height: int, signs: Signs = BLOCKS
) -> list[Text]:
    """The picture: fewer lines than `height`, none wider than `width`."""
    foot = _foot(course, width, signs)
    spare = height - 1 - len(foot)
    below = _doubts(course, doubts, width, signs)[-max(0, min(_DOUBTS_MOST, spare // 5)) :] if spare >= 5 else []
    table = body(course, width, max(0, spare - len(below)), signs)
    apart = [Text()] if len(table) + len(below) < spare else []
    picture = [*table, *apart, *foot, *below][-max(1, height - 1) :]
    for line in picture[:-1]:
        line.truncate(width, overflow="crop")
    picture[-1].truncate(max(1, width - _LAST_FREE), overflow="crop")
    return picture


def _foot(course: Course, width: int, signs: Signs) -> list[Text]:
    """Two bars: of the level, and of the run; of a search what its last step said."""
    progress = course.present
    if progress is None:
        return [Text("")]
    row = course.rows[progress.level.id]
    name, lead = signs.safe(row.name), max(3, min(NAME_MOST, cell_len(signs.safe(row.name))))
    if row.state == "present":
        left_s, requests = course.clock.level_s(progress), progress.limits.requests
        words = [f"{clock(left_s)} left"] if left_s is not None and progress.phase != "draining" else []
        words += [progress.phase, f"{progress.in_flight} in flight"]
        words += [f"{progress.ended} of {requests} requests"] if requests else []
        level = _bar(name, lead, share(progress), words, width, signs)
    else:
        level = _bar(name, lead, 1.0, [row.state], width, signs)
    search = course.searches.get(progress.level.model)
    step = [Text(signs.safe(f"last step  {search.step}"), style="dim")] if search is not None else []
    return [*step, level, _run(course, lead, width, signs)]


def _run(course: Course, lead: int, width: int, signs: Signs) -> Text:
    present, total = course.present, len(course.rows)
    so_far_s = 0.0 if course.began_s is None else time.monotonic() - course.began_s
    if course.is_search:
        budget_s = course.budget_s
        end = f"{clock(so_far_s)} so far" if budget_s is None else f"{clock(budget_s - so_far_s)} left at most"
        done = 0.0 if budget_s is None else min(1.0, so_far_s / budget_s)
        return _bar("run", lead, done, [end, f"step {total}"], width, signs, bar=budget_s is not None)
    going = present is not None and course.rows[present.level.id].state == "present"
    left_s = course.clock.run_s(present if going else None)
    done = so_far_s / max(so_far_s + left_s, 1e-9)
    words = [f"about {clock(left_s)} left", f"level {min(total, course.over + going)} of {total}"]
    return _bar("run", lead, done, words, width, signs)


def _bar(
    name: str, lead: int, done: float, words: Sequence[str], width: int, signs: Signs, *, bar: bool = True
) -> Text:
    wide = min(30, width // 4) if bar else 0
    full = round(min(1.0, done) * wide)
    line = Text.assemble((set_cell_size(short(name, lead, signs.cut), lead), "bold"))
    if wide:
        line.append("  ")
        line.append(signs.full * full, "cyan")
        line.append(signs.empty * (wide - full), "bright_black")
    return append(line, [(word, "") for word in words], width - _LAST_FREE)


def _doubts(course: Course, doubts: Sequence[tuple[str, str]], width: int, signs: Signs) -> list[Text]:
    several = len(course.models) > 1
    drawn = []
    for level, text in doubts:
        row = course.rows.get(level)
        name = signs.safe(level if several or row is None else row.name)
        line = Text.assemble("! ", (short(name, max(12, width // 3), signs.cut), "bold"), f": {signs.safe(text)}")
        line.stylize("yellow")
        room = width - _LAST_FREE
        if line.cell_len > room:
            line.truncate(room - 1, overflow="crop")
            line.append(signs.cut)
        drawn.append(line)
    return drawn
