"""A level's course over its time, in little memory, and as a sparkline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

_MOST = 240
"""Cells that a trace keeps; with more, each two become one."""
_SHORTEST_S = 0.2
"""What is shorter, at a level's end, is no cell of its own: its speed would be accidental."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A piece of a level's time.

    Attributes:
        tokens: Text events that arrived in it.
        took_us: Sum of the times (TTFT, or E2E of whole answers) of the requests that ended in it.
        requests: How many these are.
    """

    seconds: float
    tokens: int
    took_us: int
    requests: int

    def __add__(self, other: Cell) -> Cell:
        return Cell(
            self.seconds + other.seconds,
            self.tokens + other.tokens,
            self.took_us + other.took_us,
            self.requests + other.requests,
        )

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / max(self.seconds, 1e-9)

    @property
    def mean_us(self) -> float | None:
        """None where no request ended."""
        return self.took_us / self.requests if self.requests > 0 else None


class Trace:
    """What a level counted, look by look.

    >>> trace = Trace(0.0)
    >>> for second, tokens in enumerate((0, 40, 80), 1):
    ...     trace.look(float(second), tokens, took_us=0, requests=0)
    >>> [cell.tokens_per_s for cell in trace.cells(10)], [cell.tokens_per_s for cell in trace.cells(1)]
    ([0.0, 40.0, 40.0], [26.666666666666668])
    """

    def __init__(self, began_s: float) -> None:
        self._cells: list[Cell] = []
        self._seen = (began_s, 0, 0, 0)

    def look(self, at_s: float, tokens: int, took_us: int, requests: int) -> None:
        """Take down the counts so far."""
        then_s, before, before_us, known = self._seen
        if at_s <= then_s:
            return
        # The counts are read while the run goes on: the sum may lag behind its number by one request.
        more = Cell(at_s - then_s, max(0, tokens - before), max(0, took_us - before_us), max(0, requests - known))
        if self._cells and more.seconds < _SHORTEST_S:
            self._cells[-1] += more
        else:
            self._cells.append(more)
        self._seen = (at_s, tokens, took_us, requests)
        if len(self._cells) > _MOST:
            self._cells = _joined(self._cells, len(self._cells) // 2)

    def cells(self, width: int) -> Sequence[Cell]:
        """The course in at most `width` cells, of like size."""
        return self._cells if len(self._cells) <= width else _joined(self._cells, width)


def _joined(cells: Sequence[Cell], n: int) -> list[Cell]:
    ends = [len(cells) * i // n for i in range(n + 1)]
    return [sum(cells[low + 1 : high], cells[low]) for low, high in pairwise(ends)]


def spark(values: Sequence[float | None], ramp: str) -> str:
    """Signs as high as the values, from 0 to the highest of them; a blank for what is not known.

    >>> spark([0, 4, None, 8], "▁▂▃▄▅▆▇█")
    '▁▅ █'
    """
    top = max((value for value in values if value is not None), default=0.0) or 1.0
    return "".join(" " if value is None else ramp[min(len(ramp) - 1, int(value / top * len(ramp)))] for value in values)


def lasting(values: Sequence[float | None]) -> list[float | None]:
    """Each value over the time before it in which there was none: the requests that it is of were under way then.

    >>> lasting([None, 7.0, None, None, 5.0, None])
    [7.0, 7.0, 5.0, 5.0, 5.0, None]
    """
    filled, following = list(values), None
    for at in reversed(range(len(filled))):
        following = filled[at] = filled[at] if filled[at] is not None else following
    return filled
