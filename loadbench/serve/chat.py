"""The face that our own servers show: who may ask, what a chat completion request says, and how it is refused.

How an answer is timed, queued for and sent is each server's own; what both must read alike from a client is here.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

from loadbench.machine import is_local_name

MAX_BODY_BYTES = 16 * 1024 * 1024
"""Of a request: a million tokens of text are a third of it."""
MAX_DISCARDED_BYTES = 4 * MAX_BODY_BYTES
"""Of a body that was refused, which is read so that its sender lives to read why."""

DONE = b"data: [DONE]\n\n"


class Refused(Exception):
    """The request gets an error: the HTTP status and OpenAI's fields."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    def body(self) -> bytes:
        kind = "invalid_request_error"
        if self.status >= 500:
            kind = "server_error"
        # Clients tell these two from a mistake in the request: they ask for a key, or come again later.
        kind = {401: "authentication_error", 429: "rate_limit_error"}.get(self.status, kind)
        return encoded({"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}})


def encoded(value: object) -> bytes:
    """Compact JSON in UTF-8, not escaped, as most servers send it.

    Half a character, which a careless detokenizer may yield, becomes a question mark.
    """
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def chunk(payload: bytes) -> bytes:
    """One chunk of a chunked HTTP body, the last one where it is empty."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def is_local_address(address: str) -> bool:
    """Whether a server that listens there is reached from this machine alone.

    >>> is_local_address("::1"), is_local_address("0.0.0.0")
    (True, False)
    """
    if ":" in address:
        address = f"[{address}]"
    return is_local_name(address)


class Admission:
    """The check of each request's head.

    Without a key a server on loopback is for programs of this machine. A page in somebody's browser is none: it cannot
    hide where it is from (Origin), nor that name of its own which was turned to this address (Host; DNS rebinding).

    Args:
        host: Where the server listens.
        key: What requests must carry as a bearer token, if anything.
    """

    def __init__(self, host: str, key: str | None) -> None:
        self._bearer: bytes | None = None
        if key is not None:
            self._bearer = f"Bearer {key}".encode()
        self._local = is_local_address(host)

    def refusal(self, host: str, origin: str | None, authorization: bytes) -> Refused | None:
        """Why a request is not answered; None for one that is."""
        if self._bearer is not None:
            # In constant time: how long a comparison takes would say how much of a guess is right.
            if hmac.compare_digest(authorization, self._bearer):
                return None
            return Refused(401, "This server wants an API key.", code="invalid_api_key")
        if not self._local:
            return None
        if host and not is_local_name(host):
            message = "This server is for this machine alone, by the name localhost or its address."
            return Refused(403, message, code="host")
        if origin is not None and not is_local_name(origin.partition("://")[2]):
            return Refused(403, "This server is not for web pages of other hosts.", code="origin")
        return None


class Message(TypedDict):
    """A turn of the conversation: who speaks, and the text."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One request, understood.

    Attributes:
        include_usage, continuous_usage: `stream_options` (the second is vLLM's `continuous_usage_stats`).
        max_tokens: None where it names none; `max_completion_tokens`, OpenAI's newer name, goes before `max_tokens`.
        fields: The whole body, for what only one of the servers reads.
    """

    model: str
    messages: list[Message]
    stream: bool
    include_usage: bool
    continuous_usage: bool
    max_tokens: int | None
    fields: Mapping[str, object]


def read(body: bytes, *, text_only: bool = False, most_tokens: int | None = None) -> ChatRequest:
    """The request in a body.

    Args:
        text_only: Refuse parts of a message that are no text, and join the texts as they are; else images and the like
            are passed over, and a space comes between texts.
        most_tokens: Of one answer.
    Raises:
        Refused: 400, for what is malformed.
    """
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"The body is no JSON: {error}") from None
    if not isinstance(fields, dict):
        raise Refused(400, "The body must be a JSON object.")
    model = fields.get("model")
    if not isinstance(model, str):
        raise Refused(400, "'model' is required: a string.", "model")
    stream = fields.get("stream")
    if not isinstance(stream, bool | None):
        raise Refused(400, f"'stream' is {repr(stream)[:200]}: it must be true or false.", "stream")
    options = fields.get("stream_options")
    if not isinstance(options, dict):
        options = {}
    return ChatRequest(
        model=model,
        messages=_messages(fields.get("messages"), text_only),
        stream=bool(stream),
        include_usage=options.get("include_usage") is True,
        continuous_usage=options.get("continuous_usage_stats") is True,
        max_tokens=_max_tokens(fields, most_tokens),
        fields=fields,
    )


def _max_tokens(fields: Mapping[str, object], most: int | None) -> int | None:
    name = "max_completion_tokens"
    if fields.get(name) is None:
        name = "max_tokens"
    limit = fields.get(name)
    if limit is None:
        return None
    # JSON's true is an int of Python's.
    if isinstance(limit, int) and not isinstance(limit, bool) and limit >= 1 and (most is None or limit <= most):
        return limit
    bounds = "of 1 or more" if most is None else f"from 1 to {most:,}"
    raise Refused(400, f"{name!r} is {repr(limit)[:200]}: it must be a whole number {bounds}.", name)


def _messages(value: object, text_only: bool) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise Refused(400, "'messages' is required: a list of one message or more.", "messages")
    messages: list[Message] = []
    for number, message in enumerate(value):
        where = f"messages[{number}]"
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise Refused(400, f"{where} must be an object with a 'role'.", where)
        messages.append({"role": message["role"], "content": _text(message.get("content"), where, text_only)})
    return messages


def _text(content: object, where: str, text_only: bool) -> str:
    """The text of a message: a string, or the text parts of a list, as OpenAI allows."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    kinds, space = "parts", " "
    if text_only:
        kinds, space = "text parts: adapters take text", ""
    refusal = Refused(400, f"{where}.content must be a string or a list of {kinds}.", where)
    if not isinstance(content, list):
        raise refusal
    texts = []
    for part in content:
        if not isinstance(part, dict):
            part = {}
        text = part.get("text")
        if isinstance(text, str) and (not text_only or part.get("type") == "text"):
            texts.append(text)
        elif text_only:
            raise refusal
    return space.join(texts)
