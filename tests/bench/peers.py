"""Stock clients, as other tools use them, for comparison with loadbench: each run is a process of its own.

    python tests/bench/peers.py httpx --url http://127.0.0.1:8000/v1 -c 64 -n 640 --max-tokens 100

It asks once, opens its connections, prints "ready", waits for a line on its standard input, loads the server as
loadbench would (closed loop, starts 50 us apart), and prints its figures as one line of JSON. Imports nothing of
loadbench, so that its memory and its CPU time are those of the stock client.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson

CLIENTS = ("httpx", "httpx-raw", "aiohttp")
BETWEEN_STARTS_S = 50e-6
ALL_STARTED_S = 0.1
clock = time.perf_counter_ns

Ask = Callable[[dict[str, Any]], AsyncIterator[int]]
"""Posts a body; yields the number of text events of each arrival, at once."""


def text_events(event: bytes) -> int:
    """1 if this event carries text, 0 if not: the JSON is parsed, as any client must."""
    if not event.startswith(b"data: ") or event.startswith(b"data: [DONE]"):
        return 0
    try:
        chunk = orjson.loads(event[6:])
    except orjson.JSONDecodeError:
        return 1  # aiter_lines cuts JSON at U+2028: half an event; its arrival counts all the same
    choices = chunk.get("choices")
    return 1 if choices and choices[0]["delta"].get("content") else 0


async def texts(chunks: AsyncIterator[bytes]) -> AsyncIterator[int]:
    """Text events of each chunk that completes some."""
    rest = b""
    async for chunk in chunks:
        *events, rest = (rest + chunk).split(b"\n\n")
        if found := sum(map(text_events, events)):
            yield found


@contextlib.asynccontextmanager
async def stock_httpx(base: str, *, raw: bool) -> AsyncIterator[tuple[Ask, Callable[[], Awaitable[None]]]]:
    """httpx.AsyncClient without its limit of 100 connections and its time-out of 5 s."""
    import httpx

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=None, trust_env=False) as client:

        async def ask(body: dict[str, Any]) -> AsyncIterator[int]:
            async with client.stream("POST", f"{base}/chat/completions", json=body) as response:
                response.raise_for_status()
                if raw:
                    async for found in texts(response.aiter_raw()):
                        yield found
                    return
                async for line in response.aiter_lines():
                    if found := text_events(line.encode()):
                        yield found

        async def look() -> None:
            await client.get(f"{base}/models")

        yield ask, look


@contextlib.asynccontextmanager
async def stock_aiohttp(base: str) -> AsyncIterator[tuple[Ask, Callable[[], Awaitable[None]]]]:
    """aiohttp.ClientSession without its limit of 100 connections and its time-out of 5 min."""
    import aiohttp

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:

        async def ask(body: dict[str, Any]) -> AsyncIterator[int]:
            async with session.post(f"{base}/chat/completions", json=body) as response:
                response.raise_for_status()
                async for found in texts(response.content.iter_any()):
                    yield found

        async def look() -> None:
            async with session.get(f"{base}/models") as response:
                await response.read()

        yield ask, look


class Run:
    """One run's counts; durations in ns. Per token it adds a subtraction and two list calls to the client's cost."""

    def __init__(self, ask: Ask, body: dict[str, Any], requests: int, limit_s: float) -> None:
        self._ask, self._body, self._to_start = ask, body, requests
        self._until_ns = clock() + round(limit_s * 1e9)
        self.ttft: list[int] = []
        self.gaps: list[int] = []
        self.events = self.merged = self.arrivals = self.requests = self.failed = 0

    async def one(self) -> None:
        sent = clock()
        last = None
        self.requests += 1
        try:
            async for found in self._ask(self._body):
                now = clock()
                if last is None:
                    self.ttft.append(now - sent)
                else:
                    self.gaps.append(now - last)
                last = now
                self.events += found
                self.arrivals += 1
                self.merged += found > 1
        except Exception as error:
            self.failed += 1
            print(f"{type(error).__name__}: {error}", file=sys.stderr)

    async def slot(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        while self._to_start > 0 and clock() < self._until_ns:
            self._to_start -= 1
            await self.one()


def percentile(ascending: list[int], p: float) -> float | None:
    """Nearest rank, in ms."""
    return ascending[math.ceil(round(p * len(ascending), 6)) - 1] / 1e6 if ascending else None


def peak_rss_mb() -> float | None:
    """Of this process."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024 / 1e6
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    base, streams = options.url.rstrip("/"), options.streams
    body = {
        "model": options.model,
        "messages": [{"role": "user", "content": "Say something."}],
        "max_tokens": options.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    opened = (
        stock_aiohttp(base) if options.client == "aiohttp" else stock_httpx(base, raw=options.client == "httpx-raw")
    )
    async with opened as (ask, look):
        async for _ in ask(body | {"max_tokens": 8}):
            pass
        await asyncio.gather(*(look() for _ in range(streams)))  # warm connections, as loadbench has them
        print("ready", flush=True)
        sys.stdin.readline()
        run = Run(ask, body, options.requests, options.limit_s)
        spread_s = min(streams * BETWEEN_STARTS_S, ALL_STARTED_S)
        began, cpu_s = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as slots:
            for slot in range(streams):
                slots.create_task(run.slot(slot * spread_s / streams))
        cpu_s, duration_s = time.process_time() - cpu_s, time.perf_counter() - began
    ttft, gaps = sorted(run.ttft), sorted(run.gaps)
    raw_lines = options.client == "httpx"
    return {
        "requests": run.requests,
        "failed": run.failed,
        "events": run.events,
        "duration_s": duration_s,
        "cpu_s": cpu_s,
        "ttft_p50_ms": percentile(ttft, 0.5),
        "ttft_p99_ms": percentile(ttft, 0.99),
        "gap_p99_ms": percentile(gaps, 0.99),
        "gap_p999_ms": percentile(gaps, 0.999),
        "merged_share": None if raw_lines else run.merged / max(run.arrivals, 1),
        "peak_rss_mb": peak_rss_mb(),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("client", choices=CLIENTS)
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", default="simulator")
    parser.add_argument("-c", "--streams", type=int, required=True)
    parser.add_argument("-n", "--requests", type=int, required=True)
    parser.add_argument("--max-tokens", type=int, default=100)
    parser.add_argument("--limit-s", type=float, default=math.inf, help="start no request after this time")
    options = parser.parse_args()
    if options.limit_s == math.inf:
        options.limit_s = 1e6
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(measure(options))
    except ImportError:
        found = asyncio.run(measure(options))
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
