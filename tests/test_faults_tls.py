"""What is wrong with a server's TLS. Each row is a record."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from loadbench.record import ErrorKind
from loadbench.scenario import Timeouts
from loadbench.transport import tls_context
from tests.support.asking import seconds
from tests.support.faults import PATHS, asked, kept, marks, nothing_left_open
from tests.support.replay import CERTIFICATE, HEAR, HOLD, RECEIVE, RESET, Step, serve
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


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ROWS)
def test_a_fault_of_tls_has_its_record(name: str, path: str, tmp_path: Path) -> None:
    row = ROWS[name]
    with nothing_left_open(), serve(row.script, tls=row.server() if row.server else False) as server:
        url = server.url.replace("http:", "https:")
        [result] = asked(url, path, row.timeouts, tls=tls_context(ca_file=str(row.trusts)))
    kept(tmp_path / "run", [result])

    assert result.error == row.error, result.error_message
    assert marks(result) == row.marks
    assert row.says in (result.error_message or "")


@contextlib.contextmanager
def openssl(context: ssl.SSLContext, beneath: bytes = b"") -> Iterator[str]:
    """The address of a server that says why it refuses, as asyncio's does not; else it begins an answer.

    Args:
        beneath: Written then, without TLS.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            sock, _ = listener.accept()
            plain = socket.socket(fileno=os.dup(sock.fileno()))
            with plain, sock, contextlib.suppress(OSError):
                with contextlib.suppress(ssl.SSLError), context.wrap_socket(sock, server_side=True) as above:
                    above.recv(65536)
                    above.sendall(HEAD + chunk(event("A")))
                    plain.sendall(beneath)
                while plain.recv(65536):
                    pass

        thread = threading.Thread(target=run)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


REFUSALS: dict[str, tuple[Callable[[], ssl.SSLContext], str]] = {
    "it wants a certificate too": (asks_who, "CERTIFICATE_REQUIRED"),
    "no cipher in common": (speaks_rsa, "HANDSHAKE_FAILURE"),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", REFUSALS)
def test_what_tls_says_of_its_refusal_is_in_the_record(name: str, path: str, tmp_path: Path) -> None:
    context, says = REFUSALS[name]
    with nothing_left_open(), openssl(context()) as url:
        [result] = asked(url, path, seconds(), tls=tls_context(ca_file=str(CERTIFICATE)))
    kept(tmp_path / "run", [result])

    assert (result.error, result.text) == ("tls", "")
    assert says in (result.error_message or "")


@pytest.mark.parametrize("path", PATHS)
def test_junk_between_the_records_of_tls_is_a_tls_failure_that_keeps_the_text(path: str, tmp_path: Path) -> None:
    with nothing_left_open(), openssl(served(), b"\x17\x03\x03\x00\x20" + b"?" * 32) as url:
        [result] = asked(url, path, seconds(), tls=tls_context(ca_file=str(CERTIFICATE)))
    kept(tmp_path / "run", [result])

    assert (result.error, result.text) == ("tls", "A")
