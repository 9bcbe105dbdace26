"""The run folder: what is written is read again, whatever a dying process, a full disk or a stranger did to it."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from loadbench import store
from loadbench.errors import StoreError, UsageError
from loadbench.store import Run, folder, read, record
from loadbench.store.files import cannot_write, hlog_works, read_info, write_atomically
from loadbench.store.folder import RunFolder
from loadbench.store.histogram import Histogram
from loadbench.store.record import ERROR_KINDS, Line, Result, Results
from tests.support.streams import failed, stream

LEVEL = {"id": "m@c1", "model": "m", "concurrency": 1}
COMPLETE = {"status": "complete", "reason": None, "duration_s": 1.5}

needs_hlog = pytest.mark.skipif(not hlog_works(), reason="hdrhistogram has no wheel here")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results" / "first"


def histograms(*itl_us: int) -> dict[str, Histogram]:
    made = {name: Histogram() for name in ("ttft", "itl", "tpot", "e2e", "client_lag")}
    made["itl"].record_many(list(itl_us))
    return made


def write(run: RunFolder, results: list[Result], *, level: dict[str, Any] = LEVEL, **facts: Any) -> None:
    """A level from its beginning to its end."""
    attempt = run.begin(level)
    for result in results:
        run.add(replace(result, level=level["id"], attempt=attempt))
    run.end({**COMPLETE, **facts}, histograms(20_000, 21_000))


def written(path: Path, results: list[Result], **options: Any) -> Path:
    run = RunFolder.create(path, {"name": "first"}, **options)
    write(run, results)
    run.close("complete")
    return path


def killed(path: Path, results: list[Result]) -> None:
    """A run whose process died in its first level, with these requests on disk."""
    run = RunFolder.create(path, {})
    run.begin(LEVEL)
    for result in results:
        run.add(result)
    run.take()()
    run._release()  # as the system does


def lines(path: Path, name: str = "requests.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / name).read_bytes().splitlines()]


def entries(path: Path) -> list[tuple[str, int, str]]:
    return [(one["id"], one["attempt"], one["status"]) for one in read_info(path)["levels"]]


def assert_same(found: Results, expected: Results) -> None:
    for field in fields(Results):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(expected, field.name), field.name)


# -- round trip


def test_what_is_written_is_read(path: Path) -> None:
    results = [stream(0), failed(1, due=50), stream(2, due=80, tokens=5, usage=False, warmup=True)]
    run = read(written(path, results))

    assert [level.facts["id"] for level in run.levels] == ["m@c1"]
    assert run.levels[0].facts | COMPLETE == run.levels[0].facts
    assert_same(run.levels[0].results, Results.from_results(results))
    assert run.levels[0].gaps_kept
    assert run.unreadable_lines == 0


ns = st.none() | st.integers(0, 10**15)
counts = st.integers(0, 10**6)
tokens = st.none() | counts
texts = st.text(max_size=20)


WORDS = ("finish_reason", "error_message")
BEFORE_THE_END = ("sent_ns", "headers_ns", "first_event_ns", "first_token_ns", "first_answer_ns", "last_token_ns")
COUNTS = ("first_events", "text_events", "merged_arrivals", "characters", "words")


@st.composite
def anyones(draw: st.DrawFn) -> list[Result]:
    """Results of any shape, in the order they ended."""
    of_type = dict.fromkeys((*BEFORE_THE_END, "connect_ns"), ns) | dict.fromkeys(COUNTS, counts)
    of_type |= dict.fromkeys(store.files.SERVER_COUNTS, tokens) | dict.fromkeys(WORDS, st.none() | texts)
    of_type |= dict.fromkeys(("due_ns", "end_ns"), st.integers(0, 10**15)) | dict.fromkeys(("prompt", "text"), texts)
    build = st.builds(
        Result,
        level=st.just("m@c1"),
        attempt=st.just(1),
        request=st.just(0),
        warmup=st.booleans(),
        gaps_us=st.lists(st.integers(0, 2**31 - 1), max_size=5),
        retries=st.integers(0, 1),
        error=st.none() | st.sampled_from(ERROR_KINDS),
        **of_type,
    )
    made = draw(st.lists(build, max_size=6))
    return draw(st.permutations([replace(in_order(one), request=number) for number, one in enumerate(made)]))


def in_order(result: Result) -> Result:
    """The same, with marks that come one after the other."""
    names = ("sent_ns", "first_event_ns", "first_token_ns", "first_answer_ns", "last_token_ns", "end_ns")
    there = [name for name in names if getattr(result, name) is not None]
    marks = sorted(getattr(result, name) for name in there)
    return replace(result, **dict(zip(there, marks, strict=True)))


@settings(max_examples=20, deadline=None)
@given(anyones(), st.sampled_from([2, record.ROWS]))
def test_any_results_come_back_as_columns_in_order_of_request(results: list[Result], rows: int) -> None:
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr(record, "ROWS", rows)
        found = read(written(Path(place) / "run", results)).levels[0].results

    assert_same(found, Results.from_results(results))
    ordered = sorted(results, key=lambda result: result.request)
    assert [found.gaps_us[a:b].tolist() for a, b in pairwise(found.gap_offsets)] == [one.gaps_us for one in ordered]
    for column in record.COLUMNS:
        values = [None if value != value else value for value in getattr(found, column.name)]

        assert values == [getattr(result, column.field) for result in ordered], column.name


def test_records_say_null_for_what_nobody_measured(path: Path) -> None:
    record = lines(written(path, [failed(0)]))[0]

    assert (record["first_token_ns"], record["output_tokens"], record["error"]) == (None, None, "http_5xx")
    assert "text" not in record


def test_a_run_that_has_not_begun_a_level_is_read(path: Path) -> None:
    RunFolder.create(path, {"name": "first"})

    assert read(path).levels == []


def test_records_are_on_disk_once_taken_and_done_and_all_at_a_levels_end(path: Path) -> None:
    run = RunFolder.create(path, {})
    run.begin(LEVEL)
    run.add(stream(0))

    work = run.take()
    run.add(stream(1))
    work()

    assert [record["request"] for record in lines(path)] == [0]
    run.end(COMPLETE, {})
    assert [record["request"] for record in lines(path)] == [0, 1]
    assert entries(path) == [("m@c1", 1, "complete")]
    run.close("interrupted")
    assert (read_info(path)["status"], read_info(path)["ended"][-1]) == ("interrupted", "Z")


def test_answers_of_measured_requests_are_kept_apart_if_at_all(path: Path) -> None:
    results = [stream(0, warmup=True, text="warm"), stream(1, text="Lisbon,\non the Tagus"), failed(2)]
    written(path, results)
    without = written(path.with_name("second"), results, answers=False)
    again = RunFolder.reopen(without)  # as it began
    write(again, results)
    again.close("complete")

    assert lines(path, "answers.jsonl") == [
        {"level": "m@c1", "attempt": 1, "request": 1, "prompt": "p", "model": "m", "text": "Lisbon,\non the Tagus"}
    ]
    assert not (without / "answers.jsonl").exists()
    assert b"Lisbon" not in (without / "requests.jsonl").read_bytes()


def test_run_json_says_from_the_start_what_is_run(path: Path) -> None:
    run = RunFolder.create(path, {"name": "first", "seed": 3})
    run.begin(LEVEL)
    info = read_info(path)

    assert (info["schema"], info["status"], info["name"], info["seed"]) == (1, "running", "first", 3)
    assert entries(path) == [("m@c1", 1, "running")]
    assert info["levels"][0]["began"].endswith("Z")


def test_a_skipped_level_says_why(path: Path) -> None:
    run = RunFolder.create(path, {})
    run.skip(LEVEL, "its model failed")
    level = read(path).levels[0]

    assert (level.facts["status"], level.facts["reason"], len(level.results)) == ("skipped", "its model failed", 0)


# -- histogram logs


@needs_hlog
def test_histograms_of_a_level_come_back(path: Path) -> None:
    level = read(written(path, [stream(0)])).levels[0]

    assert (level.histograms["itl"].count, level.histograms["itl"].max) == (2, 21_000)
    assert level.histograms["ttft"].count == 0


@needs_hlog
def test_a_log_says_how_long_each_histogram_was_recorded(path: Path) -> None:
    written(path, [stream(0)])
    line = (path / "itl.hlog").read_text().splitlines()[-1]

    assert line.startswith("Tag=m@c1/1,")
    assert line.split(",")[2] == "1.500"


@needs_hlog
def test_each_level_and_attempt_has_a_histogram_of_its_own(path: Path) -> None:
    run = RunFolder.create(path, {})
    for level, itl_us in [(LEVEL, 1), (LEVEL, 2), ({**LEVEL, "id": "a, b@c2"}, 3)]:
        run.begin(level)
        run.end(COMPLETE, histograms(itl_us))
    run.close("complete")

    assert [level.histograms["itl"].max for level in read(path).levels] == [2, 3]


def test_without_the_library_the_rest_of_the_folder_is_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.folder, "hlog_works", lambda: False)
    monkeypatch.setattr(store, "hlog_works", lambda: False)
    level = read(written(path, [stream(0)])).levels[0]

    assert list(path.glob("*.hlog")) == []
    assert len(level.results) == 1
    assert level.histograms == {}


# -- gaps beyond what is kept


@pytest.mark.parametrize(("requests", "kept"), [(2, [31, 31]), (3, [31, 31, 0])])
def test_gaps_beyond_the_limit_are_in_the_log_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch, requests: int, kept: list[int]
) -> None:
    monkeypatch.setattr(folder, "MAX_RAW_GAPS", 62)  # two requests of 31 gaps
    level = read(written(path, [stream(i) for i in range(requests)])).levels[0]

    assert level.gaps_kept is (requests == 2)
    assert np.diff(level.results.gap_offsets).tolist() == kept


# -- where a run may not go


def test_another_runs_folder_is_refused_and_untouched(path: Path) -> None:
    written(path, [stream(0)])
    before = (path / "run.json").read_bytes()

    with pytest.raises(UsageError, match=rf"holds another run; continue it with --resume {path}"):
        RunFolder.create(path, {})
    assert (path / "run.json").read_bytes() == before


def test_an_empty_folder_is_taken(path: Path) -> None:
    path.mkdir(parents=True)

    assert RunFolder.create(path, {}).path == path


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ("results/first/thesis.docx", "is not empty; choose a new folder with -o"),
        ("results/first/.notes.json", "is not empty; choose a new folder with -o"),
        ("results/first", "is a file"),
        ("results", "is a file"),
    ],
)
def test_what_is_there_already_is_refused_and_untouched(path: Path, there: str, said: str) -> None:
    file = path.parents[1] / there
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()

    with pytest.raises(UsageError, match=said):
        RunFolder.create(path, {})
    assert file.is_file()


@pytest.mark.parametrize(
    ("step", "number", "said"),
    [
        ("open", errno.EROFS, "run.json: cannot write: Read-only file system; choose another folder with -o"),
        ("mkdir", errno.EACCES, "cannot write: Permission denied; choose another folder with -o"),
    ],
)
def test_a_folder_that_cannot_be_written_is_one_line(
    path: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int, said: str
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, step, refuse)

    with pytest.raises(StoreError, match=f"{said}$"):
        RunFolder.create(path, {})


def test_too_little_space_is_said_before_anything_is_measured(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(path.parents[1])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=12_000_000))

    with pytest.raises(StoreError, match="only 12 MB of disk space left, a run needs 50 MB"):
        RunFolder.create(path, {})


# -- replaced by a whole file, or not at all


def test_a_replaced_file_is_the_new_one(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    for content in (b"old, and longer than the new one", b"new"):
        write_atomically(file, content)

    assert file.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("step", ["replace", "fsync", "open"])
def test_a_failed_replacement_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    file = tmp_path / "run.json"
    write_atomically(file, b"old")

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(StoreError, match="No space left on device"):
        write_atomically(file, b"new")

    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


# -- a disk that fills up


class FullDisk(io.RawIOBase):
    """A file on a disk with room for so many bytes."""

    def __init__(self, file: io.FileIO, room: int) -> None:
        self._file, self._room = file, room

    def write(self, content: Any) -> int:
        if not self._room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        wrote = self._file.write(content[: self._room])
        self._room -= wrote
        return wrote

    def close(self) -> None:
        self._file.close()
        super().close()


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Gives files that are opened from now on so many bytes each."""
    opened: list[FullDisk] = []

    def after(room: int) -> None:
        def limited(path: Path) -> Any:
            opened.append(FullDisk(cast(Any, store.files.open_append(path)), room))
            return opened[-1]

        monkeypatch.setattr(folder, "open_append", limited)

    yield after
    assert all(file.closed for file in opened), "a run that failed closes its files"


