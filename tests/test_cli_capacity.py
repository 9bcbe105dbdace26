"""`loadbench capacity` against servers whose limit is declared; what is wrong with its options is one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from loadbench.runner import probe as rule
from loadbench.serve import simulator
from loadbench.serve.simulator import Simulator
from tests.support.command import invoke, invoked

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("place")]

ROOT = Path(__file__).parents[1]
BRIEF = ("--max-tokens", "4", "--no-telemetry", "--no-answers")


def capacity(*words: object, **variables: str) -> Result:
    return invoked("capacity", *words, **variables)


def summary(folder: str = "run") -> dict[str, Any]:
    read: dict[str, Any] = json.loads((Path(folder) / "summary.json").read_bytes())
    return read


def record(folder: str = "run") -> dict[str, Any]:
    return dict(json.loads((Path(folder) / "run.json").read_bytes())["capacity"][0])


# -- servers whose limit is known


def test_slots_and_a_bound_of_ttft_give_as_many_streams_as_slots() -> None:
    """With a fifth stream one request of five waits 60 ms, as long as an answer takes."""
    with simulator.start(ttft_ms=30, itl_ms=10, slots=4) as server:
        done = capacity("-e", server.url, "--slo", "ttft_p90=60ms", "--from", "4", "-o", "run", *BRIEF)

    assert done.exit_code == 0, done.output
    assert summary()["capacity_concurrency"] == 4
    # On a busy machine 5 streams may stay undecided: then the first that is surely too many is 6.
    assert summary()["capacity"][0]["bracket"] in ([4, 5], [4, 6])
    assert [step["load"] for step in record()["steps"]] == [4, 8, 6, 5, 4]
    assert "capacity 4 streams within ttft_p90=60ms; 5 streams not" in " ".join(done.stdout.split())
    assert "c4: met (" in done.stderr


def test_a_gap_that_grows_with_every_stream_gives_the_stream_at_which_it_meets_the_bound() -> None:
    """ITL = 4 ms + 6 ms for each other stream: 16 ms at 3, 22 ms at 4."""
    with simulator.start(ttft_ms=5, itl_ms=4, itl_per_stream_ms=6) as server:
        words = (
            "--slo",
            "itl_p50=19ms",
            "--slo",
            "success=80%",
            "--from",
            "2",
            "-o",
            "run",
            "--max-tokens",
            "6",
            "--no-telemetry",
        )
        done = capacity("-e", server.url, *words)

    assert done.exit_code == 0, done.output
    assert summary()["capacity_concurrency"] in (2, 3, 4)


@pytest.fixture
def quick_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes at a rate that last a second where they would last a minute: what queues need is tested elsewhere."""
    for name, seconds in (("STEADY_S", 0.5), ("CONFIRM_S", 1.0)):
        monkeypatch.setattr(rule, name, seconds)


@pytest.mark.usefixtures("quick_queues")
def test_a_rate_is_found_where_slots_can_serve_no_more() -> None:
    """2 slots, 20 ms a request: 100 requests per second."""
    with simulator.start(ttft_ms=5, itl_ms=5, slots=2) as server:
        words = ("--by", "rate", "--from", "80", "--within", "50%", "--arrivals", "constant", "-n", "60")
        words = (*words, "--warmup", "0")
        done = capacity("-e", server.url, "--slo", "ttft_p90=50ms", "-o", "run", *words, *BRIEF)

    assert done.exit_code == 0, done.output
    low, high = record()["bracket"]
    assert low <= 100 * 1.05
    assert high >= 100 * 0.95
    assert summary()["capacity_rate_per_s"] == low


def test_a_backlog_ends_a_probe_although_the_slo_holds_for_now() -> None:
    """1 slot, 20 ms a request: at 80 per second each request waits 7.5 ms longer than the one before."""
    with simulator.start(ttft_ms=8, itl_ms=4, slots=1) as server:
        words = ("--by", "rate", "--from", "80", "--max", "80", "--arrivals", "constant", "--budget", "2s")
        words = (*words, "--warmup", "0")
        done = capacity("-e", server.url, "--slo", "ttft_p95=60s", "-o", "run", *words, *BRIEF)
    step = record()["steps"][0]

    assert done.exit_code == 3, done.output
    assert (step["load"], step["verdict"]) == (80, "not met")
    assert step["reason"].startswith("saturated: with each second requests stay ")
    assert step["requests"] < 200


def test_a_server_that_meets_it_at_no_load_is_exit_3(quick: Simulator) -> None:
    done = capacity("-e", quick.url, "--slo", "ttft_p95=0.1ms", "-o", "run", *BRIEF)

    assert done.exit_code == 3
    assert record()["found"] is None
    assert "capacity below 1 stream" in done.stdout


def test_a_budget_gives_a_bracket(quick: Simulator) -> None:
    done = capacity("-e", quick.url, "--slo", "ttft_p95=10s", "-o", "run", "--budget", "2s", *BRIEF)

    assert done.exit_code == 0, done.output
    assert summary()["capacity_concurrency"] is None
    assert record()["reason"] == "the budget of time was spent"
    assert "capacity at least" in done.stdout


# -- what it tells


