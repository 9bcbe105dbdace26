"""Runs that are told to end, or die: they end in time, nothing they started stays behind, their folder is whole."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadbench.serve import llama, simulator
from loadbench.serve.simulator import Simulator
from loadbench.store.files import read_info
from tests.support.forks import ENVIRONMENT, Forks, until

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(sys.platform != "linux", reason="forks, signals, looks into /proc"),
]

BRIEF = ("-n", 12, "--max-tokens", 6)


@pytest.fixture(scope="module")
def server() -> Iterator[Simulator]:
    with simulator.start(ttft_ms=4, itl_ms=0.5, slots=8) as running:
        yield running


def records(path: Path) -> list[dict[str, object]]:
    lines = (path / "requests.jsonl").read_bytes().split(b"\n") if (path / "requests.jsonl").exists() else []
    return [json.loads(line) for line in lines[:-1]]


def started_by(mark: str) -> list[int]:
    """Processes that were started with this in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes() and (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def gone(mark: str, within_s: float = 10.0) -> bool:
    end_s = time.monotonic() + within_s
    while started_by(mark):
        if time.monotonic() > end_s:
            return False
        time.sleep(0.01)
    return True


# -- told to end at any moment


def told_at(module: str, number: int, folder: Path, before: str = "pass") -> tuple[int, str, str]:
    """How `loadbench run` ends, and what it says, that gets a signal as it first looks for this module."""
    program = (
        "import os, signal, sys\n"
        "class Moment:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {module!r}: os.kill(os.getpid(), {int(number)})\n"
        f"{before}\n"
        "sys.meta_path.insert(0, Moment())\n"
        "from loadbench.__main__ import main\n"
        "main()\n"
    )
    command = [sys.executable, "-c", program, "run", "-e", "127.0.0.1:9"]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("module", "number"),
    [
        ("loadbench.cli", signal.SIGINT),
        ("click", signal.SIGTERM),
        ("loadbench.runner.measure", signal.SIGINT),
        ("httpx", signal.SIGTERM),
        pytest.param("loadbench.cli", signal.SIGTERM, marks=pytest.mark.endurance),
        pytest.param("click", signal.SIGINT, marks=pytest.mark.endurance),
        pytest.param("loadbench.cli.run", signal.SIGINT, marks=pytest.mark.endurance),
        pytest.param("loadbench.cli.run", signal.SIGTERM, marks=pytest.mark.endurance),
        pytest.param("loadbench.runner.measure", signal.SIGTERM, marks=pytest.mark.endurance),
        pytest.param("httpx", signal.SIGINT, marks=pytest.mark.endurance),
    ],
)
def test_told_to_end_as_it_starts_it_ends_as_ever(module: str, number: int, tmp_path: Path) -> None:
    assert told_at(module, number, tmp_path) == (130, "", "loadbench: interrupted\n")


