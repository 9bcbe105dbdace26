"""A judge on loopback that answers as a test says: an OpenAI endpoint with one model, and what it was asked."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "judge-7b"


@dataclass(frozen=True, slots=True)
class Reply:
    """What the judge answers: a text as a chat completion, or a status with an error."""

    text: str = ""
    status: int = 200
    finish_reason: str = "stop"
    usage: bool = True
    wait: threading.Event | None = None


Behaviour = Callable[[dict[str, Any]], Reply | str]


@dataclass(slots=True)
class Judge:
    url: str
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


def names(body: dict[str, Any]) -> list[str]:
    """The scores that a request asks for, in its order."""
    return re.findall(r'^"(\w+)":', body["messages"][-1]["content"], flags=re.MULTILINE)


def scores(body: dict[str, Any], value: int = 4) -> str:
    """A sound reply: the same score for all."""
    return json.dumps(dict.fromkeys(names(body), value))


@contextmanager
def judge(behaviour: Behaviour = scores) -> Iterator[Judge]:
    """A judge that answers each chat as `behaviour` says."""
    state = Judge("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            listed = self.path == "/v1/models"
            self._send(200 if listed else 404, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            state.asked.append(body)
            state.headers.append({name.lower(): value for name, value in self.headers.items()})
            reply = behaviour(body)
            reply = Reply(reply) if isinstance(reply, str) else reply
            if reply.wait is not None:
                reply.wait.wait(20)
            if reply.status != 200:
                self._send(reply.status, {"error": {"message": reply.text or "no"}})
                return
            message = {"role": "assistant", "content": reply.text}
            document: dict[str, Any] = {
                "object": "chat.completion",
                "model": MODEL,
                "choices": [{"index": 0, "message": message, "finish_reason": reply.finish_reason}],
            }
            if reply.usage:
                document["usage"] = {"prompt_tokens": 100, "completion_tokens": 10}
            self._send(200, document)

        def _send(self, status: int, document: Any) -> None:
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def handle(self) -> None:
            with suppress(ConnectionError):  # a client that timed out has gone
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
