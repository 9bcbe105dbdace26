"""`loadbench run`: measure models at several loads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loadbench.cli.options import (
    LIST,
    MORE,
    TEXT,
    HeadedCommand,
    certificates,
    decimal,
    devices,
    duration,
    file_of_end,
    header_lines,
    scenario_file,
    share,
    tries,
    under,
    whole,
)

if TYPE_CHECKING:
    from loadbench.scenario import Scenario

EPILOG = """\b
Examples:
  loadbench run                      1, 2, 4 and 8 streams on what is found
  loadbench run -e http://gpu-box:8000/v1 -m llama3.1 -c 1,8,64 -d 60s
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


_server, _load, _prompts = under("Server"), under("Load"), under("Prompts and answers")
_plan, _output, _more = under("Plan"), under("Output"), under(MORE)
_machine = under("Cold starts, memory, energy")
_FLAG: dict[str, Any] = {"is_flag": True, "variable": False}


@click.command(cls=HeadedCommand, epilog=EPILOG)
@click.argument("scenario_file", metavar="[SCENARIO]", required=False, callback=scenario_file)
@_server("-e", "--endpoint", metavar="URL", help="With or without /v1.  [default: what is found]")
@_server(
    "-m",
    "--model",
    "models",
    multiple=True,
    type=LIST,
    metavar="MODEL",
    help="To measure; repeat it, or a,b.  [default: auto]",
)
@_server("--device", "devices", callback=devices, metavar="cpu,gpu", help="Variants for these devices: cpu, gpu, npu.")
@_server("--ep", "execution_provider", metavar="NAME", help="Variants for an execution provider, as cuda or webgpu.")
@_server("--simulate", **_FLAG, help="Measure a simulator; its figures are labelled so.")
@_server("--wait", "wait_for", callback=duration, metavar="60s", help="Wait until the server answers.")
@_server("--against", variable=False, metavar="URL", help="Measure this one too, in turns, and compare.")
@_server("--against-model", multiple=True, type=LIST, variable=False, metavar="MODEL", help="Its model, if it differs.")
@_server("--api-key-env", metavar="NAME", help="Environment variable that holds the key.")
@_server("--header", "headers", multiple=True, variable=False, metavar="'NAME: VALUE'", help="More HTTP headers.")
@_server("--ca-file", callback=certificates, metavar="FILE", help="Certificate authorities to trust (PEM).")
@_server("--insecure", is_flag=True, help="Accept any certificate.")
@_load("-c", "--concurrency", callback=whole, metavar="1,2,4", help="Closed loop: streams at once, a level each.")
@_load("-d", "--duration", callback=duration, metavar="30s", help="Measured time per level.")
@_load("-n", "--requests", type=int, metavar="N", help="Measured requests per level.", workshop="BENCH_ROUNDS")
@_load("-r", "--request-rate", callback=decimal, metavar="0.5,1", help="Open loop: requests/s, a level each.")
@_load("--shape", multiple=True, type=TEXT, metavar="TEXT", help="Open loop, as 'ramp 1..8 over 2m' (see below).")
@_load("--trace", metavar="FILE", help="Replay Mooncake's .jsonl or BurstGPT's .csv.")
@_load("--trace-speed", type=float, metavar="X", help="2 replays it in half its time.  [default: 1]")
@_load("--think-time", metavar="2s", help="Users pause so, or 'exponential 2s', after answers.")
@_load("--warmup", type=int, metavar="N", help="Unmeasured requests.  [default: as many as streams]")
@_load("--repeat", type=int, metavar="K", help="Measure each level K times, in turns.")
@_load("--until", callback=share, metavar="5%", help="Repeat until means of runs are known so well.")
@_load("--repeat-first/--no-repeat-first", default=None, help="The first level again at the end.  [default: do]")
@_load("--arrivals", type=click.Choice(["poisson", "constant"]), metavar="KIND", help="Open loop: poisson or constant.")
@_load(
    "--retries",
    callback=tries,
    metavar="N",
    help="New requests after a failed one, marked.  [default: 0]",
    workshop="RETRY_ON_FAIL",
)
@_load(
    "--retry-backoff",
    callback=duration,
    metavar="1s",
    help="Wait before a retry; doubles with each.",
    workshop="RETRY_BACKOFF",
)
@_load("--max-failed", callback=share, metavar="20%", help="Skip higher loads once so many requests fail.")
@_load("--max-streams", type=int, metavar="N", help="Open loop: most at once; more are dropped, counted.")
@_prompts("--max-tokens", type=int, metavar="N", help="Most tokens of an answer.", workshop="BENCH_MAX_TOKENS")
@_prompts("--prompt", "texts", multiple=True, type=TEXT, metavar="TEXT", help="Ask this.", workshop="BENCH_PROMPT")
@_prompts("--prompts", "prompts_file", metavar="FILE", help="Ask these: .json, .jsonl or .txt.")
@_prompts("--turns", type=int, metavar="N", help="Most turns of a conversation.  [default: all]")
@_prompts("--input-length", metavar="TEXT", help="Make prompts up, as 'tokens normal 512 128'.")
@_prompts("--output-length", metavar="TEXT", help="Draw max_tokens, as 'uniform 16 256'.")
@_prompts("--shared-prefix", callback=share, metavar="50%", help="Of made-up prompts, what all have in common.")
@_prompts("--output-exact/--output-free", default=None, help="Answers as long as allowed, if the server can.")
@_prompts("--system", metavar="TEXT", help="System message.")
@_prompts("--temperature", type=float, metavar="T", help="0 for answers that repeat.", workshop="BENCH_TEMPERATURE")
@_prompts("--distinct-prompts/--fixed-prompts", default=None, help="Unique prefixes, so that no cache answers.")
@_prompts("--extra-body", metavar="JSON", help="More keys to send, as '{\"ignore_eos\": true}'.")
@_prompts("--stream/--no-stream", default=None, help="Ask for a stream or for whole answers.", workshop="BENCH_STREAM")
@_prompts("--seed", type=int, metavar="N", help="Of the order of prompts and the arrivals.")
@_plan("--slo", multiple=True, type=LIST, metavar="BOUND", help="As ttft_p95=500ms; repeat for several.")
@_plan("--fail-if", multiple=True, type=LIST, metavar="'M > X'", help="Exit 3 then, as 'ttft_p95 > 800ms' (see below).")
@_plan("--strict", **_FLAG, help="Exit 3 on red gates and unknown thresholds too.")
@_plan("--dry-run", **_FLAG, help="Show the plan and stop.")
@_plan("--budget", callback=duration, metavar="5m", help="Shorten the plan to fit this time.")
@_plan("--resume", variable=False, type=click.Path(path_type=Path), metavar="DIR", help="Continue this folder's run.")
@_machine("--cold/--as-found", default=None, help="Unload and load each model first: load time, memory, cold request.")
@_machine("--idle-gap", callback=duration, metavar="60s", help="Time a request after such a pause, per model.")
@_machine("--keep-warm", callback=duration, metavar="20s", help="And again with a ping this often in the pause.")
@_machine("--telemetry/--no-telemetry", default=True, help="Sample the server each second.  [default: do]")
@_machine("--price-per-kwh", type=float, metavar="PRICE", help="Of electricity, in your currency.")
@_machine("--watts", "declared_watts", type=float, metavar="W", help="Server's draw, where it cannot be measured.")
@_output(
    *("-o", "--output"),
    variable=False,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The run's folder.  [default: results/...]",
)
@_output("--name", metavar="NAME", help="Names the run.")
@_output(
    "--junit",
    variable=False,
    type=click.Path(path_type=Path, dir_okay=False),
    callback=file_of_end,
    metavar="FILE",
    help="JUnit XML for CI, too.",
)
@_output("--json", "as_json", **_FLAG, help="JSON lines on stdout, the summary last.")
@_output("-q", "--quiet", **_FLAG, help="Print errors alone.")
@_output("--no-progress", **_FLAG, help="No live view.")
@_output("--answers/--no-answers", default=True, help="Keep the answers' texts.  [default: keep]")
@_more(
    "--stamps",
    type=click.Choice(["kernel", "user"]),
    metavar="WHERE",
    help="Stamp arrivals: kernel or user.  [default: best]",
)
@click.pass_context
def run(ctx: click.Context, /, **given: Any) -> None:
    """Measure models at several loads.

    Without SCENARIO and options it measures 1, 2, 4 and 8 streams on the server that is found: FOUNDRY_LOCAL_ENDPOINT,
    else a Foundry Local service, else the embedded model. Records, summary and report go to a folder in results/.
    """
    from loadbench.cli import against, measure
    from loadbench.cli.pair import folders

    if given["resume"] is None:
        wanted = scenario_of(ctx, given)
        ctx.exit(measure.measure(wanted, given) if wanted.against is None else against.against(wanted, given))
    if both := folders(given["resume"]):
        sides = [given | {"resume": folder} for folder in both]
        ctx.exit(against.again(given["resume"], [resumed(ctx, side) for side in sides], sides))
    ctx.exit(measure.measure(resumed(ctx, given), given))


