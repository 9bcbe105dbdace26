"""Real processes, killed and interrupted in mid-run: what was measured stays, and a run can be continued."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from loadbench import store
from loadbench.serve import simulator
from loadbench.serve.simulator import Simulator

pytestmark = [pytest.mark.system, pytest.mark.skipif(sys.platform == "win32", reason="its signals are others")]

ROOT = Path(__file__).parents[1]
N = 44
"""Requests of a level. Two at a time, at 60 ms each, they take 1.4 s whatever the level."""
TOKENS = 11


@pytest.fixture(scope="module")
def server() -> Iterator[Simulator]:
    with simulator.start(ttft_ms=40, itl_ms=2, slots=2) as running:
        yield running


ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("LOADBENCH_", "BENCH_"))}


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "loadbench", *map(str, words)]


@contextlib.contextmanager
def started(*words: object) -> Iterator[subprocess.Popen[str]]:
    """A loadbench process; what it says on stdout and stderr is read at its end."""
    process = subprocess.Popen(
        command(*words), cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def run(*words: object, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = ENVIRONMENT | variables
    return subprocess.run(command(*words), cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60)


def until(true: Callable[[], object], process: subprocess.Popen[str], within_s: float = 20.0) -> None:
    """Look every few ms whether it came true; the process must live till then."""
    end_s = time.monotonic() + within_s
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end_s, "it did not come true"
        time.sleep(0.005)


def levels(path: Path) -> list[dict[str, Any]]:
    with contextlib.suppress(FileNotFoundError):
        found: list[dict[str, Any]] = json.loads((path / "run.json").read_bytes())["levels"]  # whole at any time
        return found
    return []


def records(path: Path) -> list[dict[str, Any]]:
    """Of requests.jsonl, all lines but a last one that was cut off."""
    lines = (path / "requests.jsonl").read_bytes().split(b"\n") if (path / "requests.jsonl").exists() else []
    return [json.loads(line) for line in lines[:-1] if line]


def level_of(summary: dict[str, Any], name: str) -> dict[str, Any]:
    return next(level for level in summary["levels"] if level["id"].endswith(name))


@pytest.fixture(scope="module")
def killed(server: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was killed (-9) in its second level, after some of its records were written."""
    path = tmp_path_factory.mktemp("killed") / "run"
    with started(
        "run", "-e", server.url, "-c", "2,4", "--no-repeat-first", "-n", N, "--max-tokens", TOKENS, "-o", path
    ) as process:
        until(lambda: len(levels(path)) == 2 and any(one["level"].endswith("@c4") for one in records(path)), process)
        process.kill()
        process.wait()
    return path


@pytest.fixture(scope="module")
def reported(killed: Path) -> dict[str, Any]:
    """summary.json of the killed run, before anyone continued it."""
    done = run("report", killed, "--format", "json")

    assert done.returncode == 0, done.stderr
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


@pytest.fixture(scope="module")
def resumed(killed: Path, reported: dict[str, Any], server: Simulator) -> Path:
    """The killed run's folder after it was continued."""
    simulator.reset(server.url)
    done = run("run", "--resume", killed)

    assert done.returncode == 0, done.stderr
    return killed


# -- kill -9


def test_a_killed_run_is_reported_with_its_level_marked(reported: dict[str, Any]) -> None:
    whole, cut = level_of(reported, "@c2"), level_of(reported, "@c4")

    assert (whole["status"], whole["completed"]) == ("complete", N)
    assert cut["status"] == "incomplete"
    assert 0 < cut["completed"] < N


def test_continuing_measures_only_what_is_missing(resumed: Path, server: Simulator) -> None:
    asked = Counter((one["level"], one["attempt"]) for one in records(resumed))

    assert asked["simulator@c2", 1] == N + 2  # warm-up: a request a stream
    assert 0 < asked["simulator@c4", 1] < N + 4
    assert asked["simulator@c4", 2] == N + 4
    assert simulator.truth(server.url)["requests"] == N + 4 + 2  # probes


def test_the_totals_are_those_of_a_run_that_nothing_disturbed(resumed: Path) -> None:
    summary = json.loads((resumed / "summary.json").read_bytes())
    totals = [
        [level[name] for name in ("id", "status", "offered", "attempted", "completed", "failed", "cancelled")]
        for level in summary["levels"]
    ]
    tokens = [store_level.results.output_tokens.sum() for store_level in store.read(resumed).levels]

    assert totals == [[f"simulator@c{c}", "complete", N, N, N, 0, 0] for c in (2, 4)]
    assert tokens == [(N + 2) * TOKENS, (N + 4) * TOKENS]


def test_a_continued_level_asks_the_same_prompts_in_the_same_order(resumed: Path) -> None:
    orders: dict[tuple[str, int], list[str]] = {}
    for one in sorted(records(resumed), key=lambda one: one["request"]):
        orders.setdefault((one["level"], one["attempt"]), []).append(one["prompt"])
    first, second = orders["simulator@c2", 1], orders["simulator@c4", 2]

    assert second[: len(first)] == first


def test_every_line_is_a_record_but_one_at_the_most(resumed: Path) -> None:
    assert store.read(resumed).unreadable_lines <= 1


def test_a_run_that_is_complete_has_nothing_to_continue(resumed: Path, server: Simulator) -> None:
    simulator.reset(server.url)
    done = run("run", "--resume", resumed)

    assert done.returncode == 0, done.stderr
    assert simulator.truth(server.url)["requests"] == 0


