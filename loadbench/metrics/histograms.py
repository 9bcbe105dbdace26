"""The histograms of one level: from its .hlog, and what that lacks from its records."""

from __future__ import annotations

import numpy as np

from loadbench.histogram import Histogram
from loadbench.metrics import gaps
from loadbench.metrics.request import Reals, Requests
from loadbench.store import LevelData

NAMES = ("ttft", "itl", "tpot", "e2e", "client_lag")


def histograms(data: LevelData, *, streamed: bool = True) -> dict[str, Histogram]:
    """By metric, in us, over the measured requests that completed; a metric without a value is left out.

    A level whose process died has records and no histograms, and where the package hdrhistogram is missing no .hlog can
    be read: TTFT, TPOT, E2E and gaps come from the records then. How far the client lagged is in no record.
    """
    requests = Requests.of(data.results, streamed=streamed)
    chosen = requests.population
    found = {name: histogram for name, histogram in data.histograms.items() if histogram.count}
    for name, values in (("ttft", requests.ttft), ("tpot", requests.tpot), ("e2e", requests.e2e)):
        if name not in found:
            found[name] = _of(values[chosen])
    if "itl" not in found and data.gaps_kept and streamed:
        found["itl"] = Histogram()
        found["itl"].record_many(gaps.ascending(data.results, chosen))
    return {name: found[name] for name in NAMES if name in found and found[name].count}


def _of(ns: Reals) -> Histogram:
    histogram = Histogram()
    known = ns[~np.isnan(ns)]
    histogram.record_many(np.floor(known / 1e3 + 0.5).astype(np.int64))
    return histogram
