"""The records: Scenario (what to ask and how hard) and Timeouts; and what no single field of them shows."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from loadbench.errors import ScenarioError, UsageError
from loadbench.scenario.bounds import Bound, Duration, FailIf, Threshold, check_written
from loadbench.scenario.files import Table
from loadbench.scenario.loads import TRACE, Length, Level, Load, Pause, Shape, in_turns, names
from loadbench.scenario.settings import Flag
from loadbench.text import at, shown

Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Text = Annotated[str, Meta(min_length=1, max_length=10_000)]
Streams = Annotated[int, Meta(ge=1, le=2_000_000)]
Rate = Annotated[float, Meta(gt=0, le=1_000_000)]
Share = Annotated[float, Meta(ge=0, le=1)]
Positive = Annotated[float, Meta(gt=0, le=1_000_000)]
Weight = Annotated[int, Meta(ge=1, le=100)]
Device = Literal["cpu", "gpu", "npu"]
MOST_REPEATS = 20  # of a level that is repeated until its figures are known well enough
LEAST_REPEATS = 3  # "Well enough" takes this many at least


def _after(seconds: float) -> Duration:
    # A factory, as msgspec's schema cannot write a plain Duration as a default.
    return msgspec.field(default_factory=lambda: Duration(seconds))


class Timeouts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long one request may take, in seconds, before it counts as failed."""

    connect: Annotated[Duration, Meta(description="To open a connection.")] = _after(10)
    first_token: Annotated[Duration, Meta(description="From sending to the first text.")] = _after(300)
    idle: Annotated[Duration, Meta(description="Between two arrivals of a stream.")] = _after(120)
    total: Annotated[Duration, Meta(description="From sending to the end of the answer.")] = _after(900)

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if not getattr(self, name) > 0:
                raise ScenarioError(f"timeouts.{name} is {getattr(self, name)}: must be more than 0")


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to ask and how hard. Construct it through `read`, `merge` or `from_json`, which check every value."""

    name: Annotated[
        str,
        Meta(description="Names the run folder; the file's name when not given."),
        Flag("--name", "Names the run.", "NAME"),
    ] = "run"
    description: Annotated[str, Meta(description="What this scenario decides.")] = ""
    endpoint: Annotated[
        Text | Annotated[list[Text], Meta(min_length=1, max_length=100)] | None,
        Meta(
            description="Base URL, or a list of a service's replicas; unset: FOUNDRY_LOCAL_ENDPOINT, or what is found."
        ),
        Flag(
            "-e --endpoint",
            "With or without /v1; repeat it for replicas.  [default: what is found]",
            "URL",
            reads="list",
            also="--url --base-url",
        ),
    ] = None
    weights: Annotated[
        Annotated[list[Weight], Meta(min_length=1, max_length=100)] | None,
        Meta(description="Parts of the requests that the endpoints of a list get, as [3, 1]; unset: equal ones."),
        Flag("--weights", "Parts of the requests that replicas get.  [default: equal]", "3,1", reads="whole numbers"),
    ] = None
    models: Annotated[
        str | Annotated[list[Text], Meta(min_length=1, max_length=1000)],
        Meta(description='"auto", a list of model names, or the path of a models.json beside this file.'),
        Flag("-m --model", "Model to measure; repeat it, or a,b.  [default: what is loaded]", "MODEL", reads="list"),
    ] = "auto"
    model_facts: Annotated[
        dict[str, Table], Meta(description="What models.json says of each model (capabilities, size_mb).")
    ] = {}
    against: Annotated[
        Text | None,
        Meta(description="Base URL of a second server: both are measured in turns, and compared."),
        Flag("--against", "Measure this one too, in turns, and compare.", "URL", variable=False),
    ] = None
    against_model: Annotated[
        Annotated[list[Text], Meta(min_length=1, max_length=1000)] | None,
        Meta(description="The models of that server; unset: the same."),
        Flag("--against-model", "Its model, if it differs.", "MODEL", reads="list", variable=False),
    ] = None
    prompts: Annotated[
        str | Annotated[list[str], Meta(min_length=1)] | None,
        Meta(description="A list of texts, or the path of a .json, .jsonl, .csv, .tsv or .txt; unset: built-in ones."),
        Flag("--prompt", "Ask this.", "TEXT", "texts", workshop="BENCH_PROMPT", name="texts"),
        Flag("--prompts", "Ask these: .json, .jsonl, .csv, .txt …  [default: built in]", "FILE"),
    ] = None
    system: Annotated[
        Text | None,
        Meta(description="System message for the prompts that have none."),
        Flag("--system", "System message.", "TEXT"),
    ] = None
    max_tokens: Annotated[
        Count,
        Meta(description="Most tokens of an answer."),
        Flag("--max-tokens", "Most tokens of an answer.  [default: 128]", "N", workshop="BENCH_MAX_TOKENS"),
    ] = 128
    temperature: Annotated[
        float,
        Meta(ge=0, le=2, description="0 for answers that repeat."),
        Flag("--temperature", "0 for answers that repeat.", "T", workshop="BENCH_TEMPERATURE"),
    ] = 0.0
    seed: Annotated[
        int,
        Meta(ge=0, le=2**53, description="Of the order of prompts and the arrivals."),
        Flag("--seed", "Of the order of prompts and the arrivals.", "N"),
    ] = 1
    concurrency: Annotated[
        Annotated[list[Streams], Meta(min_length=1, max_length=1000)] | None,
        Meta(description="Closed loop: requests in flight, a level each."),
        Flag(
            "-c --concurrency",
            "Requests in flight, a level each.  [default: 1,2,4,8]",
            "1,2,4",
            "whole numbers",
            also="--users",
        ),
    ] = None
    request_rate: Annotated[
        Annotated[list[Rate], Meta(min_length=1, max_length=1000)] | None,
        Meta(description="Open loop: requests started per second, a level each."),
        Flag(
            "-r --request-rate",
            "Instead: requests started per second, a level each.",
            "0.5,1",
            "numbers",
            also="--rate --qps",
        ),
    ] = None
    shape: Annotated[
        str | Annotated[list[Text], Meta(min_length=1, max_length=1000)] | None,
        Meta(description='Open loop at a rate that changes, as "ramp 1..8 over 2m"; of a list, a level each.'),
        Flag("--shape", "Open loop, as 'ramp 1..8 over 2m' (see below).", "TEXT", reads="texts"),
    ] = None
    trace: Annotated[
        Text | None,
        Meta(description="Replay this file: Mooncake's .jsonl, BurstGPT's or Azure's .csv, its times and lengths."),
        Flag("--trace", "Replay Mooncake's .jsonl, BurstGPT's or Azure's .csv.", "FILE"),
    ] = None
    trace_speed: Annotated[
        Positive,
        Meta(description="2 replays a trace in half its time."),
        Flag("--trace-speed", "2 replays it in half its time.  [default: 1]", "X"),
    ] = 1.0
    think_time: Annotated[
        Text | None,
        Meta(description='Closed loop: pause of a user after an answer, as "2s" or "exponential 2s".'),
        Flag("--think-time", "Users pause so, or 'exponential 2s', after answers.", "2s"),
    ] = None
    arrivals: Annotated[
        Literal["poisson", "constant"],
        Meta(description="Spacing of the starts in open loop."),
        Flag("--arrivals", "Open loop: poisson or constant.", "KIND"),
    ] = "poisson"
    requests: Annotated[
        Annotated[int, Meta(ge=1, le=100_000_000)] | None,
        Meta(description="Measured requests per level."),
        Flag("-n --requests", "Measured requests per level.", "N", workshop="BENCH_ROUNDS"),
    ] = None
    duration: Annotated[
        Duration | None,
        Meta(description="Measured time per level; with requests, whichever ends first."),
        Flag("-d --duration", "Measured time per level.", "30s"),
    ] = None
    warmup: Annotated[
        Annotated[int, Meta(ge=0, le=1_000_000)] | None,
        Meta(description="Requests before a level is measured; unset: as many as its concurrency."),
        Flag("--warmup", "Unmeasured requests.  [default: as many as streams]", "N"),
    ] = None
    repeat: Annotated[
        int,
        Meta(ge=1, le=1000, description="How often each level is measured, in turns."),
        Flag("--repeat", "Measure each level K times, in turns.", "K"),
    ] = 1
    until: Annotated[
        Annotated[float, Meta(gt=0, lt=1)] | None,
        Meta(description="Repeat until means of runs are known this well, as 0.05; at most repeat times."),
        Flag("--until", "Repeat until means of runs are known so well.", "5%", reads="share"),
    ] = None
    repeat_first: Annotated[
        bool,
        Meta(description="Measure each model's first level again at its end: the noise band (gate V11)."),
        Flag("--repeat-first/--no-repeat-first", "The first level again at the end.  [default: do]"),
    ] = True
    slo: Annotated[
        list[str],
        Meta(max_length=100, description='Bounds, as "ttft_p95=800ms" or "failed<1%".'),
        Flag("--slo", "What users need, as ttft_p95=800ms; repeat it.", "BOUND", reads="list"),
    ] = []
    fail_if: Annotated[
        list[str | FailIf],
        Meta(max_length=100, description='What fails the run, as "ttft_p95 > 800ms"; exit code 3.'),
        Flag("--fail-if", "Exit with 3 where it holds, as 'ttft_p95 > 800ms'.", "'M > X'", reads="list"),
    ] = []
    turns: Annotated[
        Count | None,
        Meta(description="Most turns of a conversation that are asked one after the other; unset: all."),
        Flag("--turns", "Most turns of a conversation.  [default: all]", "N"),
    ] = None
    input_length: Annotated[
        Text | None,
        Meta(description='Make up prompts so long, as "words 200" or "tokens normal 512 128"; instead of prompts.'),
        Flag("--input-length", "Make prompts up, as 'tokens normal 512 128'.", "TEXT"),
    ] = None
    output_length: Annotated[
        Text | None,
        Meta(description='max_tokens of each prompt, as "128" or "uniform 16 256"; instead of max_tokens.'),
        Flag("--output-length", "Draw max_tokens, as 'uniform 16 256'.", "TEXT"),
    ] = None
    shared_prefix: Annotated[
        Share,
        Meta(description="Part of a made-up prompt that all have in common; 0.5 is the first half."),
        Flag("--shared-prefix", "Of made-up prompts, what all have in common.", "50%", reads="share"),
    ] = 0.0
    output_exact: Annotated[
        bool,
        Meta(description="Have answers run to max_tokens, on servers that are known to honour that."),
        Flag("--output-exact/--output-free", "Answers as long as allowed, if the server can."),
    ] = False
    distinct_prompts: Annotated[
        bool,
        Meta(description="Put a unique prefix before each prompt, so that no cache answers."),
        Flag("--distinct-prompts/--fixed-prompts", "Unique prefixes, so that no cache answers."),
    ] = False
    stream: Annotated[
        bool,
        Meta(description="false asks for whole answers, which show no first token."),
        Flag("--stream/--no-stream", "Ask for a stream or for whole answers.", workshop="BENCH_STREAM"),
    ] = True
    retries: Annotated[
        int,
        Meta(ge=0, le=100, description="New requests after a failed one, each with its own marks."),
        Flag(
            "--retries",
            "New requests after a failed one, marked.  [default: 0]",
            "N",
            reads="tries",
            workshop="RETRY_ON_FAIL",
        ),
    ] = 0
    retry_backoff: Annotated[
        Duration,
        Meta(description="Wait before a retry; doubles with each."),
        Flag("--retry-backoff", "Wait before a retry; doubles with each.", "1s", workshop="RETRY_BACKOFF"),
    ] = _after(1)
    extra_body: Annotated[
        Table,
        Meta(description="More keys of each request, as ignore_eos; null takes one out."),
        Flag("--extra-body", "More keys to send, as '{\"ignore_eos\": true}'.", "JSON", reads="text"),
    ] = {}
    headers: Annotated[
        dict[str, str],
        Meta(description="More HTTP headers."),
        Flag("--header", "More HTTP headers.", "'NAME: VALUE'", "headers", variable=False),
    ] = {}
    api_key_env: Annotated[
        Text | None,
        Meta(description="Name of the environment variable that holds the key."),
        Flag("--api-key-env", "Environment variable that holds the key.", "NAME"),
    ] = None
    api_key_file: Annotated[
        Text | None,
        Meta(description="Path of a file with the key alone in it."),
        Flag("--api-key-file", "File with the key alone in it.", "FILE"),
    ] = None
    timeouts: Timeouts = msgspec.field(default_factory=Timeouts)
    max_streams: Annotated[
        Streams | None,
        Meta(description="Most streams in open loop; unset: 1024."),
        Flag("--max-streams", "Open loop: most at once; more are dropped, counted.", "N"),
    ] = None
    device: Annotated[
        Annotated[list[Device], Meta(min_length=1)] | None,
        Meta(description="Variants of the models for these devices, each measured; unset: the server's choice."),
        Flag("--device", "Variants for these devices: cpu, gpu, npu.", "cpu,gpu", reads="devices"),
    ] = None
    execution_provider: Annotated[
        Text | None,
        Meta(description='Variants for this execution provider, as "cuda" or "WebGpuExecutionProvider".'),
        Flag("--ep", "Variants for an execution provider, as cuda or webgpu.", "NAME"),
    ] = None
    cold: Annotated[
        bool,
        Meta(description="Unload and load each model before it is measured."),
        Flag("--cold/--as-found", "Unload and load each model first: load time, memory, cold request."),
    ] = False
    idle_gap: Annotated[
        Duration | None,
        Meta(description="Leave each model idle for so long, then time one request."),
        Flag("--idle-gap", "Time a request after such a pause, per model.", "60s"),
    ] = None
    keep_warm: Annotated[
        Duration | None,
        Meta(description="With idle_gap: again, with a one-token request this often meanwhile."),
        Flag("--keep-warm", "And again with a ping this often in the pause.", "20s"),
    ] = None
    max_failed: Annotated[
        Share | None,
        Meta(description="Leave out a model's higher loads once this share of a level's requests failed."),
        Flag("--max-failed", "Skip higher loads above this share of failures.", "20%", reads="share"),
    ] = None
    price_per_kwh: Annotated[
        Positive | None,
        Meta(description="Of electricity, in your currency."),
        Flag("--price-per-kwh", "Of electricity, in your currency.", "PRICE"),
    ] = None
    price_per_hour: Annotated[
        Positive | None,
        Meta(description="Of the machine, as it is rented, in your currency."),
        Flag("--price-per-hour", "Of the machine, as rented, in your currency.", "PRICE"),
    ] = None
    declared_watts: Annotated[
        Positive | None,
        Meta(description="What the server draws under load, where it cannot be measured."),
        Flag("--watts", "Server's draw, where it cannot be measured.", "W"),
    ] = None

    def __post_init__(self) -> None:
        """What no single field shows.

        Raises:
            ScenarioError: With the place in the scenario, without the file.
        """
        # In the order in which a reader would mend them.
        for problems in (_of_loads, _of_servers, _of_workload, _of_requests):
            for problem in problems(self):
                raise ScenarioError(problem)

    @property
    def endpoints(self) -> list[str]:
        """`endpoint` as a list, as written; empty where none is named."""
        return _listed(self.endpoint)

    @property
    def bounds(self) -> list[Bound]:
        """`slo`, parsed."""
        return [Bound.parse(text) for text in self.slo]

    @property
    def thresholds(self) -> list[Threshold]:
        """`fail_if`, parsed."""
        return [Threshold.of(one) for one in self.fail_if]

    def levels(self, models: Sequence[str]) -> list[Level]:
        """Model by model, all loads; every second repeat of it all in reverse (A B B A), so that a drift cancels out.

        A load that is listed twice counts as a further repeat. Without a load: concurrency 1. Where nothing is
        repeated, each model ends with its first load once more (`repeat_first`).

        >>> [level.id for level in Scenario(concurrency=[1, 4], repeat=2).levels(["m"])]
        ['m@c1', 'm@c4', 'm@c4#2', 'm@c1#2']
        >>> [level.id for level in Scenario(concurrency=[1, 4]).levels(["m"])]
        ['m@c1', 'm@c4', 'm@c1#end']
        """
        loads = self._loads() or [Load("c1", concurrency=1)]
        return in_turns(list(dict.fromkeys(models)), loads, repeat=self.repeats, closes=self.repeat_first)

    def _loads(self) -> list[Load]:
        if self.trace is not None:
            speed = f" x{self.trace_speed:g}" if self.trace_speed != 1 else ""
            file = self.trace.replace("\\", "/").rpartition("/")[2]
            return [Load(f"trace{speed.replace(' ', '-')}", rate_per_s=1.0, shape=f"{TRACE}{file}{speed}")]
        loads = []
        shapes = self.shapes
        for name, shape in zip(names(shapes), shapes, strict=True):
            loads.append(Load(name, rate_per_s=shape.mean_per_s, shape=shape.text))
        for rate in self.request_rate or ():
            number = int(rate) if rate == int(rate) else rate  # r1, not r1.0
            loads.append(Load(f"r{number}", rate_per_s=rate))
        for concurrency in self.concurrency or ():
            loads.append(Load(f"c{concurrency}", concurrency=concurrency))
        return loads

    @property
    def repeats(self) -> int:
        """How often each level is measured, at most."""
        if self.until is not None and self.repeat == 1:
            return MOST_REPEATS
        return self.repeat

    @property
    def shapes_written(self) -> list[str]:
        """`shape` as a list."""
        return _listed(self.shape)

    @property
    def shapes(self) -> list[Shape]:
        """`shape`, parsed."""
        return [Shape.parse(text) for text in self.shapes_written]

    @property
    def pause(self) -> Pause | None:
        """`think_time`, parsed."""
        return None if self.think_time is None else Pause.parse(self.think_time)

    @property
    def lengths(self) -> tuple[Length | None, Length | None]:
        """`input_length` and `output_length`, parsed."""
        asked = answered = None
        if self.input_length is not None:
            asked = Length.parse(self.input_length)
        if self.output_length is not None:
            answered = Length.parse(self.output_length, unit="tokens")
        return asked, answered

    def requests_for(self, level: Level) -> int | None:
        """Measured requests of a level; None when only `duration` ends it.

        With neither given: ten per stream or thirty seconds' worth, at least 30; a shape has its own end.
        """
        if self.requests is not None or self.duration is not None or level.shape is not None:
            return self.requests
        if level.concurrency is not None:
            return max(30, 10 * level.concurrency)
        return max(30, math.ceil(30 * (level.request_rate_per_s or 0)))

    def warmup_for(self, level: Level) -> int:
        """Requests before the measurement: `warmup`, else one per stream, in open loop one second's worth.

        A shape is measured from its first request on: its beginning is part of it.
        """
        if self.warmup is not None or level.shape is not None:
            return self.warmup or 0
        return level.concurrency or max(1, math.ceil(level.request_rate_per_s or 0))


# -- what no single field shows

OURS = {
    "model": "it comes from models",
    "messages": "they come from prompts",
    "stream": "set stream outside extra_body (--no-stream)",
    "max_tokens": "set max_tokens outside extra_body",
    "temperature": "set temperature outside extra_body",
}
"""Keys of the request that extra_body must not override, or the run's record would say what was not sent."""
FRAMING = ("content-length", "transfer-encoding", "connection", "host", "expect", "upgrade")
"""Headers that say how a request is sent: a wrong one makes a server wait for what never comes."""
LOADS = ("concurrency", "request_rate", "shape", "trace")
"""What says when requests start; one of them, or none for one stream."""


