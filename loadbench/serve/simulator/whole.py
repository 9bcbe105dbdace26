"""An answer that is not streamed: one JSON body."""

from __future__ import annotations

from loadbench.serve.simulator import answer
from loadbench.serve.simulator.job import Job


class Whole:
    """One JSON body, due when its last token would be, at the batch size of its start."""

    __slots__ = ("job", "left")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.left = 0

    def start(self, start_ns: int) -> None:
        """Be due."""
        job = self.job
        stall_ns = round(job.server.law.stall_ms * 1e6) if job.fault == "stall" else 0
        job.server.push(start_ns + job.ttft_ns() + stall_ns + job.tokens_ns(job.tokens - 1, 0), self)

    def settle(self) -> None:
        """Nothing is counted before the answer is sent."""

    def turn(self, due_ns: int) -> None:
        """Send it."""
        job = self.job
        if job.gone:
            return
        fault = job.strike()
        if fault == "empty":
            job.tokens = job.reasoning = 0
        first = job.ask.digest % answer.COUNT
        thoughts = answer.text(first, job.reasoning)
        words = answer.text(first + job.reasoning, job.tokens - job.reasoning)
        usage = None if job.server.law.usage == "off" else job.usage(job.tokens)
        body = answer.whole(job.identity, job.created, job.ask.model, words, thoughts, job.finish, usage)
        head = job.connection.head(200, "application/json", len(body))
        broken = fault in ("cut", "reset")
        job.connection.write(head + (body[: len(body) // 2] if broken else body))
        if not broken and not job.gone:
            truth = job.server.truth
            truth.tokens += job.tokens
            truth.characters += len(thoughts) + len(words)
            truth.completed += job.tokens > 0
        job.end(due_ns)
        if broken:
            job.connection.break_off(reset=fault == "reset")
        else:
            job.connection.done(close=fault == "close")