@pytest.mark.parametrize("ending", ["take", "close"])
def test_a_disk_that_fills_up_is_one_line_and_costs_only_what_did_not_fit(
    path: Path, full_disk: Callable[[int], None], ending: str
) -> None:
    run = RunFolder.create(path, {})
    run.begin(LEVEL)
    full_disk(1600)  # two records and a half
    for number in range(5):
        run.add(stream(number))

    with pytest.raises(StoreError, match=r"requests\.jsonl: cannot write: No space left on device"):
        run.take()() if ending == "take" else run.close("complete")
    if ending == "take":
        run.close("incomplete")
    found = read(path)

    assert found.levels[0].results.request.tolist() == [0, 1]
    assert found.unreadable_lines == 1
    assert found.levels[0].facts["status"] == "incomplete"


@pytest.mark.parametrize("taken", [100, None])  # None is what a file without a buffer makes of EAGAIN
def test_a_write_of_which_the_system_takes_a_part_is_continued(
    path: Path, monkeypatch: pytest.MonkeyPatch, taken: int | None
) -> None:
    class Sips(FullDisk):
        def write(self, content: Any) -> int:
            return cast(int, None) if taken is None else self._file.write(content[:taken])

    monkeypatch.setattr(folder, "open_append", lambda path: Sips(cast(Any, store.files.open_append(path)), 0))
    run = RunFolder.create(path, {})
    run.begin(LEVEL)
    for number in range(4):
        run.add(stream(number))

    if taken is None:
        with pytest.raises(StoreError, match="cannot write: Resource temporarily unavailable; let it be written again"):
            run.take()()
    run.close("incomplete")
    assert len(read(path).levels[0].results) == (0 if taken is None else 4)


