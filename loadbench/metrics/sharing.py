"""Several workers or endpoints that share a level: each one's part of it, and the gates on them.

The level's figures are those of all together, and one of them may be unlike the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from operator import itemgetter
from statistics import median

from loadbench.metrics import level as levels
from loadbench.metrics.checks import finding
from loadbench.stats.shares import newcombe
from loadbench.store import LevelData
from loadbench.store.schema import EndpointFacts, ScenarioFacts
from loadbench.store.summary import NOTHING, Endpoint, Finding, Level, Worker, WorkerPercentiles, rounded

MERGED_WARN, BUSY_CORE = 0.01, 0.8
# Of the level's time. Gaps are off by no more than that on average, first tokens perhaps by more.
WAIT_WARN = 0.05
# A worker whose first tokens take so much longer than the others' has a worse way, or too much to do.
SLOWER = 1.2
# Requests of a worker, from which its median says something.
FEWEST = 20
LAG_SHARE, LATE_MS = 0.25, 50.0
# Where the intervals of two medians are further apart than this, one endpoint is slower than another.
APART = 1.2


def workers(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """Red where a worker was lost: its part of the load was missing. Else a doubt that names who is not well."""
    rows = level.workers or ()
    lost, unknown = [], 0
    for row in rows:
        if row.status == "lost":
            lost.append(f"{_name(row)}: {row.reason}")
            unknown += row.unknown or 0
    if lost:
        text = f"{len(lost)} of {len(rows)} workers were lost ({'; '.join(lost)}): "
        text += "their part of the load is missing from then on"
        if unknown:
            text += f", and {unknown} requests of theirs have no record"
        return finding("red", "workers", f"{text}; measure the level again")
    merged = (level.merged_share or 0.0) > MERGED_WARN
    sick = []
    for row in rows:
        ailment = _ailment(row, rows, merged)
        if ailment is not None:
            sick.append(f"{_name(row)} {ailment}")
    if not sick:
        return None
    whose = "its figures are in part its own; give it less to do, or leave it out"
    if len(sick) > 1:
        whose = "their figures are in part their own; give them less to do, or more cores"
    return finding("warn", "workers", f"{'; '.join(sick)}: {whose}")


def _ailment(row: Worker, rows: Sequence[Worker], merged: bool) -> str | None:
    """What a worker suffers from; None where it is well.

    Args:
        merged: Arrivals of the level were merged; else a lag changes no time, as the kernel stamps what arrives.
    """
    nothing = WorkerPercentiles()
    lag, gap = (row.client_lag_ms or nothing).p99, (row.itl_ms or nothing).p50
    if row.wait_share is not None and row.wait_share > WAIT_WARN:
        return f"waited for a core {row.wait_share:.0%} of the time"
    if merged and lag is not None and gap and lag > LAG_SHARE * gap:
        return f"lags {lag:.3g} ms (p99) behind, {lag / gap:.0%} of a gap"
    if row.cpu_share is not None and row.cpu_share > BUSY_CORE:
        return f"kept its core busy to {row.cpu_share:.0%}"
    if row.late_ms is not None and row.late_ms > LATE_MS:
        return f"began {row.late_ms:.0f} ms after the others"
    ttft, medians = (row.ttft_ms or nothing).p50, []
    failed = ended = 0  # of the others
    for other in rows:
        if other is row:
            continue
        failed += other.failed or 0
        ended += (other.failed or 0) + (other.completed or 0)
        p50 = (other.ttft_ms or nothing).p50
        if p50 is not None:
            medians.append(p50)
    if ttft is not None and medians and (row.completed or 0) >= FEWEST and ttft > SLOWER * median(medians):
        return f"saw TTFT p50 {ttft:.3g} ms, the others {median(medians):.3g} ms"
    own_failed = row.failed or 0
    own_ended = own_failed + (row.completed or 0)
    if own_ended and ended:
        more = newcombe((failed, ended), (own_failed, own_ended))
        if more is not None and more[0] > 0:
            return f"failed {own_failed} of {own_ended} requests, the others {failed} of {ended}"
    return None


def _name(row: Worker) -> str:
    if row.address:
        return f"worker {row.name} ({row.address})"
    if row.pid:
        return f"worker {row.name} (process {row.pid})"
    return f"worker {row.name}"


# -- endpoints


def rows(data: LevelData, several: Sequence[EndpointFacts] | None, *, streamed: bool = True) -> list[Endpoint] | None:
    """What went to each endpoint of a service that has several: the level's figures of its requests alone; None of one.

    The steady window is that of the level, so that rates add up to its own.

    Args:
        several: As run.json has them.
    """
    if not several:
        return None
    measured = int((~data.results.warmup).sum())
    found = []
    for place, one in enumerate(several):
        # Gaps that were kept in a histogram alone are those of all.
        own = replace(data, results=data.results.where(data.results.endpoint == place), histograms={})
        level = levels.summary(own, (), streamed=streamed)
        row = {name: getattr(level, name, None) for name in Endpoint.__struct_fields__}
        row |= {"url": one.url, "weight": one.weight, "share": None}
        if measured:
            row["share"] = rounded((level.attempted or 0) / measured, 6)
        found.append(Endpoint(**row))
    return found


def alike(several: Sequence[EndpointFacts]) -> list[Finding]:
    """All endpoints are servers of one kind and version: else the merged figures are of no server that there is."""
    kinds: dict[str, list[str]] = {}
    for one in several:
        kinds.setdefault(" ".join(filter(None, (one.kind, one.version))), []).append(str(one.url))
    if len(kinds) < 2:
        return []
    parts = [f"{', '.join(urls)} is {kind}" for kind, urls in kinds.items()]
    text = f"the endpoints are not alike: {'; '.join(parts)}: figures of all together mix them; read each one's"
    return [finding("warn", "endpoints", text)]


def endpoints(level: Level, scenario: ScenarioFacts) -> Finding | None:
    """One endpoint fails more than another, or is slower: figures of all together are those of neither."""
    rows = level.endpoints or ()
    found = list(filter(None, (_failing(rows), _slow(rows))))
    if not found:
        return None
    text = f"{'; '.join(found)}: figures of all together hide it; look at what that server does"
    return finding("warn", "endpoints", text)


def _failing(rows: Sequence[Endpoint]) -> str | None:
    known = []
    for row in rows:
        if row.attempted:
            failed = row.failed or 0
            known.append((failed / row.attempted, failed, row.attempted, row.url))
    if not known:
        return None
    known.sort(key=itemgetter(0))
    (_, best_failed, of_best, best), (_, worst_failed, of_worst, worst) = known[0], known[-1]
    more = newcombe((best_failed, of_best), (worst_failed, of_worst))
    if more is None or more[0] <= 0:
        return None
    return f"{worst} failed {worst_failed} of {of_worst} requests, {best} {best_failed} of {of_best}"


def _slow(rows: Sequence[Endpoint]) -> str | None:
    """By TTFT's median, of whole answers E2E's."""
    name = "TTFT" if any((row.ttft_ms or NOTHING).n for row in rows) else "E2E"
    known = []
    for row in rows:
        times = (row.ttft_ms if name == "TTFT" else row.e2e_ms) or NOTHING
        low, high = times.ci95.get("p50") or (None, None)
        if times.p50 is not None and low is not None and high is not None:
            known.append((row.url, times.p50, low, high))
    if not known:
        return None
    slow, fast = max(known, key=itemgetter(2)), min(known, key=itemgetter(3))
    if slow[2] <= APART * fast[3]:
        return None
    return f"{slow[0]} is slower than {fast[0]}: {name} p50 {_ms(slow[1])} against {_ms(fast[1])}"


def _ms(time: float) -> str:
    return f"{time:,.0f} ms" if time >= 1000 else f"{time:.3g} ms"
