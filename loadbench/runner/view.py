"""Who looks on while a run goes on: people, by `loadbench.cli`; programs, by JSON lines; or nobody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import IO, TYPE_CHECKING, Any, Protocol, cast

import orjson
from msgspec import structs

from loadbench.text import in_json

if TYPE_CHECKING:
    from loadbench.engine import Progress
    from loadbench.runner.plan import Plan, PlannedLevel
    from loadbench.scenario import Level


class Observer(Protocol):
    """Who watches a run; called from the run's own task, so it must be quick. `tick` may be slow: it has a thread."""

    def note(self, text: str) -> None: ...
    def probed(self, probe: Mapping[str, Any]) -> None: ...
    def began(self, progress: Progress, planned: PlannedLevel) -> None: ...
    def tick(self, progress: Progress, text_events: int) -> None: ...
    def ended(self, progress: Progress, facts: Mapping[str, Any]) -> None: ...
    def skipped(self, level: Level, reason: str) -> None: ...


class View(Observer, Protocol):
    """An observer that also opens and closes."""

    def opening(self, facts: Mapping[str, Any], lines: Sequence[str], plan: Plan) -> None: ...
    def sampled(self, sample: Mapping[str, Any]) -> None:
        """A sample of server and machine was taken. Called between two arrivals: it must be quick."""

    def step(self, model: str, step: Mapping[str, Any], text: str) -> None: ...
    def close(self) -> None: ...
    def summary(self, summary: Mapping[str, Any]) -> None: ...
    def compared(self, document: Mapping[str, Any]) -> None:
        """Two runs that took turns were compared."""


class Silent:
    """Nothing but errors, and they are not a view's."""

    def opening(self, facts: Mapping[str, Any], lines: Sequence[str], plan: Plan) -> None: ...
    def note(self, text: str) -> None: ...
    def probed(self, probe: Mapping[str, Any]) -> None: ...
    def began(self, progress: Progress, planned: PlannedLevel) -> None: ...
    def tick(self, progress: Progress, text_events: int) -> None: ...
    def sampled(self, sample: Mapping[str, Any]) -> None: ...
    def ended(self, progress: Progress, facts: Mapping[str, Any]) -> None: ...
    def skipped(self, level: Level, reason: str) -> None: ...
    def step(self, model: str, step: Mapping[str, Any], text: str) -> None: ...
    def summary(self, summary: Mapping[str, Any]) -> None: ...
    def compared(self, document: Mapping[str, Any]) -> None: ...
    def close(self) -> None: ...


class JsonLines(Silent):
    """One JSON object a line, each with its `event`; the last one is the summary."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out

    def _say(self, event: str, **fields: Any) -> None:
        self._out.write(in_json(orjson.dumps({"event": event, **fields}).decode()).encode() + b"\n")
        self._out.flush()

    def opening(self, facts: Mapping[str, Any], lines: Sequence[str], plan: Plan) -> None:
        levels = [one.level.id for one in plan.levels]
        self._say(
            "plan", **facts, levels=levels, shortest_s=plan.shortest_s, longest_s=plan.longest_s, cuts=list(plan.cuts)
        )

    def note(self, text: str) -> None:
        self._say("note", text=text)

    def probed(self, probe: Mapping[str, Any]) -> None:
        self._say("probe", **probe)

    def began(self, progress: Progress, planned: PlannedLevel) -> None:
        self._say("level_began", level=progress.level.id, attempt=progress.attempt)

    def tick(self, progress: Progress, text_events: int) -> None:
        ttft = progress.histograms["ttft"]
        self._say(
            "progress",
            level=progress.level.id,
            phase=progress.phase,
            in_flight=progress.in_flight,
            ended=progress.ended,
            completed=progress.completed,
            failed=progress.failed,
            dropped=progress.dropped,
            text_events=text_events,
            ttft_p50_us=ttft.percentile(0.5),
            ttft_p95_us=ttft.percentile(0.95),
        )

    def ended(self, progress: Progress, facts: Mapping[str, Any]) -> None:
        self._say("level_ended", level=progress.level.id, status=facts["status"], reason=facts["reason"])

    def skipped(self, level: Level, reason: str) -> None:
        self._say("level_skipped", level=level.id, reason=reason)

    def step(self, model: str, step: Mapping[str, Any], text: str) -> None:
        self._say("step", model=model, **step)

    def summary(self, summary: Mapping[str, Any]) -> None:
        self._say("summary", summary=summary)

    def compared(self, document: Mapping[str, Any]) -> None:
        self._say("compared", **document)


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
