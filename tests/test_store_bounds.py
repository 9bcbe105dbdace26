"""What readers of a run folder refuse: what is larger, deeper or otherwise than a run writes it, in one line."""

from __future__ import annotations

import base64
import json
import os
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from loadbench import quality, select, store
from loadbench.errors import LoadbenchError, StoreError
from loadbench.report import listing
from loadbench.select.candidates import scores
from loadbench.store import files as store_files
from loadbench.store.files import hlog_works, read_lines
from loadbench.store.folder import RunFolder
from loadbench.store.histogram import Histogram, read_log
from tests.support.damaged_runs import Files, make, put, read_all

needs_hlog = pytest.mark.skipif(not hlog_works(), reason="hdrhistogram has no wheel here")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make(tmp_path_factory.mktemp("runs") / "whole")


def changed(tmp_path: Path, files: Files, name: str, change: Callable[[bytes], bytes]) -> Path:
    path = tmp_path / "run"
    put(path, {**files, name: change(files[name])})
    return path


def red(path: Path) -> list[str]:
    """What is said against the levels by the gate of records."""
    levels = select.summarise(store.read(path))["levels"]
    return [doubt["text"] for level in levels for doubt in level["warnings"] if doubt["code"] == "records"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: content.replace(b'"output_tokens":32', b'"output_tokens":23', 1), "not as they were written"),
        (lambda content: content[content.index(b"\n") + 1 :], "has 9 lines of it, and 10 were written"),
        (lambda content: content[: content.index(b"\n") + 1] + content, "has 11 lines of it, and 10 were written"),
        (lambda content: content[:-300], "has 9 lines of it, and 10 were written"),
        (lambda content: b"", "has 0 lines of it, and 10 were written"),
    ],
    ids=["edited", "lost", "doubled", "cut short", "empty"],
)
def test_records_that_are_not_those_that_were_written_are_a_red_doubt(
    tmp_path: Path, files: Files, change: Callable[[bytes], bytes], said: str
) -> None:
    assert said in red(changed(tmp_path, files, "requests.jsonl", change))[0]


def test_a_folder_whose_line_ends_were_converted_is_whole(tmp_path: Path, files: Files) -> None:
    path = changed(tmp_path, files, "requests.jsonl", lambda content: content.replace(b"\n", b"\r\n"))

    assert red(path) == []


def test_a_request_that_has_two_records_is_a_red_doubt_in_old_folders_too(tmp_path: Path, files: Files) -> None:
    path = changed(tmp_path, files, "requests.jsonl", lambda content: content + content[: content.index(b"\n") + 1])
    info = json.loads(files["run.json"])
    for level in info["levels"]:
        del level["written"]
    (path / "run.json").write_text(json.dumps(info))

    assert "more than one record of request 0" in red(path)[0]


def test_scores_say_which_answers_are_not_those_that_were_written(tmp_path: Path, files: Files) -> None:
    path = changed(tmp_path, files, "answers.jsonl", lambda content: content.replace(b"An answer", b"No answer", 1))

    warnings = quality.summarise(quality.read(path), []).warnings

    assert any("answers.jsonl are not as they were written" in one for one in warnings)


def run_json(files: Files, **facts: Any) -> bytes:
    return json.dumps({**json.loads(files["run.json"]), **facts}).encode()


def of_level(files: Files, **facts: Any) -> bytes:
    info = json.loads(files["run.json"])
    info["levels"][0] |= facts
    return json.dumps(info).encode()


