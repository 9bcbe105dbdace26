"""A chat completion request, read from its JSON body."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from loadbench.serve.adapter.protocol import Message

_OURS = {"model", "messages", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens"}


class Refused(Exception):
    """The request gets an error: the HTTP status and OpenAI's fields."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, understood.

    Attributes:
        params: For the adapter: the body without what the server itself reads; `max_tokens` under that name alone.
        include_usage: `stream_options`; always true where nothing is streamed.
    """

    messages: list[Message]
    params: dict[str, Any]
    stream: bool
    include_usage: bool

    @property
    def max_tokens(self) -> int | None:
        """None where the request names none."""
        found: int | None = self.params.get("max_tokens")
        return found


def read(body: bytes, model: str) -> Ask:
    """The request in a body.

    Raises:
        Refused: 400, for what is malformed and for any other model.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"The body is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise Refused(400, "The body must be a JSON object.")
    if value.get("model") != model:
        raise Refused(
            400, f"'model' is {repr(value.get('model'))[:200]}: there is {model!r} alone.", "model", "model_not_found"
        )
    stream = value.get("stream") or False
    if not isinstance(stream, bool):
        raise Refused(400, f"'stream' is {repr(stream)[:200]}: it must be true or false.", "stream")
    if value.get("n") not in (None, 1):
        raise Refused(400, f"'n' is {repr(value['n'])[:200]}: there is one answer to a request.", "n")
    options = value.get("stream_options")
    params = {name: given for name, given in value.items() if name not in _OURS and given is not None}
    for name in ("max_completion_tokens", "max_tokens"):  # the first is OpenAI's newer name and has the last word
        limit = value.get(name)
        if limit is None:
            continue
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            raise Refused(400, f"'{name}' is {repr(limit)[:200]}: it must be a whole number of 1 or more.", name)
        params.setdefault("max_tokens", limit)
    return Ask(
        messages=_messages(value.get("messages")),
        params=params,
        stream=stream,
        include_usage=not stream or (isinstance(options, dict) and options.get("include_usage") is True),
    )


def _messages(given: Any) -> list[Message]:
    if not isinstance(given, list) or not given:
        raise Refused(400, "'messages' is required: a list of one message or more.", "messages")
    messages: list[Message] = []
    for number, message in enumerate(given):
        where = f"messages[{number}]"
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise Refused(400, f"{where} must be an object with a 'role'.", where)
        messages.append({"role": message["role"], "content": _text(message.get("content"), where)})
    return messages


def _text(content: Any, where: str) -> str:
    """Text as it is, or the joined text parts of a list, as OpenAI allows."""
    if content is None or isinstance(content, str):
        return content or ""
    parts = content if isinstance(content, list) else [None]
    texts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in parts]
    found = [text for text in texts if isinstance(text, str)]
    if len(found) < len(parts):
        raise Refused(400, f"{where}.content must be a string or a list of text parts: adapters take text.", where)
    return "".join(found)
