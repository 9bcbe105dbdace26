"""summary.json as structs: what `metrics` builds and every reader of a run's figures rests on.

docs/summary.md says what each field means, and a test holds the two to each other. Fields are only ever added. A reader
passes over what it does not know, and what is missing is None, so that summaries of other versions can be read. A field
that is there in some cases alone is unset in the others, and then not written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from loadbench.store.record import Count, Json

SCHEMA = 1
Severity = Literal["red", "warn", "note"]
# What a probe says of the SLO at its load.
Verdict = Literal["met", "not met", "undecided"]
# The worst first: "red" forbids a verdict, "warn" is a doubt to print, "note" a fact that a reader should know.
SEVERITIES: tuple[Severity, ...] = ("red", "warn", "note")
# Both ends; one that too few requests hold is None.
Interval = Sequence[float | None]
# A figure that stays as whole as it was written: 4 streams are not 4.0 of them.
Load = int | float
Seconds = Annotated[int, Meta(ge=0, le=10**9)] | Annotated[float, Meta(ge=0, le=1e9)]
Ms = Annotated[int, Meta(ge=0, le=10**12)] | Annotated[float, Meta(ge=0, le=1e12)]
Amount = Annotated[int, Meta(ge=0, le=10**18)] | Annotated[float, Meta(ge=0, le=1e18)]
Figure = Annotated[int, Meta(ge=-(10**18), le=10**18)] | Annotated[float, Meta(ge=-1e18, le=1e18)]


def rounded(value: float | None, digits: int = 3) -> float | None:
    """A plain float for JSON; None for None, NaN and infinities.

    >>> rounded(1.23456), rounded(float("nan")), rounded(None)
    (1.235, None, None)
    """
    return round(float(value), digits) if value is not None and math.isfinite(value) else None


def significant(value: float | None, digits: int = 6) -> float | None:
    """A plain float of this many significant digits, for what may be small: one answer in 20 minutes is 0.000833333/s.

    >>> significant(1 / 1200), significant(48_000.1234), significant(0.0), significant(float("inf"))
    (0.000833333, 48000.1, 0.0, None)
    """
    return float(f"{value:.{digits}g}") if value is not None and math.isfinite(value) else None


def rank(severity: str) -> int:
    """The place of a severity, from 0 for the worst; a word that is none counts as the last."""
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES) - 1


class Finding(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """What speaks against figures: a gate, a doubt about a choice, records that are missing.

    Attributes:
        code: Of the check (docs/checks.md), or a word for what it is about.
        name: What people call that check.
        text: One sentence: the figure, what is wrong with it, what to do.
        where: What it is about, where it stands apart from that: a candidate, levels. Unset in a level's own findings.
    """

    code: str
    severity: Severity
    text: str
    name: str | UnsetType = UNSET
    where: str = ""


class Distribution(Struct, kw_only=True, frozen=True):
    """A metric over many requests: percentiles by nearest rank, with their 95 % intervals."""

    n: int | None = None
    mean: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    p999: float | None = None
    max: float | None = None
    ci95: Mapping[str, Interval | None] = {}
    ci95_in_doubt: Sequence[str] | UnsetType = UNSET
    total: int | UnsetType | None = UNSET

    def at(self, statistic: str) -> float | None:
        """The mean, a percentile or the maximum, by its name."""
        found: float | None = getattr(self, statistic, None)
        return found


# Of a metric that has no meaning.
NOTHING = Distribution(n=0)


class Objective(Struct, kw_only=True, frozen=True):
    """How one level does against one bound of the SLO."""

    bound: str
    attainment: float | None = None
    attained: bool | None = None
    n: int | None = None
    ci95: Interval | None = None


class Dependence(Struct, kw_only=True, frozen=True):
    neighbours: float | None = None
    independent: int | None = None
    strong: bool = False


class Drift(Struct, kw_only=True, frozen=True):
    ratio: float
    significant: bool


class Stall(Struct, kw_only=True, frozen=True):
    at_s: float | None
    ms: float | None
    request: int


class Stalls(Struct, kw_only=True, frozen=True):
    n: int | None = None
    threshold_ms: float | None = None
    requests: int | None = None
    longest_ms: float | None = None
    longest_request: int | None = None
    longest_prompt: str | None = None
    at_s: float | None = None
    longest: Sequence[Stall] | None = None


class Spectrum(Struct, kw_only=True, frozen=True):
    one_in: Sequence[float]
    ms: Sequence[float]


class Timeline(Struct, kw_only=True, frozen=True):
    every_s: float
    t_s: Sequence[float]
    in_flight: Sequence[float]
    output_tokens_per_s: Sequence[float] | None
    errors: Sequence[int]


class Course(Struct, kw_only=True, frozen=True):
    """A level's samples as columns, each as long as `t_s`; None where none of it is known."""

    t_s: Sequence[float]
    server_memory_bytes: Sequence[float | None] | None
    server_cores: Sequence[float | None] | None
    gpu_utilisation: Sequence[float | None] | None
    power_w: Sequence[float | None] | None


