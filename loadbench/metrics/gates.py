"""The checks (docs/checks.md): what speaks against a level's figures, how badly, and what to do about it.

Each gate is a pure function of the level and of the scenario, and returns at most one finding: figure, reason and
remedy in one sentence. "red" forbids a verdict, "warn" is a doubt that is printed, "note" a fact that a reader should
know. docs/checks.md has their meanings and remedies.

The kernel stamps what arrives, so a client that reads late is no fault by itself. It becomes one where arrivals wait so
long that the next one joins them: then all carry the newest time. What was merged beyond that, the server wrote so, or
a proxy gathered it, and its times are as exact as any.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from msgspec import UNSET

from loadbench.figures import in_words
from loadbench.metrics import sharing
from loadbench.metrics.checks import finding, graded, percent
from loadbench.metrics.models import first_device
from loadbench.metrics.request import BURST
from loadbench.metrics.sharing import BUSY_CORE, MERGED_WARN, WAIT_WARN
from loadbench.stats import needed
from loadbench.store.schema import ScenarioFacts
from loadbench.store.summary import NOTHING, Band, Finding, Level, Ran, Stalls

FEWEST_TOKENS_SHARE = 0.95
MOST_TOKENS_PER_EVENT = 1.5
HEADLINE = {"p50": 0.5, "p95": 0.95}
LITTLE_WARN, LITTLE_RED = 0.05, 0.15
# A drift below the first changes no decision, however sure it is; one beyond the second forbids a verdict.
LEAST_DRIFT, RED_DRIFT = 0.02, 0.2
NOISE_WARN, NOISE_RED = 0.05, 0.15
# Of all arrivals, merged by this client: below MERGED_WARN a p99 hardly moves, below this a median.
MERGED_RED = 0.1
WAIT_RED = 0.1
# Events per arrival, and requests whose first arrival had several: up to there a wait for a core moves no median.
GATHERED, FIRST_TOGETHER = 1.1, 0.25
HELD = 0.5
# A pause this long is seen by eye; one beyond this share of the window makes every rate wrong by as much.
PAUSE_S, MOST_PAUSE_SHARE = 0.25, 0.1
UNBUFFERED = (
    "switch buffering off (nginx: proxy_buffering off, or the header X-Accel-Buffering: no; HAProxy: option "
    "http-no-delay; no gzip of event streams)"
)
_ALSO = {"directml": "dml", "trtrtx": "nvtensorrtrtx", "tensorrtrtx": "nvtensorrtrtx", "vitis": "vitisai"}


def warnings(level: Level, scenario: ScenarioFacts | None = None) -> list[Finding]:
    """All gates that speak, in the order of their codes; of a level that attempted nothing, why."""
    every = (
        *(balance, window, in_flight, lag, starved, failures, length, tokens, unknown, network, others, drift),
        *(percentiles, saturation, burst, cache, gathered, held, paused, fallback, throttled, power, stalls),
        *(sharing.endpoints, sharing.workers),
    )
    gates = every if level.attempted else (balance, in_flight, sharing.workers)
    found = [gate(level, scenario or ScenarioFacts()) for gate in gates]
    return [warning for warning in found if warning is not None]


# -- the load


def balance(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """offered = dropped + attempted, attempted = completed + failed + cancelled: else requests were lost."""
    if level.attempted and level.offered is None:
        text = "the run died before it could say how many requests were dropped: no objective is judged; use --resume"
        return finding("warn", "offered", text)
    offered, dropped, attempted = level.offered or 0, level.dropped or 0, level.attempted or 0
    completed, failed, cancelled = level.completed or 0, level.failed or 0, level.cancelled or 0
    if offered == dropped + attempted and attempted == completed + failed + cancelled:
        return None
    text = (
        f"{offered} requests were offered but {dropped} dropped + {completed} completed + {failed} failed + "
        f"{cancelled} cancelled are recorded: records are missing, so measure this level again"
    )
    return finding("red", "offered", text)


def window(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """V1: the steady window is long enough, and most of the run."""
    length_s, whole_s = level.window_s, level.duration_s
    if length_s is None:
        text = "no steady window: the load was never held; use more requests than streams, or a duration"
        return finding("red", "V1", text)
    is_long = f"the steady window is {length_s:.3g} s"
    longer = "measure longer (30s and the time of an answer, at least), or more requests"
    if length_s < 5:
        return finding("red", "V1", f"{is_long}, under 5 s: rates are accidental; {longer}")
    if length_s < 20:
        return finding("warn", "V1", f"{is_long}, under 20 s: rates are rough; {longer}")
    if whole_s and length_s / whole_s < 0.4:
        share = percent(length_s / whole_s)
        text = f"the steady window is {share} of the run, under 40 %: mostly ramp and drain; {longer}"
        return finding("warn", "V1", text)
    return None


def in_flight(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """V2: the load was what it claims to be, no backlog grows, and Little's law N = X*R holds in the window."""
    doubts = [doubt for doubt in (_reached(level), _backlog(level), _little(level)) if doubt]
    return min(doubts, key=lambda doubt: doubt.severity != "red", default=None)


