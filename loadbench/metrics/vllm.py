"""The figures of one level as `vllm bench serve` computes them: its names, its definitions, over our records.

They differ from ours on purpose: percentiles are interpolated, TPOT divides by the tokens after the first, rates are
those of all measured requests from the first start to the last end, with the ramp and the drain in them. So a file in
vLLM's shape may be held against one that vLLM wrote.

Source: `calculate_metrics` and `benchmark` in vllm/benchmarks/serve.py (vllm-project/vllm).
"""

from __future__ import annotations

import numpy as np

from loadbench.metrics.distribution import ascending_gaps
from loadbench.metrics.request import Requests
from loadbench.store import LevelData
from loadbench.store.record import Json, Reals

PERCENTILES = ("50", "90", "95", "99", "99.9")
NS_PER_S = 1e9


def figures(data: LevelData, *, streamed: bool = True) -> Json:
    """The keys of a result file that are measured. What was not measured is left out, where vLLM writes 0."""
    results = data.results
    requests = Requests.of(results, streamed=streamed)
    done = requests.population
    measured = np.flatnonzero(requests.measured)
    found: Json = {
        "num_prompts": len(measured),
        "completed": int(done.sum()),
        "failed": int((requests.measured & ~requests.completed & ~requests.cancelled).sum()),
    }
    if not done.any():
        return found
    duration_s = float(results.end[measured].max() - results.due[measured].min()) / NS_PER_S
    output, input_ = _total(requests.tokens[done]), _total(results.input_tokens[done])
    latency = results.last_token - results.sent
    with np.errstate(divide="ignore", invalid="ignore"):
        tpot = np.where(requests.tokens > 1, (latency - requests.ttft) / (requests.tokens - 1), np.nan)
    # The second that the most requests touched, and the one with the most arrivals of text.
    origin = results.sent[done].min()
    first = np.floor((results.sent[done] - origin) / NS_PER_S).astype(np.int64)
    last = np.floor((results.sent[done] + latency[done] - origin) / NS_PER_S).astype(np.int64)
    change = np.zeros(int(last.max()) + 3, np.int64)
    np.add.at(change, first, 1)
    np.add.at(change, last + 1, -1)
    most_tokens = None
    if data.gaps_kept and streamed:
        seconds = []
        for row in np.flatnonzero(done):
            gaps_us = results.gaps_us[results.gap_offsets[row] : results.gap_offsets[row + 1]]
            after_us = np.concatenate(([0], np.cumsum(gaps_us)))
            seconds.append((results.first_token[row] - origin + after_us * 1e3) / NS_PER_S)
        most_tokens = float(np.bincount(np.floor(np.concatenate(seconds)).astype(np.int64), minlength=1).max())
    found |= {
        "duration": duration_s,
        "total_input_tokens": input_,
        "total_output_tokens": output,
        "request_throughput": found["completed"] / duration_s,
        "request_goodput": None,
        "output_throughput": None,
        "total_token_throughput": None,
        "max_concurrent_requests": int(np.cumsum(change).max()),
        "max_output_tokens_per_s": most_tokens,
        **_times("ttft", requests.ttft[done]),
        **_times("tpot", tpot[done]),
        **_times("e2el", latency[done]),
    }
    if output is not None:
        found["output_throughput"] = output / duration_s
    if output is not None and input_ is not None:
        found["total_token_throughput"] = (input_ + output) / duration_s
    if data.gaps_kept and streamed:
        found |= _times("itl", ascending_gaps(results, done).astype(np.float64) * 1e3)
    # vLLM too writes a goodput of null where none was asked for.
    return {name: value for name, value in found.items() if value is not None or name == "request_goodput"}


def _times(name: str, ns: Reals) -> dict[str, float]:
    known = ns[~np.isnan(ns)] / 1e6
    if not len(known):
        return {}
    # The deviation of these values themselves, as numpy's default has it and vLLM takes it.
    found = {"mean": known.mean(), "median": np.median(known), "std": known.std()}
    for p in PERCENTILES:
        found[f"p{p}"] = np.percentile(known, float(p))
    return {f"{statistic}_{name}_ms": float(value) for statistic, value in found.items()}


def _total(values: Reals) -> int | None:
    """The sum, None where one is unknown."""
    total = values.sum()
    if np.isnan(total):
        return None
    return int(total)
