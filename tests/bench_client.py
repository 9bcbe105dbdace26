"""What loadbench itself costs, beside stock clients on the same load, and whether it keeps its budgets.

    make bench-client                            all loads, about six minutes
    make bench-client ARGS=--quick               a look, about 20 s
    make bench-client ARGS="--streams 512 --clients loadbench,aiohttp --repeat 3"
    make bench-client ARGS="--install --report"             what takes long
    make bench-client ARGS=--scale                          up to 10,000 slow streams, about nine minutes

Each client is a process of its own and asks a simulator (first token 50 ms, then one each 10 ms), which says what it
really did: every figure stands beside that truth. Nothing here is a test: on a shared machine timings vary, so look at
the line about the machine, and at the column of other work, and run it again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # a checkout needs no installed loadbench

from bench import commands, loads, machine, scale
from bench.loads import Figures, Load
from bench.table import aligned, number, off

STREAMS = (1, 64, 512, 2000)
CROWD = 2000
"""From so many streams on the gap is CROWD_ITL_MS, so that the simulator keeps up."""
CROWD_ITL_MS = 40.0
BUDGET_STREAMS = 512
WITHIN = 0.01
QUIET_CORES = 0.2
"""More CPU than this taken by others makes a run's figures doubtful."""
SUMMARISED = 100_000
"""Requests whose summary is timed beside the commands."""


@dataclass(frozen=True, slots=True)
class Budget:
    """A budget: a figure that may be at most so much."""

    name: str
    figure: float | None
    limit: float
    unit: str
    note: str = ""

    @property
    def verdict(self) -> str:
        """ok, over, or - where there is no figure."""
        return "-" if self.figure is None else "ok" if self.figure <= self.limit else "over"


def load(streams: int, seconds: float, tokens: int) -> Load:
    """A load of so many streams that lasts so long by the law; two rounds at least, as the second restarts them all."""
    itl_ms = CROWD_ITL_MS if streams >= CROWD else 10.0
    one = Load(streams, 1, tokens, itl_ms=itl_ms)
    return replace(one, rounds=max(2, round(seconds / one.lasts_s)))


def budgets(found: Iterable[Figures]) -> list[Budget]:
    """The budgets that these figures of loadbench can be held against."""
    ours = {figures.load.streams: figures for figures in found if figures.client == "loadbench"}
    rows: list[Budget] = []
    at = ours.get(BUDGET_STREAMS)
    if at is not None:
        where = f"at {BUDGET_STREAMS} streams"
        busy = at.others_cores + at.steal_cores
        disturbed = f"disturbed: other work took {busy:.1f} cores" if busy > QUIET_CORES else ""
        rows.append(Budget(f"CPU per token {where}", at.cpu_us_per_token, 10.0, "us", disturbed or "aim 6"))
        for name in loads.COMPARED:
            error = at.error(name)
            percent = None if error is None else abs(error) * 100
            rows.append(Budget(f"{_title(name)} {where}: off the truth", percent, WITHIN * 100, "%", disturbed))
        rows.append(Budget(f"peak resident memory {where}", at.peak_rss_mb, 90.0, "MB"))
    crowd = next((figures for streams, figures in ours.items() if streams >= CROWD), None)
    if crowd is not None:
        note = f"{crowd.tokens_per_s:,.0f} tokens/s; {crowd.v3 or 'V3 is green'}"
        rows.append(
            Budget(f"{crowd.load.streams} streams in one process: V3's doubts", float(bool(crowd.v3)), 0, "", note)
        )
    return rows


def command_budgets(times: int, streams: Sequence[int]) -> list[Budget]:
    """What the commands take, in the median."""
    steps = commands.between_levels_s(streams)
    shown = ", ".join(
        f"{before} to {after}: {1000 * step:.0f} ms"
        for (before, after), step in zip(pairwise(streams), steps, strict=True)
    )
    return [
        Budget("loadbench --help", commands.help_s(times), 0.2, "s"),
        Budget("command to first request", commands.first_request_s(times), 0.5, "s"),
        Budget("from one level to the next", max(steps), 0.1, "s", shown),
        summary_budget(SUMMARISED),
    ]


