"""What the commands themselves take: help, the way to the first request, from level to level, install, report."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench import instant
from bench.loads import MODEL, ROOT
from loadbench import metrics, store
from loadbench.serve import simulator

_LOADBENCH = (sys.executable, "-m", "loadbench")
GAPS = 20  # of a record in the summary of 100,000 and the report of a million


def help_s(times: int = 5) -> float:
    """`loadbench --help`, median, from exec to exit."""
    return _median(times, lambda: _took(["--help"]))


def first_request_s(times: int = 5) -> float:
    """From exec of `loadbench run -e URL` to the first chat request at the server, median."""

    def once() -> float:
        with instant.serve() as server, tempfile.TemporaryDirectory(prefix="bench-client-") as folder:
            began = time.perf_counter()
            _took(["run", "-e", server.url, "-c", "1", "-n", "1", "--warmup", "0", "-o", folder])
            return server.asked_s[0] - began

    return _median(times, once)


def between_levels_s(streams: Sequence[int] = (1, 8, 64, 512)) -> list[float]:
    """From the last answer of each level to the first request of the next, as the server saw them."""
    gaps = []
    # One run for each step, as -n is the same for all levels of a run.
    for before, after in pairwise(streams):
        n = 2 * max(before, after)
        with instant.serve() as server, tempfile.TemporaryDirectory(prefix="bench-client-") as folder:
            words = ["run", "-e", server.url, "-c", f"{before},{after}", "-n", str(n), "--warmup", "0", "-o", folder]
            words.append("--no-repeat-first")
            _took(words)
            probes = 2
            if len(server.asked_s) != probes + 2 * n:
                raise RuntimeError(f"{len(server.asked_s)} requests came for {probes} probes and two levels of {n}")
            gaps.append(server.asked_s[probes + n] - max(server.answered_s[: probes + n]))
    return gaps


def install() -> tuple[int, float]:
    """Packages, loadbench among them, and MB (10**6 bytes) of the base install in a new environment, without pip."""
    with tempfile.TemporaryDirectory(prefix="bench-client-") as name:
        folder = Path(name)
        source = folder / "source"
        ignored = shutil.ignore_patterns(".*", "results", "shared", "tests", "__pycache__")
        shutil.copytree(ROOT, source, ignore=ignored)
        uv = shutil.which("uv")
        venv = folder / "venv"
        if uv:
            _run([uv, "venv", "--quiet", "--python", sys.executable, str(venv)])
        else:
            _run([sys.executable, "-m", "venv", str(venv)])
        python = next(path for path in (venv / "bin/python", venv / "Scripts/python.exe") if path.exists())
        if uv:
            _run([uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), str(source)])
        else:
            _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(source)])
        script = "import sysconfig; print(sysconfig.get_path('purelib')); print(sysconfig.get_path('platlib'))"
        places = {Path(line) for line in _run([str(python), "-c", script]).split()}
        tools = {"pip", "setuptools", "wheel", "pkg_resources", "_distutils_hack"}
        packages, size = 0, 0
        for place in places:
            for entry in place.iterdir():
                if entry.name.partition("-")[0] in tools:
                    continue
                packages += entry.suffix == ".dist-info"
                files = [entry] if entry.is_file() else [path for path in entry.rglob("*") if path.is_file()]
                size += sum(path.lstat().st_size for path in files)
        return packages, size / 1e6


def summary_of(requests: int) -> tuple[float, float]:
    """Seconds of one core to read a run of so many requests of GAPS gaps, and to summarise it with its intervals."""
    with tempfile.TemporaryDirectory(prefix="bench-client-") as name:
        folder = _folder_of(Path(name) / "run", requests)
        began = time.process_time()
        run = store.read(folder)
        read = time.process_time()
        metrics.summarise(run)
        return read - began, time.process_time() - read


def report_of(requests: int) -> tuple[float, float | None]:
    """Seconds and peak resident memory in MB of `loadbench report` on so many requests of GAPS gaps each."""
    with tempfile.TemporaryDirectory(prefix="bench-client-") as name:
        folder = _folder_of(Path(name) / "run", requests)
        began = time.perf_counter()
        process = subprocess.Popen(
            [*_LOADBENCH, "report", str(folder)], cwd=ROOT, env=_environment(), stdout=subprocess.DEVNULL
        )
        peak_mb = None
        if hasattr(os, "wait4"):
            _, status, use = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            peak_mb = use.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
        took_s = time.perf_counter() - began
        if process.wait():
            raise RuntimeError(f"loadbench report ended with {process.returncode}")
        return took_s, peak_mb


def _folder_of(folder: Path, requests: int) -> Path:
    """A run folder whose records are those of a short real run, again and again at later times."""
    with simulator.start(ttft_ms=20, itl_ms=2, jitter=0.2) as server:
        words = ["run", "-e", server.url, "-m", MODEL, "-c", "8", "-n", "80", "--warmup", "0"]
        _took([*words, "--max-tokens", str(GAPS + 1), "--no-answers", "-o", str(folder)])
    _repeat(folder, requests)
    return folder


def _repeat(folder: Path, requests: int) -> None:
    """Make a run folder one of so many requests."""
    path = folder / "requests.jsonl"
    records: list[dict[str, Any]] = [json.loads(line) for line in path.read_bytes().splitlines()]
    info = json.loads((folder / "run.json").read_bytes())
    level = info["levels"][0]
    round_ns = round(level["duration_s"] * 1e9)
    # Only these change, so that the rest of a line need not be encoded a million times.
    moving = [name for name in records[0] if name.endswith("_ns") and name != "connect_ns"]
    rests = [
        json.dumps({name: value for name, value in record.items() if name not in (*moving, "request")})[1:]
        for record in records
    ]
    with path.open("w", encoding="utf-8") as file:
        for number in range(requests):
            again, row = divmod(number, len(records))
            later_ns = again * round_ns
            record = records[row]
            times = ", ".join(f'"{name}": {record[name] + later_ns}' for name in moving)
            file.write(f'{{"request": {number}, {times}, {rests[row]}\n')
    later_ns = (requests - 1) // len(records) * round_ns
    level["offered"] = level["requests_planned"] = requests
    level["duration_s"] += later_ns / 1e9
    level["last_issue_ns"] += later_ns
    (folder / "run.json").write_text(json.dumps(info), encoding="utf-8")


def _median(times: int, once: Callable[[], float]) -> float:
    once()  # fills the caches of files and bytecode
    return statistics.median(once() for _ in range(times))


@cache
def _environment() -> dict[str, str]:
    """Ours, but with bytecode kept, as users have it: compiling all imports anew takes longer than a budget allows."""
    environment = dict(os.environ)
    if environment.pop("PYTHONDONTWRITEBYTECODE", ""):
        folder = tempfile.mkdtemp(prefix="bench-client-bytecode-")  # not in places where the user wants none
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        environment["PYTHONPYCACHEPREFIX"] = folder
    return environment


def _took(words: Sequence[str]) -> float:
    began = time.perf_counter()
    _run([*_LOADBENCH, *words])
    return time.perf_counter() - began


def _run(words: Sequence[str]) -> str:
    done = subprocess.run(words, cwd=ROOT, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(words[:5])} ended with {done.returncode}: {(done.stderr or done.stdout)[-2000:]}"
        )
    return done.stdout
