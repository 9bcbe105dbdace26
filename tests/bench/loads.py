"""A client in its own process against a simulator, and its figures beside the simulator's truth.

Like with like: the truth counts what the client counts. It is reset after the client's first, probing request and
before the first token of the load, and a run whose truth holds another number of requests is done again. There is no
warm-up: every request counts, on both sides. Connections are opened before.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bench import machine
from loadbench.serve import simulator
from loadbench.transport import best_clock

ROOT = Path(__file__).parents[2]
LIMIT = "limit"
"""A reader in C that keeps nothing: no client that stamps what it reads can cost much less."""
OURS = ("loadbench-thread", "loadbench-kernel", "loadbench-user")
PEERS = ("httpx", "httpx-raw", "aiohttp")
MODEL = simulator.MODEL
COMPARED = ("ttft_p50", "ttft_p99", "gap_p99", "gap_p999")
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Load:
    """So many streams at once; each asks `rounds` times for `tokens` tokens, `ttft_ms` and `itl_ms` apart.

    Attributes:
        jitter: Spread of these times.
        shortest: Answers have from so many to `tokens` tokens; unset, all have `tokens`.
        held: The client's interpreter is held up 50 ms of each second (held.py).
    """

    streams: int
    rounds: int
    tokens: int = 100
    ttft_ms: float = 50.0
    itl_ms: float = 10.0
    jitter: float = 0.0
    shortest: int | None = None
    held: bool = False

    @property
    def requests(self) -> int:
        return self.streams * self.rounds

    @property
    def lasts_s(self) -> float:
        """By the law, if the client keeps up."""
        return self.rounds * (self.ttft_ms + (self.tokens - 1) * self.itl_ms) / 1e3

    @property
    def tokens_per_s(self) -> float:
        """By the law, if the client keeps up."""
        return self.requests * self.tokens / self.lasts_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One client under one load. Times in ms; `truth` holds the simulator's for the same requests.

    Attributes:
        ms, truth_ms: By name (COMPARED).
        tokens_per_s: Over the whole load.
        cpu_us_per_token: User and system time of the client's process while it was under load.
        peak_rss_mb: Up to the end of the load.
        merged_share: Arrivals that carried several text events; None where the client cannot know.
        lag_p99_ms: Processed minus arrived; None where the client does not know.
        cpu_share: Of one core.
        v3: What loadbench's gate V3 said, None for other clients; empty is green.
        others_cores: CPU that neither the client nor the simulator used.
        steal_cores: CPU that the hypervisor gave away.
    """

    client: str
    load: Load
    requests: int
    failed: int
    tokens: int
    truth_requests: int
    truth_tokens: int
    ms: Mapping[str, float | None]
    truth_ms: Mapping[str, float | None]
    tokens_per_s: float
    cpu_us_per_token: float
    peak_rss_mb: float | None
    merged_share: float | None
    lag_p99_ms: float | None
    cpu_share: float
    v3: str | None
    others_cores: float
    steal_cores: float

    def error(self, name: str) -> float | None:
        """Of a compared figure, as a fraction of the truth."""
        mine, truth = self.ms[name], self.truth_ms[name]
        return None if mine is None or not truth else mine / truth - 1


def missing(client: str) -> str | None:
    """Why this client cannot run here; None where it can."""
    if client == LIMIT:
        return None if _limit() else "it takes Linux and a C compiler"
    if client in OURS:
        best = OURS.index(f"loadbench-{best_clock()}")
        return None if OURS.index(client) >= best else "it does not work here: see `loadbench doctor`"
    return None if importlib.util.find_spec(client.partition("-")[0]) is not None else "it is not installed"


@cache
def _limit() -> str | None:
    """The limit reader's program, compiled for this process; None where that cannot be."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if not sys.platform.startswith("linux") or shutil.which(compiler[0]) is None:
        return None
    folder = tempfile.TemporaryDirectory(prefix="bench-limit-")
    atexit.register(folder.cleanup)
    program = str(Path(folder.name) / "limit")
    words = [*compiler, "-O2", str(Path(__file__).with_name("limit.c")), "-o", program]
    return program if subprocess.run(words, check=False).returncode == 0 else None


def run(client: str, load: Load) -> Figures:
    """Put one client under one load.

    Raises:
        RuntimeError: If the client failed, or the truth could not be had for the same requests.
    """
    length = None if load.shortest is None else (load.shortest, load.tokens)
    with simulator.start(ttft_ms=load.ttft_ms, itl_ms=load.itl_ms, jitter=load.jitter, length=length) as server:
        simulator.reset(server.url)
        for _ in range(_ATTEMPTS):
            figures = _ours(client, load, server.url) if client in OURS else _peer(client, load, server.url)
            if figures.truth_requests == figures.requests - figures.failed:
                return figures
    raise RuntimeError(
        f"{client}, {load.streams} streams: {figures.requests} requests, of which {figures.failed} failed, but the "
        f"simulator's truth holds {figures.truth_requests}, {_ATTEMPTS} times: the machine is too busy"
    )


class _Watch:
    """The truth and the machine's use between the start and the end of a load."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.start()

    def start(self) -> None:
        simulator.reset(self._url)
        self._simulator_s = simulator.truth(self._url)["cpu_s"]
        self._use = machine.use()

    def stop(self) -> None:
        self._ended = machine.use()
        self.truth = simulator.truth(self._url)

    def figures(self, client: str, load: Load, found: Mapping[str, Any]) -> Figures:
        truth = self.truth
        span_s = self._ended.at_s - self._use.at_s
        ours_s = found["cpu_s"] + truth["cpu_s"] - self._simulator_s
        us = {"ttft": truth["ttft_us"], "gap": truth["gap_us"]}
        return Figures(
            client=client,
            load=load,
            requests=found["requests"],
            failed=found["failed"],
            tokens=found["events"],
            truth_requests=us["ttft"]["n"],
            truth_tokens=us["gap"]["n"] + us["ttft"]["n"],
            ms={name: found.get(f"{name}_ms") for name in COMPARED},
            truth_ms={name: _ms(us[name.partition("_")[0]][name.partition("_")[2]]) for name in COMPARED},
            tokens_per_s=found["events"] / found["duration_s"],
            cpu_us_per_token=found["cpu_s"] / max(found["events"], 1) * 1e6,
            peak_rss_mb=found.get("peak_rss_mb"),
            merged_share=found.get("merged_share"),
            lag_p99_ms=found.get("lag_p99_ms"),
            cpu_share=found["cpu_s"] / found["duration_s"],
            v3=found.get("v3"),
            others_cores=max(0.0, (self._ended.busy_s - self._use.busy_s - ours_s) / span_s),
            steal_cores=(self._ended.steal_s - self._use.steal_s) / span_s,
        )