class Rates(Struct, kw_only=True, frozen=True):
    """What flowed, per second; `duration_s` of the whole level alone."""

    output_tokens_per_s: float | None = None
    input_tokens_per_s: float | None = None
    characters_per_s: float | None = None
    requests_per_s: float | None = None
    duration_s: float | UnsetType | None = UNSET


class PromptRow(Struct, kw_only=True, frozen=True):
    prompt: str
    n: int
    ttft_median_ms: float | None
    e2e_median_ms: float | None
    e2e_worst_ms: float | None
    output_tokens_median: float | None
    outliers: int | None


class LengthRow(Struct, kw_only=True, frozen=True):
    from_tokens: int
    to_tokens: int
    n: int
    ttft_median_ms: float | None
    e2e_median_ms: float | None
    outliers: int | None


class Ran(Struct, kw_only=True, frozen=True):
    """What ran: an id, its device and its execution provider, as far as the server reports."""

    id: str | None = None
    device: str | None = None
    execution_provider: str | None = None


class WorkerPercentiles(Struct, kw_only=True, frozen=True):
    p50: Amount | None = None
    p99: Amount | None = None


class Worker(Struct, kw_only=True, frozen=True):
    """A worker that shared a level."""

    name: str | None = None
    address: str | None = None
    host: str | None = None
    pid: Count | None = None
    status: str | None = None
    reason: str | None = None
    lost_s: Amount | None = None
    streams: Count | None = None
    request_rate_per_s: Amount | None = None
    issued: Count | None = None
    completed: Count | None = None
    failed: Count | None = None
    cancelled: Count | None = None
    dropped: Count | None = None
    unknown: Count | None = None
    ttft_ms: WorkerPercentiles | None = None
    itl_ms: WorkerPercentiles | None = None
    client_lag_ms: WorkerPercentiles | None = None
    cpu_s: Amount | None = None
    cpu_share: Amount | None = None
    wait_share: Amount | None = None
    round_trip_ms: Amount | None = None
    clock_uncertain_ms: Amount | None = None
    wall_clock_offset_ms: Figure | None = None
    late_ms: Figure | None = None


class Endpoint(Struct, kw_only=True, frozen=True):
    """What went to one of several endpoints."""

    url: str | None = None
    weight: int | None = None
    share: float | None = None
    attempted: int | None = None
    completed: int | None = None
    failed: int | None = None
    cancelled: int | None = None
    errors: Mapping[str, int] | None = None
    failure_share: float | None = None
    retried: int | None = None
    ttft_ms: Distribution | None = None
    ttft_from_due_ms: Distribution | None = None
    itl_ms: Distribution | None = None
    tpot_ms: Distribution | None = None
    e2e_ms: Distribution | None = None
    in_flight_mean: float | None = None
    output_tokens_per_s: float | None = None
    output_tokens_per_s_ci95: Interval | None = None
    requests_per_s: float | None = None
    requests_per_s_ci95: Interval | None = None
    characters_per_s: float | None = None


