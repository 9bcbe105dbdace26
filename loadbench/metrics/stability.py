"""Whether a level flowed evenly: drift between its thirds (gate V10), requests that depend on each other, stalls."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from loadbench import stats
from loadbench.metrics.distribution import NS_PER_MS, US_PER_MS, rounded
from loadbench.metrics.request import Requests
from loadbench.metrics.window import Window, output_by
from loadbench.store.histogram import Histogram
from loadbench.store.record import Counts, Flags, Reals, Results
from loadbench.store.summary import Dependence, Drift, Stall, Stalls

FALSE_ALARMS = 0.01
"""Of levels in one state, the share that is told to drift: three figures are looked at, each in two directions."""
_TAIL = FALSE_ALARMS / 3 / 2
LONG_MEMORY = 0.75
"""Correlation of neighbours within a third, in open loop, from which on a queue wanders by itself for so long."""
FEWEST_OF_THIRD = 20
"""Requests of a third, below which nothing is said: fewer that resemble their neighbours raise ten times the alarms."""


def drift(steady: Window | None, results: Results, requests: Requests, *, tpot: bool) -> dict[str, Drift] | None:
    """By figure, the last third over the first; None without a window, and of figures that few requests had.

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
    found = {}
    for name, (before, after) in estimates.items():
        if before is not None and after is not None:
            row = against(before, after)
            found[name] = Drift(ratio=row.ratio, significant=False) if name in wanders else row
    return found or None


def times(values: Reals) -> stats.Estimate | None:
    """The mean logarithm, with a variance that is never below that of independent values."""
    logs = np.log(values[values > 0])
    estimate = stats.mean_variance(logs) if len(logs) >= FEWEST_OF_THIRD else None
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
    amounts = np.diff(output_by(edges, results, requests, requests.tokens, by_share=window.by_share))
    inside: Flags = window.overlap(results.sent, results.end) > 0
    lasted = requests.in_flight[inside]
    dependent_s = float(lasted.mean()) / 1e9 if len(lasted) else 0.0
    rate = stats.rate_variance(amounts, window.length_s, dependent_s)
    if rate is None or not rate.value > 0 or len(lasted) < FEWEST_OF_THIRD:
        return None
    return stats.Estimate(math.log(rate.value), rate.variance / rate.value**2, rate.freedom)


def against(first: stats.Estimate, last: stats.Estimate) -> Drift:
    """The last third over the first, of figures in logarithms."""
    low, high = stats.difference(first, last, _TAIL)
    return Drift(ratio=round(math.exp(last.value - first.value), 4), significant=bool(low > 0 or high < 0))


FEWEST = 20
"""Requests below which nothing is said."""
MOST_CORRELATION = 0.85
LEAST_INDEPENDENT, LEAST_SHARE = 20, 0.1
"""A median must be worth so many independent requests; of fewer than 200, a tenth of them."""


def dependence(requests: Requests, *, opened: bool, without_gaps: bool) -> dict[str, Dependence]:
    """By metric, how strongly requests depend on their neighbours: where no interval of one run can be trusted.

    A queue near saturation remembers longer than any block of one run's requests is long, so an interval that is
    computed from them is too narrow. It shows in requests that are hardly told from their neighbours, which counts in
    open loop alone: in a closed loop no more requests wait than there are streams, and the blocks see all of them. By
    simulation "strong" is said of 93 to 100 % of M/M/1 queues at 80 % load or more from 400 requests on, and of 0 to
    7 % at 50 % load or below (docs/statistics.md).
    """
    population = requests.population
    columns = {"ttft": requests.ttft_from_due if opened else requests.ttft, "e2e": requests.e2e}
    if not without_gaps:
        columns["tpot"] = requests.tpot
    found = {name: dependence_of(values[population], opened=opened) for name, values in columns.items()}
    return {name: row for name, row in found.items() if row is not None}