# -- a run cut short


def test_a_level_that_was_running_when_its_process_died_is_incomplete(path: Path) -> None:
    killed(path, [stream(0), stream(1)])
    level = read(path).levels[0]

    assert level.facts["status"] == "incomplete"
    assert level.results.request.tolist() == [0, 1]


@pytest.mark.parametrize("cut", [1, 2, 40, 300])
def test_a_last_line_that_was_cut_off_is_counted_and_passed_over(path: Path, cut: int) -> None:
    killed(path, [stream(0), stream(1), stream(2)])
    file = path / "requests.jsonl"
    os.truncate(file, file.stat().st_size - cut)
    run = read(path)
    whole = cut == 1  # the line's end alone is gone, the record is whole

    assert run.levels[0].results.request.tolist() == ([0, 1, 2] if whole else [0, 1])
    assert run.unreadable_lines == (0 if whole else 1)


def test_a_continued_run_does_not_write_behind_a_line_that_was_cut_off(path: Path) -> None:
    killed(path, [stream(0), stream(1, text="half an answer")])
    for name in ("requests.jsonl", "answers.jsonl"):
        os.truncate(path / name, (path / name).stat().st_size - 30)
    run = RunFolder.reopen(path)
    write(run, [stream(i, text="whole") for i in range(3)])
    run.close("complete")
    found = read(path)

    assert found.levels[0].results.request.tolist() == [0, 1, 2]
    assert found.unreadable_lines == 1
    assert json.loads((path / "answers.jsonl").read_bytes().splitlines()[1])["text"] == "whole"


