"""Whether a level was in one state: the first third of its steady window against the last (gate V10)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from loadbench import stats
from loadbench.metrics import flow
from loadbench.metrics.request import Flags, Reals, Requests
from loadbench.metrics.window import Window
from loadbench.record import Results

FALSE_ALARMS = 0.01
"""Of levels in one state, the share that is told to drift: three figures are looked at, each in two directions."""
_TAIL = FALSE_ALARMS / 3 / 2
LONG_MEMORY = 0.75
"""Correlation of neighbours within a third, in open loop, from which on a queue wanders by itself for so long."""
FEWEST = 20
"""Requests of a third, below which nothing is said: fewer that resemble their neighbours raise ten times the alarms."""


def drift(steady: Window | None, results: Results, requests: Requests, *, tpot: bool) -> dict[str, Any] | None:
    """By figure, {"ratio": last third over first, "significant"}; None without a window, figures that few requests had.

    Of TTFT and TPOT the geometric means, of requests that were sent within each third, with variances by blocks in the
    order of start (`stats.mean_variance`); of tokens/s the rate, with blocks of time. In open loop the rate is
    what was asked for, not what the server does: it is left out. There a queue near saturation, though in one state,
    wanders for longer than a third lasts: where neighbours within the thirds resemble each other that much, no
    difference of them is significant (`near-saturation` speaks of such requests).

    Args:
        tpot: Whether TPOT has a meaning; else E2E stands in.
    """
    if steady is None:
        return None
    third = steady.length_ns / 3
    first = Window(steady.start_ns, steady.start_ns + third, steady.by_share)
    middle = Window(steady.start_ns + third, steady.end_ns - third, steady.by_share)
    last = Window(steady.end_ns - third, steady.end_ns, steady.by_share)
    columns = {"ttft": requests.ttft if steady.by_share else requests.ttft_from_due}
    columns |= {"tpot": requests.tpot} if tpot else {"e2e": requests.e2e}
    began = results.sent if steady.by_share else results.due
    inside = [requests.population & window.holds(began) for window in (first, middle, last)]
    estimates = {}
    wanders = set()
    for name, values in columns.items():
        thirds = [values[chosen] for chosen in inside]
        estimates[name] = [times(thirds[0]), times(thirds[2])]
        if not steady.by_share and memory(thirds) > LONG_MEMORY:
            wanders.add(name)
    if steady.by_share:
        estimates["output_tokens_per_s"] = [_rate(window, results, requests) for window in (first, last)]
    found = {name: against(*pair) for name, pair in estimates.items()}
    for name in wanders:
        if (row := found[name]) is not None:
            found[name] = {**row, "significant": False}
    return {name: row for name, row in found.items() if row} or None


def times(values: Reals) -> stats.Estimate | None:
    """The mean logarithm, with a variance that is never below that of independent values."""
    logs = np.log(values[values > 0])
    estimate = stats.mean_variance(logs) if len(logs) >= FEWEST else None
    if estimate is None:
        return None
    alone = float(logs.var(ddof=1)) / len(logs)
    return stats.Estimate(estimate.value, max(estimate.variance, alone), estimate.freedom)


def memory(thirds: list[Reals]) -> float:
    """The correlation of neighbours within the thirds, each around its own mean: a drift between them is none.

    Corrected for the bias that the means of few values bring (Kendall 1954, as in `stats.mean_variance`).
    """
    away = [values - values.mean() for values in (part[~np.isnan(part)] for part in thirds) if len(values) > 1]
    squares = sum(float(np.square(one).sum()) for one in away)
    if not squares > 0:
        return 0.0
    found = sum(float((one[1:] * one[:-1]).sum()) for one in away) / squares
    return found + (1 + 3 * found) * len(away) / sum(map(len, away))


def _rate(window: Window, results: Results, requests: Requests) -> stats.Estimate | None:
    edges = np.linspace(window.start_ns, window.end_ns, stats.SLICES + 1)
    amounts = np.diff(flow.output(edges, results, requests, requests.tokens, by_share=window.by_share))
    inside: Flags = window.overlap(results.sent, results.end) > 0
    lasted = requests.in_flight[inside]
    dependent_s = float(lasted.mean()) / 1e9 if len(lasted) else 0.0
    rate = stats.rate_variance(amounts, window.length_s, dependent_s)
    if rate is None or not rate.value > 0 or len(lasted) < FEWEST:
        return None
    return stats.Estimate(math.log(rate.value), rate.variance / rate.value**2, rate.freedom)


def against(first: stats.Estimate | None, last: stats.Estimate | None) -> Mapping[str, Any] | None:
    if first is None or last is None:
        return None
    low, high = stats.difference(first, last, _TAIL)
    return {"ratio": round(math.exp(last.value - first.value), 4), "significant": bool(low > 0 or high < 0)}
