"""Writing a run folder: records are appended as requests end, run.json is replaced by rename."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import orjson
from msgspec.structs import asdict

from loadbench.errors import StoreError, UsageError
from loadbench.store.files import (
    HISTOGRAMS,
    NO_FIELDS,
    SCHEMA,
    SERVER_COUNTS,
    cannot_write,
    count_line,
    end_lines,
    hlog_works,
    hold,
    is_count,
    left_behind,
    log_tag,
    open_append,
    read_info,
    utc_now,
    write_all,
    write_atomically,
)
from loadbench.store.histogram import Histogram, log_header
from loadbench.store.record import Facts, Json, Result
from loadbench.store.schema import FROM_SERVERS, Part, forget

MAX_RAW_GAPS = 20_000_000  # of a run; beyond it gaps are kept in itl.hlog alone
MIN_FREE_BYTES = 50 * 1024 * 1024


def check_new(path: Path) -> None:
    """Whether a new run may go to this folder; makes nothing.

    Raises:
        UsageError: If it holds another run or other files, or it or a folder above it is a file.
        StoreError: If nothing can be written there, or the disk is full.
    """
    try:
        if (path / "run.json").exists():
            raise UsageError(f"{path}: holds another run; continue it with --resume {path}, or choose another -o")
        there = next(folder for folder in (path, *path.parents, Path()) if folder.exists())
        if not there.is_dir():
            raise UsageError(f"{path}: {there} is a file; choose another folder with -o")
        if there == path and set(path.iterdir()) - set(left_behind(path)):
            raise UsageError(f"{path}: is not empty; choose a new folder with -o")
        if not os.access(there, os.W_OK | os.X_OK):
            raise StoreError(f"{path}: {there} cannot be written; choose another folder with -o")
        free = shutil.disk_usage(there).free
    except OSError as error:
        raise cannot_write(path, error) from error
    if free < MIN_FREE_BYTES:
        raise StoreError(
            f"{path}: only {free / 1e6:.0f} MB of disk space left, a run needs 50 MB; choose another folder with -o"
        )


class RunFolder:
    """A run folder that is being written. Make one with `create` or `reopen`."""

    def __init__(self, path: Path, info: Json, *, answers: bool) -> None:
        self.path = path
        self.info = info
        self._answers = answers
        self._began_s = time.time()
        self._raw_gaps = 0
        self._ended: list[Result] = []
        self._samples = bytearray()
        self._written: dict[str, Part] = {}  # of the present level
        self._files: dict[str, BinaryIO] = {}
        self._held = hold(path)
        for left in left_behind(path):
            left.unlink(missing_ok=True)

    @classmethod
    def create(cls, path: Path, info: Facts, *, answers: bool = True) -> RunFolder:
        """Make a new run folder.

        Args:
            info: What run.json says from the start: versions, command, scenario, target, environment.
            answers: Whether to keep answers.jsonl.

        Raises:
            UsageError: If it holds another run or other files.
            StoreError: If it cannot be written, or the disk is full.
        """
        check_new(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(path, error) from error
        begun = {"schema": SCHEMA, "status": "running", "absent": [], "telemetry": None, **info, "answers": answers}
        folder = cls(path, {**begun, "models": [], "probes": [], "levels": []}, answers=answers)
        folder._write_info()
        return folder

    @classmethod
    def reopen(cls, path: Path) -> RunFolder:
        """Open a run folder to continue it: what is there stays, a line that was cut off is ended.

        Raises:
            StoreError: If it is no run folder of a schema that is known here, or another process writes to it.
        """
        folder = cls(path, read_info(path), answers=True)
        folder.info = read_info(path)  # again: it may have changed until it was held
        folder._answers = folder.info.get("answers", True)
        folder.info["status"] = "running"
        for name in ("models", "probes"):
            folder.info.setdefault(name, [])
        for level in folder.info["levels"]:
            if level["status"] == "running":
                level["status"] = "incomplete"
        try:
            for name in ("requests.jsonl", "answers.jsonl", "telemetry.jsonl", *(f"{one}.hlog" for one in HISTOGRAMS)):
                end_lines(path / name)
            folder._write_info()
        except StoreError:
            folder._release()
            raise
        return folder

    def complete(self) -> set[str]:
        """Ids of the levels that need not be done again."""
        return {level["id"] for level in self.info["levels"] if level["status"] == "complete"}

    def begin(self, level: Facts) -> int:
        """A level, of which `id` and `model` are needed, begins; the number of this attempt, from 1."""
        attempt = self._next_attempt(level)
        self.info["levels"].append({**level, "attempt": attempt, "status": "running", "began": utc_now("milliseconds")})
        self._written = {}
        self._write_info()
        return attempt

    def _next_attempt(self, level: Facts) -> int:
        return 1 + sum(1 for entry in self.info["levels"] if entry["id"] == level["id"])

    def add(self, result: Result) -> None:
        """A request ended. It is on disk once `take` was called and its work done."""
        self._ended.append(result)

    def _record(self, result: Result) -> bytes:
        """Its line in requests.jsonl."""
        record = asdict(result)
        for name in NO_FIELDS:
            del record[name]
        for name in SERVER_COUNTS:
            if record[name] is not None and not is_count(record[name]):
                record[name] = None
        self._raw_gaps += len(result.gaps_us)
        if self._raw_gaps > MAX_RAW_GAPS:
            record["gaps_us"] = None
        return self._line("requests", record)

    def _answer(self, result: Result) -> bytes:
        """Its line in answers.jsonl."""
        answer = {
            "level": result.level,
            "attempt": result.attempt,
            "request": result.request,
            "prompt": result.prompt,
            "model": self.info["levels"][-1]["model"],
            "text": result.text,
        }
        return self._line("answers", answer)

    def add_sample(self, sample: Facts) -> None:
        """A look at the server and the machine: a line of telemetry.jsonl, on disk as `add` says."""
        self._samples += self._line("telemetry" if sample.get("phase") == "level" else None, sample)

    def _line(self, kind: str | None, content: Facts) -> bytes:
        """A line of a file, counted among those of the present level where it is of one."""
        line = orjson.dumps(content)
        if kind is not None:
            count_line(self._written.setdefault(kind, Part(lines=0, crc32=0)), line)
        return line + b"\n"

    def take(self) -> Callable[[], None]:
        """What has ended since the last call, as the work of writing it, which may be done in a thread.

        Raises:
            StoreError: From the work, if it cannot be written; what was written before stays.
        """
        ended, self._ended = self._ended, []
        samples, self._samples = self._samples, bytearray()

        def write() -> None:
            # Here, not as each of them ends: one right after the other they take half the time. One buffer each: a line
            # of orjson's keeps 16 KB to itself, which a thousand streams that end together feel.
            requests, texts = bytearray(), bytearray()
            for result in ended:
                requests += self._record(result)
                if self._answers and result.text and not result.warmup:
                    texts += self._answer(result)
            self._append("requests.jsonl", requests)
            self._append("answers.jsonl", texts)
            self._append("telemetry.jsonl", samples)

        return write

    def _append(self, name: str, content: bytes | bytearray) -> None:
        if not content:
            return
        try:
            file = self._files.get(name)
            if file is None:
                file = self._files[name] = open_append(self.path / name)
            write_all(file, content)
        except OSError as error:
            raise cannot_write(self.path / name, error) from error

    def end(self, facts: Facts, histograms: Mapping[str, Histogram]) -> None:
        """The present level is over: its facts, and a line in each metric's .hlog.

        Args:
            facts: `status` among them: complete, interrupted, failed.
            histograms: By metric, as `HISTOGRAMS` names them, in us.
        """
        self.take()()
        level = self.info["levels"][-1]
        level.update({**facts, "written": self._written})
        tag = log_tag(level["id"], level["attempt"])
        for name, histogram in histograms.items():
            self._log(name, tag, histogram, level.get("duration_s") or 0.0)
        self._write_info()

    def skip(self, level: Facts, reason: str) -> None:
        """A level that is not run."""
        skipped = {"attempt": self._next_attempt(level), "status": "skipped", "reason": reason, "began": None}
        self.info["levels"].append({**level, **skipped})
        self._write_info()

    def close(self, status: str) -> None:
        """The run is over: `complete` or `interrupted`."""
        try:
            self.take()()
            self.info["status"] = status
            self.info["ended"] = utc_now()
            self._write_info()
        finally:
            self._release()

    def _release(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def _log(self, name: str, tag: str, histogram: Histogram, duration_s: float) -> None:
        if not hlog_works():
            return  # all else of the run is whole without it; run.json says so
        path = self.path / f"{name}.hlog"
        head = "" if path.exists() and path.stat().st_size else log_header(start_s=self._began_s)
        line = histogram.log_line(tag, start_s=time.time() - duration_s - self._began_s, duration_s=duration_s)
        self._append(path.name, (head + line).encode())

    def _write_info(self) -> None:
        forget(self.info, (*FROM_SERVERS, "models", "probes"))
        write_atomically(self.path / "run.json", orjson.dumps(self.info, option=orjson.OPT_INDENT_2))


# Folders of two runs that were measured in turns, below one.
SIDES = ("base", "new")


def sides(root: Path | None) -> list[Path]:
    """The run folders of both sides, if that is what this folder holds; else none."""
    if root is None:
        return []
    found = [root / name for name in SIDES]
    return found if all((folder / "run.json").exists() for folder in found) else []
