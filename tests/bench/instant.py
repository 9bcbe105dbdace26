"""A server that answers everything at once and notes when: the clock beside which the command itself is timed."""

from __future__ import annotations

import json
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

MODEL = "instant"
_SERVER = b"Server: instant\r\n"


def _events() -> bytes:
    def event(value: object) -> bytes:
        return b"data: " + json.dumps(value).encode() + b"\n\n"

    def chunk(delta: dict[str, str], finish: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return event({"id": "1", "object": "chat.completion.chunk", "model": MODEL, "choices": [choice]})

    usage = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
    last = event({"id": "1", "object": "chat.completion.chunk", "choices": [], "usage": usage})
    return chunk({"role": "assistant", "content": "Yes"}, None) + chunk({}, "stop") + last + b"data: [DONE]\n\n"


def _response(status: str, kind: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n".encode()
    return head + _SERVER + b"\r\n" + body


_ANSWER = _response("200 OK", "text/event-stream", _events())
_MODELS = _response(
    "200 OK",
    "application/json",
    json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "bench"}]}).encode(),
)
_NOTHING = _response("404 Not Found", "application/json", b'{"error": "not found"}')


@dataclass(slots=True)
class Instant:
    """The server's address; when each chat request had arrived and when its answer was sent, in s (perf_counter)."""

    url: str
    asked_s: list[float] = field(default_factory=list)
    answered_s: list[float] = field(default_factory=list)


@contextmanager
def serve() -> Iterator[Instant]:
    """Serve in a thread for the length of a `with` block."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    instant = Instant(f"http://127.0.0.1:{listener.getsockname()[1]}/v1")
    stop, stopped = socket.socketpair()
    thread = threading.Thread(target=_loop, args=(listener, stopped, instant), daemon=True)
    thread.start()
    try:
        yield instant
    finally:
        stop.close()
        thread.join()
        stopped.close()
        listener.close()


def _loop(listener: socket.socket, stopped: socket.socket, instant: Instant) -> None:
    received: dict[socket.socket, bytes] = {}
    sock: socket.socket
    with selectors.DefaultSelector() as selector:
        for sock in (listener, stopped):
            selector.register(sock, selectors.EVENT_READ, sock)
        while True:
            for key, _ in selector.select():
                sock = key.data
                if sock is stopped:
                    for each in received:
                        each.close()
                    return
                if sock is listener:
                    accepted, _ = listener.accept()
                    received[accepted] = b""
                    selector.register(accepted, selectors.EVENT_READ, accepted)
                    continue
                data = b""
                with suppress(OSError):
                    data = sock.recv(65536)
                if not data:
                    selector.unregister(sock)
                    del received[sock]
                    sock.close()
                    continue
                received[sock] = _answer(sock, received[sock] + data, instant)


def _answer(sock: socket.socket, data: bytes, instant: Instant) -> bytes:
    """Answer the request if it is whole; what is left of the bytes."""
    head, end, body = data.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    lengths = [int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:")]
    length = lengths[0] if lengths else 0
    if not end or len(body) < length:
        return data
    with suppress(OSError):
        if head.startswith(b"POST ") and b"/chat/completions " in lines[0]:
            instant.asked_s.append(time.perf_counter())
            sock.sendall(_ANSWER)
            instant.answered_s.append(time.perf_counter())
        else:
            sock.sendall(_MODELS if lines[0].startswith(b"get /v1/models ") else _NOTHING)
    return body[length:]
