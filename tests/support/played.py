"""Levels played on a virtual clock against a server that keeps a declared law."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
import trio
from msgspec.structs import replace

from loadbench.client import Ask
from loadbench.engine import Engine, Limits, Progress, Settings, Share, facts
from loadbench.engine.load import WHOLE
from loadbench.prompts import DEFAULT, Prompt, Recipe
from loadbench.scenario import Level, Shape
from loadbench.store.record import Result
from loadbench.telemetry import Waited

NS = 1_000_000_000

ROUNDING_NS = 10  # of virtual times, which are floats of seconds


def now_ns() -> int:
    return round(trio.current_time() * NS)


@dataclass(frozen=True)
class Answer:
    """What the server does with one request: `events` texts, the first after `ttft_s`, then one each `itl_s`."""

    ttft_s: float = 1.0
    itl_s: float = 0.0
    events: int = 1
    per_event: int = 1  # tokens
    error: str | None = None
    text: str = "word"

    @property
    def takes_s(self) -> float:
        return self.ttft_s + self.itl_s * (self.events - 1)


ALIKE = Answer()


def uneven(ask: Ask) -> Answer:
    """Answers of 0.5 to 1.4 s, so that no two neighbours end together."""
    return Answer(ttft_s=0.5 + 0.1 * (ask.request * 7 % 10))


def failing(ask: Ask) -> Answer:
    return Answer(ttft_s=0.01, error="http_5xx")


@dataclass
class Server:
    """A client whose server keeps a declared law; `asked` is what it was asked, in order."""

    law: Callable[[Ask], Answer] = field(default=lambda ask: ALIKE)
    warmed: list[int] = field(default_factory=list)
    asked: list[Ask] = field(default_factory=list)
    lags_ns: list[int] = field(default_factory=list)

    async def warm(self, connections: int) -> None:
        self.warmed.append(connections)

    async def chat(self, ask: Ask, origin_ns: int, done: Callable[[Result], None], *, keep: bool = True) -> None:
        self.asked.append(ask)
        answer, sent_ns = self.law(ask), now_ns()
        error: str | None = "cancelled"
        try:
            await anyio.sleep(answer.takes_s)
            error = answer.error
        finally:
            done(self._result(ask, answer, origin_ns, sent_ns, error))

    def _result(self, ask: Ask, answer: Answer, origin_ns: int, sent_ns: int, error: Any) -> Result:
        first_ns = None if error else sent_ns - origin_ns + round(answer.ttft_s * NS)
        gaps_us = [] if error else [round(answer.itl_s * 1e6)] * (answer.events - 1)
        return Result(
            level=ask.level,
            attempt=ask.attempt,
            request=ask.request,
            prompt=ask.prompt.id,
            warmup=ask.warmup,
            due_ns=ask.due_ns - origin_ns,
            sent_ns=sent_ns - origin_ns,
            connect_ns=0,
            headers_ns=first_ns,
            first_event_ns=first_ns,
            first_token_ns=first_ns,
            last_token_ns=None if first_ns is None else first_ns + 1000 * sum(gaps_us),
            end_ns=now_ns() - origin_ns,
            gaps_us=gaps_us,
            first_events=0 if error else 1,
            text_events=0 if error else answer.events,
            output_tokens=None if error else answer.events * answer.per_event,
            error=error,
            error_message=error and "as the law says",
            text="" if error else answer.text,
            retry_of=ask.retry_of,
        )

    def text_events_in_flight(self) -> int:
        return 0

    def take_lags_ns(self) -> list[int]:
        lags, self.lags_ns = self.lags_ns, []
        return lags

    def round_trip_ns(self) -> int | None:
        return 250_000


@dataclass
class Played:
    """A level that was played: its progress, its Results in the order they ended, the times of its ticks."""

    server: Server
    progress: Progress
    results: list[Result] = field(default_factory=list)
    tick_ns: list[int] = field(default_factory=list)
    engine: Engine = field(init=False)

    @property
    def measured(self) -> list[Result]:
        """In order of start."""
        return sorted((one for one in self.results if not one.warmup), key=lambda one: one.request)

    @property
    def facts(self) -> dict[str, Any]:
        return facts(self.progress, stopped=False)

    def in_flight_at(self, at_ns: int) -> int:
        return sum(one.due_ns <= at_ns < one.end_ns for one in self.results)

    async def on_tick(self, progress: Progress) -> None:
        self.tick_ns.append(now_ns() - progress.began_ns)

    async def run(self) -> Played:
        await self.engine.run(self.progress)
        return self


async def stopped_after(played: Played, seconds: float) -> Played:
    """Run a level whose user ends it so long after its beginning."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(played.run)
        await anyio.sleep(seconds)
        played.engine.stop()
    return played


