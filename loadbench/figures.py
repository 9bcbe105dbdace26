"""The figures: each thing that loadbench measures and a person can name, declared once.

Service level objectives, thresholds (`--fail-if`), requirements (`select --need`), verdicts (`compare --metric`), rows
of `summary.csv`, headings and definitions all look a figure up here. To add one, measure it (a key of a level in
summary.json) and declare it in `_DECLARED`; nothing else has to learn its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

# Shares lie in [0, 1], points on a scale from 1 to 5; a word is one of several, as a licence is.
Unit = Literal[
    "ms",
    "s",
    "share",
    "/s",
    "bytes",
    "points",
    "J",
    "Wh",
    "currency",
    "word",
    "tokens",
    "requests",
    "count",
    "ratio",
    "flag",
    "degC",
    "MHz",
]
# Where a user may name a figure: an SLO, a threshold, a requirement of a choice, a verdict of a comparison.
Door = Literal["slo", "threshold", "need", "verdict"]

# What is reported of a distribution, as fractions.
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}
# What a bound may be about, of a distribution.
STATISTICS = (*PERCENTILES, "mean", "max")
STATISTIC_TITLES = {**{name: name for name in STATISTICS}, "p999": "p99.9"}
# Other names that people write.
ALIASES = {
    "license": "licence",
    "tokens_per_s": "output_tokens_per_s",
    "interactivity": "tokens_per_s_per_user",
    "prefill": "prefill_tokens_per_s",
    "normalized_latency": "normalised_latency",
    "ttfo": "ttfat",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One thing that is measured.

    Attributes:
        key: As users name it.
        unit: Of its value.
        better: Which way is good.
        title: As sentences and headings call it; "" of what no sentence is about.
        doors: Where a user may name it. All doors are closed to what is in reports alone.
        path: The key of a level in summary.json that holds it, with a dot for one inside another; "" where nothing
            does. Of a distribution the key holds an object of statistics.
        of: What has it: a level, a model whatever its load, or a candidate of a choice.
        values: What its distribution is of, one value each; "" where it is a single number. A user adds a statistic to
            the name of such a figure ("ttft_p95").
        is_median: Whether a single number is the median over requests.
        counts: Of a share, the keys of a level that hold how many did and of how many.
        source: The key of a level that says how it was measured; "" where there is one way alone.
        column: Head and unit of its column in the table of a choice.
        heading, meaning: Its entry among the definitions; the heading where the title does not say it all.
    """

    key: str
    unit: Unit
    better: Literal["less", "more"] = "less"
    title: str = ""
    doors: tuple[Door, ...] = ()
    path: str = ""
    of: Literal["level", "model", "choice"] = "level"
    values: Literal["", "requests", "gaps"] = ""
    is_median: bool = False
    counts: tuple[str, str] | None = None
    source: str = ""
    column: tuple[str, str] = ("", "")
    heading: str = ""
    meaning: str = ""

    @property
    def more_is_better(self) -> bool:
        return self.better == "more"

    def read(self, level: object, statistic: str = "") -> Any:
        """Its value at a level of summary.json, as a struct or as plain values; None where it was not measured.

        Args:
            statistic: Of a distribution, what of it: "p95", or "n" for how many values there are.

        >>> FIGURES["ttft"].read({"ttft_ms": {"p95": 210.0}}, "p95"), FIGURES["stalls"].read({"stalls": {"n": 2}})
        (210.0, 2)
        """
        value: Any = level
        for key in (*self.path.split("."), statistic):
            if key and isinstance(value, Mapping):
                value = value.get(key)
            elif key:
                value = getattr(value, key, None)
        return value