class Level(Struct, kw_only=True):
    """One load that was measured. Not frozen: what other levels and the gates say of it is added once all are there."""

    id: str | None = None
    model: str | None = None
    alias: str | None = None
    endpoint: str | None = None
    repeat: int | None = None
    attempt: int | None = None
    began: str | None = None
    device: str | None = None
    execution_provider: str | None = None
    asked_device: str | None = None
    ran: Ran | None = None
    device_by_name: bool | UnsetType = UNSET
    concurrency: int | None = None
    request_rate_per_s: Load | None = None
    shape: str | None = None
    think_time_s: Load | None = None
    closing: bool | None = None
    status: str | None = None
    reason: str | None = None
    aborted: str | None = None
    streamed: bool | None = None
    requests_planned: int | None = None
    warmup_requests: int | None = None
    offered: int | None = None
    dropped: int | None = None
    attempted: int | None = None
    completed: int | None = None
    failed: int | None = None
    cancelled: int | None = None
    failure_share: float | None = None
    share_ci95: Mapping[str, Interval | None] | None = None
    with_failures_ms: Mapping[str, Distribution | None] | None = None
    errors: Mapping[str, int] | None = None
    finish_reasons: Mapping[str, int] | None = None
    retries: int | None = None
    unknown: Mapping[str, int] | None = None
    retried: int | None = None
    recovered: int | None = None
    duration_s: Load | None = None
    window_s: float | None = None
    ttft_ms: Distribution | None = None
    ttft_from_due_ms: Distribution | None = None
    ttfe_ms: Distribution | None = None
    ttfat_ms: Distribution | None = None
    tpot_ms: Distribution | None = None
    itl_ms: Distribution | None = None
    e2e_ms: Distribution | None = None
    normalised_latency_ms: Distribution | None = None
    client_queue_ms: Distribution | None = None
    client_lag_ms: Distribution | None = None
    client_wait_ms: Distribution | None = None
    connect_ms: Distribution | None = None
    round_trip_ms: Load | None = None
    tpot_micro_ms: float | None = None
    tpot_micro_ms_ci95: Interval | None = None
    tpot_k_estimated: bool | None = None
    tokens_per_s_per_user: float | None = None
    tokens_per_s_per_user_ci95: Interval | None = None
    prefill_tokens_per_s: float | None = None
    prefill_tokens_per_s_ci95: Interval | None = None
    reasoned: int | None = None
    only_reasoned: int | None = None
    thinking_ms: Distribution | None = None
    thinking_share: float | None = None
    thinking_share_source: str | None = None
    output_tokens: Distribution | None = None
    input_tokens: Distribution | None = None
    characters: int | None = None
    words: int | None = None
    output_tokens_spent: int | None = None
    output_tokens_per_s: float | None = None
    input_tokens_per_s: float | None = None
    characters_per_s: float | None = None
    requests_per_s: float | None = None
    output_tokens_per_s_ci95: Interval | None = None
    input_tokens_per_s_ci95: Interval | None = None
    characters_per_s_ci95: Interval | None = None
    requests_per_s_ci95: Interval | None = None
    whole_run: Rates | None = None
    dependence: Mapping[str, Dependence] | None = None
    goodput_per_s: float | None = None
    goodput_per_s_ci95: Interval | None = None
    slo: Sequence[Objective] | None = None
    in_flight_mean: float | None = None
    ended_per_s: float | None = None
    residence_ms: float | None = None
    residence_growth: float | None = None
    efficiency: float | None = None
    efficiency_ci95: Interval | None = None
    speedup: float | None = None
    speedup_ci95: Interval | None = None
    stretch: float | None = None
    token_source: str | None = None
    tokens_per_event: float | None = None
    tokens_per_arrival: float | None = None
    events_per_arrival: float | None = None
    itl_name: str | None = None
    undercounted: int | None = None
    drift: Mapping[str, Drift] | None = None
    stalls: Stalls | None = None
    timeline: Timeline | None = None
    spectra: Mapping[str, Spectrum | None] | None = None
    workers: Sequence[Worker] | None = None
    client_pause_s: Load | None = None
    client_pause_at_s: Load | None = None
    client_wait_share: float | None = None
    first_together_share: float | None = None
    late_share: float | None = None
    held_share: float | None = None
    merged_share: float | None = None
    burst_share: float | None = None
    cached_share: float | None = None
    client_cpu_share: float | None = None
    prompts: Sequence[PromptRow] | None = None
    prompts_left_out: int | None = None
    input_lengths: Sequence[LengthRow] | None = None
    endpoints: Sequence[Endpoint] | None = None
    simulated: bool | None = None
    server_kind: str | None = None
    clock: str | None = None
    warnings: Sequence[Finding] = ()
    # From the samples.
    server_memory_peak_bytes: int | None = None
    server_threads_peak: int | None = None
    server_cpu_s: float | None = None
    server_cpu_share: float | None = None
    cpu_s_per_1000_tokens: float | None = None
    gpu_memory_peak_bytes: int | None = None
    gpu_memory_source: str | None = None
    gpu_utilisation_mean: float | None = None
    energy_j: float | None = None
    energy_source: str | None = None
    j_per_1000_tokens: float | None = None
    wh_per_1000_tokens: float | None = None
    cost_per_1000_tokens: float | None = None
    cost_per_million_tokens: float | None = None
    course: Course | None = None
    others_cpu_share: float | None = None
    temperature_c_max: float | None = None
    cpu_mhz_mean: float | None = None
    throttled: bool | None = None
    power: str | None = None
    server_metrics: Mapping[str, float | None] | None = None
    server_output_tokens_per_s: float | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it ran to its end."""
        return self.status in (None, "complete")

    @property
    def is_open(self) -> bool:
        """Whether requests started at a rate, whatever was in flight."""
        return self.request_rate_per_s is not None

    @property
    def load(self) -> Load | None:
        """On its own axis: requests per second in open loop, else requests in flight."""
        return (self.request_rate_per_s if self.is_open else self.concurrency) or None


class CurveRow(Struct, kw_only=True, frozen=True):
    """One level on its model's curve."""

    id: str | None
    n: Load | None
    x_per_s: float | None
    efficiency: float | None = None
    efficiency_ci95: Interval | None = None
    speedup: float | None = None
    speedup_ci95: Interval | None = None
    stretch: float | None = None
    ideal_x_per_s: float | None = None
    serial_x_per_s: float | None = None


