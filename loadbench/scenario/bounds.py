"""Durations ("500ms", "5m"), and limits on figures ("ttft_p95 < 800ms"): the small grammars of options and files.

One parser reads every limit. An SLO and a requirement say what is to hold, a threshold says what fails a run; which
figures each may be about, `figures.py` declares.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import msgspec
from msgspec import Meta

from loadbench import figures
from loadbench.errors import UsageError
from loadbench.figures import ALIASES, STATISTICS, Door, Figure
from loadbench.text import shown

# -- durations

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_EXAMPLES = "500ms, 30s, 5m, 1h or 1m30s"
LONGEST_S = 7 * 24 * 3600.0
_NUMBER = r"[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+"
_PART = re.compile(rf"\s*({_NUMBER})\s*([^\W\d_]*)", re.ASCII)


class Duration(float):
    """Seconds, written "500ms", "30s", "5m", "1h", "1m30s" or as a bare number of seconds.

    >>> Duration.parse("500ms") + 1
    1.5
    >>> str(Duration.parse("90s")), str(Duration.parse(300)), float(Duration.parse("1h 5m"))
    ('90s', '5m', 3900.0)
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: object) -> Self:
        """Read a duration.

        Raises:
            ValueError: If it is no duration, negative, or longer than a week; the text says what to write.
        """
        if isinstance(text, bool) or not isinstance(text, str | int | float):
            raise ValueError(f"{shown(text)} is no duration: write {_EXAMPLES}")
        if not isinstance(text, str):
            return cls._within(text, shown(text))
        written = text.strip()
        parts = _parts(written.removeprefix("-").removeprefix("+"))
        if not parts or (len(parts) > 1 and "" in [unit for _, unit in parts]):
            raise ValueError(f"{shown(text)} is no duration: write {_EXAMPLES}")
        sizes, seconds = [], []
        for number, unit in parts:
            size = _UNITS_S.get(unit or "s")
            if size is None:
                raise ValueError(f"unknown unit {shown(unit)} in {shown(text)}: use ms, s, m or h")
            sizes.append(size)
            seconds.append(float(number) * size)
        if sizes != sorted(set(sizes), reverse=True):
            raise ValueError(f"{shown(text)} is no duration: write the larger unit first, as 1h5m or 1m30s")
        # Exactly: 0.1 and 0.001 are no binary fractions, and one part alone must read back as it was written.
        total_s = math.fsum(seconds)
        if written.startswith("-"):
            total_s = -total_s
        return cls._within(total_s, shown(text))

    @classmethod
    def _within(cls, seconds: float, text: str) -> Self:
        if not 0 <= seconds <= LONGEST_S:  # false for NaN too
            raise ValueError(f"{text} is out of range: a duration is at least 0 and at most {LONGEST_S / 3600:g}h")
        return cls(seconds)

    def __str__(self) -> str:
        if not self:
            return "0s"
        for unit in ("h", "m", "s", "ms"):
            count = float(self) / _UNITS_S[unit]
            # Only a whole number of the larger units reads well, and the text must read back to the same float.
            if (count.is_integer() or unit == "ms") and count >= 1 and float(f"{count:.15g}") * _UNITS_S[unit] == self:
                return f"{count:.15g}{unit}"
        return f"{float(self)!r}s"

    def __repr__(self) -> str:
        return f"Duration({float(self)!r})"


def _parts(text: str) -> list[tuple[str, str]]:
    """Numbers and their units, from end to end; empty where something else is in it."""
    parts, position = [], 0
    while part := _PART.match(text, position):
        parts.append((part[1], part[2]))
        position = part.end()
    if position < len(text):
        return []
    return parts


# -- bounds

