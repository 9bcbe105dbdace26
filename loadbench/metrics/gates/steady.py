"""The gates that ask whether the server was in one state: within a level, and from the run's beginning to its end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from loadbench.figures import in_words
from loadbench.metrics.gates.doubt import Doubt, Level, Scenario, graded, percent, said

LEAST_DRIFT, RED_DRIFT = 0.02, 0.2
"""A drift below the first changes no decision, however sure it is; one beyond the second forbids a verdict."""
NOISE_WARN, NOISE_RED = 0.05, 0.15


def drift(level: Level, scenario: Scenario) -> Doubt | None:
    """V10: the last third of the steady window does not differ from the first."""
    rows = level.get("drift") or {}
    moved = {
        name: row["ratio"] for name, row in rows.items() if row["significant"] and _off(row["ratio"]) > LEAST_DRIFT
    }
    text = (
        f"{_changes(moved)} from the first third of the steady window to the last: the server was not in one state; "
        "warm up longer, or cool the machine and end what else runs on it, and measure again"
    )
    return graded("V10", text, warn=bool(moved), red=any(_off(ratio) > RED_DRIFT for ratio in moved.values()))


def saturation(level: Level, scenario: Scenario) -> Doubt | None:
    """Requests do not depend on each other so strongly that no interval of one run can be trusted."""
    strong = [name for name in ("ttft", "e2e", "tpot") if is_saturated(level, name)]
    if not strong:
        return None
    row = level["dependence"][strong[0]]
    names = " and ".join(map(in_words, strong))
    correlation = f", correlation {row['neighbours']:.2f}" if row["neighbours"] is not None else ""
    text = (
        f"requests depend so strongly on their neighbours (by {in_words(strong[0])}{correlation}, the median is worth "
        f"{_plural(row['independent'], 'independent request')}) that {names} have no intervals to be trusted: "
        f"{_queue(level)}; lower the load, measure much longer, or repeat the level (--repeat)"
    )
    return said("warn", "near-saturation", text)


def is_saturated(level: Level, metric: str) -> bool:
    """Whether the requests' times depend so strongly on each other that their intervals are withheld."""
    row = (level.get("dependence") or {}).get(metric) or {}
    return bool(row.get("strong"))


def _queue(level: Level) -> str:
    if level.get("request_rate_per_s") is not None:
        return "a queue near saturation remembers longer than the level lasts"
    return "what changes in the server lasts as long as the level"


def noise(bands: Iterable[Mapping[str, Any]]) -> list[Doubt]:
    """V11: the first level, measured again at the end, gives the same; one doubt a model.

    Args:
        bands: Rows of summary.json's `noise`.
    """
    found = []
    for band in bands:
        ratios = {
            name: band[name] for name in ("output_tokens_per_s", "ttft_p50", "e2e_p50") if band.get(name) is not None
        }
        text = (
            f"{band.get('model')}: {_changes(ratios)} when {_level_name(band)} was measured again at the end: "
            "smaller differences between levels are noise; let the machine cool and rest, and measure again"
        )
        most = max(map(_off, ratios.values()), default=0.0)
        doubt = graded("V11", text, warn=most > NOISE_WARN, red=most > NOISE_RED)
        found += [doubt] if doubt else []
    return found


def stalls(level: Level, scenario: Scenario) -> Doubt | None:
    """Gaps so long that a reader would think the answer had ended."""
    found = level.get("stalls") or {}
    n = found.get("n")
    if not n:
        return None
    of = f" of {_plural(found['requests'], 'request')}" if found.get("requests") else ""
    longest = _span(found["longest_ms"])
    where = ""
    if found.get("longest_request") is not None:
        where = (
            f", in request {found['longest_request']} (prompt {found.get('longest_prompt')}) "
            f"{found.get('at_s') or 0:.3g} s after the level began"
        )
    look = "look at what the server did then"
    if (level.get("client_pause_s") or 0.0) * 1000 > found["threshold_ms"]:
        look = "this client stood still in that level, so look at when"
    text = (
        f"{_plural(n, 'gap')}{of} longer than {_span(found['threshold_ms'])}, the longest {longest}{where}: "
        f"no median shows them; {look}"
    )
    return said("note", "stalls", text)


def _span(ms: float) -> str:
    return f"{ms / 1000:.3g} s" if ms >= 1000 else f"{ms:.4g} ms"


def _plural(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _level_name(band: Mapping[str, Any]) -> str:
    return str(band.get("level")).rpartition("@")[2] or "the first level"


def _off(ratio: float) -> float:
    """How far a ratio is from 1, the same in both directions: 0.8 and 1.25 are both 25 % off.

    >>> _off(0.8), _off(1.05) > 0.05
    (0.25, False)
    """
    return round(max(ratio, 1 / ratio) - 1, 9) if ratio > 0 else float("inf")


def _changes(ratios: Mapping[str, float]) -> str:
    """ "TTFT rose by 23 %, tokens/s fell by 8.1 %", the largest first."""
    ordered = sorted(ratios.items(), key=lambda item: -_off(item[1]))
    return ", ".join(
        f"{in_words(name)} {'rose' if ratio > 1 else 'fell'} by {percent(abs(ratio - 1))}" for name, ratio in ordered
    )
