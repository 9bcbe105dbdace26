"""One level's part of summary.json: all figures of its requests, its breakdown by prompt, length and endpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from loadbench import stats
from loadbench.metrics import request, stability, window
from loadbench.metrics.distribution import (
    NS_PER_MS,
    US_PER_MS,
    ascending_gaps,
    distribution,
    gap_sizes,
    of_facts,
    of_gaps,
    of_histogram,
    rounded,
    significant,
    spectrum,
    spectrum_of_histogram,
    spectrum_of_values,
    without_intervals,
)
from loadbench.metrics.request import BURST, Requests
from loadbench.metrics.slo import STREAMED, WHOLE, Objectives
from loadbench.metrics.window import RATES, Window
from loadbench.scenario.bounds import Bound
from loadbench.store import LevelData
from loadbench.store.files import HISTOGRAMS
from loadbench.store.histogram import Histogram
from loadbench.store.record import Flags, Reals, Results
from loadbench.store.schema import EndpointFacts, LevelFacts
from loadbench.store.summary import Distribution, Endpoint, Interval, LengthRow, Level, PromptRow, Spectrum

ABOUT_ONE = 0.1
"""Tokens per arrival within 1 ± this are called one: an end-of-text token is counted but not sent."""
MOST_UNKNOWN = 8
"""Things that no table of the client knows, named for a level."""
MOST_PROMPTS = 200
"""Rows of a level's table; distinct prompts would make it as long as the requests. Those with the worst E2E stay."""
FEWEST_FOR_OUTLIERS = 5
MOST_LENGTHS = 4


def level_facts(data: LevelData) -> LevelFacts:
    """The level's entry in run.json."""
    return msgspec.convert(data.facts, LevelFacts)


def summary(
    data: LevelData,
    bounds: Sequence[Bound],
    *,
    streamed: bool = True,
    stall_threshold: float = stability.STALL_THRESHOLD,
) -> Level:
    """All figures of one level's requests but those that need other levels or the gates.

    Args:
        data: The level's entry of run.json and its requests, warm-up ones too. `histograms["itl"]` stands in where
            the gaps were not kept request by request.
        bounds: The scenario's SLO.
        streamed: Whether streams were asked for; whole answers have no first token and no gaps.
        stall_threshold: From how many median gaps on a gap is a stall.
    """
    facts, results = level_facts(data), data.results
    requests = Requests.of(results, streamed=streamed)
    steady = window.steady(facts, results)
    burst_share = request.burst_share(requests, results)
    burst = burst_share is not None and burst_share > BURST
    without_gaps = burst or not streamed
    level = _named(facts)
    level.streamed = streamed
    level.burst_share = rounded(burst_share, 6)
    level.dependence = stability.dependence(requests, opened=level.is_open, without_gaps=without_gaps)
    strong = {name for name, row in level.dependence.items() if row.strong}
    _add_counts(level, results, requests)
    _add_times(level, data, facts, requests, strong, without_gaps=without_gaps)
    level.with_failures_ms = _with_failures(level, data, requests, strong, without_gaps=without_gaps)
    _add_gaps(level, data, requests, stall_threshold, without_gaps=without_gaps)
    _add_tokens(level, results, requests, _arrivals(data, requests))
    _add_flow(level, facts, steady, results, requests)
    if not facts.shape:
        level.drift = stability.drift(steady, results, requests, tpot=not without_gaps)
    _add_client(level, data, facts, requests, without_gaps=without_gaps)
    undecided: Sequence[str] = () if data.gaps_kept else ("itl",)
    if not streamed:
        undecided = WHOLE
    elif burst:
        undecided = STREAMED
    _add_objectives(level, bounds, undecided, steady, results, requests)
    level.prompts, level.prompts_left_out = prompts(results, requests)
    level.input_lengths = input_lengths(results, requests)
    return level


