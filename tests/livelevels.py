"""Levels as the views of a run see them, for tests of these views."""

from __future__ import annotations

from collections.abc import Sequence

from loadbench import plan
from loadbench.engine import Progress
from loadbench.plan import Plan
from loadbench.scenario import Duration, Scenario

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
