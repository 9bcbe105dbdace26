"""What more load buys: each level against the lowest one, the law behind a curve, where it bends (METRICS.md §4, §6).

points.py  a model's curve: one point a load
usl.py     the Universal Scalability Law, fitted
knees.py   four rules for where a curve bends
serial.py  whether a server answers one request at a time
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from loadbench.stats.scaling import usl
from loadbench.stats.scaling.knees import knees, saturated_n
from loadbench.stats.scaling.points import Level, Point, is_whole, load, log_half_of, points, r_ms, x_per_s
from loadbench.stats.scaling.serial import serial

__all__ = ["load", "scaling"]


def scaling(levels: Sequence[Level]) -> list[dict[str, Any]]:
    """One entry a model (and kind of loop), in the order of the run, its levels by load; closing levels left out.

    {"model", "loop": "closed" | "open", "base_n", "levels": [{"id", "n", "x_per_s", "efficiency", "speedup",
    "stretch", "ideal_x_per_s", "serial_x_per_s", "efficiency_ci95", "speedup_ci95"}], "usl", "usl_reason", "knees",
    "saturated_n", "serial"}: n is the concurrency, in open loop the request rate; x_per_s the output tokens per second
    of the steady window. With X and R (mean E2E) of a level, and X0, R0 those of `base_n`, the lowest load that has a
    throughput (mean over its repeats): efficiency (X/n)/(X0/n0), speed-up X/X0, stretch R/R0; the reference lines
    are X0*n/n0 (every stream gets what one of the lowest load gets) and X0 (a server that answers one by one). None
    where X or R is, and where the level did not run to its end: such a level is no base either. The law, the knees
    and `serial` are of closed loops alone.

    Args:
        levels: Entries of summary.json's `levels`.
    """
    curves: dict[tuple[str, str], list[Level]] = {}
    for level in levels:
        if load(level) is not None and not level.get("closing"):
            loop = "closed" if level.get("request_rate_per_s") is None else "open"
            curves.setdefault((str(level.get("model")), loop), []).append(level)
    return [{"model": model, "loop": loop, **_curve(members, loop)} for (model, loop), members in curves.items()]


def _curve(members: Sequence[Level], loop: str) -> dict[str, Any]:
    ordered = sorted(members, key=lambda level: (load(level) or 0, level.get("repeat") or 1))
    curve = points(ordered)
    base = curve[0] if curve else None
    found = {"base_n": base.n if base else None, "levels": [_row(level, base) for level in ordered]}
    if loop == "open":
        nothing = dict.fromkeys(("power", "doubling", "corner"))
        return found | {
            "usl": None,
            "usl_reason": None,
            "serial": None,
            "saturated_n": None,
            "knees": nothing | {"slo": knees([], members)["slo"]},
        }
    law, reason = _law(curve)
    return found | {
        "usl": law,
        "usl_reason": reason,
        "serial": serial(curve),
        "saturated_n": saturated_n(curve),
        "knees": knees(curve, members),
    }


def _row(level: Level, base: Point | None) -> dict[str, Any]:
    n, x = load(level), x_per_s(level)
    found: dict[str, float | None] = dict.fromkeys(
        ("efficiency", "speedup", "stretch", "ideal_x_per_s", "serial_x_per_s")
    )
    if base and n:
        found |= {"ideal_x_per_s": base.x_per_s * n / base.n, "serial_x_per_s": base.x_per_s}
    if is_whole(level) and base and n:
        speedup = x / base.x_per_s if x is not None else None
        stays = r_ms(level)
        found |= {
            "efficiency": speedup * base.n / n if speedup is not None else None,
            "speedup": speedup,
            "stretch": stays / base.r_ms if stays is not None and base.r_ms else None,
        }
    rounded = {name: None if figure is None else round(figure, 4) for name, figure in found.items()}
    factor = _factor(level, base)
    ends = {
        f"{name}_ci95": _around(found[name], factor) if is_whole(level) else None for name in ("efficiency", "speedup")
    }
    return {"id": level.get("id"), "n": n, "x_per_s": x} | rounded | ends


def _factor(level: Level, base: Point | None) -> float | None:
    """What the ratio of the level's throughput to the base's may be off by, as a factor; None of the base itself."""
    half = log_half_of(level)
    if base is None or base.log_half is None or half is None or level in base.levels:
        return None
    return math.exp(math.hypot(half, base.log_half))


def _around(figure: float | None, factor: float | None) -> list[float] | None:
    return None if figure is None or factor is None else [round(figure / factor, 4), round(figure * factor, 4)]


def _law(curve: Sequence[Point]) -> tuple[Mapping[str, Any] | None, str | None]:
    """The fitted law over what was in flight on average; else why there is none."""
    loads = len({point.n for point in curve})
    if loads < usl.FEWEST_LOADS:
        return None, f"needs {usl.FEWEST_LOADS} loads or more, has {loads}"
    single = [(level, point) for point in curve for level in point.levels]
    streams = [float(level.get("in_flight_mean") or point.n) for level, point in single]
    throughputs = [float(x_per_s(level) or 0) for level, _ in single]
    try:
        law = usl.fit(streams, throughputs)
    except ValueError as error:
        return None, str(error)
    if not usl.fits(law, streams, throughputs, [log_half_of(level) for level, _ in single]):
        return None, f"does not fit these levels: it would be off by {100 * law.rms:.0f} % on average"
    figures = {"lambda_per_s": law.lambda_per_s, "sigma": law.sigma, "kappa": law.kappa, "peak_n": law.peak_n}
    return {
        **{name: _digits(figure) for name, figure in figures.items()},
        "peak_x_per_s": _digits(law.x_per_s(law.peak_n) if law.peak_n is not None else None),
        "measured_to": _digits(law.measured_to),
        "rms": _digits(law.rms),
        "ci95": {name: [_digits(end) for end in ends] for name, ends in law.ci95.items()},
    }, None


def _digits(figure: float | None) -> float | None:
    return None if figure is None else float(f"{figure:.4g}")
