"""The gate on a level that workers share: whether all of them did, and none measured itself instead of the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from loadbench import stats
from loadbench.metrics.gates.client import WAIT_WARN
from loadbench.metrics.gates.doubt import Doubt, Level, Scenario, said

CODE = "workers"
SLOWER = 1.2
"""A worker whose first tokens take so much longer than the others' has a worse way, or too much to do."""
FEWEST = 20
"""Requests of a worker, from which its median says something."""
LAG_SHARE, CORE_SHARE, LATE_MS = 0.25, 0.8, 50.0
MERGED = 0.01
"""Of the level's arrivals; where fewer are merged, a lag changes no time: the kernel stamps what arrives."""

Worker = Mapping[str, Any]


def workers(level: Level, scenario: Scenario) -> Doubt | None:
    """Red where a worker was lost: its part of the load was missing. Else a doubt that names who is not well."""
    rows: Sequence[Worker] = level.get("workers") or ()
    if lost := [row for row in rows if row.get("status") == "lost"]:
        told = "; ".join(f"{_name(row)}: {row.get('reason')}" for row in lost)
        unknown = sum(row.get("unknown") or 0 for row in lost)
        text = (
            f"{len(lost)} of {len(rows)} workers were lost ({told}): their part of the load is missing from then on"
            f"{f', and {unknown} requests of theirs have no record' if unknown else ''}; measure the level again"
        )
        return said("red", CODE, text)
    merged = (level.get("merged_share") or 0.0) > MERGED
    sick = [f"{_name(row)} {what}" for row in rows if (what := _what(row, rows, merged)) is not None]
    if not sick:
        return None
    whose = "its figures are in part its own; give it less to do, or leave it out"
    if len(sick) > 1:
        whose = "their figures are in part their own; give them less to do, or more cores"
    text = f"{'; '.join(sick)}: {whose}"
    return said("warn", CODE, text)


def _what(row: Worker, rows: Sequence[Worker], merged: bool) -> str | None:
    """What a worker suffers from; None where it is well."""
    others = [other for other in rows if other is not row]
    lag, gap = _of(row, "client_lag_ms", "p99"), _of(row, "itl_ms", "p50")
    if (waited := row.get("wait_share")) is not None and waited > WAIT_WARN:
        return f"waited for a core {waited:.0%} of the time"
    if merged and lag is not None and gap and lag > LAG_SHARE * gap:
        return f"lags {lag:.3g} ms (p99) behind, {lag / gap:.0%} of a gap"
    if (busy := row.get("cpu_share")) is not None and busy > CORE_SHARE:
        return f"kept its core busy to {busy:.0%}"
    if (late := row.get("late_ms") or 0.0) > LATE_MS:
        return f"began {late:.0f} ms after the others"
    ttft, usual = _of(row, "ttft_ms", "p50"), [_of(other, "ttft_ms", "p50") for other in others]
    known = [one for one in usual if one is not None]
    if ttft is not None and known and (row.get("completed") or 0) >= FEWEST and ttft > SLOWER * median(known):
        return f"saw TTFT p50 {ttft:.3g} ms, the others {median(known):.3g} ms"
    mine, theirs = _failed([row]), _failed(others)
    if mine[1] and theirs[1] and (more := stats.newcombe(theirs, mine)) is not None and more[0] > 0:
        return f"failed {mine[0]} of {mine[1]} requests, the others {theirs[0]} of {theirs[1]}"
    return None


def _failed(rows: Sequence[Worker]) -> tuple[int, int]:
    failed = sum(row.get("failed") or 0 for row in rows)
    return failed, failed + sum(row.get("completed") or 0 for row in rows)


def _of(row: Worker, metric: str, figure: str) -> float | None:
    found: float | None = (row.get(metric) or {}).get(figure)
    return found


def _name(row: Worker) -> str:
    where = row.get("address") or (f"process {row['pid']}" if row.get("pid") else None)
    return f"worker {row.get('name')}" + (f" ({where})" if where else "")