def _named(facts: LevelFacts) -> Level:
    return Level(
        id=facts.id,
        model=facts.model,
        alias=facts.alias,
        endpoint=facts.endpoint,
        repeat=facts.repeat,
        attempt=facts.attempt,
        began=facts.began,
        device=facts.device,
        execution_provider=facts.execution_provider,
        asked_device=facts.asked_device,
        concurrency=facts.concurrency,
        request_rate_per_s=facts.request_rate_per_s,
        shape=facts.shape,
        think_time_s=facts.think_time_s,
        closing=facts.closing,
        status=facts.status,
        reason=facts.reason,
        aborted=facts.aborted,
        requests_planned=facts.requests_planned,
        offered=facts.offered,
        dropped=facts.dropped,
        duration_s=facts.duration_s,
        workers=facts.workers,
        round_trip_ms=facts.round_trip_ms,
        client_pause_s=facts.client_pause_s,
        client_pause_at_s=facts.client_pause_at_s,
        client_wait_share=rounded(facts.client_wait_share, 6),
    )


def _add_counts(level: Level, results: Results, requests: Requests) -> None:
    """offered = dropped + attempted, attempted = completed + failed + cancelled; of the measured requests.

    An open loop whose process died has told nobody how many requests it dropped: offered and dropped are None.
    """
    measured = np.flatnonzero(requests.measured)
    errors = Counter(error for row in measured if (error := results.error[row]) is not None)
    level.cancelled = errors.pop("cancelled", 0)
    level.attempted, level.failed = len(measured), sum(errors.values())
    if not level.is_open:
        level.dropped = level.dropped or 0
        level.offered = level.dropped + level.attempted if level.offered is None else level.offered
    completed_rows = np.flatnonzero(requests.population)
    again = requests.measured & ~np.isnan(results.retry_of)
    reasons = Counter(results.finish_reason[row] or "none" for row in completed_rows)
    unknown = Counter(what for row in measured for what in (results.unknown[row] or "").split("; ") if what)
    level.completed = len(completed_rows)
    level.errors = dict(sorted(errors.items()))
    level.finish_reasons = dict(sorted(reasons.items()))
    level.unknown = dict(unknown.most_common(MOST_UNKNOWN))
    level.retries = int(results.retries[requests.measured].sum())
    level.retried = int(again.sum())
    level.recovered = int((again & requests.completed).sum())
    level.warmup_requests = int(results.warmup.sum())
    level.failure_share = rounded(level.failed / level.attempted, 6) if level.attempted else None
    ended_badly = ~(requests.completed | requests.cancelled)
    shares = {"failed": stats.share_interval(ended_badly[requests.measured])}
    if level.offered is not None:
        shares["success"] = stats.share_interval(requests.completed[requests.measured], level.offered)
    level.share_ci95 = {name: _interval(ends, 6) for name, ends in shares.items()}


def _interval(ends: Sequence[float] | None, digits: int = 3) -> Interval | None:
    return [rounded(end, digits) for end in ends] if ends else None


def _with_failures(
    level: Level, data: LevelData, requests: Requests, strong: Set[str], *, without_gaps: bool
) -> Mapping[str, Distribution | None] | None:
    """Times in ms of all requests that were due, those that failed or were dropped taken as without end.

    What a threshold or a requirement is held against: the requests that completed say nothing of those that did not.
    A request that we cancelled is left out. A percentile without end is None. Its intervals end there too.

    Returns:
        "ttft", "tpot", "e2e", "client_queue", "itl"; None where the metric has no meaning; None where every request
        completed, so that the other figures say the same.
    """
    dropped = level.dropped or 0
    missing = (level.failed or 0) + dropped
    if not missing:
        return None
    found: dict[str, Distribution | None] = dict.fromkeys(("ttft", "tpot", "e2e", "client_queue", "itl"))
    for name, values in request.due_times(requests, dropped, level.is_open).items():
        if not (name == "tpot" and without_gaps):
            found[name] = distribution(values, saturated=name in strong)
    if not without_gaps and data.gaps_kept:
        # A request that failed counts for as many gaps as one that completed has.
        ascending = ascending_gaps(data.results, requests.population).astype(np.float64)
        each = max(1, round(len(ascending) / max(1, level.completed or 0)))
        found["itl"] = without_intervals(np.append(ascending, np.full(missing * each, np.inf)), US_PER_MS)
    return found


