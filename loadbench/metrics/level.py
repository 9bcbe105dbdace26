"""One level's part of summary.json: all figures of its requests, its breakdown by prompt and by length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set

import msgspec
import numpy as np
from numpy.typing import NDArray

from loadbench.metrics import request, window
from loadbench.metrics.distribution import (
    NS_PER_MS,
    STALL_THRESHOLD,
    US_PER_MS,
    ascending_gaps,
    distribution,
    gap_sizes,
    of_facts,
    of_gaps,
    of_histogram,
    spectrum,
    spectrum_of_histogram,
    stalls,
    stalls_of_histogram,
    without_intervals,
)
from loadbench.metrics.request import BURST, Requests
from loadbench.metrics.slo import Objectives, undecided
from loadbench.metrics.window import RATES, Window
from loadbench.scenario.bounds import Bound
from loadbench.stats import outliers, percentile
from loadbench.stats.blocks import ratio_interval, share_interval
from loadbench.store import LevelData
from loadbench.store.files import HISTOGRAMS
from loadbench.store.histogram import Histogram
from loadbench.store.record import Reals, Results
from loadbench.store.schema import LevelFacts
from loadbench.store.summary import Distribution, LengthRow, Level, PromptRow, rounded, significant

# Tokens per arrival within 1 ± this are called one: an end-of-text token is counted but not sent.
ABOUT_ONE = 0.1
# Things that no table of the client knows, named for a level.
MOST_UNKNOWN = 8
# Rows of a level's table; distinct prompts would make it as long as the requests. Those with the worst E2E stay.
MOST_PROMPTS = 200
FEWEST_FOR_OUTLIERS = 5
MOST_LENGTHS = 4
# 40 ms of a delayed acknowledgement, a tick of the kernel's clock more, and the way back.
HELD_NS = (38e6, 50e6)
# Times whose dependence is that of another one.
_RESTS_ON = {"ttfat": "ttft", "normalised_latency": "e2e"}
_FACTS = tuple(name for name in LevelFacts.__struct_fields__ if name in Level.__struct_fields__)


def level_facts(data: LevelData) -> LevelFacts:
    """The level's entry in run.json."""
    return msgspec.convert(data.facts, LevelFacts)


def summary(
    data: LevelData, bounds: Sequence[Bound], *, streamed: bool = True, stall_threshold: float = STALL_THRESHOLD
) -> Level:
    """All figures of one level's requests but those that need other levels or the gates.

    Args:
        data: The level's entry of run.json and its requests, warm-up ones too. `histograms["itl"]` stands in where
            the gaps were not kept request by request.
        bounds: The scenario's SLO.
        streamed: Whether answers are streams; whole answers have no first token and no gaps.
        stall_threshold: From how many median gaps on a gap is a stall.
    """
    facts, results = level_facts(data), data.results
    requests = Requests.of(results, streamed=streamed)
    steady = window.steady(facts, results)
    burst_share = request.burst_share(requests, results)
    burst = burst_share is not None and burst_share > BURST
    without_gaps = burst or not streamed
    level = Level(**{name: getattr(facts, name) for name in _FACTS})
    level.client_wait_share = rounded(facts.client_wait_share, 6)
    level.streamed = streamed
    level.burst_share = rounded(burst_share, 6)
    level.dependence = window.dependence(requests, opened=level.is_open, without_gaps=without_gaps)
    strong = {name for name, row in level.dependence.items() if row.strong}
    _add_counts(level, results, requests)
    _add_times(level, data, facts, requests, strong, without_gaps=without_gaps)
    _add_thinking(level, results, requests, strong)
    _add_gaps(level, data, requests, stall_threshold, without_gaps=without_gaps)
    level.with_failures_ms = _with_failures(level, data, requests, strong, without_gaps=without_gaps)
    arrivals = _arrivals(data, requests)
    _add_tokens(level, results, requests, arrivals)
    without = undecided(requests, results, gaps_kept=data.gaps_kept, burst=burst)
    objectives = Objectives(bounds, results, requests, level.offered, level.is_open, without)
    _add_flow(level, facts, steady, objectives)
    if not facts.shape:
        level.drift = window.drift(steady, results, requests, tpot=not without_gaps)
    _add_client(level, data, facts, requests, arrivals, without_gaps=without_gaps)
    level.prompts, level.prompts_left_out = prompts(results, requests)
    level.input_lengths = input_lengths(results, requests)
    return level


