"""`loadbench doctor`: what works here, what this client can measure, and what to do about the rest."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import anyio
import anyio.to_thread
import click
import psutil
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from loadbench import server, telemetry
from loadbench.cli.options import CERTIFICATES, Command
from loadbench.cli.surroundings import data, note
from loadbench.client import Client, Parameters
from loadbench.engine import Engine, Limits, Progress, Settings
from loadbench.errors import LoadbenchError, how_to_install
from loadbench.prompts import DEFAULT
from loadbench.runner import connect
from loadbench.runner.measure import on_loop
from loadbench.scenario import Level, Timeouts
from loadbench.scenario.files import home as home_folder
from loadbench.serve import llama, simulator
from loadbench.serve.simulator import Simulator
from loadbench.server import Target, lookup
from loadbench.store.files import hlog_works
from loadbench.store.record import Result
from loadbench.text import harmless
from loadbench.transport import Clock, Transport, best_clock, raise_file_limit, reader_place

_STAMPS: dict[Clock, str] = {
    "thread": "kernel receive stamps, read by a thread of their own",
    "kernel": "kernel receive stamps, read by Python (no reader thread was built)",
    "user": "stamps taken by the client",
}
_EPILOG = """\b
Examples:
  loadbench doctor
  loadbench doctor -e http://gpu-box:8000/v1 --streams 2000
  loadbench doctor --json > doctor.json

