"""The gates on a service of several endpoints: whether they are one service, and as fast and sound as each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loadbench import stats
from loadbench.metrics.gates.doubt import Doubt, Level, Scenario, said

SLOWER = 1.2
"""Where the intervals of two medians are further apart than this, one endpoint is slower than another."""
CODE = "endpoints"


def alike(info: Mapping[str, Any]) -> list[Doubt]:
    """All endpoints are servers of one kind and version: else the merged figures are of no server that there is."""
    several = info.get("endpoints") or ()
    kinds: dict[str, list[str]] = {}
    for one in several:
        kinds.setdefault(" ".join(filter(None, (one.get("kind"), one.get("version")))), []).append(str(one.get("url")))
    if len(kinds) < 2:
        return []
    told = "; ".join(f"{', '.join(urls)} is {kind}" for kind, urls in kinds.items())
    return [
        said("warn", CODE, f"the endpoints are not alike: {told}: figures of all together mix them; read each one's")
    ]


def endpoints(level: Level, scenario: Scenario) -> Doubt | None:
    """One endpoint fails more than another, or is slower: figures of all together are those of neither."""
    rows = level.get("endpoints") or ()
    found = [text for text in (_failing(rows), _slow(rows)) if text is not None]
    if not found:
        return None
    return said("warn", CODE, f"{'; '.join(found)}: figures of all together hide it; look at what that server does")


def _failing(rows: Sequence[Mapping[str, Any]]) -> str | None:
    known = sorted((row for row in rows if row["attempted"]), key=lambda row: row["failed"] / row["attempted"])
    if not known:
        return None
    best, worst = known[0], known[-1]
    more = stats.newcombe((best["failed"], best["attempted"]), (worst["failed"], worst["attempted"]))
    if more is None or more[0] <= 0:
        return None
    return (
        f"{worst['url']} failed {worst['failed']} of {worst['attempted']} requests, {best['url']} {best['failed']} of "
        f"{best['attempted']}"
    )


def _slow(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """By TTFT's median, of whole answers E2E's."""
    name = "TTFT" if any((row["ttft_ms"] or {}).get("n") for row in rows) else "E2E"
    medians = [(row, row[f"{name.lower()}_ms"]) for row in rows]
    known = [(row, one, one["ci95"]["p50"]) for row, one in medians if one and one["ci95"]["p50"]]
    if not known:
        return None
    slow, fast = max(known, key=lambda one: one[2][0]), min(known, key=lambda one: one[2][1])
    if slow[2][0] <= SLOWER * fast[2][1]:
        return None
    return (
        f"{slow[0]['url']} is slower than {fast[0]['url']}: {name} p50 {_ms(slow[1]['p50'])} against "
        f"{_ms(fast[1]['p50'])}"
    )


def _ms(time: float) -> str:
    return f"{time:,.0f} ms" if time >= 1000 else f"{time:.3g} ms"
