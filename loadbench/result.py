"""One request's record: what `client.py` returns, `store.py` writes, and every figure is computed from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

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
        characters, words: Of the text received.
        finish_reason: As sent (of the first choice), None where none came.
        status: HTTP status.
        retries: Silent retries on a reused connection that died before its first byte (0 or 1).
        error: Kind of failure, None when it completed.
        error_message: What the server or the transport said, one line.
        text: The answer; kept in answers.jsonl, not in requests.jsonl.
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
    characters: int = 0
    words: int = 0
    finish_reason: str | None = None
    status: int | None = None
    retries: int = 0
    error: ErrorKind | None = None
    error_message: str | None = None
    text: str = ""