\b
Exit: 0 fine, warnings included; 1 something makes measuring impossible.
"""
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red bold"}
Mark = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """One row: `fail` makes measuring impossible, `warn` may spoil figures or lacks something."""

    name: str
    mark: Mark
    text: str
    advice: str | None = None
    facts: Mapping[str, object] = field(default_factory=dict)


@click.command(cls=Command, epilog=_EPILOG, short_help="What works here, and what this client can measure.")
@click.option("-e", "--endpoint", metavar="URL", help="Look at this server alone.  [default: all that are found here]")
@click.option(
    "--streams", default=512, type=click.IntRange(1), metavar="N", show_default=True, help="Streams you want to open."
)
@click.option("--api-key-env", metavar="NAME", help="Variable that holds the key of the server given with -e.")
@click.option("--api-key-file", metavar="FILE", help="File with that key alone in it.")
@click.option("--ca-file", type=CERTIFICATES, metavar="FILE", help="Certificate authorities to trust (PEM).")
@click.option("--insecure", is_flag=True, help="Trust any certificate.")
@click.option("--quick", is_flag=True, help="Leave out the self-test, 3 seconds against the simulator.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(
    endpoint: str | None,
    streams: int,
    api_key_env: str | None,
    api_key_file: str | None,
    ca_file: str | None,
    insecure: bool,
    quick: bool,
    as_json: bool,
) -> int:
    """Look at this machine, the servers on it, and the client itself.

    Each row is ok, warn or fail, and says what to do. The self-test measures a server whose timing is known, so that
    you see how far this client's figures can be trusted here.
    """
    key = connect.key(api_key_env, api_key_file) if api_key_env or api_key_file else None
    for warning in connect.warnings(endpoint, api_key_file, insecure=insecure):
        note(warning)
    look_at_servers: Callable[[], Coroutine[object, object, list[Check]]] = servers
    if endpoint is not None:
        endpoint = server.normalise(endpoint)
        look_at_servers = partial(named, endpoint, key=key, ca_file=ca_file, verify=not insecure)
    rows: list[Check] = []
    console = Console()
    for check in _checks(look_at_servers, streams, quick):
        advice = None if check.advice is None else harmless(check.advice)
        rows.append(replace(check, text=harmless(check.text), advice=advice))
        if not as_json:
            _print(rows[-1], console)
    failed = any(check.mark == "fail" for check in rows)
    if as_json:
        click.echo(data({"schema": 1, "ok": not failed, "checks": [asdict(check) for check in rows]}, indent=True))
    return 1 if failed else 0


def _checks(
    look_at_servers: Callable[[], Coroutine[object, object, list[Check]]], streams: int, quick: bool
) -> Iterator[Check]:
    """All checks, quick ones first; the self-test last and alone, so that nothing of ours disturbs it."""
    yield python()
    yield machine()
    yield clock()
    yield event_loop()
    yield files(streams)
    yield extras()
    yield samples()
    yield embedded()
    yield from asyncio.run(look_at_servers())
    if not quick:
        yield self_test()


def _print(check: Check, console: Console) -> None:
    """A row as it comes: coloured to a person, plain lines to a pipe."""
    if not sys.stdout.isatty():
        click.echo(f"{check.mark:<4}  {check.name:<14}  {check.text}")
        if check.advice:
            click.echo(f"{'':<22}-> {check.advice}")
        return
    row = Table.grid(padding=(0, 2))
    row.add_column(width=4, style=_COLOURS[check.mark])
    row.add_column(width=14, style="bold")
    row.add_column(overflow="fold")
    row.add_row(check.mark, check.name, escape(check.text))
    if check.advice:
        row.add_row("", "", escape(check.advice), style="dim")
    console.print(row)


# -- what it looks at, a check each


EXTRAS = {
    "foundry": "foundry-local-sdk",
    "llama": "xllamacpp",
    "cluster": "distributed",
    "gpu": "nvidia-ml-py",
}
"""Each extra by the package that makes it work."""
_LOOKS = 2000  # at the clock
_LOW_MEMORY = 500_000_000  # the embedded model takes 338 MB with 4 slots


def python() -> Check:
    """The interpreter and the packages that measure."""
    versions = telemetry.versions()
    text = f"loadbench {versions['loadbench']}, {platform.python_implementation()} {versions['python']}"
    advice = None
    if not hlog_works():
        advice = "hdrhistogram is not installed: runs work, only their .hlog files are missing"
    return Check("version", "ok", text, advice, versions)


def machine() -> Check:
    """Cores and memory, which the client shares with a server on the same machine."""
    facts = {**telemetry.environment(), "available_bytes": psutil.virtual_memory().available}
    text = (
        f"{facts['os']}, {facts['cores']} cores ({facts['cpu'] or 'unnamed'}), "
        f"{facts['available_bytes'] / 1e9:.1f} of {facts['memory_bytes'] / 1e9:.1f} GB free"
    )
    if facts["available_bytes"] < _LOW_MEMORY:
        return Check("machine", "warn", text, "close other programs: a server that swaps is not measured", facts)
    if (facts["cores"] or 2) < 2:
        advice = "one core for client and server: run the server elsewhere, or trust gate V3 only"
        return Check("machine", "warn", text, advice, facts)
    if facts["power"] == "battery":
        return Check("machine", "warn", text + ", on battery", "plug it in: batteries throttle the cores", facts)
    return Check("machine", "ok", text, facts=facts)


def clock(
    best: Callable[[], Clock] = best_clock,
    now_ns: Callable[[], int] = time.perf_counter_ns,
    place: Callable[[], str] = reader_place,
) -> Check:
    """Who stamps arrivals, and the smallest step the clock was seen to make."""
    times = [now_ns() for _ in range(_LOOKS)]
    step_ns = min((after - before for before, after in pairwise(times) if after > before), default=_LOOKS)
    source = best()
    facts: dict[str, Any] = {"source": source, "step_ns": step_ns}
    text = _STAMPS[source]
    if source == "thread":
        facts["reader_place"] = place()
        text += f" ({facts['reader_place']})"
    text += f", clock steps of {step_ns} ns"
    if step_ns > 1000:
        return Check("clock", "warn", text, "gaps under a few of these steps cannot be told apart", facts)
    if source != "user":
        return Check("clock", "ok", text, facts=facts)
    advice = (
        "the client's own lag is in each arrival: keep to few streams, and heed gate V3 (Linux has kernel stamps, "
        "where this process reads the kernel's own wall clock: not under libfaketime)"
    )
    return Check("clock", "warn", text, advice, facts)


def event_loop() -> Check:
    """uvloop, where it is installed."""
    found = _version("uvloop")
    if found:
        return Check("event loop", "ok", f"uvloop {found}", facts={"event_loop": "uvloop"})
    facts = {"event_loop": "asyncio"}
    if sys.platform == "win32":
        return Check("event loop", "ok", "asyncio (there is no uvloop for Windows)", facts=facts)
    return Check("event loop", "warn", "asyncio", "pip install uvloop: about half the CPU per token", facts)


def files(streams: int, make_room: Callable[[int], int | None] = raise_file_limit) -> Check:
    """Whether the system grants a descriptor for each stream; the limit is raised where it may be."""
    room = make_room(streams)
    facts = {"streams_wanted": streams, "streams_possible": room}
    if room is None:
        return Check("open files", "ok", "not limited", facts=facts)
    if room >= streams:
        return Check("open files", "ok", f"room for {streams} streams", facts=facts)
    advice = f"raise the hard limit (`ulimit -Hn`, /etc/security/limits.conf), or stay below {room} streams"
    return Check("open files", "warn", f"room for {room} streams, {streams} wanted", advice, facts)


def extras() -> Check:
    """Optional parts, by the metadata of their packages; nothing is imported."""
    found = {extra: _version(package) for extra, package in EXTRAS.items()}
    text = ", ".join(f"{extra} {number}" for extra, number in found.items() if number) or "none"
    missing = [extra for extra, number in found.items() if not number]
    advice = f"not installed: {how_to_install(*missing)}" if missing else None
    return Check("extras", "ok", text, advice, facts=found)


def samples(sampler: Callable[[], telemetry.Sampler] = lambda: telemetry.Sampler(None)) -> Check:
    """What a run samples each second, and why not the rest."""
    taken = sampler()
    try:
        facts, sample = taken.facts(), taken.sample()
    finally:
        taken.close()
    gpus = [gpu["name"] or "unnamed" for gpu in sample["gpus"] or ()]
    seen = ["memory and CPU of a local server"]
    seen += [f"GPU by NVML ({', '.join(gpus)})"] if gpus else []
    seen += ["CPU energy by RAPL"] if facts["cpu_energy_source"] else []
    reasons = {"GPU": facts["gpu_reason"], "CPU energy": facts["cpu_energy_reason"]}
    missing = [f"{what}: {why}" for what, why in reasons.items() if why]
    advice = f"not measured: {'; '.join(missing)}" if missing else None
    return Check("telemetry", "ok", ", ".join(seen), advice, {**facts, "gpus": gpus or None})


def embedded() -> Check:
    """The embedded real model: whether it can run here, and whether its file is fetched."""
    reason = llama.available()
    if reason:
        return Check("embedded model", "warn", f"not available: {reason}", None, {"available": False})
    try:
        here = any((llama.cache_dir() / "models").glob("*.gguf"))
    except LoadbenchError as error:
        return Check("embedded model", "warn", f"not available: {error}", None, {"available": False})
    facts = {"available": True, "fetched": here}
    text = f"{llama.MODEL} on llama.cpp" + ("" if here else ", 93 MB to fetch at the first run")
    return Check("embedded model", "ok", text, facts=facts)


async def named(endpoint: str, *, key: str | None, ca_file: str | None, verify: bool) -> list[Check]:
    """The server that the user named; the options are `open_http`'s."""
    try:
        async with server.open_http(endpoint, key=key, ca_file=ca_file, verify=verify) as http:
            return [_answers(await server.find(endpoint, http=http, within_s=lookup.LOOK_S), "as given")]
    except LoadbenchError as error:
        return [Check("server", "fail", str(error), facts={"endpoint": endpoint})]


