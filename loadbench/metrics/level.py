"""One level's part of summary.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np

from loadbench import stats
from loadbench.bounds import Bound
from loadbench.metrics import dependence, drift, flow, gaps, request, spectra, stalls, table, window
from loadbench.metrics.distribution import (
    NS_PER_MS,
    US_PER_MS,
    distribution,
    of_facts,
    of_gaps,
    of_histogram,
    rounded,
    significant,
    without_intervals,
)
from loadbench.metrics.request import Flags, Reals, Requests
from loadbench.metrics.slo import STREAMED, WHOLE, Objectives
from loadbench.record import Results
from loadbench.store import LevelData
from loadbench.store.histogram import Histogram

ABOUT_ONE = 0.1
"""Tokens per arrival within 1 ± this are called one: an end-of-text token is counted but not sent."""
BURST = 0.5
"""Share of burst responses from which TPOT and ITL say nothing (gate V13)."""
MOST_UNKNOWN = 8
"""Things that no table of the client knows, named for a level."""

Level = dict[str, Any]


def summary(
    data: LevelData, bounds: Sequence[Bound], *, streamed: bool = True, stall_threshold: float = stalls.THRESHOLD
) -> Level:
    """All figures of one level's requests but those that need other levels or the gates; null where not measured.

    Args:
        data: The level's entry of run.json and its requests, warm-up ones too. `histograms["itl"]` stands in where
            the gaps were not kept request by request.
        bounds: The scenario's SLO.
        streamed: Whether streams were asked for; whole answers have no first token and no gaps.
        stall_threshold: From how many median gaps on a gap is a stall.
    """
    facts, results = data.facts, data.results
    requests = Requests.of(results, streamed=streamed)
    steady = window.steady(facts, results)
    counted = _counts(facts, results, requests)
    burst_share = request.burst_share(requests, results)
    burst = burst_share is not None and burst_share > BURST
    rates = window.throughput(steady, results, requests)
    opened = facts.get("request_rate_per_s") is not None
    undecided = WHOLE if not streamed else STREAMED if burst else () if data.gaps_kept else ("itl",)
    objectives = Objectives(bounds, results, requests, counted["offered"], opened, undecided)
    good, goodput = objectives.good(), objectives.goodput_per_s(steady)
    attempted = counted["attempted"]
    without_gaps = burst or not streamed
    depends = dependence.dependence(requests, opened=opened, without_gaps=without_gaps)
    strong = {name for name, row in depends.items() if row["strong"]}
    figures = {
        "failed": counted["failed"] / attempted if attempted else None,
        "output_tokens_per_s": rates["output_tokens_per_s"],
        "goodput": goodput,
    }
    prompts, left_out = table.prompts(results, requests)
    return {
        **_named(facts),
        "workers": facts.get("workers"),
        **counted,
        "failure_share": rounded(figures["failed"], 6),
        "share_ci95": _share_intervals(requests, counted),
        "streamed": streamed,
        **_durations(data, requests, opened, strong, without_gaps=without_gaps),
        "with_failures_ms": _with_failures(data, requests, counted, opened, strong, without_gaps=without_gaps),
        **_gaps(data, requests, stall_threshold, opened=opened, without_gaps=without_gaps),
        **_tokens(results, requests, _arrivals(data, requests)),
        "first_together_share": rounded(request.first_together_share(requests, results), 6),
        "held_share": rounded(request.held_share(requests, results), 6),
        **_flow(steady, results, requests, opened),
        **{name: significant(rate) for name, rate in rates.items()},
        **window.rate_intervals(steady, results, requests),
        "dependence": depends,
        "drift": None if facts.get("shape") else drift.drift(steady, results, requests, tpot=not without_gaps),
        "timeline": flow.timeline(facts, results, requests),
        "whole_run": {k: significant(v) for k, v in window.whole_run(facts, results, requests).items()},
        "late_share": _late_share(data, requests, arrived_together=without_gaps),
        "merged_share": rounded(_merged_share(results, requests.population), 6),
        "burst_share": rounded(burst_share, 6),
        "client_cpu_share": _cpu_share(facts),
        "client_wait_share": rounded(facts.get("client_wait_share"), 6),
        "goodput_per_s": significant(goodput),
        "goodput_per_s_ci95": None
        if good is None
        else window.goodput_interval(goodput, good, steady, results, requests),
        "slo": objectives.rows(figures),
        "prompts": prompts,
        "prompts_left_out": left_out,
        "input_lengths": table.input_lengths(results, requests),
    }


def _named(facts: Mapping[str, Any]) -> Level:
    names = ("id", "model", "endpoint", "device", "execution_provider", "alias", "asked_device", "repeat", "attempt")
    load = ("concurrency", "request_rate_per_s", "shape", "think_time_s", "closing", "requests_planned")
    course = ("status", "reason", "aborted", "began", "duration_s")
    return {name: facts.get(name) for name in (*names, *load, *course)}


def _counts(facts: Mapping[str, Any], results: Results, requests: Requests) -> Level:
    """offered = dropped + attempted, attempted = completed + failed + cancelled; of the measured requests.

    An open loop whose process died has told nobody how many requests it dropped: offered and dropped are None.
    """
    measured = np.flatnonzero(requests.measured)
    errors = Counter(error for row in measured if (error := results.error[row]) is not None)
    cancelled = errors.pop("cancelled", 0)
    attempted, failed = len(measured), sum(errors.values())
    dropped, offered = facts.get("dropped"), facts.get("offered")
    if facts.get("request_rate_per_s") is None:
        dropped = dropped or 0
        offered = dropped + attempted if offered is None else offered
    completed_rows = np.flatnonzero(requests.population)
    again = requests.measured & ~np.isnan(results.retry_of)
    reasons = Counter(results.finish_reason[row] or "none" for row in completed_rows)
    unknown = Counter(what for row in measured for what in (results.unknown[row] or "").split("; ") if what)
    return {
        "offered": offered,
        "dropped": dropped,
        "attempted": attempted,
        "completed": len(completed_rows),
        "failed": failed,
        "cancelled": cancelled,
        "errors": dict(sorted(errors.items())),
        "finish_reasons": dict(sorted(reasons.items())),
        "unknown": dict(unknown.most_common(MOST_UNKNOWN)),
        "retries": int(results.retries[requests.measured].sum()),
        "retried": int(again.sum()),
        "recovered": int((again & requests.completed).sum()),
        "warmup_requests": int(results.warmup.sum()),
    }


def _share_intervals(requests: Requests, counted: Level) -> Level:
    """95 % intervals of the shares that failed, of the attempted, and that completed, of the offered."""
    measured = requests.measured
    failed = ~(requests.completed | requests.cancelled)
    found = {"failed": stats.share_interval(failed[measured])}
    if counted["offered"] is not None:
        found["success"] = stats.share_interval(requests.completed[measured], counted["offered"])
    return {name: [rounded(end, 6) for end in ends] if ends else None for name, ends in found.items()}


def _with_failures(
    data: LevelData, requests: Requests, counted: Level, opened: bool, strong: Set[str], *, without_gaps: bool
) -> Level | None:
    """Times in ms of all requests that were due, those that failed or were dropped taken as without end.

    What a threshold or a requirement is held against: the requests that completed say nothing of those that did not.
    A request that we cancelled is left out. A percentile without end is None. Its intervals end there too.

    Returns:
        {"ttft", "tpot", "e2e", "client_queue", "itl"}: metric objects, None where the metric has no meaning; None where
        every request completed, so that the other figures say the same.
    """
    dropped = counted["dropped"] or 0
    missing = counted["failed"] + dropped
    if not missing:
        return None
    found: Level = dict.fromkeys(("ttft", "tpot", "e2e", "client_queue"))
    for name, values in request.due_times(requests, dropped, opened).items():
        if not (name == "tpot" and without_gaps):
            found[name] = distribution(values, saturated=name in strong)
    found["itl"] = None
    if not without_gaps and data.gaps_kept:
        # A request that failed counts for as many gaps as one that completed has.
        ascending = gaps.ascending(data.results, requests.population).astype(np.float64)
        each = max(1, round(len(ascending) / max(1, counted["completed"])))
        found["itl"] = without_intervals(np.append(ascending, np.full(missing * each, np.inf)), US_PER_MS)
    return found


def _durations(data: LevelData, requests: Requests, opened: bool, strong: Set[str], *, without_gaps: bool) -> Level:
    results = data.results
    population = requests.population
    micro = None if without_gaps else request.micro_tpot(requests, results)
    of_micro = None
    if micro is not None and "tpot" not in strong:
        of_micro = request.micro_tpot_interval(requests, results)

    def times(name: str, values: Reals) -> Level:
        return distribution(values[population], saturated=name in strong)

    return {
        "ttft_ms": times("ttft", requests.ttft),
        "ttft_from_due_ms": times("ttft", requests.ttft_from_due) if opened else None,
        "ttfe_ms": times("ttft", requests.ttfe),
        "tpot_ms": None if without_gaps else times("tpot", requests.tpot),
        "tpot_micro_ms": None if micro is None else rounded(micro / NS_PER_MS),
        "tpot_micro_ms_ci95": None if of_micro is None else [rounded(end / NS_PER_MS) for end in of_micro],
        "tpot_k_estimated": bool(requests.k_estimated[population].any()),
        "e2e_ms": times("e2e", requests.e2e),
        "client_queue_ms": distribution(requests.client_queue[population]),
        "client_lag_ms": _lag(data),
        "client_pause_s": data.facts.get("client_pause_s"),
        "client_pause_at_s": data.facts.get("client_pause_at_s"),
        # Warm connections cost nothing; what a set-up costs is asked of all that happened, in warm-up too.
        "connect_ms": distribution(results.connect[results.connect > 0]),
        "round_trip_ms": data.facts.get("round_trip_ms"),
    }


def _gaps(data: LevelData, requests: Requests, threshold: float, *, opened: bool, without_gaps: bool) -> Level:
    if without_gaps:
        return {"itl_ms": None, "stalls": None, "spectra": _spectra(requests, None, opened)}
    if not data.gaps_kept:
        histogram = data.histograms.get("itl", Histogram())
        return {
            "itl_ms": of_histogram(histogram),
            "stalls": stalls.of_histogram(histogram, threshold),
            "spectra": _spectra(requests, spectra.of_histogram(histogram), opened),
        }
    ascending = gaps.ascending(data.results, requests.population)
    return {
        "itl_ms": of_gaps(data.results, requests.population, ascending),
        "stalls": stalls.stalls(data.results, requests, ascending, threshold),
        "spectra": _spectra(requests, spectra.spectrum(ascending, US_PER_MS), opened),
    }


def _spectra(requests: Requests, of_gaps: spectra.Spectrum | None, opened: bool) -> Level:
    """The whole distributions of what users wait for; TTFT as the headline has it, in open loop from `due`."""
    population = requests.population
    name, ttft = ("ttft_from_due_ms", requests.ttft_from_due) if opened else ("ttft_ms", requests.ttft)
    of_requests = {name: spectra.of_values(ttft[population]), "e2e_ms": spectra.of_values(requests.e2e[population])}
    return of_requests | {"itl_ms": of_gaps}


def _lag(data: LevelData) -> Level | None:
    """Of the histogram, which knows every percentile; where no .hlog can be read, what the level's facts say."""
    histogram = data.histograms.get("client_lag")
    return of_histogram(histogram) if histogram else of_facts(data.facts.get("client_lag_us"))


