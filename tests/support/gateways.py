"""A gateway that chats, scripted by one function: what it makes of each request, and what it was asked."""

from __future__ import annotations

import itertools
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.replay import CERTIFICATE

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
    """One response; a dict or list body is sent as JSON, bytes as a web page, what `events` has as a stream.

    Attributes:
        lines: Sent as JSON, a line each, in HTTP chunks; one with `hold` keeps the rest back until the client leaves.
    """

    status: int = 200
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    events: Sequence[Mapping[str, Any]] | None = None
    lines: Sequence[Mapping[str, Any]] | None = None

    @property
    def holds(self) -> bool:
        return any("hold" in line for line in self.lines or ())

    def encoded(self) -> bytes:
        """The whole response, headers as they are: Python's own server would not write all that servers write."""
        if self.lines is not None:
            head = b"HTTP/1.1 200 X\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
            sent = itertools.takewhile(lambda line: "hold" not in line, self.lines)
            parts = [json.dumps(line).encode() + b"\n" for line in sent]
            chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
            return head + chunks + b"0\r\n\r\n" * (not self.holds)
        kind, data = "text/html", self.body
        if self.events is not None:
            kind = "text/event-stream"
            data = "".join(f"data: {json.dumps(one)}\n\n" for one in self.events).encode() + b"data: [DONE]\n\n"
        elif not isinstance(data, bytes):
            kind, data = "application/json", json.dumps(data).encode()
        headers = {"Content-Type": kind, "Content-Length": str(len(data)), **self.headers}
        lines = [f"HTTP/1.1 {self.status} X", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        return "\r\n".join(lines).encode("latin-1") + data


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
def gateway(law: Law, *, tls: bool = False) -> Iterator[Gateway]:
    """The gateway in a thread, for the length of the context.

    Args:
        tls: Serve https with `CERTIFICATE`.
    """
    found = Gateway()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer in one write: two would wait 40 ms for each other

        def answer(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.command, self.path, headers, json.loads(data) if data else None)
            found.asked.append(asked)
            answered = law(asked)
            self.wfile.write(answered.encoded())
            if answered.holds:
                self.wfile.flush()
                self.close_connection = True
                self.rfile.read(1)

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that left, or trusts us not
        if tls:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(CERTIFICATE)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        found.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()
