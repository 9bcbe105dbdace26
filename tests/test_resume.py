"""Real processes, killed and interrupted in mid-run: what was measured stays, and a run can be continued."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loadbench import store
from loadbench.serve import simulator
from loadbench.serve.simulator import Simulator
from tests.support.forks import Forks, until

pytestmark = [pytest.mark.system, pytest.mark.skipif(sys.platform != "linux", reason="forks, and signals them")]

N = 44
"""Requests of a level. Two at a time, at 60 ms each, they take 1.4 s whatever the level."""
TOKENS = 11


@pytest.fixture(scope="module")
def server() -> Iterator[Simulator]:
    with simulator.start(ttft_ms=40, itl_ms=2, slots=2) as running:
        yield running


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
def killed(loadbench: Forks, server: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was killed (-9) in its second level, after some of its records were written."""
    path = tmp_path_factory.mktemp("killed") / "run"
    words = ("-c", "2,4", "--no-repeat-first", "-n", N, "--max-tokens", TOKENS, "-o", path)
    command = loadbench.start("run", "-e", server.url, *words)
    until(lambda: len(levels(path)) == 2 and any(one["level"].endswith("@c4") for one in records(path)), command)
    command.signal(signal.SIGKILL)
    command.wait()
    return path


@pytest.fixture(scope="module")
def reported(loadbench: Forks, killed: Path) -> dict[str, Any]:
    """summary.json of the killed run, before anyone continued it."""
    done = loadbench.run("report", killed, "--format", "json")

    assert done.code == 0, done.err
    summary: dict[str, Any] = json.loads(done.out)
    return summary


@pytest.fixture(scope="module")
def resumed(loadbench: Forks, killed: Path, reported: dict[str, Any], server: Simulator) -> Path:
    """The killed run's folder after it was continued."""
    simulator.reset(server.url)
    done = loadbench.run("run", "--resume", killed)

    assert done.code == 0, done.err
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


def test_a_run_that_is_complete_has_nothing_to_continue(loadbench: Forks, resumed: Path, server: Simulator) -> None:
    simulator.reset(server.url)
    done = loadbench.run("run", "--resume", resumed)

    assert done.code == 0, done.err
    assert simulator.truth(server.url)["requests"] == 0


def test_options_that_would_change_the_plan_are_refused(loadbench: Forks, resumed: Path) -> None:
    done = loadbench.run("run", "--resume", resumed, "-c", "8")

    assert done.code == 2
    assert "leave out -c" in done.err


# -- the plan of a continued run is that of its beginning


def test_a_budget_that_left_levels_out_leaves_them_out_again(
    loadbench: Forks, server: Simulator, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    begun = loadbench.run(
        "run", "-e", server.url, "-c", "1,2", "-n", 2, "--budget", "8s", "--max-tokens", 2, "-o", path
    )
    continued = loadbench.run("run", "--resume", path)

    assert (begun.code, continued.code) == (0, 0), begun.err + continued.err
    assert [level["id"] for level in levels(path)] == ["simulator@c1"]


def test_models_that_the_server_loaded_since_are_not_measured(loadbench: Forks, tmp_path: Path) -> None:
    path = tmp_path / "run"
    with simulator.start(models=["a"]) as before:
        begun = loadbench.run("run", "-e", before.url, "-c", "1", "-n", 2, "--max-tokens", 2, "-o", path)
    port = int(before.url.removesuffix("/v1").rpartition(":")[2])
    with simulator.start(models=["b", "a"], port=port):
        continued = loadbench.run("run", "--resume", path)

    assert (begun.code, continued.code) == (0, 0), begun.err + continued.err
    assert [level["id"] for level in levels(path)] == ["a@c1"]


def test_the_prompts_are_those_the_run_began_with_whatever_became_of_their_file(
    loadbench: Forks, server: Simulator, tmp_path: Path
) -> None:
    path, prompts = tmp_path / "run", tmp_path / "prompts.json"
    prompts.write_text('[{"id": "x", "prompt": "Where is Lisbon?", "group": "g", "expected": ["Portugal"]}]')
    begun = loadbench.run(
        "run", "-e", server.url, "-c", "1", "-n", 2, "--prompts", prompts, "--max-tokens", 2, "-o", path
    )
    prompts.unlink()
    continued = loadbench.run("run", "--resume", path)

    assert (begun.code, continued.code) == (0, 0), begun.err + continued.err
    assert json.loads((path / "prompts.json").read_bytes()) == [
        {
            "id": "x",
            "messages": [{"role": "user", "content": "Where is Lisbon?"}],
            "group": "g",
            "expected": ["Portugal"],
        }
    ]


def test_a_run_that_was_killed_before_it_kept_its_prompts_keeps_them_as_it_goes_on(
    loadbench: Forks, server: Simulator, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    begun = loadbench.run(
        "run", "-e", server.url, "-c", "1", "-n", 2, "--prompt", "Why?", "--max-tokens", 2, "-o", path
    )
    before = (path / "prompts.json").read_bytes()
    (path / "prompts.json").unlink()
    continued = loadbench.run("run", "--resume", path)

    assert (begun.code, continued.code) == (0, 0), begun.err + continued.err
    assert (path / "prompts.json").read_bytes() == before


def test_a_run_goes_on_with_the_server_it_began_with(loadbench: Forks, server: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "run"
    begun = loadbench.run(
        "run", "-c", "1", "-n", 2, "--max-tokens", 2, "-o", path, variables={"FOUNDRY_LOCAL_ENDPOINT": server.url}
    )
    info = json.loads((path / "run.json").read_bytes())
    info["levels"][0]["status"] = "running"
    (path / "run.json").write_text(json.dumps(info))
    continued = loadbench.run("run", "--resume", path, variables={"FOUNDRY_LOCAL_ENDPOINT": "http://127.0.0.1:1"})

    assert (begun.code, continued.code) == (0, 0), begun.err + continued.err
    assert {level["endpoint"] for level in levels(path)} == {server.url}


def test_a_run_does_not_go_on_with_another_kind_of_server(loadbench: Forks, server: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "run"
    loadbench.run("run", "-e", server.url, "-c", "1", "-n", 2, "--max-tokens", 2, "-o", path)
    info = json.loads((path / "run.json").read_bytes())
    info["target"]["kind"] = "vllm"
    (path / "run.json").write_text(json.dumps(info))
    continued = loadbench.run("run", "--resume", path)

    assert continued.code == 1
    assert "is now simulator, the run" in continued.err
