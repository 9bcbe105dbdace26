"""The search of `loadbench capacity`: what it tells before, what it keeps, and what its answer comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadbench import store
from loadbench.cli.live import View
from loadbench.engine import MAX_STREAMS
from loadbench.errors import UsageError
from loadbench.metrics.slo import WHOLE
from loadbench.runner.capacity import Grid, Rule, Search, begun, level_of, line
from loadbench.runner.capacity.rule import CONFIRM_S, STEADY_S
from loadbench.runner.capacity.search import UNDECIDED
from loadbench.runner.session import Schedule
from loadbench.scenario import Scenario

BELOW = 3
"""Exit code where not even the lowest load surely meets the SLO."""


@dataclass(frozen=True, slots=True)
class Course:
    """A search in place of a plan."""

    asked: Scenario
    loads: Grid
    budget_s: float | None
    command: str = "capacity"

    @property
    def streams(self) -> int:
        return self.needed or self.asked.max_streams or MAX_STREAMS

    @property
    def needed(self) -> int:
        return int(self.loads.most) if self.loads.by == "concurrency" else 0

    @property
    def per_s(self) -> float:
        return float(self.loads.most) if self.loads.by == "rate" else 0.0

    def lines(self, models: Sequence[str]) -> list[str]:
        loads, asked = self.loads, self.asked
        rule = Rule.of(asked.bounds, level_of("", loads, loads.start, 1), asked.requests)
        each, what = ("c", "streams at once") if loads.by == "concurrency" else ("r", "requests started per second")
        ends = [f"{rule.sizes[-1]} requests", *([str(asked.duration)] if asked.duration is not None else [])]
        looks = (
            f"judged after {', '.join(map(str, rule.sizes))}, each time by an interval of {100 * rule.confidence:.4g} %"
        )
        if loads.by == "rate":
            looks += (
                f"; met only where its queue is steady for {STEADY_S:g} s after a warm-up, for {CONFIRM_S:g} s or as "
                "long as the SLO needs where the answer is confirmed"
            )
        return [
            f"slo       {', '.join(asked.slo)}",
            f"search    {each}{loads.start:g} ({what}), doubled up to {each}{loads.most:g} until the SLO fails, then "
            f"bisected to {100 * loads.within:g} %{' for each model' if len(models) > 1 else ''}",
            f"probes    of up to {' or '.join(ends)}, more at higher loads; {looks}",
            f"time      {self._time(rule)}",
        ]

    def _time(self, rule: Rule) -> str:
        if self.budget_s is not None:
            return f"{self.budget_s:g} s at most, by --budget"
        if self.loads.by == "concurrency":
            return "open; --budget 10m sets an end"
        first_s, last = rule.sizes[0] / self.loads.start, rule.warmed_up_s
        return (
            f"a probe that meets it takes {max(first_s, last):.0f} s at r{self.loads.start:g} and {last:.0f} s or more "
            "at higher rates; a search of 10 to 15 probes 10 to 20 minutes; --budget 10m sets an end, --from N begins "
            "nearer to it"
        )

    def info(self, models: Sequence[str]) -> dict[str, Any]:
        return {"capacity": begun(models, self.loads, self.asked)}

    def schedule(self, info: Mapping[str, Any], view: View) -> Schedule:
        def tell(record: Mapping[str, Any], step: Mapping[str, Any]) -> None:
            several = len(info["capacity"]) > 1
            so_far = {**step, "bracket": record["bracket"], "found": record["found"]}
            view.step(record["model"], so_far, f"{record['model']}, {line(step)}" if several else line(step))

        return Search(self.asked, info["capacity"], tell, self.budget_s)

    def exit_code(self, info: Mapping[str, Any]) -> int:
        below = [one for one in info["capacity"] if one["found"] is None and one["bracket"][0] is None]
        return BELOW if any(one["bracket"][1] is not None or one["reason"] == UNDECIDED for one in below) else 0


def grid(given: Mapping[str, Any]) -> Grid:
    """The loads that the options allow.

    Raises:
        UsageError: There are none.
    """
    by, start, most, within = given["by"], given["start"], given["most"], given["within"]
    for name, value in (("--from", start), ("--max", most)):
        if not 0 < value < 1e6:
            raise UsageError(f"{name} {value:g}: must be more than 0 and less than a million")
        if by == "concurrency" and value != int(value):
            raise UsageError(f"{name} {value:g}: streams are whole; for a rate add --by rate")
    if most < start:
        raise UsageError(f"--max {most:g} is less than --from {start:g}")
    if not 0.005 <= within <= 1:
        raise UsageError(f"--within {100 * within:g}%: must be between 0.5% and 100%")
    if by == "concurrency":
        start, most = int(start), int(most)
    return Grid(by, start, most, within)


def course(asked: Scenario, loads: Grid, budget: float | None) -> Course:
    """The search for what a scenario's SLO allows.

    Raises:
        UsageError: It has no SLO, or one that cannot be searched with.
    """
    if not asked.slo:
        raise UsageError("--slo is missing: say what the load is to meet, as --slo ttft_p95=800ms --slo success=99%")
    for bound in asked.bounds:
        if not asked.stream and bound.metric in WHOLE:
            raise UsageError(
                f"--slo {bound.text}: answers that are asked for whole have no {bound.metric}: use e2e_p95"
            )
    Rule.of(asked.bounds, level_of("", loads, loads.start, 1), asked.requests)  # whether so many requests can decide
    if budget is not None and budget < 1:
        raise UsageError(f"--budget {budget:g}s is too short for one probe: give at least 1s")
    return Course(asked, loads, None if budget is None else float(budget))


def again(folder: Path, asked: Scenario, budget: float | None) -> Course:
    """The search that a folder holds."""
    records = store.read_info(folder).get("capacity") or []
    if not records:
        raise UsageError(f"{folder}: its run.json holds no search to continue")
    first = records[0]
    return course(asked, Grid(first["by"], first["start"], first["most"], first["within"]), budget)