NOT_STORED = "(not stored)"
"""Stands in run.json for the value of a header that may be secret."""
_BESIDE_RESUME = {
    *("resume", "json", "as_json", "quiet", "no_progress", "wait_for", "headers", "insecure", "ca_file"),
    *("strict", "junit"),
}


LOADS = ("concurrency", "request_rate", "shape", "trace")
"""Options that say when requests start, of which one is given."""
WORKLOAD = (
    *("trace", "trace_speed", "think_time", "turns", "input_length", "output_length", "shared_prefix"),
    "output_exact",
)


def resumed(ctx: click.Context, given: dict[str, Any]) -> Scenario:
    """The scenario of the run that is continued, its models and budget as they were; options against it are refused."""
    from loadbench import scenario as scenarios
    from loadbench.errors import UsageError
    from loadbench.store import read_info

    source = click.core.ParameterSource
    for name in given:
        if name not in _BESIDE_RESUME and ctx.get_parameter_source(name) == source.COMMANDLINE:
            option = next(param for param in ctx.command.params if param.name == name)
            what = option.human_readable_name if isinstance(option, click.Argument) else option.opts[0]
            raise UsageError(f"--resume takes its plan from the folder: leave out {what}")
    info = read_info(given["resume"])
    if (wrote := "run" if info.get("capacity") is None else "capacity") != ctx.command.name:
        raise UsageError(f"{given['resume']}: continue it with loadbench {wrote} --resume, which began it")
    if not isinstance(info.get("scenario"), dict):
        raise UsageError(f"{given['resume']}: its run.json holds no scenario to continue")
    scenario = scenarios.from_json(info["scenario"], str(given["resume"] / "run.json"))
    headers = header_lines(given["headers"])
    again = {name.lower() for name in headers or ()}
    for name, value in scenario.headers.items():
        if value == NOT_STORED and name.lower() not in again:
            raise UsageError(
                f"{given['resume']}: sent a header {name}, whose value is not stored: give it with --header"
            )
    for name in [name for name in scenario.headers if name.lower() in again]:
        del scenario.headers[name]
    budget_s = info.get("budget_s")
    given["budget"] = budget_s if isinstance(budget_s, int | float) else None
    models = None
    if scenario.models == "auto" and isinstance(facts := info.get("target"), dict):
        models = [one["id"] for one in facts.get("models") or () if isinstance(one, dict) and "id" in one]
    return scenarios.merge(scenario, headers=headers, models=models or None)


