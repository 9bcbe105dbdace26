"""The server's own account of a level, from its /metrics: what it counted, what it was busy with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loadbench.metrics.distribution import significant
from loadbench.metrics.samples import Read, Sample, growth, largest, mean, values, within

OUTPUT_TOKENS = ("llamacpp:tokens_predicted_total", "vllm:generation_tokens_total")
COUNTERS = (*OUTPUT_TOKENS, "llamacpp:prompt_tokens_total", "vllm:prompt_tokens_total", "vllm:num_preemptions_total")
SPEEDS = ("llamacpp:predicted_tokens_seconds", "llamacpp:prompt_tokens_seconds")
RUNNING = ("llamacpp:requests_processing", "vllm:num_requests_running")
WAITING = ("llamacpp:requests_deferred", "vllm:num_requests_waiting")
FULL = ("vllm:gpu_cache_usage_perc", "vllm:kv_cache_usage_perc", "llamacpp:kv_cache_usage_ratio")


def figures(samples: Sequence[Sample]) -> dict[str, Any]:
    """`server_metrics` by the server's own names, and the output tokens per second that it counted; None without any.

    Counters: how far they went over the level. Speeds: the mean of those that are not 0, for they are 0 while nothing
    is generated. Requests running and waiting: the mean while the level ran. Shares of a cache: the largest.
    """
    found: dict[str, float | None] = {}
    for name in COUNTERS:
        grown = growth(samples, _of(name))
        found[name] = grown.amount if grown else None
    for name in SPEEDS:
        speeds = [speed for speed in values(samples, _of(name)) if speed]
        found[name] = sum(speeds) / len(speeds) if speeds else None
    for name in (*RUNNING, *WAITING):
        found[name] = mean(within(samples), _of(name))
    for name in FULL:
        found[name] = largest(samples, _of(name))
    grown = next((grown for name in OUTPUT_TOKENS if (grown := growth(samples, _of(name)))), None)
    known = {name: significant(value) for name, value in found.items() if value is not None}
    return {
        "server_metrics": known or None,
        "server_output_tokens_per_s": significant(grown.amount / grown.seconds) if grown else None,
    }


def _of(name: str) -> Read:
    def read(sample: Sample) -> float | None:
        value = (sample.get("metrics") or {}).get(name)
        return None if value is None else float(value)

    return read
