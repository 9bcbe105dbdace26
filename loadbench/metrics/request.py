"""The figures of single requests: METRICS.md §3, one column each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loadbench import stats
from loadbench.store.record import Flags, Reals, Results

FEWEST_TOKENS = 4
"""A shorter answer is no burst: there is nothing to spread."""
BURST = 0.5
"""Share of burst responses from which TPOT and ITL say nothing (gate V13)."""
HELD_NS = (38e6, 50e6)
"""40 ms of a delayed acknowledgement, a tick of the kernel's clock more, and the way back."""


@dataclass(frozen=True, slots=True, eq=False)
class Requests:
    """One level's requests, warm-up ones too: row i is row i of the Results. Times in ns, NaN where undefined.

    Attributes:
        measured: Not a warm-up request.
        completed: Ended without an error.
        cancelled: Ended by us; no failure.
        ttft: first_token - sent.
        ttft_from_due: first_token - due.
        ttfe: first_event - sent.
        tpot: (last_token - first_token) / (tokens - k), ns per token; NaN where tokens <= k, never 0.
        e2e: last_token - due.
        client_queue: sent - due less connection set-up, at least 0.
        in_flight: end - sent.
        tokens: Output tokens as the usage says, else the text events; NaN where a whole answer came without a count.
        counted: Whether the usage said so.
        first_tokens: k, tokens in the first arrival: the server's count, else tokens * first_events / text_events.
        k_estimated: Whether k rests on that share and events do not carry one token each.
        streamed: Whether streams were asked for: a whole answer has no first token, ttft to tpot are NaN.
    """

    measured: Flags
    completed: Flags
    cancelled: Flags
    ttft: Reals
    ttft_from_due: Reals
    ttfe: Reals
    tpot: Reals
    e2e: Reals
    client_queue: Reals
    in_flight: Reals
    tokens: Reals
    counted: Flags
    first_tokens: Reals
    k_estimated: Flags
    streamed: bool

    @property
    def population(self) -> Flags:
        """What every histogram and percentile is about: the measured requests that completed."""
        return self.measured & self.completed

    def first_share(self, results: Results) -> Reals:
        """Share of each request's text in its first arrival: 1 where all came at once or nobody knows."""
        events = np.maximum(results.text_events, 1)
        share = np.where(self.tokens > 0, self.first_tokens / np.maximum(self.tokens, 1), results.first_events / events)
        known = np.clip(np.nan_to_num(share, nan=1.0), 0.0, 1.0)
        return np.where(results.last_token > results.first_token, known, 1.0)

    @classmethod
    def of(cls, results: Results, *, streamed: bool = True) -> Requests:
        """Compute all columns from the marks."""
        rows = len(results)
        completed = np.fromiter((error is None for error in results.error), np.bool_, rows)
        cancelled = np.fromiter((error == "cancelled" for error in results.error), np.bool_, rows)
        counted = ~np.isnan(results.output_tokens)
        marked = 0.0 if streamed else np.nan
        tokens = np.where(counted, results.output_tokens, results.text_events + marked)
        by_share = np.isnan(results.first_tokens)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = tokens * results.first_events / results.text_events
            k = np.where(by_share, share, results.first_tokens)
            span = results.last_token - results.first_token
            tpot = np.where((tokens > k) & (span > 0), span / (tokens - k), np.nan)
        setup = np.nan_to_num(results.connect)
        return cls(
            measured=~results.warmup,
            completed=completed,
            cancelled=cancelled,
            ttft=results.first_token - results.sent + marked,
            ttft_from_due=results.first_token - results.due + marked,
            ttfe=results.first_event - results.sent + marked,
            tpot=tpot + marked,
            e2e=results.last_token - results.due,
            client_queue=np.maximum(results.sent - results.due - setup, 0.0),
            in_flight=results.end - results.sent,
            tokens=tokens,
            counted=counted,
            first_tokens=k,
            k_estimated=by_share & (tokens != results.text_events) & (results.text_events > 0) & streamed,
            streamed=streamed,
        )


def due_times(requests: Requests, dropped: int, opened: bool) -> dict[str, Reals]:
    """Times in ns of all measured requests that were due, by metric: infinite of those that failed or were dropped.

    What is promised to users is promised to all of them: a server that fails every second request has no p95. Requests
    that we cancelled are left out. In the order of start, the dropped ones, whose place is not known, at the end.

    Args:
        opened: Requests start at a rate: TTFT counts from when they were due.
    """
    due = requests.measured & ~requests.cancelled
    times = {
        "ttft": requests.ttft_from_due if opened else requests.ttft,
        "tpot": requests.tpot,
        "e2e": requests.e2e,
        "client_queue": requests.client_queue,
    }
    if not requests.streamed:
        del times["ttft"], times["tpot"]
    endless = np.full(dropped, np.inf)
    return {
        name: np.append(np.where(requests.completed, values, np.inf)[due], endless) for name, values in times.items()
    }