@pytest.mark.parametrize(
    ("make_json", "said"),
    [
        (lambda files: run_json(files, telemetry=2.5), "$.telemetry"),
        (lambda files: run_json(files, models=[{"disk_bytes": -1}]), "$.models[0].disk_bytes"),
        (lambda files: of_level(files, offered=-5), "$.levels[0].offered"),
        (lambda files: of_level(files, duration_s="35"), "$.levels[0].duration_s"),
        (lambda files: of_level(files, concurrency=0), "$.levels[0].concurrency"),
        (lambda files: of_level(files, last_issue_ns=2**63), "$.levels[0].last_issue_ns"),
        (lambda files: run_json(files, levels=2 * json.loads(files["run.json"])["levels"]), "of attempt 1 2 times"),
        (lambda files: run_json(files, levels=[{"id": "m", "attempt": 1, "status": "x"}] * 20_001), "$.levels"),
        (lambda files: run_json(files, scenario={"slo": ["ttft_p95=fast"]}), "its scenario"),
        (lambda files: run_json(files, new=json.loads("[" * 99 + "]" * 99)), "nested deeper than 60"),
        (lambda files: b"[" * 100_000, "is damaged"),
        (lambda files: b'{"schema": 1e400}', "is damaged"),
        (lambda files: files["run.json"].replace(b'"schema": 1', b'"schema": 99'), "upgrade loadbench"),
    ],
)
def test_a_run_json_that_no_run_writes_is_refused_in_one_line(
    tmp_path: Path, files: Files, make_json: Callable[[Files], bytes], said: str
) -> None:
    path = changed(tmp_path, files, "run.json", lambda _: make_json(files))

    with pytest.raises(StoreError) as refused:
        store.read(path)

    assert str(path / "run.json") in str(refused.value)
    assert said in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"output_tokens":32', b'"output_tokens":-32'),
        (b'"output_tokens":32', b'"output_tokens":1e400'),
        (b'"output_tokens":32', b'"output_tokens":99999999999999999999999'),
        (b'"gaps_us":[', b'"gaps_us":[-5,'),
        (b'"sent_ns":', b'"sent_ns":9000000000000000,"was":'),  # a request that was sent after its answer
        (b'"first_answer_ns":null', b'"first_answer_ns":0'),  # an answer before the first token
    ],
)
def test_a_record_with_numbers_that_no_run_writes_is_a_red_doubt_and_the_others_are_read(
    tmp_path: Path, files: Files, old: bytes, new: bytes
) -> None:
    path = changed(tmp_path, files, "requests.jsonl", lambda content: content.replace(old, new, 1))

    assert red(path)


