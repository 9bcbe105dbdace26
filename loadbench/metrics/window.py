"""The steady window, what flowed in it and when, and whether it flowed evenly (docs/metrics.md; gate V10).

Amounts spread over each request's time and are summed over slices of a level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec
import numpy as np

from loadbench.metrics.request import Requests
from loadbench.stats import Estimate, difference
from loadbench.stats.blocks import SLICES, independent_requests, mean_variance, neighbours, rate_interval, rate_variance
from loadbench.store.record import Flags, Reals, Results
from loadbench.store.schema import LevelFacts
from loadbench.store.summary import Dependence, Drift, Rates, Timeline, rounded

MOST_POINTS = 120
# Rates over less than this are noise; they are not given.
SHORTEST_NS = 1e9
RATES = ("output_tokens_per_s", "input_tokens_per_s", "characters_per_s", "requests_per_s")
_STEPS_S = tuple(digit * 10.0**power for power in range(-1, 6) for digit in (1, 2, 5))


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of a level in ns since it began: `start_ns` <= t < `end_ns`.

    Attributes:
        by_share: Closed loop, see `counts`.
    """

    start_ns: float
    end_ns: float
    by_share: bool = False

    @property
    def length_ns(self) -> float:
        return self.end_ns - self.start_ns

    @property
    def length_s(self) -> float:
        return self.length_ns / 1e9

    def edges(self) -> Reals:
        """Where its slices begin and end, for the variance of a rate."""
        found: Reals = np.linspace(self.start_ns, self.end_ns, SLICES + 1)
        return found

    def holds(self, times: Reals) -> Flags:
        """Which times lie inside; NaN does not."""
        return (times >= self.start_ns) & (times < self.end_ns)

    def overlap(self, begin: Reals, end: Reals) -> Reals:
        """How much of each stretch lies inside, ns; 0 where an end is NaN."""
        common = np.minimum(end, self.end_ns) - np.maximum(begin, self.start_ns)
        inside: Reals = np.maximum(np.nan_to_num(common), 0.0)
        return inside

    def counts(self, begin: Reals, end: Reals) -> Reals:
        """How much of each request that took from `begin` to `end` counts as done here, in [0, 1].

        Open loop: 1 where the end lies inside. Closed loop: the share of the stretch that lies inside, for the window
        begins where the streams of the warm-up end: streams that run in step would end one round more than fit into it.
        (In open loop a share would count what waits in a growing backlog as work that is done.)
        """
        ended = self.holds(end).astype(np.float64)
        if not self.by_share:
            return ended
        took = end - begin
        return np.divide(self.overlap(begin, end), took, out=ended, where=took > 0)


def steady(facts: LevelFacts, results: Results) -> Window | None:
    """The steady window; None where it is empty or the load was never reached.

    Closed loop: from the time the in-flight count first reaches the level (but not before measurement) to the last
    issue. Open loop: first to last measured `due`, of the dropped requests too; of a level that was cut short, of
    those that were recorded.
    """
    measured_from, last_issue = facts.measured_from_ns, facts.last_issue_ns
    opened, due = facts.request_rate_per_s is not None, results.due[~results.warmup]
    if opened and len(due) and (measured_from is None or last_issue is None):
        measured_from, last_issue = due.min(), due.max()
    full = measured_from if opened else facts.full_ns
    if measured_from is None or last_issue is None or full is None:
        return None
    start, end = float(max(measured_from, full)), float(last_issue)
    return Window(start, end, by_share=not opened) if end > start else None


# -- rates


def throughput(window: Window | None, results: Results, requests: Requests) -> Rates:
    """What flowed in the window, per second; None where it is missing or shorter than a second."""
    if window is None or window.length_ns < SHORTEST_NS:
        return Rates()
    return _rates(window, window.length_s, results, requests)


