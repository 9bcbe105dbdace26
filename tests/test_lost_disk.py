"""Runs whose folder fills up, may not be written, goes away or is somebody else's: one line, and nothing is lost."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loadbench import store
from loadbench.serve import simulator
from loadbench.serve.simulator import Simulator
from tests.support.forks import Ended, Forks, forks, until

pytestmark = [pytest.mark.system, pytest.mark.skipif(sys.platform != "linux", reason="forks, mounts, limits")]

N = 60
LONG = ("-c", "2,4", "-n", N, "--no-repeat-first", "--max-tokens", 6, "--quiet")
"""A second a level."""
DISK_MB = 64


@pytest.fixture(scope="module")
def server() -> Iterator[Simulator]:
    with simulator.start(ttft_ms=50, itl_ms=0.5, slots=4) as running:
        yield running


@pytest.fixture(scope="module")
def loadbench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """As a user whom a folder's permissions bind: root without its privileges is one too."""
    under: list[str] = []
    if os.geteuid() == 0 and (setpriv := shutil.which("setpriv")) is not None:
        under = [setpriv, "--bounding-set=-all", "--inh-caps=-all"]
    with forks(tmp_path_factory.mktemp("forks"), under) as running:
        yield running


def measured(path: Path, levels: int = 1) -> bool:
    """Whether so many levels have begun, and requests of the last were recorded."""
    if not (path / "requests.jsonl").exists():
        return False
    begun = json.loads((path / "run.json").read_bytes())["levels"]
    name = f'"level":"{begun[-1]["id"]}"' if len(begun) == levels else "not yet"
    return name in (path / "requests.jsonl").read_text()


def one_line(ended: Ended) -> str:
    """What a command said that ended with exit code 1."""
    assert ended.code == 1, ended
    assert ended.err.startswith("loadbench: "), ended
    assert ended.err.count("\n") == 1, ended
    return ended.err


def totals(path: Path) -> list[tuple[str, str, int]]:
    summary = json.loads((path / "summary.json").read_bytes())
    return [(one["id"], one["status"], one["completed"]) for one in summary["levels"]]


WHOLE = [("simulator@c2", "complete", N), ("simulator@c4", "complete", N)]


# -- a disk that fills up


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Forks, Path, Path]]:
    """Command lines that see a small disk; where they see it, and where we do."""
    there = tmp_path / "disk"
    there.mkdir()
    mount = f'mount -t tmpfs -o size={DISK_MB}m tmpfs "{there}" && exec "$@"'
    under = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    if shutil.which("unshare") is None or os.spawnvp(os.P_WAIT, under[0], [*under, "true"]):
        pytest.skip("this system lets nobody mount a disk")
    with forks(tmp_path, under) as running:
        running.run("--version")  # it is mounted
        yield running, there, Path(f"/proc/{running.pid}/root{there}")


def fill(path: Path) -> None:
    """Take all the room that the disk has."""
    with path.open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(65536))


@pytest.mark.parametrize("level", [1, 2])
def test_a_disk_that_fills_up_is_one_line_and_the_run_goes_on_once_there_is_room(
    level: int, disk: tuple[Forks, Path, Path], server: Simulator
) -> None:
    loadbench, there, here = disk
    command = loadbench.start("run", "-e", server.url, *LONG, "-o", there / "run")
    until(lambda: measured(here / "run", level), command)
    fill(here / "filler")
    said = one_line(command.wait())
    run = store.read(here / "run")
    reported = loadbench.run("report", there / "run", "--format", "json")
    (here / "filler").unlink()
    resumed = loadbench.run("run", "--resume", there / "run", "--quiet")

    assert f"free some space, then continue with --resume {there}/run" in said
    assert run.unreadable_lines <= 1
    assert len(run.levels) == level
    assert (reported.code, reported.err.count("\n")) == (0, 1), reported
    assert resumed.code == 0, resumed
    assert totals(here / "run") == WHOLE


def test_a_file_that_may_grow_no_more_is_one_line(loadbench: Forks, server: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "run"
    before = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))"
    said = one_line(loadbench.run("run", "-e", server.url, *LONG, "-o", path, before=before))
    run = store.read(path)
    resumed = loadbench.run("run", "--resume", path, "--quiet")

    assert f"free some space, then continue with --resume {path}" in said
    assert run.unreadable_lines <= 1
    assert resumed.code == 0, resumed
    assert totals(path) == WHOLE


