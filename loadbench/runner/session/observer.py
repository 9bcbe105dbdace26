"""Who watches a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from loadbench.engine import Progress
from loadbench.runner.plan import PlannedLevel
from loadbench.scenario import Level


class Observer(Protocol):
    """Who watches a run; called from the run's own task, so it must be quick. `tick` may be slow: it has a thread."""

    def note(self, text: str) -> None: ...
    def probed(self, probe: Mapping[str, Any]) -> None: ...
    def began(self, progress: Progress, planned: PlannedLevel) -> None: ...
    def tick(self, progress: Progress, text_events: int) -> None: ...
    def ended(self, progress: Progress, facts: Mapping[str, Any]) -> None: ...
    def skipped(self, level: Level, reason: str) -> None: ...
