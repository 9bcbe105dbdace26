"""One request's record: what the client returns, the run folder keeps, and every figure is computed from.

`Result` declares the fields once. The columns of `Results`, the line of requests.jsonl and what reads it follow from
its annotations.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_type_hints

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

# A JSON object, as it is read or written.
Json = dict[str, Any]
# One that is looked at alone.
Facts = Mapping[str, Any]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Mark = Annotated[int, Meta(ge=-(2**53), le=2**53)]
Gap = Annotated[int, Meta(ge=0, le=2**43)]
Reals = NDArray[np.float64]
Counts = NDArray[np.int64]
Flags = NDArray[np.bool_]

ErrorKind = Literal[
    "dns",
    "connect",
    "tls",
    "reset",
    "redirect",
    "timeout_connect",
    "timeout_first_token",
    "timeout_idle",
    "timeout_total",
    "http_4xx",
    "http_429",
    "http_5xx",
    "stream_error",
    "truncated",
    "empty",
    "protocol",
    "local",
    "cancelled",
]
# The closed list of docs/metrics.md. `cancelled` is counted apart from the failures.
ERROR_KINDS: tuple[ErrorKind, ...] = get_args(ErrorKind)


# `error_message` of a completed request whose conversation had more turns: what has no text cannot be sent back.
SPEECHLESS = "the answer has no text: its conversation ended here"


class Result(msgspec.Struct, frozen=True):
    """One request: all its marks in ns since the level began, on one monotonic clock; `None` where it never happened.

    Attributes:
        level: Id of the level, e.g. ``smollm2-135m@c4``.
        attempt: 1 for the level's first try; a resumed level counts up.
        request: Number of the request within level and attempt, from 0, in order of start.
        prompt: Id of the prompt.
        warmup: Sent before the measurement began; enters no statistic but the tokens of the window.
        due_ns: Planned start (open loop) or the time the slot came free (closed loop).
        sent_ns: Just before the first byte was written; on a silent retry, of the second try.
        connect_ns: Duration of connection set-up inside this request; 0 on a warm connection.
        headers_ns, first_event_ns, first_token_ns, last_token_ns, end_ns: The marks of docs/metrics.md.
        gaps_us: Gaps between successive text arrivals in us; their sum is last_token - first_token, rounded once.
        first_answer_ns: The first event with text that is not reasoning; None where only reasoning came, and in records
            of versions before it was marked.
        text_events: Events that carried text (content, reasoning or tool call), of all choices.
        merged_arrivals: Arrivals that carried more than one text event.
        first_tokens: Tokens in the first text arrival, where the server counted as it went; else None.
        input_tokens, cached_tokens, output_tokens: As the server's usage says; None where it said nothing.
        reasoning_tokens: Of the output tokens, as the usage says; text of them may have come or not.
        reasoning_characters: Of the text received; None in records of versions before it was counted.
        characters, words: Of the text received.
        finish_reason: As sent (of the first choice), None where none came.
        status: HTTP status.
        retries: Silent retries on a reused connection that died before its first byte (0 or 1).
        retry_of: Number of the failed request that this one asks again; None for a first try.
        endpoint: Place in the run's list of endpoints of the one that it went to; 0 where there is one.
        unknown: What of the answer the client does not know, in words joined by "; ": a field with text, a finish
            reason, an event, a place of usage; None where it knows it all.
        error: Kind of failure, None when it completed.
        error_message: What the server or the transport said, one line.
        text: The answer; kept in answers.jsonl, not in requests.jsonl.
        retry_after_s: How long a refusal asked to wait; kept nowhere.
    """

    level: str
    attempt: Count
    request: Count
    prompt: str
    warmup: bool
    due_ns: Mark
    sent_ns: Mark | None
    connect_ns: Count | None
    headers_ns: Mark | None
    first_event_ns: Mark | None
    first_token_ns: Mark | None
    last_token_ns: Mark | None
    end_ns: Mark
    gaps_us: list[Gap]
    first_events: Count = 0
    text_events: Count = 0
    merged_arrivals: Count = 0
    first_tokens: Count | None = None
    input_tokens: Count | None = None
    cached_tokens: Count | None = None
    output_tokens: Count | None = None
    reasoning_tokens: Count | None = None
    reasoning_characters: Count | None = None
    first_answer_ns: Mark | None = None
    characters: Count = 0
    words: Count = 0
    finish_reason: str | None = None
    status: Count | None = None
    retries: Count = 0
    retry_of: Count | None = None
    endpoint: Count = 0
    unknown: str | None = None
    error: ErrorKind | None = None
    error_message: str | None = None
    text: str = ""
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Results:
    """Many requests of one level as columns: row i of every column is one request, in order of its number.

    A column is the field of `Result` with its name, marks without `_ns`: float64 ns since the level began (exact up to
    104 days). What may be None there is NaN in a column of numbers.

    Attributes:
        end: Never NaN.
        error_message: None when it completed; SPEECHLESS where that ended its conversation.
        gaps_us: Gaps between successive text arrivals of all requests in us, request after request, flat.
        gap_offsets: Shape (n + 1,): the gaps of row i are ``gaps_us[gap_offsets[i]:gap_offsets[i + 1]]``.
    """

    request: Counts
    prompt: list[str]
    warmup: Flags
    due: Reals
    sent: Reals
    connect: Reals
    headers: Reals
    first_event: Reals
    first_token: Reals
    first_answer: Reals
    last_token: Reals
    end: Reals
    first_events: Counts
    text_events: Counts
    merged_arrivals: Counts
    first_tokens: Reals
    input_tokens: Reals
    cached_tokens: Reals
    output_tokens: Reals
    reasoning_tokens: Reals
    reasoning_characters: Reals
    characters: Counts
    words: Counts
    finish_reason: list[str | None]
    status: Reals
    retries: Counts
    retry_of: Reals
    endpoint: Counts
    unknown: list[str | None]
    error: list[str | None]
    error_message: list[str | None]
    gaps_us: Counts
    gap_offsets: Counts

    def __len__(self) -> int:
        return len(self.request)

    def where(self, chosen: Flags) -> Results:
        """Those rows alone, with their gaps: a copy."""
        sizes = np.diff(self.gap_offsets)
        rows = np.flatnonzero(chosen)
        columns: Json = {}
        for column in COLUMNS:
            values = getattr(self, column.name)
            columns[column.name] = [values[row] for row in rows] if isinstance(values, list) else values[rows]
        offsets = np.concatenate(([0], np.cumsum(sizes[rows])))
        return Results(**columns, gaps_us=self.gaps_us[np.repeat(chosen, sizes)], gap_offsets=offsets)

    @classmethod
    def from_results(cls, results: Iterable[Result]) -> Results:
        """Turn records into columns, ordered by request number.

        >>> len(Results.from_results([]))
        0
        """
        builder = ColumnBuilder()
        for result in results:
            builder.add(result)
        return builder.results()


class Column(NamedTuple):
    """A column of `Results`: its name there and in `Result`, and its array's typecode; None where it holds words."""

    name: str
    field: str
    typecode: str | None


