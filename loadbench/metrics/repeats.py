"""A load that was measured several times: a model's first level once more at the end (gate V11), and repeats."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from loadbench import stats
from loadbench.store.summary import NOTHING, Band, Distribution, Level, OverRuns, RepeatedRun, Repeats

LEAST = 3
"""Runs below which nothing is told of their mean: Student's interval of two is six times as wide as their spread."""


def lead(level: Level) -> tuple[str, Distribution]:
    """The latency that tells most of a level, with its distribution in ms: TTFT, in open loop from `due`; else E2E."""
    if level.streamed is False:
        return "e2e", level.e2e_ms or NOTHING
    return "ttft", (level.ttft_from_due_ms if level.is_open else level.ttft_ms) or NOTHING


def figures(level: Level) -> dict[str, float | None]:
    """What runs of a level are told apart by: tokens/s, and the median of the headline latency in ms.

    >>> figures(Level(output_tokens_per_s=60.0, ttft_ms=Distribution(p50=212.0)))
    {'output_tokens_per_s': 60.0, 'ttft_p50': 212.0}
    """
    name, metric = lead(level)
    return {"output_tokens_per_s": level.output_tokens_per_s, f"{name}_p50": metric.p50}


def bands(levels: Sequence[Level]) -> list[Band]:
    """One row a closing level: its figures over those of the model's first level; None where either is unknown.

    A closing level that did not run to its end, or whose first level is not there, says nothing.
    """
    found = []
    for closing in levels:
        first = next((level for level in levels if _is_first(level, closing)), None)
        if closing.closing and first is not None and closing.is_whole:
            before, after = figures(first), figures(closing)
            ratios = {name: _ratio(after.get(name), figure) for name, figure in before.items()}
            found.append(Band(model=closing.model, level=first.id, closing_level=closing.id, **ratios))
    return found


def _is_first(level: Level, closing: Level) -> bool:
    same = (
        level.model == closing.model
        and level.concurrency == closing.concurrency
        and level.request_rate_per_s == closing.request_rate_per_s
    )
    return same and not level.closing and level.is_whole


def _ratio(after: float | None, before: float | None) -> float | None:
    return round(after / before, 4) if after and before else None


def entries(levels: Sequence[Level]) -> list[Repeats]:
    """One entry a load of a model that ran to its end twice or more, in the order of the run."""
    grouped: dict[tuple[object, ...], list[Level]] = {}
    for level in levels:
        if level.is_whole and not level.closing:
            key = (level.model, level.endpoint, level.concurrency, level.request_rate_per_s, level.shape)
            grouped.setdefault(key, []).append(level)
    return [_entry(runs) for runs in grouped.values() if len(runs) > 1]


def _entry(levels: Sequence[Level]) -> Repeats:
    first = levels[0]
    rows = [figures(level) for level in levels]
    return Repeats(
        model=first.model,
        endpoint=first.endpoint,
        concurrency=first.concurrency,
        request_rate_per_s=first.request_rate_per_s,
        shape=first.shape,
        runs=[RepeatedRun(level=level.id, began=level.began, **row) for level, row in zip(levels, rows, strict=True)],
        figures={name: over_runs([row.get(name) for row in rows]) for name in rows[0]},
    )


def over_runs(values: Sequence[float | None]) -> OverRuns:
    """Over runs: geometric mean with its 95 % interval, the relative half-width of that, spread and variation.

    The run is the unit: Student's interval of the logarithms (METRICS.md §5), given from three runs on. All but `n` are
    None where a run has no such figure.

    >>> found = over_runs([100.0, 102.0, 98.0])
    >>> found.mean, found.low, found.high, found.half_width, found.spread, found.cv
    (99.9867, 95.1397, 105.081, 0.0509, 1.0408, 0.02)
    """
    known = [value for value in values if value is not None and value > 0]
    if not known or len(known) < len(values):
        return OverRuns(n=len(known))
    logs = [math.log(value) for value in known]
    centre = math.fsum(logs) / len(logs)
    plain = math.fsum(known) / len(known)
    deviation = math.sqrt(math.fsum((value - plain) ** 2 for value in known) / max(len(known) - 1, 1))
    found = OverRuns(
        n=len(known),
        mean=_significant(math.exp(centre)),
        spread=round(max(known) / min(known), 4),
        cv=round(deviation / plain, 4),
    )
    sample = stats.one_sample(logs)
    if sample is None or len(known) < LEAST:
        return found
    half = stats.student(sample.freedom) * math.sqrt(sample.variance)
    return msgspec.structs.replace(
        found,
        low=_significant(math.exp(centre - half)),
        high=_significant(math.exp(centre + half)),
        half_width=round(math.expm1(half), 4),
    )


def _significant(value: float) -> float:
    return float(f"{value:.6g}")
