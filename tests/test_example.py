"""results/example: a run of the embedded model, to look at without measuring; nothing of a machine's own is in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import loadbench
from tests.support.command import invoke

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "results" / "example"
FILES = sorted(path for path in FOLDER.iterdir() if path.name != "report.html")
NEEDED = {"run.json", "requests.jsonl", "summary.json", "summary.csv", "report.md", "telemetry.jsonl", "answers.jsonl"}
PATHS = re.compile(rb"(?<![\w:./])/(?:home|root|tmp|work|Users|var|private|mnt|opt)/|[A-Z]:\\\\")
SECRETS = re.compile(rb"(?i)bearer |api[-_]?key\"?: *\"[^\"]|password|\bsk-\w{8}")


@pytest.fixture(scope="module")
def run() -> loadbench.Run:
    return loadbench.read(FOLDER)


def test_it_is_a_whole_run_of_the_real_model(run: loadbench.Run) -> None:
    assert {path.name for path in FILES} >= NEEDED
    assert (run.status, run.models) == ("complete", ["smollm2-135m-instruct"])
    assert [level["concurrency"] for level in run.levels if not level["closing"]] == [1, 2, 4, 8]
    assert not any(level["simulated"] for level in run.levels)


def test_every_level_completed_requests_and_was_sampled(run: loadbench.Run) -> None:
    for level in run.levels:
        assert level["completed"] > 30, level["id"]
        assert level["server_memory_peak_bytes"] > 50e6, level["id"]


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in FILES) < 1_000_000


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_names_a_path_of_a_machine_or_a_secret(path: Path) -> None:
    content = path.read_bytes()

    assert PATHS.findall(content) == []
    assert SECRETS.findall(content) == []


def test_the_reports_read_it(run: loadbench.Run) -> None:
    assert "TTFT and throughput" in run.report()
    assert run.summary["run"]["name"] == "example"
    assert "example" in invoke("results", FOLDER.parent, COLUMNS="120").stdout


def test_a_run_of_a_version_that_marked_no_first_answer_is_read_without_it(run: loadbench.Run) -> None:
    level = run.summary["levels"][0]

    assert (level["ttfat_ms"], level["thinking_ms"], level["reasoned"]) == (None, None, None)
    assert level["prefill_tokens_per_s"] > level["tokens_per_s_per_user"] > 100
