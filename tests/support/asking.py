"""Chat completions asked of a URL, as the engine would ask, for tests that look at the Result."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable

from loadbench.client import Ask, Client, Parameters
from loadbench.prompts import Prompt
from loadbench.scenario import Timeouts
from loadbench.scenario.bounds import Duration
from loadbench.store.record import Result
from loadbench.transport import Clock, StockTransport, Transport

PROMPT = Prompt("sea", ({"role": "user", "content": "Write two sentences about the sea."},))


def ask_many(
    url: str,
    n: int,
    *,
    clock: Clock | None = None,
    tls: ssl.SSLContext | None = None,
    timeouts: Timeouts | None = None,
    loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
    wall_ns: Callable[[], int] = time.time_ns,
    proxy: str | None = None,
) -> list[Result]:
    """Ask n times, one after the other, over one transport, or through a proxy; marks count from the beginning."""
    results: list[Result] = []

    async def run() -> None:
        transport = StockTransport(proxy) if proxy else Transport(clock=clock, tls=tls, wall_ns=wall_ns)
        client = Client(
            transport,
            f"{url}/v1/chat/completions",
            headers={},
            parameters=Parameters(max_tokens=48, temperature=0.0, extra_body={}),
            timeouts=timeouts or Timeouts(),
            now_ns=time.perf_counter_ns,
        )
        began_ns = time.perf_counter_ns()
        for number in range(n):
            one = Ask("level", 1, number, "smollm2-135m", PROMPT, warmup=False, due_ns=time.perf_counter_ns())
            await client.chat(one, began_ns, results.append)
        await transport.aclose()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())
    assert len(results) == n
    return results


def ask(
    url: str,
    *,
    clock: Clock | None = None,
    tls: ssl.SSLContext | None = None,
    timeouts: Timeouts | None = None,
    loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> Result:
    """Ask once."""
    [result] = ask_many(url, 1, clock=clock, tls=tls, timeouts=timeouts, loop=loop)
    return result


def seconds(**limits: float) -> Timeouts:
    """Time-outs; those that are not given are long, but shorter than the test may take."""
    unnamed = {"first_token": 20.0, "idle": 20.0, "total": 20.0}
    return Timeouts(**{name: Duration(limit) for name, limit in (unnamed | limits).items()})