# In the order of the rows of summary.csv.
_DECLARED = (
    # -- distributions over requests, or over the gaps between tokens
    Figure(
        key="ttft",
        unit="ms",
        title="TTFT",
        doors=("slo", "threshold", "need", "verdict"),
        path="ttft_ms",
        values="requests",
        meaning="time to first token: first event with text - sent. Role-only and comment events do not count. "
        "In open loop it counts from when the request was due, so that waiting inside the client shows.",
    ),
    Figure(key="ttft_from_due", unit="ms", path="ttft_from_due_ms", values="requests"),
    Figure(key="ttfe", unit="ms", path="ttfe_ms", values="requests"),
    Figure(
        key="ttfat",
        unit="ms",
        title="TTFAT",
        doors=("slo", "threshold", "need", "verdict"),
        path="ttfat_ms",
        values="requests",
        meaning="time to first answer token: first event with text that is not reasoning, counted as TTFT is. A "
        "request that ended with reasoning alone has none, and meets no SLO on it.",
    ),
    Figure(
        key="thinking",
        unit="ms",
        title="thinking time",
        doors=("verdict",),
        path="thinking_ms",
        values="requests",
        meaning="first answer token - first token, of requests whose reasoning came as text.",
    ),
    Figure(
        key="itl",
        unit="ms",
        title="ITL",
        doors=("slo", "threshold", "need", "verdict"),
        path="itl_ms",
        values="gaps",
        meaning="inter-token latency: each gap between two arrivals of text; what arrives together is one arrival, "
        "never a gap of 0. Called inter-event time (IET) where an arrival does not carry about one token.",
    ),
    Figure(
        key="tpot",
        unit="ms",
        title="TPOT",
        doors=("slo", "threshold", "need", "verdict"),
        path="tpot_ms",
        values="requests",
        meaning="time per output token of one request: (last token - first token) / (n - k), with n output tokens, "
        "k of them in the first arrival; undefined when n <= k. Blind to queueing: never read it without TTFT.",
    ),
    Figure(
        key="e2e",
        unit="ms",
        title="E2E",
        doors=("slo", "threshold", "need", "verdict"),
        path="e2e_ms",
        values="requests",
        meaning="the whole request: last token - due.",
    ),
    Figure(
        key="normalised_latency",
        unit="ms",
        title="normalised latency",
        doors=("slo", "threshold", "need", "verdict"),
        path="normalised_latency_ms",
        values="requests",
        meaning="E2E / output tokens, of each request: queueing and prefill are spread over the tokens.",
    ),
    Figure(key="connect", unit="ms", path="connect_ms", values="requests"),
    Figure(
        key="client_queue",
        unit="ms",
        title="client queue",
        doors=("slo", "threshold", "need", "verdict"),
        path="client_queue_ms",
        values="requests",
    ),
    Figure(key="client_lag", unit="ms", path="client_lag_ms", values="requests"),
    Figure(key="client_wait", unit="ms", path="client_wait_ms", values="requests"),
    Figure(key="output_tokens", unit="tokens", path="output_tokens", values="requests"),
    Figure(key="input_tokens", unit="tokens", path="input_tokens", values="requests"),
    # -- what became of the requests
    Figure(key="offered_requests", unit="requests", path="offered"),
    Figure(key="dropped_requests", unit="requests", path="dropped"),
    Figure(key="attempted_requests", unit="requests", path="attempted"),
    Figure(key="completed_requests", unit="requests", path="completed"),
    Figure(key="failed_requests", unit="requests", path="failed"),
    Figure(key="cancelled_requests", unit="requests", path="cancelled"),
    Figure(key="retries", unit="requests", path="retries"),
    Figure(key="retried", unit="requests", path="retried"),
    Figure(key="recovered", unit="requests", path="recovered"),
    Figure(
        key="success", unit="share", better="more", doors=("slo", "threshold", "need"), counts=("completed", "offered")
    ),
    Figure(
        key="failed",
        unit="share",
        title="failed",
        doors=("slo", "threshold", "need", "verdict"),
        path="failure_share",
        counts=("failed", "attempted"),
        meaning="requests by kind of error; they enter no latency. attempted = completed + failed + cancelled.",
    ),
    Figure(key="dropped", unit="share", doors=("threshold",), counts=("dropped", "offered")),
    Figure(
        key="attainment",
        unit="share",
        better="more",
        title="attainment",
        doors=("verdict",),
        heading="attained by",
        meaning="requests that met the bound / requests offered: those that failed or were dropped did not meet it.",
    ),
    Figure(key="share", unit="share", path="share"),
    Figure(key="duration", unit="s", path="duration_s"),
    Figure(key="window", unit="s", path="window_s"),
    # -- rates in the steady window
    Figure(
        key="output_tokens_per_s",
        unit="/s",
        better="more",
        title="tokens/s",
        doors=("slo", "threshold", "need", "verdict"),
        path="output_tokens_per_s",
        column=("tokens", "/s"),
        heading="tokens/s, chars/s",
        meaning="output tokens and characters that arrived inside the steady window, divided by its length. Closed "
        "loop: from when the level's streams are all in flight to when the last request is sent; open loop: from the "
        "first to the last due time. Models tokenise differently: compare models by characters.",
    ),
    Figure(
        key="input_tokens_per_s",
        unit="/s",
        better="more",
        title="input tokens/s",
        doors=("threshold", "verdict"),
        path="input_tokens_per_s",
    ),
    Figure(
        key="characters_per_s",
        unit="/s",
        better="more",
        title="characters/s",
        doors=("threshold", "need", "verdict"),
        path="characters_per_s",
        column=("characters", "/s"),
    ),
    Figure(
        key="requests_per_s",
        unit="/s",
        better="more",
        title="requests/s",
        doors=("threshold", "need", "verdict"),
        path="requests_per_s",
        heading="done/s",
        meaning="requests completed per second of the steady window. Open loop: those whose last token lies inside; "
        "closed loop: a request over an edge counts by the share of its time from sent to last token that lies inside, "
        "else streams in step would count one round too many.",
    ),
    Figure(
        key="goodput",
        unit="/s",
        better="more",
        title="goodput",
        doors=("slo", "threshold", "need", "verdict"),
        path="goodput_per_s",
        meaning="requests per second that met every bound, counted like done/s.",
    ),
    # -- medians over requests
    Figure(
        key="tokens_per_s_per_user",
        unit="/s",
        better="more",
        title="tokens/s per user",
        doors=("slo", "threshold", "need", "verdict"),
        path="tokens_per_s_per_user",
        is_median=True,
        meaning="what one user sees once the answer flows: 1 / TPOT p50. Called interactivity elsewhere.",
    ),
    Figure(
        key="prefill_tokens_per_s",
        unit="/s",
        better="more",
        title="prefill tokens/s",
        doors=("slo", "threshold", "need", "verdict"),
        path="prefill_tokens_per_s",
        is_median=True,
        meaning="input tokens / (TTFT from sent - network round trip), median over requests. A lower bound: queueing "
        "and the first token's decode are in it. Input that the server's usage calls cached does not count.",
    ),
    # -- how a level went
    Figure(
        key="efficiency",
        unit="share",
        better="more",
        title="efficiency",
        doors=("threshold",),
        path="efficiency",
        meaning="E(N) = (X(N) / N) / (X(N0) / N0): throughput X per stream against the lowest level N0; 100% is "
        "perfect scaling. Only of levels that ran to their end.",
    ),
    Figure(key="speedup", unit="ratio", better="more", path="speedup"),
    Figure(key="stretch", unit="ratio", path="stretch"),
    Figure(key="in_flight_mean", unit="count", path="in_flight_mean"),
    Figure(key="tokens_per_event", unit="count", path="tokens_per_event"),
    Figure(key="tpot_micro", unit="ms", path="tpot_micro_ms"),
    Figure(key="merged_share", unit="share", path="merged_share"),
    Figure(key="late_share", unit="share", path="late_share"),
    Figure(key="held_share", unit="share", path="held_share"),
    Figure(key="burst_share", unit="share", path="burst_share"),
    Figure(key="cached_share", unit="share", path="cached_share"),
    Figure(key="client_cpu_share", unit="share", path="client_cpu_share"),
    Figure(key="client_wait_share", unit="share", path="client_wait_share"),
    Figure(key="client_pause", unit="s", path="client_pause_s"),
    Figure(key="reasoned", unit="requests", path="reasoned"),
    Figure(key="only_reasoned", unit="requests", path="only_reasoned"),
    Figure(
        key="thinking_share",
        unit="share",
        title="thinking share",
        doors=("threshold", "need"),
        path="thinking_share",
        source="thinking_share_source",
        meaning="reasoning tokens / output tokens as the server's usage counts them; else of characters.",
    ),
    Figure(key="characters", unit="count", path="characters"),
    Figure(key="words", unit="count", path="words"),
    Figure(key="output_tokens_spent", unit="tokens", path="output_tokens_spent"),
    # -- what the machine spent
    Figure(
        key="memory",
        unit="bytes",
        title="memory",
        doors=("threshold", "need"),
        path="server_memory_peak_bytes",
        column=("memory", "MB"),
    ),
    Figure(key="server_threads_peak", unit="count", path="server_threads_peak"),
    Figure(key="server_cpu", unit="s", path="server_cpu_s"),
    Figure(key="server_cpu_share", unit="ratio", path="server_cpu_share"),
    Figure(
        key="cpu_s_per_1000_tokens",
        unit="s",
        path="cpu_s_per_1000_tokens",
        heading="CPU s, J, Wh /1k tokens",
        meaning="what the server's processes, or the whole GPU and CPU, used from right before the level to right "
        "after it, per 1,000 output tokens of all its requests, warm-up and failed ones too. Joules are measured by "
        "the devices' own counters, or declared: the table says which.",
    ),
    Figure(key="server_output_tokens_per_s", unit="/s", better="more", path="server_output_tokens_per_s"),
    Figure(
        key="others_cpu_share",
        unit="share",
        path="others_cpu_share",
        heading="others",
        meaning="CPU time of the machine that neither the server nor this client used, as a share of all cores.",
    ),
    Figure(key="gpu_utilisation_mean", unit="share", path="gpu_utilisation_mean"),
    Figure(key="temperature_max", unit="degC", path="temperature_c_max"),
    Figure(key="cpu_mhz_mean", unit="MHz", path="cpu_mhz_mean"),
    Figure(key="throttled", unit="flag", path="throttled"),
    Figure(key="closing", unit="flag", path="closing"),
    Figure(
        key="stalls",
        unit="count",
        title="stalls",
        doors=("threshold",),
        path="stalls.n",
        meaning="gaps longer than 10 times the level's median gap, and than 10 ms.",
    ),
    Figure(key="stall_threshold", unit="ms", path="stalls.threshold_ms"),
    Figure(key="longest_stall", unit="ms", path="stalls.longest_ms"),
    Figure(
        key="gpu_memory", unit="bytes", doors=("threshold",), path="gpu_memory_peak_bytes", source="gpu_memory_source"
    ),
    Figure(key="energy_of_level", unit="J", path="energy_j", source="energy_source"),
    Figure(key="j_per_1000_tokens", unit="J", doors=("threshold",), path="j_per_1000_tokens", source="energy_source"),
    Figure(key="wh_per_1000_tokens", unit="Wh", path="wh_per_1000_tokens", source="energy_source"),
    Figure(
        key="cost_per_1000_tokens",
        unit="currency",
        doors=("threshold",),
        path="cost_per_1000_tokens",
        source="energy_source",
    ),
    Figure(
        key="cost_per_million_tokens",
        unit="currency",
        title="cost per 1 million output tokens",
        doors=("threshold", "need"),
        path="cost_per_million_tokens",
        source="energy_source",
    ),
    # -- of models, whatever the load
    Figure(key="load_time", unit="s", path="load_s", of="model"),
    Figure(key="memory_before_load", unit="bytes", path="memory_before_load_bytes", of="model"),
    Figure(key="memory_after_load", unit="bytes", path="memory_after_load_bytes", of="model"),
    Figure(key="memory_peak", unit="bytes", path="memory_peak_bytes", of="model"),
    Figure(key="memory_after_unload", unit="bytes", path="memory_after_unload_bytes", of="model"),
    Figure(
        key="disk", unit="bytes", title="disk", doors=("need",), path="disk_bytes", of="model", column=("disk", "MB")
    ),
    Figure(key="listed_size", unit="bytes", path="size_bytes", of="model"),
    Figure(
        key="quality",
        unit="points",
        better="more",
        title="quality",
        doors=("need",),
        of="choice",
        column=("quality", "1 to 5"),
    ),
    Figure(
        key="rules",
        unit="share",
        better="more",
        title="rules passed",
        doors=("need",),
        of="choice",
        column=("rules", "passed"),
    ),
    # Of characters, not of tokens: models cut the same text into more or fewer of them.
    Figure(
        key="energy",
        unit="J",
        title="J per 1,000 characters",
        doors=("need",),
        of="choice",
        column=("energy", "J /1k chars"),
    ),
    Figure(
        key="cost",
        unit="currency",
        title="cost per 1,000 characters",
        doors=("need",),
        of="choice",
        column=("cost", "/1k chars"),
    ),
    Figure(key="licence", unit="word", better="more", title="licence", doors=("need",), of="choice"),
    Figure(key="device", unit="word", title="device", doors=("need",), of="choice"),
    Figure(key="model", unit="word", title="model", doors=("need",), of="choice"),
)