def summary_budget(requests: int) -> Budget:
    """What it takes to summarise a run, with all its intervals, on one core."""
    read_s, summarised_s = commands.summary_of(requests)
    name = f"summary of {requests:,} requests, {commands.GAPS} gaps each"
    return Budget(name, read_s + summarised_s, 3.0, "s", f"{read_s:.2f} s of it to read the folder")


def middle(runs: Sequence[Figures]) -> Figures:
    """The run whose CPU per token is the median: its figures belong together."""
    return sorted(runs, key=lambda figures: figures.cpu_us_per_token)[(len(runs) - 1) // 2]


HEAD = (
    *("client", "TTFT p50", "off", "TTFT p99", "off", "gap p99", "off", "gap p99.9", "off"),
    *("tokens/s", "CPU us/token", "RSS MB", "merged", "lag p99", "others", "stolen"),
)


def table(rows: Sequence[Figures]) -> str:
    """One load's clients, one a line, the truth of loadbench's run above them."""
    first = rows[0]
    cells = [HEAD, ("truth", *_truth(first), f"{first.load.tokens_per_s:,.0f}", *[""] * 6)]
    base = next((row.cpu_us_per_token for row in rows if row.client == "loadbench"), None)
    for row in rows:
        times = "" if not base or row.client == "loadbench" else f" ({row.cpu_us_per_token / base:.1f}x)"
        compared = [cell for name in loads.COMPARED for cell in (number(row.ms[name]), off(row.error(name)))]
        cells.append(
            (
                row.client + ("" if not row.failed else f" ({row.failed} failed)"),
                *compared,
                f"{row.tokens_per_s:,.0f}",
                f"{row.cpu_us_per_token:.1f}{times}",
                number(row.peak_rss_mb, 0),
                "-" if row.merged_share is None else f"{100 * row.merged_share:.3g} %",
                number(row.lag_p99_ms),
                f"{row.others_cores:.2f}",
                f"{row.steal_cores:.2f}",
            )
        )
    return aligned(cells)


def _truth(row: Figures) -> list[str]:
    return [cell for name in loads.COMPARED for cell in (number(row.truth_ms[name]), "")]


def _title(name: str) -> str:
    metric, _, p = name.partition("_")
    return f"{'TTFT' if metric == 'ttft' else metric} {p.replace('p999', 'p99.9')}"


def verdicts(rows: Sequence[Budget], *, colour: bool) -> str:
    """The budgets, one a line."""
    cells = [("budget", "figure", "at most", "", "")]
    for row in rows:
        unit = f" {row.unit}" if row.unit else ""
        figure = "-" if row.figure is None else f"{row.figure:.3g}{unit}"
        cells.append((row.name, figure, f"{row.limit:g}{unit}", row.verdict, ""))
    lines = aligned(cells).splitlines()
    painted = [
        line
        if not colour or row is None
        else line.replace(row.verdict, f"\033[3{2 if row.verdict == 'ok' else 1}m{row.verdict}\033[0m")
        for line, row in zip(lines, [None, *rows], strict=True)
    ]
    return "\n".join(
        f"{line}  {row.note}" if row and row.note else line for line, row in zip(painted, [None, *rows], strict=True)
    )


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="bench_client"
    )
    parser.add_argument("--quick", action="store_true", help="about 20 s in all: fewer loads, fewer requests")
    parser.add_argument("--streams", help=f"loads, as 1,64 (default {','.join(map(str, STREAMS))}; quick: 64,512)")
    parser.add_argument("--clients", help=f"of {', '.join((*loads.OURS, *loads.PEERS))} (default: all)")
    parser.add_argument("--seconds", type=float, help="length of each load by the law (default 10; quick: 2)")
    parser.add_argument("--tokens", type=int, default=100, help="of each answer (default 100)")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each client; shown is the median by CPU")
    parser.add_argument("--commands", type=int, help="runs of each timed command, 0 for none (default 5; quick: 3)")
    parser.add_argument("--install", action="store_true", help="count packages and MB of a new base install")
    parser.add_argument("--report", action="store_true", help="time the report of a million requests")
    parser.add_argument("--report-requests", type=int, default=1_000_000, help=argparse.SUPPRESS)
    parser.add_argument("--scale", action="store_true", help="slow streams, up to 10,000, and nothing else")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    given = parser.parse_args(argv)
    quick = given.quick
    given.seconds = given.seconds or (2.0 if quick else 10.0)
    given.commands = (3 if quick else 5) if given.commands is None else given.commands
    given.streams = [int(n) for n in (given.streams or ("64,512" if quick else ",".join(map(str, STREAMS)))).split(",")]
    names = given.clients.split(",") if given.clients else [*loads.OURS, *loads.PEERS]
    if unknown := [name for name in names if name not in (*loads.OURS, *loads.PEERS)]:
        parser.error(f"no client is called {unknown[0]}: there are {', '.join((*loads.OURS, *loads.PEERS))}")
    given.clients = names
    return given


