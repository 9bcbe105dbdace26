"""Runs killed (-9) at random moments, again and again: what was written is whole, and so is what comes at the end.

LOADBENCH_KILLS=1000 kills so often; the seed of each chain of kills is its test's name.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from loadbench import store
from loadbench.errors import UsageError
from loadbench.serve import simulator
from loadbench.serve.simulator import Simulator
from loadbench.store.files import read_info
from tests.support.forks import Command, Forks

pytestmark = [pytest.mark.system, pytest.mark.skipif(sys.platform != "linux", reason="forks, and signals them")]

N, TOKENS = 12, 6
LEVELS = {"simulator@c2": 2, "simulator@c4": 4, "simulator@c2#end": 2}
"""Requests of their warm-up."""
PHASES = ("start", "warm-up", "operation", "level", "between", "reports")
KILLS = int(os.environ.get("LOADBENCH_KILLS", "108"))
SIDE_BY_SIDE = 2
CHAINS = range(0, -(-KILLS // len(PHASES)), SIDE_BY_SIDE)

DIES_AT_OPERATION = """
import os, signal, sys
left = [{number}]
def audit(event, given):
    if event in ("open", "os.rename", "os.chmod", "os.mkdir", "os.remove") and {path!r} in str(given[0]):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(audit)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Simulator]:
    with simulator.start(ttft_ms=4, itl_ms=0.5, slots=8) as running:
        yield running


def levels(path: Path) -> list[tuple[str, str]]:
    """Of run.json, which is whole at any time."""
    if not (path / "run.json").exists():
        return []
    return [(one["id"], one["status"]) for one in json.loads((path / "run.json").read_bytes())["levels"]]


class Chain:
    """One run from its first kill to its end."""

    def __init__(self, loadbench: Forks, server: Simulator, path: Path, seed: int) -> None:
        self._loadbench, self._server, self._path = loadbench, server, path
        self._random = random.Random(seed)
        self.kills = 0

    def run(self) -> None:
        for phase in PHASES:
            while not self._kill(phase):  # it was over before: here, and then with a new run
                self._assert_whole()
                self._path = self._path.with_name(f"{self._path.name}x")
            self._assert_sound()
        ended = self._go_on().wait()

        assert ended.code == 0, ended
        self._assert_sound()
        self._assert_whole()

    def _go_on(self, before: str = "") -> Command:
        if (self._path / "run.json").exists():
            return self._loadbench.start("run", "--resume", self._path, "--quiet", before=before)
        words = ("-e", self._server.url, "-c", "2,4", "-n", N, "--max-tokens", TOKENS, "--quiet", "-o", self._path)
        return self._loadbench.start("run", *words, before=before)

    def _kill(self, phase: str) -> bool:
        """Kill the run in this phase; False where it was over before."""
        before = ""
        if phase == "operation":
            before = DIES_AT_OPERATION.format(number=self._random.randint(1, 20), path=str(self._path))
        known = len(levels(self._path)) if (self._path / "run.json").exists() else 0
        command = self._go_on(before)
        reached: Callable[[], object]
        match phase:
            case "operation":
                reached, most_s = command.over, 0.0
            case "start":
                reached, most_s = (lambda: True), 0.3
            case "warm-up":
                reached, most_s = (lambda: len(levels(self._path)) > known), 0.01
            case "level":
                reached, most_s = (lambda: len(levels(self._path)) > known), 0.08
            case "between":
                reached, most_s = (lambda: "complete" in [status for _, status in levels(self._path)[known:]]), 0.005
            case _:
                reached, most_s = (lambda: self._status() == "complete"), 0.1
        while not reached() and not command.over():
            time.sleep(0.001)
        time.sleep(self._random.uniform(0, most_s))
        command.signal(signal.SIGKILL)
        ended = command.wait()

        assert ended.code in (0, -signal.SIGKILL), ended
        self.kills += ended.code != 0
        return ended.code != 0

    def _status(self) -> Any:
        return read_info(self._path)["status"] if (self._path / "run.json").exists() else None

    def _assert_sound(self) -> None:
        """The folder is read and reported, and its books balance; before there is one, that is said in a line."""
        reported = self._loadbench.run("report", self._path, "--format", "json")
        if not (self._path / "run.json").exists():
            with pytest.raises(UsageError):
                store.read(self._path)
            assert (reported.code, reported.out) == (2, "")
            assert reported.err.count("\n") == 1
            return
        run = store.read(self._path)

        assert run.unreadable_lines <= self.kills
        assert (reported.code, reported.err) == (0, "")
        for level in json.loads(reported.out)["levels"]:
            attempted, done = level["attempted"], level["completed"] + level["failed"] + level["cancelled"]
            assert attempted == done, level
            if level["status"] == "complete":
                assert (level["offered"], level["dropped"], level["completed"]) == (N, 0, N), level
            else:
                assert level["offered"] is None or level["offered"] == level["dropped"] + attempted, level

    def _assert_whole(self) -> None:
        run, info = store.read(self._path), read_info(self._path)
        complete = [one["id"] for one in info["levels"] if one["status"] == "complete"]
        answers = [json.loads(line) for line in (self._path / "answers.jsonl").read_bytes().splitlines()]

        assert info["status"] == "complete"
        assert complete == list(LEVELS)
        for level in run.levels:
            asked = [
                one for one in answers if (one["level"], one["attempt"]) == (level.facts["id"], level.facts["attempt"])
            ]
            results, warmup = level.results, LEVELS[level.facts["id"]]
            assert results.request.tolist() == list(range(N + warmup))
            assert int(results.warmup.sum()) == warmup
            assert results.output_tokens.tolist() == [TOKENS] * (N + warmup)
            assert sorted(one["request"] for one in asked) == results.request[~results.warmup].tolist()
        assert [path.name for path in self._path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=[pytest.mark.endurance] if seed else []) for seed in CHAINS])
