"""A sample of what comes one after another: each as likely as any other, drawn in one pass by a seed."""

from __future__ import annotations

import heapq
import random

from loadbench.prompts.prompt import Prompt

MOST = 10_000
"""Prompts of a file that are kept, unless more requests are asked for."""
MOST_CHARACTERS = 16_000_000
"""Of all of them: a file of books gives fewer."""


class Draw:
    """The prompts of a file that are kept: those that drew the lowest numbers.

    Args:
        most: How many; None for all, however long they are.
    """

    def __init__(self, most: int | None = None, seed: int = 1) -> None:
        self.seen = 0
        self.seed = seed
        self._most = most
        self._chance = random.Random(f"{seed}/draw")
        self._below = 1.0
        self._rank = 0.0
        self._kept: list[tuple[float, int, Prompt]] = []  # the highest number first
        self._characters = 0

    def wants(self) -> bool:
        """Whether the next one may be kept: of a large file most need not even be parsed."""
        self.seen += 1
        self._rank = self._chance.random()
        return self._rank < self._below

    def add(self, prompt: Prompt) -> None:
        """Keep the last one that was wanted, and give up others where there are too many."""
        heapq.heappush(self._kept, (-self._rank, self.seen, prompt))
        self._characters += _length(prompt)
        if self._most is None:
            return
        while len(self._kept) > self._most or (self._characters > MOST_CHARACTERS and len(self._kept) > 1):
            rank, _, given_up = heapq.heappop(self._kept)
            self._characters -= _length(given_up)
            self._below = -rank

    @property
    def gave_up(self) -> bool:
        """Whether there were too many."""
        return self._below < 1

    def prompts(self) -> list[Prompt]:
        """What was kept, in its order."""
        return [prompt for _, _, prompt in sorted(self._kept, key=lambda one: one[1])]


def _length(prompt: Prompt) -> int:
    return prompt.characters + sum(map(len, prompt.turns))