def _unread(place: str, read: Callable[[], object]) -> Iterator[str]:
    try:
        read()
    except UsageError as error:
        yield f"{place}: {error}"


def _listed(written: str | list[str] | None) -> list[str]:
    """What may be written as one text or as a list."""
    return [written] if isinstance(written, str) else written or []


def _of_loads(scenario: Scenario) -> Iterator[str]:
    if not re.fullmatch(r"\w[\w.-]{0,63}", scenario.name):
        yield f"name is {shown(scenario.name)}: use up to 64 letters, digits, dots, - and _, no spaces"
    given = [name for name in LOADS if getattr(scenario, name) is not None]
    if len(given) > 1:
        yield f"{given[0]} and {given[1]} are both given: keep one, or make two scenarios"
    for index, text in enumerate(scenario.shapes_written):
        place = "shape" if isinstance(scenario.shape, str) else at(("shape", index))
        yield from _unread(place, partial(Shape.parse, text))
    if scenario.trace is None and scenario.trace_speed != 1:
        yield f"trace_speed is {scenario.trace_speed:g}: give a trace to replay, or leave it out"
    if scenario.until is not None:
        if 1 < scenario.repeat < LEAST_REPEATS:
            yield f"until takes 3 runs, repeat is {scenario.repeat}: leave repeat out, or raise it"
        for name in given[:1]:
            loads = getattr(scenario, name)
            if isinstance(loads, list) and len(set(loads)) < len(loads):
                yield f"until repeats each load: name none twice in {name}"
    if scenario.think_time is not None:
        if given and given != ["concurrency"]:
            yield f"think_time and {given[0]} are both given: users pause in a closed loop (concurrency)"
        yield from _unread("think_time", partial(Pause.parse, scenario.think_time))
    for name in ("duration", "idle_gap", "keep_warm"):
        value = getattr(scenario, name)
        if value is not None and not value > 0:
            yield f"{name} is {value}: must be more than 0"
    if scenario.keep_warm is not None and (scenario.idle_gap is None or scenario.keep_warm >= scenario.idle_gap):
        yield f"keep_warm is {scenario.keep_warm}: give an idle_gap that is longer"


