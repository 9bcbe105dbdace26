"""`loadbench capacity`: the highest load that meets an SLO."""

from __future__ import annotations

from typing import Any

import click

from loadbench.cli.options import LIST, Headed, HeadedCommand, duration, scenario_file, share, under
from loadbench.cli.run import run
from loadbench.cli.wanted import resumed, scenario_of

EPILOG = """\b
Examples:
  loadbench capacity --slo ttft_p95=800ms --slo itl_p99=100ms
  loadbench capacity -e http://gpu-box:8000 --slo ttft_p95=2s --budget 20m
  loadbench capacity --slo e2e_p95=10s --by rate --from 0.5
  loadbench capacity scenarios/chat.toml --slo success=99% --max 64

\b
A share is met where its interval says so: 95 % takes 109 requests without a
miss, 99 % takes 568. By rate a probe takes 27 s at least, and 80 s to confirm
the answer: queues take time. What is neither surely met nor surely missed is
undecided. --budget ends with a bracket, as 8 to 16.

\b
Exit: 0 found, or a bracket where the budget ended; 1 target or machine
unusable; 2 arguments or files; 3 not even the lowest load surely meets the
SLO; 130 interrupted.
"""

_search = under("Search")


@click.command(cls=HeadedCommand, epilog=EPILOG)
@click.argument("scenario_file", metavar="[SCENARIO]", required=False, callback=scenario_file)
@_search("--slo", multiple=True, type=LIST, metavar="BOUND", help="To meet, as ttft_p95=500ms; repeat for several.")
@_search(
    "--by",
    type=click.Choice(["concurrency", "rate"]),
    default="concurrency",
    metavar="KIND",
    help="Search for a concurrency or a rate.  [default: concurrency]",
)
@_search("--from", "start", type=float, default=1.0, metavar="N", help="First load: streams, or requests/s.")
@_search("--max", "most", type=float, default=1000.0, metavar="N", help="Highest load.  [default: 1000]")
@_search("--within", callback=share, default="5%", metavar="5%", help="How near a load that fails must be.")
@_search("--budget", callback=duration, metavar="10m", help="End after this time, with a bracket.")
@_search(
    "-n",
    "--requests",
    type=int,
    metavar="N",
    help="Most requests of a probe; by rate 27 s of them at least.  [default: as the SLO needs]",
)
@_search(
    "-d",
    "--duration",
    callback=duration,
    metavar="60s",
    help="Longest measured time of a probe; by rate at least what it needs.",
)
@click.pass_context
def capacity(ctx: click.Context, /, **given: Any) -> None:
    """Find the highest concurrency, or request rate, that meets an SLO.

    It doubles the load until the SLO fails, bisects between, and measures the answer once more. Each load is measured
    until an interval of the share of requests that meet each bound decides, or no longer can. The answer is up to where
    the SLO is met, from where on it is missed, what is undecided between, and an estimate from all probes together.
    All steps go to a run folder, as `loadbench run` writes it.
    """
    from loadbench.cli import measure, searching

    given = dict.fromkeys(param.name or "" for param in run.params) | given
    if given["resume"] is not None:
        asked = resumed(ctx, given)
        course = searching.again(given["resume"], asked, given["budget"])
    else:
        loads = searching.grid(given)
        given["concurrency" if loads.by == "concurrency" else "request_rate"] = [loads.start]
        asked = scenario_of(ctx, given)
        course = searching.course(asked, loads, given["budget"])
    ctx.exit(measure.measure(asked, given, course))


_OTHERS = {
    "against",
    "against_model",
    "max_failed",
    "idle_gap",
    "keep_warm",
    "fail_if",
    "strict",
    "junit",
    *(param.name for param in capacity.params),
}
_OF_LOAD = {"warmup", "arrivals", "retries", "retry_backoff", "max_streams", "workers", "cluster"}
# Options that mean the same as in `run` are the same; of those under Load only some say how a given load is offered.
capacity.params += [
    param
    for param in run.params
    if isinstance(param, Headed) and param.name not in _OTHERS and (param.heading != "Load" or param.name in _OF_LOAD)
]
