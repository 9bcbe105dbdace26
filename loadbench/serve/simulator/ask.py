"""What a chat completion request asks for, read from its JSON body.

Prompt tokens are counted by rule, so that a test can count them too: 3 for the template, 4 for each message, and 1 for
each word between white space.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MOST_TOKENS = 1_000_000
"""Of one answer, which the simulator makes up in its memory."""
TEMPLATE_TOKENS = 3
MESSAGE_TOKENS = 4


class Refused(Exception):
    """The request gets an error: the HTTP status and OpenAI's fields."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, understood.

    Attributes:
        model: As asked; one of the server's.
        stream: Whether events are wanted.
        include_usage, continuous_usage: `stream_options` (the second is vLLM's `continuous_usage_stats`).
        max_tokens: None where it names none; `max_completion_tokens` goes before `max_tokens`.
        ignore_eos: llama.cpp's and vLLM's: do not end before `max_tokens`.
        cache_prompt: llama.cpp's: may the prompt cache be used.
        prompt_tokens: Counted by the rule above.
        digest: 64-bit hash of all messages: the same prompt has the same.
    """

    model: str
    stream: bool
    include_usage: bool
    continuous_usage: bool
    max_tokens: int | None
    ignore_eos: bool
    cache_prompt: bool
    prompt_tokens: int
    digest: int


def read(body: bytes, models: Sequence[str]) -> Ask:
    """The request in a body.

    Raises:
        Refused: 400 for what is malformed, 404 for a model that is not among `models`.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"The body is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise Refused(400, "The body must be a JSON object.")
    model = value.get("model")
    if not isinstance(model, str):
        raise Refused(400, "'model' is required: a string.", "model")
    if model not in models:
        raise Refused(
            404, f"The model {model[:200]!r} does not exist; there is {', '.join(models)}.", "model", "model_not_found"
        )
    texts = _texts(value.get("messages"))
    options = value.get("stream_options")
    options = options if isinstance(options, dict) else {}
    name = "max_completion_tokens" if value.get("max_completion_tokens") is not None else "max_tokens"
    limit = value.get(name)
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MOST_TOKENS):
        said = repr(limit)[:200]
        raise Refused(400, f"{name!r} is {said}: it must be a whole number from 1 to {MOST_TOKENS:,}.", name)
    stream = value.get("stream", False)
    if not isinstance(stream, bool | None):
        raise Refused(400, f"'stream' is {repr(stream)[:200]}: it must be true or false.", "stream")
    return Ask(
        model=model,
        stream=bool(stream),
        include_usage=options.get("include_usage") is True,
        continuous_usage=options.get("continuous_usage_stats") is True,
        max_tokens=limit,
        ignore_eos=value.get("ignore_eos") is True,
        cache_prompt=value.get("cache_prompt") is not False,
        prompt_tokens=TEMPLATE_TOKENS + MESSAGE_TOKENS * len(texts) + sum(len(text.split()) for text in texts),
        digest=_digest(texts),
    )


def _texts(messages: Any) -> list[str]:
    """The text of each message: a string, or the text parts of a list, as OpenAI allows."""
    if not isinstance(messages, list) or not messages:
        raise Refused(400, "'messages' is required: a list of one message or more.", "messages")
    texts = []
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise Refused(400, f"{where} must be an object with a 'role'.", where)
        content = message.get("content")
        if isinstance(content, list):
            parts = [part.get("text") for part in content if isinstance(part, dict)]
            content = " ".join(part for part in parts if isinstance(part, str))
        if not isinstance(content, str | None):
            raise Refused(400, f"{where}.content must be a string or a list of parts.", where)
        texts.append(content or "")
    return texts


def _digest(texts: list[str]) -> int:
    whole = "\0".join(texts).encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(whole, digest_size=8).digest(), "big")