Op = Literal["<", "<=", ">", ">="]
_OPS: dict[str, Op] = {"<": "<", "<=": "<=", ">": ">", ">=": ">="}
_BOUND = re.compile(r"\s*([A-Za-z][\w.]*)\s*(<=|>=|<|>|=)\s*([^\s<>=].*?)\s*", re.ASCII | re.DOTALL)
_NOT_A_BOUND: dict[Door, str] = {
    "slo": "is no bound: write METRIC OP VALUE, as ttft_p95<=800ms or failed<1%",
    "threshold": "is no threshold: write what fails as METRIC OP VALUE, as ttft_p95 > 800ms or failed > 1%",
    "need": "is no need: write ttft_p95<1s, memory<4GB or license=mit,apache-2.0",
}


class Bound(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A limit on a figure: `METRIC[_STATISTIC] OP VALUE`.

    >>> Bound.parse("ttft_p95=800ms")
    Bound(metric='ttft', statistic='p95', op='<=', value=800.0, text='ttft_p95=800ms')
    >>> bound = Bound.parse("failed > 1%")
    >>> bound.op, bound.value
    ('>', 0.01)
    """

    metric: str  # the key of a figure
    statistic: str | None  # "p50" ... "p999", "mean" or "max" of a distribution; None of a single number
    op: Op  # the comparison that holds when the bound is met
    value: float  # in the figure's unit
    text: str  # as written

    @classmethod
    def parse(cls, text: str, door: Door = "slo") -> Bound:
        """Read a bound; "=" reads as the metric's good direction ("<=" for ttft, ">=" for success).

        Args:
            door: What it is for, which says what it may be about.

        Raises:
            UsageError: If it is no bound; one line that says what to write.
        """
        found = _BOUND.fullmatch(text)
        if not found:
            raise UsageError(f"{shown(text)} {_NOT_A_BOUND[door]}")
        figure, statistic = _figure(found[1].lower(), text, door)
        op = _OPS.get(found[2], _good(figure))
        value = _value(figure, found[3], text, door)
        return cls(metric=figure.key, statistic=statistic, op=op, value=value, text=text.strip())

    @property
    def figure(self) -> Figure:
        """What it is about."""
        return figures.FIGURES[self.metric]

    @property
    def name(self) -> str:
        """The figure with its statistic: "ttft_p95"."""
        return self.metric if self.statistic is None else f"{self.metric}_{self.statistic}"

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
    if bound.figure.unit == "share" and bound.value == 1 and not bound.text.endswith("%"):
        raise UsageError(f"{shown(bound.text)}: {_ALL}")
    good = _good(bound.figure)
    if holds and bound.op[0] != good[0]:
        value = re.split(r"[<>=]+", bound.text, maxsplit=1)[1]
        turned = f"{bound.name} {good} {value.strip()}"
        raise UsageError(f"{shown(bound.text)}: this says what is to hold, and that would be bad: write {turned}")


def _good(figure: Figure) -> Op:
    return ">=" if figure.more_is_better else "<="


def _figure(name: str, text: str, door: Door) -> tuple[Figure, str | None]:
    name = ALIASES.get(name, name)
    alias, _, end = name.rpartition("_")
    if alias in ALIASES and end in STATISTICS:
        name = f"{ALIASES[alias]}_{end}"
    for figure in figures.of(door):
        if figure.unit != "word" and f"{name}_".startswith(f"{figure.key}_"):
            break
    else:
        noun = "figure" if door == "need" else "metric"
        raise UsageError(f"{shown(text)}: unknown {noun} {shown(name)}{_offer(name, door)}")
    statistic = name[len(figure.key) + 1 :] or None
    choice = ", ".join(STATISTICS)
    if figure.values:
        if statistic is None:
            raise UsageError(f"{shown(text)}: which statistic of {name}? Write {name}_p95, or one of {choice}")
        if statistic not in STATISTICS:
            raise UsageError(
                f"{shown(text)}: unknown statistic {shown(statistic)} of {figure.key}: use one of {choice}"
            )
    elif statistic is not None:
        raise UsageError(f"{shown(text)}: {figure.key} has no statistics: write {figure.key} alone")
    return figure, statistic


_ALIKE = 0.65  # of difflib: the names are short, and at 0.5 `speed` passes for `e2e`, at 0.6 `p95` for `itl_p95`


def _offer(name: str, door: Door) -> str:
    """The end of a message on an unknown figure: the one that looks like it, or else what there is."""
    from difflib import get_close_matches  # only where something is wrong

    examples, names, statistics = [], [], []
    for one in figures.of(door):
        names.append(one.key)
        if one.values:
            statistics += [f"{one.key}_{statistic}" for statistic in STATISTICS]
        examples.append(f"{one.key}_p95" if one.values else one.key)
    near = get_close_matches(name[:100], names + statistics, n=1, cutoff=_ALIKE)
    if near:
        return f"; did you mean {near[0]}?"
    return f": use one of {', '.join(examples)}"


# -- values of bounds

_ALL = "1 is all of them: write 1%, or 100% where all are meant"
_AMOUNT = re.compile(rf"(EUR|USD|GBP|[€$£])?\s*({_NUMBER})\s*([^\W\d_]*|[%€$£])", re.IGNORECASE)
_BYTES = {
    "b": 1.0,
    **{"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12},
    **{"kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30, "tib": 2.0**40},
}
_SUFFIXES = {"currency": ("", "eur", "usd", "gbp", "€", "$", "£"), "J": ("", "j"), "share": ("", "%")}
_MUST_BE = {
    "bytes": "the value {} must be a size, as 800MB, 2GB or 2GiB",
    "share": "the value {} must be a share, as 1% or 0.01",
    "/s": "the value {} must be a number per second, as 25.5",
    "points": "{} is no score: write a number from 1 to 5",
    "currency": "{} is no amount: write a number, as 0.002",
}


def _value(figure: Figure, written: str, text: str, door: Door) -> float:
    """The limit in the figure's unit."""
    found = _AMOUNT.fullmatch(written)
    number, suffix = math.nan, ""
    if found is not None and (found[1] is None or figure.unit == "currency"):
        number, suffix = float(found[2]), found[3].lower()
    if figure.unit == "ms":
        return _milliseconds(written, text, bare=not math.isnan(number) and suffix in ("", "%"))
    if figure.unit == "bytes":
        number = number * _BYTES.get(suffix, math.nan)
    elif suffix not in _SUFFIXES.get(figure.unit, ("",)) or (figure.unit == "points" and not 1 <= number <= 5):
        number = math.nan
    elif suffix == "%":
        number /= 100
    if not math.isfinite(number):
        must_be = _MUST_BE.get(figure.unit, "the value {} must be a number, as 25.5")
        if figure.unit == "bytes" and door == "need":
            must_be = "{} is no size: write 4GB or 500MB"
        raise UsageError(f"{shown(text)}: {must_be.format(shown(written))}")
    if figure.unit == "share" and number > 1:
        hint = f": write {written}%" if suffix == "" and number <= 100 else ""
        raise UsageError(f"{shown(text)}: a share is at most 1 or 100%{hint}")
    return number


def _milliseconds(written: str, text: str, *, bare: bool) -> float:
    if bare:
        raise UsageError(f"{shown(text)}: a duration needs its unit: write {written}ms or {written}s")
    try:
        value = Duration.parse(written) * 1000
    except ValueError as error:
        raise UsageError(f"{shown(text)}: {error}") from None
    if value == 0:
        raise UsageError(f"{shown(text)}: a duration of 0 can never be met")
    return value


def share(text: str) -> float:
    """A share of a whole, written "20%" or "0.2".

    Raises:
        ValueError: If it is none; the text says what to write.

    >>> share("20%"), share("0.2")
    (0.2, 0.2)
    """
    found = re.fullmatch(rf"({_NUMBER})\s*(%?)", text.strip())
    value = math.nan
    if found is not None:
        value = float(found[1])
        if found[2]:
            value /= 100
    if not 0 <= value <= 1:
        raise ValueError(f"{shown(text)}: write a share as 20% or 0.2")
    if value == 1 and not text.strip().endswith("%"):
        raise ValueError(f"{shown(text)}: {_ALL}")
    return value


# -- thresholds: what fails a run

AFTER_S = 10.0  # measured time before which nothing is aborted, unless `after` says otherwise
MOST_CHARACTERS = 300
_EARLY_TIMES = ("ttft", "ttfat", "tpot", "e2e", "normalised_latency", "client_queue")
_EARLY_COUNTS = ("failed", "success", "dropped")
_THRESHOLD = re.compile(r"\s*(?P<head>[^{<>=]*?)\s*(?:\{(?P<level>[^{}]*)\}\s*)?(?P<tail>[<>=].*)", re.DOTALL)
_ABORT = re.compile(r"(?P<bound>.*?\S)\s+abort(?:\s+after\s+(?P<after>\S.*?))?\s*", re.DOTALL | re.IGNORECASE)
_TURNED = {"<=": ">", "<": ">", ">=": "<", ">": "<"}


class FailIf(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"when": "if"}):
    """A threshold as a table of a scenario file: `{if = "failed > 10%", abort = true, after = "10s"}`."""

    when: Annotated[str, Meta(min_length=1, max_length=10_000, description='The failure, as "failed > 10%".')]
    abort: Annotated[bool, Meta(description="End the run as soon as it surely holds.")] = False
    after: Annotated[Duration | None, Meta(description="Measured time before which nothing is aborted; 10s.")] = None


