"""The figures of single requests: docs/metrics.md, one column each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loadbench.store.record import Flags, Reals, Results

# A shorter answer is no burst: there is nothing to spread.
FEWEST_TOKENS = 4
# Share of burst responses from which TPOT and ITL say nothing (gate V13).
BURST = 0.5


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
        until_answer: first_answer - first_token: 0 of a request that did not reason first; NaN where none was marked.
        thinking: The same of requests whose reasoning came as text, NaN of the others.
        unanswered: Completed with reasoning alone.
        e2e: last_token - due.
        normalised_latency: e2e / tokens, ns per token.
        client_queue: sent - due less connection set-up, at least 0.
        in_flight: end - sent.
        tokens: Output tokens as the usage says, else the text events; NaN where a whole answer came without a count.
        counted: Whether the usage said so.
        first_tokens: k, tokens in the first arrival: the server's count, else tokens * first_events / text_events.
        k_estimated: Whether k rests on that share and events do not carry one token each.
        streamed: Whether answers are streams: a whole answer has no first token, ttft to tpot are NaN.
    """

    measured: Flags
    completed: Flags
    cancelled: Flags
    ttft: Reals
    ttft_from_due: Reals
    ttfe: Reals
    tpot: Reals
    until_answer: Reals
    thinking: Reals
    unanswered: Flags
    e2e: Reals
    normalised_latency: Reals
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

    def times(self, opened: bool) -> dict[str, Reals]:
        """By metric, the times that an SLO or a threshold can be about; NaN where undefined.

        Args:
            opened: Requests start at a rate: TTFT counts from when they were due, so that waiting in the client is no
                gift to the server.
        """
        ttft = self.ttft_from_due if opened else self.ttft
        return {
            "ttft": ttft,
            "ttfat": ttft + self.until_answer,
            "tpot": self.tpot,
            "e2e": self.e2e,
            "normalised_latency": self.normalised_latency,
            "client_queue": self.client_queue,
        }

    def rates(self, results: Results, round_trip_ms: float | None) -> dict[str, Reals]:
        """By metric, tokens per second of each request, of which a level reports the median; NaN where undefined.

        Args:
            round_trip_ms: Of the network; without it no prefill is known.
        """
        # What the server took from its cache it did not prefill.
        read = results.input_tokens - np.nan_to_num(results.cached_tokens)
        prefill_ns = self.ttft - (np.nan if round_trip_ms is None else round_trip_ms * 1e6)
        prefilled = (read > 0) & (prefill_ns > 0)
        return {
            "tokens_per_s_per_user": 1e9 / self.tpot,
            "prefill_tokens_per_s": np.where(prefilled, read, np.nan) / np.where(prefilled, prefill_ns, np.nan) * 1e9,
        }

    def first_share(self, results: Results) -> Reals:
        """Share of each request's text in its first arrival: 1 where all came at once or it is unknown."""
        events = np.maximum(results.text_events, 1)
        share = np.where(self.tokens > 0, self.first_tokens / np.maximum(self.tokens, 1), results.first_events / events)
        known = np.clip(np.nan_to_num(share, nan=1.0), 0.0, 1.0)
        return np.where(results.last_token > results.first_token, known, 1.0)

    @classmethod
    def of(cls, results: Results, *, streamed: bool = True) -> Requests:
        """Compute all columns from the marks."""
        rows = len(results)
        counted = ~np.isnan(results.output_tokens)
        marked = 0.0 if streamed else np.nan
        tokens = np.where(counted, results.output_tokens, results.text_events + marked)
        by_share = np.isnan(results.first_tokens)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = tokens * results.first_events / results.text_events
            k = np.where(by_share, share, results.first_tokens)
            span = results.last_token - results.first_token
            tpot = np.where((tokens > k) & (span > 0), span / (tokens - k), np.nan)
            e2e = results.last_token - results.due
            normalised = np.where(tokens > 0, e2e / tokens, np.nan)
        setup = np.nan_to_num(results.connect)
        completed = np.fromiter((error is None for error in results.error), np.bool_, rows)
        reasoned = results.reasoning_characters > 0
        until_answer = results.first_answer - results.first_token + marked
        return cls(
            measured=~results.warmup,
            completed=completed,
            cancelled=np.fromiter((error == "cancelled" for error in results.error), np.bool_, rows),
            ttft=results.first_token - results.sent + marked,
            ttft_from_due=results.first_token - results.due + marked,
            ttfe=results.first_event - results.sent + marked,
            tpot=tpot + marked,
            until_answer=until_answer,
            thinking=np.where(reasoned, until_answer, np.nan),
            unanswered=completed & reasoned & np.isnan(results.first_answer),
            e2e=e2e,
            normalised_latency=normalised,
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

    What is promised to users is promised to all of them: a server that fails every second request has no p95, and an
    answer that never got beyond its reasoning no TTFAT. Requests that we cancelled are left out. In the order of start,
    the dropped ones, whose place is not known, at the end.
    """
    due = requests.measured & ~requests.cancelled
    endless = np.full(dropped, np.inf)
    found = {}
    for name, values in requests.times(opened).items():
        if requests.streamed or name not in ("ttft", "ttfat", "tpot"):
            ended = requests.completed & ~requests.unanswered if name == "ttfat" else requests.completed
            found[name] = np.append(np.where(ended, values, np.inf)[due], endless)
    return found


def token_source(requests: Requests) -> str | None:
    """Where the population's token counts come from: "usage", "events" (estimated), "mixed"; None where none is."""
    counted = requests.counted[requests.population & ~np.isnan(requests.tokens)]
    if not len(counted):
        return None
    if counted.all():
        return "usage"
    return "mixed" if counted.any() else "events"


def burst_share(requests: Requests, results: Results) -> float | None:
    """Share of the responses with at least 4 output tokens that came in a burst (gate V13).

    A burst has more than half of its text events in one arrival, as far as is known (the first arrival's events are,
    the others' on average), or all of its text within 5 % of the time from `sent` to the last token while its events
    are less than 1 ms apart on average. Without that last condition a long prompt with a short answer would be one.
    Whole answers are none.
    """
    if not requests.streamed:
        return None
    events = results.text_events
    judged = requests.population & (requests.tokens >= FEWEST_TOKENS) & (events > 0)
    if not judged.any():
        return None
    later = np.diff(results.gap_offsets)
    # Where the gaps were not kept the number of arrivals is unknown; each event counts as one.
    later = np.where((later == 0) & (results.last_token > results.first_token), events - 1, later)
    average = (events - results.first_events) / np.maximum(later, 1)
    in_one = np.maximum(results.first_events, average) > events / 2
    span = results.last_token - results.first_token
    at_once = (span < 0.05 * (results.last_token - results.sent)) & (span < 1e6 * (events - 1))
    return float((in_one | at_once)[judged].mean())