def test_a_run_that_is_killed_again_and_again_loses_nothing(
    seed: int, loadbench: Forks, server: Simulator, tmp_path: Path
) -> None:
    chains = [Chain(loadbench, server, tmp_path / str(number), seed + number) for number in range(SIDE_BY_SIDE)]
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        list(pool.map(Chain.run, chains))

    assert [chain.kills for chain in chains] == [len(PHASES)] * SIDE_BY_SIDE


@pytest.mark.parametrize(
    ("words", "whole"),
    [
        (("run", "-c", "1,2", "--repeat", "2", "-n", N), {"c1", "c2", "c1#2", "c2#2"}),
        (("run", "-r", "100,200", "-n", 30), {"r100", "r200", "r100#end"}),
        pytest.param(
            *(("run", "-c", "2", "--until", "50%", "-n", 20), {"c2", "c2#2", "c2#3"}), marks=pytest.mark.endurance
        ),
        (("capacity", "--slo", "ttft_p95=5s", "--max", "2", "-n", 80), {"c1", "c2", "c2#2"}),
        (("run", "-c", "1,2", "-n", N, "--against", "HERE"), {"c1", "c2", "c1#end"}),
    ],
)
def test_whatever_is_measured_each_level_is_whole_once(
    words: tuple[object, ...], whole: set[str], loadbench: Forks, server: Simulator, tmp_path: Path
) -> None:
    path, moment = tmp_path / "run", random.Random(str(words))
    sides = [path / "base", path / "new"] if "--against" in words else [path]
    begin = [server.url if word == "HERE" else word for word in words]
    begin += ["-e", server.url, "--max-tokens", 4, "--quiet", "-o", path]
    command = loadbench.start(*begin)
    for _ in range(3):
        while not all((side / "run.json").exists() for side in sides) and not command.over():
            time.sleep(0.001)
        time.sleep(moment.uniform(0, 0.5))
        command.signal(signal.SIGKILL)
        command.wait()
        command = loadbench.start(words[0], "--resume", path, "--quiet")
    ended = command.wait()

    assert (ended.code, ended.err) == (0, "")
    for side in sides:
        complete = [one for one, status in levels(side) if status == "complete"]
        assert len(complete) == len(set(complete))
        assert {one.removeprefix("simulator@") for one in complete} >= whole
