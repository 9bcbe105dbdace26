"""The bytes of an answer: text, events and errors as OpenAI's servers send them, ready for a chunked HTTP body.

An event is `size line + middle + end`: the middle holds what is the same throughout a stream (its id), the end what is
the same in all streams (the words). So an event costs two concatenations, not a JSON encoding.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

WORDS = tuple(
    " A ruler| must| be| truer| than| what| it| measures|,| so| this| server| says| what| it| promised| and| what| it"
    "| did|.| Its| words| mean| nothing|:| they| go| round|,| sixty|-four| of| them|,| with| the| traps| that| real"
    '| answers| hold|:| a| "quoted"| word|, a| back\\slash|,|\n|\n| café| naïve| 日本|語| 🙂| data:| [DONE]'
    "| line\u2028break|\t| again|:".split("|")
)
"""One token each, 64 in all. A line feed, quotes, emoji, U+2028 and `data: [DONE]` are traps that readers fall into."""

COUNT = len(WORDS)
Field = Literal["content", "reasoning_content"]


def text(first: int, tokens: int) -> str:
    """The text of `tokens` tokens from word number `first`."""
    return "".join(WORDS[(first + i) % COUNT] for i in range(tokens))


def characters(first: int, tokens: int) -> int:
    """Length of `text(first, tokens)` in characters, without building it.

    >>> characters(3, 500) == len(text(3, 500))
    True
    """
    rounds, rest = divmod(tokens, COUNT)
    return rounds * sum(map(len, WORDS)) + len(text(first, rest))


def chunk(payload: bytes) -> bytes:
    """One chunk of a chunked HTTP body."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def event(value: Any) -> bytes:
    """One server-sent event as a chunk."""
    return chunk(b"data: " + encoded(value) + b"\n\n")


def encoded(value: Any) -> bytes:
    """Compact JSON, UTF-8, not escaped: what most servers send."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


DONE = chunk(b"data: [DONE]\n\n")
LAST_CHUNK = b"0\r\n\r\n"
PING = chunk(b": ping\n\n")
GARBAGE = chunk(b'data: {"id":"chatcmpl-\n\n')
MARK = "\x00"


@dataclass(frozen=True, slots=True)
class Frames:
    """The constant parts of a model's text events: event i of a stream is `sizes[i] + middle + ends[i]`.

    Attributes:
        sizes: The chunk's size line, by the number of its first word.
        ends: From the text on, likewise.
    """

    sizes: tuple[bytes, ...]
    ends: tuple[bytes, ...]


@lru_cache(maxsize=64)
def frames(middle_length: int, tokens: int) -> Frames:
    """Frames of events with so many tokens, for a middle of so many bytes."""
    rest = b'},"logprobs":null,"finish_reason":null}]}\n\n\r\n'
    ends = tuple(encoded(text(first, tokens))[1:] + rest for first in range(COUNT))
    return Frames(tuple(b"%x\r\n" % (middle_length + len(end) - 2) for end in ends), ends)


def envelope(identity: str, created: int, model: str, kind: str = "chat.completion.chunk") -> dict[str, Any]:
    """The first fields of every event of one answer."""
    return {"id": identity, "object": kind, "created": created, "model": model}


def middle(base: dict[str, Any], name: Field, role: bool = False) -> bytes:
    """A text event up to its text's first character."""
    delta = {"role": "assistant", name: MARK} if role else {name: MARK}
    whole = encoded(base | {"choices": [{"index": 0, "delta": delta}]})
    return b"data: " + whole[: whole.index(encoded(MARK)) + 1]


def text_event(base: dict[str, Any], name: Field, words: str, role: bool, usage: dict[str, Any] | None) -> bytes:
    """A text event in full; what the frames make, for the events that differ from the others."""
    delta = ({"role": "assistant"} if role else {}) | {name: words}
    value = base | {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}]}
    return event(value if usage is None else value | {"usage": usage})


def role_event(base: dict[str, Any]) -> bytes:
    """The event that names the role and carries no text."""
    delta = {"role": "assistant", "content": ""}
    return event(base | {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}]})


def closing(base: dict[str, Any], finish: str, usage: dict[str, Any] | None, *, continuous: bool = False) -> bytes:
    """Finish event, usage event where there is one, [DONE], and the end of the body."""
    value = base | {"choices": [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": finish}]}
    parts = [event(value | {"usage": usage} if continuous else value)]
    if usage is not None:
        parts.append(event(base | {"choices": [], "usage": usage}))
    return b"".join([*parts, DONE, LAST_CHUNK])


def usage(prompt: int, completion: int, cached: int | None, reasoning: int) -> dict[str, Any]:
    """Token counts; details only where the law has some."""
    value: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    if cached is not None:
        value["prompt_tokens_details"] = {"cached_tokens": cached}
    if reasoning:
        value["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return value


def whole(base: dict[str, Any], words: str, thoughts: str, finish: str, counts: dict[str, Any] | None) -> bytes:
    """An answer that is not streamed."""
    message: dict[str, Any] = {"role": "assistant", "content": words}
    if thoughts:
        message["reasoning_content"] = thoughts
    value = base | {"choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}]}
    return encoded(value if counts is None else value | {"usage": counts})


def error(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """An error as OpenAI words it."""
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(
        status, "invalid_request_error" if status < 500 else "server_error"
    )
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