class Threshold(msgspec.Struct, frozen=True):
    """A condition under which a run has failed. The written condition is the failure, not what should hold.

    >>> Threshold.parse("failed > 10% abort after 5s").after_s
    5.0
    >>> one = Threshold.parse("ttft_p95{c8} > 800ms")
    >>> one.level, one.bound.value, one.text
    ('c8', 800.0, 'ttft_p95{c8} > 800ms')
    """

    bound: Bound  # the condition
    # To which levels it is restricted: a load ("c8"), a model, or both ("phi-4-mini@c8"); None for all
    level: str | None
    abort: bool  # whether the run ends as soon as it surely holds
    after_s: float  # measured time of a level before which it ends nothing
    text: str  # the condition as written, without `abort`

    @classmethod
    def parse(cls, text: str) -> Threshold:
        """Read `METRIC[_STATISTIC][{LEVEL}] OP VALUE [abort [after DURATION]]`.

        Raises:
            UsageError: If it is none; one line that says what to write.
        """
        if len(text) > MOST_CHARACTERS:  # its expressions take the cube of that
            raise UsageError(f"{shown(text)} is no threshold: it has more than {MOST_CHARACTERS} characters")
        ending, condition = _ABORT.fullmatch(text), text.strip()
        if ending:
            condition = ending["bound"].strip()
        found = _THRESHOLD.fullmatch(condition)
        if not found:
            raise UsageError(f"{shown(text)} {_NOT_A_BOUND['threshold']}")
        unrestricted = condition if found["level"] is None else f"{found['head']} {found['tail']}"
        bound = Bound.parse(unrestricted, "threshold")
        if found["tail"].startswith("="):
            turned = f"{found['head']} {_TURNED[bound.op]} {found['tail'][1:].strip()}"
            raise UsageError(f"{shown(text)}: = says what is to hold; a threshold says what fails: write {turned}")
        level = None if found["level"] is None else found["level"].strip()
        if level == "":
            raise UsageError(f"{shown(text)}: name a level in the braces, as {found['head']}{{c8}}, or leave them out")
        after_s = AFTER_S
        if ending and ending["after"]:
            try:
                after_s = float(Duration.parse(ending["after"]))
            except ValueError as error:
                raise UsageError(f"{shown(text)}: {error}") from None
        if ending and (why := _not_early(bound)):
            raise UsageError(f"{shown(text)}: abort cannot be decided early of {why}: leave abort out")
        return cls(bound=bound, level=level, abort=ending is not None, after_s=after_s, text=condition)

    @classmethod
    def of(cls, written: str | FailIf | Mapping[str, object]) -> Threshold:
        """Read what a scenario holds, as text or table.

        Raises:
            UsageError: If it is no threshold.
        """
        if isinstance(written, str):
            return cls.parse(written)
        rule = written if isinstance(written, FailIf) else msgspec.convert(written, FailIf, dec_hook=decoded)
        if rule.after is not None and not rule.abort:
            raise UsageError(f"{shown(rule.when)}: after says when to abort: add abort = true, or leave it out")
        text = rule.when
        if rule.abort and not _ABORT.fullmatch(text):
            text = f"{text} abort"
        found = cls.parse(text)
        if rule.after is None:
            return found
        return msgspec.structs.replace(found, after_s=float(rule.after))

    def is_about(self, level: str, model: str) -> bool:
        """Whether it judges this level: every repeat of a load is one of that name.

        >>> Threshold.parse("ttft_p95{c8} > 1s").is_about("phi@c8#2", "phi")
        True
        """
        name = re.sub(r"#\w+$", "", level)
        return self.level in (None, model, level, name, name.removeprefix(f"{model}@"))