@pytest.mark.parametrize("module", ["click", "loadbench.runner.measure"])
def test_a_job_in_the_background_of_a_shell_is_ended_although_ctrl_c_is_not_for_it(module: str, tmp_path: Path) -> None:
    ignored = "signal.signal(signal.SIGINT, signal.SIG_IGN)"

    assert told_at(module, signal.SIGTERM, tmp_path, ignored) == (130, "", "loadbench: interrupted\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.endurance) for seed in range(2, 12))])
def test_a_run_told_to_end_at_any_moment_ends_and_goes_on_where_it_was(
    seed: int, number: signal.Signals, loadbench: Forks, server: Simulator, tmp_path: Path
) -> None:
    path, moment = tmp_path / "run", random.Random(f"{seed} {number}")
    words = ("run", "-e", server.url, "-c", "2,4", *BRIEF, "-o", path, "--quiet")
    command = loadbench.start(*words, before=f"open({str(tmp_path / 'up')!r}, 'w').close()")
    until((tmp_path / "up").exists, command)
    time.sleep(moment.uniform(0, 0.7))
    command.signal(number)
    first = command.wait(20)
    begun = (path / "run.json").exists()
    reported = loadbench.run("report", path, "--format", "json")
    second = loadbench.run("run", "--resume", path, "--quiet") if begun else loadbench.run(*words)

    # Before its first line, which sets the handlers, it is Python's alone.
    assert first.code in ((0, 130) if begun else (130, 1, -number)), first
    assert first.err in ("", "loadbench: interrupted\n") or not begun
    assert "Traceback" not in first.err
    assert reported.code == (0 if begun else 2), reported
    assert second.code == 0, second
    totals = [(one["id"], one["completed"]) for one in json.loads((path / "summary.json").read_bytes())["levels"]]
    assert totals == [("simulator@c2", 12), ("simulator@c4", 12), ("simulator@c2#end", 12)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_once_lets_requests_in_flight_end(number: int, loadbench: Forks, server: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "run"
    command = loadbench.start("run", "-e", server.url, "-c", "4,8", "-d", "60s", "--max-tokens", 300, "-o", path)
    until(lambda: records(path), command)
    command.signal(number)
    ended = command.wait(20)
    summary = json.loads((path / "summary.json").read_bytes())

    assert ended.code == 130, ended
    assert [(level["id"], level["status"]) for level in summary["levels"]] == [("simulator@c4", "interrupted")]
    assert str(path / "report.html") in ended.out
    assert {one["error"] for one in records(path)} == {None}
    assert read_info(path)["status"] == "interrupted"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_twice_stops_at_once_and_records_what_was_in_flight(
    number: int, loadbench: Forks, server: Simulator, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    simulator.reset(server.url)
    words = ("-e", server.url, "-c", "2", "--max-tokens", 80_000, "--warmup", 0, "-o", path)  # 40 s an answer
    command = loadbench.start("run", *words)
    until(lambda: simulator.truth(server.url)["requests"] == 4, command)  # two probes, two in flight
    command.signal(number)
    until(lambda: "Ctrl-C again stops at once" in command.said()[1], command)
    command.signal(number)
    ended = command.wait(10)
    [level] = json.loads((path / "summary.json").read_bytes())["levels"]

    assert ended.code == 130, ended
    assert [level[name] for name in ("offered", "dropped", "attempted", "cancelled")] == [2, 0, 2, 2]


@pytest.mark.parametrize("lines", [1, 3])
def test_a_run_whose_reader_goes_away_ends_without_a_word_and_goes_on(
    lines: int, loadbench: Forks, server: Simulator, tmp_path: Path
) -> None:
    path, pipe = tmp_path / "run", tmp_path / "pipe"
    os.mkfifo(pipe)
    into_pipe = f"import os; os.dup2(os.open({str(pipe)!r}, os.O_WRONLY), 1)"
    command = loadbench.start("run", "-e", server.url, "-c", "2", *BRIEF, "--json", "-o", path, before=into_pipe)
    with pipe.open() as reader:
        for _ in range(lines):
            reader.readline()
    ended = command.wait(20)
    resumed = loadbench.run("run", "--resume", path, "--quiet")

    assert (ended.code, ended.err) == (1, "")
    assert resumed.code == 0, resumed


# -- suspended


@pytest.mark.parametrize("stamps", ["kernel", "user"])
def test_a_run_that_was_suspended_goes_on_and_says_that_it_stood_still(
    stamps: str, loadbench: Forks, server: Simulator, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    words = ("-c", "2", "-n", 80, "--max-tokens", 100, "--stamps", stamps, "--quiet", "-o", path, "--no-repeat-first")
    command = loadbench.start("run", "-e", server.url, *words)
    until(lambda: records(path), command)
    command.signal(signal.SIGSTOP)
    time.sleep(1.5)
    command.signal(signal.SIGCONT)
    ended = command.wait()
    summary = json.loads((path / "summary.json").read_bytes())
    [level] = summary["levels"]
    doubts = {one["code"]: one["text"] for one in level["warnings"]}

    assert ended.code == 0, ended
    assert (level["completed"], level["offered"]) == (80, 80)
    assert 1.3 < level["client_pause_s"] < 5
    assert doubts["paused"].startswith("this client stood still for ")
    assert "look at what the server did" not in doubts.get("stalls", "")


# -- nobody is left behind


@pytest.mark.parametrize(
    ("number", "measuring"),
    [
        (signal.SIGTERM, False),
        (signal.SIGKILL, False),
        (signal.SIGKILL, True),
        pytest.param(signal.SIGINT, False, marks=pytest.mark.endurance),
        pytest.param(signal.SIGINT, True, marks=pytest.mark.endurance),
        pytest.param(signal.SIGTERM, True, marks=pytest.mark.endurance),
    ],
)
def test_the_simulator_that_a_run_started_ends_with_it(
    number: int, measuring: bool, loadbench: Forks, tmp_path: Path
) -> None:
    path, mark = tmp_path / "run", f"{tmp_path} {number}"
    command = loadbench.start("run", "--simulate", "-c", "2", "-d", "60s", "-o", path, variables={"MARK": mark})
    until(lambda: records(path) if measuring else started_by(mark), command)
    command.signal(number)
    ended = command.wait(20)

    assert gone(mark), ended
    assert ended.code == (130 if number != signal.SIGKILL else -number), ended


@pytest.mark.skipif(llama.available() is not None, reason="the embedded model does not run here")
@pytest.mark.parametrize(
    ("number", "measuring"),
    [
        (signal.SIGKILL, True),
        pytest.param(signal.SIGTERM, False, marks=pytest.mark.endurance),
        pytest.param(signal.SIGKILL, False, marks=pytest.mark.endurance),
    ],
)
def test_the_embedded_model_that_a_run_started_ends_with_it(
    number: int, measuring: bool, loadbench: Forks, tmp_path: Path
) -> None:
    path, mark = tmp_path / "run", f"{tmp_path} {number}"
    variables = {"MARK": mark, "FOUNDRY_LOCAL_ENDPOINT": ""}
    command = loadbench.start("run", "-c", "1", "-d", "60s", "--max-tokens", 4, "-o", path, variables=variables)
    until(lambda: records(path) if measuring else started_by(mark), command, 60)
    command.signal(number)
    ended = command.wait(20)

    assert gone(mark), ended
    assert ended.code == (130 if number != signal.SIGKILL else -number), ended
