"""Durations ("500ms", "5m") and bounds ("ttft_p95=800ms"): the small grammars of the command line and the files."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, Self

import msgspec

from loadbench.errors import UsageError
from loadbench.text import shown

_ALIKE = 0.65
"""Of difflib: the names are short, and at 0.5 `speed` passes for `e2e`, at 0.6 `p95` for `itl_p95`."""

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_AS = "500ms, 30s, 5m, 1h or 1m30s"
LONGEST_S = 7 * 24 * 3600.0
_NUMBER = r"[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+"
_PART = re.compile(rf"\s*({_NUMBER})\s*([^\W\d_]*)", re.ASCII)

DURATIONS = ("ttft", "itl", "tpot", "e2e", "client_queue")
SHARES = ("success", "failed")
_SHARES = (*SHARES, "dropped", "efficiency")
RATES = ("output_tokens_per_s", "goodput")
METRICS = DURATIONS + SHARES + RATES
"""What an SLO may be about: a request meets it, or a level's rate does."""
SIZES = ("memory", "gpu_memory")
NUMBERS = ("stalls", "j_per_1000_tokens", "cost_per_1000_tokens")
FIGURES = (
    *(*METRICS, "dropped", "efficiency", "requests_per_s", "characters_per_s", "input_tokens_per_s"),
    *(*SIZES, *NUMBERS),
)
"""What a threshold may be about: also what no request can meet by itself."""
STATISTICS = ("p50", "p90", "p95", "p99", "p999", "mean", "max")
MORE_IS_BETTER = ("success", *RATES)

Op = Literal["<", "<=", ">", ">="]
_OPS: dict[str, Op] = {"<": "<", "<=": "<=", ">": ">", ">=": ">="}
_BOUND = re.compile(r"\s*([A-Za-z][\w.]*)\s*(<=|>=|<|>|=)\s*([^\s<>=].*?)\s*", re.ASCII | re.DOTALL)
_VALUE = re.compile(rf"({_NUMBER})\s*(%?)", re.ASCII)
_SIZE = re.compile(rf"({_NUMBER})\s*([kMGT]|[kKMG]i)?B", re.ASCII)
_BYTES = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "ki": 2.0**10, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}