def _not_early(bound: Bound) -> str | None:
    """Why no count of requests can decide it before the end; None where one can."""
    if bound.metric in _EARLY_COUNTS:
        return None
    if bound.metric not in _EARLY_TIMES:
        counts, times = ", ".join(_EARLY_COUNTS), ", ".join(_EARLY_TIMES)
        return f"{bound.metric}, only of {counts} and of percentiles of {times}"
    if bound.statistic == "mean":
        return "a mean"
    if bound.statistic == "max" and bound.op in ("<", "<="):
        return "a maximum that is to be small"
    return None


def decoded(kind: type, value: object) -> object:
    """How msgspec reads a duration or a path, for its `dec_hook`."""
    if kind is Duration:
        return Duration.parse(value)
    if issubclass(kind, Path):
        return Path(str(value))
    raise NotImplementedError(kind)


def encoded(value: object) -> str:
    """How msgspec writes them, for its `enc_hook`."""
    if isinstance(value, Duration | Path):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} has no place in a scenario")


# -- requirements of a choice


@dataclass(frozen=True, slots=True)
class Need:
    """What a candidate must meet: METRIC[_STATISTIC] OP VALUE, or WORD=a,b,c."""

    text: str  # as written
    name: str  # the figure: "ttft_p95", "memory", "licence"
    bound: Bound | None  # the limit in the figure's unit; None of words
    words: Sequence[str] = ()  # the words that are good, in lower case

    @classmethod
    def parse(cls, text: str) -> Need:
        """Read a need; "=" reads as the figure's good direction.

        Raises:
            UsageError: If it is none; one line that says what to write.

        >>> need = Need.parse("memory < 4GB")
        >>> need.name, need.bound.op, need.bound.value
        ('memory', '<', 4000000000.0)
        >>> Need.parse("license=mit, Apache-2.0").words
        ('mit', 'apache-2.0')
        """
        found = _BOUND.fullmatch(text)
        figure = None
        if found is not None:
            name = found[1].lower()
            figure = figures.FIGURES.get(ALIASES.get(name, name))
        if found is not None and figure is not None and figure.unit == "word" and "need" in figure.doors:
            words = tuple(filter(None, map(str.strip, found[3].lower().split(","))))
            if found[2] != "=" or not words:
                raise UsageError(f"{shown(text)}: write {found[1]}=a,b with the {figure.key}s that are good")
            return cls(text=text.strip(), name=figure.key, bound=None, words=words)
        bound = Bound.parse(text, "need")
        check_written(bound)
        return cls(text=text.strip(), name=bound.name, bound=bound)

    @property
    def unit(self) -> str:
        """Of the limit; "" of words."""
        return "" if self.bound is None else self.bound.figure.unit
