"""Candidates of a choice with figures that are declared, for tests of what is chosen and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from loadbench import select
from loadbench.compare import Flow, Lap, Side
from loadbench.select import Candidate, Measured, Need, Terms, policy
from loadbench.select.candidates import Rating, Scored
from loadbench.store import Run
from loadbench.store.summary import Level, Summary

GB = 10**9
SETTINGS: dict[str, Any] = {"max_tokens": 64, "temperature": 0.0, "extra_body": {}, "stream": True}


def info(name: str = "models", **more: Any) -> dict[str, Any]:
    """run.json of a run on this machine."""
    return {
        "schema": 1,
        "name": name,
        "start": "2026-11-22T18:29:00Z",
        "target": {"kind": "llama.cpp", "version": "b7", "base_url": "http://127.0.0.1:8080/v1"},
        "parameters": SETTINGS,
        "prompts": {"sha256": "5e1f"},
        "environment": {"cpu": "AMD EPYC", "cores": 8, "power": None},
        "clock": "kernel",
        "versions": {"loadbench": "0.1.0"},
        "scenario": {"requests": 200},
        "levels": [],
        **more,
    }


def measured(name: str = "models", **more: Any) -> Measured:
    """A run folder of which nothing but run.json is asked."""
    return Measured(Run(Path(name), info(name, **more), [], 0), Summary())


def lap(
    *,
    ttft: float = 200.0,
    e2e: float = 1000.0,
    characters: float | None = 400.0,
    tokens: float | None = 100.0,
    spread: float = 0.05,
    n: int = 200,
    length: float = 64.0,
    seed: int = 1,
    **more: Any,
) -> Lap:
    """One level, measured once: times in ms around their medians, rates per second in a window of a minute."""
    generator = np.random.default_rng(seed)

    def times(median: float) -> np.ndarray:
        return median * np.exp(spread * generator.standard_normal(n))

    def flow(per_s: float) -> Flow:
        slices = per_s * 60 / 64 * np.exp(spread * generator.standard_normal(64))
        return Flow(float(slices.sum()) / 60, slices, 60.0, 1.0)

    rates = {"characters_per_s": characters, "output_tokens_per_s": tokens}
    known: dict[str, Any] = {
        "run": "models",
        "began": "2026-11-22T18:30:00Z",
        "prompts": [f"p{i % 10}" for i in range(n)],
        "values": {"ttft": times(ttft), "e2e": times(e2e)},
        "flows": {metric: flow(rate) for metric, rate in rates.items() if rate is not None},
        "output_tokens": length,
        "token_source": "usage",
        "finish_reasons": {"length": n},
        "info": info(),
    }
    return Lap(**(known | more))


def candidate(
    name: str,
    laps: Sequence[Lap] | None = None,
    *,
    load: str = "c4",
    memory: float | None = 2 * GB,
    disk: float | None = 1 * GB,
    licence: str | None = "mit",
    quality: float | None = None,
    level: Mapping[str, Any] | None = None,
    loads: Sequence[str] = (),
    **figures: Any,
) -> Candidate:
    """A candidate that was measured at one load, or at several alike."""
    some = tuple(laps if laps is not None else [lap(**figures)])
    row: dict[str, Any] = {
        "server_memory_peak_bytes": None if memory is None else round(memory),
        "began": "2026-11-22T18:30:00Z",
        "attempted": 200,
        "offered": 200,
        "completed": 200,
        "failed": 0,
        **(level or {}),
    }
    names = loads or (load,)
    scored = []
    if quality:
        rating = Rating(mean=quality, n=10, ci95=(quality - 0.2, quality + 0.2))
        scored = [("hand", Scored(model=name, score=rating))]
    return Candidate(
        name,
        name,
        "CPU",
        None,
        "llama.cpp",
        "http://127.0.0.1:8080/v1",
        facts={"id": name, "name": name, "licence": licence, "disk_bytes": disk},
        sides={one: Side(name, one, some) for one in names},
        levels={one: [msgspec.convert(row, Level)] * len(some) for one in names},
        loads={one: ("closed" if one[0] == "c" else "open", float(one[1:])) for one in names},
        runs=["models"],
        scores=scored,
    )


def choose(
    *candidates: Candidate, needs: Sequence[str] = (), weights: Any = None, weight: Sequence[str] = (), **more: Any
) -> dict[str, Any]:
    """The record of a choice between them."""
    terms = Terms(policy=policy(weights, weight), needs=[Need.parse(text) for text in needs], **more)
    return select.choose(candidates, [measured()], terms)


def row(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A candidate's row."""
    return next(one for one in record["candidates"] if one["name"] == name)


def doubts(record: Mapping[str, Any], code: str) -> list[str]:
    """The texts of the doubts with a code."""
    return [one["text"] for one in record["doubts"] if one["code"] == code]