@pytest.mark.parametrize("content", [b"", b"\n" * 2000])
def test_a_file_filled_with_nothing_is_refused_before_its_end(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_bytes(content)
    os.truncate(path, len(content) or 1 << 40)  # sparse: it takes no room
    monkeypatch.setattr(store_files, "_MOST_PASSED_OVER_BYTES", 1000)

    with pytest.raises(StoreError, match=r"requests\.jsonl, line \d+: is no line of loadbench's, and has no end"):
        list(read_lines(path, most_bytes=1 << 20))


ALL_FILES = (
    "run.json",
    "requests.jsonl",
    "telemetry.jsonl",
    "itl.hlog",
    "answers.jsonl",
    "prompts.json",
    "scores.json",
)


@pytest.mark.parametrize("name", [*ALL_FILES, "scores.jsonl", "summary.json"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
@pytest.mark.skipif(sys.platform == "win32", reason="has no such files")
def test_a_file_that_is_none_is_refused_at_once_in_one_line(
    tmp_path: Path, files: Files, name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loadbench.scenario.files.WRITER_WAIT_S", 0.0)
    path = tmp_path / "run"
    put(path, files)
    (path / name).unlink(missing_ok=True)
    match kind:
        case "pipe":
            os.mkfifo(path / name)
        case "device":
            (path / name).symlink_to("/dev/zero")
        case _:
            (path / name).mkdir()
    said = []
    for read in (store.read, quality.read, quality.read_scores, scores, RunFolder.reopen):
        try:
            found = read(path)
            if isinstance(found, RunFolder):
                found.close("interrupted")
        except LoadbenchError as error:
            said.append(str(error))
    said += [one.error for one in listing.entries(tmp_path)[0] if one.error is not None]

    assert said, "whoever reads it says so"
    assert [line for line in said if not (name in line and line.isprintable())] == []


def test_a_line_without_end_is_not_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_bytes(b"first\n" + b"x" * (32 << 20) + b"\nlast\n")
    tracemalloc.start()

    lines = list(read_lines(path, most_bytes=1 << 20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert lines == [(1, b"first"), (2, store_files.TOO_LONG), (3, b"last")]
    assert peak < 8 << 20


def log(tmp_path: Path, inflated: bytes) -> Path:
    squeezed = zlib.compress(inflated, 9)
    encoded = base64.b64encode(struct.pack(">II", 0x1C849314, len(squeezed)) + squeezed).decode()
    path = tmp_path / "itl.hlog"
    path.write_text(f"Tag=m@c1/1,0.000,1.000,2.000,{encoded}\n")
    return path


def header(*, digits: int = 3, lowest: int = 1, highest: int = 3_600_000_000, length: int = 0) -> bytes:
    return struct.pack(">IIIIQQd", 0x1C849313, length, 0, digits, lowest, highest, 1.0)


@needs_hlog
@pytest.mark.parametrize(
    "inflated",
    [
        header(),  # and 64 kB more, that become 64 MB
        header(highest=2**63, length=1) + b"\x02",
        header(lowest=0, length=1) + b"\x02",
        header(digits=5, length=1) + b"\x02",
        header()[:12],
        header(length=9) + b"\xff" * 9,
        header(length=9 * 3) + b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff" * 3,
    ],
    ids=["bomb", "range", "lowest", "digits", "cut short", "negative", "huge counts"],
)
def test_a_histogram_that_no_run_writes_is_refused_in_one_line_and_little_memory(
    tmp_path: Path, inflated: bytes
) -> None:
    path = log(tmp_path, inflated + bytes(64 << 20) if inflated == header() else inflated)
    tracemalloc.start()

    with pytest.raises(StoreError, match=r"itl\.hlog, line 1"):
        read_log(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 16 << 20


@needs_hlog
def test_a_maximum_that_is_no_number_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "itl.hlog"
    path.write_text(f"Tag=m,0.0,1.0,1.2.3,{Histogram().encode()}\n")

    with pytest.raises(StoreError, match="line 1: not a line of a histogram log"):
        read_log(path)


@needs_hlog
def test_of_a_log_only_the_wanted_tags_take_memory(tmp_path: Path) -> None:
    path = tmp_path / "itl.hlog"
    path.write_text("".join(Histogram().log_line(f"m@c{n}/1", 0.0, 1.0) for n in range(50)))

    assert set(read_log(path, {"m@c7/1"})) == {"m@c7/1"}


def test_a_summary_nested_without_end_is_a_broken_run_in_the_list(tmp_path: Path, files: Files) -> None:
    path = changed(tmp_path, files, "summary.json", lambda _: b'{"x":' * 100_000)

    [entry] = listing.entries(path.parent)[0]

    assert entry.status == "broken"


@pytest.mark.parametrize(
    "workers",
    [[{"name": 7}], [{"cpu_share": "a"}], [{"ttft_ms": 5}], [{"client_lag_ms": {"p99": "x"}}], [{"completed": -1}]],
)
def test_workers_that_no_run_writes_are_refused(tmp_path: Path, files: Files, workers: Any) -> None:
    path = changed(tmp_path, files, "run.json", lambda _: of_level(files, workers=workers))

    with pytest.raises(StoreError, match=r"levels\[0\]\.workers"):
        store.read(path)


SMALLEST = 1e-300
NUMBERS = (
    "duration_s",
    "request_rate_per_s",
    "think_time_s",
    "round_trip_ms",
    "client_cpu_s",
    "full_ns",
    "last_issue_ns",
)


# The page divides by these; it takes a second.
PAGED = ("duration_s", "request_rate_per_s")


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [0, SMALLEST, pytest.param(1, marks=pytest.mark.endurance), 1e9])
def test_a_level_of_extreme_numbers_is_reported_or_refused(
    tmp_path: Path, files: Files, name: str, value: float
) -> None:
    facts = {name: value} | ({"concurrency": None} if name == "request_rate_per_s" else {})
    path = changed(tmp_path, files, "run.json", lambda _: of_level(files, **facts))
    put(tmp_path / "whole", files)

    with suppress(LoadbenchError):
        assert read_all(path, tmp_path / "whole", page=value == SMALLEST and name in PAGED)


def test_a_run_whose_gaps_are_all_0_has_a_page(tmp_path: Path, files: Files) -> None:
    def still(content: bytes) -> bytes:
        records = [json.loads(line) for line in content.splitlines()]
        return b"\n".join(json.dumps({**one, "gaps_us": [0] * len(one["gaps_us"])}).encode() for one in records)

    path = changed(tmp_path, files, "requests.jsonl", still)
    (path / "itl.hlog").unlink(missing_ok=True)
    put(tmp_path / "whole", files)

    assert read_all(path, tmp_path / "whole", page=True)
