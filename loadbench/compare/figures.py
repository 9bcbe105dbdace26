"""The metrics that a verdict can be about: their names, units, and which way is good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from loadbench import figures
from loadbench.errors import UsageError
from loadbench.figures import PERCENTILES, Named

Kind = Literal["typical", "percentile", "mean", "rate", "share"]
GAPS = "itl"
DEFAULT = ("ttft", "ttft_p95", "tpot", "e2e", "output_tokens_per_s", "failed")
"""What is judged when nobody chose."""
OF_MODELS = ("ttft", "ttft_p95", "e2e", "characters_per_s", "output_tokens_per_s", "failed")
"""Between models: they cut text into tokens differently, so characters stand beside tokens, and TPOT is left out."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric with its statistic.

    Attributes:
        name: As written: "ttft" (paired by prompt), "ttft_p95", "itl_p99", "output_tokens_per_s", "failed".
        metric: Without the statistic.
        kind: How it is judged.
        p: The percentile as a fraction; None of other kinds.
        unit: "ms", "/s" or "share".
        more_is_better: The good direction.

    >>> figure("ttft_p95")
    Figure(name='ttft_p95', metric='ttft', kind='percentile', p=0.95, unit='ms', more_is_better=False)
    """

    name: str
    metric: str
    kind: Kind
    p: float | None
    unit: str
    more_is_better: bool


def figure(name: str) -> Figure:
    """The metric of that name.

    Raises:
        UsageError: If there is none; one line that says what to write.
    """
    found = figures.named(name)
    if found is None or "verdict" not in found.figure.doors:
        raise UsageError(f"no verdict on {name!r}: write a metric with or without a statistic, as {_examples()}")
    kind = _kind(found)
    if kind is None:
        raise UsageError(f"no verdict on {name!r}: write a metric with or without a statistic, as {_examples()}")
    one = found.figure
    p = PERCENTILES[found.statistic or ""] if kind == "percentile" else None
    return Figure(name=name, metric=one.key, kind=kind, p=p, unit=one.unit, more_is_better=one.more_is_better)


def _kind(found: Named) -> Kind | None:
    """How it is judged; None of what no verdict can be about, as the mean of all gaps."""
    if found.figure.unit == "share":
        return "share"
    if not found.figure.values:
        return "rate"
    if found.statistic in PERCENTILES:
        return "percentile"
    if found.figure.values == "gaps" or found.statistic == "max":
        return None
    return "typical" if found.statistic is None else "mean"


def keys(kind: Literal["rate", "share"]) -> tuple[str, ...]:
    """The rates, or the shares, that a verdict can be about."""
    return tuple(
        one.key for one in figures.of("verdict") if not one.values and (one.unit == "share") == (kind == "share")
    )


def _examples() -> str:
    times = [one.key for one in figures.of("verdict") if one.values == "requests"]
    return ", ".join((*times, "ttft_p95", "itl_p99", "e2e_mean", *keys("rate"), *keys("share")))