@needs_hlog
@pytest.mark.parametrize("cut", [1, 40, 10_000])
def test_a_continued_run_does_not_write_behind_a_histogram_that_was_cut_off(path: Path, cut: int) -> None:
    written(path, [stream(0)])
    file = path / "itl.hlog"
    os.truncate(file, max(0, file.stat().st_size - cut))
    run = RunFolder.reopen(path)
    write(run, [stream(0)])
    run.close("complete")
    found = read(path)

    assert found.levels[0].facts["attempt"] == 2
    assert found.levels[0].histograms["itl"].count == 2
    assert file.read_bytes().startswith(b"#[")


@pytest.mark.parametrize("name", [".run.json.a1b2c3_9", ".report.html.kq4x0000"])
def test_what_a_killed_write_left_is_cleared_away(path: Path, name: str) -> None:
    written(path, [])
    (path / name).write_bytes(b"{")

    RunFolder.reopen(path).close("complete")

    assert not (path / name).exists()


def test_a_run_may_begin_where_another_was_killed_before_it_began(path: Path) -> None:
    path.mkdir(parents=True)
    (path / ".run.json.a1b2c3_9").write_bytes(b"{")

    RunFolder.create(path, {}).close("complete")

    assert [file.name for file in path.iterdir()] == ["run.json"]


def test_reopening_a_whole_run_adds_nothing_to_its_records(path: Path) -> None:
    written(path, [stream(0, text="Lisbon")])
    before = [(path / name).read_bytes() for name in ("requests.jsonl", "answers.jsonl")]

    RunFolder.reopen(path).close("complete")

    assert [(path / name).read_bytes() for name in ("requests.jsonl", "answers.jsonl")] == before


