"""One figure of a candidate with its interval, put together from its runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loadbench import figures, stats
from loadbench.figures import Named

COMPARED = (
    *("ttft_p95", "e2e_mean", "characters_per_s", "output_tokens_per_s", "quality", "rules", "memory", "disk"),
    *("energy", "cost", "licence"),
)
"""The names of the figures that a choice can rest on, in the order of its tables."""
_POINTS: Mapping[str, float] = {"points": 1.0, "share": 4.0, "word": 4.0}
"""Units whose values are held against each other by their difference on a scale of five, and how many points of that
one unit of the figure is. The others are held against each other by their ratio."""


def declared(name: str) -> Named:
    """What is known of a figure, whoever has it."""
    found = figures.named(name)
    if found is None:
        raise KeyError(name)
    return found


def unit(name: str) -> str:
    """As a choice's record has it; "" of words."""
    found = declared(name).figure.unit
    return "" if found == "word" else found


def points(name: str) -> float | None:
    """How many points of a scale of five one unit of the figure is; None of figures that compare by their ratio."""
    return _POINTS.get(declared(name).figure.unit)


def is_speed(name: str) -> bool:
    """Whether it comes from how fast a run went: such figures of one run rise and fall together."""
    return declared(name).figure.unit in ("ms", "/s", "J", "currency")


@dataclass(frozen=True, slots=True)
class Part:
    """A figure of one run, with its interval within that run; None where too few requests hold one."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int = 0


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of one candidate over its runs.

    Attributes:
        value: Of several runs the geometric mean.
        low, high: Its 95 % interval; None where there is none.
        n: Requests (prompts, of scores) behind it; 0 where it is no statistic.
        runs: Measurements of it.
        source: Where it comes from, in words; "" where its name says it all.
    """

    value: float
    low: float | None = None
    high: float | None = None
    n: int = 0
    runs: int = 1
    source: str = ""


def combined(parts: Mapping[str, Sequence[Part]]) -> dict[str, Figure]:
    """One figure a candidate from its runs, by the candidate's name; candidates without a run that has it are left out.

    What runs differ by is learned from all candidates that were measured several times, and holds for those that were
    measured once, too: one run says nothing of it. An interval is never narrower than those within the runs allow.

    >>> pair = combined({"a": [Part(100.0, 90.0, 110.0), Part(121.0, 110.0, 130.0)], "b": [Part(50.0, 48.0, 52.0)]})
    >>> round(pair["a"].value), pair["b"].low < 40 < pair["a"].low
    (110, False)
    """
    logs = {name: [math.log(part.value) for part in some] for name, some in parts.items() if _sound(some)}
    freedom = sum(len(values) - 1 for values in logs.values())
    squares = math.fsum((v - math.fsum(values) / len(values)) ** 2 for values in logs.values() for v in values)
    between = squares / freedom if freedom else 0.0
    found = {}
    for name, values in logs.items():
        some, k = parts[name], len(values)
        centre = math.fsum(values) / k
        spread = stats.student(freedom) * math.sqrt(between / k) if freedom else 0.0
        bounds = _within(some, values)
        down, up = bounds if bounds is not None else (0.0, 0.0)
        known = bounds is not None or k > 1
        found[name] = Figure(
            math.exp(centre) if k > 1 else some[0].value,
            _significant(math.exp(centre - max(down, spread))) if known else None,
            _significant(math.exp(centre + max(up, spread))) if known else None,
            sum(part.n for part in some),
            k,
        )
    return found


def _sound(some: Sequence[Part]) -> bool:
    """Whether there are values, all of which have a logarithm."""
    return bool(some) and all(part.value > 0 for part in some)


def _within(some: Sequence[Part], values: Sequence[float]) -> tuple[float, float] | None:
    """How far down and up the mean of logarithms may lie by what is known within the runs."""
    down = up = 0.0
    for part, value in zip(some, values, strict=True):
        if part.low is None or part.high is None or not part.low > 0:
            return None
        down += (value - math.log(part.low)) ** 2
        up += (math.log(part.high) - value) ** 2
    return math.sqrt(down) / len(some), math.sqrt(up) / len(some)


def _significant(value: float) -> float:
    return float(f"{value:.6g}")
