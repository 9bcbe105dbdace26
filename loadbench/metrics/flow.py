"""What flowed when: amounts that spread over each request's time, summed over slices of a level."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from loadbench.metrics.request import Flags, Reals, Requests
from loadbench.record import Results

MOST_POINTS = 120
_STEPS_S = tuple(digit * 10.0**power for power in range(-1, 6) for digit in (1, 2, 5))


def by(at_ns: Reals, begin_ns: Reals, end_ns: Reals, amounts: Reals) -> Reals:
    """How much had flowed before each time, where each amount flows evenly from its begin to its end.

    One that begins and ends at once flows at once. Amounts with a mark that is NaN do not flow.

    >>> by(np.array([0.0, 10.0, 20.0]), np.array([0.0, 10.0]), np.array([20.0, 10.0]), np.array([4.0, 1.0])).tolist()
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


def output(at_ns: Reals, results: Results, requests: Requests, amounts: Reals, *, by_share: bool) -> Reals:
    """How much of each request's output had arrived before each time: its first arrival's share, then evenly.

    Of whole answers nobody saw anything arrive: evenly from `sent` on where requests count by share, else at the end.
    """
    if not requests.streamed:
        return by(at_ns, results.sent if by_share else results.last_token, results.last_token, amounts)
    of_first = requests.first_share(results)
    first = by(at_ns, results.first_token, results.first_token, amounts * of_first)
    return first + by(at_ns, results.first_token, results.last_token, amounts * (1 - of_first))


def timeline(facts: Mapping[str, Any], results: Results, requests: Requests) -> dict[str, Any] | None:
    """The level from its beginning to its end in at most 120 stretches, of all its requests, warm-up ones too.

    {"every_s", "t_s": [begin of each stretch], "in_flight": [mean], "output_tokens_per_s", "errors": [failed requests
    that ended in it]}. Tokens are spread evenly over each request's stream. None without requests.
    """
    whole_s = facts.get("duration_s") or (float(np.max(results.end, initial=0.0)) / 1e9)
    if not len(results) or not whole_s > 0:
        return None
    every_s = next((step for step in _STEPS_S if step * MOST_POINTS >= whole_s), whole_s / MOST_POINTS)
    points = math.ceil(round(whole_s / every_s, 6))
    edges = np.append(np.arange(points) * every_s, whole_s) * 1e9
    seconds = np.diff(edges) / 1e9
    busy = np.diff(by(edges, results.sent, results.end, results.end - results.sent)) / 1e9
    failed = _failed(requests)
    ended = np.minimum(results.end[failed], edges[-1] - 1)
    closed = facts.get("request_rate_per_s") is None
    tokens = np.diff(output(edges, results, requests, requests.tokens, by_share=closed))
    counted = bool((~np.isnan(requests.tokens)).any())
    return {
        "every_s": round(every_s, 6),
        "t_s": [round(float(at) / 1e9, 3) for at in edges[:-1]],
        "in_flight": _short(busy / seconds),
        "output_tokens_per_s": _short(tokens / seconds) if counted else None,
        "errors": [int(n) for n in np.histogram(ended, edges)[0]],
    }


def _failed(requests: Requests) -> Flags:
    return ~requests.completed & ~requests.cancelled


def _short(values: Reals) -> list[float]:
    return [float(f"{max(value, 0.0):.4g}") if value > 1e-9 else 0.0 for value in values]