def whole_run(facts: LevelFacts, results: Results, requests: Requests) -> Rates:
    """The level from its beginning to its end, warm-up and drain included: its duration and what flowed in it."""
    seconds = facts.duration_s
    if seconds is None:
        seconds = float(np.max(results.end, initial=0.0)) / 1e9
    if not seconds > 0:
        return Rates(duration_s=None)
    rates = _rates(Window(-np.inf, np.inf), float(seconds), results, requests)
    return msgspec.structs.replace(rates, duration_s=float(seconds))


def _rates(window: Window, seconds: float, results: Results, requests: Requests) -> Rates:
    """What flowed in the window, per second, of all requests: warm-up ones and ones that failed later too.

    Output tokens count when they arrive: the first arrival carries k of them, the others share the rest evenly.
    Characters go in proportion. Input tokens count at the first token. A request counts if it completed, in open loop
    at its last token, in closed loop by the share of [sent, last token] that lies in the window (`Window.counts`).
    Whole answers are not seen to arrive: all of a request counts as the request does.
    None where nothing was measured: no text in the whole level, no tokens from the server.
    """
    answered = ~np.isnan(results.first_token)
    if not answered.any():
        return Rates()
    done = window.counts(results.sent, results.last_token)
    output = arrived(window, results, requests) if requests.streamed else done
    read = window.holds(results.first_token) if requests.streamed else done
    known, counted = answered & ~np.isnan(results.input_tokens), answered & ~np.isnan(requests.tokens)
    output_tokens = input_tokens = None
    if counted.any():
        output_tokens = float((output * requests.tokens)[counted].sum()) / seconds
    if known.any():
        input_tokens = float((read * results.input_tokens)[known].sum()) / seconds
    return Rates(
        output_tokens_per_s=output_tokens,
        input_tokens_per_s=input_tokens,
        characters_per_s=float((output * results.characters).sum()) / seconds,
        requests_per_s=float(done[requests.completed].sum()) / seconds,
    )


def arrived(window: Window, results: Results, requests: Requests) -> Reals:
    """The share of each request's text that arrived inside the window, in [0, 1]."""
    first, last = results.first_token, results.last_token
    first_inside, last_inside = window.holds(first), window.holds(last)
    of_first = requests.first_share(results)
    later = np.where(first_inside & last_inside, 1.0, 0.0)
    # Few requests lie over an edge of the window, so that only their gaps are walked.
    over_edge = (last >= window.start_ns) & (first < window.end_ns) & (last > first) & ~(first_inside & last_inside)
    for row in np.flatnonzero(over_edge):
        gaps = results.gaps_us[results.gap_offsets[row] : results.gap_offsets[row + 1]]
        if len(gaps):
            later[row] = window.holds(first[row] + np.cumsum(gaps, dtype=np.float64) * 1e3).mean()
        else:  # gaps were not kept: evenly
            later[row] = window.overlap(first[row : row + 1], last[row : row + 1])[0] / (last[row] - first[row])
    return np.where(first_inside, of_first, 0.0) + (1.0 - of_first) * later


def rate_intervals(
    rates: Rates, window: Window | None, results: Results, requests: Requests
) -> dict[str, list[float] | None]:
    """By the name of each rate of the window, its 95 % interval, see `interval`."""
    if window is None or window.length_ns < SHORTEST_NS:
        return dict.fromkeys(RATES)
    by_share, edges = window.by_share, window.edges()
    begin = results.sent if by_share else results.last_token
    read = (results.first_token, results.first_token) if requests.streamed else (begin, results.last_token)
    characters = results.characters.astype(np.float64)
    done = np.where(requests.completed, 1.0, np.nan)
    flowed = {
        "output_tokens_per_s": output_by(edges, results, requests, requests.tokens, by_share=by_share),
        "input_tokens_per_s": flow_by(edges, *read, results.input_tokens),
        "characters_per_s": output_by(edges, results, requests, characters, by_share=by_share),
        "requests_per_s": flow_by(edges, begin, results.last_token, done),
    }
    return {name: interval(getattr(rates, name), flowed[name], window, requests) for name in RATES}