def test_the_plan_comes_first_and_a_dry_run_ends_there(quick: Simulator) -> None:
    done = capacity("-e", quick.url, "--slo", "success=99%", "--slo", "ttft_p95=1s", "-o", "run", "--dry-run")

    assert done.exit_code == 0
    assert not Path("run").exists()
    assert "slo       success=99%, ttft_p95=1s" in done.stderr
    assert (
        "search    c1 (streams at once), doubled up to c1000 until the SLO fails, then bisected to 5 %" in done.stderr
    )
    assert "judged after 568, 1136, 2272, each time by an interval of 98.33 %" in done.stderr


def test_a_search_by_rate_says_how_long_it_takes(quick: Simulator) -> None:
    done = capacity("-e", quick.url, "--slo", "e2e_p95=2s", "--by", "rate", "-o", "run", "--dry-run")
    shown = " ".join(done.stderr.split())

    assert "met only where its queue is steady for 20 s after a warm-up, for 60 s or as long as the SLO needs" in shown
    assert "a probe that meets it takes 146 s at r1 and 27 s or more at higher rates" in shown
    assert "10 to 20 minutes; --budget 10m sets an end" in shown


def test_json_lines_hold_every_step(quick: Simulator) -> None:
    done = capacity("-e", quick.url, "--slo", "ttft_p95=10s", "-o", "run", "--max", "2", "--json", "-n", "80", *BRIEF)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    steps = [event for event in events if event["event"] == "step"]

    assert [(step["model"], step["load"], step["verdict"]) for step in steps] == [
        ("simulator", load, "met") for load in (1, 2, 2)
    ]
    assert events[-1]["summary"]["capacity_concurrency"] == 2


def test_the_report_shows_the_steps_and_is_made_again_from_the_folder(quick: Simulator) -> None:
    capacity("-e", quick.url, "--slo", "ttft_p95=10s", "-o", "run", "--max", "2", "-n", "80", *BRIEF)
    again = invoke("report", "run", "--format", "markdown")

    assert (
        "- **capacity 2 streams within ttft\\_p95=10s, or more (the highest load that was allowed meets it).**"
        in (again.stdout)
        or "**capacity 2 streams within ttft_p95=10s, or more" in again.stdout
    )
    assert "### Search for the capacity" in again.stdout
    assert "| c2 (2) | met |" in again.stdout


# -- what is wrong


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--slo is missing: say what the load is to meet, as --slo ttft_p95=800ms --slo success=99%"),
        (("--slo", "success=99%", "-n", "100"), "give -n 381 or more"),
        (("--slo", "ttft_p95=1s", "--from", "1.5"), "streams are whole; for a rate add --by rate"),
        (("--slo", "ttft_p95=1s", "--from", "8", "--max", "4"), "--max 4 is less than --from 8"),
        (("--slo", "ttft_p95=1s", "--within", "0"), "--within 0%: must be between 0.5% and 100%"),
        (("--slo", "ttft_p95=1s", "--max", "0"), "--max 0: must be more than 0"),
        (("--slo", "ttft_p95=1s", "--no-stream"), "answers that are asked for whole have no ttft"),
        (("--slo", "ttft_p95=1s", "--budget", "10ms"), "--budget 0.01s is too short"),
        (("--slo", "speed=1s"), "unknown metric"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_asked(words: tuple[str, ...], said: str) -> None:
    done = capacity("-e", "http://127.0.0.1:9", *words)

    assert done.exit_code == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_scenarios_slo_serves_too(quick: Simulator) -> None:
    Path("chat.toml").write_text('slo = ["ttft_p95=10s"]\nconcurrency = [1, 2]\n', encoding="utf-8")
    done = capacity("chat.toml", "-e", quick.url, "--dry-run")

    assert done.exit_code == 0
    assert "slo       ttft_p95=10s" in done.stderr


# -- going on


@pytest.mark.skipif(sys.platform == "win32", reason="its signals are others")
def test_an_interrupted_search_holds_its_bracket_and_goes_on() -> None:
    with simulator.start(ttft_ms=40, itl_ms=20, slots=2) as server:
        words = ("--slo", "ttft_p90=100ms", "--from", "2", "-o", "run", *BRIEF)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(
            [sys.executable, "-m", "loadbench", "capacity", "-e", server.url, *words],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            end_s = time.monotonic() + 30
            while not (Path("run/run.json").exists() and record()["steps"]):
                assert time.monotonic() < end_s
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=30)
        before = record()
        refused = invoke("run", "--resume", "run")
        done = capacity("--resume", "run")

    assert process.returncode == 130
    assert "loadbench capacity --resume run" in said
    assert (before["bracket"], before["reason"]) == ([2, None], "the search was interrupted")
    assert (refused.exit_code, "continue it with loadbench capacity --resume" in refused.stderr) == (2, True)
    assert done.exit_code == 0, done.output
    assert record()["found"] == 2
    assert record()["steps"][0] == before["steps"][0]


def test_a_plain_run_is_not_continued_as_a_search(quick: Simulator) -> None:
    invoke("run", "-e", quick.url, "-c", "1", "-n", "2", "-o", "run", *BRIEF)
    done = capacity("--resume", "run")

    assert done.exit_code == 2
    assert "continue it with loadbench run --resume" in done.stderr


@pytest.mark.parametrize("option", ["--against", "--repeat ", "--until", "--fail-if", "--concurrency"])
def test_options_that_a_search_would_not_heed_are_not_offered(option: str) -> None:
    assert f"  {option}" not in invoke("capacity", "--help").output
