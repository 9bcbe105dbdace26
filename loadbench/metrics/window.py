"""The steady window, what flowed in it, and what flowed when (METRICS.md §4).

Amounts spread over each request's time and are summed over slices of a level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec
import numpy as np

from loadbench import stats
from loadbench.metrics.request import Requests
from loadbench.store.record import Flags, Reals, Results
from loadbench.store.schema import LevelFacts
from loadbench.store.summary import Rates, Timeline

MOST_POINTS = 120
_STEPS_S = tuple(digit * 10.0**power for power in range(-1, 6) for digit in (1, 2, 5))


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

    Of whole answers nobody saw anything arrive: evenly from `sent` on where requests count by share, else at the end.
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
    failed = _failed(requests)
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


def _failed(requests: Requests) -> Flags:
    return ~requests.completed & ~requests.cancelled


def _short(values: Reals) -> list[float]:
    return [float(f"{max(value, 0.0):.4g}") if value > 1e-9 else 0.0 for value in values]


SHORTEST_NS = 1e9
"""Rates over less than this are noise; they are not given."""
RATES = ("output_tokens_per_s", "input_tokens_per_s", "characters_per_s", "requests_per_s")


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


def throughput(window: Window | None, results: Results, requests: Requests) -> Rates:
    """What flowed in the window, per second; None where it is missing or shorter than a second."""
    if window is None or window.length_ns < SHORTEST_NS:
        return Rates()
    return _rates(window, window.length_s, results, requests)


def rate_intervals(window: Window | None, results: Results, requests: Requests) -> dict[str, list[float] | None]:
    """By the name of each rate, its 95 % interval, from blocks of time in the window.

    No block is shorter than a request takes on average, since what flows depends on itself that long. None where
    four blocks do not fit into the window.
    """
    found: dict[str, list[float] | None] = dict.fromkeys(RATES)
    if window is None or window.length_ns < SHORTEST_NS:
        return found
    rates = _rates(window, window.length_s, results, requests)
    for name, flowed in _flowed(_edges(window), window.by_share, results, requests).items():
        found[name] = _interval(getattr(rates, name), flowed, window, requests)
    return found


def goodput_interval(
    goodput_per_s: float | None, good: Flags, window: Window | None, results: Results, requests: Requests
) -> list[float] | None:
    """The 95 % interval of the requests per second that met every bound, as `rate_intervals` has it of all."""
    if goodput_per_s is None or window is None:
        return None
    begin = results.sent if window.by_share else results.last_token
    flowed = flow_by(_edges(window), begin, results.last_token, np.where(good, 1.0, np.nan))
    return _interval(goodput_per_s, flowed, window, requests)


def _edges(window: Window) -> Reals:
    edges: Reals = np.linspace(window.start_ns, window.end_ns, stats.SLICES + 1)
    return edges


def _interval(rate: float | None, flowed: Reals, window: Window, requests: Requests) -> list[float] | None:
    """The interval of a rate, from what had flowed by each edge of the window's slices."""
    lasted = requests.in_flight[~np.isnan(requests.in_flight)]
    dependent_s = float(lasted.mean()) / 1e9 if len(lasted) else 0.0
    amounts = np.diff(flowed)
    ends = None if rate is None else stats.rate_interval(amounts, window.length_s, dependent_s)
    if rate is None or ends is None:
        return None
    # The slices spread what arrives evenly over each request; the rate itself does not.
    off = rate - float(amounts.sum()) / window.length_s
    return [float(f"{max(0.0, end + off):.6g}") for end in ends]


def _flowed(edges: Reals, by_share: bool, results: Results, requests: Requests) -> dict[str, Reals]:
    """How much of what each rate counts had flowed by each time."""
    characters = results.characters.astype(np.float64)
    done = np.where(requests.completed, 1.0, np.nan)
    begin = results.sent if by_share else results.last_token
    read = (results.first_token, results.first_token) if requests.streamed else (begin, results.last_token)
    return {
        "output_tokens_per_s": output_by(edges, results, requests, requests.tokens, by_share=by_share),
        "input_tokens_per_s": flow_by(edges, *read, results.input_tokens),
        "characters_per_s": output_by(edges, results, requests, characters, by_share=by_share),
        "requests_per_s": flow_by(edges, begin, results.last_token, done),
    }


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
    Of whole answers nobody saw the tokens arrive: all of a request counts as the request does.
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
    of_first = requests.first_share(results)
    later = np.where(window.holds(first) & window.holds(last), 1.0, 0.0)
    for row in np.flatnonzero(_straddles(window, first, last)):
        gaps = results.gaps_us[results.gap_offsets[row] : results.gap_offsets[row + 1]]
        if len(gaps):
            later[row] = window.holds(first[row] + np.cumsum(gaps, dtype=np.float64) * 1e3).mean()
        else:  # gaps were not kept: evenly
            later[row] = window.overlap(first[row : row + 1], last[row : row + 1])[0] / (last[row] - first[row])
    return np.where(window.holds(first), of_first, 0.0) + (1.0 - of_first) * later


def _straddles(window: Window, first: Reals, last: Reals) -> Flags:
    """Requests whose text arrived over an edge of the window: few, so that only their gaps are walked."""
    touches = (last >= window.start_ns) & (first < window.end_ns) & (last > first)
    return touches & ~(window.holds(first) & window.holds(last))


def in_flight_mean(window: Window, results: Results) -> float:
    """Mean number of requests between `sent` and `end` in the window, of all requests."""
    return float(window.overlap(results.sent, results.end).sum()) / window.length_ns


def ended_per_s(window: Window, results: Results) -> float:
    """Requests per second that ended in the window, however they ended: the X of Little's law.

    Counted, not by share as `requests_per_s`: from shares of the time in flight the law would follow whatever happened.
    So it may be a round too high (see `Window.counts`), which gate V2 allows for.
    """
    return float((window.holds(results.end) & ~np.isnan(results.sent)).sum()) / window.length_s


def residence_ns(window: Window, results: Results, requests: Requests) -> float | None:
    """Mean time in flight of the requests that ended in the window, the R of Little's law; None where none did.

    Those of the warm-up are no part of it: a first answer of 20 s, from a cold server, would break the law.
    """
    ended = window.holds(results.end) & ~np.isnan(requests.in_flight)
    return float(requests.in_flight[ended].mean()) if ended.any() else None


def residence_growth(requests: Requests) -> float | None:
    """Open loop: median time in flight of the last third of the completed requests over that of the first third.

    About 1 where a server keeps up, however long its answers are; in a backlog each request waits longer than the one
    before. None with fewer than three requests.
    """
    times = requests.in_flight[requests.population]
    third = len(times) // 3
    if not third:
        return None
    return float(np.median(times[-third:]) / np.median(times[:third]))
