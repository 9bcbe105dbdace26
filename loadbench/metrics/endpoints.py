"""What went to each endpoint of a service that has several: a level's figures once more, of its requests alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from loadbench.bounds import Bound
from loadbench.metrics import level, stalls
from loadbench.metrics.distribution import rounded
from loadbench.store import LevelData

_FIGURES = (
    *("attempted", "completed", "failed", "cancelled", "errors", "failure_share", "retried"),
    *("ttft_ms", "ttft_from_due_ms", "itl_ms", "tpot_ms", "e2e_ms", "in_flight_mean"),
    *("output_tokens_per_s", "output_tokens_per_s_ci95", "requests_per_s", "requests_per_s_ci95", "characters_per_s"),
)


def endpoints(data: LevelData, info: Mapping[str, Any], *, streamed: bool = True) -> list[dict[str, Any]] | None:
    """A row an endpoint: `url`, `weight`, `share` of the measured requests, and the level's figures; None of one.

    The steady window is that of the level, so that rates add up to its own.

    Args:
        info: run.json.
    """
    several = info.get("endpoints")
    if not several:
        return None
    bounds: Sequence[Bound] = ()
    measured = int((~data.results.warmup).sum())
    rows = []
    for place, one in enumerate(several):
        # Gaps that were kept in a histogram alone are those of all.
        own = replace(data, results=data.results.where(data.results.endpoint == place), histograms={})
        found = level.summary(own, bounds, streamed=streamed, stall_threshold=stalls.THRESHOLD)
        share = found["attempted"] / measured if measured else None
        figures = {name: found[name] for name in _FIGURES}
        rows.append({"url": one.get("url"), "weight": one.get("weight"), "share": rounded(share, 6), **figures})
    return rows
