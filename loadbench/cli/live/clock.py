"""How much of a level is done, and how long level and run will still take."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loadbench.engine import Progress
    from loadbench.runner.plan import Plan


def share(progress: Progress) -> float:
    """How much of a level is done, 0 to 1; warm-up and drain are no part of it."""
    limits, shares = progress.limits, [0.0]
    if limits.requests:
        shares.append((progress.ended + progress.dropped) / limits.requests)
    if limits.duration_s and progress.measured_from_ns is not None:
        shares.append((time.perf_counter_ns() - progress.measured_from_ns) / 1e9 / limits.duration_s)
    return min(1.0, max(shares))


class TimeLeft:
    """How long a run will still take: the plan's estimate, corrected by the levels that are done."""

    def __init__(self, plan: Plan) -> None:
        self._to_come = {one.level.id: one.shortest_s for one in plan.levels}
        self._planned_s = self._took_s = 0.0

    def done(self, progress: Progress) -> None:
        """A level is over."""
        self._planned_s += self._to_come.pop(progress.level.id, 0.0)
        self._took_s += (progress.ended_ns - progress.began_ns) / 1e9

    def skipped(self, level_id: str) -> None:
        """A level will not be run."""
        self._to_come.pop(level_id, None)

    def level_s(self, progress: Progress) -> float | None:
        """What is left of the present level, its drain not counted; None where nothing tells it yet."""
        whole_s, here_s = self._level(progress)
        return None if whole_s is None else max(0.0, whole_s - here_s)

    def run_s(self, progress: Progress | None) -> float:
        """What is left of the run: of the present level, where there is one, and of those to come."""
        planned_s = whole_s = here_s = 0.0
        present = None
        if progress is not None:
            present = progress.level.id
            planned_s = self._to_come.get(present, 0.0)
            told_s, here_s = self._level(progress)
            whole_s = max(planned_s, here_s) if told_s is None else told_s
        planned_till_here_s = self._planned_s + planned_s
        ratio = (self._took_s + whole_s) / planned_till_here_s if planned_till_here_s else 1.0
        rest_s = sum(seconds for level, seconds in self._to_come.items() if level != present)
        return max(0.0, whole_s - here_s) + ratio * rest_s

    def _level(self, progress: Progress) -> tuple[float | None, float]:
        """How long the present level takes in all, and has taken so far."""
        done, now_ns = share(progress), time.perf_counter_ns()
        here_s = (now_ns - progress.began_ns) / 1e9 if progress.began_ns else 0.0
        if done > 0.05 and progress.measured_from_ns is not None:
            measured_s = (now_ns - progress.measured_from_ns) / 1e9
            return here_s - measured_s + measured_s / done, here_s
        planned_s = self._to_come.get(progress.level.id)
        return None if planned_s is None else max(planned_s, here_s), here_s
