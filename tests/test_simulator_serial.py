"""Servers with a declared law, measured over HTTP: what loadbench says of them in words is what they are.

test_cli_capacity.py finds planted limits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from loadbench.serve import simulator
from tests.support.command import invoke
from tests.support.forks import Forks

pytestmark = [pytest.mark.system, pytest.mark.alone, pytest.mark.usefixtures("place")]


def measured(folder: str, words: tuple[str, ...], **law: Any) -> str:
    """The report of a run against a simulator of that law."""
    brief = ("--max-tokens", "6", "--no-telemetry", "--no-answers", "--no-repeat-first", "-o", folder)
    with simulator.start(**law) as server:
        done = invoke("run", "-e", server.url, *words, *brief)
    assert done.exit_code == 0, done.output
    return " ".join(done.stdout.split())


def curve(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(folder) / "summary.json").read_bytes())["scaling"][0]
    return found


def test_a_server_of_one_slot_is_called_serial_in_words() -> None:
    said = measured("run", ("-c", "1,4", "-d", "1500ms"), ttft_ms=15, itl_ms=4, slots=1)

    assert "answers one request at a time: 4 concurrent users get together what one gets alone and wait" in said
    assert curve("run")["serial"] is True


def test_a_server_of_many_slots_is_not() -> None:
    said = measured("run", ("-c", "1,4", "-d", "1500ms"), ttft_ms=15, itl_ms=4, slots=8)

    assert "one request at a time" not in said
    assert curve("run")["serial"] is False


# -- slow-downs that are planted

LAWS: Mapping[str, float] = {"before": 1.0, "again": 1.0, "eight": 1.08, "half": 1.5}
"""By run, what its server takes over that of the first."""


@pytest.fixture(scope="module")
def runs(loadbench: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real runs against simulators of those laws, side by side: 6 s each, for below 5 s no verdict is given (V1)."""
    folder = tmp_path_factory.mktemp("measured")
    words = ["-c", "2", "-d", "6s", "--max-tokens", "5", "--no-telemetry", "--quiet"]
    with ExitStack() as stack:
        started = []
        for name, slower in LAWS.items():
            server = stack.enter_context(simulator.start(ttft_ms=40 * slower, itl_ms=20 * slower, jitter=0.02))
            started.append(loadbench.start("run", "-e", server.url, *words, "-o", folder / name))
        codes = [command.wait().code for command in started]
    assert codes == [0] * len(LAWS)
    return folder


def word_of(runs: Path, name: str, *words: str) -> str:
    times = ("--metric", "ttft", "--metric", "e2e", "--metric", "tpot")
    done = invoke("compare", runs / "before", runs / name, *times, "--format", "json", *words)
    return str(json.loads(done.stdout)["comparisons"][0]["word"])


def test_a_server_against_itself_is_the_same_or_nobody_can_tell(runs: Path) -> None:
    assert word_of(runs, "again") in ("same", "can't tell")


def test_a_server_that_takes_half_as_long_again_is_called_slower(runs: Path) -> None:
    assert word_of(runs, "half") == "slower"


def test_a_server_that_is_8_percent_slower_is_never_called_the_same_at_a_margin_of_4(runs: Path) -> None:
    # How often one run a side finds so little is a matter of statistics: docs/statistics.md, power.
    assert word_of(runs, "eight", "--margin", "4%") in ("slower", "can't tell")
    assert word_of(runs, "eight", "--margin", "20%") in ("same", "can't tell")
