"""The JSON of an answer, as OpenAI's servers write it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DONE = b"data: [DONE]\n\n"


def encoded(value: Any) -> bytes:
    """Compact JSON in UTF-8; half a character, which a careless detokenizer may yield, becomes a question mark."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def event(value: Any) -> bytes:
    """A server-sent event."""
    return b"data: " + encoded(value) + b"\n\n"


def error(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """An error document."""
    kind = "rate_limit_error" if status == 429 else "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


@dataclass(frozen=True, slots=True)
class Chat:
    """The identity of one answer; its methods make the events of a stream, or the whole.

    Attributes:
        created: Seconds since the epoch.
    """

    identity: str
    created: int
    model: str

    def delta(self, delta: Mapping[str, str], finish: str | None = None) -> bytes:
        """An event with something new: the role, a piece of text, or the reason of the end."""
        return event(self._document("chat.completion.chunk", [{"index": 0, "delta": delta, "finish_reason": finish}]))

    def usage(self, usage: Mapping[str, int]) -> bytes:
        """The event with the token counts, which has no choices."""
        return event(self._document("chat.completion.chunk", []) | {"usage": usage})

    def whole(self, text: str, finish: str, usage: Mapping[str, int] | None) -> dict[str, Any]:
        """An answer that is not streamed."""
        message = {"role": "assistant", "content": text}
        document = self._document("chat.completion", [{"index": 0, "message": message, "finish_reason": finish}])
        return document if usage is None else document | {"usage": usage}

    def _document(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.identity, "object": kind, "created": self.created, "model": self.model, "choices": choices}
