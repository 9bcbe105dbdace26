"""The gates on what stands between the server's writes and the times of arrivals: this client, a proxy, the network.

The kernel stamps what arrives, so a client that reads late is no fault by itself. It becomes one where arrivals wait so
long that the next one joins them: then all carry the newest time. What was merged beyond that, the server wrote so, or
a proxy gathered it, and its times are as exact as any.
"""

from __future__ import annotations

from loadbench.metrics.gates.doubt import Doubt, Level, Scenario, graded, percent, said

MERGED_WARN, MERGED_RED = 0.01, 0.1
"""Of all arrivals, merged by this client: below the first a p99 hardly moves, below the second a median."""
BUSY_CORE = 0.8
WAIT_WARN, WAIT_RED = 0.05, 0.1
"""Of the level's time. Gaps are off by no more than that on average, first tokens perhaps by more."""
GATHERED, FIRST_TOGETHER = 1.1, 0.25
"""Events per arrival, and requests whose first arrival had several: up to there a wait for a core moves no median."""
HELD = 0.5
UNBUFFERED = (
    "switch buffering off (nginx: proxy_buffering off, or the header X-Accel-Buffering: no; HAProxy: option "
    "http-no-delay; no gzip of event streams)"
)


def lag(level: Level, scenario: Scenario) -> Doubt | None:
    """V3: the client did not merge arrivals by reading late, and has a core to spare."""
    cpu, merged = level.get("client_cpu_share"), _merged_by_client(level)
    busy = cpu is not None and cpu > BUSY_CORE
    texts = []
    if merged > MERGED_WARN:
        lag_ms = (level.get("client_lag_ms") or {}).get("p99")
        late = f" (lag p99 {lag_ms:.3g} ms)" if lag_ms is not None else ""
        texts.append(
            f"this client read so late{late} that up to {percent(merged)} of arrivals are several merged into one"
        )
    if busy:
        texts.append(f"the client used {percent(cpu or 0.0)} of a core")
    remedy = "use fewer streams or a faster client"
    if (level.get("client_wait_share") or 0.0) > WAIT_WARN:
        remedy = "it waited for a core, see cpu-contention"
    text = f"{'; '.join(texts)}: gaps and first tokens may be the client's own; {remedy}"
    return graded("V3", text, warn=busy or merged > MERGED_WARN, red=merged > MERGED_RED)


def contention(level: Level, scenario: Scenario) -> Doubt | None:
    """This client had a core when it needed one."""
    waited = level.get("client_wait_share") or 0.0
    apart = (level.get("events_per_arrival") or 1.0) <= GATHERED
    first_apart = (level.get("first_together_share") or 0.0) <= FIRST_TOGETHER
    kept = level.get("clock") != "user" and apart and first_apart
    told = "what arrived meanwhile carries the time of the newest, so first tokens and gaps may be the client's own"
    if kept:
        told = "few arrivals were merged by it, so medians hold; the highest percentiles may be the client's own"
    text = (
        f"this client waited for a core {percent(waited)} of the time: {told}; give it a core of its own (taskset, "
        "chrt), the server fewer threads, or run it on another machine"
    )
    return graded("cpu-contention", text, warn=waited > WAIT_WARN, red=waited > WAIT_RED and not kept)


def gathered(level: Level, scenario: Scenario) -> Doubt | None:
    """Each event arrived by itself; where not, and not by the client's fault, the server or a proxy sent several."""
    per_arrival = level.get("events_per_arrival")
    if per_arrival is None or per_arrival <= GATHERED or _is_burst(level):
        return None
    by_client = max(_merged_by_client(level), level.get("client_wait_share") or 0.0)
    if by_client >= (1 - 1 / per_arrival) / 2:
        return None  # V3 or cpu-contention says it
    gap_ms = (level.get("itl_ms") or {}).get("p50")
    often = f", an arrival each {gap_ms:.3g} ms (median)" if gap_ms else ""
    unknown = level.get("client_wait_share") is None and level.get("late_share") is None
    whom = "the server, a proxy between" if unknown else "the server or a proxy between"
    also = ", or this client by waiting for a core, which nobody counts here," if unknown else ""
    text = (
        f"text came {per_arrival:.3g} events at once{often}: {whom}{also} sends several tokens at once (buffering), "
        f"and ITL is the time between such arrivals; {UNBUFFERED}, or measure without the proxy"
    )
    return said("warn", "gathered-events", text)


def burst(level: Level, scenario: Scenario) -> Doubt | None:
    """V13: answers came at once, so that gaps between tokens do not exist; TPOT and ITL are not given."""
    waited = level.get("client_wait_share") or 0.0
    look = f"look for a proxy that buffers, and {UNBUFFERED}, or for a server that does not stream"
    if waited > WAIT_WARN:
        look = f"this client waited for a core {percent(waited)} of the time, which alone can do that"
    text = (
        f"{percent(level.get('burst_share') or 0)} of answers came in one burst: TPOT and ITL have no meaning and are "
        f"not given; {look}"
    )
    return graded("V13", text, red=_is_burst(level))


def held(level: Level, scenario: Scenario) -> Doubt | None:
    """Foundry Local 2.x sent its first token when it had it, not when the response's header was acknowledged."""
    share = level.get("held_share") or 0.0
    if level.get("server_kind") != "foundry2" or share <= HELD:
        return None
    return said(
        "note",
        "first-token-hold",
        f"{percent(share)} of first tokens came about 40 ms after the response's header: Foundry Local 2.x holds them "
        "until the client's system acknowledges the header, for every client; TTFT does not fall below that hold, so "
        "compare small models by TPOT too",
    )


def _merged_by_client(level: Level) -> float:
    """At most this share of arrivals was merged by the client's own lateness; 0 where nothing says so.

    Half of what a late client merges is read later than half a gap. One without time to spare is behind by itself.
    """
    if _is_burst(level):
        return 0.0  # answers that come in one burst are nobody's merger
    late: float = level.get("late_share") or 0.0
    # Reads that hold several events are seen in the one figure, several HTTP chunks of one time in the other.
    merged: float = max(level.get("merged_share") or 0.0, 1 - 1 / (level.get("events_per_arrival") or 1.0))
    if (level.get("client_cpu_share") or 0.0) > BUSY_CORE:
        return merged
    return min(merged, 2 * late)


def _is_burst(level: Level) -> bool:
    return (level.get("burst_share") or 0) > 0.5
