"""`loadbench run`: measure models at several loads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from loadbench.cli.options import MORE, Headed, SettingsCommand, file_of_end, option, scenario_file

EPILOG = """\b
Examples:
  loadbench run                      1, 2, 4 and 8 streams on what is found
  loadbench run -e http://gpu-box:8000/v1 -m llama3.1 -c 1,8,64 -d 60s
  loadbench run -e http://a:8000 -e http://b:8000 --weights 3,1    replicas
  loadbench run -r 0.5,1,2 -d 2m     open loop: requests per second
  loadbench run --shape "ramp 1..8 over 2m" --input-length "words 200"
  loadbench run --slo ttft_p95=500ms --slo "failed<1%"
  loadbench run -e http://old:8080 --against http://new:8080 --repeat 5
  loadbench run --fail-if "ttft_p95>800ms" --junit loadbench.xml     for CI
  loadbench run scenarios/summarizer.toml -m auto      the models at hand
  loadbench run scenarios/sweep.toml --budget 5m --dry-run
  loadbench run --resume results/20261122T101500Z-sweep

\b
Shapes: ramp 1..8 over 2m, steps 1,2,4 each 30s, spike 1 to 10 at 30s for 10s.
Lengths: words, characters or tokens; then 200, normal MEAN DEVIATION,
uniform LOW HIGH or lognormal MEAN DEVIATION.
Thresholds say what fails: "failed > 10% abort after 10s" ends the run as soon
as that is sure, "ttft_p95{c8} > 1s" is about one level.

\b
Settings: flag, then environment (LOADBENCH_*, then BENCH_*), then scenario,
then default.
Exit: 0 fine, 1 target or machine unusable or a model completed nothing,
2 arguments or files, 3 a threshold failed, 130 interrupted.
"""

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
        *("cold", "idle_gap", "keep_warm", "telemetry", "price_per_kwh", "declared_watts"),
    ),
    "Output": ("folder", "name", "junit", "as_json", "quiet", "no_progress", "answers"),
    MORE: ("stamps",),
}
"""Where --help lists which setting: headings, and under each the settings in order."""


def shown_options() -> dict[str, Headed]:
    """Options of the command line alone: what it prints, and when it calls a run failed."""
    heading = "Output"
    made = [
        Headed(["--strict"], is_flag=True, heading="Plan", help="Exit 3 on red gates and unknown thresholds too."),
        Headed(
            ["--junit"],
            type=click.Path(path_type=Path, dir_okay=False),
            callback=file_of_end,
            metavar="FILE",
            heading=heading,
            help="JUnit XML for CI, too.",
        ),
        Headed(["--json", "as_json"], is_flag=True, heading=heading, help="JSON lines on stdout, the summary last."),
        Headed(["-q", "--quiet"], is_flag=True, heading=heading, help="Print errors alone."),
        Headed(["--no-progress"], is_flag=True, heading=heading, help="No live view."),
    ]
    return {one.name or "": one for one in made}


def options(
    layout: Mapping[str, Sequence[str]], narrower: Mapping[str, tuple[str, str]] | None = None
) -> list[click.Option]:
    """The options of a layout.

    Args:
        narrower: Metavar and help of settings that mean something narrower here.
    """
    from loadbench.runner.job import PARTS, Job
    from loadbench.scenario import Scenario
    from loadbench.scenario.settings import settings

    known = {one.name: one for struct in (Scenario, Job, *PARTS.values()) for one in settings(struct)}
    own = shown_options()
    made: list[click.Option] = []
    for heading, names in layout.items():
        for name in names:
            if name in own:
                made.append(own[name])
            else:
                metavar, text = (narrower or {}).get(name, (None, None))
                made.append(option(known[name], heading, help=text, metavar=metavar))
    return made


@click.command(cls=SettingsCommand, options=lambda: options(LAYOUT), epilog=EPILOG)
@click.argument("scenario_file", metavar="[SCENARIO]", required=False, callback=scenario_file)
@click.pass_context
def run(ctx: click.Context, /, **values: Any) -> None:
    """Measure models at several loads.

    Without SCENARIO and options it measures 1, 2, 4 and 8 streams on the server that is found: FOUNDRY_LOCAL_ENDPOINT,
    else the one server that listens on this machine, else the embedded model. Records, summary and report go to a
    folder in results/.
    """
    from loadbench.cli.job import job_of
    from loadbench.cli.measured import Shown, carry_out

    ctx.exit(carry_out(job_of(ctx, values), Shown.of(values)))
