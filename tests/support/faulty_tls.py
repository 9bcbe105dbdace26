"""What is wrong with a server's TLS."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from loadbench.scenario import Timeouts
from loadbench.store.record import ErrorKind
from tests.support.asking import seconds
from tests.support.replay import CERTIFICATE, HEAR, HOLD, RECEIVE, RESET, Step
from tests.support.wire import HEAD, WHOLE, chunk, event

EXPIRED = CERTIFICATE.with_name("expired.pem")

ELSEWHERE = CERTIFICATE.with_name("elsewhere.pem")


def served(certificate: Path = CERTIFICATE) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


def asks_who() -> ssl.SSLContext:
    context = served()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(CERTIFICATE)
    return context


def speaks_rsa() -> ssl.SSLContext:
    """A server of TLS 1.2 whose only cipher does not go with its key."""
    context = served()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
    return context


@dataclass(frozen=True, slots=True)
class Row:
    """What the server's TLS is, or None for what no TLS stands before; the certificate that the client trusts."""

    server: Callable[[], ssl.SSLContext] | None
    error: ErrorKind | None
    says: str = ""
    script: tuple[Step, ...] = (RECEIVE, WHOLE, HOLD)
    trusts: Path = CERTIFICATE
    marks: str = ""
    timeouts: Timeouts = field(default_factory=seconds)


ROWS: dict[str, Row] = {
    "a certificate that it trusts": Row(served, None, marks="sent headers event text"),
    "a certificate that has expired": Row(lambda: served(EXPIRED), "tls", "expired", trusts=EXPIRED),
    "a certificate for another host": Row(lambda: served(ELSEWHERE), "tls", "127.0.0.1", trusts=ELSEWHERE),
    "a certificate that nobody vouches for": Row(served, "tls", "certificate not accepted", trusts=ELSEWHERE),
    "closed amid the handshake": Row(None, "tls", "handshake", (HEAR, b"\x16\x03\x03\x00\x40")),
    "reset amid the handshake": Row(None, "tls", "handshake", (HEAR, b"\x16\x03\x03\x00\x40", RESET)),
    "half a handshake and then silence": Row(
        None, "timeout_connect", "", (HEAR, b"\x16\x03\x03\x00\x40", HOLD), timeouts=seconds(connect=0.1)
    ),
    "a server that speaks first, and no TLS": Row(None, "tls", "", (b"SSH-2.0-OpenSSH_9.6\r\n", HOLD)),
    "plain HTTP": Row(
        None, "tls", "WRONG_VERSION_NUMBER", (HEAR, b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", HOLD)
    ),
    "reset in mid-stream": Row(
        served, "reset", "", (RECEIVE, HEAD + chunk(event("A")), 0.05, RESET), marks="sent headers event text"
    ),
}

REFUSALS: dict[str, tuple[Callable[[], ssl.SSLContext], str]] = {
    "it wants a certificate too": (asks_who, "CERTIFICATE_REQUIRED"),
    "no cipher in common": (speaks_rsa, "HANDSHAKE_FAILURE"),
}
