"""Service-level objectives: which requests met which bound, attainment with its interval, goodput."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadbench import stats
from loadbench.bounds import Bound
from loadbench.figures import PERCENTILES
from loadbench.metrics import gaps
from loadbench.metrics.distribution import NS_PER_MS, US_PER_MS, rounded
from loadbench.metrics.request import Flags, Reals, Requests
from loadbench.metrics.window import SHORTEST_NS, Window
from loadbench.record import Results

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
OF_REQUESTS = ("ttft", "itl", "tpot", "e2e", "client_queue", "success", "failed")
"""Metrics that each request has; the others (rates) are figures of the level alone."""
STREAMED = ("itl", "tpot")
"""Metrics that a burst leaves without meaning (gate V13)."""
WHOLE = ("ttft", *STREAMED)
"""Metrics that an answer which was asked for whole does not have."""


@dataclass(frozen=True, slots=True, eq=False)
class Objectives:
    """The bounds of a run, asked of one level.

    Attributes:
        bounds: As the scenario gives them.
        results, requests: The level's requests.
        offered: Measured requests that were due, dropped ones included: the denominator of attainment; None where
            nobody knows.
        from_due: Open loop: TTFT counts from `due`, so that waiting in the client is no gift to the server.
        undecided: Metrics that have no meaning here, or of which not all was kept.
    """

    bounds: Sequence[Bound]
    results: Results
    requests: Requests
    offered: int | None
    from_due: bool
    undecided: Sequence[str] = ()

    def rows(self, figures: Mapping[str, float | None]) -> list[dict[str, Any]]:
        """One row a bound: {"bound", "attainment", "attained", "n", "ci95"}.

        `attainment` is the share of offered requests that meet the bound, `ci95` its interval, which knows that
        requests resemble their neighbours. `attained` says whether a percentile's bound holds for that share of them,
        and for means, shares and rates whether the figure itself meets it; None where nothing was measured.

        Args:
            figures: "failed" (a share of the attempted), "output_tokens_per_s" and "goodput" of the level.
        """
        return [self._row(bound, figures) for bound in self.bounds]

    def good(self) -> Flags | None:
        """Which requests met every bound that a request can meet; None where there is none or it is undecided."""
        judged = [bound for bound in self.bounds if bound.metric in OF_REQUESTS]
        if not judged or any(bound.metric in self.undecided for bound in judged):
            return None
        good: Flags = np.logical_and.reduce([self.meets(bound) for bound in judged])
        return good

    def goodput_per_s(self, window: Window | None) -> float | None:
        """Requests per second that met every bound, counted like `requests_per_s`."""
        good = self.good()
        if good is None or window is None or window.length_ns < SHORTEST_NS:
            return None
        return float(window.counts(self.results.sent, self.results.last_token)[good].sum()) / window.length_s

    def meets(self, bound: Bound) -> Flags:
        """Which requests meet the bound. One that did not complete meets none; an undefined TPOT or ITL breaks none."""
        completed = self.requests.completed
        match bound.metric:
            case "success" | "failed":
                return completed
            case "itl":
                return completed & self._gaps_meet(bound)
            case "tpot":
                value = self.requests.tpot
                return completed & (np.isnan(value) | compare(value / NS_PER_MS, bound))
            case _:
                return completed & compare(self._times(bound.metric) / NS_PER_MS, bound)

    def _times(self, metric: str) -> Reals:
        requests = self.requests
        ttft = requests.ttft_from_due if self.from_due else requests.ttft
        return {"ttft": ttft, "e2e": requests.e2e, "client_queue": requests.client_queue, "tpot": requests.tpot}[metric]

    def _gaps_meet(self, bound: Bound) -> Flags:
        """Requests of whose gaps the bound's statistic holds: p95 means 95 % of them, max all, mean their mean."""
        sizes = gaps.sizes(self.results)
        if bound.statistic == "mean":
            with np.errstate(invalid="ignore"):
                means = gaps.sums(self.results, _itself) / np.where(sizes > 0, sizes, np.nan) / US_PER_MS
            without: Flags = sizes == 0
            return without | compare(means, bound)
        met = gaps.sums(self.results, lambda gaps_us: compare(gaps_us / US_PER_MS, bound))
        p = PERCENTILES.get(bound.statistic or "max", 1.0)
        return np.asarray(met >= np.ceil(p * sizes - 1e-9), dtype=np.bool_)

    def _row(self, bound: Bound, figures: Mapping[str, float | None]) -> dict[str, Any]:
        row: dict[str, Any] = {"bound": bound.text, "attainment": None, "attained": None, "n": None, "ci95": None}
        if bound.metric not in OF_REQUESTS:
            figure = figures.get(bound.metric)
            return row | {"attained": None if figure is None else bound.holds(figure)}
        if bound.metric in self.undecided or not self.offered:
            return row
        # A damaged folder may have more records than its level offered requests; a gate says so.
        offered = max(self.offered, int(self.requests.measured.sum()))
        met = self.meets(bound)[self.requests.measured]
        hits = int(met.sum())
        share = stats.share_interval(met, offered)
        return row | {
            "attainment": rounded(hits / offered, 6),
            "attained": self._attained(bound, hits, offered, figures),
            "n": offered,
            "ci95": [rounded(end, 6) for end in share] if share else None,
        }

    def _attained(self, bound: Bound, hits: int, offered: int, figures: Mapping[str, float | None]) -> bool | None:
        if bound.metric == "success":
            return bound.holds(hits / offered)
        if bound.metric == "failed":
            failed = figures.get("failed")
            return None if failed is None else bound.holds(failed)
        if bound.statistic == "mean":
            ended_well = self.requests.measured & (self.requests.completed | self.requests.cancelled)
            missing = offered - int(ended_well.sum())
            mean = math.inf if missing > 0 else self._mean_ms(bound.metric)
            return None if mean is None else bound.holds(mean)
        p = PERCENTILES.get(bound.statistic or "max", 1.0)
        return hits >= stats.rank(p, offered)

    def _mean_ms(self, metric: str) -> float | None:
        population = self.requests.population
        if metric == "itl":
            total_us = float(gaps.sums(self.results, _itself)[population].sum())
            n = int(gaps.sizes(self.results)[population].sum())
            return total_us / n / US_PER_MS if n else None
        values = self._times(metric)[population]
        values = values[~np.isnan(values)]
        return float(values.mean()) / NS_PER_MS if len(values) else None


def compare(values: Reals, bound: Bound) -> Flags:
    """Elementwise; NaN meets nothing."""
    return np.asarray(_OPERATORS[bound.op](values, bound.value), dtype=np.bool_)


def _itself(gaps_us: NDArray[np.int64]) -> NDArray[np.int64]:
    return gaps_us