def _add_counts(level: Level, results: Results, requests: Requests) -> None:
    """offered = dropped + attempted, attempted = completed + failed + cancelled; of the measured requests.

    Where the process of an open loop died, how many requests it dropped was never written: offered and dropped are
    None.
    """
    measured = np.flatnonzero(requests.measured)
    completed = np.flatnonzero(requests.population)
    errors = Counter(error for row in measured if (error := results.error[row]) is not None)
    reasons = Counter(results.finish_reason[row] or "none" for row in completed)
    unknown: Counter[str] = Counter()
    for row in measured:
        unknown.update(what for what in (results.unknown[row] or "").split("; ") if what)
    level.cancelled = errors.pop("cancelled", 0)
    level.attempted, level.failed, level.completed = len(measured), sum(errors.values()), len(completed)
    if not level.is_open:
        level.dropped = level.dropped or 0
        level.offered = level.dropped + level.attempted if level.offered is None else level.offered
    level.errors = dict(sorted(errors.items()))
    level.finish_reasons = dict(sorted(reasons.items()))
    level.unknown = dict(unknown.most_common(MOST_UNKNOWN))
    again = requests.measured & ~np.isnan(results.retry_of)
    level.retries = int(results.retries[requests.measured].sum())
    level.retried = int(again.sum())
    level.recovered = int((again & requests.completed).sum())
    level.warmup_requests = int(results.warmup.sum())
    level.failure_share = rounded(level.failed / level.attempted, 6) if level.attempted else None
    ended_badly = ~(requests.completed | requests.cancelled)
    shares = {"failed": share_interval(ended_badly[requests.measured])}
    if level.offered is not None:
        shares["success"] = share_interval(requests.completed[requests.measured], level.offered)
    level.share_ci95 = {name: [rounded(end, 6) for end in ends] if ends else None for name, ends in shares.items()}


def _with_failures(
    level: Level, data: LevelData, requests: Requests, strong: Set[str], *, without_gaps: bool
) -> Mapping[str, Distribution | None] | None:
    """Times in ms of all requests that were due, those that failed or were dropped taken as without end.

    What thresholds and requirements are judged by: completed requests say nothing of the others.
    A request that we cancelled is left out. A percentile without end is None. Its intervals end there too.

    Returns:
        The metrics of `Requests.times` and "itl"; None where the metric has no meaning; None where every request
        completed with an answer, so that the other figures say the same.
    """
    dropped = level.dropped or 0
    missing = (level.failed or 0) + dropped
    if not missing and not level.only_reasoned:
        return None
    found: dict[str, Distribution | None] = dict.fromkeys((*requests.times(level.is_open), "itl"))
    for name, values in request.due_times(requests, dropped, level.is_open).items():
        if name == "ttfat" and level.ttfat_ms is None:
            continue
        if not (name == "tpot" and without_gaps):
            found[name] = distribution(values, saturated=_RESTS_ON.get(name, name) in strong)
    if not missing:
        found["itl"] = level.itl_ms
    elif not without_gaps and data.gaps_kept:
        # A request that failed counts for as many gaps as one that completed has.
        ascending = ascending_gaps(data.results, requests.population).astype(np.float64)
        each = max(1, round(len(ascending) / max(1, level.completed or 0)))
        found["itl"] = without_intervals(np.append(ascending, np.full(missing * each, np.inf)), US_PER_MS)
    return found