def _reached(level: Level) -> Finding | None:
    if level.is_open:
        offered, dropped = level.offered or 0, level.dropped or 0
        text = (
            f"{dropped} of {offered} due requests were dropped at the cap of streams: the rate was not held; "
            "raise max_streams or lower the rate"
        )
        return graded("V2", text, warn=dropped > 0, red=offered > 0 and 1 - dropped / offered < 0.8)
    mean = level.in_flight_mean
    # Of users who pause, how many should be waiting for an answer depends on the server.
    if not level.concurrency or mean is None or level.think_time_s is not None:
        return None
    text = (
        f"{mean:.3g} requests were in flight on average, not {level.concurrency}: the load was not held; "
        "use longer answers, or look for refused connections and a busy client"
    )
    return graded("V2", text, warn=mean < 0.95 * level.concurrency, red=mean < 0.8 * level.concurrency)


def _backlog(level: Level) -> Finding | None:
    """Open loop: fewer requests end than are due, and those that came late stay longer than the first.

    Long answers alone make the first true in a short window, not the second; Poisson arrivals and a busy but healthy
    server alone leave a difference of about sqrt(n), now and then. By simulation (M/D/1, M/M/1, lognormal service in 8
    slots, 70 to 80 % load, 30 to 1000 requests) both together are true once in 100 levels at most; of a load of 1.5
    times what the server can do 80 % are found from 100 requests on.
    """
    window_s = level.window_s
    if not level.offered or not window_s or level.ended_per_s is None or (level.residence_growth or 0) <= 2:
        return None
    due = level.offered - 1  # the window ends as the last one is due
    ended = level.ended_per_s * window_s
    if not due or due - ended <= 2 * math.sqrt(due):
        return None
    text = (
        f"the server completes {level.requests_per_s or 0.0:.3g}/s of the {due / window_s:.3g}/s that are due: the "
        "backlog grows; times say how long the level ran, not what the server does; lower the rate"
    )
    return graded("V2", text, warn=ended < 0.95 * due, red=ended < 0.8 * due)


def _little(level: Level) -> Finding | None:
    mean, x_per_s, window_s = level.in_flight_mean, level.ended_per_s, level.window_s
    if not mean or not x_per_s or not level.residence_ms or not window_s:
        return None
    residence_s = level.residence_ms / 1000
    predicted = x_per_s * residence_s
    off = abs(predicted - mean) / mean
    # Streams that run in step end together, and a round more or less in the window says nothing about the law: as many
    # requests as are in flight, which is this share of all.
    round_share = residence_s / window_s
    text = (
        f"requests per second times time in flight gives {predicted:.3g} in flight, {percent(off)} off the {mean:.3g} "
        "counted (Little's law): the window is not steady; measure longer"
    )
    return graded("V2", text, warn=off > LITTLE_WARN + round_share, red=off > LITTLE_RED + round_share)


