"""Several workers or endpoints that share a level: each one's part of it, and the gates on them.

The level's figures are those of all together, and one of them may be unlike the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
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
    lost = [row for row in rows if row.status == "lost"]
    if lost:
        reasons = "; ".join(f"{_name(row)}: {row.reason}" for row in lost)
        unknown = sum(row.unknown or 0 for row in lost)
        unrecorded = f", and {unknown} requests of theirs have no record" if unknown else ""
        text = (
            f"{len(lost)} of {len(rows)} workers were lost ({reasons}): their part of the load is missing from then on"
            f"{unrecorded}; measure the level again"
        )
        return finding("red", "workers", text)
    merged = (level.merged_share or 0.0) > MERGED_WARN
    ailments = [(row, _ailment(row, rows, merged)) for row in rows]
    sick = [f"{_name(row)} {ailment}" for row, ailment in ailments if ailment is not None]
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
    others = [other for other in rows if other is not row]
    ttft, medians = (row.ttft_ms or nothing).p50, [(other.ttft_ms or nothing).p50 for other in others]
    known = [one for one in medians if one is not None]
    if ttft is not None and known and (row.completed or 0) >= FEWEST and ttft > SLOWER * median(known):
        return f"saw TTFT p50 {ttft:.3g} ms, the others {median(known):.3g} ms"
    own, theirs = _failed([row]), _failed(others)
    more = newcombe(theirs, own) if own[1] and theirs[1] else None
    if more is not None and more[0] > 0:
        return f"failed {own[0]} of {own[1]} requests, the others {theirs[0]} of {theirs[1]}"
    return None


def _failed(rows: Sequence[Worker]) -> tuple[int, int]:
    failed = sum(row.failed or 0 for row in rows)
    return failed, failed + sum(row.completed or 0 for row in rows)


def _name(row: Worker) -> str:
    where = row.address or (f"process {row.pid}" if row.pid else None)
    return f"worker {row.name}" + (f" ({where})" if where else "")


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
        share = (level.attempted or 0) / measured if measured else None
        row |= {"url": one.url, "weight": one.weight, "share": rounded(share, 6)}
        found.append(Endpoint(**row))
    return found


def alike(several: Sequence[EndpointFacts]) -> list[Finding]:
    """All endpoints are servers of one kind and version: else the merged figures are of no server that there is."""
    kinds: dict[str, list[str]] = {}
    for one in several:
        kinds.setdefault(" ".join(filter(None, (one.kind, one.version))), []).append(str(one.url))
    if len(kinds) < 2:
        return []
    which = "; ".join(f"{', '.join(urls)} is {kind}" for kind, urls in kinds.items())
    text = f"the endpoints are not alike: {which}: figures of all together mix them; read each one's"
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
    more = newcombe((best_failed, of_best), (worst_failed, of_worst))
    if more is None or more[0] <= 0:
        return None
    return f"{worst.url} failed {worst_failed} of {of_worst} requests, {best.url} {best_failed} of {of_best}"


def _slow(rows: Sequence[Endpoint]) -> str | None:
    """By TTFT's median, of whole answers E2E's."""
    streamed = any((row.ttft_ms or NOTHING).n for row in rows)
    known = []
    for row in rows:
        times = (row.ttft_ms if streamed else row.e2e_ms) or NOTHING
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