def goodput_interval(
    goodput_per_s: float | None, good: Flags, window: Window | None, results: Results, requests: Requests
) -> list[float] | None:
    """The 95 % interval of the requests per second that met every bound, as `rate_intervals` has it of all."""
    if window is None:
        return None
    begin = results.sent if window.by_share else results.last_token
    flowed = flow_by(window.edges(), begin, results.last_token, np.where(good, 1.0, np.nan))
    return interval(goodput_per_s, flowed, window, requests)


def interval(rate: float | None, flowed: Reals, window: Window, requests: Requests) -> list[float] | None:
    """The 95 % interval of a rate, from blocks of time in the window; None where four blocks do not fit into it.

    No block is shorter than a request takes on average, since what flows depends on itself that long.

    Args:
        flowed: How much had flowed by each edge of the window's slices.
    """
    if rate is None:
        return None
    lasted = requests.in_flight[~np.isnan(requests.in_flight)]
    dependent_s = float(lasted.mean()) / 1e9 if len(lasted) else 0.0
    amounts = np.diff(flowed)
    ends = rate_interval(amounts, window.length_s, dependent_s)
    if ends is None:
        return None
    # The slices spread what arrives evenly over each request; the rate itself does not.
    off = rate - float(amounts.sum()) / window.length_s
    return [float(f"{max(0.0, end + off):.6g}") for end in ends]


# -- what had flowed by a time


def flow_by(at_ns: Reals, begin_ns: Reals, end_ns: Reals, amounts: Reals) -> Reals:
    """How much had flowed before each time, where each amount flows evenly from its begin to its end.

    One that begins and ends at once flows at once. Amounts with a mark that is NaN do not flow.

    >>> begin, end = np.array([0.0, 10.0]), np.array([20.0, 10.0])
    >>> flow_by(np.array([0.0, 10.0, 20.0]), begin, end, np.array([4.0, 1.0])).tolist()
    [0.0, 2.0, 5.0]
    """
    known = ~(np.isnan(begin_ns) | np.isnan(end_ns) | np.isnan(amounts))
    begin, end, amount = begin_ns[known], end_ns[known], amounts[known]
    lasts = end > begin
    slopes = amount[lasts] / (end[lasts] - begin[lasts])
    flowed: Reals = _risen(at_ns, begin[lasts], slopes) - _risen(at_ns, end[lasts], slopes)
    order = np.argsort(begin[~lasts])
    sums = np.concatenate(([0.0], np.cumsum(amount[~lasts][order])))
    at_once: Reals = sums[np.searchsorted(begin[~lasts][order], at_ns)]
    return flowed + at_once


def _risen(at: Reals, begin: Reals, slopes: Reals) -> Reals:
    """Sum of slope * max(0, at - begin), by prefix sums: many requests at few times."""
    order = np.argsort(begin)
    rising = np.concatenate(([0.0], np.cumsum(slopes[order])))
    before = np.concatenate(([0.0], np.cumsum(slopes[order] * begin[order])))
    place = np.searchsorted(begin[order], at)
    risen: Reals = at * rising[place] - before[place]
    return risen


def output_by(at_ns: Reals, results: Results, requests: Requests, amounts: Reals, *, by_share: bool) -> Reals:
    """How much of each request's output had arrived before each time: its first arrival's share, then evenly.

    Whole answers are not seen to arrive: evenly from `sent` on where requests count by share, else at the end.
    """
    if not requests.streamed:
        return flow_by(at_ns, results.sent if by_share else results.last_token, results.last_token, amounts)
    of_first = requests.first_share(results)
    first = flow_by(at_ns, results.first_token, results.first_token, amounts * of_first)
    return first + flow_by(at_ns, results.first_token, results.last_token, amounts * (1 - of_first))


