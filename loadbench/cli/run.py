"""`loadbench run`: measure models at several loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
    scenario_file,
    share,
    tries,
    under,
    whole,
)
from loadbench.cli.wanted import resumed, scenario_of
from loadbench.cli.workers import number

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


_server, _load, _prompts = under("Server"), under("Load"), under("Prompts and answers")
_plan, _output, _more = under("Plan"), under("Output"), under(MORE)
_machine = under("Cold starts, memory, energy")
_FLAG: dict[str, Any] = {"is_flag": True, "variable": False}


@click.command(cls=HeadedCommand, epilog=EPILOG)
@click.argument("scenario_file", metavar="[SCENARIO]", required=False, callback=scenario_file)
@_server(
    *("-e", "--endpoint"),
    multiple=True,
    type=LIST,
    metavar="URL",
    help="With or without /v1; repeat it for replicas.  [default: what is found]",
)
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
@_server("--weights", callback=whole, metavar="3,1", help="Parts of the requests that replicas get.  [default: equal]")
@_server("--against", variable=False, metavar="URL", help="Measure this one too, in turns, and compare.")
@_server("--against-model", multiple=True, type=LIST, variable=False, metavar="MODEL", help="Its model, if it differs.")
@_server("--api-key-env", metavar="NAME", help="Environment variable that holds the key.")
@_server("--api-key-file", metavar="FILE", help="File with the key alone in it.")
@_server("--header", "headers", multiple=True, variable=False, metavar="'NAME: VALUE'", help="More HTTP headers.")
@_server("--ca-file", callback=certificates, metavar="FILE", help="Certificate authorities to trust (PEM).")
@_server("--insecure", is_flag=True, help="Accept any certificate.")
@_load("-c", "--concurrency", callback=whole, metavar="1,2,4", help="Closed loop: streams at once, a level each.")
@_load("-d", "--duration", callback=duration, metavar="30s", help="Measured time per level.")
@_load("-n", "--requests", type=int, metavar="N", help="Measured requests per level.", workshop="BENCH_ROUNDS")
@_load("-r", "--request-rate", callback=decimal, metavar="0.5,1", help="Open loop: requests/s, a level each.")
@_load("--shape", multiple=True, type=TEXT, metavar="TEXT", help="Open loop, as 'ramp 1..8 over 2m' (see below).")
@_load("--trace", metavar="FILE", help="Replay Mooncake's .jsonl, BurstGPT's or Azure's .csv.")
@_load("--trace-speed", type=float, metavar="X", help="2 replays it in half its time.  [default: 1]")
@_load("--think-time", metavar="2s", help="Users pause so, or 'exponential 2s', after answers.")
@_load("--workers", callback=number, metavar="N", help="Processes that share the load, or auto.")
@_load("--cluster", metavar="ADDRESS", help="Dask workers that share it: tcp://HOST:PORT, local:N.")
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
@_prompts("--prompts", "prompts_file", metavar="FILE", help="Ask these: .json, .jsonl, .csv, .txt …")
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
@_plan("-y", "--yes", is_flag=True, help="Do not ask before a large load on another machine.")
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
    else the one server that listens on this machine, else the embedded model. Records, summary and report go to a
    folder in results/.
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
