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
    run.close("complete")

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

    again = RunFolder.reopen(path)
    again.close("complete")

    assert again.info["models"] == []


# -- reading


def written(path: Path, *lines: bytes) -> store.Run:
    """A run of one level, interrupted and repeated, with these lines in its telemetry.jsonl."""
    run = RunFolder.create(path, {})
    for status in ("interrupted", "complete"):
        run.begin(LEVEL)
        run.end({"status": status}, {})
    run.close("complete")
    (path / "telemetry.jsonl").write_bytes(b"\n".join(lines))
    return store.read(path)


def line(at_s: float, **about: Any) -> bytes:
    return json.dumps(sample(at_s, **about)).encode()


def test_samples_of_a_level_are_those_of_the_attempt_that_counts(path: Path) -> None:
    run = written(path, line(1), line(2, attempt=2), line(3, attempt=2), line(4, level=["m"], attempt={}))

    assert [one["at_s"] for one in run.samples] == [2, 3]


def test_samples_outside_of_levels_all_count(path: Path) -> None:
    run = written(path, line(1, phase="idle", level=None, attempt=None), line(2, attempt=2))

    assert [one["phase"] for one in run.samples] == ["idle", "level"]


@pytest.mark.parametrize("bad", [b"{", b"[1]", b"7", b"\xff", b'{"at_s": "soon"}', b'{"phase": "level"}', b"{}"])
def test_a_line_that_is_no_sample_is_counted_and_passed_over(path: Path, bad: bytes) -> None:
    run = written(path, line(1, attempt=2), bad, b"", line(2, attempt=2))

    assert [one["at_s"] for one in run.samples] == [1, 2]
    assert run.unreadable_samples == 1


def test_a_run_without_telemetry_has_no_samples(path: Path) -> None:
    RunFolder.create(path, {}).close("complete")

    assert store.read(path).samples == []
