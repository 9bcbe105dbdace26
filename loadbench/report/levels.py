"""Reading `summary.json`: its levels by model, what to call them, and its percentiles with their doubts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from loadbench import text as units

Record = Mapping[str, Any]
"""A part of a summary, as JSON has it."""
Summary = Record
Level = Record

REQUESTS_NEEDED = {"p50": 6, "p90": 36, "p95": 72, "p99": 368, "p999": 3688}
"""Smallest n whose order statistics give a two-sided 95 % interval (METRICS.md §4)."""

# -- parts of a summary


def run_of(summary: Summary) -> Record:
    return summary.get("run") or {}


def levels(summary: Summary) -> list[Level]:
    """The levels that a reader compares: without those that repeat the first one at the end of the run."""
    return [level for level in summary.get("levels") or [] if not level.get("closing")]


def models(summary: Summary) -> list[Record]:
    """What the run knows of each model beside its levels."""
    return list(summary.get("models") or [])


def by_model(summary: Summary) -> dict[str, list[Level]]:
    """Levels of each model, in the order of the run."""
    models: dict[str, list[Level]] = {}
    for level in levels(summary):
        models.setdefault(model(level), []).append(level)
    return models


def warnings(summary: Summary) -> list[tuple[Level | None, Record]]:
    """The gates that spoke, each with its level; None for one about the whole run."""
    found: list[tuple[Level | None, Record]] = [(None, warning) for warning in parts([summary], "warnings")]
    for level in levels(summary):
        found += [(level, warning) for warning in parts([level], "warnings")]
    return found


def is_simulated(summary: Summary) -> bool:
    """Whether the figures come from the simulator: then no report may look like a measurement of a model."""
    target = run_of(summary).get("target") or {}
    return target.get("kind") == "simulator" or any(level.get("simulated") for level in levels(summary))


def is_streamed(summary: Summary) -> bool:
    """Whether streams were asked for; whole answers have no first token."""
    return all(map(is_stream, levels(summary)))


# -- what a level is, and is called


def model(level: Level) -> str:
    return str(level.get("model"))


def repeat(level: Level) -> int:
    """1 for the first time that a load was measured."""
    return int(level.get("repeat") or 1)


def is_open(level: Level) -> bool:
    """Whether requests start at a rate, whatever is in flight."""
    return level.get("request_rate_per_s") is not None


def is_stream(level: Level) -> bool:
    """Whether its answers came as streams."""
    return level.get("streamed") is not False


def is_estimated(level: Level) -> bool:
    """Whether text events stand for tokens, because the server counted none."""
    return level.get("token_source") in ("events", "estimated", "mixed")


def is_tpot_estimated(level: Level) -> bool:
    """Whether TPOT rests on a guess of how many tokens the first arrival carried; one token an event is no guess."""
    return bool(level.get("tpot_k_estimated")) and level.get("itl_name") == "inter-event"


def is_unfinished(level: Level) -> bool:
    """Whether the level did not run to its end."""
    return level.get("status") not in (None, "complete")


def gap_name(level: Level) -> str | None:
    """What its gaps are: ITL, or IET where an event carries other than one token; None where none was measured."""
    if not distribution(level, "itl_ms").get("n"):
        return None
    return "IET" if level.get("itl_name") == "inter-event" else "ITL"


def gap_names(summary: Summary) -> list[str]:
    """What the gaps of all levels are, ITL last."""
    return sorted({name for level in levels(summary) if (name := gap_name(level))})


def load(level: Level) -> float:
    """The level's load on its own axis: streams, or requests a second."""
    return float(level.get("request_rate_per_s") or level.get("concurrency") or 0)


def load_words(level: Level) -> str:
    if is_open(level):
        return f"{level['request_rate_per_s']:g} req/s"
    return units.plural(int(level.get("concurrency") or 0), "stream")


def label(level: Level) -> str:
    """The level's short name in a table of one model: "c4", "0.5 req/s", "c4 (2)" for its second repeat.

    No "#2": on GitHub that is a link to an issue.
    """
    name = load_words(level) if is_open(level) else f"c{level.get('concurrency') or '?'}"
    return name if repeat(level) == 1 else f"{name} ({repeat(level)})"


