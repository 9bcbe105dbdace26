"""One request's record: what `client.py` returns, `store.py` writes, and every figure is computed from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

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
ERROR_KINDS: tuple[ErrorKind, ...] = get_args(ErrorKind)
"""METRICS.md's closed list. `cancelled` is counted apart from the failures."""


SPEECHLESS = "the answer has no text: its conversation ended here"
"""`error_message` of a completed request whose conversation had more turns: what has no text cannot be sent back."""


@dataclass(frozen=True, slots=True)
class Result:
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
        headers_ns, first_event_ns, first_token_ns, last_token_ns, end_ns: The marks of METRICS.md §2.
        gaps_us: Gaps between successive text arrivals in us; their sum is last_token - first_token, rounded once.
        text_events: Events that carried text (content, reasoning or tool call), of all choices.
        merged_arrivals: Arrivals that carried more than one text event.
        first_tokens: Tokens in the first text arrival, where the server counted as it went; else None.
        input_tokens, cached_tokens, output_tokens: As the server's usage says; None where it said nothing.
        reasoning_tokens: Of the output tokens, as the usage says; text of them may have come or not.
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
    attempt: int
    request: int
    prompt: str
    warmup: bool
    due_ns: int
    sent_ns: int | None
    connect_ns: int | None
    headers_ns: int | None
    first_event_ns: int | None
    first_token_ns: int | None
    last_token_ns: int | None
    end_ns: int
    gaps_us: list[int]
    first_events: int = 0
    text_events: int = 0
    merged_arrivals: int = 0
    first_tokens: int | None = None
    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    characters: int = 0
    words: int = 0
    finish_reason: str | None = None
    status: int | None = None
    retries: int = 0
    retry_of: int | None = None
    endpoint: int = 0
    unknown: str | None = None
    error: ErrorKind | None = None
    error_message: str | None = None
    text: str = ""
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Results:
    """Many requests of one level as columns: row i of every column is one request, in order of its number.

    All marks are float64 ns since the level began (exact up to 104 days), NaN where the mark never happened.

    Attributes:
        request: Number of the request within level and attempt, int64.
        prompt: Id of the prompt.
        warmup: Sent before the measurement began, bool.
        due: Planned start, or the time the slot came free.
        sent: Just before the first byte was written; on a silent retry, of the second try.
        connect: Duration of connection set-up inside this request in ns; 0 on a warm connection.
        headers: End of the response's header.
        first_event: First event of any kind.
        first_token: First event with text.
        last_token: Last event with text.
        end: `[DONE]`, end of body, or the time it failed; never NaN.
        first_events: Text events in the first text arrival, int64.
        text_events: Events that carried text, int64.
        merged_arrivals: Arrivals that carried more than one text event, int64.
        first_tokens: Tokens in the first text arrival where the server counted as it went, float64, else NaN.
        input_tokens: Of the server's usage, float64, NaN where it said nothing.
        cached_tokens: Input tokens that a cache answered, of the usage, float64, NaN where it said nothing.
        output_tokens: Of the server's usage, float64, NaN where it said nothing.
        characters: Of the text received, int64.
        words: Of the text received, int64.
        finish_reason: As sent, None where none came.
        status: HTTP status, float64, NaN where no response came.
        retries: Silent retries (0 or 1), int64.
        retry_of: Number of the failed request that this one asks again, float64, NaN for a first try.
        endpoint: Place in the run's list of endpoints, int64.
        unknown: What of the answer the client does not know, joined by "; ", None where it knows it all.
        error: Kind of failure (ERROR_KINDS), None when it completed.
        error_message: One line, None when it completed; SPEECHLESS where that ended its conversation.
        gaps_us: Gaps between successive text arrivals of all requests in us, int64, request after request, flat.
        gap_offsets: int64, shape (n + 1,): the gaps of row i are ``gaps_us[gap_offsets[i]:gap_offsets[i + 1]]``.
    """

    request: NDArray[np.int64]
    prompt: list[str]
    warmup: NDArray[np.bool_]
    due: NDArray[np.float64]
    sent: NDArray[np.float64]
    connect: NDArray[np.float64]
    headers: NDArray[np.float64]
    first_event: NDArray[np.float64]
    first_token: NDArray[np.float64]
    last_token: NDArray[np.float64]
    end: NDArray[np.float64]
    first_events: NDArray[np.int64]
    text_events: NDArray[np.int64]
    merged_arrivals: NDArray[np.int64]
    first_tokens: NDArray[np.float64]
    input_tokens: NDArray[np.float64]
    cached_tokens: NDArray[np.float64]
    output_tokens: NDArray[np.float64]
    characters: NDArray[np.int64]
    words: NDArray[np.int64]
    finish_reason: list[str | None]
    status: NDArray[np.float64]
    retries: NDArray[np.int64]
    retry_of: NDArray[np.float64]
    endpoint: NDArray[np.int64]
    unknown: list[str | None]
    error: list[str | None]
    error_message: list[str | None]
    gaps_us: NDArray[np.int64]
    gap_offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.request)

    def where(self, chosen: NDArray[np.bool_]) -> Results:
        """Those rows alone, with their gaps: a copy."""
        sizes = np.diff(self.gap_offsets)
        rows = np.flatnonzero(chosen)

        def picked(column: Any) -> Any:
            return [column[row] for row in rows] if isinstance(column, list) else column[rows]

        columns = {one.name: picked(getattr(self, one.name)) for one in fields(self) if not one.name.startswith("gap")}
        offsets = np.concatenate(([0], np.cumsum(sizes[rows])))
        return Results(**columns, gaps_us=self.gaps_us[np.repeat(chosen, sizes)], gap_offsets=offsets)

    @classmethod
    def from_results(cls, results: Iterable[Result]) -> Results:
        """Turn records into columns, ordered by request number.

        >>> len(Results.from_results([]))
        0
        """
        rows = sorted(results, key=lambda result: result.request)

        def reals(values: Sequence[Any]) -> NDArray[np.float64]:
            return np.array([np.nan if value is None else value for value in values], dtype=np.float64)

        def counts(values: Sequence[int]) -> NDArray[np.int64]:
            return np.array(values, dtype=np.int64)

        return cls(
            request=counts([row.request for row in rows]),
            prompt=[row.prompt for row in rows],
            warmup=np.array([row.warmup for row in rows], dtype=np.bool_),
            due=reals([row.due_ns for row in rows]),
            sent=reals([row.sent_ns for row in rows]),
            connect=reals([row.connect_ns for row in rows]),
            headers=reals([row.headers_ns for row in rows]),
            first_event=reals([row.first_event_ns for row in rows]),
            first_token=reals([row.first_token_ns for row in rows]),
            last_token=reals([row.last_token_ns for row in rows]),
            end=reals([row.end_ns for row in rows]),
            first_events=counts([row.first_events for row in rows]),
            text_events=counts([row.text_events for row in rows]),
            merged_arrivals=counts([row.merged_arrivals for row in rows]),
            first_tokens=reals([row.first_tokens for row in rows]),
            input_tokens=reals([row.input_tokens for row in rows]),
            cached_tokens=reals([row.cached_tokens for row in rows]),
            output_tokens=reals([row.output_tokens for row in rows]),
            characters=counts([row.characters for row in rows]),
            words=counts([row.words for row in rows]),
            finish_reason=[row.finish_reason for row in rows],
            status=reals([row.status for row in rows]),
            retries=counts([row.retries for row in rows]),
            retry_of=reals([row.retry_of for row in rows]),
            endpoint=counts([row.endpoint for row in rows]),
            unknown=[row.unknown for row in rows],
            error=[row.error for row in rows],
            error_message=[row.error_message for row in rows],
            gaps_us=np.array([gap for row in rows for gap in row.gaps_us], dtype=np.int64),
            gap_offsets=np.concatenate(([0], np.cumsum([len(row.gaps_us) for row in rows], dtype=np.int64))),
        )
