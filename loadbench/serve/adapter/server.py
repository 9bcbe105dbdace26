"""The HTTP server: a thread for each connection, the model's slots between them.

Of the standard library alone, so that a model's process holds nothing of ours that computes beside it. Each piece is
written to the socket as it comes (TCP_NODELAY, one write, one chunk, one event).
"""

from __future__ import annotations

import contextlib
import http.server
import json
import logging
import socket
import socketserver
import sys
import threading
import time
import uuid
from http import HTTPStatus
from typing import Any

import loadbench
from loadbench.errors import LoadbenchError
from loadbench.serve.adapter import answer
from loadbench.serve.adapter.ask import Ask, Refused, read
from loadbench.serve.adapter.failure import FAILURES, told
from loadbench.serve.adapter.model import Generation, Model
from loadbench.serve.adapter.slots import Full, Gone, Slots
from loadbench.serve.admission import Admission

MAX_BODY_BYTES = 16 * 1024 * 1024  # a million tokens of text are a third of it
_SWALLOWED_BYTES = 4 * MAX_BODY_BYTES  # of a body that is too long, so that its sender lives to read the answer
_SWALLOWED_S = 5.0
RETRY_AFTER_S = 1
STOP_CHECK_S = 0.1
_PEEK: int | None = socket.MSG_PEEK | socket.MSG_DONTWAIT if hasattr(socket, "MSG_DONTWAIT") else None
ROUTES = "GET /v1/models, GET /health, POST /v1/chat/completions"