def measured(given: argparse.Namespace) -> list[Figures]:
    """Every client under every load, printed load by load."""
    found: list[Figures] = []
    clients = [client for client in given.clients if loads.installed(client)]
    for missing in sorted(set(given.clients) - set(clients)):
        print(f"{missing}: is not installed, left out")
    for streams in given.streams:
        each = load(streams, given.seconds, given.tokens)
        print(
            f"\n{streams} streams, first token {each.ttft_ms:g} ms, gap {each.itl_ms:g} ms, {each.tokens} tokens, "
            f"{each.requests} requests"
        )
        rows = []
        for client in clients:
            if given.quick and client.startswith("httpx") and streams > 100:
                continue  # 15 s each
            if client == "httpx-raw" and streams > BUDGET_STREAMS:
                continue  # a minute, and it says what httpx says
            rows.append(middle([loads.run(client, each) for _ in range(given.repeat)]))
        print(table(rows), flush=True)
        found += rows
    return found


def scaled(given: argparse.Namespace) -> int:
    """What slow streams cost, printed as they end."""
    base_mb = loads.run("loadbench", Load(1, 4, 20)).peak_rss_mb
    wanted = {rate: numbers[:1] for rate, numbers in scale.STREAMS.items()} if given.quick else scale.STREAMS
    rows = []
    for row in scale.measured(wanted):
        rows.append(row)
        print(f"{row.figures.load.streams} streams of {row.rate_per_s} tokens/s: {row.cores:.2f} cores", flush=True)
    print(f"\nlag, TTFT and gap in ms; a single stream takes {number(base_mb, 0)} MB\n{scale.table(rows, base_mb)}")
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; 0 whatever the verdicts, as they depend on the machine."""
    given = options(argv)
    began_s = time.perf_counter()
    seen = machine.idle_view(0.3 if given.quick else 1.0)
    print(f"{seen}\nms unless a unit is named; off: from the simulator's truth; others: cores that neither used.")
    if given.scale:
        return scaled(given)
    found = measured(given)
    rows = budgets(found)
    if given.commands:
        rows += command_budgets(given.commands, (1, 8, 64) if given.quick else (1, 8, 64, 512))
    if given.install:
        packages, size_mb = commands.install()
        rows += [Budget("base install", packages, 30, "packages"), Budget("base install", size_mb, 130, "MB")]
    if given.report:
        took_s, peak_mb = commands.report_of(given.report_requests)
        name = f"report of {given.report_requests:,} requests"
        rows += [Budget(name, took_s, 20, "s"), Budget(name, peak_mb, 1000, "MB")]
    if rows:
        print("\n" + verdicts(rows, colour=sys.stdout.isatty()))
    print(f"\ntook {time.perf_counter() - began_s:.0f} s; timings on a shared machine are noisy: run it again")
    if given.json:
        figures = [asdict(row) | {"error": {name: row.error(name) for name in loads.COMPARED}} for row in found]
        report: dict[str, Any] = {
            "machine": seen,
            "cores": os.cpu_count(),
            "figures": figures,
            "budgets": [asdict(row) | {"verdict": row.verdict} for row in rows],
        }
        given.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