def timeline(facts: LevelFacts, results: Results, requests: Requests) -> Timeline | None:
    """The level from its beginning to its end in at most 120 stretches, of all its requests, warm-up ones too.

    Tokens are spread evenly over each request's stream. None without requests.
    """
    whole_s = facts.duration_s or (float(np.max(results.end, initial=0.0)) / 1e9)
    if not len(results) or not whole_s > 0:
        return None
    every_s = next((step for step in _STEPS_S if step * MOST_POINTS >= whole_s), whole_s / MOST_POINTS)
    points = math.ceil(round(whole_s / every_s, 6))
    edges = np.append(np.arange(points) * every_s, whole_s) * 1e9
    seconds = np.diff(edges) / 1e9
    busy = np.diff(flow_by(edges, results.sent, results.end, results.end - results.sent)) / 1e9
    failed = ~requests.completed & ~requests.cancelled
    ended = np.minimum(results.end[failed], edges[-1] - 1)
    closed = facts.request_rate_per_s is None
    tokens = np.diff(output_by(edges, results, requests, requests.tokens, by_share=closed))
    counted = bool((~np.isnan(requests.tokens)).any())
    return Timeline(
        every_s=round(every_s, 6),
        t_s=[round(float(at) / 1e9, 3) for at in edges[:-1]],
        in_flight=_short(busy / seconds),
        output_tokens_per_s=_short(tokens / seconds) if counted else None,
        errors=[int(n) for n in np.histogram(ended, edges)[0]],
    )


def _short(values: Reals) -> list[float]:
    return [float(f"{max(value, 0.0):.4g}") if value > 1e-9 else 0.0 for value in values]


# -- drift between the thirds of the window

# Share of levels in one state for which drift is reported: three figures are looked at, each in two directions.
FALSE_ALARMS = 0.01
_TAIL = FALSE_ALARMS / 3 / 2
# Correlation of neighbours within a third, in open loop, from which on a queue wanders by itself for so long.
LONG_MEMORY = 0.75
# Requests of a third, below which nothing is said: fewer that resemble their neighbours raise ten times the alarms.
FEWEST_OF_THIRD = 20


def drift(window: Window | None, results: Results, requests: Requests, *, tpot: bool) -> dict[str, Drift] | None:
    """By figure, the last third over the first; None without a window, and of figures that few requests had.

    Of TTFT and TPOT the geometric means, of requests that were sent within each third, with variances by blocks in the
    order of start (`blocks.mean_variance`); of tokens/s the rate, with blocks of time. In open loop the rate is
    set by the plan, not by the server: it is left out. There a queue near saturation, though in one state, wanders for
    longer than a third lasts: where neighbours within the thirds resemble each other that much, no difference of them
    is significant (`near-saturation` speaks of such requests).

    Args:
        tpot: Whether TPOT has a meaning; else E2E stands in.
    """
    if window is None:
        return None
    third = window.length_ns / 3
    first = Window(window.start_ns, window.start_ns + third, window.by_share)
    middle = Window(window.start_ns + third, window.end_ns - third, window.by_share)
    last = Window(window.end_ns - third, window.end_ns, window.by_share)
    columns = {"ttft": requests.ttft if window.by_share else requests.ttft_from_due}
    columns |= {"tpot": requests.tpot} if tpot else {"e2e": requests.e2e}
    began = results.sent if window.by_share else results.due
    inside = [requests.population & part.holds(began) for part in (first, middle, last)]
    estimates = {}
    wanders = set()
    for name, values in columns.items():
        thirds = [values[chosen] for chosen in inside]
        estimates[name] = [times(thirds[0]), times(thirds[2])]
        if not window.by_share and memory(thirds) > LONG_MEMORY:
            wanders.add(name)
    if window.by_share:
        estimates["output_tokens_per_s"] = [_log_rate(part, results, requests) for part in (first, last)]
    found = {}
    for name, (before, after) in estimates.items():
        if before is not None and after is not None:
            row = against(before, after)
            found[name] = Drift(ratio=row.ratio, significant=False) if name in wanders else row
    return found or None