def _of_servers(scenario: Scenario) -> Iterator[str]:
    urls, weights = scenario.endpoints, scenario.weights
    for index, url in enumerate(urls):
        if "," in url and "://" in url.partition(",")[2]:
            yield f"endpoint {shown(url)} holds several: name each by itself, with an -e of its own"
        if url in urls[:index]:
            place = at(("endpoint", index))
            yield f"{place} is {shown(url)} again: name each endpoint once; weights say who gets more"
    if weights is not None and len(weights) != len(urls):
        yield f"weights has {len(weights)} for {len(urls)} endpoints: give each endpoint (-e) one"
    if len(urls) > 1 and scenario.against is not None:
        yield f"against and {len(urls)} endpoints are both given: two single servers take turns; keep one"
    if len(urls) > 1 and scenario.cold:
        yield "cold and several endpoints are both given: of replicas no model is loaded; keep one of both"
    if not scenario.models:
        yield 'models is "": write "auto", a list of names, or the path of a models.json'
    if scenario.against_model is not None and scenario.against is None:
        yield "against_model names a model of against: give both"
    models = _listed(scenario.models)
    for index, model in enumerate(models):
        if model in models[:index]:
            yield f"{at(('models', index))} is {shown(model)} again: name each model once"


def _of_workload(scenario: Scenario) -> Iterator[str]:
    if isinstance(scenario.prompts, list):
        for index, text in enumerate(scenario.prompts):
            if not text.strip():
                yield f"{at(('prompts', index))} is {shown(text)}: a prompt must hold text"
    if scenario.trace is not None:
        for name in ("prompts", "input_length"):
            if getattr(scenario, name) is not None:
                yield f"{name} and trace are both given: a trace says how long its prompts are; keep one"
        if scenario.output_length is not None:
            yield "output_length and trace are both given: a trace says how long its answers are; keep one"
    if scenario.prompts is not None and scenario.input_length is not None:
        yield "prompts and input_length are both given: keep the prompts, or have some made up"
    if scenario.shared_prefix and scenario.input_length is None:
        yield "shared_prefix is for prompts that are made up: give their input_length"
    if scenario.input_length is not None:
        yield from _unread("input_length", partial(Length.parse, scenario.input_length))
    if scenario.output_length is not None:
        yield from _unread("output_length", partial(Length.parse, scenario.output_length, unit="tokens"))


