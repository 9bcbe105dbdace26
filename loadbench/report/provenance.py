"""How the figures were got: what a reader needs to repeat the run, or to distrust it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from loadbench import text as units
from loadbench.report import levels, ran, workers
from loadbench.report.levels import Summary
from loadbench.text import bare_url, one_line

SIMULATED = "SIMULATED: these figures come from loadbench's simulator, not from a model"
KINDS = {
    "foundry0": "Foundry Local",
    "foundry1": "Foundry Local",
    "foundry2": "Foundry Local",
    "vllm": "vLLM",
    "ollama": "Ollama",
    "lmstudio": "LM Studio",
    "simulator": "simulator",
    "openai": "OpenAI-compatible server",
}
CLOCKS = {
    "kernel": "kernel receive stamps",
    "user": "user space (stamps are taken when the client gets to read)",
}


def facts(summary: Summary) -> list[tuple[str, str]]:
    """Name and text of each fact, in reading order; facts that nobody recorded are left out."""
    run: Mapping[str, Any] = summary.get("run") or {}
    found = [
        ("about", _run(run)),
        *_targets(run),
        ("found", _found(run)),
        *(("model", _model(model, summary)) for model in levels.by_model(summary)),
        *(("ran", ran.of(model)) for model in levels.models(summary)),
        *(("absent", ran.absent(row)) for row in summary.get("absent") or ()),
        ("asked for", _asked(run)),
        ("loads", _loads(summary)),
        ("took", _took(run, summary)),
        ("clock", _clock(run, summary)),
        ("client", _machine(run)),
        ("workers", workers.of(run)),
        ("watched", ran.watched(run)),
        ("not known", ran.unwatched(run)),
        ("assumed", ran.assumed(run)),
        ("loadbench", _versions(run)),
    ]
    return [(name, text) for name, text in found if text]


def title(summary: Summary) -> str:
    run = summary.get("run") or {}
    scenario = run.get("scenario") or {}
    return one_line(run.get("name") or scenario.get("name") or "run", 60)


def date(summary: Summary) -> str:
    """The start, to the minute, with its time zone; "" where unknown."""
    run = summary.get("run") or {}
    began = run.get("start") or run.get("began") or run.get("started")
    if not began:
        return ""
    try:
        parsed = datetime.fromisoformat(str(began))
    except ValueError:
        return one_line(began, 40)
    zone = {"UTC": " UTC", "UTC+00:00": " UTC"}.get(
        str(parsed.tzname()), f" {parsed.tzname()}" if parsed.tzname() else ""
    )
    return f"{parsed:%Y-%m-%d %H:%M}{zone}"


def _run(run: Mapping[str, Any]) -> str:
    scenario = run.get("scenario") or {}
    return one_line(scenario.get("description") or "")


def _targets(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The server, or each endpoint with its part of the requests."""
    target, several = run.get("target") or {}, run.get("endpoints") or ()
    if not several:
        return [("target", _target(run, target))]
    parts = ":".join(str(one.get("weight")) for one in several)
    told = [_target(run, {**target, **one, "base_url": one.get("url")}) for one in several]
    return [("target", told[0]), *(("replica", one) for one in told[1:]), ("in turns", f"{parts} of the requests")]


def _target(run: Mapping[str, Any], target: Mapping[str, Any]) -> str:
    url = target.get("base_url") or target.get("url") or (run.get("scenario") or {}).get("endpoint")
    kind = str(target.get("kind") or "")
    generation = f"{kind[-1]}.x" if kind.startswith("foundry") else None
    server = " ".join(_words(KINDS.get(kind, kind), target.get("version") or generation))
    proxied = ", through a proxy" if target.get("proxied") else ""
    where = bare_url(url) if url else ""
    return f"{where} ({server}{proxied})" if where and server else where or server


def _found(run: Mapping[str, Any]) -> str:
    """How the server was found, unless it was named."""
    found = one_line(run.get("target_found") or "")
    return "" if found == "as given" else found


def _model(model: str, summary: Summary) -> str:
    target = (summary.get("run") or {}).get("target") or {}
    known = target.get("models") or []
    found: Mapping[str, Any] = next((m for m in known if isinstance(m, Mapping) and m.get("id") == model), {})
    rows = levels.by_model(summary)[model]
    devices = levels.joined(str(level["device"]) for level in rows if level.get("device"))
    context = found.get("context")
    about = _words(
        found.get("quantization"),
        units.size(found["size_bytes"]) if found.get("size_bytes") else None,
        f"context {context:,}" if context else None,
        f"on {devices or found.get('device')}" if devices or found.get("device") else "device unknown",
        found.get("execution_provider"),
        found.get("licence"),
    )
    return one_line(f"{model}: {', '.join(about)}")


