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
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from loadbench import store
from loadbench.errors import StoreError, UsageError
from loadbench.store import Run, RunFolder, folder, read, record, write_atomically
from loadbench.store.histogram import Histogram
from loadbench.store.record import ERROR_KINDS, Result, Results
from tests.support.streams import failed, stream

LEVEL = {"id": "m@c1", "model": "m", "concurrency": 1}
COMPLETE = {"status": "complete", "reason": None, "duration_s": 1.5}

needs_hlog = pytest.mark.skipif(not store.hlog_works(), reason="hdrhistogram has no wheel here")


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
    return [(one["id"], one["attempt"], one["status"]) for one in store.read_info(path)["levels"]]


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


@st.composite
def anyones(draw: st.DrawFn) -> list[Result]:
    """Results of any shape, in the order they ended."""
    build = st.builds(
        Result,
        level=st.just("m@c1"),
        attempt=st.just(1),
        request=st.just(0),
        prompt=texts,
        warmup=st.booleans(),
        due_ns=st.integers(0, 10**15),
        sent_ns=ns,
        connect_ns=ns,
        headers_ns=ns,
        first_event_ns=ns,
        first_token_ns=ns,
        last_token_ns=ns,
        end_ns=st.integers(0, 10**15),
        gaps_us=st.lists(st.integers(0, 2**31 - 1), max_size=5),
        first_events=counts,
        text_events=counts,
        merged_arrivals=counts,
        first_tokens=tokens,
        input_tokens=tokens,
        cached_tokens=tokens,
        output_tokens=tokens,
        characters=counts,
        words=counts,
        finish_reason=st.none() | texts,
        status=st.none() | st.integers(100, 599),
        retries=st.integers(0, 1),
        error=st.none() | st.sampled_from(ERROR_KINDS),
        error_message=st.none() | texts,
        text=texts,
    )
    made = draw(st.lists(build, max_size=6))
    return draw(st.permutations([replace(in_order(one), request=number) for number, one in enumerate(made)]))


def in_order(result: Result) -> Result:
    """The same, with marks that come one after the other."""
    names = ("sent_ns", "first_event_ns", "first_token_ns", "last_token_ns", "end_ns")
    there = [name for name in names if getattr(result, name) is not None]
    marks = sorted(getattr(result, name) for name in there)
    return replace(result, **dict(zip(there, marks, strict=True)))


@settings(max_examples=60, deadline=None)
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


def test_a_mark_that_never_happened_is_nan(path: Path) -> None:
    found = read(written(path, [failed(0)])).levels[0].results

    assert np.isnan(found.first_token[0])
    assert np.isnan(found.output_tokens[0])


def test_records_say_null_for_what_nobody_measured(path: Path) -> None:
    record = lines(written(path, [failed(0)]))[0]

    assert (record["first_token_ns"], record["output_tokens"], record["error"]) == (None, None, "http_5xx")
    assert "text" not in record


def test_a_level_without_requests_is_read(path: Path) -> None:
    run = read(written(path, []))

    assert len(run.levels[0].results) == 0


def test_a_run_that_has_not_begun_a_level_is_read(path: Path) -> None:
    RunFolder.create(path, {"name": "first"})

    assert read(path).levels == []


def test_records_are_on_disk_once_taken_and_done(path: Path) -> None:
    run = RunFolder.create(path, {})
    run.begin(LEVEL)
    run.add(stream(0))

    work = run.take()
    run.add(stream(1))
    work()

    assert [record["request"] for record in lines(path)] == [0]
    run.close("complete")
    assert [record["request"] for record in lines(path)] == [0, 1]


def test_a_levels_end_puts_all_of_it_on_disk(path: Path) -> None:
    run = RunFolder.create(path, {})
    write(run, [stream(0)])
    found = len(lines(path)), entries(path)
    run.close("complete")

    assert found == (1, [("m@c1", 1, "complete")])


def test_answers_of_measured_requests_are_kept_apart(path: Path) -> None:
    written(path, [stream(0, warmup=True, text="warm"), stream(1, text="Lisbon,\non the Tagus"), failed(2)])

    assert lines(path, "answers.jsonl") == [
        {"level": "m@c1", "attempt": 1, "request": 1, "prompt": "p", "model": "m", "text": "Lisbon,\non the Tagus"}
    ]


def test_no_answers_means_no_file_of_answers(path: Path) -> None:
    written(path, [stream(0, text="Lisbon")], answers=False)

    assert not (path / "answers.jsonl").exists()
    assert b"Lisbon" not in (path / "requests.jsonl").read_bytes()


