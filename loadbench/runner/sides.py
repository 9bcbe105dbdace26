"""What a view is shown of two runs that take turns: the names of levels and models begin with that of their side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from msgspec import structs

from loadbench.runner.view import View

if TYPE_CHECKING:
    from loadbench.engine import Progress
    from loadbench.runner.plan import Plan, PlannedLevel
    from loadbench.scenario import Level


def named(level: Level, side: str) -> Level:
    """The level as a view shows it: `base m@c4`."""
    return structs.replace(level, id=f"{side} {level.id}", model=f"{side} {level.model}")


@dataclass(slots=True)
class Sided:
    """Shows one side's run to the view of both, which is opened and closed by who made it."""

    view: View
    side: str
    _shown: dict[int, Progress] = field(default_factory=dict)  # of the present level

    def opening(self, facts: Mapping[str, Any], lines: Sequence[str], plan: Plan) -> None: ...
    def close(self) -> None: ...

    def note(self, text: str) -> None:
        self.view.note(f"{self.side}: {text}")

    def probed(self, probe: Mapping[str, Any]) -> None:
        self.view.probed({**probe, "model": f"{self.side} {probe['model']}"})

    def began(self, progress: Progress, planned: PlannedLevel) -> None:
        self._shown = {id(progress): cast("Progress", _Named(progress, named(progress.level, self.side)))}
        self.view.began(self._named(progress), replace(planned, level=named(planned.level, self.side)))

    def tick(self, progress: Progress, text_events: int) -> None:
        self.view.tick(self._named(progress), text_events)

    def sampled(self, sample: Mapping[str, Any]) -> None:
        level, model = (None if sample.get(one) is None else f"{self.side} {sample[one]}" for one in ("level", "model"))
        self.view.sampled({**sample, "level": level, "model": model})

    def ended(self, progress: Progress, facts: Mapping[str, Any]) -> None:
        self.view.ended(self._named(progress), facts)

    def skipped(self, level: Level, reason: str) -> None:
        self.view.skipped(named(level, self.side), reason)

    def step(self, model: str, step: Mapping[str, Any], text: str) -> None:
        self.view.step(f"{self.side} {model}", step, text)

    def summary(self, summary: Mapping[str, Any]) -> None:
        self.view.summary(summary)

    def compared(self, document: Mapping[str, Any]) -> None:
        self.view.compared(document)

    def _named(self, progress: Progress) -> Progress:
        return self._shown[id(progress)]


class _Named:
    """A level's progress under another name; all else is read from it at the moment somebody asks."""

    def __init__(self, progress: Progress, level: Level) -> None:
        self.level = level
        self._progress = progress

    def __getattr__(self, name: str) -> Any:
        return getattr(self._progress, name)
