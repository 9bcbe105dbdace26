"""Facts of a run's provenance: what ran where, what was watched, and why something was not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loadbench.text import one_line

_SOURCES = {"nvml": "NVML", "rapl": "RAPL"}


def of(model: Mapping[str, Any]) -> str:
    """What the server ran and answered as, where that is more than its list says of the model; else ""."""
    ran, served = model.get("ran") or {}, model.get("served_as")
    listed = (model.get("id"), model.get("device"), model.get("execution_provider"))
    told = [ran.get("id"), ran.get("device"), ran.get("execution_provider")]
    if all(word is None or word == other for word, other in zip(told, listed, strict=True)):
        told = []
    on = ", ".join(str(word) for word in told[1:] if word)
    parts = [
        f"as {told[0]}" if told and told[0] not in (None, model.get("id")) else "",
        f"on {on}" if on else "",
        f"asked for {model['asked_device']}" if on and model.get("asked_device") else "",
        f"answers say {served}" if served and served != model.get("id") else "",
    ]
    said = ", ".join(part for part in parts if part)
    return one_line(f"{model.get('id')}: {said}") if said else ""


def absent(row: Mapping[str, Any]) -> str:
    """A variant that was asked for and is not there."""
    what = " ".join(str(word) for word in (row.get("device"), row.get("execution_provider")) if word)
    return one_line(f"{row.get('name')}{f' for {what}' if what else ''}: {row.get('reason') or 'not there'}")


def watched(run: Mapping[str, Any]) -> str:
    """What samples were taken of."""
    samples = run.get("telemetry") or {}
    if not samples or samples.get("local") is False:
        return ""
    pids = samples.get("server_pids") or [pid for pid in (samples.get("server_pid"),) if pid is not None]
    found = [f"server process{'es' * (len(pids) > 1)} {', '.join(map(str, pids))}"] if pids else []
    for name, source in (("GPU", samples.get("gpu_source")), ("CPU energy", samples.get("cpu_energy_source"))):
        found += [f"{name} by {_SOURCES.get(str(source), source)}"] if source else []
    every = f", every {samples['interval_s']:g} s" if samples.get("interval_s") else ""
    return one_line(", ".join(["this machine", *found]) + every)


def unwatched(run: Mapping[str, Any]) -> str:
    """What is not known of the server, and why."""
    samples = run.get("telemetry") or {}
    if not samples:
        return ""
    if samples.get("local") is False:
        where = "not all endpoints are on this machine" if run.get("endpoints") else "it is on another machine"
        return f"memory, CPU and energy of the server: {where}"
    found = [] if samples.get("server_pid") is not None else ["memory and CPU of the server: its process was not found"]
    for name, kind in (("GPU", "gpu"), ("CPU energy", "cpu_energy")):
        if not samples.get(f"{kind}_source"):
            found.append(f"{name}: {samples.get(f'{kind}_reason') or 'not told here'}")
    return one_line("; ".join(found))


def assumed(run: Mapping[str, Any]) -> str:
    """What somebody declared, and nobody measured."""
    scenario = run.get("scenario") or {}
    watts, price = scenario.get("declared_watts"), scenario.get("price_per_kwh")
    found = [f"{watts:g} W under load where nothing was measured (--watts)"] if watts else []
    found += [f"a price of {price:g} per kWh"] if price else []
    return "; ".join(found)
