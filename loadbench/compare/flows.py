"""Throughput and arithmetic means, NEW against BASE."""

from __future__ import annotations

import math

import numpy as np

from loadbench import stats
from loadbench.compare.inference import Measured, log_of, variances
from loadbench.compare.side import Flow, Side
from loadbench.compare.verdict import Finding
from loadbench.stats import Estimate


def rate(metric: str, base: Side, new: Side, pairs: bool, tail: float) -> Finding | None:
    """The ratio of a rate per second; None where a run has none.

    With one run a side its doubt is that of blocks of time in the steady window.
    """
    flows = [[lap.flows.get(metric) for lap in side.laps] for side in (base, new)]
    known = [[flow for flow in side if flow is not None and flow.per_s > 0] for side in flows]
    if [len(side) for side in known] != [base.runs, new.runs]:
        return None
    first, second = ([math.log(flow.per_s) for flow in side] for side in known)
    n_base, n_new = (sum(len(lap.prompts) for lap in side.laps) for side in (base, new))
    measured = Measured((first, second), n_base, n_new)
    doubts = [[_of_flow(flow) for flow in side] for side in known]
    return measured.between_runs(pairs, "rate of each run", variances(doubts)) or measured.within_runs(
        doubts,
        tail,
        "within one run a side, blocks of time",
        "the steady window is too short for four blocks that are longer than a request",
    )


def mean(metric: str, base: Side, new: Side, pairs: bool, tail: float) -> Finding | None:
    """The ratio of the arithmetic means of a time; None where a run has no values."""
    columns = [[lap.values.get(metric, np.zeros(0)) for lap in side.laps] for side in (base, new)]
    columns = [[values[~np.isnan(values)] for values in side] for side in columns]
    if not all(len(values) and values.mean() > 0 for side in columns for values in side):
        return None
    first, second = ([math.log(float(values.mean())) for values in side] for side in columns)
    n_base, n_new = (sum(len(values) for values in side) for side in columns)
    measured = Measured((first, second), n_base, n_new)
    doubts = [[log_of(stats.mean_variance(values)) for values in side] for side in columns]
    return measured.between_runs(pairs, "mean of each run", variances(doubts)) or measured.within_runs(
        doubts,
        tail,
        "within one run a side, blocks of requests",
        "too few requests",
    )


def _of_flow(flow: Flow) -> Estimate | None:
    if flow.slices is None:
        return None
    return log_of(stats.rate_variance(flow.slices, flow.seconds, flow.dependent_s))
