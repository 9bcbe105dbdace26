"""The bytes of chat answers, for scripts of `replay.serve`."""

from __future__ import annotations

import json

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(text: str | None = None, finish: str | None = None, **more: object) -> bytes:
    delta = {} if text is None else {"content": text}
    return (
        b"data: %s\n\n"
        % json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}).encode()
    )


def answer(*events: bytes) -> bytes:
    return HEAD + b"".join(map(chunk, events)) + LAST


WHOLE = answer(event("A"), event("B"), event(finish="stop"), DONE)


def plain(status: str, body: bytes = b"", headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n%s" % (status.encode(), len(body), headers, body)