def dependence_of(values: Reals, *, opened: bool) -> Dependence | None:
    """Of one metric: the correlation with the next request, and what its median is worth; None below 20 values."""
    known = values[values == values]
    if len(known) < FEWEST:
        return None
    correlation = stats.neighbours(known)
    independent = stats.independent_requests(known, 0.5)
    alike = opened and correlation is not None and correlation > MOST_CORRELATION
    few = independent < min(LEAST_INDEPENDENT, LEAST_SHARE * len(known))
    return Dependence(neighbours=rounded(correlation), independent=independent, strong=alike or few)


STALL_THRESHOLD = 10.0
"""Times the median gap of the level."""
MOST_PLACES = 12
"""Stalls of which it is told when they were."""
SHORTEST_US = 10_000
"""No gap below 10 ms is one: nobody sees it, and where events come in bursts the median gap is next to nothing."""


def stalls(results: Results, requests: Requests, ascending: Counts, threshold: float | None = None) -> Stalls | None:
    """Gaps far longer than the level's usual one, and where the longest was; None where there are no gaps.

    Of a level without one all but how many there are is None.

    Args:
        ascending: The gaps of the requests that count, in us, sorted.
        threshold: Times the median gap, 10 by default.
    """
    if not len(ascending):
        return None
    limit_us = _limit_us(float(ascending[(len(ascending) - 1) // 2]), threshold)
    n = len(ascending) - int(np.searchsorted(ascending, limit_us, side="right"))
    threshold_ms = rounded(limit_us / US_PER_MS)
    if not n:
        return Stalls(n=0, threshold_ms=threshold_ms, requests=0)
    longest_us = int(ascending[-1])
    of_row = _rows(results, np.flatnonzero(results.gaps_us > limit_us))
    places = np.flatnonzero(results.gaps_us == longest_us)
    row, place = next(
        (int(row), int(place))
        for row, place in zip(_rows(results, places), places, strict=True)
        if requests.population[row]
    )
    return Stalls(
        n=n,
        threshold_ms=threshold_ms,
        requests=len(np.unique(of_row[requests.population[of_row]])),
        longest_ms=rounded(longest_us / US_PER_MS),
        longest_request=int(results.request[row]),
        longest_prompt=results.prompt[row],
        at_s=_ended_s(results, row, place),
        longest=_longest(results, requests, limit_us),
    )


def stalls_of_histogram(histogram: Histogram, threshold: float | None = None) -> Stalls | None:
    """Of gaps that were kept in a histogram alone: how many stalls and how long, not whose."""
    median = histogram.percentile(0.5)
    if median is None:
        return None
    limit_us = _limit_us(float(median), threshold)
    n = histogram.above(int(limit_us))
    longest_ms = rounded((histogram.max or 0) / US_PER_MS) if n else None
    return Stalls(n=n, threshold_ms=rounded(limit_us / US_PER_MS), longest_ms=longest_ms)


def _longest(results: Results, requests: Requests, limit_us: float) -> list[Stall]:
    """The longest stalls and when each ended: in a timeline they stand beside what else happened then."""
    over = np.flatnonzero(results.gaps_us > limit_us)
    rows = _rows(results, over)
    counted = requests.population[rows]
    over, rows = over[counted], rows[counted]
    first = np.argsort(-results.gaps_us[over], kind="stable")[:MOST_PLACES]
    return [
        Stall(
            at_s=_ended_s(results, int(rows[i]), int(over[i])),
            ms=rounded(int(results.gaps_us[over[i]]) / US_PER_MS),
            request=int(results.request[rows[i]]),
        )
        for i in first
    ]


def _ended_s(results: Results, row: int, place: int) -> float | None:
    """When a gap ended, in s since the level began."""
    before_us = int(results.gaps_us[results.gap_offsets[row] : place + 1].sum())
    return rounded((float(results.first_token[row]) / NS_PER_MS + before_us / US_PER_MS) / 1000)


def _rows(results: Results, places: NDArray[np.intp]) -> NDArray[np.intp]:
    """Which request each of the flat gaps belongs to."""
    return np.searchsorted(results.gap_offsets, places, side="right") - 1


def _limit_us(median_us: float, threshold: float | None) -> float:
    return max((threshold or STALL_THRESHOLD) * median_us, SHORTEST_US)
