"""`--workers` and `--cluster` from the command line: near the truth, marked where a part is lost, continued."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from loadbench import store
from loadbench.serve import simulator
from loadbench.serve.simulator import Simulator
from tests.support.command import invoke

pytestmark = [pytest.mark.system, pytest.mark.filterwarnings("default"), pytest.mark.timeout(240)]
WAYS = {"one process": (), "two processes": ("--workers", "2"), "a cluster": ("--cluster", "local:2")}


@pytest.fixture(scope="module")
def server() -> Iterator[Simulator]:
    with simulator.start(ttft_ms=60, itl_ms=5, jitter=0.1) as running:
        yield running


def summary_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def words(server: Simulator, folder: Path, *more: object) -> list[str]:
    """A run without anything beside its levels."""
    plain = ("--no-repeat-first", "--no-telemetry", "--no-progress", "--max-tokens", 20)
    return [str(word) for word in ("run", "-e", server.url, "-o", folder, *plain, *more)]


@pytest.mark.endurance
@pytest.mark.parametrize("way", WAYS)
def test_each_way_of_spreading_is_near_the_truth(tmp_path: Path, way: str) -> None:
    if "--cluster" in WAYS[way]:
        pytest.importorskip("distributed")
    with simulator.start(ttft_ms=100, itl_ms=40, jitter=0.1) as slow:  # slow beside what a busy machine adds
        ran = invoke(*words(slow, tmp_path / "run", "-c", 8, "-n", 64, "--warmup", 0, *WAYS[way]))
        truth = simulator.truth(slow.url)
    (level,) = summary_of(tmp_path / "run")["levels"]

    assert ran.exit_code == 0, ran.output
    assert level["completed"] == 64
    assert truth["ttft_us"]["n"] in (65, 66)  # those that tried the model are among them
    for name, metric in (("ttft_us", "ttft_ms"), ("gap_us", "itl_ms")):
        assert level[metric]["p50"] == pytest.approx(truth[name]["p50"] / 1e3, rel=0.1)
    assert level["output_tokens"]["total"] == 64 * 20
    assert len(level["workers"] or "..") == 2


def test_the_plan_says_who_shares_the_load(server: Simulator, tmp_path: Path) -> None:
    ran = invoke(*words(server, tmp_path / "run", "-c", 8, "--workers", 3, "--dry-run"))

    assert "workers   3 processes of this machine share each level" in ran.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--workers", "2", "--cluster", "local:2"), "--workers and --cluster are both given"),
        (("--workers", "0"), "'0': give a number from 1 to 256, or auto"),
        (("--workers", "many"), "'many': give a number from 1 to 256, or auto"),
        (("--cluster", "here"), "--cluster here: give tcp://HOST:PORT of a Dask scheduler, or local:N"),
    ],
)
def test_what_cannot_share_a_load_is_refused(
    server: Simulator, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    ran = invoke(*words(server, tmp_path / "run", "-c", 8, *options))

    assert ran.exit_code == 2
    assert said in ran.output
    assert not (tmp_path / "run").exists()


def begin(server: Simulator, folder: Path, *more: object, records: str = "requests.jsonl") -> subprocess.Popen[str]:
    """A run with two workers, that measures already."""
    run = subprocess.Popen(
        [sys.executable, "-m", "loadbench", *words(server, folder, "--workers", 2, *more)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    kept = folder / records
    while run.poll() is None and not (kept.exists() and kept.read_bytes().count(b'"warmup":false') > 8):
        time.sleep(0.05)
    return run


def workers_of(run: subprocess.Popen[str]) -> list[psutil.Process]:
    """By the function that spawned processes run; the tracker of resources is none."""
    return [one for one in psutil.Process(run.pid).children() if "spawn_main" in " ".join(one.cmdline())]


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX systems")
def test_a_worker_that_is_killed_marks_its_level_and_resume_measures_it_again(
    server: Simulator, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    run = begin(server, folder, "-c", "4,6", "-n", 120)
    workers_of(run)[0].kill()
    said, _ = run.communicate(timeout=100)
    marked = summary_of(folder)["levels"]
    again = invoke("run", "--resume", folder, "--no-progress")
    after = summary_of(folder)["levels"]

    assert run.returncode == 1
    assert "measure them again with: loadbench run --resume" in said
    assert [level["status"] for level in marked] == ["incomplete", "complete"]
    assert again.exit_code == 0, again.output
    assert "workers   2 processes" in again.output
    assert [(level["status"], level["completed"]) for level in after] == [("complete", 120)] * 2


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX systems")
@pytest.mark.parametrize("times", [pytest.param(1, marks=pytest.mark.endurance), 2])
def test_ctrl_c_reaches_all_workers_and_leaves_none(server: Simulator, tmp_path: Path, times: int) -> None:
    folder = tmp_path / "run"
    run = begin(server, folder, "-c", 4, "-d", "60s", "--max-tokens", 200)  # whose answers take a second
    workers = workers_of(run)
    for _ in range(times):
        os.killpg(run.pid, signal.SIGINT)  # a terminal sends it to all of them
        time.sleep(0.3)
    said, _ = run.communicate(timeout=60)
    _, alive = psutil.wait_procs(workers, timeout=10)
    (level,) = summary_of(folder)["levels"]

    assert run.returncode == 130, said
    assert len(workers) == 2
    assert alive == []
    assert level["status"] == "interrupted"
    assert level["attempted"] == level["completed"] + level["failed"] + level["cancelled"]
    assert store.read(folder).unreadable_lines == 0


@pytest.mark.endurance
def test_a_search_for_capacity_is_shared_too(tmp_path: Path) -> None:
    with simulator.start(ttft_ms=10, itl_ms=1, slots=4) as small:
        ran = invoke(
            *("capacity", "-e", small.url, "--slo", "ttft_p90=40ms", "--max-tokens", 10, "--max", 16, "-n", 60),
            *("--workers", 2, "-o", tmp_path / "run", "--no-progress"),
        )

    assert ran.exit_code in (0, 3), ran.output
    assert all(level["workers"] for level in summary_of(tmp_path / "run")["levels"])


@pytest.mark.endurance
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX systems")
def test_a_side_that_lost_a_worker_is_no_success(server: Simulator, tmp_path: Path) -> None:
    root = tmp_path / "both"
    run = begin(server, root, "--against", server.url, "-c", "2,4", "-n", 60, records="base/requests.jsonl")
    for worker in workers_of(run)[:2]:  # those of the base, which began first
        worker.kill()
    said, _ = run.communicate(timeout=100)
    statuses = [level["status"] for side in ("base", "new") for level in summary_of(root / side)["levels"]]

    assert run.returncode == 1, said
    assert "workers   2 processes of this machine share each level" in said
    assert f"measure them again with: loadbench run --resume {root}" in said
    assert statuses == ["incomplete", "complete", "complete", "complete"]