def test_run_json_says_from_the_start_what_is_run(path: Path) -> None:
    run = RunFolder.create(path, {"name": "first", "seed": 3})
    run.begin(LEVEL)
    info = store.read_info(path)

    assert (info["schema"], info["status"], info["name"], info["seed"]) == (1, "running", "first", 3)
    assert entries(path) == [("m@c1", 1, "running")]
    assert info["levels"][0]["began"].endswith("Z")


def test_a_closed_run_says_how_it_ended(path: Path) -> None:
    RunFolder.create(path, {}).close("interrupted")
    info = store.read_info(path)

    assert info["status"] == "interrupted"
    assert info["ended"].endswith("Z")


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
    monkeypatch.setattr(store.reading, "hlog_works", lambda: False)
    level = read(written(path, [stream(0)])).levels[0]

    assert list(path.glob("*.hlog")) == []
    assert len(level.results) == 1
    assert level.histograms == {}


# -- gaps beyond what is kept


def test_gaps_beyond_the_limit_are_in_the_log_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "MAX_RAW_GAPS", 62)  # two requests of 31 gaps
    level = read(written(path, [stream(i) for i in range(3)])).levels[0]

    assert not level.gaps_kept
    assert np.diff(level.results.gap_offsets).tolist() == [31, 31, 0]
    assert lines(path)[2]["gaps_us"] is None


def test_gaps_up_to_the_limit_are_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "MAX_RAW_GAPS", 62)

    assert read(written(path, [stream(0), stream(1)])).levels[0].gaps_kept


# -- where a run may not go


def test_another_runs_folder_is_refused_and_untouched(path: Path) -> None:
    written(path, [stream(0)])
    before = (path / "run.json").read_bytes()

    with pytest.raises(UsageError, match=rf"holds another run; continue it with --resume {path}"):
        RunFolder.create(path, {})
    assert (path / "run.json").read_bytes() == before


def test_a_folder_with_other_files_is_refused(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "thesis.docx").touch()

    with pytest.raises(UsageError, match="is not empty; choose a new folder with -o"):
        RunFolder.create(path, {})
    assert [file.name for file in path.iterdir()] == ["thesis.docx"]


def test_an_empty_folder_is_taken(path: Path) -> None:
    path.mkdir(parents=True)

    assert RunFolder.create(path, {}).path == path


def test_a_file_in_place_of_the_folder_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.touch()

    with pytest.raises(UsageError, match="is a file"):
        RunFolder.create(path, {})


def test_a_file_in_place_of_a_parent_is_refused(path: Path) -> None:
    path.parent.touch()

    with pytest.raises(UsageError, match="is a file"):
        RunFolder.create(path, {})


def test_a_folder_that_cannot_be_written_is_one_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", refuse)

    with pytest.raises(StoreError) as caught:
        RunFolder.create(path, {})
    assert (
        str(caught.value) == f"{path / 'run.json'}: cannot write: Read-only file system; choose another folder with -o"
    )


def test_a_parent_that_cannot_be_written_is_one_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "mkdir", refuse)

    with pytest.raises(StoreError, match="cannot write: Permission denied"):
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


def test_a_disk_that_fills_up_is_one_line_and_costs_only_what_did_not_fit(
    path: Path, full_disk: Callable[[int], None]
) -> None:
    run = RunFolder.create(path, {})
    run.begin(LEVEL)
    full_disk(1500)  # two records and a half
    for number in range(5):
        run.add(stream(number))

    with pytest.raises(StoreError, match=r"requests\.jsonl: cannot write: No space left on device"):
        run.take()()
    run.close("incomplete")
    found = read(path)

    assert found.levels[0].results.request.tolist() == [0, 1]
    assert found.unreadable_lines == 1
    assert found.levels[0].facts["status"] == "incomplete"


