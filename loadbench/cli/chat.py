"""One chat with a model, on a server that a run would measure: what `probe` and `verify` ask."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import anyio

from loadbench import server as targets
from loadbench.cli import reach
from loadbench.client import Ask, Client, Parameters
from loadbench.errors import TargetError
from loadbench.metrics.request import Requests
from loadbench.prompts import Prompt
from loadbench.runner import connect
from loadbench.runner.connect import Location, Reached
from loadbench.runner.job import Job
from loadbench.runner.turn import Control, advised
from loadbench.runner.watch import Watched
from loadbench.scenario import Scenario
from loadbench.server import Chosen, ModelFacts, Target
from loadbench.store.record import Result, Results
from loadbench.transport import StockTransport, Transport

SHOW_EVERY_S = 0.05


@contextmanager
def opened(job: Job) -> Iterator[Location]:
    """The server that `loadbench run` would measure; what is started for it ends with this.

    Raises:
        LoadbenchError: There is none.
    """
    with ExitStack() as stack:
        yield connect.locate(job, stack, reach.note)


@dataclass(frozen=True, slots=True)
class Stage:
    """A server that can be asked.

    Attributes:
        how: It was found, and which variable its key is from.
        transport: The path of measured requests.
    """

    reached: Reached
    how: str
    transport: Transport | StockTransport
    asked: Scenario
    headers: dict[str, str]

    @property
    def server(self) -> Target:
        """Who answers."""
        return self.reached.server

    @asynccontextmanager
    async def loaded(self, model: Chosen) -> AsyncIterator[float | None]:
        """The model in memory: how long its load took, in s; None where nothing was loaded. Left as it was found.

        Raises:
            TargetError: It does not load.
        """
        facts, control = model.facts, self.reached.control
        if facts is None or control is None or facts.loaded is not False:
            yield None
            return
        if (warning := Watched(self.server).memory_warning(facts)) is not None:
            reach.note(f"Warning: {warning}")
        reach.note(f"{facts.id}: loading")
        began_s = time.monotonic()
        await control.load(facts)
        load_s = time.monotonic() - began_s
        reach.note(f"{facts.id}: loaded in {load_s:.3g} s")
        try:
            yield load_s
        finally:
            with anyio.CancelScope(shield=True):
                await self._unload(control, facts)

    async def _unload(self, control: Control, facts: ModelFacts) -> None:
        try:
            await control.unload(facts)
        except TargetError as error:
            reach.note(f"{facts.id}: not unloaded: {error}")

    async def ask(
        self,
        model: Chosen,
        text: str,
        shown: Callable[[str], None] | None = None,
        *,
        max_tokens: int | None = None,
    ) -> tuple[Result, str]:
        """One request, made as those of a run are: what came of it, and the reasoning before its answer.

        Args:
            shown: Called with each new piece of reasoning and answer, as it comes.
            max_tokens: Unset, those of the scenario.
        """
        cold = {"cache_prompt": False} if targets.VENDORS[self.server.kind].cache_prompt else {}
        client = Client(
            self.transport,
            self.server.chat_url_of(model.id),
            headers=self.headers,
            parameters=Parameters(self.asked.max_tokens, self.asked.temperature, {**cold, **self.asked.extra_body}),
            timeouts=self.asked.timeouts,
            now_ns=time.perf_counter_ns,
        )
        results: list[Result] = []
        now_ns = time.perf_counter_ns()
        prompt = Prompt("probe", ({"role": "user", "content": text},), max_tokens=max_tokens)
        ask = Ask(f"{model.id}@probe", 1, 0, model.id, prompt, warmup=False, due_ns=now_ns)
        seen = ("", "")

        def show_new() -> None:
            nonlocal seen
            now = client.last_texts()
            if shown is not None and (piece := new_text(seen, now)):
                shown(piece)
            seen = now

        async def show() -> None:
            while shown is not None:
                await anyio.sleep(SHOW_EVERY_S)
                show_new()

        async with anyio.create_task_group() as group:
            group.start_soon(show)
            await client.chat(ask, now_ns, results.append, keep=False)
            group.cancel_scope.cancel()
        show_new()
        result = results[0]
        if result.error_message is not None:
            result = replace(result, error_message=advised(result.error_message, self.asked))
        return result, client.last_texts()[0]


@asynccontextmanager
async def stage(location: Location, job: Job) -> AsyncIterator[Stage]:
    """The server at a location, ready to be asked.

    Raises:
        TargetError: Nobody answers there.
    """
    asked = job.scenario
    key = connect.key(asked.api_key_env, asked.api_key_file, location.how)
    headers = targets.request_headers(asked.headers, key)
    async with connect.reached(location, job, reach.note) as reached:
        base_url = reached.server.base_url
        for warning in connect.warnings(base_url, asked.api_key_file, insecure=job.server.insecure):
            reach.note(warning)
        transport = connect.transport(reached.server, job.server)
        try:
            how = reach.with_key(location.how, asked.api_key_env, asked.api_key_file)
            yield Stage(reached, how, transport, asked, headers)
        finally:
            await transport.aclose()


def figures(result: Result) -> dict[str, Any]:
    """What one request measured, by METRICS.md's formulas: times in ms, None where undefined."""
    request = Requests.of(Results.from_results([result]))

    def defined(column: Any, factor: float = 1.0) -> float | None:
        value = float(column[0])
        return None if value != value else round(value * factor, 3)

    tpot_ns = defined(request.tpot)
    return {
        "ttft_ms": defined(request.ttft, 1e-6),
        "e2e_ms": defined(request.e2e, 1e-6),
        "input_tokens": result.input_tokens,
        "output_tokens": int(request.tokens[0]),
        "token_source": "usage" if request.counted[0] else "events",
        "tokens_per_s": None if not tpot_ns else round(1e9 / tpot_ns, 2),
        "finish_reason": result.finish_reason,
        "error": result.error,
        "error_message": result.error_message,
    }


def new_text(seen: tuple[str, str], now: tuple[str, str]) -> str:
    """What is new of reasoning and answer, each of which only grows; the answer begins on a line of its own.

    >>> new_text(("", ""), ("Hm", "")), new_text(("Hm", ""), ("Hm so", "42")), new_text(("Hm", "42"), ("Hm", "421"))
    ('Hm', ' so\\n42', '1')
    """
    reasoning, answer = (after[len(before) :] for before, after in zip(seen, now, strict=True))
    starts = bool(answer and now[0] and not seen[1])
    return reasoning + "\n" * (starts and not now[0].endswith("\n")) + answer