class Law(Struct, kw_only=True, frozen=True):
    """The Universal Scalability Law, fitted."""

    lambda_per_s: float | None
    sigma: float | None
    kappa: float | None
    peak_n: float | None
    peak_x_per_s: float | None
    measured_to: float | None
    rms: float | None
    ci95: Mapping[str, Interval]


class Knee(Struct, kw_only=True, frozen=True):
    """Where a curve bends by one rule; `from_n` and `gain` are of a doubling, `bound` and `between` of the SLO."""

    n: Load
    relation: str
    from_n: Load | UnsetType = UNSET
    gain: float | UnsetType = UNSET
    bound: str | UnsetType = UNSET
    between: Sequence[Load] | UnsetType = UNSET


class Knees(Struct, kw_only=True, frozen=True):
    power: Knee | None = None
    doubling: Knee | None = None
    corner: Knee | None = None
    slo: Knee | None = None


class Curve(Struct, kw_only=True):
    """What more load buys of one model, in one kind of loop."""

    model: str
    loop: str
    base_n: Load | None = None
    levels: Sequence[CurveRow] = ()
    usl: Law | None = None
    usl_reason: str | None = None
    serial: bool | None = None
    saturated_n: Load | None = None
    knees: Knees = Knees()


class Band(Struct, kw_only=True, frozen=True):
    """A closing level's figures over those of the first one."""

    model: str | None = None
    level: str | None = None
    closing_level: str | None = None
    output_tokens_per_s: float | None = None
    ttft_p50: float | UnsetType | None = UNSET
    e2e_p50: float | UnsetType | None = UNSET


class RepeatedRun(Struct, kw_only=True, frozen=True):
    level: str | None = None
    began: str | None = None
    output_tokens_per_s: float | None = None
    ttft_p50: float | UnsetType | None = UNSET
    e2e_p50: float | UnsetType | None = UNSET


class OverRuns(Struct, kw_only=True, frozen=True):
    """One figure over several runs: its geometric mean, how sure that is, and how far the runs lie apart."""

    n: int
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    half_width: float | None = None
    spread: float | None = None
    cv: float | None = None


class Repeats(Struct, kw_only=True, frozen=True):
    """A load that ran to its end twice or more."""

    model: str | None = None
    endpoint: str | None = None
    concurrency: int | None = None
    request_rate_per_s: Load | None = None
    shape: str | None = None
    runs: Sequence[RepeatedRun] = ()
    figures: Mapping[str, OverRuns] = {}


class ThresholdRow(Struct, kw_only=True, frozen=True):
    """A threshold held against one level."""

    text: str
    metric: str
    unit: str | None
    model: str | None = None
    level: str | None = None
    value: float | None = None
    n: int | None = None
    interval: Interval | None = None
    result: str
    reason: str | None = None
    aborted: bool = False