def test_options_that_would_change_the_plan_are_refused(resumed: Path) -> None:
    done = run("run", "--resume", resumed, "-c", "8")

    assert done.returncode == 2
    assert "leave out -c" in done.stderr


# -- Ctrl-C


def test_one_ctrl_c_drains_and_reports(server: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "run"
    with started("run", "-e", server.url, "-c", "2,4", "-n", 1000, "--max-tokens", TOKENS, "-o", path) as process:
        until(lambda: records(path), process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    summary = json.loads((path / "summary.json").read_bytes())

    assert process.returncode == 130, err
    assert [(level["id"], level["status"]) for level in summary["levels"]] == [("simulator@c2", "interrupted")]
    assert {one["error"] for one in records(path)} == {None}, "requests in flight ran to their end"
    assert str(path / "report.html") in out
    assert "Ctrl-C again stops at once" in err


def test_two_ctrl_c_stop_at_once_and_record_what_was_in_flight(server: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "run"
    simulator.reset(server.url)
    with started("run", "-e", server.url, "-c", "2", "--max-tokens", 20_000, "-o", path) as process:  # 40 s an answer
        until(lambda: simulator.truth(server.url)["requests"] == 4, process)  # two probes, two in flight
        began_s = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        said = iter(process.stderr.readline, "")
        assert any("Ctrl-C again stops at once" in line for line in said)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
        took_s = time.monotonic() - began_s

    assert process.returncode == 130
    assert took_s < 5
    assert store.read_info(path)["status"] == "interrupted"
    assert [one["error"] for one in records(path)] == ["cancelled"] * 2


# -- the plan of a continued run is that of its beginning


def test_a_budget_that_left_levels_out_leaves_them_out_again(server: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "run"
    begun = run("run", "-e", server.url, "-c", "1,2", "-n", 2, "--budget", "8s", "--max-tokens", 2, "-o", path)
    continued = run("run", "--resume", path)

    assert (begun.returncode, continued.returncode) == (0, 0), begun.stderr + continued.stderr
    assert [level["id"] for level in levels(path)] == ["simulator@c1"]


def test_models_that_the_server_loaded_since_are_not_measured(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with simulator.start(models=["a"]) as before:
        begun = run("run", "-e", before.url, "-c", "1", "-n", 2, "--max-tokens", 2, "-o", path)
    port = int(before.url.removesuffix("/v1").rpartition(":")[2])
    with simulator.start(models=["b", "a"], port=port):
        continued = run("run", "--resume", path)

    assert (begun.returncode, continued.returncode) == (0, 0), begun.stderr + continued.stderr
    assert [level["id"] for level in levels(path)] == ["a@c1"]


def test_the_prompts_are_those_the_run_began_with_whatever_became_of_their_file(
    server: Simulator, tmp_path: Path
) -> None:
    path, prompts = tmp_path / "run", tmp_path / "prompts.json"
    prompts.write_text('[{"id": "x", "prompt": "Where is Lisbon?", "group": "g", "expected": ["Portugal"]}]')
    begun = run("run", "-e", server.url, "-c", "1", "-n", 2, "--prompts", prompts, "--max-tokens", 2, "-o", path)
    prompts.unlink()
    continued = run("run", "--resume", path)

    assert (begun.returncode, continued.returncode) == (0, 0), begun.stderr + continued.stderr
    assert json.loads((path / "prompts.json").read_bytes()) == [
        {
            "id": "x",
            "messages": [{"role": "user", "content": "Where is Lisbon?"}],
            "group": "g",
            "expected": ["Portugal"],
        }
    ]


def test_a_run_that_was_killed_before_it_kept_its_prompts_keeps_them_as_it_goes_on(
    server: Simulator, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    begun = run("run", "-e", server.url, "-c", "1", "-n", 2, "--prompt", "Why?", "--max-tokens", 2, "-o", path)
    before = (path / "prompts.json").read_bytes()
    (path / "prompts.json").unlink()
    continued = run("run", "--resume", path)

    assert (begun.returncode, continued.returncode) == (0, 0), begun.stderr + continued.stderr
    assert (path / "prompts.json").read_bytes() == before


def test_a_run_goes_on_with_the_server_it_began_with(server: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "run"
    begun = run("run", "-c", "1", "-n", 2, "--max-tokens", 2, "-o", path, FOUNDRY_LOCAL_ENDPOINT=server.url)
    info = json.loads((path / "run.json").read_bytes())
    info["levels"][0]["status"] = "running"
    (path / "run.json").write_text(json.dumps(info))
    continued = run("run", "--resume", path, FOUNDRY_LOCAL_ENDPOINT="http://127.0.0.1:1")

    assert (begun.returncode, continued.returncode) == (0, 0), begun.stderr + continued.stderr
    assert {level["endpoint"] for level in levels(path)} == {server.url}


def test_a_run_does_not_go_on_with_another_kind_of_server(server: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "run"
    run("run", "-e", server.url, "-c", "1", "-n", 2, "--max-tokens", 2, "-o", path)
    info = json.loads((path / "run.json").read_bytes())
    info["target"]["kind"] = "vllm"
    (path / "run.json").write_text(json.dumps(info))
    continued = run("run", "--resume", path)

    assert continued.returncode == 1
    assert "is now simulator, the run" in continued.stderr