def _add_times(
    level: Level, data: LevelData, facts: LevelFacts, requests: Requests, strong: Set[str], *, without_gaps: bool
) -> None:
    results = data.results
    population = requests.population

    def times(name: str, values: Reals) -> Distribution:
        return distribution(values[population], saturated=name in strong)

    level.ttft_ms = times("ttft", requests.ttft)
    level.ttft_from_due_ms = times("ttft", requests.ttft_from_due) if level.is_open else None
    level.ttfe_ms = times("ttft", requests.ttfe)
    level.e2e_ms = times("e2e", requests.e2e)
    level.client_queue_ms = distribution(requests.client_queue[population])
    # Warm connections cost nothing; what a set-up costs is asked of all that happened, in warm-up too.
    level.connect_ms = distribution(results.connect[results.connect > 0])
    # Of the histogram, which knows every percentile; where no .hlog can be read, what the level's facts say.
    lag = data.histograms.get("client_lag")
    level.client_lag_ms = of_histogram(lag) if lag else of_facts(facts.client_lag_us)
    level.tpot_k_estimated = bool(requests.k_estimated[population].any())
    if without_gaps:
        return
    level.tpot_ms = times("tpot", requests.tpot)
    micro = request.micro_tpot(requests, results)
    if micro is None:
        return
    level.tpot_micro_ms = rounded(micro / NS_PER_MS)
    if "tpot" not in strong:
        ends = request.micro_tpot_interval(requests, results)
        level.tpot_micro_ms_ci95 = [rounded(end / NS_PER_MS) for end in ends] if ends else None


def _add_gaps(level: Level, data: LevelData, requests: Requests, threshold: float, *, without_gaps: bool) -> None:
    """Inter-token latency, stalls, and the whole distributions of what users wait for."""
    of_all: Spectrum | None = None
    if not without_gaps and data.gaps_kept:
        ascending = ascending_gaps(data.results, requests.population)
        level.itl_ms = of_gaps(data.results, requests.population, ascending)
        level.stalls = stability.stalls(data.results, requests, ascending, threshold)
        of_all = spectrum(ascending, US_PER_MS)
    elif not without_gaps:
        histogram = data.histograms.get("itl", Histogram())
        level.itl_ms = of_histogram(histogram)
        level.stalls = stability.stalls_of_histogram(histogram, threshold)
        of_all = spectrum_of_histogram(histogram)
    # TTFT as the headline has it, in open loop from `due`.
    name, ttft = ("ttft_from_due_ms", requests.ttft_from_due) if level.is_open else ("ttft_ms", requests.ttft)
    level.spectra = {
        name: spectrum_of_values(ttft[requests.population]),
        "e2e_ms": spectrum_of_values(requests.e2e[requests.population]),
        "itl_ms": of_all,
    }


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
    population = requests.population
    per_event = request.tokens_per_event(requests, results)
    per_arrival = None
    events_per_arrival = int(results.text_events[population].sum()) / arrivals if arrivals else None
    if per_event is not None and events_per_arrival is not None:
        per_arrival = per_event * events_per_arrival
    single = per_arrival is not None and abs(per_arrival - 1) <= ABOUT_ONE
    level.token_source = request.token_source(requests)
    level.tokens_per_event = significant(per_event)
    level.tokens_per_arrival = significant(per_arrival)
    level.events_per_arrival = significant(events_per_arrival)
    level.undercounted = request.undercounted(requests, results)
    level.itl_name = "inter-token" if single else "inter-event"
    level.output_tokens = _with_total(requests.tokens[population])
    level.input_tokens = _with_total(results.input_tokens[population])
    level.output_tokens_spent = request.tokens_spent(requests)
    if population.any():
        level.characters = int(results.characters[population].sum())
        level.words = int(results.words[population].sum())
    both = population & ~np.isnan(results.cached_tokens) & (results.input_tokens > 0)
    if both.any():
        level.cached_share = rounded(float(results.cached_tokens[both].sum() / results.input_tokens[both].sum()), 6)


def _with_total(tokens: Reals) -> Distribution:
    known = tokens[~np.isnan(tokens)]
    return distribution(tokens, 1.0, total=int(known.sum()) if len(known) else None)


