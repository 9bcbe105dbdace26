"""One request in service: what streams and whole answers have in common."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from loadbench.serve.simulator import answer
from loadbench.serve.simulator.ask import Ask
from loadbench.serve.simulator.connection import Connection

if TYPE_CHECKING:
    from loadbench.serve.simulator.server import Server


class Turn(Protocol):
    """What the server's heap holds, by due time.

    An object with `left` > 0 is a Stream with that many plain text events ahead, which the server's hot loop sends
    itself. With `left` == 0 its `turn` is called: for the first event, the last one, and faults.
    """

    left: int

    def turn(self, due_ns: int) -> None:
        """Act; `due_ns` has come."""


class Answer(Turn, Protocol):
    """A request's way through the server: it gets a slot, is sent, and ends."""

    job: Job

    def start(self, start_ns: int) -> None:
        """The slot is there and the law's clock runs from `start_ns`: be due."""

    def settle(self) -> None:
        """Bring the truth's counts of tokens up to date."""


class Job:
    """One request with what the law drew for it.

    Attributes:
        number: Of the request, from 0.
        arrival_ns: When its last segment reached the kernel.
        fault: The fault that will strike, or None.
        tokens, finish: Length of the answer and why it ends.
        reasoning: How many of the tokens are reasoning.
        cached_tokens: Of the prompt; known when the request gets its slot.
        running: Holds a slot.
        gone: Over, or its client has left; the heap and the queue may still hold it.
    """

    __slots__ = (
        "arrival_ns",
        "ask",
        "cached_tokens",
        "connection",
        "created",
        "fault",
        "finish",
        "gone",
        "identity",
        "number",
        "offset",
        "reasoning",
        "running",
        "server",
        "tokens",
    )

    def __init__(
        self, server: Server, connection: Connection, ask: Ask, number: int, arrival_ns: int, fault: str | None
    ) -> None:
        self.server, self.connection, self.ask = server, connection, ask
        self.number, self.arrival_ns, self.fault = number, arrival_ns, fault
        self.tokens, self.finish = server.draws.length(ask)
        self.reasoning = min(server.law.reasoning_tokens, self.tokens)
        self.cached_tokens = 0
        self.offset = number * 2_654_435_761  # spreads requests over the table of jitter
        self.running = self.gone = False
        self.identity = f"chatcmpl-{server.run:08x}{number:016x}"
        self.created = int(time.time())

    def ttft_ns(self) -> int:
        """TTFT without queue."""
        return self.server.draws.ttft_ns(self.ask.prompt_tokens - self.cached_tokens, self.offset - 1)

    def tokens_ns(self, tokens: int, draw: int) -> int:
        """Time that `tokens` tokens take in the batch as it is; `draw` is the number of their event."""
        return self.server.draws.jittered_ns(self.server.slots.itl_ns * tokens, self.offset + draw)

    def usage(self, tokens: int) -> dict[str, object]:
        """Token counts after so many tokens."""
        cached = self.cached_tokens if self.server.law.prompt_cache else None
        return answer.usage(self.ask.prompt_tokens, tokens, cached, min(self.reasoning, tokens))

    def strike(self) -> str | None:
        """The fault, which strikes and is counted now, once."""
        fault, self.fault = self.fault, None
        if fault is not None:
            self.server.truth.faults[fault] += 1
        return fault

    def end(self, due_ns: int) -> None:
        """Free the slot, as of `due_ns`."""
        self.gone = True
        if self.running:
            self.running = False
            self.server.slots.free(due_ns)
