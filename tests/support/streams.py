"""Requests whose timing is known, for the tests of the read half. Times in ms; those of docs/metrics.md by default."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from loadbench.metrics import summarise
from loadbench.store import LevelData, Run
from loadbench.store.record import Result, Results

MS = 1_000_000


def stream(
    number: int = 0,
    *,
    due: float = 0.0,
    queued: float = 0.0,
    ttft: float = 200.0,
    per_token: float = 20.0,
    tokens: int = 32,
    per_event: int = 1,
    usage: bool = True,
    **changes: Any,
) -> Result:
    """One completed request: token i arrives `ttft` + i * `per_token` after it was sent, in events of `per_event`."""
    sent = due + queued
    arrivals = [sent + ttft + per_token * (i - 1) for i in range(per_event, tokens + 1, per_event)]
    result = Result(
        level="m@c1",
        attempt=1,
        request=number,
        prompt="p",
        warmup=False,
        due_ns=round(due * MS),
        sent_ns=round(sent * MS),
        connect_ns=0,
        headers_ns=round((sent + 10) * MS),
        first_event_ns=round(min(sent + 50, arrivals[0]) * MS),
        first_token_ns=round(arrivals[0] * MS),
        last_token_ns=round(arrivals[-1] * MS),
        end_ns=round((arrivals[-1] + 5) * MS),
        gaps_us=[round((b - a) * 1000) for a, b in pairwise(arrivals)],
        first_events=1,
        text_events=len(arrivals),
        input_tokens=10 if usage else None,
        output_tokens=tokens if usage else None,
        characters=4 * tokens,
        words=tokens,
        finish_reason="length",
        status=200,
    )
    return replace(result, **changes)


def failed(number: int = 0, *, error: str = "http_5xx", due: float = 0.0, **changes: Any) -> Result:
    """A request that failed before its first event."""
    marks = dict.fromkeys(("headers_ns", "first_event_ns", "first_token_ns", "last_token_ns", "finish_reason"))
    empty: dict[str, Any] = {"gaps_us": [], "first_events": 0, "text_events": 0, "characters": 0, "words": 0}
    usage = {"input_tokens": None, "output_tokens": None, "error": error, "status": 500}
    end = {"end_ns": round((due + 30) * MS)}
    return stream(number, due=due, **{**marks, **empty, **usage, **end, **changes})


def in_turn(n: int, **each: Any) -> list[Result]:
    """One stream after the other, each due when the one before has ended."""
    every_ms = stream(**each).end_ns / MS
    return [stream(i, due=i * every_ms, **each) for i in range(n)]


def facts(results: Iterable[Result], **changes: Any) -> dict[str, Any]:
    """A closed-loop level's entry of run.json that fits the requests."""
    results = list(results)
    measured = [r for r in results if not r.warmup]
    known = {
        "id": "m@c1",
        "model": "m",
        "endpoint": "http://localhost/v1",
        "device": None,
        "repeat": 1,
        "attempt": 1,
        "status": "complete",
        "reason": None,
        "began": "2026-01-01T00:00:00Z",
        "concurrency": 1,
        "request_rate_per_s": None,
        "duration_s": max((r.end_ns for r in results), default=0) / 1e9,
        "measured_from_ns": min((r.due_ns for r in measured), default=None),
        "full_ns": min((r.due_ns for r in results), default=None),
        "last_issue_ns": max((r.due_ns for r in measured), default=None),
        "offered": len(measured),
        "dropped": 0,
        "client_cpu_s": None,
        "client_lag_us": None,
    }
    return known | changes


def level_data(
    results: Iterable[Result], *, gaps_kept: bool = True, histograms: Any = None, **changes: Any
) -> LevelData:
    results = list(results)
    return LevelData(facts(results, **changes), Results.from_results(results), histograms or {}, gaps_kept)


def run(*levels: LevelData, scenario: dict[str, Any] | None = None, **info: Any) -> Run:
    return Run(Path("run"), {"schema": 1, "levels": [], "scenario": scenario or {}, **info}, list(levels), 0)


def summed(results: Iterable[Result], *, scenario: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """The entry of summary.json for one level of these requests."""
    level: dict[str, Any] = summarise(run(level_data(results, **changes), scenario=scenario))["levels"][0]
    return level


def said(level: dict[str, Any], code: str) -> list[tuple[str, str]]:
    return [(w["severity"], w["text"]) for w in level["warnings"] if w["code"] == code]


def figures(level: dict[str, Any], paths: Iterable[str]) -> dict[str, Any]:
    """A level's figures by path: "ttft_ms.p50", "slo.0.n"; "warnings.V2" has the severities of one check's findings."""
    found = {}
    for path in paths:
        value: Any = level
        for key in path.split("."):
            if value is level["warnings"]:
                value = [one["severity"] for one in value if one["code"] == key]
            elif value is not None:
                value = value[int(key)] if isinstance(value, list) else value[key]
        found[path] = value
    return found
