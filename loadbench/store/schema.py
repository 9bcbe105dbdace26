"""What run.json and a line of telemetry.jsonl may hold: the types and ranges that every reader rests on.

All keys may be missing or null, and keys that a later version adds pass; a key that is here and of another type means
that the file was damaged, or is somebody else's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NotRequired, TypedDict

import msgspec
from msgspec import Meta

from loadbench.bounds import Bound, Threshold
from loadbench.errors import UsageError
from loadbench.record import Count, Mark
from loadbench.scenario.files import is_deep

MOST_LEVELS = 20_000
"""Attempts of levels in one run.json: each takes some kB while it is read."""
DEEPEST = 60
"""Objects and lists within each other; readers and writers of JSON differ in how many they take."""

FROM_SERVERS = ("target", "endpoints", "telemetry")
"""What servers say of themselves."""
MOST_FORGOTTEN = 1000
HUGE = 1e18

Seconds = Annotated[float, Meta(ge=0, le=1e9)]
Ms = Annotated[float, Meta(ge=0, le=1e12)]
Amount = Annotated[float, Meta(ge=0, le=1e18)]
Figure = Annotated[float, Meta(ge=-1e18, le=1e18)]


class _Lag(TypedDict, total=False):
    n: Count | None
    mean: Amount | None
    p50: Amount | None
    p90: Amount | None
    p95: Amount | None
    p99: Amount | None
    p999: Amount | None
    max: Amount | None


class Part(TypedDict):
    """What one attempt of a level wrote to a file of lines: how many, and the CRC-32 of them without their ends."""

    lines: Count
    crc32: Count


class _Percentiles(TypedDict, total=False):
    p50: Amount | None
    p99: Amount | None


class _Worker(TypedDict, total=False):
    name: str | None
    address: str | None
    host: str | None
    pid: Count | None
    status: str | None
    reason: str | None
    lost_s: Amount | None
    streams: Count | None
    request_rate_per_s: Amount | None
    issued: Count | None
    completed: Count | None
    failed: Count | None
    cancelled: Count | None
    dropped: Count | None
    unknown: Count | None
    ttft_ms: _Percentiles | None
    itl_ms: _Percentiles | None
    client_lag_ms: _Percentiles | None
    cpu_s: Amount | None
    cpu_share: Amount | None
    round_trip_ms: Amount | None
    clock_uncertain_ms: Amount | None
    wall_clock_offset_ms: Figure | None
    late_ms: Figure | None


class _Level(TypedDict, total=False):
    id: str
    attempt: Count
    status: str
    model: str | None
    endpoint: str | None
    device: str | None
    execution_provider: str | None
    alias: str | None
    asked_device: str | None
    repeat: Annotated[int, Meta(ge=1, le=1_000_000)] | None
    concurrency: Annotated[int, Meta(ge=1, le=10_000_000)] | None
    request_rate_per_s: Annotated[float, Meta(gt=0, le=1e9)] | None
    shape: str | None
    closing: bool | None
    began: str | None
    reason: str | None
    aborted: str | None
    duration_s: Seconds | None
    measured_from_ns: Mark | None
    full_ns: Mark | None
    last_issue_ns: Mark | None
    offered: Count | None
    dropped: Count | None
    warmup_requests: Count | None
    requests_planned: Count | None
    duration_planned_s: Seconds | None
    think_time_s: Seconds | None
    round_trip_ms: Ms | None
    client_cpu_s: Amount | None
    client_wait_share: Amount | None
    client_lag_us: _Lag | None
    workers: list[_Worker] | None
    written: dict[str, Part] | None


class _Ran(TypedDict, total=False):
    id: str | None
    device: str | None
    execution_provider: str | None


class _Model(TypedDict, total=False):
    model: str | None
    name: str | None
    alias: str | None
    asked_device: str | None
    asked_execution_provider: str | None
    ran: _Ran | None
    served_as: str | None
    was_loaded: bool | None
    load_s: Seconds | None
    load_source: str | None
    load_error: str | None
    memory_before_load_bytes: Amount | None
    memory_after_load_bytes: Amount | None
    memory_after_unload_bytes: Amount | None
    disk_bytes: Amount | None
    disk_source: str | None


class _Probe(TypedDict, total=False):
    model: str | None
    purpose: str | None
    cold: bool | None
    after_s: Seconds | None
    every_s: Seconds | None
    requests: Count | None
    error: str | None
    error_message: str | None
    ttft_ms: Ms | None
    e2e_ms: Ms | None


class _Facts(TypedDict, total=False):
    id: str | None
    aliases: list[str] | None
    size_bytes: Amount | None
    context: Count | None
    quantization: str | None
    device: str | None
    execution_provider: str | None
    licence: str | None
    task: str | None
    base_url: str | None
    capabilities: list[str] | None
    device_by_name: bool | None


class _Target(TypedDict, total=False):
    base_url: str | None
    url: str | None
    kind: str | None
    version: str | None
    server_header: str | None
    models: list[_Facts] | None
    slots: Count | None
    proxied: bool | None


class _Endpoint(TypedDict, total=False):
    url: str | None
    weight: Count | None
    kind: str | None
    version: str | None
    round_trip_ms: Ms | None


class _Scenario(TypedDict, total=False):
    name: str | None
    description: str | None
    endpoint: str | list[str] | None
    model_facts: dict[str, dict[str, Any]] | None
    prompts: str | list[str] | None
    system: str | None
    max_tokens: Count | None
    temperature: Figure | None
    seed: Count | None
    request_rate: list[Amount] | None
    shape: str | list[str] | None
    arrivals: str | None
    requests: Count | None
    repeat: Count | None
    until: Amount | None
    slo: list[str] | None
    fail_if: list[str | dict[str, Any]] | None
    shared_prefix: Amount | None
    distinct_prompts: bool | None
    stream: bool | None
    extra_body: dict[str, Any] | None
    execution_provider: str | None
    device: list[str] | None
    price_per_kwh: Amount | None
    declared_watts: Amount | None
    stall_threshold: Annotated[float, Meta(ge=1, le=1e6)] | None


class _Prompts(TypedDict, total=False):
    count: Count | None
    source: str | None
    sha256: str | None
    own_limits: bool | None


class _Parameters(TypedDict, total=False):
    max_tokens: Count | None
    temperature: Figure | None
    extra_body: dict[str, Any] | None
    stream: bool | None


class _Environment(TypedDict, total=False):
    cpu: str | None
    cores: Annotated[int, Meta(ge=1, le=1_000_000)] | None
    machine_cores: Annotated[int, Meta(ge=1, le=1_000_000)] | None
    memory_bytes: Amount | None
    gpu: str | list[str] | None
    os: str | None
    power: str | None


class _Telemetry(TypedDict, total=False):
    interval_s: Seconds | None
    local: bool | None
    server_pid: Count | None
    server_pids: list[Count] | None
    gpu_source: str | None
    gpu_reason: str | None
    cpu_energy_source: str | None
    cpu_energy_reason: str | None


class _Absent(TypedDict, total=False):
    name: str | None
    device: str | None
    execution_provider: str | None
    reason: str | None


class _Share(TypedDict):
    bound: str
    share: Figure | None
    wanted: Figure | None
    attained: bool | None
    interval: tuple[Figure, Figure] | None
    worth: NotRequired[Figure | None]


class _Step(TypedDict):
    load: Amount
    level: str
    verdict: str
    requests: Count
    counted: bool
    reason: str | None
    shares: list[_Share]


class _Search(TypedDict):
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
    steps: list[_Step]
    contradictions: list[Amount]
    reason: str | None


class _Until(TypedDict, total=False):
    wanted: Amount | None
    reached: bool | None


class _Against(TypedDict, total=False):
    side: str | None
    other: str | None


class _Spread(TypedDict, total=False):
    kind: str | None
    workers: list[dict[str, Any]] | None


class _Run(TypedDict, total=False):
    name: str | None
    start: str | None
    ended: str | None
    status: str | None
    command: list[str] | None
    versions: dict[str, str] | None
    scenario: _Scenario | None
    seed: Count | None
    prompts: _Prompts | None
    parameters: _Parameters | None
    target: _Target | None
    target_found: str | None
    endpoints: list[_Endpoint] | None
    absent: list[_Absent] | None
    environment: _Environment | None
    telemetry: _Telemetry | None
    clock: str | None
    hlog: bool | None
    budget_s: Seconds | None
    answers: bool | None
    models: list[_Model] | None
    probes: list[_Probe] | None
    levels: Annotated[list[_Level], Meta(max_length=MOST_LEVELS)]
    capacity: list[_Search] | None
    until: _Until | None
    against: _Against | None
    spread: _Spread | None


def check_run(info: Mapping[str, Any]) -> None:
    """Whether every known key of a run.json is of its type and in its range.

    Raises:
        ValueError: Where it is not; it names the place.
    """
    if is_deep(info, DEEPEST):
        raise ValueError(f"it is nested deeper than {DEEPEST} levels")
    forget(info, FROM_SERVERS)
    try:
        msgspec.convert(info, _Run)
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


def forget(info: Mapping[str, Any], sections: Sequence[str]) -> None:
    """Make null what is a number and none that a run.json may hold: a server said it, and nobody knows the truth.

    Args:
        sections: Keys of it whose values are looked at.
    """
    some = {name: info[name] for name in sections if info.get(name) is not None}
    _forget_huge(some)
    for _ in range(MOST_FORGOTTEN):
        try:
            msgspec.convert(some, _Run)
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


class _Gpu(TypedDict, total=False):
    index: Count
    name: str | None
    memory_used_bytes: Amount | None
    memory_total_bytes: Amount | None
    server_memory_bytes: Amount | None
    utilisation: Amount | None
    power_w: Amount | None
    energy_j: Amount | None
    temperature_c: Figure | None
    clock_mhz: Amount | None
    throttled: bool | None


class _Processes(TypedDict, total=False):
    memory_bytes: Amount | None
    cpu_s: Amount | None
    threads: Count | None


class _MachineSample(TypedDict, total=False):
    cpu_s: Amount | None
    memory_available_bytes: Amount | None
    cpu_mhz: Amount | None
    temperature_c: Figure | None
    throttled: Amount | None
    power: str | None
    battery_percent: Amount | None


class _Sample(TypedDict, total=False):
    at_s: Seconds
    phase: str | None
    model: str | None
    level: str | None
    attempt: Count | None
    server: _Processes | None
    client: _Processes | None
    machine: _MachineSample | None
    gpus: list[_Gpu] | None
    cpu_energy_j: Amount | None
    metrics: dict[str, Figure] | None


def is_sample(value: object) -> bool:
    """Whether it is a sample: it has a time, and every key that is known is of its type and in its range.

    >>> is_sample({"at_s": 1.5, "server": {"threads": 4}}), is_sample({"at_s": 1.5, "server": {"threads": "4"}})
    (True, False)
    """
    try:
        return "at_s" in msgspec.convert(value, _Sample)
    except (msgspec.ValidationError, OverflowError):
        return False