def scenario_of(ctx: click.Context, given: dict[str, Any]) -> Scenario:
    """The scenario file, or an empty one, with what flags and environment say."""
    from loadbench import scenario as scenarios
    from loadbench.errors import ScenarioError, UsageError

    _flags_first(ctx, given)
    if given["simulate"] and given["endpoint"] is not None and _from_flag(ctx, "endpoint"):
        raise UsageError("--simulate and -e are both given: keep one")
    if given["concurrency"] is not None and given["request_rate"] is not None:
        raise UsageError("-c and -r are both given: a run is closed loop (-c) or open loop (-r)")
    if given["texts"] and given["prompts_file"]:
        raise UsageError("--prompt and --prompts are both given: keep one")
    loads = [name for name in LOADS if given.get(name)]
    if len(loads) > 1:
        one, other = (next(param.opts[0] for param in ctx.command.params if param.name == name) for name in loads[:2])
        raise UsageError(f"{one} and {other} are both given: keep one")
    path: Path | None = given["scenario_file"]
    scenario = scenarios.Scenario() if path is None else scenarios.read(path)
    if path is None and not loads:
        scenario = scenarios.merge(scenario, concurrency=[1, 2, 4, 8])
    overrides = {
        name: given[name]
        for name in (
            *("endpoint", "concurrency", "request_rate", "arrivals", "requests", "duration", "warmup", "max_tokens"),
            *(
                "temperature",
                "system",
                "distinct_prompts",
                "repeat",
                "until",
                "repeat_first",
                "seed",
                "max_streams",
                "api_key_env",
                "name",
            ),
            *("execution_provider", "stream", "retries", "retry_backoff", "max_failed", "cold", "idle_gap"),
            *("keep_warm", "price_per_kwh", "declared_watts"),
        )
    }
    overrides |= {name: given.get(name) for name in WORKLOAD}
    models, others = (
        [name.strip() for part in parts or () for name in part.split(",") if name.strip()]
        for parts in (given["models"], given.get("against_model"))
    )
    if given["models"] and not models:
        raise UsageError("-m is empty: name a model, or leave it out for those that the server has loaded")
    models = models or _workshop_models()
    try:
        return scenarios.merge(
            scenario,
            **overrides,
            models="auto" if models == ["auto"] else models or None,
            against=given.get("against"),
            against_model=others or None,
            device=given["devices"],
            prompts=list(given["texts"] or ()) or given["prompts_file"],
            shape=list(given.get("shape") or ()) or None,
            slo=list(given["slo"]) or None,
            fail_if=list(given.get("fail_if") or ()) or None,
            extra_body=_extra_body(given["extra_body"]),
            headers=header_lines(given["headers"]),
        )
    except ScenarioError as error:
        raise ScenarioError(_blamed(ctx, str(error))) from None