def _add_flow(level: Level, facts: LevelFacts, steady: Window | None, results: Results, requests: Requests) -> None:
    """What flowed, and both sides of Little's law in the window: N against X and R, however the requests ended."""
    rates = window.throughput(steady, results, requests)
    intervals = window.rate_intervals(steady, results, requests)
    for name in RATES:
        setattr(level, name, significant(getattr(rates, name)))
        setattr(level, f"{name}_ci95", intervals[name])
    whole = window.whole_run(facts, results, requests)
    level.whole_run = msgspec.structs.replace(
        whole, **{name: significant(getattr(whole, name)) for name in (*RATES, "duration_s")}
    )
    level.timeline = window.timeline(facts, results, requests)
    level.residence_growth = significant(window.residence_growth(requests)) if level.is_open else None
    if steady is None:
        return
    level.window_s = significant(steady.length_s)
    if steady.length_ns < window.SHORTEST_NS:
        return
    level.in_flight_mean = significant(window.in_flight_mean(steady, results))
    level.ended_per_s = significant(window.ended_per_s(steady, results))
    stayed = window.residence_ns(steady, results, requests)
    level.residence_ms = significant(stayed / NS_PER_MS) if stayed is not None else None


def _add_objectives(
    level: Level,
    bounds: Sequence[Bound],
    undecided: Sequence[str],
    steady: Window | None,
    results: Results,
    requests: Requests,
) -> None:
    objectives = Objectives(bounds, results, requests, level.offered, level.is_open, undecided)
    good, goodput = objectives.good(), objectives.goodput_per_s(steady)
    level.goodput_per_s = significant(goodput)
    if good is not None:
        level.goodput_per_s_ci95 = window.goodput_interval(goodput, good, steady, results, requests)
    figures = {
        "failed": (level.failed or 0) / level.attempted if level.attempted else None,
        "output_tokens_per_s": window.throughput(steady, results, requests).output_tokens_per_s,
        "goodput": goodput,
    }
    level.slo = objectives.rows(figures)


def _add_client(level: Level, data: LevelData, facts: LevelFacts, requests: Requests, *, without_gaps: bool) -> None:
    """What this client, or what is between it and the server, did to the times."""
    results = data.results
    level.first_together_share = rounded(request.first_together_share(requests, results), 6)
    level.held_share = rounded(request.held_share(requests, results), 6)
    level.late_share = _late_share(data, facts, requests, arrived_together=without_gaps)
    level.merged_share = rounded(_merged_share(results, requests.population), 6)
    shares = [worker.cpu_share for worker in facts.workers or () if worker.cpu_share is not None]
    if shares:
        level.client_cpu_share = rounded(max(shares), 6)  # of several workers, the busiest
    elif facts.client_cpu_s is not None and facts.duration_s:
        level.client_cpu_share = rounded(facts.client_cpu_s / facts.duration_s, 6)


def _late_share(data: LevelData, facts: LevelFacts, requests: Requests, *, arrived_together: bool) -> float | None:
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
    known = facts.client_lag_us
    if known is None or not known.n:
        return None
    tails = ((known.max, 0.0), (known.p999, 0.001), (known.p99, 0.01), (known.p50, 0.5))
    return min((tail for lag_us, tail in tails if lag_us is not None and lag_us <= limit_us), default=1.0)


def _merged_share(results: Results, population: Flags) -> float | None:
    """Arrivals with text of several HTTP chunks, of all text arrivals; None where the gaps were not kept."""
    sizes = gap_sizes(results)
    kept = population & ((sizes > 0) | (results.last_token == results.first_token))
    arrivals = int((sizes[kept] + 1).sum())
    return float(results.merged_arrivals[kept].sum()) / arrivals if arrivals else None


# -- breakdowns: outliers are flagged, never dropped


def prompts(results: Results, requests: Requests) -> tuple[list[PromptRow], int]:
    """One row a prompt, by id, over the population; and how many prompts were left out (beyond MOST_PROMPTS).

    `outliers` counts the requests whose E2E is far from that of the same prompt (modified z by MAD); None below 5.
    """
    rows = np.flatnonzero(requests.population)
    codes: dict[str, int] = {}
    group = np.fromiter((codes.setdefault(results.prompt[row], len(codes)) for row in rows), np.int64, len(rows))
    names = list(codes)
    table = [
        PromptRow(
            prompt=names[number],
            n=len(members),
            ttft_median_ms=_median_ms(requests.ttft[members]),
            e2e_median_ms=_median_ms(requests.e2e[members]),
            e2e_worst_ms=rounded(float(requests.e2e[members].max()) / NS_PER_MS),
            output_tokens_median=_median(requests.tokens[members]),
            outliers=_outliers(requests.e2e[members]),
        )
        for number, members in _worst_groups(rows, group, len(names), requests.e2e)
    ]
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
        edges = [stats.percentile(ascending, p) for p in (0.25, 0.5, 0.75, 1.0)]
        distinct = np.unique([edge for edge in edges if edge is not None])
    quarter = np.searchsorted(distinct, lengths)
    return [_length_row(lengths[quarter == q], rows[quarter == q], requests) for q in range(len(distinct))]


