"""`loadbench run` and `capacity`: their options and help. `outcome.py` carries out what they say."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import click
import msgspec

from loadbench.cli.options import MORE, Command, options, scenario_file
from loadbench.cli.surroundings import note
from loadbench.runner.job import Job, Limits, Output, Search, Server, Sharing
from loadbench.scenario import Scenario
from loadbench.scenario.settings import Flag


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What the user wants to see, and when the command is to fail; a search has neither --strict nor --junit."""

    strict: Annotated[bool, Flag("--strict", "Exit 3 on red gates and unknown thresholds too.", variable=False)] = False
    junit: Annotated[Path | None, Flag("--junit", "JUnit XML for CI, too.", "FILE", "file of end", variable=False)] = (
        None
    )
    full: Annotated[bool, Flag("--full", "Print the whole report, not one screen of it.", variable=False)] = False
    opens: Annotated[bool, Flag("--open", "Open report.html in a browser.", variable=False)] = False
    as_json: Annotated[bool, Flag("--json", "JSON lines on stdout, the summary last.", variable=False)] = False
    quiet: Annotated[bool, Flag("-q --quiet", "Print the run's folder alone.", variable=False)] = False
    no_progress: Annotated[bool, Flag("--no-progress", "No live view.", variable=False)] = False

    @property
    def tables(self) -> bool:
        return not self.quiet and not self.as_json


LAYOUT = {
    "Server": (
        *("endpoint", "models", "device", "execution_provider", "simulate", "wait", "weights", "against"),
        *("against_model", "api_key_env", "api_key_file", "headers", "ca_file", "insecure"),
    ),
    "Load": (
        *("concurrency", "duration", "requests", "request_rate", "shape", "trace", "trace_speed", "think_time"),
        *("workers", "cluster", "warmup", "repeat", "until", "repeat_first", "arrivals", "retries", "retry_backoff"),
        *("max_failed", "max_streams"),
    ),
    "Prompts and answers": (
        *("max_tokens", "texts", "prompts", "turns", "input_length", "output_length", "shared_prefix", "output_exact"),
        *("system", "temperature", "distinct_prompts", "extra_body", "stream", "seed"),
    ),
    "Plan": ("slo", "fail_if", "strict", "yes", "dry_run", "budget", "resume"),
    "Cold starts, memory, energy": (
        *("cold", "idle_gap", "keep_warm", "telemetry", "price_per_kwh", "declared_watts", "price_per_hour"),
    ),
    "Output": ("folder", "name", "full", "opens", "junit", "as_json", "quiet", "no_progress", "answers"),
    MORE: ("stamps",),
}
"""Where --help lists which setting: headings, and under each the settings in order."""
_STRUCTS = (Scenario, Job, Server, Sharing, Limits, Output, Search, Shown)
_OFTEN = (
    *("endpoint", "models", "device", "api_key_env", "concurrency", "duration", "requests", "request_rate"),
    *("max_tokens", "prompts", "slo", "fail_if", "budget", "folder", "full", "opens"),
)
_RUN_EXAMPLES = """\b
Examples:
  loadbench run        what is found here, else a small model; a minute or so
  loadbench run -e http://localhost:11434 -m llama3.2 -c 1,4,16 -d 30s \\
                --slo ttft_p95=800ms
  loadbench run -r 0.5,1,2 -d 2m        open loop: requests per second
  loadbench run quickstart --budget 5m  a scenario that comes with loadbench
"""
_RUN_DETAILS = """\b
More examples:
  loadbench run -e http://a:8000 -e http://b:8000 --weights 3,1    replicas
  loadbench run --shape "ramp 1..8 over 2m" --input-length "words 200"
  loadbench run -e http://old:8080 --against http://new:8080 --repeat 5
  loadbench run --fail-if "ttft_p95>800ms" --junit loadbench.xml     for CI
  loadbench run summarizer -m auto                 the models at hand
  loadbench run sweep --budget 5m --dry-run
  loadbench run --resume results/20261122T101500Z-sweep

\b
Shapes: ramp 1..8 over 2m, steps 1,2,4 each 30s, spike 1 to 10 at 30s for 10s.
Lengths: words, characters or tokens; then 200, normal MEAN DEVIATION,
uniform LOW HIGH or lognormal MEAN DEVIATION.
Thresholds say what fails: "failed > 10% abort after 10s" ends the run as soon
as that is sure, "ttft_p95{c8} > 1s" is about one level.

\b
SCENARIO: a .toml or .json file, or one that comes with loadbench:
cpu, gpu, npu, remote, quickstart, stress, summarizer, sweep.

\b
Settings: flag, then environment (LOADBENCH_*, then BENCH_*), then scenario,
then default.
"""
_METRICS = """\b
Metrics of bounds: ttft, itl, tpot, e2e with p50, p90, p95, p99,
mean or max, as ttft_p95=800ms; failed<1%, tokens_per_s>40, goodput>2.
"""
_RUN_EPILOG = f"""{_METRICS}
\b
Exit: 0 fine, 1 target or machine unusable or a model completed nothing,
2 arguments or files, 3 a threshold failed, 130 interrupted.
"""


