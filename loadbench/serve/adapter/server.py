"""The HTTP server: a thread for each connection, the model's slots between them.

Of the standard library alone, so that a model's process holds nothing of ours that computes beside it. Each piece is
written to the socket as it comes (TCP_NODELAY, one write, one chunk, one event).
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import logging
import os
import signal
import socket
import socketserver
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus

import loadbench
from loadbench.errors import LoadbenchError
from loadbench.serve import Announce, Document, adapter, base_url, chat, check_ranges, wait_until
from loadbench.serve.adapter.model import FAILURES, Generation, Model, described, find
from loadbench.serve.chat import MAX_BODY_BYTES, Admission, ChatRequest, Refused

GONE_CHECK_S = 0.5
"""How often one who waits for a slot looks whether its client is still there."""
DRAIN_S = 1.0
RETRY_AFTER_S = 1
STOP_CHECK_S = 0.1
_DISCARD_S = 5.0
_PEEK: int | None = socket.MSG_PEEK | socket.MSG_DONTWAIT if hasattr(socket, "MSG_DONTWAIT") else None
ROUTES = "GET /v1/models, GET /health, POST /v1/chat/completions"
_SERVERS_OWN = frozenset(("model", "messages", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens"))
"""Fields of a request that the server itself reads; the others are the adapter's."""


class Full(Exception):
    """All slots are taken and no place to wait is free."""


class Gone(Exception):
    """The client hung up, or the server stops."""


class Slots:
    """A counting semaphore with a bounded, fair queue.

    Args:
        slots: Taken at once at most.
        queue: Who may wait.
    """

    def __init__(self, slots: int, queue: int, *, check_s: float = GONE_CHECK_S) -> None:
        self._slots = self._free = slots
        self._queue, self._check_s = queue, check_s
        self._waiting: deque[threading.Event] = deque()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def slot(self, gone: Callable[[], bool]) -> Iterator[None]:
        """Hold a slot for the length of a `with` block, after waiting for one.

        Args:
            gone: Whether the client has left.
        Raises:
            Full: At once.
            Gone: As soon as it is noticed.
        """
        turn = threading.Event()
        with self._changed:
            if self._free:
                self._free -= 1
                turn.set()
            elif len(self._waiting) < self._queue:
                self._waiting.append(turn)
            else:
                raise Full
        while not turn.wait(self._check_s):
            if gone():
                with self._changed:
                    if not turn.is_set():
                        self._waiting.remove(turn)
                        raise Gone
        try:
            if gone():  # it may have left since the last look
                raise Gone
            yield
        finally:
            with self._changed:
                if self._waiting:
                    self._waiting.popleft().set()  # the slot goes over to it: no newcomer can come between
                else:
                    self._free += 1
                    self._changed.notify_all()

    def taken(self) -> tuple[int, int]:
        """How many hold a slot and how many wait for one, now."""
        with self._changed:
            return self._slots - self._free, len(self._waiting)

    def drained(self, within_s: float) -> bool:
        """Wait until no slot is taken; False where that takes too long."""
        with self._changed:
            return self._changed.wait_for(lambda: self._free == self._slots, within_s)


class Server(http.server.ThreadingHTTPServer):
    """Bound to its address at once, listening from `listen` on.

    Args:
        api_key: What requests must carry as a bearer token, if anything.
    Raises:
        LoadbenchError: The port is taken, or the address not this machine's.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024  # connections that come at one moment; the default is 5
    allow_reuse_address = sys.platform != "win32"  # where it lets two servers share a port

    def __init__(self, host: str, port: int, api_key: str | None = None) -> None:
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

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that breaks off is no failure."""
        if not isinstance(sys.exception(), OSError | Gone):
            logging.getLogger(__name__).exception("a connection failed")


