"""A gateway that chats, scripted by one function: what it makes of each request, and what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body><h1>Welcome</h1></body></html>"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: its path with its query, its headers by name in lower case, and its JSON body."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any = None


@dataclass(frozen=True, slots=True)
class Answered:
    """One response; a dict or list body is sent as JSON, bytes as a web page, what `events` has as a stream."""

    status: int = 200
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    events: Sequence[Mapping[str, Any]] | None = None


@dataclass(slots=True)
class Gateway:
    """Where it is, and what it was asked, in order."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)

    @property
    def chats(self) -> list[Asked]:
        return [one for one in self.asked if one.method == "POST"]

    @property
    def gets(self) -> list[Asked]:
        return [one for one in self.asked if one.method == "GET"]


Law = Callable[[Asked], Answered]


def chat(*texts: str, finish: str = "stop", usage: Mapping[str, Any] | None = None) -> Answered:
    """A streamed answer, a text an event."""
    events: list[Mapping[str, Any]] = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in texts]
    events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    events.append({"choices": [], "usage": usage or {"prompt_tokens": 7, "completion_tokens": len(texts)}})
    return Answered(events=events)


def listed(*names: str, **facts: Any) -> Answered:
    """A model list."""
    return Answered(body={"object": "list", "data": [{"id": name, **facts} for name in names]})


NOT_FOUND = Answered(404, {"detail": "Not Found"})


@contextmanager
def gateway(law: Law) -> Iterator[Gateway]:
    """The gateway in a thread, for the length of the context."""
    found = Gateway()

    class Bound(_Handler):
        answers = staticmethod(law)
        told = found

    with ThreadingHTTPServer(("127.0.0.1", 0), Bound) as server:
        found.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        try:
            yield found
        finally:
            server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in one write: two would wait 40 ms for each other
    answers: Law
    told: Gateway

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, body: Any) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, self.path, headers, body)
        self.told.asked.append(asked)
        answer = self.answers(asked)
        kind, data = "text/html", answer.body
        if answer.events is not None:
            kind = "text/event-stream"
            data = "".join(f"data: {json.dumps(one)}\n\n" for one in answer.events).encode() + b"data: [DONE]\n\n"
        elif not isinstance(data, bytes):
            kind, data = "application/json", json.dumps(data).encode()
        self.send_response(answer.status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None: ...