@click.command(
    cls=Command,
    params=options(LAYOUT, _STRUCTS, often=_OFTEN),
    examples=_RUN_EXAMPLES,
    details=_RUN_DETAILS,
    epilog=_RUN_EPILOG,
)
@click.argument("scenario_file", metavar="[SCENARIO]", required=False, callback=scenario_file)
@click.pass_context
def run(ctx: click.Context, /, **values: object) -> int:
    """Measure models at several loads.

    Without SCENARIO and options it measures 1, 2, 4 and 8 streams on the server that is found: FOUNDRY_LOCAL_ENDPOINT,
    else the one server that listens on this machine, else the embedded model. Records, summary and report go to a
    folder in results/.
    """
    return _carried_out(ctx, values)


# -- capacity: a search for the load

_NARROWER: dict[str, dict[str, object]] = {
    "slo": {"metavar": "BOUND", "help": "To meet, as ttft_p95=500ms; repeat for several."},
    "budget": {"metavar": "10m", "help": "End after this time, with a bracket."},
    "requests": {
        "help": "Most requests of a probe; by rate 27 s of them at least.  [default: as the SLO needs]",
        "envvar": "LOADBENCH_REQUESTS",  # the workshop's BENCH_ROUNDS means the setting of `run`
    },
    "duration": {"metavar": "60s", "help": "Longest measured time of a probe; by rate at least what it needs."},
}
_SEARCH = ("slo", "by", "start", "most", "within", "budget", "requests", "duration")
_OF_LOAD = ("workers", "cluster", "warmup", "arrivals", "retries", "retry_backoff", "max_streams")
"""Settings that say how a load is offered: the others of that heading say which, and that is searched for."""
_NOT = ("against", "against_model", "idle_gap", "keep_warm", "fail_if", "strict", "junit", *_SEARCH)


def _search_layout() -> dict[str, Sequence[str]]:
    """The settings of `run` that have a meaning in a search, behind its own."""
    layout: dict[str, Sequence[str]] = {"Search": _SEARCH}
    for heading, names in LAYOUT.items():
        layout[heading] = _OF_LOAD if heading == "Load" else [name for name in names if name not in _NOT]
    return layout


_SEARCHED_OFTEN = (*_SEARCH, "endpoint", "models", "api_key_env", "max_tokens", "prompts", "folder", "full", "opens")
_CAPACITY_EXAMPLES = """\b
Examples:
  loadbench capacity --slo ttft_p95=800ms --slo itl_p99=100ms
  loadbench capacity -e http://gpu-box:8000 --slo ttft_p95=2s --budget 20m
  loadbench capacity --slo e2e_p95=10s --by rate --from 0.5
  loadbench capacity scenarios/chat.toml --slo success=99% --max 64
"""
_CAPACITY_DETAILS = """\b
A share is met where its interval says so: 95 % takes 109 requests without a
miss, 99 % takes 568. By rate a probe takes 27 s at least, and 80 s to confirm
the answer: queues take time. What is neither surely met nor surely missed is
undecided. --budget ends with a bracket, as 8 to 16.
"""
_CAPACITY_EPILOG = f"""{_METRICS}
\b
Exit: 0 found, or a bracket where the budget ended; 1 target or machine
unusable; 2 arguments or files; 3 not even the lowest load surely meets the
SLO; 130 interrupted.
"""


@click.command(
    cls=Command,
    params=options(_search_layout(), _STRUCTS, _NARROWER, _SEARCHED_OFTEN),
    examples=_CAPACITY_EXAMPLES,
    details=_CAPACITY_DETAILS,
    epilog=_CAPACITY_EPILOG,
)
@click.argument("scenario_file", metavar="[SCENARIO]", required=False, callback=scenario_file)
@click.pass_context
def capacity(ctx: click.Context, /, **values: object) -> int:
    """Find the highest concurrency, or request rate, that meets an SLO.

    It doubles the load until the SLO fails, bisects between, and measures the answer once more. Each load is measured
    until an interval of the share of requests that meet each bound decides, or no longer can. The answer is up to where
    the SLO is met, from where on it is missed, what is undecided between, and an estimate from all probes together.
    All steps go to a run folder, as `loadbench run` writes it.
    """
    from loadbench.cli.job import part
    from loadbench.runner.capacity import Grid

    if values["resume"] is None:
        grid = Grid.of(part(Search, values))  # refused before anything else
        values["concurrency" if grid.by == "concurrency" else "request_rate"] = [grid.start]
    return _carried_out(ctx, values)


def _say_first(values: dict[str, Any]) -> None:
    """What it is about to do, to a person: before the imports, which take longer than anybody waits for a sign."""
    if values["quiet"] or values["as_json"] or not sys.stderr.isatty():
        return
    doing = "looking for a server"
    if values["resume"] is not None:
        doing = f"reading {values['resume']}"
    elif values["simulate"]:
        doing = "starting the simulator"
    elif values["endpoint"]:
        doing = f"connecting to {' and '.join(values['endpoint'])}"
    note(f"loadbench: {doing} …")


def _carried_out(ctx: click.Context, values: dict[str, Any]) -> int:
    _say_first(values)
    # Here, since what measures and what reports take over half a second to import, and --help needs neither.
    from loadbench.cli.job import job_of, part
    from loadbench.cli.outcome import carry_out

    return carry_out(job_of(ctx, values), part(Shown, values))