def _add_times(
    level: Level, data: LevelData, facts: LevelFacts, requests: Requests, strong: Set[str], *, without_gaps: bool
) -> None:
    results, population = data.results, requests.population

    def times(name: str, values: Reals) -> Distribution:
        return distribution(values[population], saturated=name in strong)

    level.ttft_ms = times("ttft", requests.ttft)
    level.ttft_from_due_ms = times("ttft", requests.ttft_from_due) if level.is_open else None
    level.ttfe_ms = times("ttft", requests.ttfe)
    level.e2e_ms = times("e2e", requests.e2e)
    level.normalised_latency_ms = times("e2e", requests.normalised_latency)
    level.client_queue_ms = distribution(requests.client_queue[population])
    # Warm connections cost nothing: the set-up is measured over all that happened, in warm-up too.
    level.connect_ms = distribution(results.connect[results.connect > 0])
    # Of the histogram, which has every percentile; where no .hlog can be read, what the level's facts say.
    lag, wait = data.histograms.get("client_lag"), data.histograms.get("client_wait")
    level.client_lag_ms = of_histogram(lag) if lag else of_facts(facts.client_lag_us)
    level.client_wait_ms = of_histogram(wait) if wait else of_facts(facts.client_wait_us)
    level.tpot_k_estimated = bool(requests.k_estimated[population].any())
    if without_gaps:
        return
    level.tpot_ms = times("tpot", requests.tpot)
    if level.tpot_ms.p50:
        # The ends of the interval of TPOT, turned round.
        low, high = level.tpot_ms.ci95.get("p50") or (None, None)
        level.tokens_per_s_per_user = significant(1000 / level.tpot_ms.p50)
        level.tokens_per_s_per_user_ci95 = [significant(1000 / end) if end else None for end in (high, low)]
    prefill = distribution(
        requests.rates(results, facts.round_trip_ms)["prefill_tokens_per_s"][population],
        1.0,
        saturated="ttft" in strong,
    )
    level.prefill_tokens_per_s, level.prefill_tokens_per_s_ci95 = prefill.p50, prefill.ci95["p50"]
    # Sum(last - first) / sum(tokens - k): every token weighs the same. Its interval counts requests, as they share a
    # queue.
    defined = population & ~np.isnan(requests.tpot)
    spans, tokens = (
        (results.last_token - results.first_token)[defined],
        (requests.tokens - requests.first_tokens)[defined],
    )
    if not tokens.sum() > 0:
        return
    level.tpot_micro_ms = rounded(float(spans.sum()) / float(tokens.sum()) / NS_PER_MS)
    ends = ratio_interval(spans, tokens) if "tpot" not in strong else None
    level.tpot_micro_ms_ci95 = [rounded(end / NS_PER_MS) for end in ends] if ends else None


def _add_thinking(level: Level, results: Results, requests: Requests, strong: Set[str]) -> None:
    """When the answer began, and what the model reasoned before; None of records that have no such marks."""
    population, characters, tokens = requests.population, results.reasoning_characters, results.reasoning_tokens
    shown = population & (characters > 0)
    counted = population & requests.counted & ~np.isnan(tokens)
    is_marked = not np.isnan(characters[population]).all()
    if is_marked and requests.streamed:
        ttfat = requests.times(level.is_open)["ttfat"][population]
        level.ttfat_ms = distribution(ttfat, saturated="ttft" in strong)
    if is_marked or counted.any():
        level.reasoned = int((shown | (counted & (tokens > 0))).sum())
    if is_marked:
        level.only_reasoned = int((population & requests.unanswered).sum())
    if shown.any() and requests.streamed:
        level.thinking_ms = distribution(requests.thinking[population], saturated="ttft" in strong)
    part = whole = 0.0
    # Some servers count none of the reasoning that they send.
    if counted.any() and not (shown & ~(tokens > 0)).any():
        level.thinking_share_source = "usage"
        part, whole = tokens[counted].sum(), requests.tokens[counted].sum()
    elif shown.any():
        level.thinking_share_source = "characters"
        part, whole = characters[population].sum(), results.characters[population].sum()
    if whole:
        level.thinking_share = rounded(min(float(part / whole), 1.0), 6)


def _add_gaps(level: Level, data: LevelData, requests: Requests, threshold: float, *, without_gaps: bool) -> None:
    """Inter-token latency, stalls, and the whole distributions of what users wait for."""
    population = requests.population
    # TTFT as the headline has it, in open loop from `due`.
    name, ttft = ("ttft_from_due_ms", requests.ttft_from_due) if level.is_open else ("ttft_ms", requests.ttft)
    spectra = {name: spectrum(ttft[population]), "e2e_ms": spectrum(requests.e2e[population]), "itl_ms": None}
    level.spectra = spectra
    if without_gaps:
        return
    if data.gaps_kept:
        ascending = ascending_gaps(data.results, population)
        level.itl_ms = of_gaps(data.results, population, ascending)
        level.stalls = stalls(data.results, requests, ascending, threshold)
        spectra["itl_ms"] = spectrum(ascending, US_PER_MS)
    else:
        histogram = data.histograms.get("itl", Histogram())
        level.itl_ms = of_histogram(histogram)
        level.stalls = stalls_of_histogram(histogram, threshold)
        spectra["itl_ms"] = spectrum_of_histogram(histogram)


