"""The noise band: each model's first level against itself, measured again at the end of the run (gate V11)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Level = Mapping[str, Any]


def bands(levels: Sequence[Level]) -> list[dict[str, Any]]:
    """One row a closing level: {"model", "level", "closing_level", "output_tokens_per_s", "ttft_p50" or "e2e_p50"}.

    The last ones are ratios, the closing level's figure over the first one's; None where either is unknown. A closing
    level that did not run to its end, or whose first level is not there, says nothing.

    Args:
        levels: Entries of summary.json's `levels`.
    """
    found = []
    for closing in levels:
        first = next((level for level in levels if _is_first(level, closing)), None)
        if closing.get("closing") and first and closing.get("status") in (None, "complete"):
            found.append(_band(first, closing))
    return found


def _is_first(level: Level, closing: Level) -> bool:
    same = ("model", "concurrency", "request_rate_per_s")
    return (
        not level.get("closing")
        and level.get("status") in (None, "complete")
        and all(level.get(name) == closing.get(name) for name in same)
    )


def lead(level: Level) -> tuple[str, Mapping[str, Any]]:
    """The latency that tells most of a level, with its distribution in ms: TTFT, in open loop from `due`; else E2E."""
    if level.get("streamed") is False:
        return "e2e", level.get("e2e_ms") or {}
    opened = level.get("request_rate_per_s") is not None
    return "ttft", level.get("ttft_from_due_ms" if opened else "ttft_ms") or {}


def _band(first: Level, closing: Level) -> dict[str, Any]:
    name = lead(first)[0]
    times = [lead(level)[1].get("p50") for level in (closing, first)]
    rates = [level.get("output_tokens_per_s") for level in (closing, first)]
    return {
        "model": closing.get("model"),
        "level": first.get("id"),
        "closing_level": closing.get("id"),
        "output_tokens_per_s": _ratio(*rates),
        f"{name}_p50": _ratio(*times),
    }


def _ratio(after: float | None, before: float | None) -> float | None:
    return round(after / before, 4) if after and before else None
