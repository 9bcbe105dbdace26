"""The energy of a level: of GPUs and CPU as measured, else as declared; never a zero for what nobody knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from loadbench.metrics.distribution import significant
from loadbench.metrics.samples import Read, Sample, growth, reader

J_PER_WH = 3600.0
WH_PER_KWH = 1000.0


def figures(
    samples: Sequence[Sample],
    gpus: Sequence[int],
    scenario: Mapping[str, Any],
    *,
    duration_s: float | None,
    tokens: float | None,
) -> dict[str, Any]:
    """`energy_j`, its source, and what 1,000 output tokens of the level took.

    Args:
        samples: Of the level, without what is not the server's machine's.
        gpus: Indices of the GPUs that count.
        scenario: `declared_watts` stands in where nothing was measured, `price_per_kwh` gives the cost.
        duration_s: Of the level, for what is declared.
        tokens: Output tokens of all its requests, warm-up included: that is what the energy was spent on.
    """
    joules, source = measured(samples, gpus)
    watts, price = scenario.get("declared_watts"), scenario.get("price_per_kwh")
    if joules is None and watts and duration_s:
        joules, source = watts * duration_s, "declared"
    per_1000_j = 1000 * joules / tokens if joules is not None and tokens else None
    per_1000_wh = None if per_1000_j is None else per_1000_j / J_PER_WH
    return {
        "energy_j": significant(joules),
        "energy_source": source,
        "j_per_1000_tokens": significant(per_1000_j),
        "wh_per_1000_tokens": significant(per_1000_wh),
        "cost_per_1000_tokens": None
        if per_1000_wh is None or not price
        else significant(per_1000_wh / WH_PER_KWH * price),
    }


def measured(samples: Sequence[Sample], gpus: Sequence[int]) -> tuple[float | None, str | None]:
    """Joules of the whole devices over the level, and what they are of: "gpu", "cpu" or "gpu+cpu"."""
    of_gpus = [gpu_joules(samples, index) for index in gpus]
    known_of_gpus = [joules for joules in of_gpus if joules is not None]
    parts: dict[str, float] = {}
    if known_of_gpus and len(known_of_gpus) == len(of_gpus):  # the sum of some is the energy of none
        parts["gpu"] = sum(known_of_gpus)
    cpu = growth(samples, reader("cpu_energy_j"))
    if cpu is not None and cpu.is_whole:
        parts["cpu"] = cpu.amount
    return (sum(parts.values()), "+".join(parts)) if parts else (None, None)


def gpu_joules(samples: Sequence[Sample], index: int) -> float | None:
    """Energy of one GPU: by its counter, else its power over time, by trapezoids from the first sample to the last."""
    counted = growth(samples, of_gpu(index, "energy_j"))
    if counted is not None and counted.is_whole:
        return counted.amount
    watts = [of_gpu(index, "power_w")(sample) for sample in samples]
    if len(watts) < 2 or watts[0] is None or watts[-1] is None:
        return None
    known = [(float(sample["at_s"]), w) for sample, w in zip(samples, watts, strict=True) if w is not None]
    return sum((before + after) / 2 * (end_s - begin_s) for (begin_s, before), (end_s, after) in pairwise(known))


def of_gpu(index: int, name: str) -> Read:
    """Reads a figure of the GPU with that index."""
    figure = reader(name)

    def read(sample: Sample) -> float | None:
        return next((figure(gpu) for gpu in sample.get("gpus") or () if gpu.get("index") == index), None)

    return read
