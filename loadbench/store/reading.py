"""Reading a run folder, whole or cut short: every report starts here."""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import orjson
from msgspec import Meta
from numpy.typing import NDArray

from loadbench.errors import StoreError
from loadbench.record import Results
from loadbench.store.files import HISTOGRAMS, TOLD, Check, hlog_works, is_told, log_tag, read_info, read_lines
from loadbench.store.histogram import Histogram, read_log
from loadbench.store.sample import is_sample
from loadbench.store.schema import Count, Mark
from loadbench.text import printable


@dataclass(frozen=True, slots=True)
class LevelData:
    """One level of a run as it counts: the last complete attempt, else the last one.

    Attributes:
        facts: The level's entry in run.json.
        results: Its requests, as columns.
        histograms: By metric (ttft, itl, tpot, e2e, client_lag), in us; without entries where no .hlog could be read.
        gaps_kept: Whether `results` holds every gap; else `histograms["itl"]` alone does.
        damage: Why its records or samples are not those that were written, a line each; empty where all is well, and
            where nobody knows.
    """

    facts: dict[str, Any]
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
    info: dict[str, Any]
    levels: list[LevelData]
    unreadable_lines: int
    samples: list[dict[str, Any]] = field(default_factory=list)
    unreadable_samples: int = 0


def read(path: Path) -> Run:
    """Read a run folder, whole or cut short.

    Raises:
        StoreError: If it is no run folder, or none of its records is one.
    """
    info = read_info(path)
    counted: dict[str, dict[str, Any]] = {}
    for level in info["levels"]:
        if level["status"] == "running":
            level["status"] = "incomplete"
        before = counted.get(level["id"])
        if before is None or before["status"] != "complete" or level["status"] == "complete":
            counted[level["id"]] = level
    columns = {(level["id"], level["attempt"]): _Columns(level) for level in counted.values()}
    unreadable = _read_requests(path / "requests.jsonl", columns)
    checks = {log_tag(*key): column.of_samples for key, column in columns.items()}
    samples, unreadable_samples = _read_samples(path / "telemetry.jsonl", checks)
    files = {name: path / f"{name}.hlog" for name in HISTOGRAMS}
    logs = {name: read_log(file, checks) for name, file in files.items() if file.exists() and hlog_works()}
    levels = []
    for level in counted.values():
        tag = log_tag(level["id"], level["attempt"])
        column = columns[level["id"], level["attempt"]]
        histograms = {name: log[tag] for name, log in logs.items() if tag in log}
        levels.append(LevelData(level, column.results(), histograms, column.gaps_kept, column.damage()))
    return Run(path, info, levels, unreadable, samples, unreadable_samples)


Gap = Annotated[int, Meta(ge=0, le=2**43)]


class _Record(msgspec.Struct):
    """Result, as a line of requests.jsonl; fields that a later version adds are passed over."""

    level: str
    attempt: Count
    request: Count
    prompt: str
    warmup: bool
    due_ns: Mark
    end_ns: Mark
    sent_ns: Mark | None = None
    connect_ns: Count | None = None
    headers_ns: Mark | None = None
    first_event_ns: Mark | None = None
    first_token_ns: Mark | None = None
    last_token_ns: Mark | None = None
    gaps_us: list[Gap] | None = None
    first_events: Count = 0
    text_events: Count = 0
    merged_arrivals: Count = 0
    first_tokens: Count | None = None
    input_tokens: Count | None = None
    cached_tokens: Count | None = None
    output_tokens: Count | None = None
    characters: Count = 0
    words: Count = 0
    finish_reason: str | None = None
    status: Count | None = None
    retries: Count = 0
    retry_of: Count | None = None
    endpoint: Count = 0
    unknown: str | None = None
    error: str | None = None
    error_message: str | None = None

    def backwards(self) -> str | None:
        """The mark that lies before one which cannot come after it; None where time runs on."""
        latest = self.sent_ns
        for name in ("first_event_ns", "first_token_ns", "last_token_ns", "end_ns"):
            at = getattr(self, name)
            if at is not None:
                if latest is not None and at < latest:
                    return name
                latest = at
        return None


_REAL = {
    "due_ns": "due",
    "sent_ns": "sent",
    "connect_ns": "connect",
    "headers_ns": "headers",
    "first_event_ns": "first_event",
    "first_token_ns": "first_token",
    "last_token_ns": "last_token",
    "end_ns": "end",
    "first_tokens": "first_tokens",
    "input_tokens": "input_tokens",
    "cached_tokens": "cached_tokens",
    "output_tokens": "output_tokens",
    "status": "status",
    "retry_of": "retry_of",
}
_WHOLE = ("request", "first_events", "text_events", "merged_arrivals", "characters", "words", "retries", "endpoint")
_WORDS = ("prompt", "finish_reason", "unknown", "error", "error_message")
_NAN = float("nan")
ROWS = 50_000
"""Rows whose gaps are put in order at once."""
LARGEST_SAMPLE_BYTES = 1 << 20
_MOST_UNREADABLE = 10_000
"""Lines before the first record, of a file that is somebody else's."""
MOST_SAMPLES = 2_000_000
"""Two kB each, one a second: of three weeks. More are counted as unreadable."""


