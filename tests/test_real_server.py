"""`loadbench run` against a real server: llama.cpp's own, on the embedded model, at 1 and 4 streams."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from loadbench.serve import llama
from tests.support.command import invoke
from tests.support.forks import Forks

pytestmark = pytest.mark.system

STREAMS = (1, 4)
REQUESTS, TOKENS = 6, 6


@dataclass(frozen=True, slots=True)
class Measured:
    """A finished command and the folder it wrote; `levels` by number of streams, `rows` by id of the level."""

    code: int
    output: str
    levels: dict[int, dict[str, Any]]
    rows: dict[str, list[dict[str, Any]]]
    answers: list[dict[str, Any]]
    folder: Path

    @property
    def requests(self) -> list[dict[str, Any]]:
        return [row for rows in self.rows.values() for row in rows]


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def measured(loadbench: Forks, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """The command in a process and with an environment of its own."""
    place = tmp_path_factory.mktemp("real")
    folder = place / "run"
    words = ["-c", ",".join(map(str, STREAMS)), "-n", str(REQUESTS), "--max-tokens", str(TOKENS)]
    words += ["--extra-body", '{"ignore_eos": true}', "-o", str(folder), "--quiet"]
    words += ["--prompt", "Name a fruit."]  # the built-in ones are longer: twice the time, on one thread
    with llama.start(slots=max(STREAMS), threads=1) as server:
        done = loadbench.start("run", "-e", server.url, *words).wait(110)
    assert done.code == 0, done.err
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in lines(folder / "requests.jsonl"):
        rows.setdefault(row["level"], []).append(row)
    levels = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["levels"]
    return Measured(
        done.code,
        done.out + done.err,
        {level["concurrency"]: level for level in levels},
        rows,
        lines(folder / "answers.jsonl"),
        folder,
    )


@pytest.mark.parametrize("streams", STREAMS)
def test_every_request_of_a_level_completes_and_is_recorded_with_the_length_that_was_forced(
    measured: Measured, streams: int
) -> None:
    level = measured.levels[streams]
    rows = measured.rows[level["id"]]

    assert (measured.code, measured.output) == (0, f"{measured.folder}\n")
    assert (level["status"], level["completed"], level["failed"], level["errors"]) == ("complete", REQUESTS, 0, {})
    assert Counter(row["warmup"] for row in rows) == {True: streams, False: REQUESTS}
    assert sorted(row["request"] for row in rows) == list(range(streams + REQUESTS))
    assert (level["token_source"], level["output_tokens"]["mean"]) == ("usage", TOKENS)
    assert level["finish_reasons"] == {"length": REQUESTS}


def test_every_first_token_comes_after_the_request_and_not_after_the_last(measured: Measured) -> None:
    for row in measured.requests:
        assert row["sent_ns"] < row["first_event_ns"] <= row["first_token_ns"] <= row["last_token_ns"] <= row["end_ns"]


@pytest.mark.parametrize("streams", STREAMS)
def test_the_times_of_a_level_are_in_order_and_a_real_stream_is_no_burst(measured: Measured, streams: int) -> None:
    level = measured.levels[streams]

    assert 0 < level["ttft_ms"]["p50"] <= level["e2e_ms"]["p50"]
    assert 0 < level["ttft_ms"]["max"] <= level["e2e_ms"]["max"]
    assert level["tpot_ms"]["p50"] > 0
    assert "V13" not in {warning["code"] for warning in level["warnings"]}


def test_the_texts_are_kept_and_their_characters_counted(measured: Measured) -> None:
    texts = {(answer["level"], answer["request"]): answer["text"] for answer in measured.answers}
    counted = {(row["level"], row["request"]): row["characters"] for row in measured.requests if not row["warmup"]}

    assert {key: len(text) for key, text in texts.items() if key in counted} == counted
    assert min(counted.values()) > 0
    assert all(any(map(str.isalnum, text)) for text in texts.values())


def test_a_real_run_against_its_copy_differs_in_nothing(measured: Measured, tmp_path: Path) -> None:
    copy = shutil.copytree(measured.folder, tmp_path / "copy")

    done = invoke("compare", measured.folder, copy, "--metric", "ttft", "--metric", "e2e", "--format", "json")

    (record,) = json.loads(done.stdout)["comparisons"]
    assert record["differences"] == []
    assert [level["load"] for level in record["levels"]] == [f"c{streams}" for streams in STREAMS]
    assert {verdict["ratio"] for level in record["levels"] for verdict in level["verdicts"]} == {1.0}
