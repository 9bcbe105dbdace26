"""Lengths of prompts and answers, and pauses of users: fixed, or drawn from a law by a generator that is handed in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from loadbench.bounds import Duration
from loadbench.errors import UsageError
from loadbench.text import shown

if TYPE_CHECKING:
    import numpy as np

LONGEST = 1_000_000
LAWS = {"fixed": 1, "normal": 2, "uniform": 2, "lognormal": 2}
"""Laws by the count of their numbers: fixed N, normal and lognormal MEAN DEVIATION, uniform LOW HIGH."""

Unit = Literal["words", "characters", "tokens"]
_UNITS: tuple[Unit, ...] = ("words", "characters", "tokens")


@dataclass(frozen=True, slots=True)
class Length:
    """How long texts are: `[UNIT] [LAW] NUMBER [NUMBER]`.

    Attributes:
        unit: What is counted.
        law: One of LAWS.
        a, b: Its numbers; of normal and lognormal the mean and the standard deviation of the length itself.

    >>> Length.parse("tokens normal 512 128")
    Length(unit='tokens', law='normal', a=512.0, b=128.0)
    >>> Length.parse("200")
    Length(unit='words', law='fixed', a=200.0, b=0.0)
    """

    unit: Unit
    law: str
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
        words = text.lower().split()
        units = _UNITS if unit is None else (unit,)
        named = next((one for one in units if words[:1] == [one]), None)
        rest = words[1:] if named else words
        law = rest.pop(0) if rest and rest[0] in LAWS else "fixed"
        example = "tokens normal 512 128, words 200 or characters uniform 100 900"
        if unit is not None:
            example = "128, normal 128 32, uniform 16 256 or lognormal 128 64"
        if not rest or len(rest) != LAWS[law]:
            raise UsageError(f"{shown(text)} is no length: write {example}")
        try:
            a, b = (float(word) for word in [*rest, "0"][:2])
        except ValueError:
            raise UsageError(f"{shown(text)} is no length: write {example}") from None
        if not 1 <= a <= LONGEST or not 0 <= b <= LONGEST:  # false for NaN too
            raise UsageError(f"{shown(text)}: a length must be 1 to {LONGEST}, a deviation at least 0")
        if law == "uniform" and b < a:
            raise UsageError(f"{shown(text)}: uniform goes from the lower to the higher: write uniform {b:g} {a:g}")
        return cls(named or unit or "words", law, a, b)

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
        words = text.split()
        kind = words.pop(0).lower() if len(words) > 1 and words[0].isalpha() else ""
        if kind not in ("", "constant", "exponential"):
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
        return round((rng.exponential(self.mean_s) if self.exponential else self.mean_s) * 1e9)
