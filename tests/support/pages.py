"""Summaries as report.html shows them: rich ones, hostile ones, large ones; made by hand from the golden ones."""

from __future__ import annotations

import copy
import math
from typing import Any

from tests.support.summaries import summary_of

HOSTILE = '<img src=x onerror="window.hurt=1"></script><script>window.hurt=1</script><b>bold</b> & "x" %{y}'
LOADS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


def rich(case: str = "scaling") -> dict[str, Any]:
    """A golden summary with whole distributions, timelines, stalls and samples in its levels."""
    found = copy.deepcopy(summary_of(case))
    began = 0.0
    for level in found["levels"]:
        enrich(level, began)
        began += level.get("duration_s") or 0.0
    return found


def enrich(level: dict[str, Any], began_s: float) -> None:
    minutes, seconds = divmod(int(began_s), 60)
    level["began"] = f"2026-01-12T{9 + minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}Z"
    level["spectra"] = {
        name: spectrum(level[name]) for name in ("ttft_ms", "itl_ms", "e2e_ms") if (level.get(name) or {}).get("n")
    }
    streams, rate = level.get("concurrency") or 1, level.get("output_tokens_per_s") or 0.0
    every = (level.get("duration_s") or 60.0) / 120
    level["timeline"] = {
        "every_s": every,
        "t_s": [round(i * every, 3) for i in range(120)],
        "in_flight": [float(streams)] * 118 + [streams / 2, 0.5],
        "output_tokens_per_s": [float(f"{rate * (1 + 0.3 * math.sin(i / 3)):.4g}") for i in range(120)],
        "errors": [3 if level.get("failed") and i == 60 else 0 for i in range(120)],
    }
    longest = [{"at_s": round(40 * every, 3), "ms": 1234.0, "request": 17}]
    level["stalls"] = {"n": 1, "threshold_ms": 300.0, "requests": 1, "longest_ms": 1234.0, "longest": longest}
    level["stalls"] |= {"at_s": longest[0]["at_s"], "longest_request": 17, "longest_prompt": "haiku"}
    n = 60
    level["course"] = {
        "t_s": [round(i * 2 * every, 3) for i in range(n)],
        "server_memory_bytes": [4.1e8 + 1e6 * i for i in range(n)],
        "server_cores": [None, *(1.0 + 0.1 * math.sin(i) for i in range(n - 1))],
        "gpu_utilisation": None,
        "power_w": [None, *(35.0 + i % 7 for i in range(n - 1))],
    }


def spectrum(metric: dict[str, Any]) -> dict[str, list[float]]:
    steps = max(math.ceil(4 * math.log2(metric["n"])), 1) if metric["n"] > 1 else 1
    low, high = metric["p50"] * 0.8, metric.get("max") or metric["p50"] * 2
    values = [round(low * (high / low) ** (i / steps), 3) for i in range(steps)]
    return {
        "one_in": [float(f"{2 ** (i / 4):.6g}") for i in range(steps)] + [float(metric["n"])],
        "ms": [*values, high],
    }


def hostile() -> dict[str, Any]:
    """Names, errors and answers that would run in a browser if it took them for markup."""
    found = rich("closed_loop")
    for level in found["levels"]:
        level["model"] = f"{HOSTILE} {level['model']}"
        level["errors"] = {HOSTILE: 3}
        level["failed"] = 3
        level["stalls"]["longest_prompt"] = HOSTILE
        level["warnings"] = [{"code": "V4", "severity": "red", "text": HOSTILE}]
        for prompt in level.get("prompts") or []:
            prompt["prompt"] = HOSTILE
    for curve in found.get("scaling") or []:
        curve["model"] = f"{HOSTILE} {curve['model']}"
    found["run"]["name"] = HOSTILE
    found["models"] = []
    return found


def large(models: int = 30) -> dict[str, Any]:
    """So many models at 12 loads each, every level with all that a page can show."""
    found = copy.deepcopy(summary_of("scaling"))
    pattern = found["levels"][0]
    curve = next(one for one in found["scaling"] if one["model"] == pattern["model"])
    found["levels"], found["scaling"], found["models"] = [], [], []
    for m in range(models):
        name = f"model-{m:02d}-instruct-generic-cpu"
        rows = []
        for n in LOADS:
            level = copy.deepcopy(pattern) | {"id": f"{name}@c{n}", "model": name, "concurrency": n, "warnings": []}
            factor = n / (1 + 0.1 * (n - 1)) * (1 + m / 10)
            rate = round(20 * factor, 2)
            level |= {"output_tokens_per_s": rate, "characters_per_s": round(4.2 * rate, 2)}
            level |= {"output_tokens_per_s_ci95": [rate * 0.95, rate * 1.05]}
            level |= {"characters_per_s_ci95": [4 * rate, 4.4 * rate], "efficiency": factor / n / (1 + m / 10)}
            enrich(level, 60.0 * len(found["levels"]))
            found["levels"].append(level)
            serial = 20 * (1 + m / 10)
            row = {"id": level["id"], "n": n, "x_per_s": rate, "ideal_x_per_s": serial * n, "serial_x_per_s": serial}
            rows.append(row | {"efficiency": level["efficiency"], "speedup": factor, "stretch": 1.1})
        found["scaling"].append(curve | {"model": name, "levels": rows})
    return found
