"""Summaries made by hand, in tests/golden/: what the reports are tested with."""

import copy
import json
import os
from pathlib import Path
from typing import Any

from loadbench.report import run, text

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = sorted(path.stem for path in GOLDEN.glob("*.json"))


def summary_of(case: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GOLDEN / f"{case}.json").read_text(encoding="utf-8"))
    return found


def check_golden(golden: Path, rendered: str) -> None:
    """Hold a text against a file; LOADBENCH_UPDATE_GOLDEN=1 writes the file first."""
    if os.environ.get("LOADBENCH_UPDATE_GOLDEN"):
        golden.write_bytes(rendered.encode())

    assert rendered == golden.read_bytes().decode()


def with_levels(summary: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The summary with the same changes in each level."""
    changed = copy.deepcopy(summary)
    for level in changed["levels"]:
        level.update(changes)
    return changed


TIMES = {"n": 100, "mean": 300.0, "p50": 250.0, "p90": 500.0, "p95": 700.0, "p99": 900.0, "p999": 950.0, "max": 1000.0}


def level(**changes: Any) -> dict[str, Any]:
    """A level that ran to its end: 100 requests, of which 2 failed; TTFT p95 700 ms."""
    times = {**TIMES, "ci95": {"p50": [240.0, 260.0], "p95": [650.0, 800.0], "p99": None}}
    return {
        **{"id": "phi@c4", "model": "phi", "concurrency": 4, "request_rate_per_s": None, "repeat": 1},
        **{"status": "complete", "reason": None, "streamed": True, "burst_share": 0.0, "warnings": []},
        **{"offered": 100, "dropped": 0, "attempted": 100, "completed": 98, "failed": 2, "cancelled": 0},
        **{"ttft_ms": times, "ttft_from_due_ms": None, "itl_ms": times, "tpot_ms": times, "e2e_ms": times},
        **{"client_queue_ms": times, "output_tokens_per_s": 50.0, "output_tokens_per_s_ci95": [45.0, 55.0]},
        **{"characters_per_s": 220.0, "requests_per_s": 2.0, "goodput_per_s": None, "efficiency": 0.4},
        **{"server_memory_peak_bytes": 3_000_000_000, "gpu_memory_peak_bytes": None, "stalls": {"n": 1}},
        **{"j_per_1000_tokens": 12.0, "cost_per_1000_tokens": None},
        **{"share_ci95": {"failed": [0.0055, 0.07]}, "with_failures_ms": None},
        **changes,
    }


def on_terminal(summary: dict[str, Any], width: int = 100) -> str:
    """The report of a run as a terminal has it, without colour."""
    return text.render(run.document(summary), width)
