"""What a run shows while it goes on: a live picture to a person, plain lines to a pipe, JSON lines to a program.

plain.py    plain lines
screen.py   the live picture on a terminal: when it is drawn, and what is written above it
frame.py    its lines, from what is known and the room there is
course.py   what is known: levels done, present and to come, a search's bracket
trace.py    a level's course over its time, as sparklines
doubts.py   what goes wrong while it goes on
clock.py    how much is done, and the time that is left
words.py    words and figures of all of them
"""

from __future__ import annotations

import sys

from loadbench.cli.harmless import harmless
from loadbench.cli.live.plain import Lines
from loadbench.runner.view import JsonLines, Silent, View

__all__ = ["JsonLines", "Lines", "Silent", "View", "harmless", "view"]


def view(*, as_json: bool, quiet: bool, progress: bool) -> View:
    """The view for this user: `--json`, `--quiet`, a terminal that can move its cursor, or anything else."""
    if as_json:
        return JsonLines(sys.stdout.buffer)
    if quiet:
        return Silent()
    if not progress or not sys.stderr.isatty():
        return Lines()
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_interactive:  # TERM=dumb
        return Lines()
    from loadbench.cli.live.screen import Screen

    return Screen(console)