class _Columns:
    """The columns of one level while its lines are read: 8 bytes a value, whatever the number of requests."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        written = facts.get("written") or {}
        self._of_records = Check(written.get("requests"))
        self.of_samples = Check(written.get("telemetry"))
        self._reals = {name: array("d") for name in _REAL}
        self._wholes = {name: array("q") for name in _WHOLE}
        self._warmup = array("b")
        self._words: dict[str, list[str | None]] = {name: [] for name in _WORDS}
        self._known: dict[str, str] = {}
        self._gaps = array("q")
        self._offsets = array("q", [0])
        self.gaps_kept = True

    def add(self, record: _Record, line: bytes) -> None:
        self._of_records.feed(line)
        for name, reals in self._reals.items():
            value = getattr(record, name)
            reals.append(_NAN if value is None else value)
        for name, wholes in self._wholes.items():
            wholes.append(getattr(record, name))
        self._warmup.append(record.warmup)
        for name, words in self._words.items():
            word = getattr(record, name)
            words.append(None if word is None else self._known.setdefault(word, word))
        if record.gaps_us is None:
            self.gaps_kept = False
        else:
            self._gaps.extend(record.gaps_us)
        self._offsets.append(len(self._gaps))

    def damage(self) -> tuple[str, ...]:
        """Why records or samples are not those that were written."""
        requests = np.sort(np.frombuffer(self._wholes["request"], np.int64))
        twice = requests[1:][requests[1:] == requests[:-1]]
        records = self._of_records.fault("requests.jsonl")
        if records is None and len(twice):
            records = f"requests.jsonl has more than one record of request {twice[0]}"
        found = (records, self.of_samples.fault("telemetry.jsonl"))
        return tuple(one for one in found if one is not None)

    def results(self) -> Results:
        order = np.argsort(np.frombuffer(self._wholes["request"], np.int64), kind="stable")
        offsets = np.frombuffer(self._offsets, np.int64)
        lengths = np.diff(offsets)[order]
        columns: dict[str, Any] = {
            **{column: np.frombuffer(self._reals[name], np.float64)[order] for name, column in _REAL.items()},
            **{name: np.frombuffer(values, np.int64)[order] for name, values in self._wholes.items()},
            **{name: [words[i] for i in order] for name, words in self._words.items()},
            "warmup": np.frombuffer(self._warmup, np.bool_)[order],
            "gaps_us": self._ordered_gaps(offsets[:-1][order], lengths),
            "gap_offsets": np.concatenate(([0], np.cumsum(lengths))),
        }
        return Results(**columns)

    def _ordered_gaps(self, begins: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """The gaps of rows that begin there in the file's order; some rows at once: there may be tens of millions."""
        gaps = np.frombuffer(self._gaps, np.int64)
        found = np.empty(len(gaps), np.int64)
        done = 0
        for row in range(0, len(begins), ROWS):
            own = lengths[row : row + ROWS]
            ends = np.cumsum(own)
            places = np.repeat(begins[row : row + ROWS] - (ends - own), own) + np.arange(ends[-1])
            found[done : done + len(places)] = gaps[places]
            done += len(places)
        return found


def _read_requests(path: Path, columns: Mapping[tuple[str, int], _Columns]) -> int:
    """Read the records of the attempts that count; the number of lines that are none.

    Raises:
        StoreError: No line is one, and some are JSON: the file is somebody else's.
    """
    if not path.exists():
        return 0
    decoder = msgspec.json.Decoder(_Record)
    records = unreadable = 0
    fault = None
    for number, line in read_lines(path):
        record = None
        try:
            record = decoder.decode(line)
        except msgspec.ValidationError as error:
            record = _without_untold(line)
            why = printable(str(error))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            unreadable += 1
            continue
        if record is not None and (name := record.backwards()) is not None:
            record, why = None, f"its {name} lies before an earlier mark"
        if record is None:
            unreadable += 1
            fault = fault or f"{path}, line {number}: is no record of loadbench: {why}"
            if not records and unreadable > _MOST_UNREADABLE:
                break
            continue
        records += 1
        column = columns.get((record.level, record.attempt))
        if column is not None:
            column.add(record, line)
    if fault is not None and not records:
        raise StoreError(fault)
    return unreadable


def _without_untold(line: bytes) -> _Record | None:
    """A record whose counts of the server's are no such counts, without them; None where that is not all."""
    try:
        found = json.loads(line)
        told = {
            name: None if name in TOLD and _is_number(one) and not is_told(one) else one for name, one in found.items()
        }
        return msgspec.convert(told, _Record)
    except (msgspec.MsgspecError, ValueError, AttributeError, OverflowError, RecursionError):
        return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _read_samples(path: Path, counted: Mapping[str, Check]) -> tuple[list[dict[str, Any]], int]:
    """The samples outside of levels and of the attempts (by tag) that count; the number of lines that are none."""
    samples: list[dict[str, Any]] = []
    if not path.exists():
        return samples, 0
    unreadable = 0
    for _, line in read_lines(path, LARGEST_SAMPLE_BYTES):
        try:
            sample = orjson.loads(line)
        except orjson.JSONDecodeError:
            sample = None
        if not is_sample(sample) or len(samples) == MOST_SAMPLES:
            unreadable += 1
        elif sample.get("phase") != "level":
            samples.append(sample)
        elif (check := counted.get(_tag(sample))) is not None:
            check.feed(line)
            samples.append(sample)
    return samples, unreadable


def _tag(sample: Mapping[str, Any]) -> str:
    return log_tag(str(sample.get("level")), sample.get("attempt") or 0)
