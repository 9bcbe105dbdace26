"""Hard needs: bounds that a candidate must meet, with how sure it is that it does."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from loadbench.errors import UsageError
from loadbench.scenario import Bound, read_op
from loadbench.scenario.bound import METRICS, check_written, share
from loadbench.select import values
from loadbench.select.candidate import Candidate
from loadbench.select.figure import FIGURES, Figure
from loadbench.text import nearest, shown

Outcome = Literal["met", "missed", "unknown"]
SIZES = {"b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30}
WORDS = ("licence", "device", "model")
"""What is one of several words, not a number."""
_SAME = {"license": "licence", "tokens_per_s": "output_tokens_per_s"}
_OWN = ("memory", "disk", "quality", "rules", "energy", "cost", "characters_per_s", "requests_per_s")
_NEED = re.compile(r"\s*([A-Za-z]\w*)\s*(<=|>=|<|>|=)\s*(\S.*?)\s*", re.ASCII | re.DOTALL)
_NUMBER = re.compile(r"(?:EUR|USD|GBP|[€$£])?\s*((?:[0-9]*\.)?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z%€$£]*)")
_MONEY = ("", "eur", "usd", "gbp", "€", "$", "£")


@dataclass(frozen=True, slots=True)
class Need:
    """A bound: METRIC[_STATISTIC] OP VALUE, or WORD=a,b,c.

    Attributes:
        text: As written.
        name: The figure: "ttft_p95", "memory", "licence".
        bound: The limit in the figure's unit; None of words.
        words: The words that are good, in lower case.
        unit: Of the limit: "ms", "bytes", "share", "/s", "points", "J", "currency", "".
    """

    text: str
    name: str
    bound: Bound | None
    words: tuple[str, ...] = ()
    unit: str = ""


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


def parse(text: str) -> Need:
    """Read a need; "=" reads as the figure's good direction.

    Raises:
        UsageError: If it is none; one line that says what to write.

    >>> need = parse("memory < 4GB")
    >>> need.name, need.bound.op, need.bound.value
    ('memory', '<', 4000000000.0)
    >>> parse("license=mit, Apache-2.0").words
    ('mit', 'apache-2.0')
    """
    found = _NEED.fullmatch(text)
    if not found:
        raise UsageError(f"{shown(text)} is no need: write ttft_p95<1s, memory<4GB or license=mit,apache-2.0")
    name = _SAME.get(found[1].lower(), found[1].lower())
    if name in WORDS:
        words = tuple(word.strip().lower() for word in found[3].split(",") if word.strip())
        if found[2] != "=" or not words:
            raise UsageError(f"{shown(text)}: write {found[1]}=a,b with the {name}s that are good")
        return Need(text.strip(), name, None, words)
    if name not in _OWN:
        if not any(name == metric or name.startswith(f"{metric}_") for metric in METRICS):
            known = [*WORDS, *_OWN, "ttft_p95", "e2e_mean", "tpot_p50", "itl_p99", "output_tokens_per_s", "failed"]
            raise UsageError(f"{shown(text)}: unknown figure {shown(name)}{nearest(name, known)}")
        bound = Bound.parse(f"{name} {found[2]} {found[3]}")
        check_written(bound)
        full = bound.metric if bound.statistic is None else f"{bound.metric}_{bound.statistic}"
        unit = "ms" if bound.statistic else "share" if bound.metric in ("success", "failed") else "/s"
        return Need(text.strip(), full, bound, unit=unit)
    good = FIGURES[name].more_is_better if name in FIGURES else True
    op = read_op(found[2], more_is_better=good)
    unit = FIGURES[name].unit if name in FIGURES else "/s"
    bound = Bound(metric=name, statistic=None, op=op, value=_value(unit, found[3], text), text=text)
    if op[0] != (">" if good else "<"):
        turned = f"{found[1]} {'>=' if good else '<='} {found[3]}"
        raise UsageError(f"{shown(text)}: a need says what is to hold, and that would be bad: write {turned}")
    return Need(text.strip(), name, bound, unit=unit)


def _value(unit: str, written: str, text: str) -> float:
    found = _NUMBER.fullmatch(written)
    number, suffix = (float(found[1]), found[2].lower()) if found else (math.nan, "")
    match unit:
        case "bytes":
            if suffix in SIZES and math.isfinite(number):
                return number * SIZES[suffix]
            raise UsageError(f"{shown(text)}: {shown(written)} is no size: write 4GB or 500MB")
        case "share":
            try:
                return share(written)
            except ValueError as error:
                raise UsageError(f"{shown(text)}: {error}") from None
        case "points":
            if suffix == "" and 1 <= number <= 5:
                return number
            raise UsageError(f"{shown(text)}: {shown(written)} is no score: write a number from 1 to 5")
        case "currency":
            if suffix in _MONEY and math.isfinite(number):
                return number
            raise UsageError(f"{shown(text)}: {shown(written)} is no amount: write a number, as 0.002")
        case _:
            if suffix in ("", "j") and math.isfinite(number):
                return number
            raise UsageError(f"{shown(text)}: the value {shown(written)} must be a number, as 25.5")


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
    if bound.metric in ("failed", "success"):
        return values.of_shares(candidates, load, bound.metric)
    if bound.metric == "goodput":
        return values.of_levels(candidates, load, "goodput_per_s")
    return values.of_rates(candidates, load, bound.metric)


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
