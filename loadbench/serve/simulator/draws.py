"""The law in nanoseconds, with what it leaves to chance drawn by its seed."""

from __future__ import annotations

import random

from loadbench.serve.simulator.ask import Ask
from loadbench.serve.simulator.law import Law

SIZE = 8192
"""Factors of jitter in the table: drawing one at every token would cost as much as sending it."""


class Draws:
    """A law's numbers. Jitter follows from the number of the request and of the token, lengths from the prompt, faults
    from the order of requests: so a seed gives the same run twice.

    Attributes:
        factors: Of jitter, in 1/65,536, shape (8,192,); empty without jitter.
    """

    def __init__(self, law: Law) -> None:
        self._law = law
        self._faults = random.Random(f"faults {law.seed}")
        draw = random.Random(f"jitter {law.seed}")
        spread = law.jitter
        self.factors: tuple[int, ...] = ()
        if spread and law.jitter_shape == "uniform":
            self.factors = tuple(round(65536 * draw.uniform(1 - spread, 1 + spread)) for _ in range(SIZE))
        elif spread and law.jitter_shape == "exponential":
            self.factors = tuple(round(65536 * (1 - spread + spread * draw.expovariate(1.0))) for _ in range(SIZE))
        elif spread:
            self.factors = tuple(round(65536 * draw.lognormvariate(0.0, spread)) for _ in range(SIZE))

    def jittered_ns(self, latency_ns: int, draw: int) -> int:
        """A latency times factor number `draw`."""
        return latency_ns * self.factors[draw % SIZE] >> 16 if self.factors else latency_ns

    def ttft_ns(self, prompt_tokens: int, draw: int) -> int:
        """TTFT without queue for so many uncached prompt tokens."""
        return self.jittered_ns(
            round((self._law.ttft_ms + self._law.ttft_per_prompt_token_ms * prompt_tokens) * 1e6), draw
        )

    def itl_ns(self, active: int) -> int:
        """Inter-token latency, before jitter, of each of so many streams in the batch."""
        return round((self._law.itl_ms + self._law.itl_per_stream_ms * max(0, active - 1)) * 1e6)

    def length(self, ask: Ask) -> tuple[int, str]:
        """Tokens of an answer, and why it ends: "length" or "stop"."""
        if self._law.length is None or ask.ignore_eos:
            return ask.max_tokens or self._law.default_max_tokens, "length"
        own = random.Random(f"length {self._law.seed} {ask.digest}").randint(*self._law.length)
        if ask.max_tokens is None or own <= ask.max_tokens:
            return own, "stop"
        return ask.max_tokens, "length"

    def fault(self) -> str | None:
        """The fault that strikes the next request; one draw each, so that a seed strikes the same requests."""
        draw = self._faults.random()
        for name, rate in self._law.faults.items():
            if draw < rate:
                return name
            draw -= rate
        return None
