"""One HTTP/1.x connection: request bytes out, response bytes to a sink as they arrive, TLS in between.

Nothing here awaits between tokens: the reader's callback runs the HTTP parser, which runs the sink, all in one call
stack with the arrival's stamp. The request's task wakes once, when the response is whole or has failed.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import httptools

from loadbench.errors import UsageError
from loadbench.scenario import Timeouts
from loadbench.store.record import ErrorKind
from loadbench.transport.exchange import Ending, ExchangeError, Headers, Sink, inflater, os_error

MAX_HEADER_BYTES = 256 * 1024


class Wire(Protocol):
    """The socket beneath: it calls `Connection.received`, `bodies` and `lost`."""

    @property
    def unsent(self) -> bool: ...
    def begin(self, *, eager: bool) -> None: ...
    def look(self) -> None: ...
    def send(self, data: bytes) -> None: ...
    def close(self) -> None: ...


@dataclass(slots=True, eq=False)
class Connection:
    """One connection and at most one exchange on it."""

    _loop: asyncio.AbstractEventLoop
    _now_ns: Callable[[], int]
    wire: Wire | None = None
    closed: bool = False
    used: bool = False  # an exchange was on it
    reusable: bool = False
    heard: bool = False  # a byte of the present response came
    left_at: Ending | None = None  # where the last answer was over and its body was not waited for
    began_ns: int = 0  # of the present exchange, else of the last one
    arrival_ns: int = 0  # of the last bytes
    stamp: int = 0  # the kernel's, of the last bytes; 0 where there is none
    on_idle_close: Callable[[Connection], object] | None = None
    # How many seconds an answer that is over may wait for what follows it. If that does not come, the exchange returns
    # all the same, and the connection is closed.
    patience: Callable[[Ending], float] = lambda ending: 0.0
    # How it ended, if it did before anything was asked of it; no exception, which would hold its frames.
    _unasked: tuple[ErrorKind, str] = ("reset", "the server closed the connection before anything was asked of it")
    _parser: httptools.HttpResponseParser | None = None
    _sink: Sink | None = None
    _timeouts: Timeouts = field(init=False)
    _waiter: asyncio.Future[None] | None = None
    _timer: asyncio.TimerHandle | None = None  # of this exchange or one before: to begin one for each takes 3 us
    _timer_ns: int = 0  # when it ends
    _ending: Ending | None = None  # the sink's, as it was last seen
    _grace: asyncio.TimerHandle | None = None  # until the connection is left
    _headers: Headers = field(default_factory=list)
    _inflate: Callable[[bytes], bytes] | None = None
    _body_ends_at_close: bool = False
    _bare_bytes: int = 0  # of the response, since its last piece of body
    _complete: bool = False
    _tls: ssl.SSLObject | None = None
    _incoming: ssl.MemoryBIO = field(init=False)
    _outgoing: ssl.MemoryBIO = field(init=False)
    _handshake: asyncio.Future[None] | None = None

    # -- life

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Run the TLS handshake. Raises ExchangeError of kind tls."""
        if self.closed:
            raise ExchangeError("tls", "connection closed, or something else said, before the TLS handshake")
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._handshake = self._loop.create_future()
        self._advance_handshake()
        try:
            await self._handshake
        finally:
            self._handshake = None

    async def exchange(self, request: bytes, sink: Sink, timeouts: Timeouts) -> None:
        """Send a request's bytes and feed its response to the sink; returns when the response is whole.

        Raises:
            ExchangeError: With the kind of failure. The connection is then closed.
        """
        assert self.wire is not None
        if not self.used:  # one that was kept was looked at as it was taken
            self.look()
        self.began_ns = self._now_ns()
        self.heard = False  # first: a connection that closed just now was heard in the last exchange, not in this one
        if self.closed:
            raise ExchangeError(*self._unasked)
        self._parser = httptools.HttpResponseParser(self)
        self._sink, self._timeouts = sink, timeouts
        self._ending = self.left_at = None
        self._reset_message()
        self._bare_bytes = 0
        self.used = True
        self._complete = self.reusable = False
        self._waiter = self._loop.create_future()
        try:
            if self._tls is not None:
                self._tls.write(request)
                request = self._outgoing.read()
            # Where bodies do not end as answers do, only who reads each event knows when an answer is over.
            self.wire.begin(eager=not (self.patience("usage") and self.patience("end")))
            # Nothing between the time and the call: on a crowded machine any line is one where a core may be lost.
            self.began_ns = self._now_ns()
            self._send(request)
            sink.sent(self.began_ns)
            self.arrival_ns = max(self.arrival_ns, self.began_ns)
            self._wake(min(timeouts.first_token, timeouts.idle, timeouts.total), self.began_ns)
            await self._waiter
        except BaseException:
            if not self.closed:
                self.look()  # what came before a cancellation is part of its record
            self.close()
            raise
        finally:
            # The parser holds this connection, and this the parser: a circle once the connection is closed.
            self._sink = self._waiter = self._parser = None
            if self._grace is not None:
                self._grace.cancel()
                self._grace = None
        if not self.reusable or self.wire.unsent:  # a server may refuse a request before it has read it all
            self.close()

    def look(self) -> None:
        """Take in what has arrived, the end of the connection among it."""
        if self.wire is not None:
            self.wire.look()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self.wire is not None:
                self.wire.close()

    def _send(self, data: bytes) -> None:
        assert self.wire is not None
        try:
            self.wire.send(data)
        except OSError as error:
            self.lost(error)

    # -- bytes in, called by the wire

    def received(self, data: bytes | memoryview, at_ns: int) -> None:
        """Bytes that arrived at this time."""
        self.arrival_ns = at_ns
        if self._tls is None:
            self._parse(data)
            return
        self._incoming.write(data)
        if self._handshake is not None:
            self._advance_handshake()
            return
        try:
            while plain := self._tls.read(65536):
                self._parse(plain)
            self.lost(None)  # close_notify
        except ssl.SSLWantReadError:
            if self._outgoing.pending:  # an answer of the TLS layer itself, to a key update say
                self._send(self._outgoing.read())
        except ssl.SSLError as error:
            self._fail(ExchangeError("tls", error.reason or str(error)))

    def lost(self, error: OSError | None) -> None:
        """The other side closed (None) or the connection broke."""
        if self._handshake is not None and not self._handshake.done():
            self._handshake.set_exception(ExchangeError("tls", "connection closed during the TLS handshake"))
        if self._waiter is None or self._waiter.done():
            self.close()
            if self.on_idle_close is not None:
                self.on_idle_close(self)
        elif error is not None:
            self._fail(os_error(error))
        elif not self.heard:
            self._fail(ExchangeError("reset", "connection closed before any byte of the response"))
        elif self._body_ends_at_close:
            self.on_message_complete()
        else:
            self._fail(ExchangeError("truncated", "connection closed before the response was whole"))

    def _advance_handshake(self) -> None:
        assert self._tls is not None
        assert self.wire is not None
        assert self._handshake is not None
        failure: ExchangeError | None = None
        done = False
        try:
            self._tls.do_handshake()
            done = True
        except ssl.SSLWantReadError:
            pass
        except ssl.CertificateError as error:
            failure = ExchangeError("tls", f"certificate not accepted: {error.verify_message}")
        except ssl.SSLError as error:
            failure = ExchangeError("tls", error.reason or str(error))
        if self._outgoing.pending:
            try:
                self.wire.send(self._outgoing.read())
            except OSError as error:
                failure = failure or ExchangeError("tls", str(error))
        if not self._handshake.done():
            if failure is not None:
                self._handshake.set_exception(failure)
            elif done:
                self._handshake.set_result(None)

    def bodies(self, pieces: list[bytes], times_ns: list[int]) -> None:
        """Bodies of chunks, cut as the parser would, which is and remains at the boundary between two chunks."""
        if self._sink is None or self._complete:
            self._unasked_bytes()
            return
        self.heard = True
        self._bare_bytes = 0
        self.arrival_ns = times_ns[-1]
        try:
            self._sink.bodies(pieces, times_ns)
        except ExchangeError as error:
            self._fail(error)
        except Exception as error:  # as of the parser's callbacks
            self._fail(ExchangeError("protocol", repr(error)))
        else:
            self._heed_ending()

    def _unasked_bytes(self) -> None:
        self.reusable = False  # bytes that answer no request: what follows them cannot be trusted
        self.lost(None)

    def _parse(self, data: bytes | memoryview) -> None:
        if self._sink is None or self._complete:
            self._unasked_bytes()
            return
        self.heard = True
        self._bare_bytes += len(data)
        try:
            assert self._parser is not None
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            self._fail(cause if isinstance(cause, ExchangeError) else ExchangeError("protocol", repr(cause)))
        except httptools.HttpParserUpgrade:
            self._fail(ExchangeError("protocol", "the server switched protocols"))
        except httptools.HttpParserError as error:
            if self._complete:
                self.reusable = False
            else:
                self._fail(ExchangeError("protocol", f"not HTTP: {error}"))
        else:
            # Headers, trailers, chunk sizes or responses of 1xx without end: the parser would keep them all, or go on.
            if self._bare_bytes > MAX_HEADER_BYTES and not self._complete:
                self._fail(ExchangeError("protocol", f"headers of more than {MAX_HEADER_BYTES // 1024} KiB"))
            else:
                self._heed_ending()

    def _heed_ending(self) -> None:
        """The answer is over, or goes on after all: wait for what may follow, then leave the connection."""
        if self._sink is None or self._sink.ending == self._ending or self._complete:
            return
        self._ending = self._sink.ending
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        if self._ending is not None:
            self._grace = self._loop.call_later(self.patience(self._ending), self._leave)

    def _leave(self) -> None:
        ending = self._ending
        self.look()
        if self._ending != ending:  # something followed
            return
        self.left_at = ending
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # -- called by the HTTP parser

    def _reset_message(self) -> None:
        self._headers = []
        self._body_ends_at_close = False
        self._inflate = None

    def on_message_begin(self) -> None:
        if self._complete:
            raise ExchangeError("protocol", "bytes after the end of the response")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        assert self._sink is not None
        status = self._parser.get_status_code()
        if status < 200:
            return
        names = [name.lower() for name, _ in self._headers]
        self._body_ends_at_close = b"content-length" not in names and b"transfer-encoding" not in names
        self._inflate = inflater(self._headers) if b"content-encoding" in names else None
        self._sink.headers(self.arrival_ns, status, self._headers)

    def on_body(self, data: bytes) -> None:
        self._bare_bytes = 0
        if self._inflate is not None:
            data = self._inflate(data)
        assert self._sink is not None
        self._sink.body(data, self.arrival_ns)

    def on_message_complete(self) -> None:
        assert self._parser is not None
        if self._parser.get_status_code() < 200:  # 100 Continue, 103 Early Hints: the response is still to come
            self._reset_message()
            return
        self._complete = True
        self.reusable = not self._body_ends_at_close and self._parser.should_keep_alive()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # -- time-outs

    def _wake(self, after_s: float, now_ns: int) -> None:
        """Have `_check` called by then."""
        at_ns = now_ns + round(after_s * 1e9)
        if self._timer is not None:
            if self._timer_ns <= at_ns:
                return
            self._timer.cancel()
        self._timer, self._timer_ns = self._loop.call_later(after_s, self._check), at_ns

    def _check(self) -> None:
        """Whether a deadline has passed; else it is looked at again by when one may have."""
        self._timer = None
        if self._waiter is None:
            return
        self.look()  # the deadlines depend on what has arrived
        sink, limits = self._sink, self._timeouts
        if sink is None or self._waiter is None or self._waiter.done():
            return
        now = self._now_ns()
        deadlines: list[tuple[float, ErrorKind, float]] = [
            (self.began_ns + limits.total * 1e9, "timeout_total", limits.total)
        ]
        if sink.first_token_ns is None:
            deadlines.append((self.began_ns + limits.first_token * 1e9, "timeout_first_token", limits.first_token))
        else:
            deadlines.append((self.arrival_ns + limits.idle * 1e9, "timeout_idle", limits.idle))
        at, kind, limit = min(deadlines)
        if at <= now:
            self._fail(ExchangeError(kind, f"{kind.removeprefix('timeout_').replace('_', ' ')}: over {limit:g} s"))
        else:
            # The first token may come at any time, and idleness counts from then on.
            self._wake(min((at - now) / 1e9, limits.idle), now)

    def _fail(self, error: ExchangeError) -> None:
        if self._waiter is None:
            self._unasked = error.kind, str(error)
        elif not self._waiter.done():
            self._waiter.set_exception(error)
        self.close()


def tls_context(*, ca_file: str | None = None, ca_pem: str | None = None, insecure: bool = False) -> ssl.SSLContext:
    """A client's TLS context: HTTP/1.1 only, and certificates are verified unless `insecure`.

    Args:
        ca_pem: What would be in the CA file, as text.
    Raises:
        UsageError: If the CA file holds no certificates.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file, cadata=ca_pem)
    except (OSError, ssl.SSLError) as error:
        why = "no certificates in it" if isinstance(error, ssl.SSLError) else error.strerror
        if ca_file is None and ca_pem is None:  # all else that a context opens: Python writes session keys there
            raise UsageError(f"SSLKEYLOGFILE: {why}; give a file that can be written, or unset the variable") from None
        raise UsageError(f"--ca-file {ca_file}: {why}; give a PEM file of certificate authorities") from None
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context
