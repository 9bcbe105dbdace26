"""The bytes of an answer: text, events and errors as OpenAI's servers send them, ready for a chunked HTTP body.

An event is `size line + middle + end`: the middle holds what is the same throughout a stream (its id), the end what is
the same in all streams (the words). So an event costs two concatenations and no JSON encoding.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from loadbench.serve import chat
from loadbench.serve.chat import chunk, encoded

_TEXT = (
    " A| ruler| must| be| truer| than| what| it| measures|,| so| this| server| says| what| it| promised| and| what| it"
    "| did|.| Its| words| mean| nothing|:| they| go| round|,| sixty|-four| of| them|,| with| the| traps| of| real"
    '| answers|:| a| "quoted"| word|,| a| back\\slash|,|\n|\n| café| naïve| 日本|語| 🙂| data:| [DONE]'
    "| line\u2028break|\t| once| more|:"
)
WORDS = tuple(_TEXT.split("|"))
"""One token each, 64 in all. A line feed, quotes, emoji, U+2028 and `data: [DONE]` are traps that readers fall into."""

COUNT = len(WORDS)
Field = Literal["content", "reasoning_content"]


def text(first: int, tokens: int) -> str:
    """The text of `tokens` tokens from word number `first`."""
    return "".join([WORDS[(first + i) % COUNT] for i in range(tokens)])


def characters(first: int, tokens: int) -> int:
    """Length of `text(first, tokens)` in characters, without building it.

    >>> characters(3, 500) == len(text(3, 500))
    True
    """
    rounds, rest = divmod(tokens, COUNT)
    return rounds * sum(map(len, WORDS)) + len(text(first, rest))


DONE = chunk(chat.DONE)
LAST_CHUNK = b"0\r\n\r\n"
PING = chunk(b": ping\n\n")
GARBAGE = chunk(b'data: {"id":"chatcmpl-\n\n')
_CHOICE, _GOING_ON, _END = b',"choices":[{"index":0,"delta":', b',"logprobs":null,"finish_reason":null}]', b"}\n\n"


@lru_cache(maxsize=4096)
def _ends(first: int, tokens: int) -> bytes:
    """A text event from its first character on, but for the brace that ends the JSON object."""
    return encoded(text(first, tokens))[1:] + b"}" + _GOING_ON


@lru_cache(maxsize=64)
def frames(middle_length: int, tokens: int) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Sizes and ends of events with this many tokens each: the one from word i on is `sizes[i] + middle + ends[i]`."""
    ends = tuple(_ends(first, tokens) + _END + b"\r\n" for first in range(COUNT))
    return tuple(b"%x\r\n" % (middle_length + len(end) - 2) for end in ends), ends


class Events:
    """The events of one streamed answer, each as a chunk."""

    __slots__ = ("_prefix",)

    def __init__(self, identity: str, created: int, model: str) -> None:
        head = b'data: {"id":"%b","object":"chat.completion.chunk","created":%d,"model":%b'
        self._prefix = head % (identity.encode(), created, encoded(model))

    def middle(self, name: Field, *, role: bool = False) -> bytes:
        """A text event up to the first character of its text."""
        return self._prefix + _CHOICE + (b'{"role":"assistant","' if role else b'{"') + name.encode() + b'":"'

    def text(self, name: Field, first: int, tokens: int, *, role: bool, usage: dict[str, object] | None) -> bytes:
        """A text event in full, with token counts where they come with every event."""
        return chunk(self.middle(name, role=role) + _ends(first % COUNT, tokens) + _usage(usage) + _END)

    def role(self) -> bytes:
        """The event that names the role and carries no text."""
        return chunk(self._prefix + _CHOICE + b'{"role":"assistant","content":""}' + _GOING_ON + _END)

    def closing(self, finish: str, usage: dict[str, object] | None, *, continuous: bool) -> bytes:
        """Finish event, usage event where there is one, [DONE], and the end of the body."""
        ending = b'{},"logprobs":null,"finish_reason":"%b"}]' % finish.encode()
        finished = chunk(self._prefix + _CHOICE + ending + _usage(usage if continuous else None) + _END)
        counted = b"" if usage is None else chunk(self._prefix + b',"choices":[]' + _usage(usage) + _END)
        return finished + counted + DONE + LAST_CHUNK


def _usage(usage: dict[str, object] | None) -> bytes:
    return b"" if usage is None else b',"usage":' + encoded(usage)


def usage(prompt: int, completion: int, cached: int | None, reasoning: int) -> dict[str, object]:
    """Token counts; details only where the law has some."""
    total = prompt + completion
    counts: dict[str, object] = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}
    if cached is not None:
        counts["prompt_tokens_details"] = {"cached_tokens": cached}
    if reasoning:
        counts["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return counts


def whole(
    identity: str, created: int, model: str, words: str, thoughts: str, finish: str, counts: dict[str, object] | None
) -> bytes:
    message = {"role": "assistant", "content": words} | ({"reasoning_content": thoughts} if thoughts else {})
    choices = [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}]
    value = {"id": identity, "object": "chat.completion", "created": created, "model": model, "choices": choices}
    return encoded(value if counts is None else value | {"usage": counts})