def micro_tpot(requests: Requests, results: Results) -> float | None:
    """Sum(last - first) / sum(tokens - k) over the population, ns per token: every token weighs the same."""
    defined = requests.population & ~np.isnan(requests.tpot)
    left = float((requests.tokens - requests.first_tokens)[defined].sum())
    return float((results.last_token - results.first_token)[defined].sum()) / left if left > 0 else None


def micro_tpot_interval(requests: Requests, results: Results) -> stats.Bounds | None:
    """The 95 % interval of `micro_tpot`, ns per token: requests, which share a queue, are what is counted."""
    defined = requests.population & ~np.isnan(requests.tpot)
    spans = (results.last_token - results.first_token)[defined]
    return stats.ratio_interval(spans, (requests.tokens - requests.first_tokens)[defined])


def token_source(requests: Requests) -> str | None:
    """Where the population's token counts come from: "usage", "events" (estimated), "mixed"; None where none is."""
    counted = requests.counted[requests.population & ~np.isnan(requests.tokens)]
    if not len(counted):
        return None
    return "usage" if counted.all() else "mixed" if counted.any() else "events"


def tokens_spent(requests: Requests) -> int | None:
    """Output tokens of all requests, warm-up and failed ones too: what CPU time and energy were spent on.

    None where there are none, and where a completed answer came without a count.
    """
    if np.isnan(requests.tokens[requests.completed]).any():
        return None
    return int(np.nansum(requests.tokens)) or None


def tokens_per_event(requests: Requests, results: Results) -> float | None:
    """Tokens by the server's count over text events, of the requests that have both; None of whole answers."""
    if not requests.streamed:
        return None
    both = requests.population & requests.counted & (results.text_events > 0)
    events = int(results.text_events[both].sum())
    return float(requests.tokens[both].sum()) / events if events else None


def first_together_share(requests: Requests, results: Results) -> float | None:
    """Share of the requests whose first arrival carried several text events; None of whole answers, or without text."""
    answered = requests.population & (results.text_events > 0)
    if not requests.streamed or not answered.any():
        return None
    return float((results.first_events[answered] > 1).mean())


def held_share(requests: Requests, results: Results) -> float | None:
    """Share of the first tokens that came as long after the response's header as a delayed acknowledgement takes.

    Linux delays it by 40 ms: a server that waits for it (Nagle's algorithm) sends its second packet then, however soon
    the token was there. None of whole answers, and where no token came.
    """
    held = (results.first_token - results.headers)[requests.population] if requests.streamed else np.zeros(0)
    held = held[~np.isnan(held)]
    return float(((held >= HELD_NS[0]) & (held <= HELD_NS[1])).mean()) if len(held) else None


def undercounted(requests: Requests, results: Results) -> int | None:
    """Requests of which the server counted fewer tokens than it sent events with text; None of whole answers.

    No text comes without a token. A count of 0 beside text is no count at all, and not among them.
    """
    if not requests.streamed:
        return None
    return int((requests.population & requests.counted & (requests.tokens < results.text_events)).sum())


def burst_share(requests: Requests, results: Results) -> float | None:
    """Share of the responses with at least 4 output tokens that came in a burst (gate V13).

    A burst has more than half of its text events in one arrival, as far as is known (the first arrival's events are,
    the others' on average), or all of its text within 5 % of the time from `sent` to the last token while its events
    are less than 1 ms apart on average. Without that last condition a long prompt with a short answer would be one.
    Whole answers that were asked for are none.
    """
    if not requests.streamed:
        return None
    events = results.text_events
    judged = requests.population & (requests.tokens >= FEWEST_TOKENS) & (events > 0)
    if not judged.any():
        return None
    later = np.diff(results.gap_offsets)
    # Where the gaps were not kept nobody knows how many arrivals there were; each event counts as one.
    later = np.where((later == 0) & (results.last_token > results.first_token), events - 1, later)
    average = (events - results.first_events) / np.maximum(later, 1)
    in_one = np.maximum(results.first_events, average) > events / 2
    span = results.last_token - results.first_token
    at_once = (span < 0.05 * (results.last_token - results.sent)) & (span < 1e6 * (events - 1))
    return float((in_one | at_once)[judged].mean())
