"""`loadbench run` against Foundry Local's real runtime: exact tokens, its memory, an error in a stream, its death."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import bigram
from tests.support.command import invoke
from tests.support.forks import Forks
from tests.support.runtimes import Started, needs_sdk, started, until

pytestmark = [pytest.mark.system, needs_sdk]
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")

STREAMS = (1, 4, 16)
REQUESTS, TOKENS = 8, 12
PROMPT = "Nenne eine Frucht: äöü."
BURN = 1500
"""Some 4 ms a token, so that a stream is one and no burst: the runtime sends small packets by Nagle's algorithm, which
hold the first tokens until the client's system acknowledges the head of the response, up to 40 ms later."""


@dataclass(frozen=True, slots=True)
class Run:
    """A finished command and the folder it wrote."""

    code: int
    output: str
    folder: Path

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / name).read_text(encoding="utf-8").splitlines()]

    @property
    def levels(self) -> dict[int, dict[str, Any]]:
        """Of the summary, by number of streams."""
        return {level["concurrency"]: level for level in self.json("summary.json")["levels"]}


def finished(loadbench: Forks, folder: Path, url: str, model: str, *words: object) -> Run:
    """The command, run to its end."""
    done = loadbench.run("run", "-e", url, "-m", model, "-o", folder, *words)
    return Run(done.code, done.out + done.err, folder)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """A runtime that serves `real`, and `quick`, which takes no time for a token."""
    folder = tmp_path_factory.mktemp("server")
    with started(folder) as here:
        here.runtime.register(bigram.make(folder / "real", burn=BURN))
        here.runtime.register(bigram.make(folder / "quick"))
        yield here


@pytest.fixture(scope="module")
def url(server: Started) -> str:
    """Of registered models."""
    return server.runtime.serve() + "/catalogs/local/v1"