def _arrivals(data: LevelData, requests: Requests) -> int | None:
    """How many arrivals of text the population had; None of whole answers, and where there was no text."""
    answered = requests.population & ~np.isnan(data.results.first_token)
    if not requests.streamed or not answered.any():
        return None
    if data.gaps_kept:
        later = int(gaps.sizes(data.results)[answered].sum())
    else:
        later = data.histograms.get("itl", Histogram()).count
    return int(answered.sum()) + later


def _late_share(data: LevelData, requests: Requests, *, arrived_together: bool) -> float | None:
    """Share of reads that came later than half a mean gap after what they read had arrived; None where nobody knows.

    The kernel's stamp is of the newest of what waited. Where a late client merges arrivals, the newest of them came
    anywhere between two gaps: so twice this share bounds what it merged.
    """
    arrivals = _arrivals(data, requests)
    if arrived_together or arrivals is None:
        return None
    answered = requests.population & ~np.isnan(data.results.first_token)
    later = arrivals - int(answered.sum())
    if not later:
        return None
    spans_ns = (data.results.last_token - data.results.first_token)[answered]
    limit_us = float(spans_ns.sum()) / later / 2 / 1e3
    histogram = data.histograms.get("client_lag")
    if histogram is not None and histogram.count:
        return rounded(histogram.above(int(limit_us)) / histogram.count, 6)
    known = data.facts.get("client_lag_us") or {}
    tails = {"max": 0.0, "p999": 0.001, "p99": 0.01, "p50": 0.5}
    below = [tail for name, tail in tails.items() if known.get(name) is not None and known[name] <= limit_us]
    return min(below, default=1.0) if known.get("n") else None