class ProbeShare(Struct, kw_only=True, frozen=True):
    bound: str
    share: float | None = None
    wanted: float | None = None
    attained: bool | None = None
    interval: Interval | None = None
    worth: Load | UnsetType | None = UNSET


class Step(Struct, kw_only=True, frozen=True):
    """A probe of a search for the capacity."""

    load: Load
    level: str | None = None
    verdict: Verdict
    requests: int | None = None
    counted: bool = True
    reason: str | None = None
    shares: Sequence[ProbeShare] = ()


class Crossing(Struct, kw_only=True, frozen=True):
    load: float
    ci95: Interval | None


class Capacity(Struct, kw_only=True, frozen=True):
    """A search for the highest load that meets the SLO."""

    model: str | None = None
    by: str | None = None
    start: Load | None = None
    most: Load | None = None
    within: Load | None = None
    found: Load | None = None
    bracket: Sequence[Load | None] | None = None
    slo: Sequence[str] | None = None
    looks: int | None = None
    confidence: Load | None = None
    steps: Sequence[Step] = ()
    contradictions: Sequence[Load] | None = None
    reason: str | None = None
    meets: Load | None = None
    misses: Load | None = None
    undecided: Sequence[Load] | None = None
    estimate: Crossing | None = None


class Probe(Struct, kw_only=True, frozen=True):
    """A single short request to a model that was cold, warm, or idle for a while."""

    ttft_ms: Load | None = None
    e2e_ms: Load | None = None
    cold: bool | None = None
    after_s: Load | None = None
    every_s: Load | None = None
    requests: int | None = None
    error: str | None = None


class Model(Struct, kw_only=True, frozen=True):
    """What is known of a model beside its levels."""

    id: str
    name: str | None = None
    alias: str | None = None
    device: str | None = None
    execution_provider: str | None = None
    asked_device: str | None = None
    asked_execution_provider: str | None = None
    ran: Ran | None = None
    served_as: str | None = None
    licence: str | None = None
    quantization: str | None = None
    context: int | None = None
    size_bytes: Load | None = None
    disk_bytes: Load | None = None
    disk_source: str | None = None
    was_loaded: bool | None = None
    load_s: Load | None = None
    load_source: str | None = None
    load_error: str | None = None
    memory_before_load_bytes: Load | None = None
    memory_after_load_bytes: Load | None = None
    memory_peak_bytes: int | None = None
    memory_after_unload_bytes: Load | None = None
    gpu_memory_peak_bytes: int | None = None
    gpu_memory_source: str | None = None
    first: Probe | None = None
    warm: Probe | None = None
    idle: Probe | None = None
    kept_warm: Probe | None = None


class Absent(Struct, kw_only=True, frozen=True):
    """A variant of the scenario that the server does not have."""

    name: str | None = None
    device: str | None = None
    execution_provider: str | None = None
    reason: str | None = None


class Summary(Struct, kw_only=True):
    """Every figure that a report prints."""

    schema: int = SCHEMA
    run: Json = {}
    levels: Sequence[Level] = ()
    models: Sequence[Model] = ()
    absent: Sequence[Absent] = ()
    warnings: Sequence[Finding] = ()
    noise: Sequence[Band] = ()
    repeats: Sequence[Repeats] = ()
    stall_threshold: Load | None = None
    scaling: Sequence[Curve] = ()
    capacity: Sequence[Capacity] | None = None
    capacity_concurrency: Load | None = None
    capacity_rate_per_s: Load | None = None
    thresholds: Sequence[ThresholdRow] = ()
    verdict: None = None
    models_compared: Sequence[Json] | UnsetType = UNSET
    choice: Json | UnsetType | None = UNSET


def as_mapping(summary: Struct) -> Json:
    """Plain values, as summary.json has them: the door for readers that do not take the structs yet."""
    found: Json = msgspec.to_builtins(summary)
    return found


def decode(content: bytes) -> Summary:
    """A summary.json, of this version or another.

    Raises:
        msgspec.MsgspecError: It is none.

    >>> decode(b'{"schema": 1, "levels": [{"id": "m@c1", "ttft_ms": {"n": 1, "p50": 9.5}, "later": 1}]}').levels[0].id
    'm@c1'
    """
    return msgspec.json.decode(content, type=Summary)
