"""What is wrong with a server's TLS. Each row is a record."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadbench.transport import tls_context
from tests.support.asking import seconds
from tests.support.faults import PATHS, asked, kept, marks, nothing_left_open
from tests.support.faulty_tls import REFUSALS, ROWS, served
from tests.support.replay import CERTIFICATE, serve
from tests.support.wire import HEAD, chunk, event


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
