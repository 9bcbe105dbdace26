"""`loadbench capacity`: the highest load that meets an SLO."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from loadbench.cli.options import SettingsCommand, scenario_file
from loadbench.cli.run import LAYOUT, options

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


NARROWER = {
    "slo": ("BOUND", "To meet, as ttft_p95=500ms; repeat for several."),
    "budget": ("10m", "End after this time, with a bracket."),
    "requests": ("N", "Most requests of a probe; by rate 27 s of them at least.  [default: as the SLO needs]"),
    "duration": ("60s", "Longest measured time of a probe; by rate at least what it needs."),
}
"""What settings of `run` mean in a search."""
_SEARCH = ("slo", "by", "start", "most", "within", "budget", "requests", "duration")
_OF_LOAD = ("workers", "cluster", "warmup", "arrivals", "retries", "retry_backoff", "max_streams")
"""Settings that say how a given load is offered: the others say which, and that is searched for."""
_NOT = ("against", "against_model", "idle_gap", "keep_warm", "fail_if", "strict", "junit", *_SEARCH)


def layout() -> dict[str, Sequence[str]]:
    """Those of `run` that have a meaning in a search, behind its own."""
    found: dict[str, Sequence[str]] = {"Search": _SEARCH}
    for heading, names in LAYOUT.items():
        found[heading] = _OF_LOAD if heading == "Load" else [name for name in names if name not in _NOT]
    return found


@click.command(cls=SettingsCommand, options=lambda: options(layout(), NARROWER), epilog=EPILOG)
@click.argument("scenario_file", metavar="[SCENARIO]", required=False, callback=scenario_file)
@click.pass_context
def capacity(ctx: click.Context, /, **values: Any) -> None:
    """Find the highest concurrency, or request rate, that meets an SLO.

    It doubles the load until the SLO fails, bisects between, and measures the answer once more. Each load is measured
    until an interval of the share of requests that meet each bound decides, or no longer can. The answer is up to where
    the SLO is met, from where on it is missed, what is undecided between, and an estimate from all probes together.
    All steps go to a run folder, as `loadbench run` writes it.
    """
    from loadbench.cli.job import job_of, part
    from loadbench.cli.measured import Shown, carry_out
    from loadbench.runner.capacity import Grid
    from loadbench.runner.job import Search

    if values["resume"] is None:
        grid = Grid.of(part(Search, values))  # refused before anything else
        values["concurrency" if grid.by == "concurrency" else "request_rate"] = [grid.start]
    ctx.exit(carry_out(job_of(ctx, values), Shown.of(values)))