def closed(concurrency: int, repeat: int = 1) -> Level:
    return Level(id=f"m@c{concurrency}", model="m", concurrency=concurrency, request_rate_per_s=None, repeat=repeat)


def opened(rate_per_s: float, repeat: int = 1) -> Level:
    return Level(id=f"m@r{rate_per_s:g}", model="m", concurrency=None, request_rate_per_s=rate_per_s, repeat=repeat)


def level_of(
    level: Level,
    law: Callable[[Ask], Answer] | Answer = ALIKE,
    *,
    requests: int | None = None,
    duration_s: float | None = None,
    warmup: int | None = None,
    max_streams: int = 1024,
    prompts: Sequence[Prompt] = DEFAULT,
    seed: int = 1,
    share: Share = WHOLE,
    **options: Any,
) -> Played:
    """A level that is ready to run; warm-up is a request for each slot unless said otherwise."""
    server = Server((lambda ask: law) if isinstance(law, Answer) else law)
    limits = Limits(requests, duration_s, (level.concurrency or 0) if warmup is None else warmup, max_streams)
    played = Played(server, Progress(level, 1, limits))
    played.engine = Engine(
        server,
        prompts,
        Settings(seed, **options),
        share=share,
        on_result=played.results.append,
        on_tick=played.on_tick,
        now_ns=now_ns,
        cpu_s=trio.current_time,  # a process that computes all the time
        waited=lambda: Waited(
            round(trio.current_time() * 1e9 / 4), round(trio.current_time() * 100)
        ),  # for a core, a quarter of it
    )
    return played


async def asked(level: Level, seed: int = 1, **options: Any) -> list[Prompt]:
    played = await level_of(level, uneven, requests=40, warmup=4, seed=seed, **options).run()
    return [ask.prompt for ask in sorted(played.server.asked, key=lambda ask: ask.request)]


def shaped(text: str, repeat: int = 1) -> Level:
    shape = Shape.parse(text)
    return Level(f"m@{shape.name}", "m", None, shape.mean_per_s, repeat, shape.text)


def recorded(*at_s: float) -> list[Prompt]:
    return [
        Prompt(f"t{number}", (), max_tokens=number, recipe=Recipe("words", ((f"t{number}", 5),)), at_s=second)
        for number, second in enumerate(at_s, start=1)
    ]


REPLAY = Level("m@trace", "m", None, 1.0, 1, "trace day.jsonl")


def conversation(name: str, *texts: str) -> Prompt:
    return Prompt(name, ({"role": "user", "content": texts[0]},), turns=texts[1:])


THREE = conversation("a", "One", "Two", "Three")


def answering(law: Callable[[Ask], Answer] = lambda ask: Answer()) -> Callable[[Played], Played]:
    """Have the server's answers say which request they answer."""

    def talk(played: Played) -> Played:
        made = played.server._result

        def result(ask: Ask, *others: Any) -> Result:
            return replace(made(ask, *others), text=f"answer to {ask.request}")

        played.server._result = result  # type: ignore[method-assign]
        return played

    return talk
