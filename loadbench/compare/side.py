"""One side of a comparison: what was measured of one level, run by run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Flow:
    """What flowed in the steady window.

    Attributes:
        per_s: The rate.
        slices: What flowed in each of `intervals.SLICES` equal slices of the window; None of a window without slices.
        seconds: Length of the window.
        dependent_s: Mean time of a request in flight: what flows now depends on what flowed so long ago.
    """

    per_s: float
    slices: Reals | None = None
    seconds: float = 0.0
    dependent_s: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """Which requests of those that were measured did what a share counts, in the order of start.

    Attributes:
        flags: One a request.
        prompts: Ids of their prompts.
        offered: Requests that the share is of, those that were never sent among them; they count as misses.
    """

    flags: Flags
    prompts: list[str]
    offered: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Lap:
    """One level, measured once.

    Attributes:
        run: Name of the run's folder.
        began: When, ISO 8601.
        prompts: Ids of the prompts of the measured requests that completed, in the order of start.
        values: By metric (`figures.DURATIONS`), one value in ms for each of those requests; NaN where undefined.
        due_values: The same of all requests that were due, infinite where one failed or was dropped; empty where all
            completed.
        gaps_ms: Gaps between tokens of those requests, request after request, flat; None where they do not exist.
        gap_sizes: Gaps of each of those requests.
        flows: By metric (`figures.RATES`).
        outcomes: By metric (`figures.SHARES`).
        output_tokens: Mean of those requests; None where nobody counted.
        token_source: "usage", "events", "mixed" or None.
        finish_reasons: Of those requests, with their number.
        again: The same level, measured once more at the end of the run; None where it was not.
        model: As the run names it.
        device, execution_provider: That it ran on, as far as is known.
        info: run.json.
    """

    run: str
    began: str
    prompts: list[str]
    values: Mapping[str, Reals]
    due_values: Mapping[str, Reals] = field(default_factory=dict)
    gaps_ms: Reals | None = None
    gap_sizes: NDArray[np.int64] | None = None
    flows: Mapping[str, Flow] = field(default_factory=dict)
    outcomes: Mapping[str, Outcomes] = field(default_factory=dict)
    output_tokens: float | None = None
    token_source: str | None = None
    finish_reasons: Mapping[str, int] = field(default_factory=dict)
    again: Lap | None = None
    model: str = ""
    device: str | None = None
    execution_provider: str | None = None
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One level of one side, all its runs in the order they began.

    Attributes:
        model: As the runs name it.
        load: The level's load: "c4", "r0.5".
        laps: At least one.
        earlier: The same of runs before, where there is one run: they say how much runs differ, and nothing else.
    """

    model: str
    load: str
    laps: tuple[Lap, ...]
    earlier: tuple[Lap, ...] = ()

    @property
    def runs(self) -> int:
        return len(self.laps)


def interleaved(base: Side, new: Side) -> bool:
    """Whether the runs of both sides took turns (A B, B A, …), so that the i-th of each met the same machine.

    Then they are judged pair by pair; else a drift between the two blocks of runs would pass for a difference of the
    servers in each pair alike.
    """
    if base.runs != new.runs:
        return False
    order = sorted([(lap.began, 0) for lap in base.laps] + [(lap.began, 1) for lap in new.laps])
    return all(first[1] != second[1] for first, second in zip(order[::2], order[1::2], strict=True))