def test_a_continued_run_knows_what_is_complete(path: Path) -> None:
    run = RunFolder.create(path, {})
    write(run, [stream(0)])
    write(run, [stream(0)], level={**LEVEL, "id": "m@c2"}, status="interrupted")
    run.begin({**LEVEL, "id": "m@c4"})
    run._release()

    again = RunFolder.reopen(path)

    assert read_info(path)["status"] == "running"
    assert again.complete() == {"m@c1"}
    assert entries(path) == [("m@c1", 1, "complete"), ("m@c2", 1, "interrupted"), ("m@c4", 1, "incomplete")]
    assert again.begin({**LEVEL, "id": "m@c4"}) == 2


@pytest.mark.skipif(os.name == "nt", reason="has no such locks")
def test_a_run_that_is_going_on_is_not_continued(path: Path) -> None:
    run = RunFolder.create(path, {})

    with pytest.raises(StoreError, match="another loadbench is writing to it"):
        RunFolder.reopen(path)
    assert read_info(path)["status"] == "running"

    run.close("interrupted")
    RunFolder.reopen(path).close("complete")
    assert read_info(path)["status"] == "complete"


# -- which attempt counts


@pytest.mark.parametrize(
    ("statuses", "counts"),
    [
        (["complete"], 1),
        (["incomplete", "complete"], 2),
        (["complete", "incomplete"], 1),
        (["complete", "interrupted", "failed"], 1),
        (["complete", "complete"], 2),
        (["incomplete", "interrupted"], 2),
        (["incomplete", "complete", "running"], 2),
        (["interrupted", "skipped"], 2),  # of attempts that are not whole the last
        (["skipped", "skipped", "complete"], 3),
    ],
)
def test_the_last_complete_attempt_counts_else_the_last(path: Path, statuses: list[str], counts: int) -> None:
    run = RunFolder.create(path, {})
    for number, status in enumerate(statuses, start=1):
        if status == "skipped":
            run.skip(LEVEL, "its model failed")
        else:
            write(run, [stream(i) for i in range(number)], status=status)
    run.close("complete")
    level = read(path).levels[0]

    assert level.facts["attempt"] == counts
    assert len(level.results) == (0 if statuses[counts - 1] == "skipped" else counts)


def test_levels_stay_in_the_order_they_first_began(path: Path) -> None:
    run = RunFolder.create(path, {})
    for name in ("m@c4", "m@c1", "m@c4"):
        write(run, [], level={**LEVEL, "id": name})
    run.close("complete")

    assert [level.facts["id"] for level in read(path).levels] == ["m@c4", "m@c1"]


def test_records_of_a_level_that_run_json_does_not_name_are_passed_over(path: Path) -> None:
    written(path, [stream(0)])
    with (path / "requests.jsonl").open("ab") as file:
        file.write(orjson.dumps({**lines(path)[0], "level": "n@c9"}) + b"\n")

    assert len(read(path).levels[0].results) == 1


# -- what is no run folder, or none that can be read


def change(path: Path, **changes: Any) -> None:
    file = path / "run.json"
    file.write_bytes(orjson.dumps({**orjson.loads(file.read_bytes()), **changes}))


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("gone", "no such run folder"),
        (".", r"is not a run folder: no run\.json in it"),
        ("file", "is a file; give the run's folder"),
    ],
)
def test_what_is_no_run_folder_is_one_line(tmp_path: Path, place: str, said: str) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(UsageError, match=said):
        read(tmp_path / place)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe"])
def test_a_damaged_run_json_is_one_line(path: Path, content: bytes) -> None:
    (written(path, []) / "run.json").write_bytes(content)

    with pytest.raises(StoreError, match=r"run\.json: is "):
        read(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": None},
        {"schema": "1"},
        {"levels": None},
        {"levels": {}},
        {"levels": ["m@c1"]},
        {"levels": [{"id": "m@c1"}]},
        {"levels": [{"id": "m@c1", "attempt": "1", "status": "complete"}]},
        {"levels": [{"id": ["m@c1"], "attempt": 1, "status": "complete"}]},
        {"levels": [{"id": "m@c1", "attempt": 1, "status": None}]},
    ],
)
def test_a_run_json_of_other_types_is_refused(path: Path, changes: dict[str, Any]) -> None:
    change(written(path, []), **changes)

    with pytest.raises(StoreError, match=r"run\.json: is "):
        read(path)


