"""`loadbench run --against`: two targets in turns, each into its own run folder, compared at the end."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from conftest import invoke

from loadbench import simulator
from loadbench.simulator import Simulator

WORDS = ("-c", "1,2", "-n", "40", "--max-tokens", "4", "--no-telemetry", "--repeat", "2", "-o", "both")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith(("LOADBENCH_", "BENCH_", "FOUNDRY_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def slow() -> Iterator[Simulator]:
    with simulator.start(ttft_ms=20, itl_ms=2) as server:
        yield server


def run(*words: object) -> Result:
    done = invoke("run", *words)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def levels(side: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((Path("both") / side / "run.json").read_bytes())["levels"]
    return found


def test_both_are_measured_in_turns_and_compared(quick: Simulator, slow: Simulator) -> None:
    done = run("-e", quick.url, "--against", slow.url, *WORDS)
    began = sorted((level["began"], side, level["id"]) for side in ("base", "new") for level in levels(side))

    assert done.exit_code == 0, done.output
    assert [line for line in done.stderr.splitlines() if "  round " in line] == [
        *("base      round 1 of 2", "new       round 1 of 2"),
        *("new       round 2 of 2", "base      round 2 of 2"),
    ]
    assert [(side, name.partition("@")[2]) for _, side, name in began] == [
        *(("base", "c1"), ("base", "c2"), ("new", "c1"), ("new", "c2")),
        *(("new", "c2#2"), ("new", "c1#2"), ("base", "c2#2"), ("base", "c1#2")),
    ]
    assert "BASE" in done.stdout
    assert "Verdicts" in done.stdout
    assert (Path("both") / "compare.md").exists()


def test_each_side_is_an_ordinary_run_folder(quick: Simulator, slow: Simulator) -> None:
    run("-e", quick.url, "--against", slow.url, *WORDS, "-q")
    reported = invoke("report", "both/new", "--format", "json")
    compared = invoke("compare", "both/base", "both/new", "--format", "json", "--metric", "ttft")
    [record] = json.loads(compared.stdout)["comparisons"]

    assert {level["status"] for level in json.loads(reported.stdout)["levels"]} == {"complete"}
    assert all(level["interleaved"] for level in record["levels"])
    assert all(level["verdicts"][0]["ratio"] > 1.5 for level in record["levels"])


def test_a_dry_run_plans_both_and_writes_nothing(place: Path, quick: Simulator, slow: Simulator) -> None:
    done = run("-e", quick.url, "--against", slow.url, *WORDS, "--dry-run")

    assert done.exit_code == 0
    assert f"target    {slow.url}" in done.stderr
    assert not Path("both").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--against-model", "m"), "--against-model names a model of --against URL: give both"),
        (("--against", "http://127.0.0.1:9", "--budget", "5m"), "--against takes --repeat K"),
        (("--against", "http://127.0.0.1:9", "--until", "5%"), "--against takes --repeat K"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(words: tuple[str, ...], said: str, quick: Simulator) -> None:
    done = run("-e", quick.url, "-c", "1", *words)

    assert done.exit_code == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