# -- the answers


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
    mean = (level.output_tokens or NOTHING).mean
    if not forced or not scenario.max_tokens or mean is None or level.token_source != "usage":
        return None
    text = (
        f"answers have {mean:.4g} tokens on average, not the forced {scenario.max_tokens}: the server stops early; "
        "check that it knows ignore_eos and that the context is large enough"
    )
    return graded("V5", text, warn=mean < FEWEST_TOKENS_SHARE * scenario.max_tokens)


def tokens(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """V6: tokens are the server's own count, and it counts what it sends."""
    instead = "compare characters per second instead"
    if level.token_source == "events":
        text = f"tokens are estimated, one per event, since the server sent no usage: {instead}"
        return finding("warn", "V6", text)
    if level.token_source == "mixed":
        text = "tokens are the server's count for some requests and events for others: tokens per second mix two units"
        return finding("red", "V6", f"{text}; {instead}")
    if level.undercounted:
        text = (
            f"the server counts fewer tokens than it sent events with text in {level.undercounted} of "
            f"{level.completed} requests, which cannot be: its usage leaves some out, as reasoning; TPOT and tokens "
            f"per second are wrong: {instead}"
        )
        return finding("warn", "V6", text)
    per_event = level.tokens_per_event or 0.0
    text = (
        f"the server counts {per_event:.3g} tokens per text event: events carry several, or reasoning that is not sent "
        f"is counted: TPOT and tokens per second mean that count; {instead}"
    )
    return graded("V6", text, warn=per_event > MOST_TOKENS_PER_EVENT)


def unknown(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """What the server sends that the client's tables do not know: it enters no figure."""
    if not level.unknown:
        return None
    named = ", ".join(f"{what} ({n} of {level.attempted} requests)" for what, n in level.unknown.items())
    text = (
        f"the server sends fields that loadbench does not know: {named}; text in unknown fields is not counted: "
        "docs/dialects.md has what is known; please report it"
    )
    return finding("note", "dialect", text)


def cache(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """V14: a prompt cache answered, against the intention (distinct prompts) or as a fact to know (fixed ones)."""
    share = level.cached_share
    if share is None or share <= 0.05:
        return None
    if scenario.distinct_prompts:
        text = (
            f"{percent(share)} of input tokens came from the server's cache although prompts were distinct: "
            "TTFT is too good; switch the server's prompt cache off"
        )
        return finding("warn", "V14", text)
    text = f"a prompt cache answered {percent(share)} of input tokens: TTFT is that of warm prompts"
    return finding("note", "V14", f"{text}; distinct_prompts measures cold ones")


def percentiles(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """V12: the headline percentiles rest on enough requests; of the others what is missing is marked."""
    name, found = "TTFT", (level.ttft_from_due_ms if level.is_open else level.ttft_ms) or NOTHING
    if level.streamed is False:
        name, found = "E2E", level.e2e_ms or NOTHING
    n = found.n or 0
    few = [f"{stat} needs >= {needed(p)}" for stat, p in HEADLINE.items() if n < needed(p)]
    if n and few:
        text = f"too few requests for {name}'s intervals: {', '.join(few)}, have {n}; use more requests"
        return finding("warn", "V12", text)
    lacking = [stat for stat in HEADLINE if n and stat in found.ci95 and None in (found.ci95[stat] or [None])]
    if not lacking or is_saturated(level, name.lower()):
        return None  # near-saturation says it
    text = (
        f"{n} requests that clearly resemble their neighbours say too little for an interval of {name}'s "
        f"{' and '.join(lacking)}; use more requests"
    )
    return finding("warn", "V12", text)


def stalls(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """Gaps so long that a reader would think the answer had ended."""
    found = level.stalls or Stalls()
    if not found.n:
        return None
    of = f" of {_plural(found.requests, 'request')}" if found.requests else ""
    threshold_ms = found.threshold_ms or 0.0
    where = ""
    if found.longest_request is not None:
        where = (
            f", in request {found.longest_request} (prompt {found.longest_prompt}) "
            f"{found.at_s or 0:.3g} s after the level began"
        )
    look = "look at what the server did then"
    if (level.client_pause_s or 0.0) * 1000 > threshold_ms:
        look = "this client stood still in that level, so look at when"
    text = (
        f"{_plural(found.n, 'gap')}{of} longer than {_span(threshold_ms)}, the longest "
        f"{_span(found.longest_ms or 0.0)}{where}: no median shows them; {look}"
    )
    return finding("note", "stalls", text)


def _span(ms: float) -> str:
    return f"{ms / 1000:.3g} s" if ms >= 1000 else f"{ms:.4g} ms"


def _plural(n: int | None, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


# -- what stands between the server's writes and the times of arrivals: the network, this client, a proxy


def network(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """V7: the round trip, seen when connections were opened, is a small part of TTFT."""
    trip_ms, ttft_ms = level.round_trip_ms, (level.ttft_ms or NOTHING).p50
    if trip_ms is None or not ttft_ms:
        return None
    text = (
        f"the network round trip of {trip_ms:.3g} ms is {percent(trip_ms / ttft_ms)} of TTFT p50: "
        "the network is measured with the server; run the client nearer to it"
    )
    return graded("V7", text, warn=trip_ms / ttft_ms > 0.3)


def lag(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """V3: the client did not merge arrivals by reading late, and has a core to spare."""
    cpu, merged = level.client_cpu_share or 0.0, _merged_by_client(level)
    texts = []
    if merged > MERGED_WARN:
        lag_ms = (level.client_lag_ms or NOTHING).p99
        late = f" (lag p99 {lag_ms:.3g} ms)" if lag_ms is not None else ""
        texts.append(
            f"this client read so late{late} that up to {percent(merged)} of arrivals are several merged into one"
        )
    if _is_behind(level):
        texts.append(f"the client used {percent(cpu)} of a core")
    remedy = "use fewer streams or a faster client"
    if (level.client_wait_share or 0.0) > WAIT_WARN:
        remedy = "it waited for a core, see client-starved"
    text = f"{'; '.join(texts)}: gaps and first tokens may be the client's own; {remedy}"
    return graded("V3", text, warn=bool(texts), red=merged > MERGED_RED)


def starved(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """This client had a core when it needed one."""
    waited = level.client_wait_share or 0.0
    apart = (level.events_per_arrival or 1.0) <= GATHERED
    first_apart = (level.first_together_share or 0.0) <= FIRST_TOGETHER
    medians_hold = level.clock != "user" and apart and first_apart
    effect = "what arrived meanwhile carries the time of the newest, so first tokens and gaps may be the client's own"
    if medians_hold:
        effect = "few arrivals were merged by it, so medians hold; the highest percentiles may be the client's own"
    text = (
        f"this client waited for a core {percent(waited)} of the time: {effect}; give it a core of its own (taskset, "
        "chrt), the server fewer threads, or run it on another machine"
    )
    return graded("client-starved", text, warn=waited > WAIT_WARN, red=waited > WAIT_RED and not medians_hold)


def gathered(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """Each event arrived by itself; where not, and not by the client's fault, the server or a proxy sent several."""
    per_arrival = level.events_per_arrival
    if per_arrival is None or per_arrival <= GATHERED or _is_burst(level):
        return None
    by_client = max(_merged_by_client(level), level.client_wait_share or 0.0)
    if by_client >= (1 - 1 / per_arrival) / 2:
        return None  # V3 or client-starved says it
    gap_ms = (level.itl_ms or NOTHING).p50
    often = f", an arrival each {gap_ms:.3g} ms (median)" if gap_ms else ""
    whom = "the server or a proxy between"
    if level.client_wait_share is None and level.late_share is None:
        whom = "the server, a proxy between, or this client by waiting for a core, which cannot be counted here,"
    text = (
        f"text came {per_arrival:.3g} events at once{often}: {whom} sends several tokens at once (buffering), "
        f"and ITL is the time between such arrivals; {UNBUFFERED}, or measure without the proxy"
    )
    return finding("warn", "gathered-events", text)


def burst(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """V13: answers came at once, so that gaps between tokens do not exist; TPOT and ITL are not given."""
    waited = level.client_wait_share or 0.0
    look = f"look for a proxy that buffers, and {UNBUFFERED}, or for a server that does not stream"
    if waited > WAIT_WARN:
        look = f"this client waited for a core {percent(waited)} of the time, which alone can do that"
    text = (
        f"{percent(level.burst_share or 0)} of answers came in one burst: TPOT and ITL have no meaning and are "
        f"not given; {look}"
    )
    return graded("V13", text, red=_is_burst(level))


def held(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """Foundry Local 2.x sent its first token when it had it, not when the response's header was acknowledged."""
    share = level.held_share or 0.0
    if level.server_kind != "foundry2" or share <= HELD:
        return None
    text = (
        f"{percent(share)} of first tokens came about 40 ms after the response's header: Foundry Local 2.x holds them "
        "until the client's system acknowledges the header, for every client; TTFT does not fall below that hold, so "
        "compare small models by TPOT too"
    )
    return finding("note", "first-token-hold", text)


def paused(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """This client could run all the time: while it was suspended or starved, nobody took what arrived, nor asked."""
    pause_s, window_s = level.client_pause_s, level.window_s
    if pause_s is None:
        return None
    text = (
        f"this client stood still for {pause_s:.3g} s, {level.client_pause_at_s or 0:.3g} s after the level "
        "began: times and rates of that moment are its own, not the server's; "
        "let nothing suspend it or keep it off the processor, and measure again"
    )
    long = window_s is not None and pause_s > MOST_PAUSE_SHARE * window_s
    return graded("paused", text, warn=pause_s >= PAUSE_S, red=pause_s >= PAUSE_S and long)


def _merged_by_client(level: Level) -> float:
    """At most this share of arrivals was merged by the client's own lateness; 0 where nothing says so.

    Half of what a late client merges is read later than half a gap. One without time to spare is behind by itself.
    """
    if _is_burst(level):
        return 0.0  # answers that come in one burst are nobody's merger
    # Reads that hold several events are seen in the one figure, several HTTP chunks of one time in the other.
    merged: float = max(level.merged_share or 0.0, 1 - 1 / (level.events_per_arrival or 1.0))
    if _is_behind(level):
        return merged
    return min(merged, 2 * (level.late_share or 0.0))


def _is_behind(level: Level) -> bool:
    """Whether the client had no time to spare for reading; a thread that reads needs none of it."""
    return (level.client_cpu_share or 0.0) > BUSY_CORE and level.clock != "thread"


def _is_burst(level: Level) -> bool:
    return (level.burst_share or 0) > BURST


# -- whether the server was in one state, what ran, and the machine it ran on


def drift(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """V10: the last third of the steady window does not differ from the first."""
    moved = {}
    for name, row in (level.drift or {}).items():
        if row.significant and _off(row.ratio) > LEAST_DRIFT:
            moved[name] = row.ratio
    text = (
        f"{_changes(moved)} from the first third of the steady window to the last: the server was not in one state; "
        "warm up longer, or cool the machine and end what else runs on it, and measure again"
    )
    return graded("V10", text, warn=bool(moved), red=any(_off(ratio) > RED_DRIFT for ratio in moved.values()))


def noise(bands: Iterable[Band]) -> list[Finding]:
    """V11: the first level, measured again at the end, gives the same; one doubt a model."""
    found = []
    for band in bands:
        ratios = {}
        for name in ("output_tokens_per_s", "ttft_p50", "e2e_p50"):
            ratio = getattr(band, name)
            if ratio is not None and ratio is not UNSET:
                ratios[name] = ratio
        first = str(band.level).rpartition("@")[2] or "the first level"
        text = (
            f"{band.model}: {_changes(ratios)} when {first} was measured again at the end: "
            "smaller differences between levels are noise; let the machine cool and rest, and measure again"
        )
        most = max(map(_off, ratios.values()), default=0.0)
        doubt = graded("V11", text, warn=most > NOISE_WARN, red=most > NOISE_RED)
        if doubt is not None:
            found.append(doubt)
    return found


def _off(ratio: float) -> float:
    """How far a ratio is from 1, the same in both directions: 0.8 and 1.25 are both 25 % off.

    >>> _off(0.8), _off(1.05) > 0.05
    (0.25, False)
    """
    return round(max(ratio, 1 / ratio) - 1, 9) if ratio > 0 else float("inf")


def _changes(ratios: Mapping[str, float]) -> str:
    """ "TTFT rose by 23 %, tokens/s fell by 8.1 %", the largest first."""
    changes = []
    for name, ratio in sorted(ratios.items(), key=lambda item: -_off(item[1])):
        verb = "rose" if ratio > 1 else "fell"
        changes.append(f"{in_words(name)} {verb} by {percent(abs(ratio - 1))}")
    return ", ".join(changes)


def saturation(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """Requests do not depend on each other so strongly that no interval of one run can be trusted."""
    strong = [name for name in ("ttft", "e2e", "tpot") if is_saturated(level, name)]
    if not strong:
        return None
    row = (level.dependence or {})[strong[0]]
    names = " and ".join(map(in_words, strong))
    correlation = f", correlation {row.neighbours:.2f}" if row.neighbours is not None else ""
    cause = "what changes in the server lasts as long as the level"
    if level.is_open:
        cause = "a queue near saturation remembers longer than the level lasts"
    text = (
        f"requests depend so strongly on their neighbours (by {in_words(strong[0])}{correlation}, the median is worth "
        f"{_plural(row.independent, 'independent request')}) that there is no interval of {names} to trust: "
        f"{cause}; lower the load, measure much longer, or repeat the level (--repeat)"
    )
    return finding("warn", "near-saturation", text)


def is_saturated(level: Level, metric: str) -> bool:
    """Whether the requests' times depend so strongly on each other that their intervals are withheld."""
    row = (level.dependence or {}).get(metric)
    return row is not None and row.strong


def others(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """V9: nothing but the server and this client kept the cores busy."""
    share = level.others_cpu_share
    if share is None:
        return None
    text = (
        f"other programs kept {percent(share)} of this machine's cores busy: the server did not have them; "
        "end those programs and measure again"
    )
    return graded("V9", text, warn=share > 0.1, red=share > 0.5)


def fallback(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """V15: the device and the execution provider of the request are those that ran."""
    ran = level.ran or Ran()
    model = f" (as {ran.id})" if ran.id else ""
    device, provider = level.asked_device or level.device, scenario.execution_provider
    if device and ran.device and first_device(device) != first_device(ran.device):
        text = f"{ran.device} ran{model}, not {device} as asked"
    elif provider and ran.execution_provider and short_provider(provider) != short_provider(ran.execution_provider):
        text = f"{ran.execution_provider} ran{model}, not {provider} as asked"
    else:
        return None
    remedy = "see what the server has loaded, and its driver or execution provider"
    return finding("red", "V15", f"{text}: the figures are those of another device; {remedy}")


def short_provider(name: str) -> str:
    """An execution provider's short name, so that long, short and differently cased names compare.

    >>> short_provider("WebGpuExecutionProvider"), short_provider("trtrtx")
    ('webgpu', 'nvtensorrtrtx')
    """
    short = name.strip().lower().removesuffix("executionprovider")
    return _ALSO.get(short, short)


def throttled(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """A CPU or GPU that was too hot, or at its limit of power, ran slower than it can."""
    if not level.throttled:
        return None
    text = "the CPU or GPU was throttled: a cooler machine would be faster; repeat the level, or cool the machine"
    return finding("note", "throttled", text)


def power(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """A machine on battery runs slower; one whose source changed ran at two speeds."""
    if level.power == "changed":
        text = "the machine changed between mains and battery: its speed may have changed with it; measure again"
        return finding("warn", "power", text)
    if level.power == "battery":
        return finding("note", "power", "the machine ran on battery: on mains it may be faster")
    return None
