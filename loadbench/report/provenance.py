"""How the figures were measured, and what they mean: what a reader needs to repeat the run, or to distrust it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime

from loadbench import figures
from loadbench import text as units
from loadbench.report import levels
from loadbench.store.schema import EndpointFacts, EnvironmentFacts, ModelFacts, RunFacts, ScenarioFacts, TargetFacts
from loadbench.store.summary import Model, Ran, Summary
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
    "thread": "kernel receive stamps, read by a thread of their own",
    "kernel": "kernel receive stamps",
    "user": "user space (stamps are taken when the client gets to read)",
}
_SOURCES = {"nvml": "NVML", "rapl": "RAPL"}


def title(summary: Summary) -> str:
    run = levels.facts(summary)
    return one_line(run.name or _scenario(run).name or "run", 60)


def date(summary: Summary) -> str:
    """The start, to the minute, with its time zone; "" where unknown."""
    began = levels.facts(summary).start
    if not began:
        return ""
    try:
        parsed = datetime.fromisoformat(began)
    except ValueError:
        return one_line(began, 40)
    minute, zone = f"{parsed:%Y-%m-%d %H:%M}", parsed.tzname()
    if zone is None:
        return minute
    return f"{minute} {zone.removesuffix('+00:00')}"


def facts(summary: Summary) -> list[tuple[str, str]]:
    """Name and text of each fact, in reading order; facts that nobody recorded are left out."""
    run = levels.facts(summary)
    rows = [*_target(run), *_models(summary, run), ("workload", _workload(run)), *_loads(summary, run)]
    lengths_s = [level.duration_s for level in levels.of(summary) if level.duration_s is not None]
    if lengths_s:
        rows.append(("took", f"{units.span(1000 * sum(lengths_s))} in {units.plural(len(lengths_s), 'level')}"))
    clock = run.clock or levels.joined(level.clock for level in levels.of(summary) if level.clock)
    versions = run.versions or {}
    libraries = [f"{name} {versions[name]}" for name in ("httpx", "python") if name in versions]
    rows += [
        ("clock", one_line(CLOCKS.get(clock, clock) + (f" ({run.reader_place})" if run.reader_place else ""))),
        ("client", _machine(run.environment or EnvironmentFacts())),
        ("workers", _workers(run)),
        ("telemetry", watched(run)),
        ("unavailable", unwatched(run)),
        ("assumed", assumed(run)),
        ("loadbench", one_line(_words([versions.get("loadbench"), *libraries]))),
    ]
    return [(name, text) for name, text in rows if text]


def _scenario(run: RunFacts) -> ScenarioFacts:
    return run.scenario or ScenarioFacts()


def _words(parts: Iterable[object], separator: str = ", ") -> str:
    """Those of `parts` that are known."""
    return separator.join(one_line(part) for part in parts if part is not None and part != "")


# -- server, models and workload


def _target(run: RunFacts) -> Iterator[tuple[str, str]]:
    """The server, or each endpoint with its part of the requests, and how it was found, unless the user named it."""
    yield "about", one_line(_scenario(run).description or "")
    target = run.target or TargetFacts()
    # A run against one endpoint has no list of them: the target is it.
    for place, endpoint in enumerate(run.endpoints or [EndpointFacts()]):
        url = endpoint.url or target.base_url or target.url or _scenario(run).endpoint
        kind = endpoint.kind or target.kind or ""
        version = endpoint.version or target.version
        if not version and kind.startswith("foundry"):
            version = f"{kind[-1]}.x"  # its generation
        server = text = _words([KINDS.get(kind, kind), version], " ")
        if url:
            text = bare_url(url)
        if url and server and target.proxied:
            text += f" ({server}, through a proxy)"
        elif url and server:
            text += f" ({server})"
        yield "replica" if place else "target", text
    if run.endpoints:
        parts = ":".join(str(endpoint.weight) for endpoint in run.endpoints)
        yield "in turns", f"{parts} of the requests"
    if run.target_found != "as given":
        yield "target", one_line(run.target_found or "")


def _models(summary: Summary, run: RunFacts) -> Iterator[tuple[str, str]]:
    listed = {model.id: model for model in (run.target or TargetFacts()).models or ()}
    for name, rows in levels.by_model(levels.of(summary)).items():
        model = listed.get(name, ModelFacts())
        words = [model.quantization]
        if model.size_bytes:
            words.append(units.size(model.size_bytes))
        if model.context:
            words.append(f"context {model.context:,}")
        devices = levels.joined(level.device for level in rows if level.device) or model.device
        words.append(f"on {devices}" if devices else "device unknown")
        yield "model", one_line(f"{name}: {_words([*words, model.execution_provider, model.licence])}")
    for one in summary.models:
        yield "ran", ran(one)
    for text in absent(summary):
        yield "absent", text


def absent(summary: Summary) -> Iterator[str]:
    """Variants that the user named and that are not there, with the reason."""
    for row in summary.absent:
        variant = str(row.name)
        if what := " ".join(filter(None, (row.device, row.execution_provider))):
            variant += f" for {what}"
        yield one_line(f"{variant}: {row.reason or 'not there'}")


def ran(model: Model) -> str:
    """What the server ran and answered as, where that is more than its list says of the model; else ""."""
    actual = model.ran or Ran()
    differs = False
    for name in ("id", "device", "execution_provider"):
        differs = differs or getattr(actual, name) not in (None, getattr(model, name))  # None: it does not say
    parts = []
    if actual.id not in (None, model.id):
        parts.append(f"as {actual.id}")
    on = ", ".join(filter(None, (actual.device, actual.execution_provider)))
    if differs and on:
        parts.append(f"on {on}")
        if model.asked_device:
            parts.append(f"asked for {model.asked_device}")
    if model.served_as and model.served_as != model.id:
        parts.append(f"answers say {model.served_as}")
    if not parts:
        return ""
    return one_line(f"{model.id}: {', '.join(parts)}")


def _workload(run: RunFacts) -> str:
    scenario = _scenario(run)
    if scenario == ScenarioFacts():  # a folder without run.json's scenario
        return ""
    if run.prompts and run.prompts.count:
        parts = [_words([units.plural(run.prompts.count, "prompt"), run.prompts.source], " from ")]
    elif isinstance(scenario.prompts, list):
        parts = [units.plural(len(scenario.prompts), "prompt")]
    elif scenario.prompts:
        parts = [f"prompts from {one_line(scenario.prompts)}"]
    else:
        parts = ["built-in prompts"]
    if scenario.shared_prefix:
        parts.append(f"{units.share(scenario.shared_prefix)} of each in common")
    if scenario.distinct_prompts:
        parts.append("each made distinct")
    if scenario.max_tokens:
        parts.append(f"at most {units.plural(scenario.max_tokens, 'token')}")
    if scenario.temperature is not None:
        parts.append(f"temperature {scenario.temperature:g}")
    extra = (run.parameters.extra_body if run.parameters else None) or scenario.extra_body or {}
    for name, value in extra.items():
        parts.append(f"without {name}" if value is None else f"{name} {json.dumps(value)}")
    seed = scenario.seed if run.seed is None else run.seed
    if seed is not None:
        parts.append(f"seed {seed}")
    if scenario.until is not None:
        parts.append(f"repeated until means of runs were known to {100 * scenario.until:g}%")
    elif scenario.repeat and scenario.repeat > 1:
        parts.append(f"repeated {scenario.repeat} times")
    if run.against and run.against.other:
        parts.append(f"in turns with {bare_url(run.against.other)}")
    return _words(parts)


def _loads(summary: Summary, run: RunFacts) -> Iterator[tuple[str, str]]:
    closed, opened = [], []
    for level in levels.of(summary):
        if level.concurrency:
            closed.append(str(level.concurrency))
        if level.is_open:
            opened.append(f"{level.request_rate_per_s:g}")
    if closed:
        yield "concurrency", f"{levels.joined(closed)} (closed loop)"
    if opened:
        pattern = "open loop"
        if arrivals := _scenario(run).arrivals:
            pattern += f", {arrivals} arrivals"
        yield "request rate", f"{levels.joined(opened)} requests/s ({pattern})"


# -- machines and telemetry


def _machine(machine: EnvironmentFacts) -> str:
    parts = [machine.cpu]
    if machine.cores:
        parts.append(units.plural(machine.cores, "core"))
    if machine.memory_bytes:
        parts.append(f"{units.size(machine.memory_bytes)} memory")
    if isinstance(machine.gpu, list):
        parts += machine.gpu
    else:
        parts.append(machine.gpu)
    parts.append(machine.os)
    if machine.power:
        parts.append(f"power: {machine.power}")
    return _words(parts)


def _workers(run: RunFacts) -> str:
    if not run.spread or not run.spread.workers:
        return ""
    workers, cluster = run.spread.workers, one_line(run.spread.kind, 60)
    if cluster == "processes":
        processes = "process" if len(workers) == 1 else "processes"
        return f"{len(workers)} {processes} of this machine shared each level"
    machines = units.plural(len({row.get("host") for row in workers}), "machine")
    return f"{len(workers)} workers of the Dask cluster {cluster} on {machines} shared each level"


def watched(run: RunFacts) -> str:
    samples = run.telemetry
    if not samples or samples.local is False:
        return ""
    parts = ["this machine"]  # of another one nothing is sampled
    pids = samples.server_pids or []
    if not pids and samples.server_pid is not None:  # of one endpoint
        pids = [samples.server_pid]
    if pids:
        processes = "process" if len(pids) == 1 else "processes"
        parts.append(f"server {processes} {', '.join(map(str, pids))}")
    for name, source in (("GPU", samples.gpu_source), ("CPU energy", samples.cpu_energy_source)):
        if source:
            parts.append(f"{name} by {_SOURCES.get(source, source)}")
    if samples.interval_s:
        parts.append(f"every {samples.interval_s:g} s")
    return one_line(", ".join(parts))


def unwatched(run: RunFacts) -> str:
    """What is unknown of the server, and why."""
    samples = run.telemetry
    if not samples:
        return ""
    if samples.local is False and run.endpoints:
        return "memory, CPU and energy of the server: not all endpoints are on this machine"
    if samples.local is False:
        return "memory, CPU and energy of the server: it is on another machine"
    parts = []
    if samples.server_pid is None:
        parts.append("memory and CPU of the server: its process was not found")
    if not samples.gpu_source:
        parts.append(f"GPU: {samples.gpu_reason or 'unavailable here'}")
    if not samples.cpu_energy_source:
        parts.append(f"CPU energy: {samples.cpu_energy_reason or 'unavailable here'}")
    return one_line("; ".join(parts))


def assumed(run: RunFacts) -> str:
    scenario = _scenario(run)
    parts = []
    if scenario.declared_watts:
        parts.append(f"{scenario.declared_watts:g} W under load where nothing was measured (--watts)")
    if scenario.price_per_kwh:
        parts.append(f"a price of {scenario.price_per_kwh:g} per kWh")
    if scenario.price_per_hour:
        parts.append(f"a price of {scenario.price_per_hour:g} per hour of the machine")
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
    "serves": (
        "serves",
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
    *("ttft", "ttfat", "thinking", "thinking_share", "itl", "tpot", "tokens_per_s_per_user", "prefill_tokens_per_s"),
    *("e2e", "normalised_latency", "output_tokens_per_s", "requests_per_s", "efficiency", "knees", "noise", "stalls"),
    *("percentile", "attainment", "goodput", "failed", "serves", "cpu_s_per_1000_tokens", "others_cpu_share", "cold"),
)
"""As a reader meets them; a figure that is not in here comes near the end."""


def definitions() -> list[tuple[str, str]]:
    """Heading and meaning of all that a report prints, in the order of reading."""
    entries = {**figures.definitions(), **_OF_THE_REPORT}
    ordered, absent = list(map(entries.pop, _ORDER)), entries.pop("absent")
    return [*ordered, *entries.values(), absent]
