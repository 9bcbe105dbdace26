"""Loads: requests in flight or started, rates that change, lengths of texts and pauses; the levels of a run."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Literal

import msgspec

from loadbench.errors import UsageError
from loadbench.scenario.bounds import Duration
from loadbench.text import shown

if TYPE_CHECKING:
    import numpy as np

# -- levels


class Level(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One load on one model: a concurrency (closed loop) or a request rate (open loop)."""

    id: str  # unique in the run: "phi-4-mini@c4", "phi-4-mini@r0.5", "phi-4-mini@c4#2" for the second repeat
    model: str  # as the scenario or the server names it
    concurrency: int | None  # requests in flight, or users who pause between them; None in open loop
    request_rate_per_s: float | None  # requests started per second, of a shape the mean; None in closed loop
    repeat: int  # 1 for the first time this load is measured on this model
    # How the rate changes, as "ramp 1..8 over 2m" or "trace day.jsonl"; None where it does not
    shape: str | None = None
    # Whether this is a model's first level once more, at its end: how far the machine wandered meanwhile
    closing: bool = False

    @property
    def load_facts(self) -> dict[str, int | float | str | None]:
        """What run.json says of the load, by the names of its fields."""
        rate = {"concurrency": self.concurrency, "request_rate_per_s": self.request_rate_per_s}
        return {**rate, "repeat": self.repeat, "shape": self.shape}

    @property
    def is_replay(self) -> bool:
        """Whether requests start when a trace says so."""
        return self.shape is not None and self.shape.startswith(TRACE)


TRACE = "trace "  # how the shape of a level begins that replays a trace; the file's name follows


class Load(msgspec.Struct, frozen=True):
    """When requests start, and how that is called in a level's id."""

    name: str
    concurrency: int | None = None
    rate_per_s: float | None = None
    shape: str | None = None

    def level(self, model: str, repeat: int) -> Level:
        name = f"{model}@{self.name}"
        if repeat > 1:
            name = f"{name}#{repeat}"
        return Level(name, model, self.concurrency, self.rate_per_s, repeat, self.shape)


def in_turns(models: Sequence[str], loads: Sequence[Load], *, repeat: int = 1, closes: bool = False) -> list[Level]:
    """Model by model, all loads; each further repeat of it all the other way round, so that a drift cancels out.

    Args:
        loads: One that is there twice counts as a further repeat.
        repeat: How often all of it is measured.
        closes: Whether each model ends with its first load once more, where it has several and nothing is repeated.
    """
    turns = list(product(models, loads))
    closes = closes and repeat == 1 and len(set(loads)) == len(loads) > 1 and loads[0].shape is None
    times: Counter[tuple[str, Load]] = Counter()
    levels: list[Level] = []
    for lap in range(repeat):
        for model, load in turns[::-1] if lap % 2 else turns:
            times[model, load] += 1
            levels.append(load.level(model, times[model, load]))
            if closes and load == loads[-1]:
                first = loads[0].level(model, 1)
                levels.append(msgspec.structs.replace(first, id=f"{first.id}#end", closing=True))
    return levels


# -- shapes: how the request rate changes over a level, as pieces on each of which it is a straight line