# -- a folder that may not be written, or is gone


BOUND = pytest.mark.skipif(os.geteuid() == 0 and shutil.which("setpriv") is None, reason="nothing binds root")


def remove(path: Path) -> None:
    while path.exists():  # the run may write into it meanwhile
        shutil.rmtree(path, ignore_errors=True)


@pytest.mark.parametrize(
    ("harm", "mend", "line"),
    [
        pytest.param(
            lambda path: path.chmod(0o555),
            lambda path: path.chmod(0o755),
            "Permission denied; let it be written again, then continue with --resume",
            marks=BOUND,
        ),
        (
            lambda path: path.rename(path.with_name("moved")),
            lambda path: path.with_name("moved").rename(path),
            "No such file or directory",
        ),
        (remove, None, "No such file or directory"),
    ],
    ids=["not to be written", "moved away", "removed"],
)
def test_a_folder_that_is_taken_from_a_run_is_one_line_and_the_run_goes_on_once_it_is_back(
    harm: Callable[[Path], object],
    mend: Callable[[Path], object] | None,
    line: str,
    loadbench: Forks,
    server: Simulator,
    tmp_path: Path,
) -> None:
    path = tmp_path / "run"
    command = loadbench.start("run", "-e", server.url, *LONG, "-o", path)
    until(lambda: measured(path), command)
    harm(path)
    said = one_line(command.wait())

    assert line in said
    if mend is not None:
        mend(path)
        resumed = loadbench.run("run", "--resume", path, "--quiet")

        assert resumed.code == 0, resumed
        assert totals(path) == WHOLE


@BOUND
def test_a_place_that_may_not_be_written_is_said_before_anything_is_sent(
    loadbench: Forks, server: Simulator, tmp_path: Path
) -> None:
    tmp_path.chmod(0o555)
    simulator.reset(server.url)
    ended = loadbench.run("run", "-e", server.url, *LONG, "-o", tmp_path / "run")
    tmp_path.chmod(0o755)

    assert "choose another folder with -o" in one_line(ended)
    assert simulator.truth(server.url)["requests"] == 0


# -- descriptors


@pytest.mark.parametrize("most", [12, 24, 70])
def test_too_few_descriptors_are_one_line_and_the_run_goes_on_with_more(
    most: int, loadbench: Forks, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    before = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({most}, {most}))"
    with simulator.start(ttft_ms=400) as slow:
        words = ("run", "-e", slow.url, "-r", "200", "-n", 100, "--warmup", 0, "--max-tokens", 2, "--quiet", "-o", path)
        starved = loadbench.run(*words, before=before)
        begun = (path / "run.json").exists()
        reported = loadbench.run("report", path, "--format", "json")
        continued = loadbench.run("run", "--resume", path, "--quiet") if begun else loadbench.run(*words)

    assert starved.code in (0, 1), starved
    assert starved.err.count("\n") == (starved.code == 1)
    assert reported.code == (0 if begun else 2), reported
    assert continued.code == 0, continued


# -- two at once


def test_of_two_runs_into_one_folder_one_is_whole_and_one_is_a_line(
    loadbench: Forks, server: Simulator, tmp_path: Path
) -> None:
    for number in range(2):
        path = tmp_path / str(number)
        words = ("run", "-e", server.url, "-c", "2", "-n", 40, "--no-repeat-first", "--quiet", "-o", path)
        ended = sorted((one.wait() for one in [loadbench.start(*words) for _ in range(2)]), key=lambda one: one.code)

        assert [one.code > 0 for one in ended] == [False, True], ended
        assert (ended[0].err, ended[1].err.count("\n")) == ("", 1)
        assert totals(path) == [("simulator@c2", "complete", 40)]


def test_of_two_that_continue_one_run_one_does_and_one_is_a_line(
    loadbench: Forks, server: Simulator, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    begun = loadbench.start("run", "-e", server.url, *LONG, "-o", path)
    until(lambda: measured(path), begun)
    begun.signal(signal.SIGKILL)
    begun.wait()
    both = [loadbench.start("run", "--resume", path, "--quiet") for _ in range(2)]
    ended = sorted((one.wait() for one in both), key=lambda one: one.code)

    assert ended[0].code == 0, ended
    assert "another loadbench is writing to it" in one_line(ended[1])
    assert totals(path) == WHOLE
