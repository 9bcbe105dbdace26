"""Thresholds held against the levels of a run: failed, passed, or not known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from loadbench.bounds import Bound, Threshold
from loadbench.figures import FIGURES
from loadbench.metrics.distribution import significant
from loadbench.metrics.level import BURST
from loadbench.metrics.slo import STREAMED, WHOLE

Level = Mapping[str, Any]
Row = dict[str, Any]

_UNITS: Mapping[str, str] = {"ms": "ms", "share": "share", "bytes": "bytes", "/s": "per_s"}
"""As summary.json names them; None of the others, which are plain numbers."""


def thresholds(levels: Sequence[Level], written: Sequence[str | Mapping[str, Any]]) -> list[Row]:
    """One row a threshold and level that it is about, in that order.

    Returns:
        {"text", "model", "level", "metric", "unit", "value", "n", "interval", "result", "reason", "aborted"}. `result`
        is "failed" where the condition holds, "passed" where it does not, "unknown" where the figure was not
        measured, or does not hold in a level that did not run to its end: what had come might have failed it.
        `value` and `interval` are in ms, shares, bytes or per second, as `unit` says.

    Args:
        levels: As summary.json has them, with `efficiency`; those that repeat the first one are not judged.
        written: `fail_if` of the scenario in run.json.
    """
    judged = [level for level in levels if not level.get("closing")]
    rows = []
    for one in map(Threshold.of, written):
        about = [level for level in judged if one.is_about(str(level.get("id")), str(level.get("model")))]
        rows += [_row(one, level) for level in about] or [_nowhere(one, judged)]
    return rows


def _row(one: Threshold, level: Level) -> Row:
    value, n, interval = _figure(one.bound, level)
    endless = value == math.inf
    status = level.get("status")
    whole = status in (None, "complete")
    reason = None
    if value is None:
        result, reason = "unknown", _missing(one.bound, level)
    elif one.bound.holds(value):
        result, reason = "failed", _without_end(level) if endless else None
    elif whole:
        result = "passed"
    else:
        result, reason = "unknown", f"{status}: {level.get('reason') or 'it did not run to its end'}"
    return {
        **_named(one),
        "model": level.get("model"),
        "level": level.get("id"),
        "value": significant(value, 9),  # None where it is without end
        "n": n,
        "interval": interval,
        "result": result,
        "reason": reason,
        "aborted": level.get("aborted") == one.text,
    }


def _nowhere(one: Threshold, judged: Sequence[Level]) -> Row:
    reason = f"no level is called {one.level}" if one.level and judged else "no level was measured"
    unknown = {"value": None, "n": None, "interval": None, "result": "unknown", "reason": reason, "aborted": False}
    return {**_named(one), "model": None, "level": None, **unknown}


def _named(one: Threshold) -> Row:
    return {"text": one.text, "metric": one.bound.metric, "unit": _UNITS.get(one.bound.figure.unit)}


def _figure(bound: Bound, level: Level) -> tuple[float | None, int | None, Any]:
    """The figure that a bound is about, of how many, and its 95 % interval where one exists."""
    figure = bound.figure
    if figure.values:
        found = _times(bound.metric, level)
        statistic = bound.statistic or ""
        value = found.get(statistic)
        if value is None and found.get("n") and level.get("with_failures_ms"):
            value = math.inf
        return value, found.get("n"), (found.get("ci95") or {}).get(statistic)
    if figure.counts is not None:
        hits, n = (level.get(name) for name in figure.counts)
        if hits is None or not n:
            return None, n, None
        n = max(hits, n)  # of a damaged folder, which a gate names
        return hits / n, n, (level.get("share_ci95") or {}).get(bound.metric)
    value, interval = figure.read(level), level.get(f"{figure.path}_ci95")
    if figure.unit == "bytes":
        return value, None, None
    if bound.metric == "stalls":
        return value, FIGURES["itl"].read(level, "n"), None
    return value, level.get("completed"), interval


def _times(metric: str, level: Level) -> Mapping[str, Any]:
    """The distribution that counts: with failures, if there are any; in open loop TTFT counts from `due`."""
    if level.get("with_failures_ms"):
        return level["with_failures_ms"].get(metric) or {}
    from_due = metric == "ttft" and level.get("request_rate_per_s") is not None
    return level.get("ttft_from_due_ms" if from_due else f"{metric}_ms") or {}


def _without_end(level: Level) -> str:
    """Why a percentile is without end."""
    failed, dropped = level.get("failed") or 0, level.get("dropped") or 0
    counts = [f"{n} {word}" for n, word in ((failed, "failed"), (dropped, "were dropped")) if n]
    due = level.get("offered") or level.get("attempted")
    return f"{' and '.join(counts)} of {due} requests: they never ended"


def _missing(bound: Bound, level: Level) -> str:
    """Why a figure is not there."""
    if level.get("status") in ("skipped", "failed"):
        return f"{level['status']}: {level.get('reason')}"
    if not level.get("completed"):
        return "no request completed"
    metric = bound.metric
    if metric in (*WHOLE, "stalls") and level.get("streamed") is False:
        return f"answers that are asked for whole have no {'gaps' if metric == 'stalls' else metric}"
    if metric in (*STREAMED, "stalls") and (level.get("burst_share") or 0) > BURST:
        return "the server sends its answers in bursts"
    if bound.figure.unit == "bytes":
        return "nobody could sample it"
    if metric == "efficiency":
        return "no lower load of this model was measured"
    if metric == "goodput":
        return "no SLO is given, or it could not be judged"
    return "the steady window is too short" if metric.endswith("_per_s") else "not measured"