FASTEST_PER_S = 1_000_000
EXAMPLES = '"ramp 1..8 over 2m", "steps 1,2,4 each 30s" or "spike 1 to 10 at 30s for 10s"'
_RATE, _TIME = r"([^\s,]+?)", r"(\S+(?: \d\S*){0,3})"
_RAMP = re.compile(rf"ramp {_RATE} ?\.\. ?{_RATE} over {_TIME}")
_STEPS = re.compile(rf"steps (.+) each {_TIME}")
_SPIKE = re.compile(rf"spike {_RATE} to {_RATE} at {_TIME} for {_TIME}(?: over {_TIME})?")


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of time in which the rate goes from one value to another in a straight line."""

    duration_s: float
    from_per_s: float
    to_per_s: float

    @property
    def requests(self) -> float:
        """How many requests are due in it: the integral of the rate."""
        return self.duration_s * (self.from_per_s + self.to_per_s) / 2


@dataclass(frozen=True, slots=True)
class Shape:
    """An open loop whose rate changes.

    >>> ramp = Shape.parse("ramp 1..8 over 120s")
    >>> ramp.text, ramp.name, ramp.requests, ramp.mean_per_s
    ('ramp 1..8 over 2m', 'ramp1-8', 540.0, 4.5)
    """

    text: str  # as one writes it, in its shortest form
    pieces: tuple[Piece, ...]  # one after the other from the level's beginning

    @classmethod
    def parse(cls, text: str) -> Shape:
        """Read a shape: `ramp A..B over TIME`, `steps A,B,… each TIME`, `spike A to B at TIME for TIME [over TIME]`.

        A spike goes back to its base for as long as it was there before, or until the time that is given.

        Raises:
            UsageError: If it is no shape; one line that says what to write.
        """
        words = " ".join(text.split()).lower()
        if found := _RAMP.fullmatch(words):
            (first, last), over = _rates(found.group(1, 2), text), _time(found[3], text)
            shape = cls(f"ramp {first:.15g}..{last:.15g} over {over}", (Piece(float(over), first, last),))
        elif found := _STEPS.fullmatch(words):
            rates, each = _rates(found[1].split(","), text), _time(found[2], text)
            steps = ",".join(f"{rate:.15g}" for rate in rates)
            shape = cls(f"steps {steps} each {each}", tuple(Piece(float(each), rate, rate) for rate in rates))
        elif found := _SPIKE.fullmatch(words):
            base, peak = _rates(found.group(1, 2), text)
            at, lasts = _time(found[3], text), _time(found[4], text)
            short, rest_s = f"spike {base:.15g} to {peak:.15g} at {at} for {lasts}", float(at)
            if found[5] is not None:
                over = _time(found[5], text)
                short, rest_s = f"{short} over {over}", float(over) - float(at) - float(lasts)
                if rest_s < 0:
                    raise UsageError(
                        f"{shown(text)}: the spike ends after the shape does: give a longer time after over"
                    )
            stretches = ((float(at), base), (float(lasts), peak), (rest_s, base))
            shape = cls(short, tuple(Piece(time_s, rate, rate) for time_s, rate in stretches if time_s > 0))
        else:
            raise UsageError(f"{shown(text)} is no shape: write {EXAMPLES}")
        if not shape.requests > 0:
            raise UsageError(f"{shown(text)} starts no request: give a rate above 0")
        return shape

    @property
    def name(self) -> str:
        """For the level's id: kind and rates."""
        return _RATES_ONLY.sub("", self.text).replace(" to ", "-").replace("..", "-").replace(",", "-").replace(" ", "")

    @property
    def long_name(self) -> str:
        """For the level's id where another shape has the same name: all that it says."""
        return self.text.replace(" to ", "-").replace("..", "-").replace(",", "-").replace(" ", "-")

    @property
    def duration_s(self) -> float:
        """From the level's beginning to the shape's end."""
        return sum(piece.duration_s for piece in self.pieces)

    @property
    def requests(self) -> float:
        """How many are due in all."""
        return sum(piece.requests for piece in self.pieces)

    @property
    def mean_per_s(self) -> float:
        """The mean request rate."""
        return self.requests / self.duration_s

    @property
    def peak_per_s(self) -> float:
        """The highest request rate."""
        return max(max(piece.from_per_s, piece.to_per_s) for piece in self.pieces)


_RATES_ONLY = re.compile(r" (?:over|each|at) .*")


def names(shapes: Sequence[Shape]) -> list[str]:
    """A name for each, short where no other shape has it.

    >>> names([Shape.parse(f"ramp 1..8 over {time}") for time in ("1m", "2m")])
    ['ramp-1-8-over-1m', 'ramp-1-8-over-2m']
    """
    texts: dict[str, set[str]] = {}
    for shape in shapes:
        texts.setdefault(shape.name, set()).add(shape.text)
    found = []
    for shape in shapes:
        alone = len(texts[shape.name]) == 1
        found.append(shape.name if alone else shape.long_name)
    return found


def _rates(written: Iterable[str], text: str) -> list[float]:
    rates = []
    for word in written:
        try:
            rate = float(word)
        except ValueError:
            rate = -1.0
        if not 0 <= rate <= FASTEST_PER_S:  # false for NaN too
            problem = f"must be a number of requests per second, 0 to {FASTEST_PER_S}"
            raise UsageError(f"{shown(text)}: {shown(word.strip())} {problem}")
        rates.append(rate)
    return rates


def _time(written: str, text: str) -> Duration:
    try:
        time = Duration.parse(written)
    except ValueError as error:
        raise UsageError(f"{shown(text)}: {error}") from None
    if not time > 0:
        raise UsageError(f"{shown(text)}: {written} must be more than 0")
    return time


