"""What loadbench itself costs, beside the limit and stock clients on the same load, and whether it keeps its budgets.

    make bench-client                            all loads, about twelve minutes
    make bench-client ARGS=--quick               a look, about 40 s
    make bench-client ARGS="--streams 512 --clients limit,loadbench-thread --repeat 3"
    make bench-client ARGS="--install --report"             what takes long
    make bench-client ARGS=--scale                          up to 10,000 slow streams, about nine minutes

Each client is a process of its own and asks a simulator (first token 50 ms, then one each 10 ms), which says what it
really did: every figure stands beside that truth. What a token costs is a multiple of what it costs the limit, a reader
in C that keeps nothing: microseconds differ from machine to machine. Clients take turns. Nothing here is a test: on a
shared machine timings vary, so look at the line about the machine, and at the column of other work, and run it again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # a checkout needs no installed loadbench

from bench import commands, loads, machine, scale
from bench.loads import Figures, Load
from bench.table import aligned, number, off

STREAMS = (1, 64, 512, 2000, 5000, 10_000)
GAPS_MS = {10_000: 1000.0, 2000: 40.0, 0: 10.0}
"""By the number of streams from which on it holds, so that the simulator keeps up."""
SLOW_TOKENS = 20
"""Of an answer at gaps of a second."""
BUDGET_STREAMS = 512
WITHIN = 0.01
RATIOS = {"loadbench-thread": 1.8, "loadbench-kernel": 2.5}
"""CPU per token over the limit's, at most."""
REQUESTS = Load(64, 157, 1, ttft_ms=1.0)
"""Of one token each: what a request costs beside its tokens."""
CLIENTS = (loads.LIMIT, *loads.OURS, *loads.PEERS)
QUIET_CORES = 0.2
"""More CPU than this taken by others makes a run's figures doubtful."""
SUMMARISED = 100_000
"""Requests whose summary is timed beside the commands."""


@dataclass(frozen=True, slots=True)
class Budget:
    """A budget: a figure that may be at most so much, or is to be at least so much."""

    name: str
    figure: float | None
    limit: float
    unit: str
    note: str = ""
    least: bool = False

    @property
    def verdict(self) -> str:
        """ok, over or under, or - where there is no figure."""
        if self.figure is None:
            return "-"
        if self.least:
            return "ok" if self.figure >= self.limit else "under"
        return "ok" if self.figure <= self.limit else "over"


def load(streams: int, seconds: float, tokens: int, *, held: bool = False) -> Load:
    """A load of so many streams that lasts so long by the law; two rounds at least, as the second restarts them all."""
    gap_ms = next(gap_ms for least, gap_ms in GAPS_MS.items() if streams >= least)
    one = Load(streams, 1, min(tokens, SLOW_TOKENS) if gap_ms >= 1000 else tokens, itl_ms=gap_ms, held=held)
    return replace(one, rounds=max(2, round(seconds / one.lasts_s)))


def budgets(found: Sequence[Figures]) -> list[Budget]:
    """The budgets that these figures can be held against: of each wire, or of the best one here."""
    rows: list[Budget] = []
    limit = next((each for each in found if each.client == loads.LIMIT and _is_budget_load(each.load)), None)
    for each in found:
        if limit is not None and _is_budget_load(each.load) and each.client in RATIOS:
            ratio = each.cpu_us_per_token / limit.cpu_us_per_token
            name = f"CPU per token over the limit's, {each.client}, {BUDGET_STREAMS} streams"
            rows.append(Budget(name, ratio, RATIOS[each.client], "", _disturbed(each)))
    for each in _best(found):
        streams = each.load.streams
        if each.load == REQUESTS:
            per_s = each.requests / each.tokens * each.tokens_per_s
            rows.append(Budget("requests of one token, 64 streams", per_s, 5000, "/s", _disturbed(each), least=True))
            rows.append(Budget("CPU of a request of one token", each.cpu_us_per_token, 80, "us", _disturbed(each)))
        elif streams == BUDGET_STREAMS:
            where = f"at {streams} streams{', held up' if each.load.held else ''}"
            for name in loads.COMPARED:
                error = each.error(name)
                percent = None if error is None else abs(error) * 100
                note = _disturbed(each)
                rows.append(Budget(f"{_title(name)} {where}: off the truth", percent, WITHIN * 100, "%", note))
            rows.append(Budget(f"peak resident memory {where}", each.peak_rss_mb, 100.0, "MB"))
        elif streams > BUDGET_STREAMS:
            note = f"{each.tokens_per_s:,.0f} tokens/s; {each.v3 or 'V3 is green'}"
            rows.append(Budget(f"{streams} streams in one process: V3's doubts", float(bool(each.v3)), 0, "", note))
    return rows


