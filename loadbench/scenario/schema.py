"""The records: Scenario (what to ask and how hard), Level (one load within it), Timeouts."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from loadbench.errors import ScenarioError, UsageError
from loadbench.scenario.bound import Bound, Duration
from loadbench.scenario.files import at, shown

Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Text = Annotated[str, Meta(min_length=1, max_length=10_000)]
Streams = Annotated[int, Meta(ge=1, le=100_000)]
Rate = Annotated[float, Meta(gt=0, le=1_000_000)]
Share = Annotated[float, Meta(ge=0, le=1)]
Positive = Annotated[float, Meta(gt=0, le=1_000_000)]
Device = Literal["cpu", "gpu", "npu"]

OURS = {
    "model": "it comes from models",
    "messages": "they come from prompts",
    "stream": "set stream outside extra_body",
    "max_tokens": "set max_tokens outside extra_body",
    "temperature": "set temperature outside extra_body",
}
"""Keys of the request that extra_body must not override, or the run's record would say what was not sent."""


FRAMING = ("content-length", "transfer-encoding", "connection", "host", "expect", "upgrade")
"""Headers that say how a request is sent: a wrong one makes a server wait for what never comes."""


class Level(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One load on one model: a concurrency (closed loop) or a request rate (open loop).

    Attributes:
        id: Unique in the run: "phi-4-mini@c4", "phi-4-mini@r0.5", "phi-4-mini@c4#2" for the second repeat.
        model: As the scenario or the server names it.
        concurrency: Requests in flight; None in open loop.
        request_rate_per_s: Requests started per second; None in closed loop.
        repeat: 1 for the first time this load is measured on this model.
    """

    id: str
    model: str
    concurrency: int | None
    request_rate_per_s: float | None
    repeat: int


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

    name: Annotated[str, Meta(description="Names the run folder; the file's name when not given.")] = "run"
    description: Annotated[str, Meta(description="What this scenario decides.")] = ""
    endpoint: Annotated[Text | None, Meta(description="Base URL; unset: FOUNDRY_LOCAL_ENDPOINT, or what is found.")] = (
        None
    )
    models: Annotated[
        str | Annotated[list[Text], Meta(min_length=1, max_length=1000)],
        Meta(description='"auto", a list of model names, or the path of a models.json beside this file.'),
    ] = "auto"
    model_facts: Annotated[
        dict[str, dict[str, Any]], Meta(description="What models.json says of each model (capabilities, size_mb).")
    ] = {}
    prompts: Annotated[
        str | Annotated[list[str], Meta(min_length=1)] | None,
        Meta(description="A list of texts, or the path of a .json, .jsonl or .txt file; unset: a built-in set."),
    ] = None
    system: Annotated[Text | None, Meta(description="System message for the prompts that have none.")] = None
    max_tokens: Annotated[Count, Meta(description="Most tokens of an answer.")] = 128
    temperature: Annotated[float, Meta(ge=0, le=2, description="0 for answers that repeat.")] = 0.0
    seed: Annotated[int, Meta(ge=0, le=2**53, description="Of the order of prompts and the arrivals.")] = 1
    concurrency: Annotated[
        Annotated[list[Streams], Meta(min_length=1, max_length=1000)] | None,
        Meta(description="Closed loop: requests in flight, a level each."),
    ] = None
    request_rate: Annotated[
        Annotated[list[Rate], Meta(min_length=1, max_length=1000)] | None,
        Meta(description="Open loop: requests started per second, a level each."),
    ] = None
    arrivals: Annotated[Literal["poisson", "constant"], Meta(description="Spacing of the starts in open loop.")] = (
        "poisson"
    )
    requests: Annotated[
        Annotated[int, Meta(ge=1, le=100_000_000)] | None, Meta(description="Measured requests per level.")
    ] = None
    duration: Annotated[
        Duration | None, Meta(description="Measured time per level; with requests, whichever ends first.")
    ] = None
    warmup: Annotated[
        Annotated[int, Meta(ge=0, le=1_000_000)] | None,
        Meta(description="Requests before a level is measured; unset: as many as its concurrency."),
    ] = None
    repeat: Annotated[int, Meta(ge=1, le=1000, description="How often each level is measured.")] = 1
    slo: Annotated[list[str], Meta(max_length=100, description='Bounds, as "ttft_p95=800ms" or "failed<1%".')] = []
    distinct_prompts: Annotated[
        bool, Meta(description="Put a unique prefix before each prompt, so that no cache answers.")
    ] = False
    stream: Annotated[bool, Meta(description="false asks for whole answers, which show no first token.")] = True
    retries: Annotated[
        int, Meta(ge=0, le=100, description="New requests after a failed one, each with its own marks.")
    ] = 0
    retry_backoff: Annotated[Duration, Meta(description="Wait before a retry; doubles with each.")] = _after(1)
    extra_body: Annotated[dict[str, Any], Meta(description="More keys of each request, as ignore_eos.")] = {}
    headers: Annotated[dict[str, str], Meta(description="More HTTP headers.")] = {}
    api_key_env: Annotated[Text | None, Meta(description="Name of the environment variable that holds the key.")] = None
    timeouts: Timeouts = msgspec.field(default_factory=Timeouts)
    max_streams: Annotated[Streams | None, Meta(description="Most streams in open loop; unset: 1024.")] = None
    device: Annotated[
        Annotated[list[Device], Meta(min_length=1)] | None,
        Meta(description="Variants of the models for these devices, each measured; unset: the server's choice."),
    ] = None
    execution_provider: Annotated[
        Text | None, Meta(description='Variants for this execution provider, as "cuda" or "WebGpuExecutionProvider".')
    ] = None
    cold: Annotated[bool, Meta(description="Unload and load each model before it is measured.")] = False
    idle_gap: Annotated[
        Duration | None, Meta(description="Leave each model idle for so long, then time one request.")
    ] = None
    keep_warm: Annotated[
        Duration | None, Meta(description="With idle_gap: again, with a one-token request this often meanwhile.")
    ] = None
    max_failed: Annotated[
        Share | None,
        Meta(description="Leave out a model's higher loads once this share of a level's requests failed."),
    ] = None
    price_per_kwh: Annotated[Positive | None, Meta(description="Of electricity, in your currency.")] = None
    declared_watts: Annotated[
        Positive | None, Meta(description="What the server draws under load, where it cannot be measured.")
    ] = None

    def __post_init__(self) -> None:
        """What no single field shows.

        Raises:
            ScenarioError: With the place in the scenario, without the file.
        """
        for problem in (_name, _load, _models, _request, _bounds):
            problem(self)

    @property
    def bounds(self) -> list[Bound]:
        """`slo`, parsed."""
        return [Bound.parse(text) for text in self.slo]

    def levels(self, models: Sequence[str]) -> list[Level]:
        """Model by model, all loads; every second repeat in reverse (A B B A), so that a drift cancels out.

        A load that is listed twice counts as a further repeat. Without a load: concurrency 1.

        >>> [level.id for level in Scenario(concurrency=[1, 4], repeat=2).levels(["m"])]
        ['m@c1', 'm@c4', 'm@c4#2', 'm@c1#2']
        """
        closed: list[tuple[int | None, float | None]] = [(c, None) for c in self.concurrency or ()]
        loads = closed + [(None, r) for r in self.request_rate or ()] or [(1, None)]
        levels = []
        for model in dict.fromkeys(models):
            times: Counter[tuple[int | None, float | None]] = Counter()
            for lap in range(self.repeat):
                for load in reversed(loads) if lap % 2 else loads:
                    times[load] += 1
                    levels.append(_level(model, *load, times[load]))
        return levels

    def requests_for(self, level: Level) -> int | None:
        """Measured requests of a level; None when only `duration` ends it.

        With neither given: ten per stream or thirty seconds' worth, at least 30.
        """
        if self.requests is not None or self.duration is not None:
            return self.requests
        if level.concurrency is not None:
            return max(30, 10 * level.concurrency)
        return max(30, math.ceil(30 * (level.request_rate_per_s or 0)))

    def warmup_for(self, level: Level) -> int:
        """Requests before the measurement: `warmup`, else one per stream, in open loop one second's worth."""
        if self.warmup is not None:
            return self.warmup
        return level.concurrency or max(1, math.ceil(level.request_rate_per_s or 0))


def _level(model: str, concurrency: int | None, rate: float | None, repeat: int) -> Level:
    load = f"c{concurrency}" if rate is None else f"r{int(rate) if rate == int(rate) else rate}"
    name = f"{model}@{load}" + (f"#{repeat}" if repeat > 1 else "")
    return Level(id=name, model=model, concurrency=concurrency, request_rate_per_s=rate, repeat=repeat)


def _name(scenario: Scenario) -> None:
    if not re.fullmatch(r"\w[\w.-]{0,63}", scenario.name):
        raise ScenarioError(f"name is {shown(scenario.name)}: use up to 64 letters, digits, dots, - and _, no spaces")


def _load(scenario: Scenario) -> None:
    if scenario.concurrency is not None and scenario.request_rate is not None:
        raise ScenarioError("concurrency and request_rate are both given: keep one, or make two scenarios")
    if scenario.duration is not None and not scenario.duration > 0:
        raise ScenarioError(f"duration is {scenario.duration}: must be more than 0")
    for name in ("idle_gap", "keep_warm"):
        value = getattr(scenario, name)
        if value is not None and not value > 0:
            raise ScenarioError(f"{name} is {value}: must be more than 0")
    if scenario.keep_warm is not None and (scenario.idle_gap is None or scenario.keep_warm >= scenario.idle_gap):
        raise ScenarioError(f"keep_warm is {scenario.keep_warm}: give an idle_gap that is longer")


def _models(scenario: Scenario) -> None:
    if not scenario.models:
        raise ScenarioError('models is "": write "auto", a list of names, or the path of a models.json')
    if isinstance(scenario.models, list):
        for index, model in enumerate(scenario.models):
            if model in scenario.models[:index]:
                raise ScenarioError(f"{at(('models', index))} is {shown(model)} again: name each model once")
    for index, text in enumerate(scenario.prompts if isinstance(scenario.prompts, list) else ()):
        if not text.strip():
            raise ScenarioError(f"{at(('prompts', index))} is {shown(text)}: a prompt must hold text")


def _request(scenario: Scenario) -> None:
    for key in scenario.extra_body:
        if key in OURS:
            raise ScenarioError(f"extra_body.{key}: not here, {OURS[key]}")
        if key in Scenario.__struct_fields__ and key != "seed":  # written below [extra_body], TOML counts it to it
            raise ScenarioError(f"extra_body.{key}: move it above [extra_body]")
    for name, value in scenario.headers.items():
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
            raise ScenarioError(f"{at(('headers', name))}: no valid header name")
        if name.lower() in FRAMING:
            raise ScenarioError(f"{at(('headers', name))}: loadbench writes this header itself; remove it")
        if not (value.isascii() and value.isprintable()):
            raise ScenarioError(f"{at(('headers', name))}: a header's value must be printable ASCII on one line")
    if scenario.api_key_env is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", scenario.api_key_env):
        # The value is not shown: it may be the key itself.
        raise ScenarioError("api_key_env: must be the name of an environment variable, never the key itself")


def _bounds(scenario: Scenario) -> None:
    for index, text in enumerate(scenario.slo):
        try:
            Bound.parse(text)
        except UsageError as error:
            raise ScenarioError(f"{at(('slo', index))}: {error}") from None


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a scenario file, for editors."""

    def hook(kind: type) -> dict[str, Any]:
        if kind is Duration:
            return {"anyOf": [{"type": "string", "pattern": r"^[0-9.]+ *(ms|s|m|h)?$"}, {"type": "number"}]}
        raise NotImplementedError

    schema = msgspec.json.schema(Scenario, schema_hook=hook)
    timeouts = Timeouts()
    for name, field in schema["$defs"]["Timeouts"]["properties"].items():
        field["default"] = str(getattr(timeouts, name))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "loadbench scenario", **schema}