def _length_row(lengths: Reals, members: NDArray[np.intp], requests: Requests) -> LengthRow:
    return LengthRow(
        from_tokens=int(lengths.min()),
        to_tokens=int(lengths.max()),
        n=len(members),
        ttft_median_ms=_median_ms(requests.ttft[members]),
        e2e_median_ms=_median_ms(requests.e2e[members]),
        outliers=_outliers(requests.e2e[members]),
    )


def _worst_groups(
    rows: NDArray[np.intp], group: NDArray[np.int64], groups: int, e2e: Reals
) -> Sequence[tuple[int, NDArray[np.intp]]]:
    """Number and rows of the groups with the longest E2E."""
    worst = np.zeros(groups)
    np.maximum.at(worst, group, np.nan_to_num(e2e[rows]))
    chosen = np.argsort(-worst, kind="stable")[:MOST_PROMPTS]
    order = np.argsort(group, kind="stable")
    ends = np.cumsum(np.bincount(group, minlength=groups))
    starts = np.concatenate(([0], ends[:-1]))
    return [(int(number), rows[order[starts[number] : ends[number]]]) for number in chosen]


def _outliers(values: Reals) -> int | None:
    values = values[~np.isnan(values)]
    return int(stats.outliers(values).sum()) if len(values) >= FEWEST_FOR_OUTLIERS else None


def _median(values: Reals) -> float | None:
    return stats.percentile(np.sort(values[~np.isnan(values)]), 0.5)


def _median_ms(values: Reals) -> float | None:
    median = _median(values)
    return None if median is None else rounded(median / NS_PER_MS)


def endpoints(
    data: LevelData, several: Sequence[EndpointFacts] | None, *, streamed: bool = True
) -> list[Endpoint] | None:
    """What went to each endpoint of a service that has several: the level's figures of its requests alone; None of one.

    The steady window is that of the level, so that rates add up to its own.

    Args:
        several: As run.json has them.
    """
    if not several:
        return None
    measured = int((~data.results.warmup).sum())
    rows = []
    for place, one in enumerate(several):
        # Gaps that were kept in a histogram alone are those of all.
        own = replace(data, results=data.results.where(data.results.endpoint == place), histograms={})
        level = summary(own, (), streamed=streamed)
        row = {name: getattr(level, name, None) for name in Endpoint.__struct_fields__}
        share = (level.attempted or 0) / measured if measured else None
        row |= {"url": one.url, "weight": one.weight, "share": rounded(share, 6)}
        rows.append(Endpoint(**row))
    return rows


def histograms(data: LevelData, *, streamed: bool = True) -> dict[str, Histogram]:
    """A level's histograms by metric, in us, over the measured requests that completed; none of what has no value.

    A level whose process died has records and no histograms, and where the package hdrhistogram is missing no .hlog can
    be read: TTFT, TPOT, E2E and gaps come from the records then. How far the client lagged is in no record.
    """
    requests = Requests.of(data.results, streamed=streamed)
    chosen = requests.population
    found = {name: histogram for name, histogram in data.histograms.items() if histogram.count}
    times = {"ttft": requests.ttft, "tpot": requests.tpot, "e2e": requests.e2e}
    if level_facts(data).request_rate_per_s is not None:
        times |= {"ttft": requests.ttft_from_due, "ttft_from_sent": requests.ttft}
        if "ttft_from_sent" not in found:
            found.pop("ttft", None)  # of an earlier version, whose log counts from when requests were sent
    for name, values in times.items():
        if name not in found:
            found[name] = _histogram_of(values[chosen])
    if "itl" not in found and data.gaps_kept and streamed:
        found["itl"] = Histogram()
        found["itl"].record_many(ascending_gaps(data.results, chosen))
    return {name: found[name] for name in HISTOGRAMS if name in found and found[name].count}


def _histogram_of(ns: Reals) -> Histogram:
    histogram = Histogram()
    known = ns[~np.isnan(ns)]
    histogram.record_many(np.floor(known / 1e3 + 0.5).astype(np.int64))
    return histogram
