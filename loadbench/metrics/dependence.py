"""How strongly requests depend on their neighbours: where no interval of one run can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loadbench import stats
from loadbench.metrics.distribution import rounded
from loadbench.metrics.request import Reals, Requests

FEWEST = 20
"""Requests below which nothing is said."""
MOST_CORRELATION = 0.85
LEAST_INDEPENDENT, LEAST_SHARE = 20, 0.1
"""A median must be worth so many independent requests; of fewer than 200, a tenth of them."""


def dependence(requests: Requests, *, opened: bool, without_gaps: bool) -> dict[str, Any]:
    """By metric {"neighbours": correlation with the next request, "independent": what the median is worth, "strong"}.

    A queue near saturation remembers longer than any block of one run's requests is long, so an interval that is
    computed from them is too narrow. It shows in requests that are hardly told from their neighbours, which counts in
    open loop alone: in a closed loop no more requests wait than there are streams, and the blocks see all of them. By
    simulation "strong" is said of 93 to 100 % of M/M/1 queues at 80 % load or more from 400 requests on, and of 0 to
    7 % at 50 % load or below (docs/statistics.md).
    """
    population = requests.population
    columns = {"ttft": requests.ttft_from_due if opened else requests.ttft, "e2e": requests.e2e}
    if not without_gaps:
        columns["tpot"] = requests.tpot
    found = {name: of(values[population], opened=opened) for name, values in columns.items()}
    return {name: row for name, row in found.items() if row is not None}


def of(values: Reals, *, opened: bool) -> Mapping[str, Any] | None:
    """A row of `dependence`; None of fewer than 20 values."""
    known = values[values == values]
    if len(known) < FEWEST:
        return None
    correlation = stats.neighbours(known)
    independent = stats.independent_requests(known, 0.5)
    alike = opened and correlation is not None and correlation > MOST_CORRELATION
    few = independent < min(LEAST_INDEPENDENT, LEAST_SHARE * len(known))
    return {"neighbours": rounded(correlation), "independent": independent, "strong": alike or few}