def _arrivals(data: LevelData, requests: Requests) -> int | None:
    """How many arrivals of text the population had; None of whole answers, and where there was no text."""
    answered = requests.population & ~np.isnan(data.results.first_token)
    if not requests.streamed or not answered.any():
        return None
    if data.gaps_kept:
        later = int(gap_sizes(data.results)[answered].sum())
    else:
        later = data.histograms.get("itl", Histogram()).count
    return int(answered.sum()) + later


def _add_tokens(level: Level, results: Results, requests: Requests, arrivals: int | None) -> None:
    population, tokens = requests.population, requests.tokens
    per_event = per_arrival = None
    # By the server's count, of the requests that have both; of whole answers there are no events.
    both = population & requests.counted & (results.text_events > 0)
    if requests.streamed and both.any():
        per_event = float(tokens[both].sum()) / int(results.text_events[both].sum())
    events_per_arrival = int(results.text_events[population].sum()) / arrivals if arrivals else None
    if per_event is not None and events_per_arrival is not None:
        per_arrival = per_event * events_per_arrival
    single = per_arrival is not None and abs(per_arrival - 1) <= ABOUT_ONE
    level.token_source = request.token_source(requests)
    level.tokens_per_event = significant(per_event)
    level.tokens_per_arrival = significant(per_arrival)
    level.events_per_arrival = significant(events_per_arrival)
    if requests.streamed:
        # No text comes without a token.
        level.undercounted = int((population & requests.counted & (tokens < results.text_events)).sum())
    level.itl_name = "inter-token" if single else "inter-event"
    level.output_tokens = _with_total(tokens[population])
    level.input_tokens = _with_total(results.input_tokens[population])
    # What CPU time and energy were spent on: warm-up and failed requests too, unless a whole answer has no count.
    if not np.isnan(tokens[requests.completed]).any():
        level.output_tokens_spent = int(np.nansum(tokens)) or None
    if population.any():
        level.characters = int(results.characters[population].sum())
        level.words = int(results.words[population].sum())
    both = population & ~np.isnan(results.cached_tokens) & (results.input_tokens > 0)
    if both.any():
        level.cached_share = rounded(float(results.cached_tokens[both].sum() / results.input_tokens[both].sum()), 6)


def _with_total(tokens: Reals) -> Distribution:
    known = tokens[~np.isnan(tokens)]
    return distribution(tokens, 1.0, total=int(known.sum()) if len(known) else None)


def _add_flow(level: Level, facts: LevelFacts, steady: Window | None, objectives: Objectives) -> None:
    """What flowed, goodput and the SLO, and both sides of Little's law in the window."""
    results, requests = objectives.results, objectives.requests
    rates = window.throughput(steady, results, requests)
    for name, interval in window.rate_intervals(rates, steady, results, requests).items():
        setattr(level, name, significant(getattr(rates, name)))
        setattr(level, f"{name}_ci95", interval)
    whole = window.whole_run(facts, results, requests)
    figures = {name: significant(getattr(whole, name)) for name in (*RATES, "duration_s")}
    level.whole_run = msgspec.structs.replace(whole, **figures)
    level.timeline = window.timeline(facts, results, requests)
    good, goodput = objectives.good(), objectives.goodput_per_s(steady)
    level.goodput_per_s = significant(goodput)
    if good is not None:
        level.goodput_per_s_ci95 = window.goodput_interval(goodput, good, steady, results, requests)
    failed = (level.failed or 0) / level.attempted if level.attempted else None
    figures_of_level = {
        "failed": failed,
        "output_tokens_per_s": rates.output_tokens_per_s,
        "goodput": goodput,
        "tokens_per_s_per_user": level.tokens_per_s_per_user,
        "prefill_tokens_per_s": level.prefill_tokens_per_s,
    }
    level.slo = objectives.rows(figures_of_level)
    stayed = requests.in_flight[requests.population]
    third = len(stayed) // 3
    if level.is_open and third:
        # About 1 where a server keeps up, however long its answers are; in a backlog each request waits longer than the
        # one before.
        level.residence_growth = significant(float(np.median(stayed[-third:]) / np.median(stayed[:third])))
    if steady is None:
        return
    level.window_s = significant(steady.length_s)
    if steady.length_ns < window.SHORTEST_NS:
        return
    # N of Little's law: the mean number of requests between `sent` and `end`, however they ended.
    level.in_flight_mean = significant(float(steady.overlap(results.sent, results.end).sum()) / steady.length_ns)
    # X: requests that ended in the window. Counted, not by share as `requests_per_s`: from shares of the time in flight
    # the law would follow whatever happened. So it may be a round too high (see `Window.counts`), which V2 allows for.
    ended = steady.holds(results.end) & ~np.isnan(results.sent)
    level.ended_per_s = significant(float(ended.sum()) / steady.length_s)
    # R: their mean time in flight. Those of the warm-up are no part of it: a first answer of 20 s, from a cold server,
    # would break the law.
    if ended.any():
        level.residence_ms = significant(float(requests.in_flight[ended].mean()) / NS_PER_MS)


