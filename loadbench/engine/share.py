"""A share of a level: one of several clients that together make its load."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

from loadbench.engine.progress import Limits

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Share:
    """Every `of`-th stream, start, prompt and request number of a level, from the `index`-th on.

    All shares together are the level as one client would make it: the same arrivals, the same prompts in the same
    places, numbers that no two have in common.

    >>> Share(1, 3).part(8), list(Share(1, 3).take("abcdefgh")), Share(1, 3).number(2)
    (3, ['b', 'e', 'h'], 7)
    """

    index: int = 0
    of: int = 1

    def part(self, total: int) -> int:
        """How many of so many are its own."""
        return len(range(self.index, total, self.of))

    def number(self, own: int) -> int:
        """The number within the level of its own number, both from 0."""
        return self.index + self.of * own

    def take(self, all_of_them: Iterable[T]) -> Iterator[T]:
        """Those that are its own, in order."""
        return islice(all_of_them, self.index, None, self.of)

    def limits(self, limits: Limits) -> Limits:
        """When it ends, of a level that ends then."""
        warmup, requests = self.part(limits.warmup), limits.requests
        return replace(
            limits,
            requests=None if requests is None else self.part(limits.warmup + requests) - warmup,
            warmup=warmup,
            max_streams=self.part(limits.max_streams),
        )


WHOLE = Share()
"""The only one."""
