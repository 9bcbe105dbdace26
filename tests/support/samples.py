"""Samples as telemetry.jsonl holds them, for the tests of what is computed from them."""

from __future__ import annotations

from typing import Any

GB = 1_000_000_000


def sample(at_s: float, *, level: str = "m@c1", attempt: int = 1, **parts: Any) -> dict[str, Any]:
    """A sample of a level; `server`, `client`, `machine`, `gpus`, `cpu_energy_j` and `metrics` as given, else None."""
    head = {"at_s": at_s, "phase": "level", "model": "m", "level": level, "attempt": attempt}
    return {**head, **dict.fromkeys(("server", "client", "machine", "gpus", "cpu_energy_j", "metrics")), **parts}


def server(cpu_s: float, memory_bytes: int = GB, threads: int = 8) -> dict[str, Any]:
    return {"processes": 1, "memory_bytes": memory_bytes, "cpu_s": cpu_s, "threads": threads}


def machine(cpu_s: float | None = None, **known: Any) -> dict[str, Any]:
    names = ("memory_available_bytes", "cpu_mhz", "temperature_c", "throttled", "power", "battery_percent")
    return {"cpu_s": cpu_s, **dict.fromkeys(names), **known}


def gpu(index: int = 0, **known: Any) -> dict[str, Any]:
    names = ("memory_used_bytes", "server_memory_bytes", "utilisation", "power_w", "energy_j", "temperature_c")
    return {"index": index, "name": "a GPU", **dict.fromkeys((*names, "clock_mhz", "throttled")), **known}
