"""What a line of telemetry.jsonl may hold: the types and ranges that every reader of samples rests on."""

from __future__ import annotations

from typing import TypedDict

import msgspec

from loadbench.store.schema import Amount, Count, Figure, Seconds


class _Gpu(TypedDict, total=False):
    index: Count
    name: str | None
    memory_used_bytes: Amount | None
    memory_total_bytes: Amount | None
    server_memory_bytes: Amount | None
    utilisation: Amount | None
    power_w: Amount | None
    energy_j: Amount | None
    temperature_c: Figure | None
    clock_mhz: Amount | None
    throttled: bool | None


class _Processes(TypedDict, total=False):
    memory_bytes: Amount | None
    cpu_s: Amount | None
    threads: Count | None


class _Machine(TypedDict, total=False):
    cpu_s: Amount | None
    memory_available_bytes: Amount | None
    cpu_mhz: Amount | None
    temperature_c: Figure | None
    throttled: Amount | None
    power: str | None
    battery_percent: Amount | None


class _Sample(TypedDict, total=False):
    at_s: Seconds
    phase: str | None
    model: str | None
    level: str | None
    attempt: Count | None
    server: _Processes | None
    client: _Processes | None
    machine: _Machine | None
    gpus: list[_Gpu] | None
    cpu_energy_j: Amount | None
    metrics: dict[str, Figure] | None


def is_sample(value: object) -> bool:
    """Whether it is a sample: it has a time, and every key that is known is of its type and in its range.

    >>> is_sample({"at_s": 1.5, "server": {"threads": 4}}), is_sample({"at_s": 1.5, "server": {"threads": "4"}})
    (True, False)
    """
    try:
        return "at_s" in msgspec.convert(value, _Sample)
    except (msgspec.ValidationError, OverflowError):
        return False
