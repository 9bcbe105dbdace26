"""The run folder (results/README.md): what a run writes as it goes, and what every report is computed from.

`requests.jsonl` is the truth, appended as requests end. `run.json` says what was run and which levels are whole; it is
replaced by rename, so that whoever reads it sees a whole one. A level is either complete or done again.

Reading it, whole or cut short, is here: every report starts with `read`.

files.py      its files: names, how one is replaced, read by lines, checked
folder.py     writing it
record.py     one request's record, and its columns
histogram.py  HDR histograms and their logs
schema.py     what run.json and a sample may hold
summary.py    summary.json as structs
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import orjson

from loadbench.errors import StoreError
from loadbench.store.files import HISTOGRAMS, SERVER_COUNTS, Check, hlog_works, is_count, log_tag, read_info, read_lines
from loadbench.store.histogram import Histogram, read_log
from loadbench.store.record import ColumnBuilder, Json, Line, Results
from loadbench.store.schema import is_sample
from loadbench.text import printable


@dataclass(frozen=True, slots=True)
class LevelData:
    """One level of a run as it counts: the last complete attempt, else the last one.

    Attributes:
        facts: The level's entry in run.json.
        results: Its requests, as columns.
        histograms: By metric (`HISTOGRAMS`), in us; without entries where no .hlog could be read.
        gaps_kept: Whether `results` holds every gap; else `histograms["itl"]` alone does.
        damage: Why its records or samples are not those that were written, a line each; empty where all is well, and
            where the run did not write down what it wrote.
    """

    facts: Json
    results: Results
    histograms: dict[str, Histogram]
    gaps_kept: bool
    damage: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder, read.

    Attributes:
        path: The folder.
        info: run.json.
        levels: In the order they were first begun.
        unreadable_lines: Lines of requests.jsonl that are no records: a process died while it wrote, or they were
            changed.
        samples: Of telemetry.jsonl, in its order; those of a level's attempts that do not count are left out.
        unreadable_samples: Lines of telemetry.jsonl that are no samples.
    """

    path: Path
    info: Json
    levels: list[LevelData]
    unreadable_lines: int
    samples: list[Json] = field(default_factory=list)
    unreadable_samples: int = 0


def read(path: Path) -> Run:
    """Read a run folder, whole or cut short.

    Raises:
        StoreError: If it is no run folder, or none of its records is one.
    """
    info = read_info(path)
    counted: dict[str, Json] = {}
    for level in info["levels"]:
        if level["status"] == "running":
            level["status"] = "incomplete"
        before = counted.get(level["id"])
        if before is None or before["status"] != "complete" or level["status"] == "complete":
            counted[level["id"]] = level
    attempts = {(level["id"], level["attempt"]): _Attempt(level) for level in counted.values()}
    unreadable = _read_requests(path / "requests.jsonl", attempts)
    checks = {log_tag(*key): attempt.of_samples for key, attempt in attempts.items()}
    samples, unreadable_samples = _read_samples(path / "telemetry.jsonl", checks)
    files = {name: path / f"{name}.hlog" for name in HISTOGRAMS}
    logs = {name: read_log(file, checks) for name, file in files.items() if file.exists() and hlog_works()}
    levels = []
    for key, attempt in attempts.items():
        histograms = {name: log[log_tag(*key)] for name, log in logs.items() if log_tag(*key) in log}
        columns, kept = attempt.columns.results(), attempt.columns.gaps_kept
        levels.append(LevelData(attempt.facts, columns, histograms, gaps_kept=kept, damage=attempt.damage()))
    return Run(path, info, levels, unreadable, samples, unreadable_samples)


LARGEST_SAMPLE_BYTES = 1 << 20
# Lines before the first record, of a file that is somebody else's.
_MOST_UNREADABLE = 10_000
# Two kB each, one a second: of three weeks. More are counted as unreadable.
MOST_SAMPLES = 2_000_000


class _Attempt:
    """One attempt of a level while its lines are read: its columns, and whether they are those that were written."""

    def __init__(self, facts: Json) -> None:
        written = facts.get("written") or {}
        self.facts = facts
        self.columns = ColumnBuilder()
        self.of_records = Check(written.get("requests"))
        self.of_samples = Check(written.get("telemetry"))

    def damage(self) -> tuple[str, ...]:
        """Why records or samples are not those that were written."""
        records = self.of_records.fault("requests.jsonl")
        if records is None and (request := self.columns.repeated()) is not None:
            records = f"requests.jsonl has more than one record of request {request}"
        found = (records, self.of_samples.fault("telemetry.jsonl"))
        return tuple(one for one in found if one is not None)


def _read_requests(path: Path, attempts: Mapping[tuple[str, int], _Attempt]) -> int:
    """Read the records of the attempts that count; the number of lines that are none.

    Raises:
        StoreError: No line is one, and some are JSON: the file is somebody else's.
    """
    if not path.exists():
        return 0
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Line)
    records = unreadable = 0
    fault = None
    for number, line in read_lines(path):
        record = None
        try:
            record = decoder.decode(line)
        except msgspec.ValidationError as error:
            record = _without_false_counts(line)
            why = printable(str(error))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            unreadable += 1
            continue
        latest = None
        for name in ("sent_ns", "first_event_ns", "first_token_ns", "first_answer_ns", "last_token_ns", "end_ns"):
            at = getattr(record, name, None)  # what never happened has no mark
            if at is not None and latest is not None and at < latest:
                record, why = None, f"its {name} lies before an earlier mark"
                break
            latest = latest if at is None else at
        if record is None:
            unreadable += 1
            fault = fault or f"{path}, line {number}: is no record of loadbench: {why}"
            if not records and unreadable > _MOST_UNREADABLE:
                break
            continue
        records += 1
        attempt = attempts.get((record.level, record.attempt))
        if attempt is not None:
            attempt.of_records.feed(line)
            attempt.columns.add(record)
    if fault is not None and not records:
        raise StoreError(fault)
    return unreadable


def _without_false_counts(line: bytes) -> Any:
    """A record whose counts of the server's are no such counts, without them; None where that is not all."""
    try:
        found = json.loads(line)
        for name in SERVER_COUNTS:
            count = found.get(name)
            if isinstance(count, int | float) and not isinstance(count, bool) and not is_count(count):
                found[name] = None
        return msgspec.convert(found, Line)
    except (msgspec.MsgspecError, ValueError, AttributeError, OverflowError, RecursionError):
        return None


def _read_samples(path: Path, counted: Mapping[str, Check]) -> tuple[list[Json], int]:
    """The samples outside of levels and of the attempts (by tag) that count; the number of lines that are none."""
    samples: list[Json] = []
    unreadable = 0
    for _, line in read_lines(path, LARGEST_SAMPLE_BYTES) if path.exists() else ():
        try:
            sample = orjson.loads(line)
        except orjson.JSONDecodeError:
            sample = None
        if not is_sample(sample) or len(samples) == MOST_SAMPLES:
            unreadable += 1
        elif sample.get("phase") != "level":
            samples.append(sample)
        elif (check := counted.get(log_tag(str(sample.get("level")), sample.get("attempt") or 0))) is not None:
            check.feed(line)
            samples.append(sample)
    return samples, unreadable
