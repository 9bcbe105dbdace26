"""The example: an adapter without a model, which repeats the user's words. Its tokens are words."""

from __future__ import annotations

import itertools
import time
from collections.abc import Generator

from loadbench.serve.chat import Message


class Echo:
    """Repeats the user's words, one piece each."""

    def load(self, weights_path: str | None = None, *, delay_ms: float = 0.0, words: int | None = None) -> None:
        """Take the options; there are no weights.

        Args:
            delay_ms: Slept before each word.
            words: Of an answer, repeating the user's as often as needed; None repeats them once.
        """
        self._delay_s, self._words = delay_ms / 1000, words

    def info(self) -> dict[str, str]:
        return {"id": "echo", "device": "CPU", "licence": "MIT"}

    def generate(
        self, messages: list[Message], *, max_tokens: int | None = None, **params: object
    ) -> Generator[str, None, dict[str, int | str]]:
        """Yield the words of the last message, each with the space before it."""
        words = messages[-1]["content"].split() or ["?"]
        length = len(words) if self._words is None else self._words
        sent = 0
        for word in itertools.islice(itertools.cycle(words), min(length, max_tokens or length)):
            time.sleep(self._delay_s)
            yield f" {word}" if sent else word
            sent += 1
        return {
            "prompt_tokens": sum(len(message["content"].split()) for message in messages),
            "completion_tokens": sent,
            "finish_reason": "length" if sent < length else "stop",
        }
