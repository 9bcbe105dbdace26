"""What a run shows while it goes on: a live picture to a person, plain lines to a pipe, JSON lines to a program.

plain.py     plain lines, and words
progress.py  how far a run is: its levels, a search, the time left, what goes wrong
screen.py    the live picture
"""

from __future__ import annotations

import sys

from loadbench.cli.harmless import harmless
from loadbench.cli.live.plain import Lines
from loadbench.runner.watch import JsonLines, View

__all__ = ["JsonLines", "Lines", "View", "harmless", "view"]


def view(*, as_json: bool, quiet: bool, progress: bool) -> View:
    """The view for this user: `--json`, `--quiet`, a terminal that can move its cursor, or anything else."""
    if as_json:
        return JsonLines(sys.stdout.buffer)
    if quiet:
        return View()
    if not progress or not sys.stderr.isatty():
        return Lines()
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_interactive:  # TERM=dumb
        return Lines()
    from loadbench.cli.live.screen import Screen

    return Screen(console)