async def servers(ports: Iterable[int] | None = None, *, home: Path | None = None) -> list[Check]:
    """The server a run would find by itself, and what listens where servers usually do."""
    checks: list[Check] = []
    try:
        found = await asyncio.to_thread(server.discover, os.environ, home or home_folder())
    except LoadbenchError as error:
        checks.append(Check("server", "warn", str(error), "mend or unset the variable"))
        found = None
    tried = list(lookup.PORTS if ports is None else ports)
    for seen in await lookup.look(tried, found, os.environ):
        if seen.server is not None:
            checks.append(_answers(seen.server, seen.how))
        else:
            facts = {"endpoint": seen.endpoint, "how": seen.how}
            checks.append(Check("server", "warn", str(seen.problem), facts=facts))
    if checks:
        return checks
    advice = "`loadbench run` takes the embedded model; name a server with -e URL"
    return [Check("server", "ok", f"none found on this machine (ports {', '.join(map(str, tried))})", advice)]


def _answers(found: Target, how: str | None) -> Check:
    names = [model.id for model in found.models]
    loaded = [model.id for model in found.models if model.loaded]
    facts = {
        "endpoint": found.base_url,
        "kind": found.kind,
        "version": found.version,
        "models": names,
        "loaded": loaded,
        "how": how,
    }
    kind = " ".join(filter(None, (found.kind, found.version)))
    models = f"{len(names)} models"
    if len(loaded) != len(names):
        models = f"{len(loaded)} of {len(names)} models loaded"
    examples = loaded or names
    if examples:
        models += f" ({', '.join(examples[:3])}{' …' if len(examples) > 3 else ''})"
    text = f"{found.base_url}: {kind}, {models}" + (f"; {how}" if how else "")
    if not names:
        advice = f"{found.unlisted or 'it lists no model'}: name one with -m MODEL"
        return Check("server", "warn", text, advice, facts)
    return Check("server", "ok", text, facts=facts)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


