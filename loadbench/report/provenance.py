"""How the figures were got, and what they mean: what a reader needs to repeat the run, or to distrust it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from loadbench import figures
from loadbench import text as units
from loadbench.report import levels
from loadbench.report.levels import Record, Summary
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
_SOURCES = {"nvml": "NVML", "rapl": "RAPL"}


def title(summary: Summary) -> str:
    run = levels.run_of(summary)
    scenario = run.get("scenario") or {}
    return one_line(run.get("name") or scenario.get("name") or "run", 60)


def date(summary: Summary) -> str:
    """The start, to the minute, with its time zone; "" where unknown."""
    run = levels.run_of(summary)
    began = run.get("start") or run.get("began") or run.get("started")
    if not began:
        return ""
    try:
        parsed = datetime.fromisoformat(str(began))
    except ValueError:
        return one_line(began, 40)
    minute, zone = f"{parsed:%Y-%m-%d %H:%M}", parsed.tzname()
    if zone is None:
        return minute
    return f"{minute} UTC" if zone in ("UTC", "UTC+00:00") else f"{minute} {zone}"


def facts(summary: Summary) -> list[tuple[str, str]]:
    """Name and text of each fact, in reading order; facts that nobody recorded are left out."""
    run = levels.run_of(summary)
    scenario = run.get("scenario") or {}
    found = [("about", one_line(scenario.get("description") or "")), *_targets(run), ("found", _found(run))]
    found += [("model", _model(model, summary)) for model in levels.by_model(summary)]
    found += [("ran", ran(model)) for model in levels.models(summary)]
    found += [("absent", absent(row)) for row in summary.get("absent") or ()]
    found += [
        ("asked for", _asked(run)),
        ("loads", _loads(summary)),
        ("took", _took(summary)),
        ("clock", _clock(summary)),
        ("client", _machine(run)),
        ("workers", _workers(run)),
        ("watched", watched(run)),
        ("not known", unwatched(run)),
        ("assumed", assumed(run)),
        ("loadbench", _versions(run)),
    ]
    return [(name, text) for name, text in found if text]


def _words(parts: Iterable[object], separator: str = ", ") -> str:
    """What is known of `parts`."""
    return separator.join(one_line(part) for part in parts if part is not None and part != "")


# -- what was asked


def _targets(run: Record) -> list[tuple[str, str]]:
    """The server, or each endpoint with its part of the requests."""
    target, endpoints = run.get("target") or {}, run.get("endpoints") or ()
    if not endpoints:
        return [("target", _target(run, target))]
    found: list[tuple[str, str]] = []
    for endpoint in endpoints:
        name = "replica" if found else "target"
        found.append((name, _target(run, {**target, **endpoint, "base_url": endpoint.get("url")})))
    parts = ":".join(str(endpoint.get("weight")) for endpoint in endpoints)
    return [*found, ("in turns", f"{parts} of the requests")]


def _target(run: Record, target: Record) -> str:
    url = target.get("base_url") or target.get("url") or (run.get("scenario") or {}).get("endpoint")
    kind = str(target.get("kind") or "")
    generation = f"{kind[-1]}.x" if kind.startswith("foundry") else None
    server = _words([KINDS.get(kind, kind), target.get("version") or generation], " ")
    where = bare_url(url) if url else ""
    if not where or not server:
        return where or server
    proxied = ", through a proxy" if target.get("proxied") else ""
    return f"{where} ({server}{proxied})"


def _found(run: Record) -> str:
    """How the server was found, unless it was named."""
    found = one_line(run.get("target_found") or "")
    return "" if found == "as given" else found


def _model(model: str, summary: Summary) -> str:
    target = levels.run_of(summary).get("target") or {}
    listed: Record = {}
    for one in target.get("models") or []:
        if isinstance(one, Mapping) and one.get("id") == model:
            listed = one
            break
    rows = levels.by_model(summary)[model]
    devices = levels.joined(str(level["device"]) for level in rows if level.get("device")) or listed.get("device")
    facts = [listed.get("quantization")]
    if listed.get("size_bytes"):
        facts.append(units.size(listed["size_bytes"]))
    if listed.get("context"):
        facts.append(f"context {listed['context']:,}")
    facts.append(f"on {devices}" if devices else "device unknown")
    facts += [listed.get("execution_provider"), listed.get("licence")]
    return one_line(f"{model}: {_words(facts)}")


def _asked(run: Record) -> str:
    scenario = run.get("scenario") or {}
    if not scenario:
        return ""
    parts = [_prompts(run, scenario)]
    if scenario.get("shared_prefix"):
        parts.append(f"{units.share(scenario['shared_prefix'])} of each in common")
    if scenario.get("distinct_prompts"):
        parts.append("each made distinct")
    if scenario.get("max_tokens"):
        parts.append(f"at most {units.plural(scenario['max_tokens'], 'token')}")
    if scenario.get("temperature") is not None:
        parts.append(f"temperature {scenario['temperature']:g}")
    extra = (run.get("parameters") or {}).get("extra_body") or scenario.get("extra_body") or {}
    for name, value in extra.items():
        parts.append(f"without {name}" if value is None else f"{name} {json.dumps(value)}")
    seed = run.get("seed", scenario.get("seed"))
    if seed is not None:
        parts.append(f"seed {seed}")
    repeat, until = scenario.get("repeat") or 1, scenario.get("until")
    if until is not None:
        parts.append(f"repeated until means of runs were known to {100 * until:g}%")
    elif repeat > 1:
        parts.append(f"repeated {repeat} times")
    other = (run.get("against") or {}).get("other")
    if other:
        parts.append(f"in turns with {bare_url(other)}")
    return _words(parts)


def _prompts(run: Record, scenario: Record) -> str:
    used, source = run.get("prompts"), scenario.get("prompts")
    if isinstance(used, Mapping) and used.get("count"):
        return _words([units.plural(used["count"], "prompt"), used.get("source")], " from ")
    if isinstance(used, int):
        return units.plural(used, "prompt")
    if isinstance(source, Sequence) and not isinstance(source, str):
        return units.plural(len(source), "prompt")
    return f"prompts from {one_line(source)}" if source else "built-in prompts"


def _loads(summary: Summary) -> str:
    rows = levels.levels(summary)
    closed = levels.joined(str(level.get("concurrency")) for level in rows if level.get("concurrency"))
    opened = levels.joined(f"{level['request_rate_per_s']:g}" for level in rows if levels.is_open(level))
    parts = []
    if closed:
        parts.append(f"{closed} stream{'' if closed == '1' else 's'} at once (closed loop)")
    if opened:
        arrivals = (levels.run_of(summary).get("scenario") or {}).get("arrivals")
        pattern = f", {arrivals} arrivals" if arrivals else ""
        parts.append(f"{opened} requests/s (open loop{pattern})")
    return _words(parts, "; ")


# -- how it went, and where


def _took(summary: Summary) -> str:
    lengths = [level["duration_s"] for level in levels.levels(summary) if level.get("duration_s") is not None]
    whole = levels.run_of(summary).get("duration_s")
    if whole is None and not lengths:
        return ""
    took = units.span(1000 * (sum(lengths) if whole is None else whole))
    return f"{took} in {units.plural(len(lengths), 'level')}" if lengths else took


def _clock(summary: Summary) -> str:
    clock = levels.run_of(summary).get("clock")
    if not clock:
        clock = levels.joined(str(level["clock"]) for level in levels.levels(summary) if level.get("clock"))
    if isinstance(clock, Mapping):
        clock = clock.get("source") or ""
    return one_line(CLOCKS.get(str(clock), clock))


def _machine(run: Record) -> str:
    machine = run.get("environment") or {}
    cores = machine.get("cores") or machine.get("cpu_count")
    parts = [machine.get("cpu")]
    if isinstance(cores, int):
        parts.append(units.plural(cores, "core"))
    if machine.get("memory_bytes"):
        parts.append(f"{units.size(machine['memory_bytes'])} memory")
    gpu = machine.get("gpu")
    parts += gpu if isinstance(gpu, list) else [gpu]
    parts.append(machine.get("os"))
    if machine.get("power"):
        parts.append(f"power: {machine['power']}")
    return _words(parts)


def _versions(run: Record) -> str:
    versions = run.get("versions") or {}
    if not isinstance(versions, Mapping):
        return one_line(versions)
    libraries = [f"{name} {versions[name]}" for name in ("httpx", "python") if name in versions]
    return one_line(_words([versions.get("loadbench"), *libraries]))


def _workers(run: Record) -> str:
    spread = run.get("spread") or {}
    workers = spread.get("workers") or ()
    if not workers:
        return ""
    if spread.get("kind") == "processes":
        processes = "process" if len(workers) == 1 else "processes"
        return f"{len(workers)} {processes} of this machine shared each level"
    hosts = len({row.get("host") for row in workers})
    machines = "machine" if hosts == 1 else "machines"
    cluster = one_line(spread.get("kind"), 60)
    return f"{len(workers)} workers of the Dask cluster {cluster} on {hosts} {machines} shared each level"


def ran(model: Record) -> str:
    """What the server ran and answered as, where that is more than its list says of the model; else ""."""
    names = ("id", "device", "execution_provider")
    actual = {name: (model.get("ran") or {}).get(name) for name in names}
    if all(actual[name] is None or actual[name] == model.get(name) for name in names):
        actual = {}
    parts = []
    if actual.get("id") not in (None, model.get("id")):
        parts.append(f"as {actual['id']}")
    on = ", ".join(str(actual[name]) for name in names[1:] if actual.get(name))
    if on:
        parts.append(f"on {on}")
        if model.get("asked_device"):
            parts.append(f"asked for {model['asked_device']}")
    served = model.get("served_as")
    if served and served != model.get("id"):
        parts.append(f"answers say {served}")
    return one_line(f"{model.get('id')}: {', '.join(parts)}") if parts else ""


def absent(row: Record) -> str:
    """A variant that was asked for and is not there."""
    what = " ".join(str(word) for word in (row.get("device"), row.get("execution_provider")) if word)
    variant = f" for {what}" if what else ""
    return one_line(f"{row.get('name')}{variant}: {row.get('reason') or 'not there'}")


# -- what was watched


def watched(run: Record) -> str:
    samples = run.get("telemetry") or {}
    if not samples or samples.get("local") is False:
        return ""
    parts = ["this machine"]
    pids = samples.get("server_pids") or []
    if not pids and samples.get("server_pid") is not None:
        pids = [samples["server_pid"]]
    if pids:
        processes = "process" if len(pids) == 1 else "processes"
        parts.append(f"server {processes} {', '.join(map(str, pids))}")
    for name, source in (("GPU", samples.get("gpu_source")), ("CPU energy", samples.get("cpu_energy_source"))):
        if source:
            parts.append(f"{name} by {_SOURCES.get(str(source), source)}")
    every = f", every {samples['interval_s']:g} s" if samples.get("interval_s") else ""
    return one_line(", ".join(parts) + every)


def unwatched(run: Record) -> str:
    """What is not known of the server, and why."""
    samples = run.get("telemetry") or {}
    if not samples:
        return ""
    if samples.get("local") is False:
        where = "not all endpoints are on this machine" if run.get("endpoints") else "it is on another machine"
        return f"memory, CPU and energy of the server: {where}"
    parts = []
    if samples.get("server_pid") is None:
        parts.append("memory and CPU of the server: its process was not found")
    for name, kind in (("GPU", "gpu"), ("CPU energy", "cpu_energy")):
        if not samples.get(f"{kind}_source"):
            parts.append(f"{name}: {samples.get(f'{kind}_reason') or 'not told here'}")
    return one_line("; ".join(parts))


def assumed(run: Record) -> str:
    scenario = run.get("scenario") or {}
    parts = []
    if scenario.get("declared_watts"):
        parts.append(f"{scenario['declared_watts']:g} W under load where nothing was measured (--watts)")
    if scenario.get("price_per_kwh"):
        parts.append(f"a price of {scenario['price_per_kwh']:g} per kWh")
    return "; ".join(parts)


# -- what figures mean

_OF_THE_REPORT = {
    "knees": (
        "knees, law",
        "X is tokens/s, R the mean E2E. Each rule for where a curve bends is printed under its name, for they differ. "
        "The Universal Scalability Law is fitted to ln X by least squares over the mean in flight, on 6 loads or more; "
        "intervals by refitting curves with the noise that the residuals allow.",
    ),
    "noise": (
        "noise band",
        "each model's first level, measured again at the end of the run: what changed between the two is noise.",
    ),
    "percentile": (
        "percentile",
        "nearest rank, ceil(p * n): a value that was measured, never an interpolation, never beyond the maximum. "
        "[lo–hi] is its 95% interval, from the order of the values; * marks one that has too few requests for an "
        "interval. Requests of one run resemble their neighbours, and gaps those of their request: intervals count "
        "them as fewer (blocks of neighbours, whole requests). Of what changes from run to run they know nothing: "
        "repeat.",
    ),
    "carries": (
        "carries",
        "the highest load at which every repeat met every bound, as did every lower load that was measured; "
        "1 user = 1 stream of requests without pauses.",
    ),
    "cold": (
        "cold, warm",
        "one short request right after a load that was seen; the next one. Both have prompts of their own, so that no "
        "prompt cache answers.",
    ),
    "absent": ("-", "not measured, or undefined. Never 0."),
}
"""What the report prints beside figures."""
_ORDER = (
    *("ttft", "itl", "tpot", "e2e", "output_tokens_per_s", "requests_per_s", "efficiency", "knees", "noise", "stalls"),
    *("percentile", "attainment", "goodput", "failed", "carries", "cpu_s_per_1000_tokens", "others_cpu_share", "cold"),
)
"""As a reader meets them; a figure that is not in here comes near the end."""


def definitions() -> list[tuple[str, str]]:
    """Heading and meaning of all that a report prints, in the order of reading."""
    known = {**figures.definitions(), **_OF_THE_REPORT}
    rest = [name for name in known if name not in _ORDER and name != "absent"]
    return [known[name] for name in (*_ORDER, *rest, "absent")]