def test_a_write_of_which_the_system_takes_a_part_is_continued(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Sips(FullDisk):
        def write(self, content: Any) -> int:
            return self._file.write(content[:100])

    monkeypatch.setattr(folder, "open_append", lambda path: Sips(cast(Any, store.files.open_append(path)), 0))

    assert len(read(written(path, [stream(i) for i in range(4)])).levels[0].results) == 4


def test_a_run_that_cannot_be_closed_closes_its_files(path: Path, full_disk: Callable[[int], None]) -> None:
    run = RunFolder.create(path, {})
    run.begin(LEVEL)
    full_disk(10)
    run.add(stream(0))

    with pytest.raises(StoreError):
        run.close("complete")

    assert run._files == {}


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


def test_a_hidden_file_of_somebody_else_is_left_alone(path: Path) -> None:
    path.mkdir(parents=True)
    (path / ".notes.json").write_bytes(b"{}")

    with pytest.raises(UsageError, match="is not empty"):
        RunFolder.create(path, {})


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

    assert store.read_info(path)["status"] == "running"
    assert again.complete() == {"m@c1"}
    assert entries(path) == [("m@c1", 1, "complete"), ("m@c2", 1, "interrupted"), ("m@c4", 1, "incomplete")]
    assert again.begin({**LEVEL, "id": "m@c4"}) == 2


@pytest.mark.skipif(os.name == "nt", reason="has no such locks")
def test_a_run_that_is_going_on_is_not_continued(path: Path) -> None:
    run = RunFolder.create(path, {})

    with pytest.raises(StoreError, match="another loadbench is writing to it"):
        RunFolder.reopen(path)
    assert store.read_info(path)["status"] == "running"

    run.close("interrupted")
    RunFolder.reopen(path).close("complete")
    assert store.read_info(path)["status"] == "complete"


def test_a_continued_run_takes_answers_or_not_as_it_began(path: Path) -> None:
    run = RunFolder.create(path, {}, answers=False)
    run.close("interrupted")
    again = RunFolder.reopen(path)
    write(again, [stream(0, text="Lisbon")])
    again.close("complete")

    assert not (path / "answers.jsonl").exists()


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


def test_no_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such run folder"):
        read(tmp_path / "gone")


def test_a_folder_without_run_json_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is not a run folder: no run\.json in it"):
        read(tmp_path)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.touch()

    with pytest.raises(UsageError, match="is a file; give the run's folder"):
        read(file)


def test_a_newer_schema_asks_for_an_upgrade(path: Path) -> None:
    change(written(path, []), schema=store.SCHEMA + 1)

    with pytest.raises(StoreError, match="has schema 2, this loadbench reads up to 1: upgrade loadbench"):
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


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_run_json_is_one_line(path: Path, content: bytes) -> None:
    (written(path, []) / "run.json").write_bytes(content)

    with pytest.raises(StoreError, match=r"run\.json: is "):
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


def test_records_of_which_none_is_one_are_named_by_the_first_line(path: Path) -> None:
    written(path, [stream(0), stream(1)])
    records = [{**record, "due_ns": "soon"} for record in lines(path)]
    (path / "requests.jsonl").write_text("\n\n".join(json.dumps(record) for record in records))

    with pytest.raises(StoreError, match=r"requests\.jsonl, line 1: is no record of loadbench: .*due_ns"):
        read(path)


@pytest.mark.parametrize("value", [2**53 + 1, 2**63, 10**30, 1e400, -1, 1.5])
@pytest.mark.parametrize("field", store.files.TOLD)
def test_a_count_that_cannot_be_true_is_as_none_where_it_is_written(path: Path, field: str, value: Any) -> None:
    run = read(written(path, [replace(stream(0), **{field: value}), stream(1)]))

    assert np.isnan(getattr(run.levels[0].results, field)[0])
    assert (run.unreadable_lines, run.levels[0].damage) == (0, ())


@pytest.mark.parametrize("value", [2**53 + 1, 2**63, 10**30, -1, 1.5])
def test_a_count_that_cannot_be_true_is_as_none_in_a_folder_that_has_it(path: Path, value: Any) -> None:
    written(path, [stream(0), stream(1)])
    records = [{**record, "output_tokens": value} if record["request"] else record for record in lines(path)]
    (path / "requests.jsonl").write_text("\n".join(json.dumps(record) for record in records))
    run = read(path)

    assert run.unreadable_lines == 0
    assert np.isnan(run.levels[0].results.output_tokens).tolist() == [False, True]


SERVER_SAID = {
    "target": {
        "base_url": "http://x/v1",
        "slots": 2**60,
        "models": [{"id": "m", "context": 2**53 + 1, "size_bytes": 10**19}, {"id": "n", "context": -1}],
    },
    "endpoints": [{"url": "http://x/v1", "weight": 10**30}],
    "telemetry": {"interval_s": 1.0, "server_pid": 2**70, "server_pids": [7, 2**60]},
}


def test_what_a_server_says_of_itself_and_cannot_be_true_is_as_none_where_it_is_written(path: Path) -> None:
    run = RunFolder.create(path, json.loads(json.dumps(SERVER_SAID)))
    run.info["probes"].append({"model": "m", "input_tokens": 10**40})
    write(run, [stream(0)])
    run.close("complete")
    info = read(path).info

    assert [one["context"] for one in info["target"]["models"]] == [None, None]
    assert info["target"]["slots"] is info["telemetry"]["server_pid"] is info["endpoints"][0]["weight"] is None
    assert info["telemetry"]["server_pids"] == [7]
    assert info["probes"][0]["input_tokens"] is None


def test_what_a_server_says_of_itself_and_cannot_be_true_is_as_none_in_a_folder_that_has_it(path: Path) -> None:
    written(path, [stream(0)])
    info = json.loads((path / "run.json").read_bytes())
    (path / "run.json").write_text(json.dumps({**info, **SERVER_SAID}))
    info = read(path).info

    assert info["target"]["models"][0] == {"id": "m", "context": None, "size_bytes": None}
    assert info["target"]["base_url"] == "http://x/v1"


@pytest.mark.parametrize("line", [b"{}", b"null", b"7", b'"text"', b"[]"])
def test_json_that_is_no_record_is_named_by_its_line(path: Path, line: bytes) -> None:
    (written(path, [stream(0)]) / "requests.jsonl").write_bytes(line + b"\n")

    with pytest.raises(StoreError, match=r"requests\.jsonl, line 1: "):
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


@settings(max_examples=150, deadline=None)
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


@settings(max_examples=150, deadline=None)
@given(field=st.sampled_from([*store.files.FIELDS, "later"]), value=json_values)
def test_whatever_a_field_of_a_record_holds_it_is_read_or_refused(
    sound: dict[str, bytes], field: str, value: Any
) -> None:
    record = {**json.loads(sound["requests.jsonl"].splitlines()[0]), "request": 3, field: value}

    read_or_refused({**sound, "requests.jsonl": sound["requests.jsonl"] + json.dumps(record).encode() + b"\n"})


@settings(max_examples=150, deadline=None)
@given(field=st.sampled_from(["id", "model", "attempt", "status", "reason", "began", "later"]), value=json_values)
def test_whatever_run_json_says_of_a_level_it_is_read_or_refused(
    sound: dict[str, bytes], field: str, value: Any
) -> None:
    info = json.loads(sound["run.json"])
    info["levels"][0][field] = value

    read_or_refused({**sound, "run.json": json.dumps(info).encode()})


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(["run.json", "requests.jsonl", "itl.hlog", "ttft.hlog"]), share=st.floats(0, 1))
def test_wherever_a_file_was_cut_off_the_folder_is_read_or_refused(
    sound: dict[str, bytes], name: str, share: float
) -> None:
    content = sound.get(name, b"")
    kept = content[: round(share * len(content))]
    run = read_or_refused({**sound, name: kept})

    assert run is not None or name == "run.json"


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(["run.json", "requests.jsonl", "itl.hlog"]), place=st.floats(0, 1), byte=st.integers(0, 255)
)
def test_whichever_byte_was_changed_the_folder_is_read_or_refused(
    sound: dict[str, bytes], name: str, place: float, byte: int
) -> None:
    content = bytearray(sound.get(name, b" "))
    content[min(int(place * len(content)), len(content) - 1)] = byte

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
    assert aim.read_text() == "mine"


def test_a_link_that_appears_meanwhile_is_not_followed(path: Path, tmp_path: Path) -> None:
    run = RunFolder.create(path, {})
    run.begin(LEVEL)
    (path / "requests.jsonl").symlink_to(tmp_path / "profile")
    run.add(stream(0))

    with pytest.raises(StoreError, match="A symbolic link, not a file"):
        run.take()()
    run._release()
    assert not (tmp_path / "profile").exists()


def test_a_disk_that_is_busy_is_one_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Busy(FullDisk):
        def write(self, content: Any) -> int:
            return cast(int, None)  # what a file without a buffer makes of EAGAIN

    run = RunFolder.create(path, {})
    monkeypatch.setattr(folder, "open_append", lambda path: Busy(cast(Any, store.files.open_append(path)), 0))
    run.begin(LEVEL)
    run.add(stream(0))

    with pytest.raises(StoreError, match=r"requests\.jsonl: cannot write: Resource temporarily unavailable; let it be"):
        run.take()()
    run.close("incomplete")


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

    said = store.cannot_write(tmp_path / "run.json", OSError(errno.ESTALE, "Stale file handle"))

    assert "cannot write: Stale file handle" in str(said)
