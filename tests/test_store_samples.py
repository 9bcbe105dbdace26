"""telemetry.jsonl: samples are written as the requests are, and read tolerantly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loadbench import store
from loadbench.store import RunFolder

LEVEL = {"id": "m@c1", "model": "m", "concurrency": 1}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run"


def sample(at_s: float, **about: Any) -> dict[str, Any]:
    return {"at_s": at_s, "phase": "level", "level": "m@c1", "attempt": 1, "server": {"memory_bytes": 5}, **about}


def kept(path: Path) -> list[bytes]:
    return (path / "telemetry.jsonl").read_bytes().splitlines()


def test_a_new_folder_says_that_nothing_is_known_of_models_and_telemetry_yet(path: Path) -> None:
    RunFolder.create(path, {}).close("complete")

    info = store.read_info(path)
    assert [info[name] for name in ("models", "absent", "telemetry", "probes")] == [[], [], None, []]


def test_what_is_known_of_absent_models_and_of_telemetry_is_kept(path: Path) -> None:
    known = {"absent": [{"name": "a"}], "telemetry": {"interval_s": 1.0}}
    RunFolder.create(path, known).close("complete")

    assert known.items() <= store.read_info(path).items()


def test_samples_are_written_when_the_requests_are(path: Path) -> None:
    run = RunFolder.create(path, {})
    run.add_sample(sample(0.5))
    before = (path / "telemetry.jsonl").exists()
    run.take()()

    assert not before
    assert [json.loads(line) for line in kept(path)] == [sample(0.5)]


def test_a_sample_that_was_cut_off_does_not_spoil_the_next(path: Path) -> None:
    RunFolder.create(path, {}).close("interrupted")
    (path / "telemetry.jsonl").write_bytes(b'{"at_s": 1')
    run = RunFolder.reopen(path)
    run.add_sample(sample(2.0))
    run.close("complete")

    assert [json.loads(line) for line in kept(path)[1:]] == [sample(2.0)]


def test_a_folder_of_an_older_version_can_be_continued(path: Path) -> None:
    run = RunFolder.create(path, {})
    del run.info["models"]
    run.close("interrupted")

    assert RunFolder.reopen(path).info["models"] == []
