"""What servers write differently: where the text is, where the count, and how they say what went wrong."""

from __future__ import annotations

from typing import Any

import orjson

from loadbench.result import ErrorKind
from loadbench.target.failure import without_markup

_MESSAGE_CHARACTERS = 300


def status_kind(status: int) -> ErrorKind:
    """METRICS.md's word for a response that is no 200."""
    if status == 429:
        return "http_429"
    if status >= 500:
        return "http_5xx"
    if status >= 400:
        return "http_4xx"
    return "redirect" if status >= 300 else "protocol"


def body_said(status: int, body: bytes) -> str:
    """An error response in words: its status, and what its body says, JSON or not."""
    try:
        words = said(orjson.loads(body))
    except orjson.JSONDecodeError:
        words = without_markup(body.decode("utf-8", "replace")).strip()
    return f"HTTP {status}: {words}" if words else f"HTTP {status}"


def nothing_said(finish_reason: str | None, output_tokens: int | None) -> str:
    """Why an answer that ended as it should has no text, and what to do about it."""
    if finish_reason not in ("length", "max_tokens"):
        return "a response without any text"
    spent = f"all {output_tokens} tokens" if output_tokens else "all tokens that were allowed"
    return (
        f"{spent} went into hidden reasoning (finish reason {finish_reason}), none into an answer: allow more with "
        """--max-tokens, or less reasoning, as --extra-body '{"reasoning_effort": "low"}'"""
    )


def said(document: Any) -> str:
    """The message in an error document, of whatever shape."""
    while isinstance(document, dict):
        inner = next((document[key] for key in ("error", "message", "detail", "msg") if document.get(key)), None)
        if inner is None:
            break
        document = inner
    if isinstance(document, str):
        return without_markup(document)
    try:
        return orjson.dumps(document).decode()
    except orjson.JSONEncodeError:  # it reads more levels than it writes
        return "an error of too many levels"


def one_line(text: str) -> str:
    """A message without line ends and control characters, cut to a readable length."""
    beginning = text[: 100 * _MESSAGE_CHARACTERS]  # an error may be an event of 16 MiB
    return " ".join("".join(c if c.isprintable() else " " for c in beginning).split())[:_MESSAGE_CHARACTERS]


def count(value: Any) -> int | None:
    """A number of tokens; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def other_text(delta: Any) -> str | None:
    """Text of a delta that is not its content: reasoning by its several names, tool calls, a refusal."""
    found = [
        text
        for key in ("reasoning_content", "reasoning", "refusal")
        if isinstance(text := delta.get(key), str) and text
    ]
    calls = delta.get("tool_calls") or ([delta] if delta.get("function_call") else [])
    for call in calls:
        function = call.get("function") or call.get("function_call") or {}
        found += [text for key in ("name", "arguments") if isinstance(text := function.get(key), str) and text]
    return "".join(found) or None


def parts_text(content: Any) -> str:
    """Content given as a list of parts. Raises TypeError for anything else."""
    if not isinstance(content, list):
        raise TypeError(content)
    return "".join(part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))