def _asked(run: Mapping[str, Any]) -> str:
    scenario = run.get("scenario") or {}
    if not scenario:
        return ""
    temperature = scenario.get("temperature")
    extra = (run.get("parameters") or {}).get("extra_body") or scenario.get("extra_body") or {}
    seed = run.get("seed", scenario.get("seed"))
    repeat, until = scenario.get("repeat") or 1, scenario.get("until")
    other = (run.get("against") or {}).get("other")
    return ", ".join(
        _words(
            _prompts(run, scenario),
            f"{units.share(shared)} of each in common" if (shared := scenario.get("shared_prefix")) else None,
            "each made distinct" if scenario.get("distinct_prompts") else None,
            f"at most {units.plural(scenario['max_tokens'], 'token')}" if scenario.get("max_tokens") else None,
            f"temperature {temperature:g}" if temperature is not None else None,
            *(f"without {name}" if value is None else f"{name} {json.dumps(value)}" for name, value in extra.items()),
            f"seed {seed}" if seed is not None else None,
            f"repeated {repeat} times" if repeat > 1 and until is None else None,
            f"repeated until means of runs were known to {100 * until:g}%" if until is not None else None,
            f"in turns with {bare_url(other)}" if other else None,
        )
    )


def _prompts(run: Mapping[str, Any], scenario: Mapping[str, Any]) -> str:
    known = run.get("prompts")
    given = scenario.get("prompts")
    if isinstance(known, Mapping) and known.get("count"):
        return " from ".join(_words(units.plural(known["count"], "prompt"), known.get("source")))
    if isinstance(known, int):
        return units.plural(known, "prompt")
    if isinstance(given, Sequence) and not isinstance(given, str):
        return units.plural(len(given), "prompt")
    return f"prompts from {one_line(given)}" if given else "built-in prompts"


def _loads(summary: Summary) -> str:
    rows = levels.levels(summary)
    closed = levels.joined(str(level.get("concurrency")) for level in rows if level.get("concurrency"))
    opened = levels.joined(f"{level['request_rate_per_s']:g}" for level in rows if levels.is_open(level))
    arrivals = ((summary.get("run") or {}).get("scenario") or {}).get("arrivals")
    return "; ".join(
        _words(
            f"{closed} stream{'' if closed == '1' else 's'} at once (closed loop)" if closed else None,
            f"{opened} requests/s (open loop{f', {arrivals} arrivals' if arrivals else ''})" if opened else None,
        )
    )


def _took(run: Mapping[str, Any], summary: Summary) -> str:
    lengths = [level["duration_s"] for level in levels.levels(summary) if level.get("duration_s") is not None]
    whole = run.get("duration_s")
    if whole is None and not lengths:
        return ""
    return f"{units.span(1000 * (whole if whole is not None else sum(lengths)))}" + (
        f" in {units.plural(len(lengths), 'level')}" if lengths else ""
    )


def _clock(run: Mapping[str, Any], summary: Summary) -> str:
    clock = run.get("clock") or levels.joined(str(r["clock"]) for r in levels.levels(summary) if r.get("clock"))
    if isinstance(clock, Mapping):
        clock = clock.get("source") or ""
    return one_line(CLOCKS.get(str(clock), clock))


def _machine(run: Mapping[str, Any]) -> str:
    machine = run.get("environment") or {}
    cores = machine.get("cores") or machine.get("cpu_count")
    memory = machine.get("memory_bytes")
    gpu = machine.get("gpu")
    names = gpu if isinstance(gpu, list) else [gpu]
    return ", ".join(
        one_line(word)
        for word in _words(
            machine.get("cpu"),
            units.plural(cores, "core") if isinstance(cores, int) else None,
            f"{units.size(memory)} memory" if memory else None,
            *names,
            machine.get("os"),
            f"power: {machine['power']}" if machine.get("power") else None,
        )
    )


def _versions(run: Mapping[str, Any]) -> str:
    versions = run.get("versions") or {}
    if not isinstance(versions, Mapping):
        return one_line(versions)
    own = versions.get("loadbench")
    others = [f"{name} {version}" for name, version in sorted(versions.items()) if name in ("python", "httpx")]
    return one_line(", ".join(_words(own, *others)))


def _words(*parts: object) -> list[str]:
    """What is known of `parts`."""
    return [one_line(part) for part in parts if part is not None and part != ""]