def test_a_run_json_too_large_to_be_one_is_not_read(path: Path) -> None:
    os.truncate(written(path, []) / "run.json", 65 * 1024 * 1024)  # sparse: it takes no room

    with pytest.raises(StoreError, match=r"is larger than any run\.json"):
        read(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("due_ns", "soon"),
        ("due_ns", None),
        ("warmup", 1),
        ("gaps_us", "20000"),
        ("gaps_us", [1.5]),
        ("gaps_us", [2**63]),  # more than the column holds
        ("words", 2**63),
        ("words", 10**30),
        ("prompt", 7),
        ("error", []),
    ],
)
def test_a_record_of_other_types_costs_its_line_alone_and_that_is_told(path: Path, field: str, value: Any) -> None:
    written(path, [stream(0), stream(1)])
    records = lines(path)
    records[1][field] = value
    (path / "requests.jsonl").write_text("\n\n".join(json.dumps(record) for record in records))
    run = read(path)

    assert run.levels[0].results.request.tolist() == [0]
    assert run.unreadable_lines == 1
    assert "requests.jsonl" in run.levels[0].damage[0]


@pytest.mark.parametrize("value", [2**53 + 1, 2**63, 10**30, 1e400, -1, 1.5])
def test_counts_that_cannot_be_true_are_as_none_where_they_are_written_and_read(path: Path, value: Any) -> None:
    lies = dict.fromkeys(store.files.SERVER_COUNTS, value)
    true = dict.fromkeys(lies, 200)
    run = read(written(path, [replace(stream(0), **lies), replace(stream(1), **true)]))
    old = "\n".join(json.dumps({**record, **(lies if record["request"] else {})}) for record in lines(path))
    (path / "requests.jsonl").write_text(old.replace("Infinity", "1e400"))
    again = read(path)

    assert (run.unreadable_lines, run.levels[0].damage, again.unreadable_lines) == (0, (), 0)
    for field in lies:
        assert np.isnan(getattr(run.levels[0].results, field)).tolist() == [True, False]
        assert np.isnan(getattr(again.levels[0].results, field)).all()


SERVER_SAID = {
    "target": {
        "base_url": "http://x/v1",
        "slots": 2**60,
        "models": [{"id": "m", "context": 2**53 + 1, "size_bytes": 10**19}, {"id": "n", "context": -1}],
    },
    "endpoints": [{"url": "http://x/v1", "weight": 10**30}],
    "telemetry": {"interval_s": 1.0, "server_pid": 2**70, "server_pids": [7, 2**60]},
}


@pytest.mark.parametrize("way", ["written", "read"])
def test_what_a_server_says_of_itself_and_cannot_be_true_is_as_none(path: Path, way: str) -> None:
    run = RunFolder.create(path, json.loads(json.dumps(SERVER_SAID)) if way == "written" else {})
    run.info["probes"].append({"model": "m", "input_tokens": 10**40})
    write(run, [stream(0)])
    run.close("complete")
    if way == "read":
        info = json.loads((path / "run.json").read_bytes())
        (path / "run.json").write_text(json.dumps({**info, **SERVER_SAID}))
    info = read(path).info

    assert info["target"]["models"][0] == {"id": "m", "context": None, "size_bytes": None}
    assert info["target"]["models"][1]["context"] is None
    assert info["target"]["base_url"] == "http://x/v1"
    assert info["target"]["slots"] is info["telemetry"]["server_pid"] is info["endpoints"][0]["weight"] is None
    assert info["telemetry"]["server_pids"] == [7]
    assert info["probes"][0]["input_tokens"] is None


@pytest.mark.parametrize("line", [b"{}", b"null", b"7", b'"text"', b"[]", None])
def test_a_file_without_a_record_is_named_by_its_first_line(path: Path, line: bytes | None) -> None:
    written(path, [stream(0), stream(1)])
    strange = [json.dumps({**record, "due_ns": "soon"}).encode() for record in lines(path)]
    (path / "requests.jsonl").write_bytes(b"\n\n".join(strange) if line is None else line + b"\n")
    why = ".*due_ns" if line is None else ""

    with pytest.raises(StoreError, match=r"requests\.jsonl, line 1: is no record of loadbench: " + why):
        read(path)


def test_blank_lines_are_passed_over(path: Path) -> None:
    file = written(path, [stream(0), stream(1)]) / "requests.jsonl"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\n \r\n"))
    run = read(path)

    assert (len(run.levels[0].results), run.unreadable_lines) == (2, 0)


def test_what_a_record_leaves_out_was_not_measured(path: Path) -> None:
    written(path, [])
    record = {"level": "m@c1", "attempt": 1, "request": 0, "prompt": "p", "warmup": False, "due_ns": 5, "end_ns": 9}
    (path / "requests.jsonl").write_bytes(orjson.dumps(record))
    results = read(path).levels[0].results

    assert (results.due[0], results.end[0], results.text_events[0], results.error[0]) == (5, 9, 0, None)
    assert np.isnan([results.sent[0], results.first_token[0], results.output_tokens[0], results.status[0]]).all()


