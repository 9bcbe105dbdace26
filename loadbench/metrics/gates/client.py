"""The gates on what stands between the server's writes and the times of arrivals: this client, its workers, a proxy.

The kernel stamps what arrives, so a client that reads late is no fault by itself. It becomes one where arrivals wait so
long that the next one joins them: then all carry the newest time. What was merged beyond that, the server wrote so, or
a proxy gathered it, and its times are as exact as any. Where several workers or endpoints share a level, its figures
are those of all together, and one of them may be unlike the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from loadbench import stats
from loadbench.metrics.gates.checks import finding, graded, percent
from loadbench.metrics.request import BURST
from loadbench.store.schema import EndpointFacts, ScenarioFacts
from loadbench.store.summary import NOTHING, Distribution, Endpoint, Finding, Level, Worker, WorkerPercentiles

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


def lag(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """V3: the client did not merge arrivals by reading late, and has a core to spare."""
    cpu, merged = level.client_cpu_share, _merged_by_client(level)
    busy = cpu is not None and cpu > BUSY_CORE
    texts = []
    if merged > MERGED_WARN:
        lag_ms = (level.client_lag_ms or NOTHING).p99
        late = f" (lag p99 {lag_ms:.3g} ms)" if lag_ms is not None else ""
        texts.append(
            f"this client read so late{late} that up to {percent(merged)} of arrivals are several merged into one"
        )
    if busy:
        texts.append(f"the client used {percent(cpu or 0.0)} of a core")
    remedy = "use fewer streams or a faster client"
    if (level.client_wait_share or 0.0) > WAIT_WARN:
        remedy = "it waited for a core, see cpu-contention"
    text = f"{'; '.join(texts)}: gaps and first tokens may be the client's own; {remedy}"
    return graded("V3", text, warn=busy or merged > MERGED_WARN, red=merged > MERGED_RED)


def contention(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """This client had a core when it needed one."""
    waited = level.client_wait_share or 0.0
    apart = (level.events_per_arrival or 1.0) <= GATHERED
    first_apart = (level.first_together_share or 0.0) <= FIRST_TOGETHER
    kept = level.clock != "user" and apart and first_apart
    told = "what arrived meanwhile carries the time of the newest, so first tokens and gaps may be the client's own"
    if kept:
        told = "few arrivals were merged by it, so medians hold; the highest percentiles may be the client's own"
    text = (
        f"this client waited for a core {percent(waited)} of the time: {told}; give it a core of its own (taskset, "
        "chrt), the server fewer threads, or run it on another machine"
    )
    return graded("cpu-contention", text, warn=waited > WAIT_WARN, red=waited > WAIT_RED and not kept)


def gathered(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """Each event arrived by itself; where not, and not by the client's fault, the server or a proxy sent several."""
    per_arrival = level.events_per_arrival
    if per_arrival is None or per_arrival <= GATHERED or _is_burst(level):
        return None
    by_client = max(_merged_by_client(level), level.client_wait_share or 0.0)
    if by_client >= (1 - 1 / per_arrival) / 2:
        return None  # V3 or cpu-contention says it
    gap_ms = (level.itl_ms or NOTHING).p50
    often = f", an arrival each {gap_ms:.3g} ms (median)" if gap_ms else ""
    unknown = level.client_wait_share is None and level.late_share is None
    whom = "the server, a proxy between" if unknown else "the server or a proxy between"
    also = ", or this client by waiting for a core, which nobody counts here," if unknown else ""
    text = (
        f"text came {per_arrival:.3g} events at once{often}: {whom}{also} sends several tokens at once (buffering), "
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
    return finding(
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
    late: float = level.late_share or 0.0
    # Reads that hold several events are seen in the one figure, several HTTP chunks of one time in the other.
    merged: float = max(level.merged_share or 0.0, 1 - 1 / (level.events_per_arrival or 1.0))
    if (level.client_cpu_share or 0.0) > BUSY_CORE:
        return merged
    return min(merged, 2 * late)


def _is_burst(level: Level) -> bool:
    return (level.burst_share or 0) > BURST


SLOWER = 1.2
"""A worker whose first tokens take so much longer than the others' has a worse way, or too much to do."""
FEWEST = 20
"""Requests of a worker, from which its median says something."""
LAG_SHARE, CORE_SHARE, LATE_MS = 0.25, 0.8, 50.0
MERGED = 0.01
"""Of the level's arrivals; where fewer are merged, a lag changes no time: the kernel stamps what arrives."""


_UNKNOWN = WorkerPercentiles()


def workers(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """Red where a worker was lost: its part of the load was missing. Else a doubt that names who is not well."""
    rows = level.workers or ()
    if lost := [row for row in rows if row.status == "lost"]:
        told = "; ".join(f"{_name(row)}: {row.reason}" for row in lost)
        unknown = sum(row.unknown or 0 for row in lost)
        text = (
            f"{len(lost)} of {len(rows)} workers were lost ({told}): their part of the load is missing from then on"
            f"{f', and {unknown} requests of theirs have no record' if unknown else ''}; measure the level again"
        )
        return finding("red", "workers", text)
    merged = (level.merged_share or 0.0) > MERGED
    sick = [f"{_name(row)} {what}" for row in rows if (what := _what(row, rows, merged)) is not None]
    if not sick:
        return None
    whose = "its figures are in part its own; give it less to do, or leave it out"
    if len(sick) > 1:
        whose = "their figures are in part their own; give them less to do, or more cores"
    return finding("warn", "workers", f"{'; '.join(sick)}: {whose}")


def _what(row: Worker, rows: Sequence[Worker], merged: bool) -> str | None:
    """What a worker suffers from; None where it is well."""
    others = [other for other in rows if other is not row]
    lag, gap = (row.client_lag_ms or _UNKNOWN).p99, (row.itl_ms or _UNKNOWN).p50
    if (waited := row.wait_share) is not None and waited > WAIT_WARN:
        return f"waited for a core {waited:.0%} of the time"
    if merged and lag is not None and gap and lag > LAG_SHARE * gap:
        return f"lags {lag:.3g} ms (p99) behind, {lag / gap:.0%} of a gap"
    if (busy := row.cpu_share) is not None and busy > CORE_SHARE:
        return f"kept its core busy to {busy:.0%}"
    if (late := row.late_ms or 0.0) > LATE_MS:
        return f"began {late:.0f} ms after the others"
    ttft, usual = (row.ttft_ms or _UNKNOWN).p50, [(other.ttft_ms or _UNKNOWN).p50 for other in others]
    known = [one for one in usual if one is not None]
    if ttft is not None and known and (row.completed or 0) >= FEWEST and ttft > SLOWER * median(known):
        return f"saw TTFT p50 {ttft:.3g} ms, the others {median(known):.3g} ms"
    mine, theirs = _failed([row]), _failed(others)
    if mine[1] and theirs[1] and (more := stats.newcombe(theirs, mine)) is not None and more[0] > 0:
        return f"failed {mine[0]} of {mine[1]} requests, the others {theirs[0]} of {theirs[1]}"
    return None


def _failed(rows: Sequence[Worker]) -> tuple[int, int]:
    failed = sum(row.failed or 0 for row in rows)
    return failed, failed + sum(row.completed or 0 for row in rows)


def _name(row: Worker) -> str:
    where = row.address or (f"process {row.pid}" if row.pid else None)
    return f"worker {row.name}" + (f" ({where})" if where else "")


APART = 1.2
"""Where the intervals of two medians are further apart than this, one endpoint is slower than another."""


def alike(several: Sequence[EndpointFacts]) -> list[Finding]:
    """All endpoints are servers of one kind and version: else the merged figures are of no server that there is."""
    kinds: dict[str, list[str]] = {}
    for one in several:
        kinds.setdefault(" ".join(filter(None, (one.kind, one.version))), []).append(str(one.url))
    if len(kinds) < 2:
        return []
    told = "; ".join(f"{', '.join(urls)} is {kind}" for kind, urls in kinds.items())
    text = f"the endpoints are not alike: {told}: figures of all together mix them; read each one's"
    return [finding("warn", "endpoints", text)]


def endpoints(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """One endpoint fails more than another, or is slower: figures of all together are those of neither."""
    rows = level.endpoints or ()
    found = [text for text in (_failing(rows), _slow(rows)) if text is not None]
    if not found:
        return None
    text = f"{'; '.join(found)}: figures of all together hide it; look at what that server does"
    return finding("warn", "endpoints", text)


def _failing(rows: Sequence[Endpoint]) -> str | None:
    known = [(row, row.failed or 0, row.attempted) for row in rows if row.attempted]
    if not known:
        return None
    known.sort(key=lambda one: one[1] / one[2])
    (best, best_failed, of_best), (worst, worst_failed, of_worst) = known[0], known[-1]
    more = stats.newcombe((best_failed, of_best), (worst_failed, of_worst))
    if more is None or more[0] <= 0:
        return None
    return f"{worst.url} failed {worst_failed} of {of_worst} requests, {best.url} {best_failed} of {of_best}"


def _slow(rows: Sequence[Endpoint]) -> str | None:
    """By TTFT's median, of whole answers E2E's."""
    streamed = any((row.ttft_ms or NOTHING).n for row in rows)
    known = []
    for row in rows:
        times: Distribution = (row.ttft_ms if streamed else row.e2e_ms) or NOTHING
        low, high = times.ci95.get("p50") or (None, None)
        if times.p50 is not None and low is not None and high is not None:
            known.append((row.url, times.p50, low, high))
    if not known:
        return None
    slow, fast = max(known, key=lambda one: one[2]), min(known, key=lambda one: one[3])
    if slow[2] <= APART * fast[3]:
        return None
    name = "TTFT" if streamed else "E2E"
    return f"{slow[0]} is slower than {fast[0]}: {name} p50 {_ms(slow[1])} against {_ms(fast[1])}"


def _ms(time: float) -> str:
    return f"{time:,.0f} ms" if time >= 1000 else f"{time:.3g} ms"
