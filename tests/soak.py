"""Soak: two runs of loadbench, side by side for half an hour, against a server that fails in every way it knows.

    make soak                              30 minutes
    make soak ARGS="--minutes 5"
    make soak ARGS="--seconds 20 --folder soak"      the run folders stay in soak/

One run is a closed loop of many levels, one an open loop of one long level. While they go on, their memory, files and
threads are looked at; at the end their records are counted, and beside the simulator's own count. Exit code 1 where
memory or files grew, or a record is missing.

How growth is judged: the first quarter of the time is left out, the rest is cut into thirds. A figure grew if the
median of the last third is more than 5 % above that of the second, and the slope of all three (Theil-Sen: the median of
the slopes between all pairs of looks, which single peaks do not move) would make as much of the time from the middle of
the second third to the middle of the last. Files and threads may grow by two on top, as connections come and go.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # a checkout needs no installed loadbench

import psutil
from bench import machine
from bench.loads import MODEL, ROOT
from bench.table import aligned

from loadbench.serve import simulator
from loadbench.serve.simulator import Law

FAULTS = {
    **{"429": 0.02, "500": 0.01, "503": 0.01, "cut": 0.02, "reset": 0.02, "drop": 0.02, "close": 0.02, "hang": 0.002},
    **{"stall": 0.02, "error_event": 0.01, "garbage": 0.01, "no_end": 0.01, "burst": 0.01, "empty": 0.01},
}
LAW = Law(ttft_ms=20, itl_ms=4, jitter=0.3, length=(4, 24), stall_ms=300, faults=FAULTS)
SCENARIO = """models = "{model}"
max_tokens = 32
retries = 1
retry_backoff = "50ms"
repeat_first = false
timeouts = {{ first_token = "2s" }}
{load}
"""
LEVEL_S = 10.0
STREAMS, RATE_PER_S = 16, 50
GROWN = 0.05
LEFT_OUT = 0.25
MOST_LOOKS = 600  # of the slope: pairs are many


@dataclass(frozen=True, slots=True)
class Look:
    """A look at a process: seconds since the start, resident and unique memory in MB, open files, threads."""

    at_s: float
    rss_mb: float
    uss_mb: float
    files: int
    threads: int


@dataclass(frozen=True, slots=True)
class Growth:
    """What became of a figure, after the warm-up: the medians of the second and the last third, and the slope."""

    name: str
    before: float
    after: float
    sloped: float
    allowed: float

    @property
    def grew(self) -> bool:
        return self.after - self.before > self.allowed and self.sloped > self.allowed


def growth(name: str, at_s: Sequence[float], values: Sequence[float], spare: float = 0.0) -> Growth:
    """Whether a figure grew; the module's head says how that is judged.

    Args:
        spare: What it may grow by on top of 5 %.
    """
    first = at_s[0] + LEFT_OUT * (at_s[-1] - at_s[0])
    looks = [(at, value) for at, value in zip(at_s, values, strict=True) if at >= first]
    third = len(looks) // 3
    if not third:
        raise ValueError(f"{len(values)} looks: too few to judge")
    before, after = (statistics.median(value for _, value in part) for part in (looks[third:-third], looks[-third:]))
    some = looks[:: -(-len(looks) // MOST_LOOKS)]
    slope_per_s = statistics.median((b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(some, 2) if b[0] > a[0])
    between_s = (looks[-1][0] - looks[0][0]) / 3
    return Growth(name, before, after, slope_per_s * between_s, GROWN * before + spare)


def growths(looks: Sequence[Look]) -> list[Growth]:
    """Of a process's figures."""
    spare = {"rss_mb": 0.0, "uss_mb": 0.0, "files": 2.0, "threads": 2.0}
    at_s = [look.at_s for look in looks]
    return [growth(name, at_s, [getattr(look, name) for look in looks], more) for name, more in spare.items()]