def test_fields_of_a_later_version_are_passed_over(path: Path) -> None:
    written(path, [stream(0)])
    record = {**lines(path)[0], "first_pixel_ns": [1, {"a": None}]}
    (path / "requests.jsonl").write_bytes(orjson.dumps(record) + b"\n")
    change(path, colour="blue")

    assert len(read(path).levels[0].results) == 1


def test_requests_that_cannot_be_read_are_one_line(path: Path) -> None:
    written(path, [])
    (path / "requests.jsonl").unlink(missing_ok=True)
    (path / "requests.jsonl").mkdir()

    with pytest.raises(StoreError, match=r"requests\.jsonl: cannot read: Is a directory"):
        read(path)


# -- any damage at all


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a sound run."""
    path = written(tmp_path_factory.mktemp("sound") / "run", [stream(0), failed(1, due=50), stream(2, text="Lisbon")])
    return {file.name: file.read_bytes() for file in path.iterdir()}


def read_or_refused(files: dict[str, bytes]) -> Run | None:
    """What `read` makes of such a folder; None where it refuses it in one line."""
    with tempfile.TemporaryDirectory() as place:
        for name, content in files.items():
            (Path(place) / name).write_bytes(content)
        try:
            return read(Path(place))
        except StoreError as error:
            refusal = str(error)
    assert refusal.isprintable(), "one line"
    return None


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
@example(b'{"level":' + b"[" * 100_000)
@example(b'{"later":' + b"[" * 100_000 + b"\n")
@example(b'{"level":"\\ud800"}\n')
@example(b'{"level":"\xff"}\n')
@example(b"1e999\n")
@example(b"\x00")
def test_whatever_is_appended_to_the_requests_they_are_read_or_refused(
    sound: dict[str, bytes], appended: bytes
) -> None:
    run = read_or_refused({**sound, "requests.jsonl": sound["requests.jsonl"] + appended})

    assert run is None or run.levels[0].results.request.tolist() == [0, 1, 2]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None)
@given(field=st.sampled_from([*Line.__struct_fields__, "later"]), value=json_values)
def test_whatever_a_field_of_a_record_holds_it_is_read_or_refused(
    sound: dict[str, bytes], field: str, value: Any
) -> None:
    record = {**json.loads(sound["requests.jsonl"].splitlines()[0]), "request": 3, field: value}

    read_or_refused({**sound, "requests.jsonl": sound["requests.jsonl"] + json.dumps(record).encode() + b"\n"})


@settings(max_examples=60, deadline=None)
@given(field=st.sampled_from(["id", "model", "attempt", "status", "reason", "began", "later"]), value=json_values)
def test_whatever_run_json_says_of_a_level_it_is_read_or_refused(
    sound: dict[str, bytes], field: str, value: Any
) -> None:
    info = json.loads(sound["run.json"])
    info["levels"][0][field] = value

    read_or_refused({**sound, "run.json": json.dumps(info).encode()})


@settings(max_examples=120, deadline=None)
@given(
    name=st.sampled_from(["run.json", "requests.jsonl", "itl.hlog", "ttft.hlog"]),
    share=st.floats(0, 1),
    byte=st.none() | st.integers(0, 255),
)
def test_wherever_a_file_was_cut_off_or_changed_the_folder_is_read_or_refused(
    sound: dict[str, bytes], name: str, share: float, byte: int | None
) -> None:
    content = bytearray(sound.get(name, b" "))
    place = min(int(share * len(content)), len(content) - 1)
    if byte is None:
        run = read_or_refused({**sound, name: bytes(content[:place])})

        assert run is not None or name == "run.json"
    else:
        content[place] = byte
        read_or_refused({**sound, name: bytes(content)})


def test_records_that_wait_for_the_disk_take_little_more_memory_than_their_text(path: Path) -> None:
    run = RunFolder.create(path, {"name": "first"}, answers=False)
    run.begin(LEVEL)
    record = stream(0)
    tracemalloc.start()
    for _ in range(1000):
        run.add(record)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    run.close("complete")

    assert taken < 3 * (path / "requests.jsonl").stat().st_size


# -- whose files they are, and a disk that comes back


@pytest.fixture
def private() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.mark.skipif(sys.platform == "win32", reason="has no umask")
@pytest.mark.usefixtures("private")
def test_nobody_else_may_read_a_run_where_the_umask_says_so(path: Path) -> None:
    written(path, [stream(0)])
    write_atomically(path / "report.html", b"x")
    write_atomically(path / "report.html", b"again")

    assert {file.name: oct(file.stat().st_mode & 0o077) for file in path.iterdir()} == dict.fromkeys(
        (file.name for file in path.iterdir()), "0o0"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="making links needs a right there")
@pytest.mark.parametrize("name", ["requests.jsonl", "answers.jsonl", "telemetry.jsonl", "itl.hlog"])
def test_a_link_in_a_folder_of_somebodys_is_not_followed(path: Path, tmp_path: Path, name: str) -> None:
    """A run folder is a thing that people send each other: what it points to is not ours to write to."""
    written(path, [stream(0)])
    aim = tmp_path / "profile"
    aim.write_text("mine")
    (path / name).unlink(missing_ok=True)
    (path / name).symlink_to(aim)

    with pytest.raises(StoreError, match=rf"{name}: cannot write: A symbolic link, not a file"):
        RunFolder.reopen(path)
    with pytest.raises(OSError, match="A symbolic link, not a file"):  # one that appears while the run goes on
        store.files.open_append(path / name)
    assert aim.read_text() == "mine"


@pytest.mark.parametrize(("times", "kept"), [(1, b"new"), (2, b"new"), (9, b"old")])
def test_a_network_disk_that_was_away_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int, kept: bytes
) -> None:
    file = tmp_path / "run.json"
    write_atomically(file, b"old")
    real, stale = os.replace, iter(range(times))

    def replaced(*paths: Any) -> None:
        if next(stale, None) is not None:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        real(*paths)

    monkeypatch.setattr(os, "replace", replaced)
    try:
        write_atomically(file, b"new")
    except StoreError as error:
        assert "cannot write: Stale file handle; let it be written again, then continue with --resume" in str(error)  # noqa: PT017

    assert file.read_bytes() == kept
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_that_cannot_even_be_looked_at_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(os, "stat", stale)

    said = cannot_write(tmp_path / "run.json", OSError(errno.ESTALE, "Stale file handle"))

    assert "cannot write: Stale file handle" in str(said)


# -- telemetry.jsonl


def sample(at_s: float, **about: Any) -> dict[str, Any]:
    return {"at_s": at_s, "phase": "level", "level": "m@c1", "attempt": 1, "server": {"memory_bytes": 5}, **about}


def test_a_new_folder_says_that_nothing_is_known_of_models_and_telemetry_yet(path: Path) -> None:
    RunFolder.create(path, {}).close("complete")

    info = read_info(path)
    assert [info[name] for name in ("models", "absent", "telemetry", "probes")] == [[], [], None, []]


def test_samples_are_written_when_the_requests_are(path: Path) -> None:
    run = RunFolder.create(path, {})
    run.add_sample(sample(0.5))
    before = (path / "telemetry.jsonl").exists()
    run.take()()
    run.close("complete")

    assert not before
    assert lines(path, "telemetry.jsonl") == [sample(0.5)]


def test_a_sample_that_was_cut_off_does_not_spoil_the_next(path: Path) -> None:
    RunFolder.create(path, {}).close("interrupted")
    (path / "telemetry.jsonl").write_bytes(b'{"at_s": 1')
    run = RunFolder.reopen(path)
    run.add_sample(sample(2.0))
    run.close("complete")

    assert [json.loads((path / "telemetry.jsonl").read_bytes().splitlines()[1])] == [sample(2.0)]


def test_a_folder_of_an_older_version_can_be_continued(path: Path) -> None:
    run = RunFolder.create(path, {})
    del run.info["models"]
    run.close("interrupted")

    again = RunFolder.reopen(path)
    again.close("complete")

    assert again.info["models"] == []


# -- reading


def with_samples(path: Path, *lines: bytes) -> store.Run:
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
    run = with_samples(path, line(1), line(2, attempt=2), line(3, attempt=2), line(4, level=["m"], attempt={}))

    assert [one["at_s"] for one in run.samples] == [2, 3]


def test_samples_outside_of_levels_all_count(path: Path) -> None:
    run = with_samples(path, line(1, phase="idle", level=None, attempt=None), line(2, attempt=2))

    assert [one["phase"] for one in run.samples] == ["idle", "level"]


@pytest.mark.parametrize("bad", [b"{", b"[1]", b"7", b"\xff", b'{"at_s": "soon"}', b'{"phase": "level"}', b"{}"])
def test_a_line_that_is_no_sample_is_counted_and_passed_over(path: Path, bad: bytes) -> None:
    run = with_samples(path, line(1, attempt=2), bad, b"", line(2, attempt=2))

    assert [one["at_s"] for one in run.samples] == [1, 2]
    assert run.unreadable_samples == 1
