"""One client's connection: requests in, with the time the kernel received them; bytes out."""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

import httptools

from loadbench.serve.chat import MAX_BODY_BYTES, MAX_DISCARDED_BYTES, Refused

SO_TIMESTAMPNS = 35 if sys.platform == "linux" else None
"""Socket option of Linux: a wall-clock stamp, taken as a segment arrives, comes with every read."""

_MOST_HEAD_BYTES = 256 * 1024
_MOST_WAITING = 1_000
"""Requests that a client may send before it has its answers."""
_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request in full.

    Attributes:
        host: Of the Host header; empty where the request names another host in full, as one to a proxy does.
        arrival_ns: When its last segment reached the kernel, on the monotonic clock.
    """

    method: bytes
    path: bytes
    host: str
    origin: str | None
    authorization: bytes
    body: bytes
    keep_alive: bool
    arrival_ns: int


class Answer(Protocol):
    """What is sent in answer to a request, for the server that ends it."""

    def settle(self) -> None: ...
    def abandon(self, now_ns: int) -> None: ...


class Host(Protocol):
    """The server, as a connection sees it."""

    name: str

    def refusal(self, request: Request) -> Refused | None: ...
    def refuse(self, connection: Connection, refused: Refused) -> None: ...
    def handle(self, connection: Connection, request: Request) -> None: ...
    def watch_writing(self, sock: socket.socket, wanted: bool) -> None: ...
    def closed(self, connection: Connection) -> None: ...


@dataclass(slots=True, eq=False)
class Connection:
    """A socket, its parser, and the requests that wait for the one in progress (pipelining).

    Attributes:
        current: The answer in progress; while there is one, later requests wait.
        hanging: Never answers again (the fault).
    """

    _server: Host
    sock: socket.socket
    current: Answer | None = None
    hanging: bool = False
    _pending: deque[Request] = field(default_factory=deque)
    _out: bytearray = field(default_factory=bytearray)
    _closing: bool = False
    _proceeding: bool = False
    _keep_alive: bool = True
    _deaf: bool = False  # a request was refused before it was whole: what follows is thrown away
    _discarded_bytes: int = 0
    _head_bytes: int = 0  # read since the last piece of a body, or the last whole request
    _arrival_ns: int = 0
    _parser: httptools.HttpRequestParser | None = None
    # Of the request that is read now:
    _url: bytes = b""
    _host: bytes = b""
    _origin: bytes | None = None
    _authorization: bytes = b""
    _expects: bool = False
    _has_body: bool = False
    _body: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)

    # Reading

    def readable(self) -> None:
        """Take what has arrived, with its stamp, and answer the requests that are complete."""
        ancillary: list[tuple[int, int, bytes]] = []
        try:
            if SO_TIMESTAMPNS is None:
                data = self.sock.recv(65536)
            else:
                data, ancillary, _, _ = self.sock.recvmsg(65536, 64)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._server.closed(self)
            return
        if self._deaf:
            self._discarded_bytes += len(data)
            if self._discarded_bytes > MAX_DISCARDED_BYTES:
                self._server.closed(self)
            return
        now = time.perf_counter_ns()
        if ancillary:
            # The stamp is on the wall clock: taken as an age, a step of that clock cannot shift it for long.
            seconds, ns = struct.unpack("qq", ancillary[0][2][:16])
            now -= max(0, time.time_ns() - (seconds * 1_000_000_000 + ns))
        self._arrival_ns = now
        self._head_bytes += len(data)
        assert self._parser is not None
        try:
            self._parser.feed_data(data)
            waiting_bytes = sum(len(request.body) for request in self._pending)
            if self._head_bytes > _MOST_HEAD_BYTES or waiting_bytes > MAX_BODY_BYTES:
                raise Refused(400, "Headers, or requests ahead of their answers, without end.")
            if len(self._pending) > _MOST_WAITING:
                raise Refused(400, f"More than {_MOST_WAITING:,} requests ahead of their answers.")
        except (Refused, httptools.HttpParserCallbackError) as error:
            refused = error if isinstance(error, Refused) else error.__context__
            if not isinstance(refused, Refused):
                raise
            self._deaf, self._keep_alive = True, False
            if self.current is None:
                self._pending.clear()
                self._server.refuse(self, refused)
            else:
                self._server.closed(self)
            return
        except httptools.HttpParserUpgrade:
            self._parser = httptools.HttpRequestParser(self)  # no upgrade is on offer: the request was taken as it is
        except httptools.HttpParserError as error:
            self._keep_alive = False
            if self.current is None:
                self.reply(400, Refused(400, f"This is no HTTP: {error}").body())
            else:
                self.close()
            return
        self.proceed()

    def proceed(self) -> None:
        """Answer waiting requests until one takes its time."""
        if self._proceeding:
            return  # an answer that is done at once comes back here: a thousand of them must not nest
        self._proceeding = True
        while self._pending and self.current is None and not self.hanging and not self._closing:
            request = self._pending.popleft()
            self._keep_alive = request.keep_alive
            self._server.handle(self, request)
        self._proceeding = False

    def on_message_begin(self) -> None:
        self._url = self._host = self._authorization = b""
        self._origin = None
        self._expects = self._has_body = False
        self._body.clear()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        match name.lower():
            case b"authorization":
                self._authorization = value
            case b"host":
                self._host = value
            case b"origin":
                self._origin = value
            case b"expect":
                self._expects = True
            case b"transfer-encoding":
                self._has_body = True
            case b"content-length":
                self._has_body = value != b"0"
                if len(value) > 18 or (value.isdigit() and int(value) > MAX_BODY_BYTES):
                    length = value[:40].decode("latin-1")
                    raise Refused(413, f"The body has {length} bytes; at most {MAX_BODY_BYTES} are read.")

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        if self._has_body:
            refused = self._server.refusal(self._request(self._parser, b""))
            if refused is not None:
                raise refused
        if self._expects and self.current is None:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        self._head_bytes = 0
        self._body += data
        if len(self._body) > MAX_BODY_BYTES:
            raise Refused(413, f"The body has more than {MAX_BODY_BYTES} bytes.")

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        if self._parser is not None:  # else the client left before 100 Continue could be sent
            self._pending.append(self._request(self._parser, bytes(self._body)))

    def _request(self, parser: httptools.HttpRequestParser, body: bytes) -> Request:
        path, host = self._url.partition(b"?")[0], self._host.decode("latin-1")
        if path.startswith(b"http://"):
            # The absolute form too (RFC 9112, 3.2.2), so that the simulator can stand in for a proxy.
            path, host = b"/" + path.removeprefix(b"http://").partition(b"/")[2], ""
        return Request(
            method=parser.get_method(),
            path=path,
            host=host,
            origin=None if self._origin is None else self._origin.decode("latin-1"),
            authorization=self._authorization,
            body=body,
            keep_alive=parser.should_keep_alive(),
            arrival_ns=self._arrival_ns,
        )

    # Writing

    def head(self, status: int, kind: str, length: int | None) -> bytes:
        """Status line and headers; a length of None announces a chunked body."""
        size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
        close = "" if self._keep_alive else "Connection: close\r\n"
        reason = _REASONS.get(status, "Error")
        return (
            f"HTTP/1.1 {status} {reason}\r\nServer: {self._server.name}\r\nContent-Type: {kind}\r\n"
            f"Cache-Control: no-cache\r\n{size}\r\n{close}\r\n"
        ).encode()

    def reply(self, status: int, body: bytes) -> None:
        """A whole JSON answer, and on to the next request."""
        self.write(self.head(status, "application/json", len(body)) + body)
        self.done()

    def write(self, data: bytes) -> int:
        """Send now, or as soon as the kernel takes it; the number of bytes taken over, which is all of them."""
        if self._out:
            self._out += data
            return len(data)
        try:
            sent = self.sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._server.closed(self)
            return len(data)
        if sent < len(data):
            self.hold(data[sent:])
        return len(data)

    def hold(self, data: bytes) -> None:
        """Keep what the kernel would not take."""
        self._out += data
        self._server.watch_writing(self.sock, True)

    def writable(self) -> None:
        """Send what was held back."""
        try:
            sent = self.sock.send(self._out)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._server.closed(self)
            return
        del self._out[:sent]
        if not self._out:
            self._server.watch_writing(self.sock, False)
            if self._closing:
                self.close()

    def done(self, *, close: bool = False) -> None:
        """The answer is out: close where that was agreed (or is the fault), else take the next request."""
        self.current = None
        if close or not self._keep_alive:
            self.close()
        else:
            self.proceed()

    def break_off(self, *, reset: bool) -> None:
        """Close in the middle of an answer; `reset` sends RST at once instead of FIN when all is sent."""
        self.current = None
        if reset:
            with contextlib.suppress(OSError):
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._server.closed(self)
        else:
            self.close()

    def close(self) -> None:
        """Close when all is sent, and after a refusal when the other side does: a reset would overtake the answer."""
        if self._out:
            self._closing = True
        elif self._deaf:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_WR)
        else:
            self._server.closed(self)

    def release(self) -> None:
        """Let go of the parser, which refers back: with that cycle broken no garbage collection is needed."""
        self._parser = None
        self._pending.clear()
