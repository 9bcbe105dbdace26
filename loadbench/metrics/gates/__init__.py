"""The gates of METRICS.md §7: what speaks against a level's figures, how badly, and what to do about it.

Each gate is a pure function of the level and of the scenario, and returns at most one finding. "red" forbids a verdict,
"warn" is a doubt that is printed, "note" a fact that a reader should know.

checks.py  the table of them all: names, thresholds, meanings, remedies
client.py  what stands between the server's writes and the times of arrivals: this client, its workers, a proxy
server.py  whether the server was in one state, what ran, and the machine it ran on
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from loadbench import stats
from loadbench.metrics.gates import client, server
from loadbench.metrics.gates.checks import CHECKS, NAMES, finding, graded, percent, titled
from loadbench.metrics.gates.client import alike, contention
from loadbench.metrics.gates.server import noise, others
from loadbench.store.schema import ScenarioFacts
from loadbench.store.summary import NOTHING, Finding, Level

__all__ = [
    "CHECKS",
    "NAMES",
    "alike",
    "contention",
    "finding",
    "forbids",
    "in_flight",
    "noise",
    "others",
    "titled",
    "warnings",
]

FEWEST_TOKENS_SHARE = 0.95
MOST_TOKENS_PER_EVENT = 1.5
HEADLINE = {"p50": 0.5, "p95": 0.95}
LITTLE_WARN, LITTLE_RED = 0.05, 0.15


def warnings(level: Level, scenario: ScenarioFacts | None = None) -> list[Finding]:
    """All gates that speak, in the order of their codes; of a level that attempted nothing, why.

    A finding has figure, reason and remedy in one sentence.
    """
    every = (
        *(balance, window, in_flight, client.lag, contention, failures, length, tokens, unknown, network, others),
        *(server.drift, percentiles, server.saturation, client.burst, cache, client.gathered, client.held),
        *(server.paused, server.fallback, server.throttled, server.power, server.stalls, client.endpoints),
        client.workers,
    )
    gates = every if level.attempted else (balance, in_flight, client.workers)
    found = [gate(level, scenario or ScenarioFacts()) for gate in gates]
    return [warning for warning in found if warning is not None]


def forbids(findings: Iterable[Finding]) -> bool:
    """Whether one of them is red, so that there is no verdict on what they are about."""
    return any(one.severity == "red" for one in findings)


def balance(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """offered = dropped + attempted, attempted = completed + failed + cancelled: else requests were lost."""
    if level.attempted and level.offered is None:
        text = "the run died before it could say how many requests were dropped: no objective is judged; use --resume"
        return finding("warn", "offered", text)
    offered, dropped, attempted, completed, failed, cancelled = (
        int(getattr(level, name) or 0)
        for name in ("offered", "dropped", "attempted", "completed", "failed", "cancelled")
    )
    if offered == dropped + attempted and attempted == completed + failed + cancelled:
        return None
    return finding(
        "red",
        "offered",
        f"{offered} requests were offered but {dropped} dropped + {completed} completed + {failed} failed + "
        f"{cancelled} cancelled are recorded: records are missing, so measure this level again",
    )


def window(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """V1: the steady window is long enough, and most of the run."""
    length_s, whole_s = level.window_s, level.duration_s
    if length_s is None:
        text = "no steady window: the load was never held; use more requests than streams, or a duration"
        return finding("red", "V1", text)
    share = length_s / whole_s if whole_s else None
    longer = "use a duration of 30s or more, or more requests"
    if length_s < 5:
        return finding("red", "V1", f"the steady window is {length_s:.3g} s, under 5 s: rates are accidental; {longer}")
    if length_s < 20:
        return finding("warn", "V1", f"the steady window is {length_s:.3g} s, under 20 s: rates are rough; {longer}")
    if share is not None and share < 0.4:
        return finding(
            "warn",
            "V1",
            f"the steady window is {percent(share)} of the run, under 40 %: mostly ramp and drain; {longer}",
        )
    return None


def in_flight(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """V2: the load was what it claims to be, no backlog grows, and Little's law N = X*R holds in the window."""
    doubts = [doubt for doubt in (_reached(level), _backlog(level), _little(level)) if doubt]
    return min(doubts, key=lambda doubt: doubt.severity != "red", default=None)