def _add_client(
    level: Level, data: LevelData, facts: LevelFacts, requests: Requests, arrivals: int | None, *, without_gaps: bool
) -> None:
    """What this client, or what is between it and the server, did to the times."""
    results, population = data.results, requests.population
    answered = population & (results.text_events > 0)
    if requests.streamed and answered.any():
        level.first_together_share = rounded(float((results.first_events[answered] > 1).mean()), 6)
    # Linux delays an acknowledgement by 40 ms: a server that waits for it (Nagle's algorithm) sends its second packet
    # then, however soon the token was there.
    after_header = (results.first_token - results.headers)[population]
    after_header = after_header[~np.isnan(after_header)]
    if requests.streamed and len(after_header):
        held = (after_header >= HELD_NS[0]) & (after_header <= HELD_NS[1])
        level.held_share = rounded(float(held.mean()), 6)
    if arrivals is not None and not without_gaps:
        level.late_share = _late_share(data, facts, requests, arrivals)
    # Arrivals with text of several HTTP chunks, of all text arrivals; None where the gaps were not kept.
    sizes = gap_sizes(results)
    kept = population & ((sizes > 0) | (results.last_token == results.first_token))
    if kept.any():
        level.merged_share = rounded(float(results.merged_arrivals[kept].sum()) / int((sizes[kept] + 1).sum()), 6)
    shares = [worker.cpu_share for worker in facts.workers or () if worker.cpu_share is not None]
    if shares:
        level.client_cpu_share = rounded(max(shares), 6)  # of several workers, the busiest
    elif facts.client_cpu_s is not None and facts.duration_s:
        level.client_cpu_share = rounded(facts.client_cpu_s / facts.duration_s, 6)


def _late_share(data: LevelData, facts: LevelFacts, requests: Requests, arrivals: int) -> float | None:
    """Share of reads that came later than half a mean gap after what they read had arrived; None where unknown.

    The kernel's stamp is of the newest of what waited. Where a late client merges arrivals, the newest of them came
    anywhere between two gaps: so twice this share bounds what it merged.
    """
    answered = requests.population & ~np.isnan(data.results.first_token)
    later = arrivals - int(answered.sum())
    if not later:
        return None
    spans_ns = (data.results.last_token - data.results.first_token)[answered]
    limit_us = float(spans_ns.sum()) / later / 2 / 1e3
    histogram = data.histograms.get("client_lag")
    if histogram is not None and histogram.count:
        return rounded(histogram.above(int(limit_us)) / histogram.count, 6)
    lag = facts.client_lag_us
    if lag is None or not lag.n:
        return None
    tails = ((lag.max, 0.0), (lag.p999, 0.001), (lag.p99, 0.01), (lag.p50, 0.5))
    return min((tail for lag_us, tail in tails if lag_us is not None and lag_us <= limit_us), default=1.0)


# -- breakdowns: outliers are flagged, never dropped


