"""Reading a summary: its levels by model, what to call them, and its percentiles with their doubts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from loadbench import text as units
from loadbench.store.schema import RunFacts, run_facts
from loadbench.store.summary import Distribution, Finding, Level, Model, Summary

Record = Mapping[str, Any]
"""A comparison, a choice or a summary as JSON has it."""

REQUESTS_NEEDED = {"p50": 6, "p90": 36, "p95": 72, "p99": 368, "p999": 3688}
"""Smallest n whose order statistics give a two-sided 95 % interval (docs/statistics.md)."""
NOTHING = Distribution()
"""Of a metric that nobody measured: unlike 0 values, that prints as "-"."""


# -- parts of a summary


def read(summary: Record | Summary) -> Summary:
    """The summary as structs: the one door through which reports take it."""
    # Callers hold plain values, since the choice and comparisons of a run are added to them and written as JSON.
    return summary if isinstance(summary, Summary) else msgspec.convert(summary, Summary)


def facts(summary: Summary) -> RunFacts:
    """What run.json says of the run."""
    return run_facts(summary.run)


def of(summary: Summary) -> list[Level]:
    """The levels that a reader compares: without those that repeat the first one at the end of the run."""
    return [level for level in summary.levels if not level.closing]


def by_model(rows: Iterable[Level]) -> dict[str, list[Level]]:
    """Levels of each model, in the order of the run."""
    models: dict[str, list[Level]] = {}
    for level in rows:
        models.setdefault(str(level.model), []).append(level)
    return models


def warnings(summary: Summary) -> list[tuple[Level | None, Finding]]:
    """The checks that failed, each with its level; None for one about the whole run."""
    findings: list[tuple[Level | None, Finding]] = [(None, warning) for warning in summary.warnings]
    for level in of(summary):
        findings += [(level, warning) for warning in level.warnings]
    return findings


def is_simulated(summary: Summary) -> bool:
    """Whether the figures come from the simulator: then no report may look like a measurement of a model."""
    target = facts(summary).target
    return (target is not None and target.kind == "simulator") or any(level.simulated for level in of(summary))


def is_streamed(summary: Summary) -> bool:
    """Whether answers came as streams; whole answers have no first token."""
    return all(map(is_stream, of(summary)))


# -- what a level is, and is called


def is_stream(level: Level) -> bool:
    return level.streamed is not False


def is_estimated(level: Level) -> bool:
    """Whether text events are counted for tokens, because the server counted none."""
    return level.token_source in ("events", "estimated", "mixed")


def is_tpot_estimated(level: Level) -> bool:
    """Whether TPOT rests on a guess of how many tokens the first arrival carried; one token an event is no guess."""
    return bool(level.tpot_k_estimated) and level.itl_name == "inter-event"


def gap_name(level: Level) -> str | None:
    """ITL, or IET where an event carries other than one token; None where no gap was measured."""
    if not (level.itl_ms or NOTHING).n:
        return None
    return "IET" if level.itl_name == "inter-event" else "ITL"


def gap_names(summary: Summary) -> list[str]:
    """The names of the gaps of all levels, ITL last."""
    return sorted({name for level in of(summary) if (name := gap_name(level))})


def load(level: Level) -> float:
    """On its own axis: streams, or requests a second."""
    return float(level.load or 0)


def load_words(level: Level) -> str:
    if level.is_open:
        return f"{level.request_rate_per_s:g} req/s"
    return units.plural(level.concurrency or 0, "stream")


def repeat(level: Level) -> int:
    """1 for the first time that a load was measured."""
    return level.repeat or 1


def load_label(concurrency: int | None, request_rate_per_s: float | None) -> str:
    return f"c{concurrency or '?'}" if request_rate_per_s is None else f"{request_rate_per_s:g} req/s"


def label(level: Level) -> str:
    """The level's short name in a table of one model: "c4", "0.5 req/s", "c4 (2)" for its second repeat.

    No "#2": on GitHub that is a link to an issue.
    """
    name = load_label(level.concurrency, level.request_rate_per_s)
    return name if repeat(level) == 1 else f"{name} ({repeat(level)})"


def full_label(level: Level, summary: Summary) -> str:
    """The short name, with the model before it where the run has several."""
    if len(by_model(of(summary))) == 1:
        return label(level)
    return f"{level.model} {label(level)}"


def by_load(rows: Iterable[Level]) -> list[Level]:
    """Levels in the order of their loads, repeats of a load in their own."""
    return sorted(rows, key=lambda level: (load(level), repeat(level)))


def firsts(rows: Sequence[Level]) -> list[Level]:
    """The levels that a line joins: the first repeat of each load; the others are points beside it."""
    return [level for level in rows if repeat(level) == 1] or list(rows)


def device(row: Level | Model) -> str | None:
    """What a level or a model ran on, where the server tells that, else what it is listed with."""
    return (row.ran.device if row.ran else None) or row.device


def provider(row: Level | Model) -> str | None:
    return (row.ran.execution_provider if row.ran else None) or row.execution_provider


# -- its figures


def ttft(level: Level) -> Distribution:
    """The headline TTFT: from `sent` in closed loop, from `due` in open loop."""
    from_due = level.ttft_from_due_ms if level.is_open else None
    return from_due or level.ttft_ms or NOTHING


def lead(level: Level) -> Distribution:
    """The times that lead: TTFT, of whole answers E2E."""
    return ttft(level) if is_stream(level) else level.e2e_ms or NOTHING


def lead_name(level: Level) -> str:
    return "TTFT" if is_stream(level) else "E2E"


def ends(metric: Distribution, statistic: str) -> tuple[float | None, float | None]:
    """Each end of the 95 % interval by itself: of few requests the lower one may be all there is."""
    low, high = metric.ci95.get(statistic) or (None, None)
    return low, high


def interval(metric: Distribution, statistic: str) -> tuple[float, float] | None:
    """The 95 % interval, None where it or one of its ends does not exist."""
    low, high = ends(metric, statistic)
    return None if low is None or high is None else (float(low), float(high))


def is_doubtful(metric: Distribution, statistic: str) -> bool:
    """Whether requests may resemble their neighbours, so that the interval may be too narrow."""
    if metric.ci95_in_doubt is UNSET:
        return False
    return statistic in metric.ci95_in_doubt and interval(metric, statistic) is not None


def is_marked(metric: Distribution, statistic: str) -> bool:
    """Whether a printed percentile rests on too few requests for an interval."""
    known = statistic in REQUESTS_NEEDED and metric.at(statistic) is not None
    return known and interval(metric, statistic) is None


def any_marked(metrics: Iterable[Distribution | None]) -> bool:
    """Whether the median or p95 of one of them is."""
    return any(metric and (is_marked(metric, "p50") or is_marked(metric, "p95")) for metric in metrics)


# -- words


def by_number(code: str) -> tuple[int, str]:
    """Where a check is listed among others: V9 before V10, names of checks that have no number last."""
    digits = code.lstrip("V")
    return int(digits) if digits.isdigit() else 99, code


def joined(names: Iterable[str]) -> str:
    """Names once each, in order: "c1, c2"."""
    return ", ".join(dict.fromkeys(names))