def _tokens(results: Results, requests: Requests, arrivals: int | None) -> Level:
    population = requests.population
    per_event = request.tokens_per_event(requests, results)
    per_arrival = None
    events_per_arrival = int(results.text_events[population].sum()) / arrivals if arrivals else None
    if per_event is not None and events_per_arrival is not None:
        per_arrival = per_event * events_per_arrival
    single = per_arrival is not None and abs(per_arrival - 1) <= ABOUT_ONE
    both = population & ~np.isnan(results.cached_tokens) & (results.input_tokens > 0)
    cached = float(results.cached_tokens[both].sum() / results.input_tokens[both].sum()) if both.any() else None
    known = population & ~np.isnan(results.input_tokens)
    counted = population & ~np.isnan(requests.tokens)
    return {
        "token_source": request.token_source(requests),
        "tokens_per_event": significant(per_event),
        "tokens_per_arrival": significant(per_arrival),
        "events_per_arrival": significant(events_per_arrival),
        "undercounted": request.undercounted(requests, results),
        "itl_name": "inter-token" if single else "inter-event",
        "output_tokens": {
            **distribution(requests.tokens[population], 1.0),
            "total": int(requests.tokens[counted].sum()) if counted.any() else None,
        },
        "input_tokens": {
            **distribution(results.input_tokens[population], 1.0),
            "total": int(results.input_tokens[known].sum()) if known.any() else None,
        },
        "output_tokens_spent": request.tokens_spent(requests),
        "characters": int(results.characters[population].sum()) if population.any() else None,
        "words": int(results.words[population].sum()) if population.any() else None,
        "cached_share": rounded(cached, 6),
    }


