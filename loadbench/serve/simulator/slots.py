"""The slots that requests are served in, and the queue before them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from loadbench.serve.simulator.ask import Ask
from loadbench.serve.simulator.job import Answer
from loadbench.serve.simulator.stream import Ping, Stream

if TYPE_CHECKING:
    from loadbench.serve.simulator.server import Server

CACHED_PROMPTS = 100_000


class Slots:
    """Who is served, who waits, and what the number of the served makes of the inter-token latency.

    Attributes:
        active: Requests that hold a slot; without a limit, all in service.
        itl_ns: Inter-token latency at that batch size, before jitter.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._limit = server.law.slots
        self._waiting: deque[Answer] = deque()
        self._prompts: dict[int, None] = {}
        self.active = 0
        self.itl_ns = server.draws.itl_ns(0)

    @property
    def queued(self) -> int:
        """Requests that wait for a slot."""
        return sum(not waiting.job.gone for waiting in self._waiting)

    def begin(self, begun: Answer) -> None:
        """Give a slot or a place in the queue; send the headers where they come early."""
        law, job = self._server.law, begun.job
        job.connection.current = begun
        if isinstance(begun, Stream) and (law.role == "early" or law.ping_ms is not None):
            job.connection.write(begun.head())
            if law.ping_ms is not None:
                every_ns = round(law.ping_ms * 1e6)
                self._server.push(job.arrival_ns + every_ns, Ping(begun, every_ns))
        if job.gone:
            return
        if self._limit is not None and self.active >= self._limit:
            self._waiting.append(begun)
        else:
            self._admit(begun, job.arrival_ns)

    def free(self, due_ns: int) -> None:
        """A slot came free at `due_ns`, by the law: the next in the queue starts then, not when the loop got to it."""
        self._occupy(-1)
        while self._waiting:
            begun = self._waiting.popleft()
            if not begun.job.gone:
                self._admit(begun, max(due_ns, begun.job.arrival_ns))
                return

    def _admit(self, begun: Answer, start_ns: int) -> None:
        job, truth = begun.job, self._server.truth
        job.running = True
        self._occupy(1)
        truth.most_active = max(truth.most_active, self.active)
        truth.queue[(start_ns - job.arrival_ns) // 1000] += 1
        if self._server.law.prompt_cache:
            job.cached_tokens = self._look_up(job.ask)
        truth.prompt_tokens += job.ask.prompt_tokens
        truth.cached_tokens += job.cached_tokens
        begun.start(start_ns)

    def _occupy(self, change: int) -> None:
        self.active += change
        self.itl_ns = self._server.draws.itl_ns(self.active)

    def _look_up(self, asked: Ask) -> int:
        """Tokens of the prompt that the prompt cache holds; from now on it holds them all."""
        known = asked.digest in self._prompts
        self._prompts.pop(asked.digest, None)
        self._prompts[asked.digest] = None  # the youngest comes last
        if len(self._prompts) > CACHED_PROMPTS:
            del self._prompts[next(iter(self._prompts))]
        return asked.prompt_tokens - 1 if known and asked.cache_prompt else 0