def _columns() -> tuple[Column, ...]:
    typecodes = {Reals: "d", Counts: "q", Flags: "b"}
    of_result = get_type_hints(Result)
    found = []
    for name, hint in get_type_hints(Results).items():
        if name not in ("gaps_us", "gap_offsets"):
            field = name if name in of_result else f"{name}_ns"
            found.append(Column(name, field, None if hint in _WORDS else typecodes[hint]))
    return tuple(found)


_WORDS = (list[str], list[str | None])
COLUMNS = _columns()


def _line_type() -> type[msgspec.Struct]:
    """A line of requests.jsonl, as it is read: what is a column, and the gaps, None where they were not kept.

    A field that may be None may be missing too, as older versions wrote it; what a later version adds is passed over,
    and so is the name of an error that this one does not know.
    """
    hints = get_type_hints(Result, include_extras=True) | {"gaps_us": list[Gap] | None, "error": str | None}
    read = {"level", "attempt", "gaps_us", *(column.field for column in COLUMNS)}
    required: list[tuple[str, Any]] = []
    optional: list[tuple[str, Any, Any]] = []
    for field in msgspec.structs.fields(Result):
        hint = hints[field.name]
        if field.name not in read:
            continue
        if type(None) in get_args(hint):
            optional.append((field.name, hint, None))
        elif field.required:
            required.append((field.name, hint))
        else:
            optional.append((field.name, hint, field.default))
    return msgspec.defstruct("Line", [*required, *optional], module=__name__)


Line = _line_type()
# Rows whose gaps are put in order at once.
ROWS = 50_000


class ColumnBuilder:
    """The columns of one level while its records come in: 8 bytes a value, whatever the number of requests.

    Attributes:
        gaps_kept: Whether every record had its gaps.
    """

    def __init__(self) -> None:
        self.gaps_kept = True
        self._numbers: dict[Column, array[Any]] = {
            column: array(column.typecode) for column in COLUMNS if column.typecode is not None
        }
        self._words: dict[Column, list[str | None]] = {column: [] for column in COLUMNS if column.typecode is None}
        self._known: dict[str, str] = {}  # each word once in memory, however often it is read
        self._gaps = array("q")
        self._offsets = array("q", [0])

    def add(self, record: Any) -> None:
        """One more record: a `Result`, or a `Line` that was read."""
        for column, numbers in self._numbers.items():
            value = getattr(record, column.field)
            numbers.append(np.nan if value is None else value)
        for column, words in self._words.items():
            word = getattr(record, column.field)
            words.append(None if word is None else self._known.setdefault(word, word))
        if record.gaps_us is None:
            self.gaps_kept = False
        else:
            self._gaps.extend(record.gaps_us)
        self._offsets.append(len(self._gaps))

    def repeated(self) -> int | None:
        """The lowest number of a request that has more than one record."""
        requests = np.sort(self._requests())
        twice = requests[1:][requests[1:] == requests[:-1]]
        return int(twice[0]) if len(twice) else None

    def results(self) -> Results:
        order = np.argsort(self._requests(), kind="stable")
        offsets = np.frombuffer(self._offsets, np.int64)
        lengths = np.diff(offsets)[order]
        columns: Json = {}
        for column, numbers in self._numbers.items():
            dtype = np.bool_ if column.typecode == "b" else numbers.typecode
            columns[column.name] = np.frombuffer(numbers, dtype)[order]
        for column, words in self._words.items():
            columns[column.name] = [words[row] for row in order]
        # Some rows at once, for there may be 20 million gaps.
        begins, gaps = offsets[:-1][order], np.frombuffer(self._gaps, np.int64)
        ordered = np.empty(len(gaps), np.int64)
        done = 0
        for row in range(0, len(begins), ROWS):
            own = lengths[row : row + ROWS]
            ends = np.cumsum(own)
            places = np.repeat(begins[row : row + ROWS] - (ends - own), own) + np.arange(ends[-1])
            ordered[done : done + len(places)] = gaps[places]
            done += len(places)
        return Results(**columns, gaps_us=ordered, gap_offsets=np.concatenate(([0], np.cumsum(lengths))))

    def _requests(self) -> Counts:
        return np.frombuffer(self._numbers[COLUMNS[0]], np.int64)