def _is_budget_load(load: Load) -> bool:
    return load.streams == BUDGET_STREAMS and not load.held


def _best(found: Sequence[Figures]) -> list[Figures]:
    """Of each load, loadbench by the wire that it takes by itself."""
    best: dict[Load, Figures] = {}
    for client in loads.OURS:
        for each in found:
            if each.client == client:
                best.setdefault(each.load, each)
    return list(best.values())


def _disturbed(each: Figures) -> str:
    busy = each.others_cores + each.steal_cores
    return f"disturbed: other work took {busy:.1f} cores" if busy > QUIET_CORES else ""


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
    *("tokens/s", "CPU us/token", "over limit", "RSS MB", "merged", "lag p99", "others", "stolen"),
)


def table(rows: Sequence[Figures]) -> str:
    """One load's clients, one a line, above them the truth of the first run that keeps times."""
    timed = next((row for row in rows if row.client != loads.LIMIT), rows[0])
    cells = [HEAD, ("truth", *_truth(timed), f"{timed.load.tokens_per_s:,.0f}", *[""] * 7)]
    base = next((row.cpu_us_per_token for row in rows if row.client == loads.LIMIT), None)
    for row in rows:
        compared = [cell for name in loads.COMPARED for cell in (number(row.ms[name]), off(row.error(name)))]
        cells.append(
            (
                row.client + ("" if not row.failed else f" ({row.failed} failed)"),
                *compared,
                f"{row.tokens_per_s:,.0f}",
                f"{row.cpu_us_per_token:.1f}",
                number(row.cpu_us_per_token / base) if base else "-",
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
    cells = [("budget", "figure", "budget", "", "")]
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
    parser.add_argument("--quick", action="store_true", help="about 40 s in all: fewer loads, fewer requests")
    parser.add_argument("--streams", help=f"loads, as 1,64 (default {','.join(map(str, STREAMS))}; quick: 64,512)")
    parser.add_argument("--clients", help=f"of {', '.join(CLIENTS)} (default: all)")
    parser.add_argument("--held", action="store_true", help="hold up the clients' interpreters 50 ms of each second")
    parser.add_argument("--beside", type=int, default=0, metavar="N", help="processes that never wait, beside them all")
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
    if given.streams or quick:
        numbers = [int(n) for n in (given.streams or "64,512").split(",")]
        given.loads = [load(n, given.seconds, given.tokens, held=given.held) for n in numbers]
    else:
        given.loads = [load(n, given.seconds, given.tokens) for n in STREAMS]
        given.loads += [load(BUDGET_STREAMS, given.seconds, given.tokens, held=True), REQUESTS]
    names = given.clients.split(",") if given.clients else list(CLIENTS)
    if unknown := [name for name in names if name not in CLIENTS]:
        parser.error(f"no client is called {unknown[0]}: there are {', '.join(CLIENTS)}")
    given.clients = names
    return given


def measured(given: argparse.Namespace) -> list[Figures]:
    """Every client under every load, printed load by load."""
    found: list[Figures] = []
    why = {client: loads.missing(client) for client in given.clients}
    for client in given.clients:
        if why[client]:
            print(f"{client}: left out, {why[client]}")
    for each in given.loads:
        clients = [client for client in given.clients if not why[client] and _can(client, each, quick=given.quick)]
        held = ", interpreters held up 50 ms of each second" if each.held else ""
        print(
            f"\n{each.streams} streams, first token {each.ttft_ms:g} ms, gap {each.itl_ms:g} ms, {each.tokens} tokens, "
            f"{each.requests} requests{held}"
        )
        runs: dict[str, list[Figures]] = {client: [] for client in clients}
        with machine.crowded(given.beside):
            for _ in range(given.repeat):
                for client in clients:
                    runs[client].append(loads.run(client, each))
        rows = list(map(middle, runs.values()))
        print(table(rows), flush=True)
        found += rows
    return found


def _can(client: str, each: Load, *, quick: bool) -> bool:
    """Whether there is something to see: stock httpx falls behind at some hundreds of streams, and takes a minute."""
    if client == loads.LIMIT:
        return not each.held
    return not client.startswith("httpx") or each.streams <= (100 if quick else BUDGET_STREAMS)


def scaled(given: argparse.Namespace) -> int:
    """What slow streams cost, printed as they end."""
    client = next(client for client in loads.OURS if client in given.clients and not loads.missing(client))
    base_mb = loads.run(client, Load(1, 4, 20)).peak_rss_mb
    wanted = {rate: numbers[:1] for rate, numbers in scale.STREAMS.items()} if given.quick else scale.STREAMS
    rows = []
    for row in scale.measured(client, wanted):
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