class Connection(http.server.BaseHTTPRequestHandler):
    """One connection, in a thread of its own."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """The model list, and how busy we are."""
        path = self._path()
        if path != "/health" and self._turned_away():
            return
        if path == "/v1/models":
            self._reply({"object": "list", "data": [self.server.model.row]})
        elif path == "/health":
            in_flight, waiting = self.server.slots.taken()
            self._reply({"status": "ok", "in_flight": in_flight, "waiting": waiting})
        else:
            self._refuse(Refused(404, f"There is no GET {path}; there is {ROUTES}."))

    def do_POST(self) -> None:
        if self._turned_away():
            return
        body = self._body()
        if body is None:
            return
        if self._path() == "/v1/chat/completions":
            self._chat(body)
        else:
            self._refuse(Refused(404, f"There is no POST {self._path()}; there is {ROUTES}."))

    def version_string(self) -> str:
        return f"loadbench-adapter/{loadbench.__version__}"

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a line for each request would cost what is measured."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What http.server itself refuses, in our form."""
        self.close_connection = True
        self._refuse(Refused(code, f"{message or HTTPStatus(code).phrase}."))

    # -- a chat completion

    def _chat(self, body: bytes) -> None:
        server = self.server
        self._began = False
        try:
            request = chat.read(body, text_only=True)
            params = self._params(request)
            with server.slots.slot(self._gone), server.model.generation(request.messages, params) as generation:
                if request.stream:
                    self._stream(request, generation)
                else:
                    self._whole(generation)
        except Refused as refused:
            self._refuse(refused)
        except Full:
            self._refuse(
                Refused(429, "All slots are taken and the queue is full."), ("Retry-After", str(RETRY_AFTER_S))
            )
        except Gone:
            self.close_connection = True
        except FAILURES as error:
            failed = Refused(500, f"The adapter failed: {described(error)}")
            logging.getLogger(__name__).warning("%s", failed)
            if not self._began:
                self._refuse(failed)
                return
            with contextlib.suppress(Gone):
                self._chunk(b"data: " + failed.body() + b"\n\n")
                self._chunk(b"")

    def _params(self, request: ChatRequest) -> dict[str, object]:
        """What the adapter's generate gets beside the messages; `max_tokens` under that name alone."""
        model, n = self.server.model.id, request.fields.get("n")
        if request.model != model:
            message = f"'model' is {repr(request.model)[:200]}: there is {model!r} alone."
            raise Refused(400, message, "model", "model_not_found")
        if n not in (None, 1):
            raise Refused(400, f"'n' is {repr(n)[:200]}: there is one answer to a request.", "n")
        params = {
            name: value for name, value in request.fields.items() if name not in _SERVERS_OWN and value is not None
        }
        if request.max_tokens is not None:
            params["max_tokens"] = request.max_tokens
        return params

    def _stream(self, request: ChatRequest, generation: Generation) -> None:
        piece = generation.next()  # before the head, so that a failure until here has its status
        document = self._document("chat.completion.chunk")

        def event(delta: Mapping[str, str], finish: str | None = None) -> None:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            self._chunk(b"data: " + chat.encoded(document | {"choices": [choice]}) + b"\n\n")

        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self._chunked = self.request_version != "HTTP/1.0"
        if self._chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self._began = True
        self._end_head()
        event({"role": "assistant", "content": ""})
        while piece is not None:
            if piece:
                event({"content": piece})
            if self._gone():
                raise Gone
            piece = generation.next()
        usage = generation.usage()
        event({}, generation.finish(usage))
        if request.include_usage and usage is not None:
            self._chunk(b"data: " + chat.encoded(document | {"choices": [], "usage": usage}) + b"\n\n")
        self._chunk(chat.DONE)
        self._chunk(b"")

    def _whole(self, generation: Generation) -> None:
        while generation.next() is not None:
            if self._gone():
                raise Gone
        usage = generation.usage()
        message = {"role": "assistant", "content": generation.text}
        document = self._document("chat.completion")
        document["choices"] = [{"index": 0, "message": message, "finish_reason": generation.finish(usage)}]
        self._reply(document if usage is None else document | {"usage": usage})

    def _document(self, kind: str) -> dict[str, object]:
        identity, model = f"chatcmpl-{uuid.uuid4().hex}", self.server.model.id
        return {"id": identity, "object": kind, "created": int(time.time()), "model": model}

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
        header = self.headers.get
        refused = self.server.admission.refusal(
            header("Host", ""), header("Origin"), header("Authorization", "").encode("latin-1")
        )
        if refused is None:
            return False
        length = self._length()
        if length != 0:
            self.close_connection = True  # what follows is its body
        self._refuse(refused)
        self._discard(length or 0)
        return True

    def _path(self) -> str:
        return self.path.partition("?")[0].rstrip("/") or "/"

    def _body(self) -> bytes | None:
        length = self._length()
        if length is None:
            self.close_connection = True  # where the next request begins is not known
            header = self.headers.get("Content-Length", "")
            self._refuse(Refused(411, f"Content-Length is {header[:40]!r}: a body needs one."))
            return None
        if length > MAX_BODY_BYTES:
            self.close_connection = True
            self._refuse(Refused(413, f"The body has {length} bytes; at most {MAX_BODY_BYTES} are read."))
            self._discard(length)
            return None
        return self.rfile.read(length)

    def _length(self) -> int | None:
        """The length of the body; 0 where the head names none and none is to come, None where it cannot be known."""
        header = self.headers.get("Content-Length", "0" if self.command == "GET" else "")
        if "Transfer-Encoding" in self.headers or not (header.isascii() and header.isdigit() and len(header) < 19):
            return None
        return int(header)

    def _discard(self, length: int) -> None:
        """Take a body that was refused, so that its sender lives to read why; some of it, and not for long."""
        left = min(length, chat.MAX_DISCARDED_BYTES)
        with contextlib.suppress(OSError):
            if left:
                self.connection.shutdown(socket.SHUT_WR)
                self.connection.settimeout(_DISCARD_S)
            while left and (data := self.rfile.read1(min(left, 65_536))):
                left -= len(data)

    def _refuse(self, refused: Refused, *headers: tuple[str, str]) -> None:
        self._send_whole(refused.status, refused.body(), *headers)

    def _reply(self, document: object) -> None:
        self._send_whole(200, chat.encoded(document))

    def _send_whole(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (("Content-Type", "application/json"), ("Content-Length", str(len(body))), *headers):
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
        self._send(chat.chunk(payload) if self._chunked else payload)

    def _send(self, data: bytes) -> None:
        """Write; a client that hung up is Gone, so that an adapter's own OSError is not taken for one."""
        try:
            self.wfile.write(data)
        except OSError:
            raise Gone from None


def serve_child(document: Document, announce: Announce) -> None:
    """Load and serve until a signal, or the caller's end."""
    settings = adapter.Settings(**document)
    check_ranges(slots=(settings.slots, 1, 1024), queue=(settings.queue, 0, 65_536), port=(settings.port, 0, 65_535))
    # Before the model, which may take minutes, so that a taken port shows at once.
    server = Server(settings.host, settings.port, settings.api_key)
    model = Model(find(settings.spec), settings.spec, settings.weights, settings.options, settings.model)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    server.listen(model, Slots(settings.slots, settings.queue))
    facts = adapter.AdapterServer(
        url=base_url(settings.host, server.server_port),
        pid=os.getpid(),
        model=model.id,
        adapter=settings.spec,
        slots=settings.slots,
        queue=settings.queue,
    )
    announce(dataclasses.asdict(facts))
    wait_until(stopped, with_caller=True)
    if not server.stop(DRAIN_S):
        os._exit(0)  # a model that still computes must not be unloaded under its own feet
    model.unload()
