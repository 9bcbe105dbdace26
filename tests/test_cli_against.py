"""`loadbench run --against`: two targets in turns, each into its own run folder, compared at the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from loadbench.serve import simulator
from loadbench.serve.simulator import Simulator
from tests.support.command import invoke, invoked

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("place")]

ROOT = Path(__file__).parents[1]
WORDS = ("-c", "1,2", "-n", "16", "--max-tokens", "4", "--no-telemetry", "--repeat", "2", "-o", "both")


@pytest.fixture(scope="module")
def slow() -> Iterator[Simulator]:
    with simulator.start(ttft_ms=20, itl_ms=1) as server:
        yield server


def run(*words: object) -> Result:
    return invoked("run", *words)


def levels(side: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((Path("both") / side / "run.json").read_bytes())["levels"]
    return found


def test_each_level_is_measured_of_both_in_turns_and_all_are_compared(quick: Simulator, slow: Simulator) -> None:
    done = run("-e", quick.url, "--against", slow.url, *WORDS)
    began = sorted((level["began"], side, level["id"]) for side in ("base", "new") for level in levels(side))

    assert done.exit_code == 0, done.output
    assert [(side, name.partition("@")[2]) for _, side, name in began] == [
        *(("base", "c1"), ("new", "c1"), ("new", "c2"), ("base", "c2")),
        *(("base", "c2#2"), ("new", "c2#2"), ("new", "c1#2"), ("base", "c1#2")),
    ]
    assert "[3/8] new simulator@c2" in done.stderr
    assert "BASE" in done.stdout
    assert "again     loadbench compare both --explain" in done.stdout
    assert json.loads((Path("both") / "compare.json").read_bytes())["comparisons"][0]["new"]["name"] == "new"
    assert (Path("both") / "compare.md").exists()


def test_each_side_is_an_ordinary_run_folder(quick: Simulator, slow: Simulator) -> None:
    run("-e", quick.url, "--against", slow.url, *WORDS, "-q")
    reported = invoke("report", "both/new", "--format", "json")
    compared = invoke("compare", "both/base", "both/new", "--format", "json", "--metric", "ttft")
    [record] = json.loads(compared.stdout)["comparisons"]

    assert {level["status"] for level in json.loads(reported.stdout)["levels"]} == {"complete"}
    assert json.loads(invoke("compare", "both", "--format", "json").stdout) == json.loads(
        Path("both/compare.json").read_bytes()
    )
    assert f"in turns with {quick.url}" in " ".join(invoke("report", "both/new", "--full").stdout.split())
    assert all(level["interleaved"] for level in record["levels"])
    assert all(level["verdicts"][0]["ratio"] > 1.5 for level in record["levels"])


def test_a_dry_run_plans_both_and_writes_nothing(place: Path, quick: Simulator, slow: Simulator) -> None:
    done = run("-e", quick.url, "--against", slow.url, *WORDS, "--dry-run")
    told = done.stderr.splitlines()

    assert done.exit_code == 0
    assert [line for line in told if line.startswith(("base ", "new "))] == [
        f"base      {quick.url} (simulator 0.1.0), as given",
        f"new       {slow.url} (simulator 0.1.0), as given",
    ]
    assert "levels    c1, c2 (streams at once), 2 times, base and new in turns; 16 requests each" in told
    assert not Path("both").exists()


def test_a_server_that_is_not_there_is_told_before_anything_is_measured(quick: Simulator) -> None:
    done = run("-e", quick.url, "--against", "http://127.0.0.1:9", *WORDS)

    assert done.exit_code == 1
    assert "127.0.0.1:9" in done.stderr
    assert not Path("both").exists()


def test_a_budget_is_shared_by_both(quick: Simulator, slow: Simulator) -> None:
    done = run("-e", quick.url, "--against", slow.url, *WORDS, "--budget", "32s", "--dry-run")

    assert "levels    c1, c2 (streams at once), base and new in turns; 16 requests or 6 s each" in done.stderr


def test_a_scenario_may_name_the_other_server(place: Path, quick: Simulator, slow: Simulator) -> None:
    (place / "two.toml").write_text(f'endpoint = "{quick.url}"\nagainst = "{slow.url}"\nconcurrency = [1]\n')
    run_of = run("two.toml", "--dry-run")
    search = invoke("capacity", "two.toml", "--slo", "ttft_p95=1s", "--dry-run")

    assert f"new       {slow.url}" in run_of.stderr
    assert (search.exit_code, search.stderr[:41]) == (2, "loadbench: against: only the command load")


def test_until_ends_both_after_the_same_round(quick: Simulator, slow: Simulator) -> None:
    words = (
        "-c",
        "1",
        "-n",
        "30",
        "--max-tokens",
        "4",
        "--no-telemetry",
        "--until",
        "60%",
        "--repeat",
        "4",
        "-o",
        "both",
    )
    done = run("-e", quick.url, "--against", slow.url, *words)
    counts = [len(levels(side)) for side in ("base", "new")]

    assert done.exit_code == 0, done.output
    assert counts[0] == counts[1] >= 3
    assert [line[: line.index(" the")] for line in done.stderr.splitlines() if " runs the least " in line][:2] == [
        *("base: after 3 runs", "new: after 3 runs")
    ]


def test_programs_read_names_of_sides_and_the_comparison_last(quick: Simulator, slow: Simulator) -> None:
    done = run("-e", quick.url, "--against", slow.url, *WORDS, "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]

    assert events[0]["levels"][:3] == ["base simulator@c1", "new simulator@c1", "new simulator@c2"]
    assert [event["level"] for event in events if event["event"] == "level_ended"] == events[0]["levels"]
    assert [event["event"] for event in events[-3:]] == ["summary", "summary", "compared"]
    assert events[-1]["comparisons"][0]["kind"] == "runs"


def test_two_models_of_one_server_can_be_the_sides() -> None:
    with simulator.start(models=("one", "other"), ttft_ms=1, itl_ms=1) as server:
        words = ("-e", server.url, "-m", "one", "--against", server.url, "--against-model", "other")
        done = run(*words, *WORDS)
    [record] = json.loads((Path("both") / "compare.json").read_bytes())["comparisons"]

    assert done.exit_code == 0, done.output
    assert (record["base"]["models"], record["new"]["models"]) == (["one"], ["other"])
    assert {one["severity"] for level in record["levels"] for one in level["differences"]} == {"note"}


def test_a_threshold_that_one_side_fails_fails_the_run_and_is_told_of_that_side(
    quick: Simulator, slow: Simulator
) -> None:
    done = run("-e", quick.url, "--against", slow.url, *WORDS, "-q", "--fail-if", "ttft_p50 > 10ms")

    assert done.exit_code == 3
    assert all(line.startswith("loadbench: new: ttft_p50") for line in done.stderr.splitlines())


@pytest.mark.skipif(sys.platform == "win32", reason="its signals are others")
def test_what_was_interrupted_goes_on_in_turns(place: Path, quick: Simulator, slow: Simulator) -> None:
    words = ("run", "-e", quick.url, "--against", slow.url, *WORDS)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-m", "loadbench", *words], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        said = next(line for line in process.stderr if line.startswith("[3/8]"))
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    before = {side: [level["status"] for level in levels(side)] for side in ("base", "new")}
    done = run("--resume", "both")
    began = sorted((level["began"], side, level["id"]) for side in ("base", "new") for level in levels(side))
    whole = [(side, name.partition("@")[2]) for _, side, name in began][-4:]

    assert (process.returncode, said.split()[1:3]) == (130, ["new", "simulator@c2"])
    assert rest.splitlines()[-1] == "interrupted; go on with: loadbench run --resume both"
    assert before["new"] == ["complete", "complete"]
    assert done.exit_code == 0, done.output
    assert whole == [("base", "c2#2"), ("new", "c2#2"), ("new", "c1#2"), ("base", "c1#2")]
    assert (Path("both") / "compare.md").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--against-model", "m"), "--against-model: against_model names a model of against: give both"),
        (("--against", "http://127.0.0.1:9", "--junit", "j.xml"), "--junit is for a run of one target"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(words: tuple[str, ...], said: str, quick: Simulator) -> None:
    done = run("-e", quick.url, "-c", "1", *words)

    assert done.exit_code == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_models_of_which_none_is_on_both_sides_are_refused(quick: Simulator) -> None:
    with simulator.start(models=("one", "other")) as server:
        done = run("-e", server.url, "-m", "one,other", "--against", quick.url, "--against-model", quick.model)

    assert done.exit_code == 2
    assert "no model in common: the base has one, other, the other simulator" in done.stderr