_INSTEAD = (LOADS, ("requests", "duration"), ("texts", "prompts_file", "input_length"), ("trace", "input_length"))


def _flags_first(ctx: click.Context, given: dict[str, Any]) -> None:
    """Drop what a variable says where a flag says another of those that replace each other."""
    for names in _INSTEAD:
        if any(_from_flag(ctx, name) for name in names):
            given.update({name: None for name in names if name in given and not _from_flag(ctx, name)})


def _from_flag(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE


_FIELDS = {"texts": "prompts", "prompts_file": "prompts", "devices": "device"}


def _blamed(ctx: click.Context, message: str) -> str:
    """A message on the merged options, with the flag or the variable that gave the value named first."""
    from loadbench.cli import variable

    field = re.match(r"options: (\w+)", message)
    for param in ctx.command.params:
        name = param.name or ""
        if field is not None and _FIELDS.get(name, name) == field[1]:
            if _from_flag(ctx, name):
                return message.replace("options", param.opts[0], 1)
            if (found := variable(ctx, param)) is not None:
                return message.replace("options", found, 1)
    return message


def _workshop_models() -> list[str]:
    import os

    text = os.environ.get("BENCH_MODELS", "")
    return [] if text.strip().lower() in ("", "auto", "all") else [name for name in text.split(",") if name.strip()]


def _extra_body(text: str | None) -> dict[str, Any] | None:
    import json

    from loadbench.errors import UsageError

    if text is None:
        return None
    try:
        body = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--extra-body {text!r} is no JSON: {error}") from None
    if not isinstance(body, dict):
        raise UsageError(f"--extra-body {text!r}: must be a JSON object, as '{{\"ignore_eos\": true}}'")
    return body