@pytest.fixture(scope="module")
def measured(loadbench: Forks, url: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The model at all numbers of streams."""
    words = ("--prompt", PROMPT, "-c", ",".join(map(str, STREAMS)), "-n", REQUESTS, "--max-tokens", TOKENS)
    words = (*words, "--no-repeat-first", "--quiet")
    return finished(loadbench, tmp_path_factory.mktemp("run") / "run", url, "real", *words)


# -- a run


@pytest.mark.parametrize("streams", STREAMS)
def test_every_request_of_a_level_completes_and_tokens_come_one_by_one(measured: Run, streams: int) -> None:
    level = measured.levels[streams]

    assert (measured.code, measured.output) == (0, f"{measured.folder}\n")
    assert (level["status"], level["completed"], level["failed"], level["errors"]) == ("complete", REQUESTS, 0, {})
    assert "V13" not in {warning["code"] for warning in level["warnings"]}
    assert (level["token_source"], level["itl_ms"]["p50"] > 0) == ("usage", True)


def test_every_count_of_tokens_is_exact_and_every_answer_is_the_models(measured: Run) -> None:
    rows = measured.lines("requests.jsonl")

    assert len(rows) == len(STREAMS) * REQUESTS + sum(STREAMS)
    assert {row["output_tokens"] for row in rows} == {TOKENS}
    assert {row["input_tokens"] for row in rows} == {len(PROMPT.encode()) + 19}
    assert {row["text"] for row in measured.lines("answers.jsonl")} == {bigram.reply(TOKENS)}


def test_more_streams_wait_longer_for_each_token(measured: Run) -> None:
    one, _, sixteen = (measured.levels[streams]["tpot_ms"]["p50"] for streams in STREAMS)

    assert sixteen > 4 * one  # it computes one token after another, on one thread


def test_the_model_was_loaded_for_the_run_asked_cold_and_warm_and_is_unloaded_after_it(
    measured: Run, server: Started
) -> None:
    [model] = measured.json("summary.json")["models"]
    info = measured.json("run.json")
    [record] = info["models"]

    assert (model["device"], model["execution_provider"]) == ("CPU", "CPUExecutionProvider")
    assert info["target"]["kind"] == "foundry2"
    assert record["load_s"] > 0
    assert [(probe["purpose"], probe["cold"], probe["error"]) for probe in info["probes"]] == [
        ("first", True, None),
        ("warm", False, None),
    ]
    assert [facts.id for facts in server.runtime.models() if facts.loaded] == []


def test_memory_and_processor_time_are_those_of_the_runtimes_process(measured: Run, server: Started) -> None:
    watched = measured.json("run.json")["telemetry"]
    samples = measured.lines("telemetry.jsonl")

    assert (watched["local"], watched["server_pid"]) == (True, server.runtime.pid)
    assert {sample["phase"] for sample in samples} == {"before_load", "after_load", "level", "after_unload"}
    assert {sample["server"]["processes"] for sample in samples} == {1}
    assert all(20e6 < sample["server"]["memory_bytes"] < 2e9 for sample in samples)
    spent_s = [sample["server"]["cpu_s"] for sample in samples]
    assert spent_s == sorted(spent_s)
    assert spent_s[-1] - spent_s[0] > 0.25  # 45 requests


def test_prompts_that_are_made_distinct_have_more_bytes(loadbench: Forks, url: str, tmp_path: Path) -> None:
    words = ("--prompt", PROMPT, "--distinct-prompts", "-c", 1, "-n", 2, "--max-tokens", 2, "--quiet")
    run = finished(loadbench, tmp_path / "run", url, "quick", *words)
    counts = [row["input_tokens"] for row in run.lines("requests.jsonl")]

    assert run.code == 0
    assert all(count > len(PROMPT.encode()) + 19 for count in counts)


def test_an_answer_may_end_before_max_tokens(loadbench: Forks, url: str, tmp_path: Path) -> None:
    run = finished(loadbench, tmp_path / "run", url, "quick", *("-c", 1, "-n", 2, "--max-tokens", 500, "--quiet"))

    assert {row["finish_reason"] for row in run.lines("requests.jsonl")} == {"stop"}
    assert {row["text"] for row in run.lines("answers.jsonl")} == {bigram.reply(bigram.WORDS)}


# -- what goes wrong


def test_an_error_inside_a_stream_is_counted_by_its_kind(loadbench: Forks, url: str, tmp_path: Path) -> None:
    run = finished(
        loadbench, tmp_path / "run", url, "quick", *("-c", 2, "-n", 4, "--max-tokens", bigram.CONTEXT, "--quiet")
    )
    rows = run.lines("requests.jsonl")

    assert (run.code, run.levels[2]["status"], run.levels[2]["errors"]) == (1, "failed", {"stream_error": 4})
    assert {row["status"] for row in rows} == {200}
    assert all("exceeds the model's maximum context length of 4096" in row["error_message"] for row in rows)
    assert run.output.startswith(f"{run.folder}\nloadbench: quick-generic-cpu:1: no request completed; the last one: ")
    assert "stream_error: " in run.output
    assert run.output.count("\n") == 2


@pytest.fixture(scope="module")
def killed(loadbench: Forks, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose server was killed in its first level."""
    folder = tmp_path_factory.mktemp("killed")
    run = folder / "run"
    with started(folder) as here:
        model = here.runtime.register(bigram.make(folder / "real", burn=BURN // 3))
        url = here.runtime.serve() + "/catalogs/local/v1"
        words = ("-c", "1,4", "-n", 200, "--no-repeat-first", "--max-tokens", TOKENS)
        process = loadbench.start("run", "-e", url, "-m", model.id, "-o", run, *words)
        rows = run / "requests.jsonl"
        assert until(lambda: rows.exists() and rows.read_bytes().count(b"\n") > 3, 20)
        os.kill(here.runtime.pid, signal.SIGKILL)
        done = process.wait(30)
    return Run(done.code, done.out + done.err, run)


@posix
def test_a_runtime_killed_in_mid_run_ends_it_with_exit_code_1_and_one_line(killed: Run) -> None:
    last = killed.output.splitlines()[-1]

    assert killed.code == 1
    assert last.startswith(
        "loadbench: real-generic-cpu:1: the server went away in mid-level; the last request: connect:"
    )
    assert "Traceback" not in killed.output


@posix
def test_what_completed_before_it_died_is_kept_and_what_is_unknown_is_null(killed: Run) -> None:
    [record] = killed.json("run.json")["models"]
    first = killed.levels[1]
    report = invoke("report", killed.folder)

    assert {streams: level["status"] for streams, level in killed.levels.items()} == {1: "failed", 4: "skipped"}
    assert (first["completed"] >= 1, killed.levels[4]["attempted"]) == (True, 0)
    assert first["errors"]["truncated"] == 1  # the stream that it died in
    assert {row["output_tokens"] for row in killed.lines("requests.jsonl") if row["error"] is None} == {TOKENS}
    assert killed.lines("telemetry.jsonl")[-1]["server"] is None
    assert (record["memory_after_load_bytes"] > 0, record["memory_after_unload_bytes"]) == (True, None)
    assert report.exit_code == 0
    assert "c1: failed after " in report.stdout
    assert "c4: skipped" in report.stdout