def prompts(results: Results, requests: Requests) -> tuple[list[PromptRow], int]:
    """One row a prompt, by id, over the population; and how many prompts were left out (beyond MOST_PROMPTS).

    `outliers` counts the requests whose E2E is far from that of the same prompt (modified z by MAD); None below 5.
    """
    rows = np.flatnonzero(requests.population)
    codes: dict[str, int] = {}
    group = np.fromiter((codes.setdefault(results.prompt[row], len(codes)) for row in rows), np.int64, len(rows))
    names = list(codes)
    worst = np.zeros(len(names))
    np.maximum.at(worst, group, np.nan_to_num(requests.e2e[rows]))
    order = np.argsort(group, kind="stable")
    ends = np.cumsum(np.bincount(group, minlength=len(names)))
    starts = np.concatenate(([0], ends[:-1]))
    table = []
    for number in np.argsort(-worst, kind="stable")[:MOST_PROMPTS].tolist():
        members = rows[order[starts[number] : ends[number]]]
        row = PromptRow(
            prompt=names[number],
            n=len(members),
            ttft_median_ms=_median_ms(requests.ttft[members]),
            e2e_median_ms=_median_ms(requests.e2e[members]),
            e2e_worst_ms=rounded(float(requests.e2e[members].max()) / NS_PER_MS),
            output_tokens_median=_median(requests.tokens[members]),
            outliers=_outliers(requests.e2e[members]),
        )
        table.append(row)
    return sorted(table, key=lambda row: row.prompt), max(0, len(names) - MOST_PROMPTS)


def input_lengths(results: Results, requests: Requests) -> list[LengthRow]:
    """TTFT and E2E by input tokens, shortest first; empty where the server counted none.

    Up to 4 different lengths have a row each, more are put into quarters.
    """
    rows = np.flatnonzero(requests.population & ~np.isnan(results.input_tokens))
    lengths = results.input_tokens[rows]
    distinct = np.unique(lengths)
    if len(distinct) > MOST_LENGTHS:
        ascending = np.sort(lengths)
        edges = [percentile(ascending, p) for p in (0.25, 0.5, 0.75, 1.0)]
        distinct = np.unique([edge for edge in edges if edge is not None])
    quarter = np.searchsorted(distinct, lengths)
    table = []
    for number in range(len(distinct)):
        members: NDArray[np.intp] = rows[quarter == number]
        own = results.input_tokens[members]
        row = LengthRow(
            from_tokens=int(own.min()),
            to_tokens=int(own.max()),
            n=len(members),
            ttft_median_ms=_median_ms(requests.ttft[members]),
            e2e_median_ms=_median_ms(requests.e2e[members]),
            outliers=_outliers(requests.e2e[members]),
        )
        table.append(row)
    return table


def _outliers(values: Reals) -> int | None:
    values = values[~np.isnan(values)]
    return int(outliers(values).sum()) if len(values) >= FEWEST_FOR_OUTLIERS else None


def _median(values: Reals) -> float | None:
    return percentile(np.sort(values[~np.isnan(values)]), 0.5)


def _median_ms(values: Reals) -> float | None:
    median = _median(values)
    return None if median is None else rounded(median / NS_PER_MS)


def histograms(data: LevelData, *, streamed: bool = True) -> dict[str, Histogram]:
    """A level's histograms by metric, in us, over the measured requests that completed; none of what has no value.

    A level whose process died has records and no histograms, and where the package hdrhistogram is missing no .hlog can
    be read: TTFT, TPOT, E2E and gaps come from the records then. How far the client lagged is in no record.
    """
    requests = Requests.of(data.results, streamed=streamed)
    found = {name: histogram for name, histogram in data.histograms.items() if histogram.count}
    times = {"ttft": requests.ttft, "tpot": requests.tpot, "e2e": requests.e2e}
    if level_facts(data).request_rate_per_s is not None:
        times |= {"ttft": requests.ttft_from_due, "ttft_from_sent": requests.ttft}
        if "ttft_from_sent" not in found:
            found.pop("ttft", None)  # of an earlier version, whose log counts from when requests were sent
    for name, values in times.items():
        if name not in found:
            ns = values[requests.population]
            found[name] = Histogram()
            found[name].record_many(np.floor(ns[~np.isnan(ns)] / 1e3 + 0.5).astype(np.int64))
    if "itl" not in found and data.gaps_kept and streamed:
        found["itl"] = Histogram()
        found["itl"].record_many(ascending_gaps(data.results, requests.population))
    return {name: found[name] for name in HISTOGRAMS if name in found and found[name].count}