class Server(http.server.ThreadingHTTPServer):
    """Bound to its address at once, listening from `listen` on."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024  # connections that come at one moment; the default is 5
    allow_reuse_address = sys.platform != "win32"  # where it lets two servers share a port

    def __init__(self, host: str, port: int, api_key: str | None = None) -> None:
        """Take the address.

        Args:
            api_key: What requests must carry as a bearer token, if anything.
        Raises:
            LoadbenchError: The port is taken, or the address not this machine's.
        """
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.stopping = threading.Event()
        self.admission = Admission(host, api_key)
        super().__init__((host, port), Connection, bind_and_activate=False)
        try:
            self.server_bind()
        except OSError as error:
            self.server_close()
            raise LoadbenchError(f"cannot listen on {host}:{port}: {error.strerror or error}; try --port 0") from error

    def server_bind(self) -> None:
        """Without http.server's look-up of the host's name, which may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", int(self.server_address[1])

    def listen(self, model: Model, slots: Slots) -> None:
        """Answer, in threads, from now on."""
        self.model, self.slots = model, slots
        self.server_activate()
        threading.Thread(target=self.serve_forever, args=(STOP_CHECK_S,), daemon=True).start()

    def stop(self, within_s: float) -> bool:
        """End all generations at their next piece; whether they did in time."""
        self.stopping.set()
        self.shutdown()
        self.server_close()
        return self.slots.drained(within_s)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that breaks off is nothing to tell of."""
        if not isinstance(sys.exception(), OSError | Gone):
            logging.getLogger(__name__).exception("a connection failed")


class Connection(http.server.BaseHTTPRequestHandler):
    """One connection, in a thread of its own."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """The model list, and how busy we are."""
        if self._path() != "/health" and self._turned_away():
            return
        match self._path():
            case "/v1/models":
                self._json(200, {"object": "list", "data": [self.server.model.row]})
            case "/health":
                in_flight, waiting = self.server.slots.taken()
                self._json(200, {"status": "ok", "in_flight": in_flight, "waiting": waiting})
            case path:
                self._error(404, f"There is no GET {path}; there is {ROUTES}.")

    def do_POST(self) -> None:
        """A chat completion."""
        if self._turned_away():
            return
        body = self._body()
        if body is None:
            return
        if self._path() == "/v1/chat/completions":
            self._chat(body)
        else:
            self._error(404, f"There is no POST {self._path()}; there is {ROUTES}.")

    def version_string(self) -> str:
        """The Server header."""
        return f"loadbench-adapter/{loadbench.__version__}"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a line for each request would cost what is measured."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What http.server itself refuses, in our form."""
        self.close_connection = True
        self._error(code, f"{message or HTTPStatus(code).phrase}.")

    # -- a chat completion

    def _chat(self, body: bytes) -> None:
        server = self.server
        self._began = False
        try:
            ask = read(body, server.model.id)
            with server.slots.slot(self._gone), server.model.generation(ask) as generation:
                (self._stream if ask.stream else self._whole)(ask, generation)
        except Refused as refused:
            self._error(refused.status, refused.message, refused.param, refused.code)
        except Full:
            self._error(429, "All slots are taken and the queue is full.", retry_after_s=RETRY_AFTER_S)
        except Gone:
            self.close_connection = True
        except FAILURES as error:
            said = f"The adapter failed: {told(error)}"
            logging.getLogger(__name__).warning("%s", said)
            if self._began:
                with contextlib.suppress(Gone):
                    self._chunk(answer.event(answer.error(500, said)))
                    self._chunk(b"")
            else:
                self._error(500, said)

    def _stream(self, ask: Ask, generation: Generation) -> None:
        chat = self._identity()
        piece = generation.next()  # before the head, so that a failure until here has its status
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self._chunked = self.request_version != "HTTP/1.0"
        if self._chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self._began = True
        self._end_head()
        self._chunk(chat.delta({"role": "assistant", "content": ""}))
        while piece is not None:
            if piece:
                self._chunk(chat.delta({"content": piece}))
            if self._gone():
                raise Gone
            piece = generation.next()
        usage = generation.usage()
        self._chunk(chat.delta({}, generation.finish(usage)))
        if ask.include_usage and usage is not None:
            self._chunk(chat.usage(usage))
        self._chunk(answer.DONE)
        self._chunk(b"")

    def _whole(self, ask: Ask, generation: Generation) -> None:
        while generation.next() is not None:
            if self._gone():
                raise Gone
        usage = generation.usage()
        self._json(200, self._identity().whole(generation.text, generation.finish(usage), usage))

    def _identity(self) -> answer.Chat:
        return answer.Chat(f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), self.server.model.id)

    def _gone(self) -> bool:
        """Whether nobody waits for more: the client hung up, or we stop.

        A client that only closes its own half after the request counts as gone, as with llama.cpp. Where a socket
        cannot be looked at without waiting (Windows), a hang-up shows as a write that fails.
        """
        if self.server.stopping.is_set():
            return True
        if _PEEK is None:
            return False
        try:
            return not self.connection.recv(1, _PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    # -- HTTP

    def _turned_away(self) -> bool:
        """Whether the request is not for us to answer; then it got its refusal."""
        said = self.headers.get
        refusal = self.server.admission.refusal(
            said("Host", ""), said("Origin"), said("Authorization", "").encode("latin-1")
        )
        if refusal is None:
            return False
        status, message, code = refusal
        length = self._length()
        if length != 0:
            self.close_connection = True  # what follows is its body
        self._error(status, message, code=code)
        self._discard(length or 0)
        return True

    def _path(self) -> str:
        return self.path.partition("?")[0].rstrip("/") or "/"

    def _body(self) -> bytes | None:
        """The request's body; None where it was refused."""
        length = self._length()
        if length is None:
            self.close_connection = True  # where the next request begins is not known
            given = self.headers.get("Content-Length", "")
            self._error(411, f"Content-Length is {given[:40]!r}: a body needs one.")
            return None
        if length > MAX_BODY_BYTES:
            self.close_connection = True
            self._error(413, f"The body has {length} bytes; at most {MAX_BODY_BYTES} are read.")
            self._discard(length)
            return None
        return self.rfile.read(length)

    def _length(self) -> int | None:
        """What the head says of the body; 0 where it names none and none is to come, None where nobody knows."""
        given = self.headers.get("Content-Length", "0" if self.command == "GET" else "")
        known = given.isascii() and given.isdigit() and len(given) < 19
        return int(given) if known and "Transfer-Encoding" not in self.headers else None

    def _discard(self, length: int) -> None:
        """Take a body that is not wanted, so that its sender lives to read why; some of it, and not for long."""
        left = min(length, _SWALLOWED_BYTES)
        with contextlib.suppress(OSError):
            if left:
                self.connection.shutdown(socket.SHUT_WR)
                self.connection.settimeout(_SWALLOWED_S)
            while left and (data := self.rfile.read1(min(left, 65_536))):
                left -= len(data)

    def _error(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        *,
        retry_after_s: int | None = None,
    ) -> None:
        headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
        self._json(status, answer.error(status, message, param, code), headers)

    def _json(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self._end_head()
        self._send(body)

    def _end_head(self) -> None:
        try:
            self.end_headers()
        except OSError:
            raise Gone from None

    def _chunk(self, payload: bytes) -> None:
        """One chunk of the body, the last one where it is empty."""
        self._send(b"%x\r\n%b\r\n" % (len(payload), payload) if self._chunked else payload)

    def _send(self, data: bytes) -> None:
        """Write; a client that hung up is Gone, so that an adapter's own OSError is not taken for one."""
        try:
            self.wfile.write(data)
        except OSError:
            raise Gone from None
