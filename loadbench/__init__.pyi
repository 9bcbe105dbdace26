# Made by `python -m tests.support.stub` from loadbench.api and loadbench.scenario.Scenario.
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from loadbench.api import Event
from loadbench.api import Finding as Finding
from loadbench.api import Run as Run
from loadbench.api import catalogue as catalogue
from loadbench.api import choose as choose
from loadbench.api import compare_models as compare_models
from loadbench.api import probe as probe
from loadbench.api import read as read
from loadbench.scenario import Scenario, Timeouts

__version__: str

def run(
    scenario_or_file: Scenario | str | Path | None = None,
    *,
    folder: str | Path | None = None,
    progress: Callable[[Event], object] | None = None,
    simulate: bool = False,
    budget: str | None = None,
    wait: str | None = None,
    answers: bool = True,
    telemetry: bool = True,
    yes: bool = False,
    name: str | None = ...,
    description: str | None = ...,
    endpoint: str | Sequence[str] | None = ...,
    weights: int | Sequence[int] | None = ...,
    models: str | Sequence[str] | None = ...,
    model_facts: Mapping[str, Any] | None = ...,
    prompts: str | Path | Sequence[str] | None = ...,
    system: str | None = ...,
    max_tokens: int | None = ...,
    temperature: float | None = ...,
    seed: int | None = ...,
    concurrency: int | Sequence[int] | None = ...,
    request_rate: float | Sequence[float] | None = ...,
    shape: str | Sequence[str] | None = ...,
    trace: str | Path | None = ...,
    trace_speed: float | None = ...,
    think_time: str | None = ...,
    arrivals: Literal["poisson", "constant"] | None = ...,
    requests: int | None = ...,
    duration: str | float | None = ...,
    warmup: int | None = ...,
    repeat: int | None = ...,
    until: float | None = ...,
    repeat_first: bool | None = ...,
    slo: str | Sequence[str] | None = ...,
    fail_if: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]] | None = ...,
    turns: int | None = ...,
    input_length: str | None = ...,
    output_length: str | None = ...,
    shared_prefix: float | None = ...,
    output_exact: bool | None = ...,
    distinct_prompts: bool | None = ...,
    stream: bool | None = ...,
    retries: int | None = ...,
    retry_backoff: str | float | None = ...,
    extra_body: Mapping[str, Any] | None = ...,
    headers: Mapping[str, str] | None = ...,
    api_key_env: str | None = ...,
    api_key_file: str | Path | None = ...,
    timeouts: Timeouts | Mapping[str, str | float] | None = ...,
    max_streams: int | None = ...,
    device: Literal["cpu", "gpu", "npu"] | Sequence[Literal["cpu", "gpu", "npu"]] | None = ...,
    execution_provider: str | None = ...,
    cold: bool | None = ...,
    idle_gap: str | float | None = ...,
    keep_warm: str | float | None = ...,
    max_failed: float | None = ...,
    price_per_kwh: float | None = ...,
    price_per_hour: float | None = ...,
    declared_watts: float | None = ...,
) -> Run: ...