class Duration(float):
    """Seconds, written "500ms", "30s", "5m", "1h", "1m30s" or as a bare number of seconds.

    >>> Duration.parse("500ms") + 1
    1.5
    >>> str(Duration.parse("90s")), str(Duration.parse(300)), float(Duration.parse("1h 5m"))
    ('90s', '5m', 3900.0)
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: str | float) -> Self:
        """Read a duration.

        Raises:
            ValueError: If it is no duration, negative, or longer than a week; the text says what to write.
        """
        if isinstance(text, bool) or not isinstance(text, str | int | float):
            raise ValueError(f"{shown(text)} is no duration: write {_AS}")
        if not isinstance(text, str):
            return cls._within(text, shown(text))
        written = text.strip()
        parts = _parts(written.removeprefix("-").removeprefix("+"))
        if not parts or (len(parts) > 1 and not all(unit for _, unit in parts)):
            raise ValueError(f"{shown(text)} is no duration: write {_AS}")
        units = [unit or "s" for _, unit in parts]
        for unit in units:
            if unit not in UNITS:
                raise ValueError(f"unknown unit {shown(unit)} in {shown(text)}: use ms, s, m or h")
        sizes = [UNITS[unit] for unit in units]
        if any(first <= second for first, second in pairwise(sizes)):
            raise ValueError(f"{shown(text)} is no duration: write the larger unit first, as 1h5m or 1m30s")
        # The smallest last: 0.1 and 0.001 are no binary fractions, and one part alone must read back as it was written.
        seconds = math.fsum(float(number) * size for (number, _), size in zip(parts, sizes, strict=True))
        return cls._within(-seconds if written.startswith("-") else seconds, shown(text))

    @classmethod
    def _within(cls, seconds: float, text: str) -> Self:
        if not 0 <= seconds <= LONGEST_S:  # false for NaN too
            raise ValueError(f"{text} is out of range: a duration is at least 0 and at most {LONGEST_S / 3600:g}h")
        return cls(seconds)

    def __str__(self) -> str:
        if not self:
            return "0s"
        for unit in ("h", "m", "s", "ms"):
            count = float(self) / UNITS[unit]
            # Only a whole number of the larger units reads well, and the text must read back to the same float.
            if (count.is_integer() or unit == "ms") and count >= 1 and float(f"{count:.15g}") * UNITS[unit] == self:
                return f"{count:.15g}{unit}"
        return f"{float(self)!r}s"

    def __repr__(self) -> str:
        return f"Duration({float(self)!r})"


def _parts(text: str) -> list[tuple[str, str]]:
    """Numbers and their units, from end to end; empty where something else is in it."""
    parts, at = [], 0
    while found := _PART.match(text, at):
        parts.append((found[1], found[2]))
        at = found.end()
    return parts if at == len(text) else []


class Bound(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A limit on a figure of a level: `METRIC[_STATISTIC] OP VALUE`.

    Attributes:
        metric: One of METRICS; of a threshold one of FIGURES.
        statistic: "p50" ... "p999", "mean" or "max" of a duration; None for shares and rates.
        op: The comparison that holds when the bound is met.
        value: ms for the durations, a fraction for the shares, per second for the rates, bytes for the sizes.
        text: As written.

    >>> Bound.parse("ttft_p95=800ms")
    Bound(metric='ttft', statistic='p95', op='<=', value=800.0, text='ttft_p95=800ms')
    >>> bound = Bound.parse("failed > 1%")
    >>> bound.op, bound.value
    ('>', 0.01)
    """

    metric: str
    statistic: str | None
    op: Op
    value: float
    text: str

    @classmethod
    def parse(cls, text: str, metrics: Sequence[str] = METRICS) -> Bound:
        """Read a bound; "=" reads as the metric's good direction ("<=" for ttft, ">=" for success).

        Args:
            metrics: Those that it may be about.

        Raises:
            UsageError: If it is no bound; one line that says what to write.
        """
        found = _BOUND.fullmatch(text)
        if not found:
            raise UsageError(f"{shown(text)} is no bound: write METRIC OP VALUE, as ttft_p95<=800ms or failed<1%")
        metric, statistic = _figure(found[1].lower(), text, metrics)
        op = read_op(found[2], more_is_better=metric in MORE_IS_BETTER)
        return cls(metric=metric, statistic=statistic, op=op, value=_value(metric, found[3], text), text=text.strip())

    def holds(self, value: float) -> bool:
        """Whether a figure, in the bound's unit, meets it."""
        match self.op:
            case "<":
                return value < self.value
            case "<=":
                return value <= self.value
            case ">":
                return value > self.value
            case ">=":
                return value >= self.value


def check_written(bound: Bound, *, holds: bool = True) -> None:
    """Refuse what people write but do not mean. Older runs may hold such bounds: they are read all the same.

    Args:
        holds: Whether it says what is to hold, as an SLO and a need do; a threshold says what fails.
    Raises:
        UsageError: A share of 1 without %, or a bound that calls for a bad figure; it says what to write.
    """
    if bound.metric in _SHARES and bound.value == 1 and not bound.text.rstrip().endswith("%"):
        raise UsageError(f"{shown(bound.text)}: {_ALL}")
    good: Op = ">=" if bound.metric in MORE_IS_BETTER else "<="
    if holds and bound.op[0] != good[0]:
        [figure, value] = re.split(r"[<>=]+", bound.text, maxsplit=1)
        turned = f"{figure.strip()} {good} {value.strip()}"
        raise UsageError(f"{shown(bound.text)}: this says what is to hold, and that would be bad: write {turned}")


_ALL = "1 is all of them: write 1%, or 100% where all are meant"


