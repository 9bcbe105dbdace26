"""Levels as the views of a run see them, and a terminal that takes down what the live one draws, for their tests."""

from __future__ import annotations

import io
import itertools
import re
import types
from collections.abc import Sequence
from typing import Any

import pytest
from rich.console import Console

from loadbench.cli import lines, progress, screen
from loadbench.engine import Progress
from loadbench.runner import plan
from loadbench.runner.plan import Plan
from loadbench.scenario import Scenario
from loadbench.scenario.bounds import Duration

NOW_NS = 10**15
ENDED = {"status": "complete", "reason": None, "duration_s": 6.0}
PROBE = {
    **{"model": "m", "purpose": "first", "requests": 1, "error": None, "error_message": None},
    **{"ttft_ms": 50.0, "e2e_ms": 90.0},
}


def planned(models: Sequence[str] = ("m",), **settings: object) -> Plan:
    """Two levels a model, unless the settings say otherwise."""
    asked = {"concurrency": [1, 4], "duration": Duration(10.0), "repeat_first": False, **settings}
    return plan.make(Scenario(**asked), models)  # type: ignore[arg-type]


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
    """The same level at its end."""
    progress.ended_ns = NOW_NS
    return progress


def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of the marks stands still at NOW_NS; the other one moves on by half a second with each look.

    The environment says nothing of the terminal.
    """
    seconds = itertools.count(NOW_NS // 10**9)
    clocks = types.SimpleNamespace(monotonic=lambda: next(seconds) / 2, perf_counter_ns=lambda: NOW_NS)
    for module in (lines, progress, screen):
        monkeypatch.setattr(module, "time", clocks)
    for name in ("LC_ALL", "LANG", "XTERM_VERSION", "STY", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


class Terminal:
    """A terminal that takes down all that a picture writes."""

    def __init__(self, width: int = 80, height: int = 24, encoding: str = "utf-8", **settings: Any) -> None:
        self._bytes = io.BytesIO()
        file = io.TextIOWrapper(self._bytes, encoding=encoding, newline="", write_through=True)
        colours = {"force_terminal": True, "color_system": "standard", "no_color": False, **settings}
        self.console = Console(file=file, width=width, height=height, legacy_windows=False, **colours)
        self.encoding = encoding
        self.screen = screen.Screen(self.console)

    @property
    def text(self) -> str:
        """All that was ever written."""
        return self._bytes.getvalue().decode(self.encoding)

    @property
    def lines(self) -> list[str]:
        """All lines that were ever written, control sequences left out."""
        return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", self.text).replace("\r", "\n").split("\n")

    @property
    def drawn(self) -> str:
        """What was drawn last, with its colours."""
        return self.text.rpartition("\x1b[2K")[2]

    @property
    def frame(self) -> list[str]:
        """The lines that were drawn last."""
        return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", self.drawn).replace("\r", "").split("\n")

    def row(self, name: str) -> str:
        """The line drawn last of a level or a model."""
        return next(line for line in self.frame if name in line)


def shown(steps: Plan, at: int = 0, terminal: Terminal | None = None) -> Terminal:
    """A terminal on which a level of the plan is going on."""
    terminal = terminal or Terminal()
    terminal.screen.opening({"models": []}, [], steps)
    terminal.screen.began(Progress(steps.levels[at].level, 1, steps.levels[at].limits), steps.levels[at])
    terminal.screen.tick(going(steps, at), 90)
    return terminal
