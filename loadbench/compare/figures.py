"""The metrics that a verdict can be about: their names, units, and which way is good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from loadbench.errors import UsageError

Kind = Literal["typical", "percentile", "mean", "rate", "share"]
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}
DURATIONS = ("ttft", "tpot", "e2e", "client_queue")
RATES = ("output_tokens_per_s", "characters_per_s", "input_tokens_per_s", "requests_per_s", "goodput")
SHARES = ("failed", "attainment")
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
    if name in RATES:
        return Figure(name, name, "rate", None, "/s", True)
    if name in SHARES:
        return Figure(name, name, "share", None, "share", name != "failed")
    if name in DURATIONS:
        return Figure(name, name, "typical", None, "ms", False)
    metric, _, statistic = name.rpartition("_")
    if metric in DURATIONS and statistic == "mean":
        return Figure(name, metric, "mean", None, "ms", False)
    if metric in (*DURATIONS, GAPS) and statistic in PERCENTILES:
        return Figure(name, metric, "percentile", PERCENTILES[statistic], "ms", False)
    known = ", ".join((*DURATIONS, "ttft_p95", "itl_p99", "e2e_mean", *RATES, *SHARES))
    raise UsageError(f"no verdict on {name!r}: write a metric with or without a statistic, as {known}")
