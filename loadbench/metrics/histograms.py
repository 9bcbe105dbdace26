"""The histograms of one level: from its .hlog, and what that lacks from its records."""

from __future__ import annotations

import numpy as np

from loadbench.metrics import gaps
from loadbench.metrics.request import Reals, Requests
from loadbench.store import LevelData
from loadbench.store.files import HISTOGRAMS
from loadbench.store.histogram import Histogram


def histograms(data: LevelData, *, streamed: bool = True) -> dict[str, Histogram]:
    """By metric, in us, over the measured requests that completed; a metric without a value is left out.

    A level whose process died has records and no histograms, and where the package hdrhistogram is missing no .hlog can
    be read: TTFT, TPOT, E2E and gaps come from the records then. How far the client lagged is in no record.
    """
    requests = Requests.of(data.results, streamed=streamed)
    chosen = requests.population
    found = {name: histogram for name, histogram in data.histograms.items() if histogram.count}
    times = {"ttft": requests.ttft, "tpot": requests.tpot, "e2e": requests.e2e}
    if data.facts.get("request_rate_per_s") is not None:
        times |= {"ttft": requests.ttft_from_due, "ttft_from_sent": requests.ttft}
        if "ttft_from_sent" not in found:
            found.pop("ttft", None)  # of an earlier version, whose log counts from when requests were sent
    for name, values in times.items():
        if name not in found:
            found[name] = _of(values[chosen])
    if "itl" not in found and data.gaps_kept and streamed:
        found["itl"] = Histogram()
        found["itl"].record_many(gaps.ascending(data.results, chosen))
    return {name: found[name] for name in HISTOGRAMS if name in found and found[name].count}


def _of(ns: Reals) -> Histogram:
    histogram = Histogram()
    known = ns[~np.isnan(ns)]
    histogram.record_many(np.floor(known / 1e3 + 0.5).astype(np.int64))
    return histogram
