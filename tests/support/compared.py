"""Run folders of a declared law, written as a run leaves them: what comparisons are tested with."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from loadbench.store.files import NO_FIELDS
from loadbench.store.record import Result
from tests.support.streams import facts, failed, stream

INFO: Mapping[str, Any] = {
    "schema": 1,
    "status": "complete",
    "start": "2026-01-01T10:00:00Z",
    "scenario": {"name": "night", "requests": 100, "request_rate": None, "arrivals": "poisson", "slo": []},
    "parameters": {"max_tokens": 16, "temperature": 0.0, "extra_body": {}, "stream": True},
    "prompts": {"count": 10, "sha256": "aa"},
    "target": {"kind": "llama.cpp", "version": "b100", "base_url": "http://127.0.0.1:8080/v1"},
    "environment": {"cpu": "Ryzen", "cores": 8, "power": "mains"},
    "clock": "kernel",
    "versions": {"loadbench": "0.1.0"},
    "models": [],
    "absent": [],
}
PROMPTS = 10


def requests(
    level: str, slower: float = 1.0, n: int = 100, *, seed: int = 1, failing: float = 0.0, tokens: int = 16, **each: Any
) -> list[Result]:
    """One request after the other, 500 ms each of a server with `slower` 1, with a noise of 3 %."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(7).uniform(0.8, 1.25, PROMPTS)
    results: list[Result] = []
    due = 0.0
    for i in range(n):
        pace = slower * float(np.exp(0.03 * generator.standard_normal()))
        own = {"due": due, "level": level, "prompt": f"p{i % PROMPTS}", **each}
        if generator.random() < failing:
            results.append(failed(i, **own))
        else:
            ttft = 200 * pace * float(centres[i % PROMPTS])
            results.append(stream(i, ttft=ttft, per_token=20 * pace, tokens=tokens, **own))
        due = results[-1].end_ns / 1e6
    return results


def folder(
    path: Path,
    slower: float | Mapping[str, float] = 1.0,
    *,
    began: str = "2026-01-01T10:00:00Z",
    info: Mapping[str, Mapping[str, Any]] | None = None,
    status: str = "complete",
    **law: Any,
) -> Path:
    """A run folder.

    Args:
        slower: Of the level "m@c1", or by the level's id.
        began: When the run and its levels began.
        info: Changes of run.json, by its keys.
        law: As of `requests`.
    """
    path.mkdir(parents=True)
    known: dict[str, Any] = copy.deepcopy({**INFO, "name": path.name, "start": began, "levels": []})
    for key, change in (info or {}).items():
        known[key] = {**known[key], **change} if isinstance(known[key], dict) else change
    lines: list[str] = []
    for name, pace in ({"m@c1": slower} if isinstance(slower, int | float) else slower).items():
        results = requests(name, pace, **law)
        model = name.rpartition("@")[0]
        entry = facts(results, id=name, model=model, began=began, status=status, requests_planned=len(results))
        known["levels"].append(entry)
        lines += _lines(results)
    (path / "run.json").write_text(json.dumps(known), encoding="utf-8")
    (path / "requests.jsonl").write_text("".join(lines), encoding="utf-8")
    return path


def _lines(results: Iterable[Result]) -> list[str]:
    fields = [name for name in Result.__struct_fields__ if name not in NO_FIELDS]
    return [json.dumps({name: getattr(result, name) for name in fields}) + "\n" for result in results]
