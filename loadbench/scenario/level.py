"""Level: one load on one model; and the order in which a run measures them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec


class Level(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One load on one model: a concurrency (closed loop) or a request rate (open loop).

    Attributes:
        id: Unique in the run: "phi-4-mini@c4", "phi-4-mini@r0.5", "phi-4-mini@c4#2" for the second repeat.
        model: As the scenario or the server names it.
        concurrency: Requests in flight, or users who pause between them; None in open loop.
        request_rate_per_s: Requests started per second, of a shape the mean; None in closed loop.
        repeat: 1 for the first time this load is measured on this model.
        shape: How the rate changes, as "ramp 1..8 over 2m" or "trace day.jsonl"; None where it does not.
        closing: Whether this is a model's first level once more, at its end: how far the machine wandered meanwhile.
    """

    id: str
    model: str
    concurrency: int | None
    request_rate_per_s: float | None
    repeat: int
    shape: str | None = None
    closing: bool = False

    @property
    def load_facts(self) -> dict[str, Any]:
        """What run.json says of the load, by the names of its fields."""
        names = ("concurrency", "request_rate_per_s", "repeat", "shape")
        return {name: getattr(self, name) for name in names}

    @property
    def is_replay(self) -> bool:
        """Whether requests start when a trace says so."""
        return self.shape is not None and self.shape.startswith(TRACE)


TRACE = "trace "
"""How the shape of a level begins that replays a trace; the file's name follows."""


class Load(msgspec.Struct, frozen=True):
    """When requests start, and how that is called in a level's id."""

    name: str
    concurrency: int | None = None
    rate_per_s: float | None = None
    shape: str | None = None

    def level(self, model: str, repeat: int) -> Level:
        name = f"{model}@{self.name}" + (f"#{repeat}" if repeat > 1 else "")
        return Level(name, model, self.concurrency, self.rate_per_s, repeat, self.shape)


def in_turns(models: Sequence[str], loads: Sequence[Load], *, repeat: int = 1, closes: bool = False) -> list[Level]:
    """Model by model, all loads; each further repeat of it all the other way round, so that a drift cancels out.

    Args:
        models: Each once.
        loads: One that is there twice counts as a further repeat.
        repeat: How often all of it is measured.
        closes: Whether each model ends with its first load once more, where it has several and nothing is repeated.
    """
    turns = [(model, load) for model in models for load in loads]
    closes = closes and repeat == 1 and len(set(loads)) == len(loads) > 1 and loads[0].shape is None
    times: Counter[tuple[str, Load]] = Counter()
    levels: list[Level] = []
    for lap in range(repeat):
        for model, load in reversed(turns) if lap % 2 else turns:
            times[model, load] += 1
            levels.append(load.level(model, times[model, load]))
            if closes and load == loads[-1]:
                first = loads[0].level(model, 1)
                levels.append(msgspec.structs.replace(first, id=f"{first.id}#end", closing=True))
    return levels
