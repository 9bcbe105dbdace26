"""A step of a search as a person reads it, in one line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def saturated(slope: float, last_s: float) -> str:
    """Why a rate is too high for good, whatever the SLO allows."""
    return (
        f"saturated: with each second requests stay {slope:.2g} s longer, {last_s:.2g} s at the end (t test of the "
        "growth between 20 batches, at 0.1 %)"
    )


def line(step: Mapping[str, Any]) -> str:
    """As `c8: met (97-100 % of 95 % wanted, 120 requests)`.

    >>> share = {"bound": "ttft_p95=1s", "share": 1.0, "wanted": 0.95, "interval": [0.968, 1.0], "attained": True}
    >>> line({"level": "m@c8", "verdict": "met", "requests": 120, "shares": [share], "reason": None})
    'c8: met (97-100 % of 95 % wanted, 120 requests)'
    """
    load = str(step["level"]).rpartition("@")[2]
    said = [*_worst(step["shares"]), f"{step['requests']} requests"]
    reason = f"; {step['reason']}" if step["reason"] else ""
    return f"{load}: {step['verdict']} ({', '.join(said)}){reason}"


def _worst(shares: Any) -> list[str]:
    """The share that is furthest below, or least above what is wanted."""
    known = [one for one in shares if one["interval"] is not None]
    missed = [f"{one['bound']} does not hold" for one in shares if one["wanted"] is None and one["attained"] is False]
    if not known:
        return missed
    worst = min(known, key=lambda one: (1 - one["wanted"] + 1e-9) / (1 - one["share"] + 1e-9))
    low, high = worst["interval"]
    name = f" with {worst['bound']}" if len(known) > 1 else ""
    return [f"{_percent(low)}-{_percent(high)} %{name} of {_percent(worst['wanted'])} % wanted", *missed]


def _percent(share: float) -> str:
    """Whole, but for what lies near all: 99.6 is no 100."""
    percent = 100 * share
    return f"{percent:.0f}" if percent < 98.5 else f"{math.floor(percent * 10) / 10:g}"