@dataclass(frozen=True, slots=True)
class Records:
    """What a run folder holds: requests sent, warm-up and probes among them, silent retries, and what is wrong."""

    requests: int
    retries: int
    completed: int
    errors: Mapping[str, int]
    wrong: Sequence[str]


def records(folder: Path) -> Records:
    """Every line of requests.jsonl, and whether the counts in summary.json are those of the lines."""
    lines: Counter[tuple[str, int]] = Counter()
    errors: Counter[str] = Counter()
    wrong: list[str] = []
    retries = completed = 0
    with (folder / "requests.jsonl").open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                record = json.loads(line)
                lines[record["level"], record["attempt"]] += 1
            except (ValueError, KeyError) as error:
                wrong.append(f"line {number} of requests.jsonl cannot be read: {error!r}")
                continue
            retries += record["retries"]
            completed += record["error"] is None
            if record["error"] is not None:
                errors[record["error"]] += 1
    info = json.loads((folder / "run.json").read_bytes())
    for level in json.loads((folder / "summary.json").read_bytes())["levels"]:
        name, attempted = level["id"], level["attempted"]
        if level["offered"] != level["dropped"] + attempted:
            wrong.append(f"{name}: {level['offered']} offered, {level['dropped']} dropped, {attempted} attempted")
        ended = level["completed"] + level["failed"] + level["cancelled"]
        if attempted != ended:
            wrong.append(f"{name}: {attempted} attempted, {ended} completed, failed or cancelled")
        if (found := lines[name, level["attempt"]]) != attempted + level["warmup_requests"]:
            wrong.append(f"{name}: {found} lines, but {attempted} attempted and {level['warmup_requests']} of warm-up")
    probes = sum(probe["requests"] for probe in info["probes"])
    return Records(lines.total() + probes, retries, completed, errors, wrong)


def counted(runs: Sequence[Records], truth: Mapping[str, Any]) -> str | None:
    """What does not fit between the records and the simulator's count; None where all does.

    A silent retry is one record of two requests, of which the server may have seen one: the connection was closing.
    """
    sent, again, seen = sum(run.requests for run in runs), sum(run.retries for run in runs), truth["requests"]
    if sent <= seen <= sent + again:
        return None
    return f"the records tell of {sent:,} requests and {again:,} silent retries, the simulator of {seen:,} requests"


@dataclass(slots=True)
class Run:
    """One `loadbench run`, in a process of its own."""

    name: str
    folder: Path
    process: psutil.Popen
    looks: list[Look]

    def look(self, at_s: float) -> None:
        """Take down what it holds now; nothing once it is over."""
        try:
            memory = self.process.memory_full_info()
            files = self.process.num_handles() if sys.platform == "win32" else self.process.num_fds()
            threads = self.process.num_threads()
        except (psutil.Error, OSError):
            return
        if memory.rss:  # a process that is over has none
            self.looks.append(Look(at_s, memory.rss / 1e6, memory.uss / 1e6, files, threads))