def _reached(level: Level) -> Finding | None:
    wanted, mean = level.concurrency, level.in_flight_mean
    if level.is_open:
        offered, dropped = level.offered or 0, level.dropped or 0
        share = 1 - dropped / offered if offered else 1.0
        text = (
            f"{dropped} of {offered} due requests were dropped at the cap of streams: the rate was not held; "
            "raise max_streams or lower the rate"
        )
        return graded("V2", text, warn=dropped > 0, red=share < 0.8)
    if not wanted or mean is None or level.think_time_s is not None:
        return None  # of users who pause nobody knows how many should be waiting for an answer
    text = (
        f"{mean:.3g} requests were in flight on average, not {wanted}: the load was not held; "
        "use longer answers, or look for refused connections and a busy client"
    )
    return graded("V2", text, warn=mean < 0.95 * wanted, red=mean < 0.8 * wanted)


def _backlog(level: Level) -> Finding | None:
    """Open loop: fewer requests end than are due, and those that came late stay longer than the first.

    Long answers alone make the first true in a short window, not the second; Poisson arrivals and a busy but healthy
    server alone leave a difference of about sqrt(n), now and then. By simulation (M/D/1, M/M/1, lognormal service in 8
    slots, 70 to 80 % load, 30 to 1000 requests) both together are true once in 100 levels at most; of a load of 1.5
    times what the server can do 80 % are found from 100 requests on.
    """
    offered, window_s, ended_per_s = level.offered, level.window_s, level.ended_per_s
    if not offered or not window_s or ended_per_s is None or (level.residence_growth or 0) <= 2:
        return None
    due = offered - 1  # the window ends as the last one is due
    ended = ended_per_s * window_s
    if not due or due - ended <= 2 * math.sqrt(due):
        return None
    completed_per_s = level.requests_per_s or 0.0
    text = (
        f"the server completes {completed_per_s:.3g}/s of the {due / window_s:.3g}/s that are due: the backlog grows; "
        "times say how long the level ran, not what the server does; lower the rate"
    )
    return graded("V2", text, warn=ended < 0.95 * due, red=ended < 0.8 * due)


def _little(level: Level) -> Finding | None:
    mean, x_per_s = level.in_flight_mean, level.ended_per_s
    residence_ms, window_s = level.residence_ms, level.window_s
    if not mean or not x_per_s or not residence_ms or not window_s:
        return None
    predicted = x_per_s * residence_ms / 1000
    off = abs(predicted - mean) / mean
    # Streams that run in step end together, and a round more or less in the window says nothing about the law: as many
    # requests as are in flight, which is this share of all.
    round_share = residence_ms / 1000 / window_s
    text = (
        f"requests per second times time in flight gives {predicted:.3g} in flight, {percent(off)} off the {mean:.3g} "
        "counted (Little's law): the window is not steady; measure longer"
    )
    return graded("V2", text, warn=off > LITTLE_WARN + round_share, red=off > LITTLE_RED + round_share)


