"""One exchange: how it fails, who reads its response, how long to wait for its end, and content codings."""

from __future__ import annotations

import errno
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import httpx

from loadbench.store.record import ErrorKind

# EBUSY is what glibc may say where no file is left to look a name up.
_LOCAL_ERRNOS = {
    *(errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM, errno.EACCES, errno.EBUSY),
}

RETRY_NS = 1_000_000_000
"""Later than this after it was sent, a request died of something else than an old connection."""

Headers = list[tuple[bytes, bytes]]
Clock = Literal["thread", "kernel", "user"]
"""Who stamps arrivals: the kernel, read by a thread of its own or by Python; or Python, in user space."""
Origin = tuple[str, str, int]
Ending = Literal["usage", "end"]
"""What may still follow an answer that is over: its usage, or the end of the body alone."""

LESSONS = 3
"""After this many of a kind, all alike, an origin is taken to do the same always."""
GRACE_S = 0.2
"""By which what follows an answer may be late: busy servers write the end of the body apart, tens of ms later."""


@dataclass(frozen=True, slots=True, eq=False)
class Address:
    """Where POSTs of one kind go, with all that they have in common: httpx takes 30 us to encode that.

    Attributes:
        head: The first line and the headers, but for the length of the content.
    """

    url: httpx.URL
    origin: Origin
    headers: Mapping[str, str]
    head: bytes

    @classmethod
    def of(cls, url: httpx.URL, headers: Mapping[str, str]) -> Address:
        request = httpx.Request("POST", url, headers=headers)
        request.headers.pop("content-length", None)
        return cls(url, origin_of(url), headers, head_of(request))


class Post(NamedTuple):
    """A request of a benchmark, which may be sent any number of times."""

    address: Address
    content: bytes

    @property
    def wire(self) -> bytes:
        return b"%sContent-Length: %d\r\n\r\n%s" % (self.address.head, len(self.content), self.content)


def origin_of(url: httpx.URL) -> Origin:
    return url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80)


def head_of(request: httpx.Request) -> bytes:
    """The first line and the headers, as they are sent."""
    head = b"%s %s HTTP/1.1\r\n" % (request.method.encode(), request.url.raw_path)
    return head + b"".join(b"%s: %s\r\n" % pair for pair in request.headers.raw)


class ExchangeError(httpx.TransportError):
    """A request that failed on its way, with docs/metrics.md's word for how."""

    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Sink(Protocol):
    """Who reads a response. Each time is an arrival in ns on the transport's clock; body may raise ExchangeError."""

    first_token_ns: int | None
    ending: Ending | None
    """None while the answer goes on."""
    retries: int
    """How often it was sent again, as the connection that was kept for it had died."""

    def connected(self, duration_ns: int) -> None: ...
    def sent(self, at_ns: int) -> None: ...
    def headers(self, at_ns: int, status: int, headers: Headers) -> None: ...
    def body(self, data: bytes, at_ns: int) -> None: ...
    def bodies(self, pieces: list[bytes], times_ns: list[int]) -> None: ...


class Patience:
    """How long to wait for what may follow an answer that is over; not at all where it never came.

    The body's end makes the connection fit for the next request, and a late usage has the counts; but some servers
    keep the body open for seconds (agentscope-java #2073), or for ever, with heartbeats.
    """

    def __init__(self) -> None:
        self._in_vain: Counter[tuple[Origin, Ending]] = Counter()

    def seconds(self, origin: Origin, ending: Ending) -> float:
        return 0.0 if self._in_vain[origin, ending] >= LESSONS else GRACE_S

    def learn(self, origin: Origin, left_at: Ending | None) -> None:
        """What became of an answer: left while this was waited for, or None where its body came to its end."""
        if left_at is not None:
            self._in_vain[origin, left_at] += 1
        if left_at != "usage":
            del self._in_vain[origin, "usage"]
        if left_at is None:
            del self._in_vain[origin, "end"]


def os_error(error: OSError, *, default: ErrorKind = "reset") -> ExchangeError:
    """The failure that this OSError means: of the client's own limits, or of the connection."""
    kind: ErrorKind = "local" if error.errno in _LOCAL_ERRNOS else default
    return ExchangeError(kind, error.strerror or str(error) or type(error).__name__)


MAX_INFLATED_BYTES = 64 * 1024 * 1024  # of one response


def inflater(headers: Headers) -> Callable[[bytes], bytes] | None:
    """What undoes the response's content coding, piece by piece; None where there is none to undo.

    Raises:
        ExchangeError: Of kind protocol, from here for a coding not accepted, from the call for broken data.
    """
    coding = next((value.lower() for name, value in headers if name.lower() == b"content-encoding"), b"identity")
    if coding in (b"identity", b""):
        return None
    if coding not in (b"gzip", b"x-gzip", b"deflate"):
        raise ExchangeError("protocol", f"content-encoding {coding.decode('latin-1')} was not asked for")
    stream = zlib.decompressobj(wbits=47)  # gzip or zlib, as its header says
    left = MAX_INFLATED_BYTES

    def inflate(data: bytes) -> bytes:
        nonlocal stream, left
        plain = b""
        while data:
            if stream.eof:  # gzip may come in several members
                stream = zlib.decompressobj(wbits=47)
            try:
                more = stream.decompress(data, left + 1)
            except zlib.error as error:
                raise ExchangeError("protocol", f"broken compression: {error}") from None
            left -= len(more)
            if left < 0:
                raise ExchangeError("protocol", "a compressed body that grows without bound")
            plain += more
            data = stream.unused_data
        return plain

    return inflate