def started(name: str, load: str, url: str, folder: Path, stack: ExitStack) -> Run:
    """A run that goes on by itself."""
    folder.mkdir(parents=True)
    scenario = folder / "scenario.toml"
    scenario.write_text(SCENARIO.format(model=MODEL, load=load), encoding="utf-8")
    words = [sys.executable, "-m", "loadbench", "run", str(scenario), "-e", url, "-o", str(folder / "run"), "-q"]
    said = stack.enter_context((folder / "said.txt").open("wb"))
    process = psutil.Popen(words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    stack.callback(ended, process)
    return Run(name, folder / "run", process, [])


def ended(process: psutil.Popen) -> None:
    """See it end, also where this process was interrupted."""
    if process.poll() is None:
        process.terminate()
    process.wait()


def measured(run: Run) -> bool:
    """Whether it is at its levels: what it takes to start and to write its reports is no growth."""
    try:
        return bool(json.loads((run.folder / "run.json").read_bytes())["status"] == "running")
    except (OSError, ValueError):
        return False


def soak(seconds: float, folder: Path) -> int:
    """Run it all; the exit code."""
    print(machine.idle_view(0.5), flush=True)
    every_s = max(0.25, min(5.0, seconds / 200))
    level_s = min(LEVEL_S, seconds / 20)
    loads = {
        "closed": f'concurrency = [{STREAMS}]\nduration = "{level_s:g}s"\nrepeat = {round(seconds / level_s)}',
        "open": f'request_rate = [{RATE_PER_S}]\nduration = "{seconds:g}s"',
    }
    with ExitStack() as stack:
        server = stack.enter_context(simulator.start(LAW))
        runs = [started(name, load, server.url, folder / name, stack) for name, load in loads.items()]
        began_s, told_s = time.monotonic(), 0.0
        while any(run.process.poll() is None for run in runs):
            time.sleep(every_s)
            at_s = time.monotonic() - began_s
            for run in runs:
                if measured(run):
                    run.look(at_s)
            if at_s - told_s >= max(5.0, seconds / 30):
                told_s = at_s
                print(f"{at_s:7.0f} s  " + "   ".join(map(standing, runs)), flush=True)
        truth = simulator.truth(server.url)
        codes = {run.name: run.process.wait() for run in runs}
    for run in runs:
        if codes[run.name]:
            said = (run.folder.parent / "said.txt").read_text(encoding="utf-8", errors="replace").strip()[-2000:]
            print(f"{run.name}: loadbench ended with {codes[run.name]}: {said}")
    return 1 if any(codes.values()) else judged(runs, truth)


def standing(run: Run) -> str:
    """Where a run stands."""
    if not run.looks:
        return f"{run.name} begins"
    look = run.looks[-1]
    return f"{run.name} {look.rss_mb:.1f} MB, {look.uss_mb:.1f} of its own, {look.files} files, {look.threads} threads"


def judged(runs: Sequence[Run], truth: Mapping[str, Any]) -> int:
    """The table and the verdict; the exit code."""
    found = {run.name: records(run.folder) for run in runs}
    rows = [("run", "figure", "second third", "last third", "by the slope", "may grow", "verdict")]
    for run in runs:
        for one in growths(run.looks):
            figures = (one.before, one.after, one.sloped, one.allowed)
            cells = [f"{figure:+.2f}" if i == 2 else f"{figure:.2f}" for i, figure in enumerate(figures)]
            rows.append((run.name, one.name, *cells, "GREW" if one.grew else "flat"))
    print("\n" + aligned(rows))
    for name, one in found.items():
        errors = ", ".join(f"{n:,} {kind}" for kind, n in sorted(one.errors.items()))
        print(
            f"{name}: {one.requests:,} requests, {one.completed:,} completed, {one.retries:,} silent retries; {errors}"
        )
    wrong = [f"{name}: {what}" for name, one in found.items() for what in one.wrong]
    differs = counted(list(found.values()), truth)
    print(f"simulator: {truth['requests']:,} requests, {truth['completed']:,} completed, {truth['tokens']:,} tokens")
    wrong += [] if differs is None else [differs]
    wrong += [f"{row[0]}: {row[1]} grew from {row[2]} to {row[3]}" for row in rows if row[-1] == "GREW"]
    print("\n".join(("FAILED", *wrong)) if wrong else "PASSED: nothing grew, no record is missing")
    return 1 if wrong else 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long it measures (default 30)")
    parser.add_argument("--seconds", type=float, help="the same in seconds")
    parser.add_argument(
        "--folder", type=Path, help="keep the run folders here, a new folder (default: they are removed)"
    )
    given = parser.parse_args(argv)
    seconds = 60 * given.minutes if given.seconds is None else given.seconds
    if given.folder is not None:
        return soak(seconds, given.folder)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        return soak(seconds, Path(folder))


if __name__ == "__main__":
    sys.exit(main())
