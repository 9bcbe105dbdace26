"""The words of one exchange: how it fails, who reads its response."""

from __future__ import annotations

import errno
from typing import Literal, Protocol

import httpx

from loadbench.result import ErrorKind

# EBUSY is what glibc may say where no file is left to look a name up.
_LOCAL_ERRNOS = {
    *(errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM, errno.EACCES, errno.EBUSY),
}

RETRY_NS = 1_000_000_000
"""Later than this after it was sent, a request died of something else than an old connection."""

Headers = list[tuple[bytes, bytes]]
Clock = Literal["kernel", "user"]


class ExchangeError(httpx.TransportError):
    """A request that failed on its way, with METRICS.md's word for how."""

    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Sink(Protocol):
    """Who reads a response. Each time is an arrival in ns on the transport's clock; body may raise ExchangeError."""

    first_token_ns: int | None

    def connected(self, duration_ns: int) -> None: ...
    def sent(self, at_ns: int) -> None: ...
    def headers(self, at_ns: int, status: int, headers: Headers) -> None: ...
    def body(self, data: bytes, at_ns: int) -> None: ...


def os_error(error: OSError, *, default: ErrorKind = "reset") -> ExchangeError:
    """The failure that this OSError means: of the client's own limits, or of the connection."""
    kind: ErrorKind = "local" if error.errno in _LOCAL_ERRNOS else default
    return ExchangeError(kind, error.strerror or str(error) or type(error).__name__)