# -- lengths and pauses: fixed, or drawn from a law by a generator that is handed in

LONGEST = 1_000_000
LAWS = {"fixed": 1, "normal": 2, "uniform": 2, "lognormal": 2}
"""Laws by the count of their numbers: fixed N, normal and lognormal MEAN DEVIATION, uniform LOW HIGH."""

Unit = Literal["words", "characters", "tokens"]
_UNITS: tuple[Unit, ...] = ("words", "characters", "tokens")


@dataclass(frozen=True, slots=True)
class Length:
    """How long texts are: `[UNIT] [LAW] NUMBER [NUMBER]`.

    >>> Length.parse("tokens normal 512 128")
    Length(unit='tokens', law='normal', a=512.0, b=128.0)
    >>> Length.parse("200")
    Length(unit='words', law='fixed', a=200.0, b=0.0)
    """

    unit: Unit  # what is counted
    law: str  # one of LAWS
    # Its numbers; of normal and lognormal the mean and the standard deviation of the length itself
    a: float
    b: float = 0.0

    @classmethod
    def parse(cls, text: str, *, unit: Unit | None = None) -> Length:
        """Read a length.

        Args:
            unit: The only one there is; else the text may name one, and counts words where it does not.

        Raises:
            UsageError: If it is no length; one line that says what to write.
        """
        rest = text.lower().split()
        units, example = _UNITS, "tokens normal 512 128, words 200 or characters uniform 100 900"
        if unit is not None:
            units, example = (unit,), "128, normal 128 32, uniform 16 256 or lognormal 128 64"
        counted = unit or "words"
        for one in units:
            if rest[:1] == [one]:
                counted, rest = one, rest[1:]
                break
        law = "fixed"
        if rest and rest[0] in LAWS:
            law, *rest = rest
        if not rest or len(rest) != LAWS[law]:
            raise UsageError(f"{shown(text)} is no length: write {example}")
        try:
            a, b = float(rest[0]), float(rest[-1])
            if LAWS[law] == 1:
                b = 0.0
        except ValueError:
            raise UsageError(f"{shown(text)} is no length: write {example}") from None
        if not 1 <= a <= LONGEST or not 0 <= b <= LONGEST:  # false for NaN too
            raise UsageError(f"{shown(text)}: a length must be 1 to {LONGEST}, a deviation at least 0")
        if law == "uniform" and b < a:
            raise UsageError(f"{shown(text)}: uniform goes from the lower to the higher: write uniform {b:g} {a:g}")
        return cls(counted, law, a, b)

    def draw(self, rng: np.random.Generator, count: int) -> list[int]:
        """So many lengths, whole numbers from 1 to LONGEST: what a law gives beyond is moved to the edge."""
        match self.law:
            case "normal":
                drawn = rng.normal(self.a, self.b, count)
            case "lognormal":
                variance = math.log1p((self.b / self.a) ** 2)
                drawn = rng.lognormal(math.log(self.a) - variance / 2, math.sqrt(variance), count)
            case "uniform":
                drawn = rng.uniform(round(self.a) - 0.5, round(self.b) + 0.5, count)
            case _:
                return [round(self.a)] * count
        return [min(max(round(one), 1), LONGEST) for one in drawn.tolist()]


@dataclass(frozen=True, slots=True)
class Pause:
    """How long a user waits between an answer and the next question: `2s`, or `exponential 2s` for a mean.

    >>> Pause.parse("exponential 500ms")
    Pause(mean_s=0.5, exponential=True)
    """

    mean_s: float
    exponential: bool = False

    @classmethod
    def parse(cls, text: str) -> Pause:
        """Read a pause.

        Raises:
            UsageError: If it is none; one line that says what to write.
        """
        words, kind = text.split(), "constant"
        if len(words) > 1 and words[0].isalpha():
            kind = words.pop(0).lower()
        if kind not in ("constant", "exponential"):
            raise UsageError(f"{shown(text)} is no pause: write 2s or exponential 2s")
        try:
            mean = Duration.parse(" ".join(words))
        except ValueError as error:
            raise UsageError(str(error)) from None
        if not mean > 0:
            raise UsageError(f"{shown(text)} must be more than 0; leave it out where users do not pause")
        return cls(float(mean), kind == "exponential")

    def draw_ns(self, rng: np.random.Generator) -> int:
        """The next pause in ns."""
        if self.exponential:
            return round(rng.exponential(self.mean_s) * 1e9)
        return round(self.mean_s * 1e9)