def times(values: Reals) -> Estimate | None:
    """The mean logarithm, with a variance that is never below that of independent values."""
    logs = np.log(values[values > 0])
    estimate = mean_variance(logs) if len(logs) >= FEWEST_OF_THIRD else None
    if estimate is None:
        return None
    alone = float(logs.var(ddof=1)) / len(logs)
    return Estimate(estimate.value, max(estimate.variance, alone), estimate.freedom)


def memory(thirds: list[Reals]) -> float:
    """The correlation of neighbours within the thirds, each around its own mean: a drift between them is none.

    Corrected for the bias that the means of few values bring (Kendall 1954, as in `blocks.mean_variance`).
    """
    away = [values - values.mean() for values in (part[~np.isnan(part)] for part in thirds) if len(values) > 1]
    squares = sum(float(np.square(one).sum()) for one in away)
    if not squares > 0:
        return 0.0
    found = sum(float((one[1:] * one[:-1]).sum()) for one in away) / squares
    return found + (1 + 3 * found) * len(away) / sum(map(len, away))


def _log_rate(window: Window, results: Results, requests: Requests) -> Estimate | None:
    amounts = np.diff(output_by(window.edges(), results, requests, requests.tokens, by_share=window.by_share))
    inside: Flags = window.overlap(results.sent, results.end) > 0
    lasted = requests.in_flight[inside]
    dependent_s = float(lasted.mean()) / 1e9 if len(lasted) else 0.0
    rate = rate_variance(amounts, window.length_s, dependent_s)
    if rate is None or not rate.value > 0 or len(lasted) < FEWEST_OF_THIRD:
        return None
    return Estimate(math.log(rate.value), rate.variance / rate.value**2, rate.freedom)


def against(first: Estimate, last: Estimate) -> Drift:
    """The last third over the first, of figures in logarithms."""
    low, high = difference(first, last, _TAIL)
    return Drift(ratio=round(math.exp(last.value - first.value), 4), significant=bool(low > 0 or high < 0))


# -- requests that depend on their neighbours

# Requests below which nothing is said.
FEWEST = 20
MOST_CORRELATION = 0.85
# A median must be worth this many independent requests; of fewer than 200, a tenth of them.
LEAST_INDEPENDENT, LEAST_SHARE = 20, 0.1


def dependence(requests: Requests, *, opened: bool, without_gaps: bool) -> dict[str, Dependence]:
    """By metric, how strongly requests depend on their neighbours: where no interval of one run can be trusted.

    A queue near saturation remembers longer than any block of one run's requests is long, so an interval that is
    computed from them is too narrow. It shows in requests that hardly differ from their neighbours, which counts in
    open loop alone: in a closed loop no more requests wait than there are streams, and the blocks see all of them. By
    simulation "strong" is said of 93 to 100 % of M/M/1 queues at 80 % load or more from 400 requests on, and of 0 to
    7 % at 50 % load or below (docs/statistics.md).
    """
    columns = {"ttft": requests.ttft_from_due if opened else requests.ttft, "e2e": requests.e2e}
    if not without_gaps:
        columns["tpot"] = requests.tpot
    found = {name: dependence_of(values[requests.population], opened=opened) for name, values in columns.items()}
    return {name: row for name, row in found.items() if row is not None}


def dependence_of(values: Reals, *, opened: bool) -> Dependence | None:
    """Of one metric: the correlation with the next request, and what its median is worth; None below 20 values."""
    known = values[~np.isnan(values)]
    if len(known) < FEWEST:
        return None
    correlation = neighbours(known)
    independent = independent_requests(known, 0.5)
    alike = opened and correlation is not None and correlation > MOST_CORRELATION
    few = independent < min(LEAST_INDEPENDENT, LEAST_SHARE * len(known))
    return Dependence(neighbours=rounded(correlation), independent=independent, strong=alike or few)