def _flow(steady: window.Window | None, results: Results, requests: Requests, opened: bool) -> Level:
    """The window's length, and both sides of Little's law there: N against X and R, however the requests ended."""
    long_enough = steady is not None and steady.length_ns >= window.SHORTEST_NS
    stayed = window.residence_ns(steady, results, requests) if steady and long_enough else None
    return {
        "window_s": significant(steady.length_s) if steady else None,
        "in_flight_mean": significant(window.in_flight_mean(steady, results)) if steady and long_enough else None,
        "ended_per_s": significant(window.ended_per_s(steady, results)) if steady and long_enough else None,
        "residence_ms": significant(stayed / NS_PER_MS) if stayed is not None else None,
        "residence_growth": significant(window.residence_growth(requests)) if opened else None,
    }


def _merged_share(results: Results, population: Flags) -> float | None:
    """Arrivals with text of several HTTP chunks, of all text arrivals; None where the gaps were not kept."""
    sizes = np.diff(results.gap_offsets)
    kept = population & ((sizes > 0) | (results.last_token == results.first_token))
    arrivals = int((sizes[kept] + 1).sum())
    return float(results.merged_arrivals[kept].sum()) / arrivals if arrivals else None


def _cpu_share(facts: Mapping[str, Any]) -> float | None:
    """Share of one core that the client kept busy; of several workers, the busiest."""
    shares = [row["cpu_share"] for row in facts.get("workers") or () if row.get("cpu_share") is not None]
    if shares:
        return rounded(max(shares), 6)
    cpu_s, duration_s = facts.get("client_cpu_s"), facts.get("duration_s")
    return None if cpu_s is None or not duration_s else rounded(cpu_s / duration_s, 6)
