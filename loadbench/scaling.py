"""What more load buys: efficiency, speed-up and stretch of each level against the lowest one (METRICS.md §4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

Level = Mapping[str, Any]


def scaling(levels: Sequence[Level]) -> list[dict[str, Any]]:
    """One entry a model (and kind of loop), in the order of the run, its levels by load.

    {"model", "loop": "closed" | "open", "base_n", "levels": [{"id", "n", "x_per_s", "efficiency", "speedup",
    "stretch"}]}: n is the concurrency, in open loop the request rate; x_per_s the output tokens per second of the
    steady window. With X and R (mean E2E) of a level, and X0, R0 those of `base_n`, the lowest load that has a
    throughput (mean over its repeats): efficiency (X/n)/(X0/n0), speed-up X/X0, stretch R/R0. None where X or R is,
    and where the level did not run to its end: such a level is no base either.

    Args:
        levels: Entries of summary.json's `levels`.
    """
    curves: dict[tuple[str, str], list[Level]] = {}
    for level in levels:
        if load(level) is not None:
            loop = "closed" if level.get("request_rate_per_s") is None else "open"
            curves.setdefault((str(level.get("model")), loop), []).append(level)
    return [{"model": model, "loop": loop, **_curve(members)} for (model, loop), members in curves.items()]


def load(level: Level) -> float | None:
    """The level's load on its own axis: requests per second in open loop, else requests in flight."""
    rate = level.get("request_rate_per_s")
    n = level.get("concurrency") if rate is None else rate
    return n if n else None


def _curve(members: Sequence[Level]) -> dict[str, Any]:
    ordered = sorted(members, key=lambda level: (load(level) or 0, level.get("repeat") or 1))
    measured = [level for level in ordered if _is_whole(level) and _x(level)]
    base_n = load(measured[0]) if measured else None
    bases = [level for level in measured if load(level) == base_n]
    x0 = fmean(x for level in bases if (x := _x(level))) if bases else None
    stays = [r for level in bases if (r := _r_ms(level)) is not None]
    r0_ms = fmean(stays) if stays else None
    return {"base_n": base_n, "levels": [_row(level, base_n, x0, r0_ms) for level in ordered]}


def _row(level: Level, base_n: float | None, x0: float | None, r0_ms: float | None) -> dict[str, Any]:
    n, x = load(level), _x(level)
    if not _is_whole(level):
        return {"id": level.get("id"), "n": n, "x_per_s": x} | dict.fromkeys(("efficiency", "speedup", "stretch"))
    r_ms = _r_ms(level)
    speedup = x / x0 if x is not None and x0 else None
    efficiency = speedup * base_n / n if speedup is not None and base_n and n else None
    stretch = r_ms / r0_ms if r_ms is not None and r0_ms else None
    figures = {"efficiency": efficiency, "speedup": speedup, "stretch": stretch}
    return {"id": level.get("id"), "n": n, "x_per_s": x} | {
        name: None if figure is None else round(figure, 4) for name, figure in figures.items()
    }


def _is_whole(level: Level) -> bool:
    """Whether the level ran to its end."""
    return level.get("status") in (None, "complete")


def _x(level: Level) -> float | None:
    return level.get("output_tokens_per_s")


def _r_ms(level: Level) -> float | None:
    return (level.get("e2e_ms") or {}).get("mean")
