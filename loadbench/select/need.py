"""Hard needs: bounds that a candidate must meet, with how sure it is that it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from loadbench.bounds import Bound, Need
from loadbench.select import values
from loadbench.select.candidate import Candidate
from loadbench.select.figure import Figure

Outcome = Literal["met", "missed", "unknown"]


@dataclass(frozen=True, slots=True)
class Met:
    """Whether a candidate meets a need.

    Attributes:
        need: As written.
        name: The figure.
        outcome: By the figure itself.
        sure: Whether the interval lies on one side of the bound; None where there is no interval to tell.
        value: In the figure's unit, or the word.
        low, high: The interval.
        unit: As of the Need.
    """

    need: str
    name: str
    outcome: Outcome
    sure: bool | None
    value: float | str | None
    low: float | None = None
    high: float | None = None
    unit: str = ""


def met(need: Need, candidates: Sequence[Candidate], load: str, known: Mapping[str, values.Figures]) -> dict[str, Met]:
    """By candidate, whether it meets a need at a load.

    Args:
        known: The figures that are at hand (`values.figures`).
    """
    if need.bound is None:
        return {one.name: _of_words(need, one) for one in candidates}
    found = known.get(need.name) if need.bound.statistic is None else None
    if found is None:
        found = _figures(need.bound, candidates, load)
    return {one.name: _of_figure(need, need.bound, found.get(one.name)) for one in candidates}


def _figures(bound: Bound, candidates: Sequence[Candidate], load: str) -> values.Figures:
    if bound.statistic is not None:
        return values.of_times(candidates, load, bound.metric, bound.statistic, with_failures=True)
    if bound.figure.counts is not None:
        return values.of_shares(candidates, load, bound.figure)
    # The goodput of a run is that of its own SLO, which summary.json has counted.
    if bound.figure.unit == "/s" and "verdict" in bound.figure.doors and bound.metric != "goodput":
        return values.of_rates(candidates, load, bound.metric)
    return values.of_levels(candidates, load, bound.figure)


def _of_words(need: Need, one: Candidate) -> Met:
    said = values.licence(one) if need.name == "licence" else one.model if need.name == "model" else one.device
    if said is None:
        return Met(need.text, need.name, "unknown", None, None)
    good = said.lower() in need.words or (need.name == "device" and said.lower().split("+")[0] in need.words)
    return Met(need.text, need.name, "met" if good else "missed", True, said)


def _of_figure(need: Need, bound: Bound, figure: Figure | None) -> Met:
    if figure is None:
        return Met(need.text, need.name, "unknown", None, None, unit=need.unit)
    holds = bound.holds(figure.value)
    sure = None
    if figure.low is not None and figure.high is not None:
        sure = bound.holds(figure.low) == bound.holds(figure.high) == holds
    elif need.unit == "bytes":
        sure = True  # not a statistic: there is nothing to be unsure of
    return Met(
        need.text, need.name, "met" if holds else "missed", sure, figure.value, figure.low, figure.high, need.unit
    )