def full_label(level: Level, summary: Summary) -> str:
    """The short name, with the model before it where the run has several."""
    if len(by_model(summary)) == 1:
        return label(level)
    return f"{level.get('model')} {label(level)}"


def by_load(rows: Iterable[Level]) -> list[Level]:
    """Levels in the order of their loads, repeats of a load in their own."""
    return sorted(rows, key=lambda level: (load(level), repeat(level)))


def firsts(rows: Sequence[Level]) -> list[Level]:
    """The levels that a line joins: the first repeat of each load; the others stand beside it as points."""
    return [level for level in rows if repeat(level) == 1] or list(rows)


def parts(rows: Iterable[Record], name: str) -> list[Record]:
    """What several levels hold in lists of one name, one after the other: their bounds, endpoints, warnings."""
    found: list[Record] = []
    for row in rows:
        found += row.get(name) or ()
    return found


# -- its figures


def distribution(level: Level, metric: str) -> Record:
    """A time or a number of tokens over requests: percentiles, mean, n, intervals; empty where nobody measured it."""
    return level.get(metric) or {}


def value(level: Level, metric: str, statistic: str) -> float | None:
    number = distribution(level, metric).get(statistic)
    return None if number is None else float(number)


def bounds(level: Level, figure: str) -> tuple[float | None, float | None]:
    low, high = level.get(f"{figure}_ci95") or (None, None)
    return low, high


def total(rows: Iterable[Level], figure: str) -> int:
    return sum(int(level.get(figure) or 0) for level in rows)


def ttft(level: Level) -> Record:
    """The headline TTFT: from `sent` in closed loop, from `due` in open loop."""
    from_due = level.get("ttft_from_due_ms") if is_open(level) else None
    return from_due or distribution(level, "ttft_ms")


def lead(level: Level) -> Record:
    """The times that lead: TTFT, of whole answers E2E."""
    return ttft(level) if is_stream(level) else distribution(level, "e2e_ms")


def lead_name(level: Level) -> str:
    return "TTFT" if is_stream(level) else "E2E"


def device(row: Record) -> str | None:
    """What a level or a model ran on, where the server tells that, else what it is listed with."""
    return (row.get("ran") or {}).get("device") or row.get("device")


def interval(metric: Record, statistic: str) -> tuple[float, float] | None:
    """The 95 % interval, None where it or one of its ends does not exist."""
    low, high = ends(metric, statistic)
    return None if low is None or high is None else (low, high)


def ends(metric: Record, statistic: str) -> tuple[float | None, float | None]:
    """Each end of the 95 % interval by itself: of few requests the lower one may be all there is."""
    found = (metric.get("ci95") or {}).get(statistic)
    if not found or len(found) != 2:
        return None, None
    low, high = found
    return None if low is None else float(low), None if high is None else float(high)


def is_doubtful(metric: Record, statistic: str) -> bool:
    """Whether requests may resemble their neighbours, so that the interval may be too narrow."""
    return statistic in (metric.get("ci95_in_doubt") or ()) and interval(metric, statistic) is not None


def is_marked(metric: Record, statistic: str) -> bool:
    """Whether a printed percentile rests on too few requests for an interval."""
    return statistic in REQUESTS_NEEDED and metric.get(statistic) is not None and interval(metric, statistic) is None


def by_number(code: str) -> tuple[int, str]:
    """Where a gate stands among others: V9 before V10, names of gates that have no number last."""
    digits = code.lstrip("V")
    return int(digits) if digits.isdigit() else 99, code


def any_marked(metrics: Iterable[Record]) -> bool:
    """Whether the median or p95 of one of them is."""
    return any(is_marked(metric, "p50") or is_marked(metric, "p95") for metric in metrics)


def joined(names: Iterable[str]) -> str:
    """Names once each, in order: "c1, c2"."""
    return ", ".join(dict.fromkeys(names))