# -- the self-test: the client measured with the client, against the simulator's own record

_STREAMS = 128
_TTFT_MS = 20.0
_GAP_MS = 5.0
_TOKENS = 100
_TOLERANCE = 0.01  # figures are to be within 1 % of the truth
_CORE_SHARE = 0.8  # of one core, gate V3's limit
_FIGURES = (("ttft", 0.5), ("ttft", 0.99), ("itl", 0.99))


def self_test(*, streams: int = _STREAMS, duration_s: float = 2.0) -> Check:
    """Tokens per second, CPU per token, and how far TTFT and gaps are from the truth."""
    try:
        with simulator.start(ttft_ms=_TTFT_MS, itl_ms=_GAP_MS) as server:
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
    if all(error is not None and abs(error) <= _TOLERANCE for error in errors):
        return Check("self-test", "ok", text, facts=dict(facts))
    advice = (
        f"over {_TOLERANCE:.0%} off: is something else busy here? Close it and look again; gate V3 watches each run"
    )
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
        parameters=Parameters(_TOKENS, 0.0, {}),
        timeouts=Timeouts(),
        now_ns=time.perf_counter_ns,
    )
    results: list[Result] = []

    async def on_tick(progress: Progress) -> None: ...

    engine = Engine(client, DEFAULT, Settings(seed=1), on_result=results.append, on_tick=on_tick)
    level = Level(id="self-test", model=server.model, concurrency=streams, request_rate_per_s=None, repeat=1)
    try:
        # What runs for the first time is slow: imports, caches, connections.
        await engine.run(Progress(level, 1, Limits(requests=None, duration_s=0.2, warmup=0)))
        await anyio.to_thread.run_sync(simulator.reset, server.url)
        progress = Progress(level, 1, Limits(requests=None, duration_s=duration_s, warmup=0))
        await engine.run(progress)
        truth = await anyio.to_thread.run_sync(simulator.truth, server.url)
    finally:
        await transport.aclose()
    tokens, lag_us = progress.text_events, progress.histograms["client_lag"].percentile(0.99)
    facts: dict[str, Any] = {
        "completed": progress.completed,
        "failed": progress.failed,
        "error": progress.last_error,
        "tokens": tokens,
        "tokens_per_s": round(tokens / (progress.ended_ns - progress.began_ns) * 1e9, 1),
        "cpu_us_per_token": round(progress.client_cpu_s * 1e6 / tokens, 2) if tokens else None,
        "lag_p99_ms": None if lag_us is None else lag_us / 1e3,
        "streams": streams,
        "clock": transport.clock,
    }
    for name, share in _FIGURES:
        really = truth["ttft_us" if name == "ttft" else "gap_us"][f"p{share * 100:g}"]
        ours = progress.histograms[name].percentile(share)
        facts[f"{name}_p{share * 100:g}_ms"] = None if ours is None else ours / 1e3
        facts[f"{name}_p{share * 100:g}_error"] = None if ours is None or not really else round(ours / really - 1, 5)
    return facts