def _of_requests(scenario: Scenario) -> Iterator[str]:
    for key, value in scenario.extra_body.items():
        if value is None and (key != "stream" or not scenario.stream):
            continue  # taken out of the request
        if key in OURS:
            yield f"extra_body.{key}: not here, {OURS[key]}"
        if key in scenario.__struct_fields__ and key != "seed":  # written below [extra_body], TOML counts it to it
            yield f"extra_body.{key}: move it above [extra_body]"
    for name, text in scenario.headers.items():
        place = at(("headers", name))
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
            # Not shown: a key that was pasted without its header's name stands here.
            yield "headers: no valid header name: write letters, digits and hyphens"
            continue
        if name.lower() in FRAMING:
            yield f"{place}: loadbench writes this header itself; remove it"
        if not (text.isascii() and text.isprintable()):
            yield f"{place}: a header's value must be printable ASCII on one line"
    if scenario.api_key_env is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", scenario.api_key_env):
        # The value is not shown: it may be the key itself.
        yield "api_key_env: must be the name of an environment variable, never the key itself"
    if scenario.api_key_env is not None and scenario.api_key_file is not None:
        yield "api_key_env and api_key_file are both given: keep one"
    for index, bound in enumerate(scenario.slo):
        yield from _unread(at(("slo", index)), partial(_check_slo, bound))
    for index, rule in enumerate(scenario.fail_if):
        yield from _unread(at(("fail_if", index)), partial(_check_threshold, rule))


def _check_slo(written: str) -> None:
    check_written(Bound.parse(written))


def _check_threshold(written: str | FailIf) -> None:
    check_written(Threshold.of(written).bound, holds=False)


def json_schema() -> dict[str, object]:
    """The JSON Schema of a scenario file, for editors."""

    def hook(kind: type) -> dict[str, object]:
        if kind is Duration:
            return {
                "anyOf": [{"type": "string", "pattern": r"^([0-9.]+ *(ms|s|m|h) *)+$|^[0-9.]+$"}, {"type": "number"}]
            }
        raise NotImplementedError

    schema = msgspec.json.schema(Scenario, schema_hook=hook)
    timeouts = Timeouts()
    for name, field in schema["$defs"]["Timeouts"]["properties"].items():
        field["default"] = str(getattr(timeouts, name))
    table = schema["$defs"]["Scenario"]["properties"]["extra_body"]
    # TOML has no null.
    table["anyOf"] = [{"type": table.pop("type")}, {"type": "string", "description": "The same as JSON."}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "loadbench scenario", **schema}
