"""What the doctor looks at, a check each: what there is, whether it will do, and what to do about it."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import Literal

import psutil

from loadbench import server, store, telemetry
from loadbench.errors import LoadbenchError, how_to_install
from loadbench.scenario.files import home as home_folder
from loadbench.serve import llama
from loadbench.server import Target, lookup
from loadbench.transport import kernel_stamps_work, raise_file_limit

Mark = Literal["ok", "warn", "fail"]

EXTRAS = {
    "foundry": "foundry-local-sdk",
    "llama": "xllamacpp",
    "html": "plotly",
    "cluster": "distributed",
    "gpu": "nvidia-ml-py",
}
"""Each extra by the package that makes it work."""
_LOW_MEMORY = 500_000_000  # the embedded model takes 338 MB with 4 slots


@dataclass(frozen=True, slots=True)
class Check:
    """One row: `fail` makes measuring impossible, `warn` may spoil figures or lacks something."""

    name: str
    mark: Mark
    text: str
    advice: str | None = None
    facts: Mapping[str, object] = field(default_factory=dict)


def python() -> Check:
    """The interpreter and the packages that measure."""
    versions = telemetry.versions()
    text = f"loadbench {versions['loadbench']}, {platform.python_implementation()} {versions['python']}"
    if store.hlog_works():
        return Check("version", "ok", text, facts=versions)
    advice = "hdrhistogram is not installed: runs work, only their .hlog files are missing"
    return Check("version", "ok", text, advice, facts=versions)


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
    stamps_work: Callable[[], bool] = kernel_stamps_work, now_ns: Callable[[], int] = time.perf_counter_ns
) -> Check:
    """Who stamps arrivals, and the smallest step the clock was seen to make."""
    step_ns = _clock_step_ns(now_ns)
    kernel = stamps_work()
    facts = {"source": "kernel" if kernel else "user", "step_ns": step_ns}
    text = f"{'kernel receive stamps' if kernel else 'stamps taken by the client'}, clock steps of {step_ns} ns"
    if step_ns > 1000:
        return Check("clock", "warn", text, "gaps under a few of these steps cannot be told apart", facts)
    if kernel:
        return Check("clock", "ok", text, facts=facts)
    advice = (
        "the client's own lag is in each arrival: keep to few streams, and heed gate V3 (Linux has kernel stamps, "
        "where this process reads the kernel's own wall clock: not under libfaketime)"
    )
    return Check("clock", "warn", text, advice, facts)


def _clock_step_ns(now_ns: Callable[[], int], looks: int = 2000) -> int:
    times = [now_ns() for _ in range(looks)]
    steps = [after - before for before, after in pairwise(times) if after > before]
    return min(steps, default=looks)


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
    for seen in await lookup.look(lookup.PORTS if ports is None else ports, found):
        if seen.server is not None:
            checks.append(_answers(seen.server, seen.how))
        else:
            facts = {"endpoint": seen.endpoint, "how": seen.how}
            checks.append(Check("server", "warn", str(seen.problem), facts=facts))
    if checks:
        return checks
    advice = "`loadbench run` takes the embedded model; name a server with -e URL"
    return [Check("server", "ok", "none found on this machine", advice)]


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