def _ms(us: int | None) -> float | None:
    return None if us is None else us / 1e3


def _ours(client: str, load: Load, url: str) -> Figures:
    """The real command; what it says of itself is read from its summary.json and run.json."""
    with tempfile.TemporaryDirectory(prefix="bench-client-") as folder:
        words = [*_python(load), "-m", "loadbench", "run", "-e", url, "-m", MODEL, "-c", str(load.streams)]
        words += ["-n", str(load.requests), "--warmup", "0", "--max-tokens", str(load.tokens), "--no-answers"]
        words += ["--stamps", client.partition("-")[2]]
        watch = _Watch(url)
        peak_rss_mb = None
        with _process([*words, "--json", "-o", folder]) as process:
            assert process.stdout is not None
            for line in process.stdout:
                said = json.loads(line)
                event = said["event"]
                if event == "probe" and said["purpose"] == "warm":  # the last one before the level
                    watch.start()
                elif event == "level_ended":
                    watch.stop()
                    peak_rss_mb = machine.peak_rss_mb(process.pid)
        summary = json.loads((Path(folder) / "summary.json").read_bytes())
        info = json.loads((Path(folder) / "run.json").read_bytes())
    level, facts = summary["levels"][0], info["levels"][0]
    v3 = [doubt["text"] for doubt in _doubts(summary, level) if doubt["code"] == "V3"]
    found = {
        "requests": level["attempted"],
        "failed": level["failed"],
        "events": level["output_tokens"]["total"] or 0,
        "duration_s": facts["duration_s"],
        "cpu_s": facts["client_cpu_s"],
        "peak_rss_mb": peak_rss_mb,
        "merged_share": level["merged_share"],
        "lag_p99_ms": (level["client_lag_ms"] or {}).get("p99"),
        "v3": "; ".join(v3),
    }
    for name in COMPARED:
        metric, _, p = name.partition("_")
        found[f"{name}_ms"] = (level["ttft_ms" if metric == "ttft" else "itl_ms"] or {}).get(p)
    return watch.figures(client, load, found)


def _doubts(summary: Mapping[str, Any], level: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return [*level.get("warnings", ()), *summary.get("warnings", ())]


def _peer(client: str, load: Load, url: str) -> Figures:
    """The limit, or a stock client, which starts no new request after the time that the load should take."""
    if client == LIMIT:
        port = url.partition("//")[2].partition("/")[0].rpartition(":")[2]
        words = [_limit() or "", port, str(load.streams), str(load.requests), str(load.tokens), MODEL]
    else:
        words = [*_python(load), str(Path(__file__).with_name("peers.py")), client, "--url", url, "--model", MODEL]
        words += ["-c", str(load.streams), "-n", str(load.requests), "--max-tokens", str(load.tokens)]
        words += ["--limit-s", str(load.lasts_s)]
    found: dict[str, Any] = {}
    with _process(words) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if process.stdout.readline().strip() == b"ready":
            watch = _Watch(url)
            process.stdin.write(b"\n")
            process.stdin.flush()
            found = json.loads(process.stdout.readline() or b"{}")
            watch.stop()
    return watch.figures(client, load, found)


def _python(load: Load) -> list[str]:
    return [sys.executable, *([str(Path(__file__).with_name("held.py"))] if load.held else [])]


@contextmanager
def _process(words: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A child whose output is read as it comes; it must end well."""
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints)
        try:
            yield process
        except BaseException:
            process.kill()
            raise
        finally:
            process.communicate()
        if process.returncode:
            complaints.seek(0)
            said = complaints.read().decode(errors="replace").strip()[-2000:]
            raise RuntimeError(f"{' '.join(words[1:5])} ended with {process.returncode}: {said}")
