"""One level: who starts next, and what becomes of each Result."""

from __future__ import annotations

import math
from collections.abc import Iterator

import anyio
import anyio.lowlevel
import numpy as np
from msgspec.structs import replace

from loadbench.client import Ask
from loadbench.engine import pacer
from loadbench.engine.load import Load
from loadbench.engine.progress import FAILURES_IN_A_ROW, Progress
from loadbench.prompts import Prompt, answered, distinct, order, written
from loadbench.scenario import Level, Shape
from loadbench.store.record import SPEECHLESS, Result

_UNREACHABLE = ("dns", "connect", "tls", "timeout_connect")
_FINAL = ("cancelled", "http_4xx", "redirect", "local")  # failures that asking again does not mend


class LevelRun:
    """One level's loop: who starts next, and what becomes of each Result."""

    def __init__(self, load: Load, progress: Progress) -> None:
        self._load, self._progress = load, progress
        self._now_ns = load.now_ns
        self._limits = load.share.limits(progress.limits)
        self._deadline_ns = math.inf
        level, settings = progress.level, load.settings
        self._next_prompt: Iterator[Prompt]
        if level.is_replay:
            self._next_prompt = (written(prompt, load.line) for prompt in load.share.take(load.prompts))
        else:
            self._next_prompt = load.share.take(order(load.prompts, settings.seed, level.repeat))
        self._streams = None if level.concurrency is None else load.share.part(level.concurrency)
        self._number = 0
        self._conversations = load.share.index  # shares begin at different endpoints
        self._users = 0

    async def closed_loop(self, concurrency: int) -> None:
        async with anyio.create_task_group() as slots:
            for number, offset_ns in self._load.share.take(enumerate(pacer.start_offsets_ns(concurrency))):
                slots.start_soon(self._slot, number, offset_ns)

    async def _slot(self, number: int, offset_ns: int) -> None:
        """One slot, or one user where users pause: conversation after conversation."""
        rng = None  # making one takes 20 us, which many slots that start at once would feel
        settings = self._load.settings
        if settings.pause is not None:
            rng = np.random.default_rng([settings.seed, self._progress.level.repeat, number])
        await self._sleep_until(self._progress.began_ns + offset_ns)
        due_ns = self._now_ns()
        while not self._over(due_ns):
            ask = self._ask(due_ns)
            self._users += 1
            # Where users pause, the load is whole once each of them has begun: never are all requests in flight.
            if settings.pause is not None and self._users == self._streams:
                self._progress.full_ns = self._now_ns()
            await self._conversation(ask, rng)
            due_ns = self._now_ns() if rng is None else await self._paused_ns(rng)

    async def _conversation(self, ask: Ask, rng: np.random.Generator | None) -> None:
        """All turns, each with the real answers before it; one that fails or is empty, or the level's end, ends it."""
        result = await self._send(ask)
        turn = 1
        while ask.prompt.turns and result.error is None and result.text.strip():
            turn += 1
            due_ns = self._now_ns() if rng is None else await self._paused_ns(rng)
            if self._over(due_ns):
                return
            ask = self._ask(due_ns, next_turn=answered(ask.prompt, result.text, turn), conversation=ask.conversation)
            result = await self._send(ask, keep=False)

    async def _paused_ns(self, rng: np.random.Generator) -> int:
        """When the slot's next request is due: once its user has paused."""
        assert self._load.settings.pause is not None
        due_ns = self._now_ns() + self._load.settings.pause.draw_ns(rng)
        if not self._ended(due_ns):
            await self._wait_until(due_ns)
        return due_ns

    async def open_loop(self, level: Level) -> None:
        progress = self._progress
        async with anyio.create_task_group() as requests:
            for start_ns in self._load.share.take(self._seen(self._starts(level))):
                due_ns = progress.began_ns + start_ns
                recorded = next(self._next_prompt) if level.is_replay else None  # made up before it is due
                await self._wait_until(min(due_ns, self._deadline_ns))
                if self._over(due_ns):  # what is due is offered, however late this process is
                    break
                if self._full():
                    self._drop(due_ns)
                else:
                    requests.start_soon(self._send, self._ask(due_ns, recorded=recorded), recorded is None)
            progress.phase = "draining"

    def _seen(self, starts: Iterator[int]) -> Iterator[int]:
        """The same; the level's duration counts from its first measured start, whichever share makes that."""
        for number, start_ns in enumerate(starts):
            if number == self._progress.limits.warmup:
                self._set_deadline(self._progress.began_ns + start_ns)
            yield start_ns

    def _starts(self, level: Level) -> Iterator[int]:
        """When requests of the whole level are due, in ns since it began."""
        if level.is_replay:
            return pacer.replay(prompt.at_s or 0.0 for prompt in self._load.prompts)
        settings = self._load.settings
        rng, by_chance = np.random.default_rng([settings.seed, level.repeat]), settings.arrivals == "poisson"
        if level.shape is not None:
            pieces = Shape.parse(level.shape).pieces
            return pacer.shaped_poisson(pieces, rng) if by_chance else pacer.shaped(pieces)
        rate_per_s = level.request_rate_per_s or 1.0
        return pacer.poisson(rate_per_s, rng) if by_chance else pacer.constant(rate_per_s)

    def _set_deadline(self, from_ns: int) -> None:
        if self._deadline_ns == math.inf and self._limits.duration_s is not None:
            self._deadline_ns = from_ns + self._limits.duration_s * 1e9

    def _over(self, at_ns: int) -> bool:
        """Whether a request of this time, and any later one, is not to start. Retries come on top of the number."""
        progress, limits = self._progress, self._limits
        asked = progress.issued + progress.dropped - progress.retried
        if self._ended(at_ns) or (limits.requests is not None and asked >= limits.requests):
            progress.phase = "draining"
            return True
        return False

    def _ended(self, at_ns: int) -> bool:
        """Whether nothing of this time is to start, a retry neither."""
        progress = self._progress
        ended = self._load.stopping or progress.enough or progress.gone >= FAILURES_IN_A_ROW
        return ended or at_ns >= self._deadline_ns

    def _full(self) -> bool:
        """Open loop: whether a request more would go beyond the cap of streams."""
        progress = self._progress
        return progress.level.concurrency is None and progress.in_flight >= self._limits.max_streams

    def _is_warmup(self) -> bool:
        return self._number < self._limits.warmup

    def _drop(self, due_ns: int) -> None:
        warmup = self._is_warmup()
        self._number += 1
        if not warmup:
            self._measure(due_ns)
            self._progress.dropped += 1
            self._progress.last_issue_ns = due_ns

    def _measure(self, due_ns: int) -> None:
        progress = self._progress
        if progress.measured_from_ns is None:
            progress.measured_from_ns, progress.phase = due_ns, "measuring"
            self._set_deadline(due_ns)

    def _ask(
        self,
        due_ns: int,
        *,
        failed: Ask | None = None,
        next_turn: Prompt | None = None,
        recorded: Prompt | None = None,
        conversation: int | None = None,
    ) -> Ask:
        """The next request, numbered and counted as in flight.

        Args:
            failed: Ask this again.
            next_turn: Go on with this conversation.
            recorded: Ask what a trace has here; else it is the next prompt's turn.
            conversation: The number of the one that goes on, which stays with its endpoint.
        """
        load, progress = self._load, self._progress
        number, warmup = load.share.number(self._number), failed is None and self._is_warmup()
        self._number += 1
        if conversation is None:
            conversation, self._conversations = self._conversations, self._conversations + 1
        if failed is not None:
            prompt, progress.retried = failed.prompt, progress.retried + 1
        elif next_turn is not None:
            prompt = next_turn
        else:
            prompt = recorded or next(self._next_prompt)
            if load.settings.distinct_prompts:
                prompt = distinct(prompt, load.salt * 1_000_000_007 + number)
        if warmup:
            progress.warmup_requests += 1
        else:
            self._measure(due_ns)
            progress.issued += 1
            progress.last_issue_ns = due_ns
        progress.in_flight += 1
        if progress.full_ns is None and progress.in_flight == self._streams:
            progress.full_ns = self._now_ns()
        retry_of = None if failed is None else failed.request
        return Ask(
            level=progress.level.id,
            attempt=progress.attempt,
            request=number,
            model=progress.level.model,
            prompt=prompt,
            warmup=warmup,
            due_ns=due_ns,
            retry_of=retry_of,
            conversation=conversation,
        )

    async def _send(self, ask: Ask, keep: bool = True) -> Result:
        """A request, and the retries that its failure brings, each in the same slot or stream; the last Result.

        Args:
            keep: Whether the prompt will be asked again.
        """
        settings = self._load.settings
        keep = keep and not settings.distinct_prompts
        result = await self._chat(ask, keep)
        for tried in range(settings.retries):
            if ask.warmup or result.error is None or result.error in _FINAL:
                break
            due_ns = self._now_ns() + round(settings.retry_backoff_s * 2**tried * 1e9)
            await self._wait_until(due_ns)
            if self._ended(due_ns):
                break
            if self._full():
                self._progress.retried += 1
                self._drop(due_ns)
                break
            ask = self._ask(due_ns, failed=ask)
            result = await self._chat(ask, keep)
        return result

    async def _chat(self, ask: Ask, keep: bool) -> Result:
        """The request alone."""
        load, progress = self._load, self._progress
        results: list[Result] = []
        try:
            await load.client.chat(ask, progress.began_ns, results.append, keep=keep)
        finally:
            progress.in_flight -= 1
            for result in results:
                if ask.prompt.turns and result.error is None and not result.text.strip():
                    result = replace(result, error_message=SPEECHLESS)
                self._done(result)
        return results[0]

    def _done(self, result: Result) -> None:
        progress = self._progress
        streamed = self._load.settings.streamed
        progress.text_events += result.text_events if streamed else result.output_tokens or 0
        if result.error == "cancelled":
            progress.cancelled += not result.warmup
        elif result.error is not None:
            if not result.warmup:
                progress.failed += 1
                progress.errors[result.error] += 1
                # A refused connection is dealt with in 0.1 ms: without an end, a server that died fills the disk.
                # 429 says neither that it is gone nor that it is not: a full server refuses in 1 ms.
                if result.error in _UNREACHABLE or (progress.completed == 0 and result.error != "http_429"):
                    progress.gone += 1
                elif result.error != "http_429":
                    progress.gone = 0  # an answer all the same
            progress.last_error = f"{result.error}: {result.error_message}"
        else:
            progress.completed += not result.warmup
            progress.gone = 0
        progress.ended += not result.warmup
        if not result.warmup and result.error is None:
            _record(progress, result, streamed=streamed)
        self._load.on_result(result)

    async def _wait_until(self, at_ns: float) -> None:
        """Sleep, unless the run is stopped."""
        if at_ns <= self._now_ns():  # late: no need of a scope to cancel, which takes 10 us
            await anyio.lowlevel.checkpoint()
            return
        scope = anyio.CancelScope()
        self._load.waiting.add(scope)
        try:
            with scope:
                await self._sleep_until(at_ns)
        finally:
            self._load.waiting.discard(scope)

    async def _sleep_until(self, at_ns: float) -> None:
        await anyio.sleep(max(0, at_ns - self._now_ns()) / 1e9)
        # uvloop rounds to whole ms, down too: what begins before it is due may be answered before it is due.
        while (early_ns := at_ns - self._now_ns()) > 0:  # noqa: ASYNC110 - time itself is waited for
            await anyio.sleep(early_ns / 1e9)


def _record(progress: Progress, result: Result, *, streamed: bool) -> None:
    """What a completed request adds to the level's histograms, in us; docs/metrics.md has the formulas."""
    if result.sent_ns is None or result.first_token_ns is None or result.last_token_ns is None:
        return
    new_us = progress.new_us
    new_us["e2e"].append((result.last_token_ns - result.due_ns + 500) // 1000)
    if not streamed:
        return
    from_sent_us = (result.first_token_ns - result.sent_ns + 500) // 1000
    if "ttft_from_sent" in progress.histograms:
        new_us["ttft"].append((result.first_token_ns - result.due_ns + 500) // 1000)
        new_us["ttft_from_sent"].append(from_sent_us)
    else:
        new_us["ttft"].append(from_sent_us)
    new_us["itl"] += result.gaps_us
    tokens = result.output_tokens if result.output_tokens is not None else result.text_events
    first = result.first_tokens or tokens * result.first_events / result.text_events
    span_ns = result.last_token_ns - result.first_token_ns
    if tokens > first and span_ns > 0:
        new_us["tpot"].append(math.floor(span_ns / (tokens - first) / 1e3 + 0.5))