def failures(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """V4: requests failed; the percentiles know only those that did not."""
    failed, attempted = level.failed or 0, level.attempted or 0
    if not failed or not attempted:
        return None
    kinds = ", ".join(f"{kind} {n}" for kind, n in sorted((level.errors or {}).items()))
    text = (
        f"{failed} of {attempted} requests failed ({kinds}): times are of the others alone; "
        "read error_message in requests.jsonl"
    )
    return graded("V4", text, warn=True, red=failed / attempted > 0.01)


def length(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """V5: where the output length was forced, the server kept to it. Judged by the server's own count only."""
    forced = (scenario.extra_body or {}).get("ignore_eos") is True
    wanted = scenario.max_tokens
    mean = (level.output_tokens or NOTHING).mean
    if not forced or not wanted or mean is None or level.token_source != "usage":
        return None
    text = (
        f"answers have {mean:.4g} tokens on average, not the forced {wanted}: the server stops early; "
        "check that it knows ignore_eos and that the context is large enough"
    )
    return graded("V5", text, warn=mean < FEWEST_TOKENS_SHARE * wanted)


def tokens(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """V6: tokens are the server's own count, and it counts what it sends."""
    match level.token_source:
        case "events":
            return finding(
                "warn",
                "V6",
                "tokens are estimated, one per event, since the server sent no usage: "
                "compare characters per second instead",
            )
        case "mixed":
            return finding(
                "red",
                "V6",
                "tokens are the server's count for some requests and events for others: "
                "tokens per second mix two units; compare characters per second instead",
            )
    under = level.undercounted or 0
    if under:
        return finding(
            "warn",
            "V6",
            f"the server counts fewer tokens than it sent events with text in {under} of {level.completed} "
            "requests, which cannot be: its usage leaves some out, as reasoning; TPOT and tokens per second are wrong: "
            "compare characters per second instead",
        )
    per_event = level.tokens_per_event or 0.0
    text = (
        f"the server counts {per_event:.3g} tokens per text event: events carry several, or reasoning that is not sent "
        "is counted: TPOT and tokens per second mean that count; compare characters per second instead"
    )
    return graded("V6", text, warn=per_event > MOST_TOKENS_PER_EVENT)


def unknown(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """What the server sends that the client's tables do not know: it enters no figure."""
    found = level.unknown or {}
    if not found:
        return None
    named = ", ".join(f"{what} ({n} of {level.attempted} requests)" for what, n in found.items())
    text = (
        f"the server sends what loadbench does not know: {named}; text in unknown fields is not counted: "
        "docs/dialects.md has what is known; please report it"
    )
    return finding("note", "dialect", text)


def network(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """V7: the round trip, seen when connections were opened, is a small part of TTFT."""
    trip_ms, ttft_ms = level.round_trip_ms, (level.ttft_ms or NOTHING).p50
    if trip_ms is None or not ttft_ms:
        return None
    share = trip_ms / ttft_ms
    text = (
        f"the network round trip of {trip_ms:.3g} ms is {percent(share)} of TTFT p50: "
        "the network is measured with the server; run the client nearer to it"
    )
    return graded("V7", text, warn=share > 0.3)


def percentiles(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """V12: the headline percentiles rest on enough requests; of the others what is missing is marked."""
    name, found = "TTFT", (level.ttft_from_due_ms if level.is_open else level.ttft_ms) or NOTHING
    if level.streamed is False:
        name, found = "E2E", level.e2e_ms or NOTHING
    n, ends = found.n or 0, found.ci95
    few = [f"{stat} needs >= {stats.needed(p)}" for stat, p in HEADLINE.items() if n < stats.needed(p)]
    if n and few:
        text = f"too few requests for {name}'s intervals: {', '.join(few)}, have {n}; use more requests"
        return finding("warn", "V12", text)
    alike = [statistic for statistic in HEADLINE if n and statistic in ends and None in (ends[statistic] or [None])]
    if not alike or server.is_saturated(level, name.lower()):
        return None  # near-saturation says it
    text = (
        f"{n} requests that clearly resemble their neighbours say too little for an interval of {name}'s "
        f"{' and '.join(alike)}; use more requests"
    )
    return finding("warn", "V12", text)


def cache(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """V14: a prompt cache answered, against the intention (distinct prompts) or as a fact to know (fixed ones)."""
    share = level.cached_share
    if share is None or share <= 0.05:
        return None
    if scenario.distinct_prompts:
        return finding(
            "warn",
            "V14",
            f"{percent(share)} of input tokens came from the server's cache although prompts were distinct: "
            "TTFT is too good; switch the server's prompt cache off",
        )
    text = f"a prompt cache answered {percent(share)} of input tokens: TTFT is that of warm prompts"
    return finding("note", "V14", f"{text}; distinct_prompts measures cold ones")