FIGURES: dict[str, Figure] = {figure.key: figure for figure in _DECLARED}


@dataclass(frozen=True, slots=True)
class Named:
    """A figure with its statistic, as a user names both: "ttft_p95", "failed".

    Attributes:
        figure: What is measured.
        statistic: One of STATISTICS; None of a single number, and where the name leaves it open.
    """

    figure: Figure
    statistic: str | None = None

    @property
    def name(self) -> str:
        return self.figure.key if self.statistic is None else f"{self.figure.key}_{self.statistic}"

    @property
    def title(self) -> str:
        """For readers: "TTFT p95"."""
        title = self.figure.title or self.figure.key
        return title if self.statistic is None else f"{title} {STATISTIC_TITLES[self.statistic]}"


def in_words(name: str) -> str:
    """A figure as a sentence calls it.

    >>> in_words("ttft_p50"), in_words("e2e_p95"), in_words("output_tokens_per_s")
    ('median TTFT', 'E2E p95', 'tokens/s')
    """
    one = named(name)
    if one is None:
        return name
    return f"median {one.figure.title}" if one.statistic == "p50" else one.title


def of(door: Door) -> list[Figure]:
    """The figures that a user may name there, in the order in which messages list them."""
    return [figure for figure in FIGURES.values() if door in figure.doors]


def named(name: str) -> Named | None:
    """The figure of that name, with its statistic; None where there is none.

    >>> named("ttft_p95").title, named("output_tokens_per_s").title, named("failed_p95"), named("ttft").statistic
    ('TTFT p95', 'tokens/s', None, None)
    """
    if name in FIGURES:
        return Named(FIGURES[name])
    key, _, statistic = name.rpartition("_")
    figure = FIGURES.get(key)
    if figure is None or not figure.values or statistic not in STATISTICS:
        return None
    return Named(figure, statistic)


def definitions() -> Mapping[str, tuple[str, str]]:
    """Heading and meaning of each figure that has one, by its key."""
    return {one.key: (one.heading or one.title, one.meaning) for one in FIGURES.values() if one.meaning}
