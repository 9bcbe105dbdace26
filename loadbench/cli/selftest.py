"""The client measured with the client: a short run against the simulator, compared with what it really did."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import anyio
import anyio.to_thread

from loadbench.cli.checks import Check
from loadbench.client import Client, Parameters
from loadbench.engine import Engine, Limits, Progress, Settings
from loadbench.errors import LoadbenchError
from loadbench.prompts import DEFAULT
from loadbench.runner.measure import on_loop
from loadbench.scenario import Level, Timeouts
from loadbench.serve import simulator
from loadbench.serve.simulator import Simulator
from loadbench.store.record import Result
from loadbench.transport import Transport

STREAMS = 128
TTFT_MS = 20.0
GAP_MS = 5.0
TOKENS = 100
TOLERANCE = 0.01
"""MEASURING.md's budget: figures within 1 % of the truth."""
_CORE_SHARE = 0.8  # of one core, gate V3's limit
_FIGURES = (("ttft", 0.5), ("ttft", 0.99), ("itl", 0.99))


def check(*, streams: int = STREAMS, duration_s: float = 2.0) -> Check:
    """Tokens per second, CPU per token, and how far TTFT and gaps are from the truth."""
    try:
        with simulator.start(ttft_ms=TTFT_MS, itl_ms=GAP_MS) as server:
            facts = on_loop(_measure, server, streams, duration_s)
    except (LoadbenchError, OSError) as error:
        return Check("self-test", "fail", f"the simulator cannot be measured: {error}", "report this, with --json")
    return verdict(facts)


def verdict(facts: Mapping[str, Any]) -> Check:
    """The row for what was measured."""
    if not facts["completed"] or facts["failed"]:
        text = f"{facts['completed']} requests completed, {facts['failed']} failed: {facts['error']}"
        return Check("self-test", "fail" if not facts["completed"] else "warn", text, facts=dict(facts))
    cpu_us = facts["cpu_us_per_token"]
    text = (
        f"{facts['tokens_per_s']:,.0f} tokens/s over {facts['streams']} streams, {cpu_us:.1f} us of CPU each: "
        f"about {_CORE_SHARE * 1e6 / max(cpu_us, 0.1):,.0f} tokens/s in one process; "
        f"{', '.join(_shown(facts, name, share) for name, share in _FIGURES)} against the truth"
    )
    errors = [facts[f"{name}_p{share * 100:g}_error"] for name, share in _FIGURES]
    if all(error is not None and abs(error) <= TOLERANCE for error in errors):
        return Check("self-test", "ok", text, facts=dict(facts))
    advice = f"over {TOLERANCE:.0%} off: is something else busy here? Close it and look again; gate V3 watches each run"
    return Check("self-test", "warn", text, advice, facts=dict(facts))


def _shown(facts: Mapping[str, Any], name: str, share: float) -> str:
    figure = f"{'TTFT' if name == 'ttft' else 'gap'} p{share * 100:g}"
    ours, error = facts[f"{name}_p{share * 100:g}_ms"], facts[f"{name}_p{share * 100:g}_error"]
    return f"{figure} not measured" if ours is None or error is None else f"{figure} {ours:.2f} ms ({error:+.1%})"


async def _measure(server: Simulator, streams: int, duration_s: float) -> dict[str, Any]:
    transport = Transport()
    client = Client(
        transport,
        server.url + "/chat/completions",
        headers={},
        parameters=Parameters(TOKENS, 0.0, {}),
        timeouts=Timeouts(),
        now_ns=time.perf_counter_ns,
    )
    results: list[Result] = []
    engine = Engine(client, DEFAULT, Settings(seed=1), on_result=results.append, on_tick=_nothing)
    try:
        # What runs for the first time is slow: imports, caches, connections.
        await engine.run(_level(server, streams, 0.2))
        await anyio.to_thread.run_sync(simulator.reset, server.url)
        progress = _level(server, streams, duration_s)
        await engine.run(progress)
        truth = await anyio.to_thread.run_sync(simulator.truth, server.url)
    finally:
        await transport.aclose()
    return {**_facts(progress, truth), "streams": streams, "clock": transport.clock}


def _level(server: Simulator, streams: int, duration_s: float) -> Progress:
    level = Level(id="self-test", model=server.model, concurrency=streams, request_rate_per_s=None, repeat=1)
    return Progress(level, 1, Limits(requests=None, duration_s=duration_s, warmup=0))


def _facts(progress: Progress, truth: Mapping[str, Any]) -> dict[str, Any]:
    span_s = (progress.ended_ns - progress.began_ns) / 1e9
    tokens = progress.text_events
    facts: dict[str, Any] = {
        "completed": progress.completed,
        "failed": progress.failed,
        "error": progress.last_error,
        "tokens": tokens,
        "tokens_per_s": round(tokens / span_s, 1),
        "cpu_us_per_token": round(progress.client_cpu_s * 1e6 / tokens, 2) if tokens else None,
    }
    lag_us = progress.histograms["client_lag"].percentile(0.99)
    facts["lag_p99_ms"] = None if lag_us is None else lag_us / 1e3
    for name, share in _FIGURES:
        really = truth["ttft_us" if name == "ttft" else "gap_us"][f"p{share * 100:g}"]
        ours = progress.histograms[name].percentile(share)
        facts[f"{name}_p{share * 100:g}_ms"] = None if ours is None else ours / 1e3
        facts[f"{name}_p{share * 100:g}_error"] = None if ours is None or not really else round(ours / really - 1, 5)
    return facts


async def _nothing(progress: Progress) -> None: ...
