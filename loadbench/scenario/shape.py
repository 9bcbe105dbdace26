"""Shapes of load: how the request rate changes over a level, as pieces on each of which it is a straight line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from loadbench.bounds import Duration
from loadbench.errors import UsageError
from loadbench.text import shown

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

    Attributes:
        text: As one writes it, in its shortest form.
        pieces: One after the other from the level's beginning.

    >>> ramp = Shape.parse("ramp 1..8 over 120s")
    >>> ramp.text, ramp.name, ramp.requests, ramp.mean_per_s
    ('ramp 1..8 over 2m', 'ramp1-8', 540.0, 4.5)
    """

    text: str
    pieces: tuple[Piece, ...]

    @classmethod
    def parse(cls, text: str) -> Shape:
        """Read a shape: `ramp A..B over TIME`, `steps A,B,… each TIME`, `spike A to B at TIME for TIME [over TIME]`.

        A spike goes back to its base for as long as it was there before, or until the time that is given.

        Raises:
            UsageError: If it is no shape; one line that says what to write.
        """
        words = " ".join(text.split()).lower()
        if found := _RAMP.fullmatch(words):
            first, last = _rates(found.group(1, 2), text)
            shape = _ramp(first, last, _time(found[3], text))
        elif found := _STEPS.fullmatch(words):
            shape = _steps(_rates(found[1].split(","), text), _time(found[2], text))
        elif found := _SPIKE.fullmatch(words):
            over = None if found[5] is None else _time(found[5], text)
            base, peak = _rates(found.group(1, 2), text)
            shape = _spike(base, peak, _time(found[3], text), _time(found[4], text), over, text)
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
    return [shape.name if len(texts[shape.name]) == 1 else shape.long_name for shape in shapes]


def _ramp(first: float, last: float, over: Duration) -> Shape:
    return Shape(f"ramp {first:.15g}..{last:.15g} over {over}", (Piece(float(over), first, last),))


def _steps(rates: Sequence[float], each: Duration) -> Shape:
    text = f"steps {','.join(f'{rate:.15g}' for rate in rates)} each {each}"
    return Shape(text, tuple(Piece(float(each), rate, rate) for rate in rates))


def _spike(base: float, peak: float, at: Duration, lasts: Duration, over: Duration | None, written: str) -> Shape:
    rest_s = float(at) if over is None else float(over) - float(at) - float(lasts)
    if rest_s < 0:
        raise UsageError(f"{shown(written)}: the spike ends after the shape does: give a longer time after over")
    text = f"spike {base:.15g} to {peak:.15g} at {at} for {lasts}" + ("" if over is None else f" over {over}")
    stretches = ((float(at), base), (float(lasts), peak), (rest_s, base))
    return Shape(text, tuple(Piece(time_s, rate, rate) for time_s, rate in stretches if time_s > 0))


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