def share(text: str) -> float:
    """A share of a whole, written "20%" or "0.2".

    Raises:
        ValueError: If it is none; the text says what to write.

    >>> share("20%"), share("0.2")
    (0.2, 0.2)
    """
    found = _VALUE.fullmatch(text.strip())
    value = math.nan if found is None else float(found[1]) / (100 if found[2] else 1)
    if not 0 <= value <= 1:
        raise ValueError(f"{shown(text)}: write a share as 20% or 0.2")
    if found is not None and value == 1 and not found[2]:
        raise ValueError(f"{shown(text)}: {_ALL}")
    return value


def read_op(written: str, *, more_is_better: bool) -> Op:
    """The comparison as it is written; "=" reads as the figure's good direction.

    >>> read_op("<", more_is_better=True), read_op("=", more_is_better=True), read_op("=", more_is_better=False)
    ('<', '>=', '<=')
    """
    return _OPS.get(written, ">=" if more_is_better else "<=")


def _figure(name: str, text: str, metrics: Sequence[str]) -> tuple[str, str | None]:
    metric = next((m for m in metrics if name == m or name.startswith(f"{m}_")), None)
    if metric is None:
        examples = [f"{m}_p95" if m in DURATIONS else m for m in metrics]
        known = [*metrics, *(f"{m}_{s}" for m in DURATIONS for s in STATISTICS)]
        raise UsageError(f"{shown(text)}: unknown metric {shown(name)}{_offer(name, known, examples)}")
    statistic = name[len(metric) + 1 :] or None
    if metric in DURATIONS:
        if statistic is None:
            raise UsageError(f"{shown(text)}: which statistic of {metric}? Write {metric}_p95, or one of {_list()}")
        if statistic not in STATISTICS:
            raise UsageError(f"{shown(text)}: unknown statistic {shown(statistic)} of {metric}: use one of {_list()}")
    elif statistic is not None:
        raise UsageError(f"{shown(text)}: {metric} has no statistics: write {metric} alone")
    return metric, statistic


def _offer(name: str, known: Sequence[str], examples: Sequence[str]) -> str:
    """The end of a message on an unknown figure: the one that looks like it, or else what there is."""
    from difflib import get_close_matches  # only where something is wrong

    near = get_close_matches(name[:100], known, n=1, cutoff=_ALIKE)
    return f"; did you mean {near[0]}?" if near else f": use one of {', '.join(examples)}"


def _list() -> str:
    return ", ".join(STATISTICS)


def _value(metric: str, written: str, text: str) -> float:
    if metric in DURATIONS:
        if _VALUE.fullmatch(written):
            raise UsageError(f"{shown(text)}: a duration needs its unit: write {written}ms or {written}s")
        try:
            value = Duration.parse(written) * 1000
        except ValueError as error:
            raise UsageError(f"{shown(text)}: {error}") from None
        if value == 0:
            raise UsageError(f"{shown(text)}: a duration of 0 can never be met")
        return value
    if metric in SIZES:
        size = _SIZE.fullmatch(written)
        if not size or not math.isfinite(float(size[1])):
            raise UsageError(f"{shown(text)}: the value {shown(written)} must be a size, as 800MB, 2GB or 2GiB")
        return float(size[1]) * _BYTES.get(size[2], 1.0)
    found = _VALUE.fullmatch(written)
    if not found or (found[2] and metric not in _SHARES) or not math.isfinite(float(found[1])):
        number = "a number, as 25.5" if metric in NUMBERS else "a number per second, as 25.5"
        unit = "a share, as 1% or 0.01" if metric in _SHARES else number
        raise UsageError(f"{shown(text)}: the value {shown(written)} must be {unit}")
    value = float(found[1]) / (100 if found[2] else 1)
    if metric in _SHARES and value > 1:
        hint = f": write {written}%" if not found[2] and value <= 100 else ""
        raise UsageError(f"{shown(text)}: a share is at most 1 or 100%{hint}")
    return value
