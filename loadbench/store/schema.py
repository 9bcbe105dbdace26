"""What run.json and a line of telemetry.jsonl may hold: the types and ranges that every reader rests on.

All keys may be missing or null, and keys that a later version adds pass; a key that is here and of another type means
that the file was damaged, or is somebody else's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, NotRequired, TypedDict

import msgspec
from msgspec import Meta, Struct

from loadbench.errors import UsageError
from loadbench.scenario.bounds import Bound, Threshold
from loadbench.scenario.files import is_deep
from loadbench.store.record import Count, Facts, Json, Mark
from loadbench.store.summary import Absent, Amount, Figure, Ms, Ran, Seconds, Worker

# Attempts of levels in one run.json: each takes some kB while it is read.
MOST_LEVELS = 20_000
# Objects and lists within each other; readers and writers of JSON differ in how many they take.
DEEPEST = 60

# What servers say of themselves.
FROM_SERVERS = ("target", "endpoints", "telemetry")
MOST_FORGOTTEN = 1000
HUGE = 1e18


class Lag(Struct, kw_only=True, frozen=True):
    n: Count | None = None
    mean: Amount | None = None
    p50: Amount | None = None
    p90: Amount | None = None
    p95: Amount | None = None
    p99: Amount | None = None
    p999: Amount | None = None
    max: Amount | None = None


class Part(TypedDict):
    """What one attempt of a level wrote to a file of lines: how many, and the CRC-32 of them without their ends."""

    lines: Count
    crc32: Count


class LevelFacts(Struct, kw_only=True, frozen=True):
    id: str | None = None
    attempt: Count | None = None
    status: str | None = None
    model: str | None = None
    endpoint: str | None = None
    device: str | None = None
    execution_provider: str | None = None
    alias: str | None = None
    asked_device: str | None = None
    repeat: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    concurrency: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    request_rate_per_s: Annotated[float, Meta(gt=0, le=1e9)] | None = None
    shape: str | None = None
    closing: bool | None = None
    began: str | None = None
    reason: str | None = None
    aborted: str | None = None
    duration_s: Seconds | None = None
    measured_from_ns: Mark | None = None
    full_ns: Mark | None = None
    last_issue_ns: Mark | None = None
    offered: Count | None = None
    dropped: Count | None = None
    warmup_requests: Count | None = None
    requests_planned: Count | None = None
    duration_planned_s: Seconds | None = None
    think_time_s: Seconds | None = None
    round_trip_ms: Ms | None = None
    client_cpu_s: Amount | None = None
    client_wait_share: Amount | None = None
    client_pause_s: Amount | None = None
    client_pause_at_s: Amount | None = None
    client_lag_us: Lag | None = None
    workers: list[Worker] | None = None
    written: dict[str, Part] | None = None


class ModelTurn(Struct, kw_only=True, frozen=True):
    model: str | None = None
    name: str | None = None
    alias: str | None = None
    asked_device: str | None = None
    asked_execution_provider: str | None = None
    ran: Ran | None = None
    served_as: str | None = None
    was_loaded: bool | None = None
    load_s: Seconds | None = None
    load_source: str | None = None
    load_error: str | None = None
    memory_before_load_bytes: Amount | None = None
    memory_after_load_bytes: Amount | None = None
    memory_after_unload_bytes: Amount | None = None
    disk_bytes: Amount | None = None
    disk_source: str | None = None


class ProbeFacts(Struct, kw_only=True, frozen=True):
    model: str | None = None
    purpose: str | None = None
    cold: bool | None = None
    after_s: Seconds | None = None
    every_s: Seconds | None = None
    requests: Count | None = None
    error: str | None = None
    error_message: str | None = None
    ttft_ms: Ms | None = None
    e2e_ms: Ms | None = None


class ModelFacts(Struct, kw_only=True, frozen=True):
    id: str | None = None
    aliases: list[str] | None = None
    size_bytes: Amount | None = None
    context: Count | None = None
    quantization: str | None = None
    device: str | None = None
    execution_provider: str | None = None
    licence: str | None = None
    task: str | None = None
    base_url: str | None = None
    capabilities: list[str] | None = None
    device_by_name: bool | None = None


class TargetFacts(Struct, kw_only=True, frozen=True):
    base_url: str | None = None
    url: str | None = None
    kind: str | None = None
    version: str | None = None
    server_header: str | None = None
    models: list[ModelFacts] | None = None
    slots: Count | None = None
    proxied: bool | None = None


class EndpointFacts(Struct, kw_only=True, frozen=True):
    url: str | None = None
    weight: Count | None = None
    kind: str | None = None
    version: str | None = None
    round_trip_ms: Ms | None = None


class ScenarioFacts(Struct, kw_only=True, frozen=True):
    name: str | None = None
    description: str | None = None
    endpoint: str | list[str] | None = None
    model_facts: dict[str, Json] | None = None
    prompts: str | list[str] | None = None
    system: str | None = None
    max_tokens: Count | None = None
    temperature: Figure | None = None
    seed: Count | None = None
    request_rate: list[Amount] | None = None
    shape: str | list[str] | None = None
    arrivals: str | None = None
    requests: Count | None = None
    repeat: Count | None = None
    until: Amount | None = None
    slo: list[str] | None = None
    fail_if: list[str | Json] | None = None
    shared_prefix: Amount | None = None
    distinct_prompts: bool | None = None
    stream: bool | None = None
    extra_body: Json | None = None
    execution_provider: str | None = None
    device: list[str] | None = None
    price_per_kwh: Amount | None = None
    price_per_hour: Amount | None = None
    declared_watts: Amount | None = None
    stall_threshold: Annotated[int, Meta(ge=1, le=10**6)] | Annotated[float, Meta(ge=1, le=1e6)] | None = None


class PromptsFacts(Struct, kw_only=True, frozen=True):
    count: Count | None = None
    source: str | None = None
    sha256: str | None = None
    own_limits: bool | None = None


class ParameterFacts(Struct, kw_only=True, frozen=True):
    max_tokens: Count | None = None
    temperature: Figure | None = None
    extra_body: Json | None = None
    stream: bool | None = None


class EnvironmentFacts(Struct, kw_only=True, frozen=True):
    cpu: str | None = None
    cores: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    machine_cores: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    memory_bytes: Amount | None = None
    gpu: str | list[str] | None = None
    os: str | None = None
    power: str | None = None


class TelemetryFacts(Struct, kw_only=True, frozen=True):
    interval_s: Seconds | None = None
    local: bool | None = None
    server_pid: Count | None = None
    server_pids: list[Count] | None = None
    gpu_source: str | None = None
    gpu_reason: str | None = None
    cpu_energy_source: str | None = None
    cpu_energy_reason: str | None = None


class ShareRecord(TypedDict):
    bound: str
    share: Figure | None
    wanted: Figure | None
    attained: bool | None
    interval: tuple[Figure, Figure] | None
    worth: NotRequired[Figure | None]


class StepRecord(TypedDict):
    load: Amount
    level: str
    verdict: str
    requests: Count
    counted: bool
    reason: str | None
    shares: list[ShareRecord]


class SearchRecord(TypedDict):
    """A search for the capacity is gone on with: here every key must be there."""

    model: str
    by: str
    start: Amount
    most: Amount
    within: Amount
    found: Amount | None
    bracket: tuple[Amount | None, Amount | None]
    slo: list[str]
    looks: Count
    confidence: Amount
    steps: list[StepRecord]
    contradictions: list[Amount]
    reason: str | None


class UntilFacts(Struct, kw_only=True, frozen=True):
    wanted: Amount | None = None
    reached: bool | None = None


class AgainstFacts(Struct, kw_only=True, frozen=True):
    side: str | None = None
    other: str | None = None


class SpreadFacts(Struct, kw_only=True, frozen=True):
    kind: str | None = None
    workers: list[Json] | None = None


class RunFacts(Struct, kw_only=True, frozen=True):
    name: str | None = None
    start: str | None = None
    ended: str | None = None
    status: str | None = None
    command: list[str] | None = None
    versions: dict[str, str] | None = None
    scenario: ScenarioFacts | None = None
    seed: Count | None = None
    prompts: PromptsFacts | None = None
    parameters: ParameterFacts | None = None
    target: TargetFacts | None = None
    target_found: str | None = None
    endpoints: list[EndpointFacts] | None = None
    absent: list[Absent] | None = None
    environment: EnvironmentFacts | None = None
    telemetry: TelemetryFacts | None = None
    clock: str | None = None
    reader_place: str | None = None
    hlog: bool | None = None
    budget_s: Seconds | None = None
    answers: bool | None = None
    models: list[ModelTurn] | None = None
    probes: list[ProbeFacts] | None = None
    levels: Annotated[list[LevelFacts], Meta(max_length=MOST_LEVELS)] = []
    capacity: list[SearchRecord] | None = None
    until: UntilFacts | None = None
    against: AgainstFacts | None = None
    spread: SpreadFacts | None = None


def run_facts(info: Facts) -> RunFacts:
    """What a run.json says of the run as a whole, without its levels and searches, which are read one by one."""
    return msgspec.convert(
        {name: value for name, value in info.items() if name not in ("levels", "capacity")}, RunFacts
    )


def check_run(info: Facts) -> None:
    """Whether every known key of a run.json is of its type and in its range.

    Raises:
        ValueError: Where it is not; it names the place.
    """
    if is_deep(info, DEEPEST):
        raise ValueError(f"it is nested deeper than {DEEPEST} levels")
    forget(info, FROM_SERVERS)
    try:
        msgspec.convert(info, RunFacts)
    except (msgspec.ValidationError, OverflowError) as error:
        raise ValueError(str(error)) from None
    attempts = Counter((level["id"], level["attempt"]) for level in info["levels"])
    for (level, attempt), n in attempts.items():
        if n > 1:
            raise ValueError(f"it has level {level!r} of attempt {attempt} {n} times")
    scenario = info.get("scenario") or {}
    try:
        for text in scenario.get("slo") or ():
            Bound.parse(text)
        for rule in scenario.get("fail_if") or ():
            Threshold.of(rule)
    except (UsageError, msgspec.ValidationError, ValueError) as error:
        raise ValueError(f"its scenario: {error}") from None


def forget(info: Facts, sections: Sequence[str]) -> None:
    """Make null what is a number and none that a run.json may hold: it came from a server, and the true one is unknown.

    Args:
        sections: Keys of it whose values are looked at.
    """
    some = {name: info[name] for name in sections if info.get(name) is not None}
    _forget_huge(some)
    for _ in range(MOST_FORGOTTEN):
        try:
            msgspec.convert(some, RunFacts)
        except msgspec.ValidationError as error:
            if not _forget_at(some, str(error)):
                return
        else:
            return


def _forget_huge(value: object) -> None:
    """Also where no type is known: JSON writers take no whole number beyond 64 bits."""
    rest: list[Any] = [value]
    while rest:
        one = rest.pop()
        rest += one.values() if isinstance(one, dict) else one if isinstance(one, list | tuple) else ()
        for key, item in one.items() if isinstance(one, dict) else ():
            if isinstance(item, int | float) and not abs(item) <= HUGE:
                one[key] = None


def _forget_at(info: Any, message: str) -> bool:
    """Whether the number at the place that a message names is gone now; False where no number is there."""
    found = re.search(r" - at `\$(.+)`$", message)
    keys: list[str | int] = []
    for name, index in re.findall(r"\.(\w+)|\[(\d+|\.\.\.)\]", found[1] if found else ""):
        keys.append(name or (int(index) if index != "..." else index))
    try:
        for key in keys[:-1]:
            info = info[key]
        value = info[keys[-1]]
    except (LookupError, TypeError):
        return False
    if isinstance(value, bool) or not isinstance(value, int | float) or not isinstance(info, dict | list):
        return False
    if isinstance(info, list):
        info.remove(value)
    else:
        info[keys[-1]] = None
    return True


class GpuSample(Struct, kw_only=True, frozen=True):
    index: Count = 0
    name: str | None = None
    memory_used_bytes: Amount | None = None
    memory_total_bytes: Amount | None = None
    server_memory_bytes: Amount | None = None
    utilisation: Amount | None = None
    power_w: Amount | None = None
    energy_j: Amount | None = None
    temperature_c: Figure | None = None
    clock_mhz: Amount | None = None
    throttled: bool | None = None


class ProcessSample(Struct, kw_only=True, frozen=True):
    memory_bytes: Amount | None = None
    cpu_s: Amount | None = None
    threads: Count | None = None


class MachineSample(Struct, kw_only=True, frozen=True):
    cpu_s: Amount | None = None
    memory_available_bytes: Amount | None = None
    cpu_mhz: Amount | None = None
    temperature_c: Figure | None = None
    throttled: Amount | None = None
    power: str | None = None
    battery_percent: Amount | None = None


class Sample(Struct, kw_only=True, frozen=True):
    at_s: Seconds
    phase: str | None = None
    model: str | None = None
    level: str | None = None
    attempt: Count | None = None
    server: ProcessSample | None = None
    client: ProcessSample | None = None
    machine: MachineSample | None = None
    gpus: list[GpuSample] | None = None
    cpu_energy_j: Amount | None = None
    metrics: dict[str, Figure] | None = None


def is_sample(value: object) -> bool:
    """Whether it is a sample: it has a time, and every key that is known is of its type and in its range.

    >>> is_sample({"at_s": 1.5, "server": {"threads": 4}}), is_sample({"at_s": 1.5, "server": {"threads": "4"}})
    (True, False)
    """
    try:
        msgspec.convert(value, Sample)
    except (msgspec.ValidationError, OverflowError):
        return False
    return True
