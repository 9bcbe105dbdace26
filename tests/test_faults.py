"""The fault matrix, played through the real client: TLS, HTTP, streams, whole levels. Each row is a record."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import socket
import ssl
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from loadbench.store.record import ERROR_KINDS
from loadbench.transport import tls_context
from tests.support import faulty_answers, faulty_streams, faulty_tls
from tests.support.asking import seconds
from tests.support.faults import (
    GRACE_S,
    PATHS,
    Endless,
    Load,
    asked,
    assert_row,
    each_path,
    kept,
    marks,
    nothing_left_open,
    one_path,
    play,
)
from tests.support.faulty_answers import CODINGS, FAILURES, FRAMES, HEADS, STATUSES, SUCCESSES, TIMEOUTS
from tests.support.faulty_streams import EVENTS, PACES, SHAPES
from tests.support.faulty_tls import REFUSALS, ROWS, served
from tests.support.replay import CERTIFICATE, HOLD, RECEIVE, Step, black_hole, nobody, serve
from tests.support.wire import HEAD, WHOLE, chunk, event


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


@pytest.mark.parametrize(
    ("script", "limits_s", "error"),
    [
        ([HOLD], (20.0, 0.2), "timeout_first_token"),
        ([HOLD], (0.1, 0.3), "timeout_first_token"),
        ([0.3, WHOLE, HOLD], (0.1, 20.0), None),
    ],
    ids=["shorter", "longer", "longer, and kept"],
)
def test_each_request_of_a_connection_has_its_own_deadline(
    script: list[Step], limits_s: tuple[float, float], error: str | None
) -> None:
    timeouts = [seconds(first_token=limit_s) for limit_s in limits_s]
    with serve([RECEIVE, WHOLE, RECEIVE, *script]) as server:
        first, second = asked(server.url, next(iter(PATHS)), *timeouts)
    took_s = (second.end_ns - (second.sent_ns or 0)) / 1e9

    assert (first.error, second.error, server.connections) == (None, error, 1)
    assert error is None or limits_s[1] <= took_s < limits_s[1] + GRACE_S


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


# == what is wrong with an answer's HTTP: heads, framing, codings, statuses. Each row is a record


@pytest.mark.parametrize(("name", "path"), [*each_path(HEADS, FRAMES), *one_path(CODINGS, STATUSES)])
def test_a_fault_of_http_has_its_record_and_spoils_no_later_request(name: str, path: str, tmp_path: Path) -> None:
    played = play(faulty_answers.TABLES[name], path, tmp_path / "run")

    assert_row(played, faulty_answers.TABLES[name])


# == what is wrong within a stream: events, their JSON, their pace. Each row is a record


@pytest.mark.parametrize(("name", "path"), [*each_path(PACES), *one_path(EVENTS, SHAPES)])
def test_a_fault_within_a_stream_has_its_record_and_spoils_no_later_request(
    name: str, path: str, tmp_path: Path
) -> None:
    played = play(faulty_streams.TABLES[name], path, tmp_path / "run")

    assert_row(played, faulty_streams.TABLES[name])


# == whatever a server does to a level: every request is counted and written, the level ends in time, nothing is left


IMPATIENT = seconds(connect=0.3, first_token=0.3, idle=0.3, total=0.6)


def all_scripts() -> list[Iterable[Step]]:
    """What every row of every table does, once; without those that send MBs, for which the others would wait."""
    tables = faulty_answers.TABLES | faulty_streams.TABLES
    earlier = [*SUCCESSES.values(), *(row[0] for row in FAILURES.values()), *(row[0] for row in TIMEOUTS.values())]
    return [script for script in (*(fault.script for fault in tables.values()), *earlier) if not is_large(script)]


def is_large(script: Iterable[Step]) -> bool:
    steps = script.then if isinstance(script, Endless) else script
    return sum(len(step) for step in steps if isinstance(step, bytes)) > (1000 if steps is not script else 1_000_000)


def at_random(seed: int) -> list[Iterable[Step]]:
    """All of them in an order of chance, behind two sound connections; later ones are sound too."""
    scripts = all_scripts()
    random.Random(seed).shuffle(scripts)
    sound: list[Step] = [RECEIVE, WHOLE, HOLD]
    return [sound, sound, *scripts, sound]


@pytest.mark.parametrize("path", PATHS)
def test_a_closed_loop_over_all_faults_counts_every_request_and_ends_in_time(path: str, tmp_path: Path) -> None:
    with nothing_left_open(), serve(*at_random(len(path))) as server:
        load = Load(server.url, IMPATIENT, requests=300, concurrency=32)
        took_s = load.run(path)
    kept(tmp_path / "run", load.results, load.progress)

    assert took_s < 302 / 32 * 2 * 0.9 + GRACE_S
    assert load.progress.issued == 300
    assert {None, "reset", "truncated", "protocol", "timeout_first_token", "http_5xx"} <= set(load.kinds())


def test_an_open_loop_over_all_faults_counts_what_it_dropped(tmp_path: Path) -> None:
    with nothing_left_open(), serve(*at_random(7)) as server:
        load = Load(server.url, IMPATIENT, requests=300, request_rate_per_s=200, max_streams=8)
        load.run("user stamps")
    kept(tmp_path / "run", load.results, load.progress)

    assert load.progress.dropped > 0
    assert load.progress.issued + load.progress.dropped == 300


def test_retries_over_all_faults_are_counted_as_requests_of_their_own(tmp_path: Path) -> None:
    with nothing_left_open(), serve(*at_random(8)) as server:
        load = Load(server.url, IMPATIENT, requests=150, concurrency=32, retries=1)
        load.run("user stamps")
    kept(tmp_path / "run", load.results, load.progress)

    assert load.progress.retried == sum(result.retry_of is not None for result in load.results) > 0
    assert load.progress.issued == 150 + load.progress.retried


@pytest.mark.parametrize("path", PATHS)
def test_a_level_that_is_cancelled_amid_all_faults_has_a_record_of_each_request(path: str, tmp_path: Path) -> None:
    def cancel(load: Load) -> None:
        if len(load.results) == 60:
            asyncio.get_running_loop().call_soon(running[0].cancel)

    running: list[asyncio.Task[None]] = []
    with nothing_left_open(), serve(*at_random(9)) as server:
        load = Load(server.url, IMPATIENT, requests=300, concurrency=16, on_result=cancel)

        async def run() -> None:
            running.append(asyncio.ensure_future(load.play(PATHS[path][0])))
            with contextlib.suppress(asyncio.CancelledError):
                await running[0]

        with asyncio.Runner(loop_factory=PATHS[path][1]) as runner:
            runner.run(run())
    kept(tmp_path / "run", load.results, load.progress)

    assert load.progress.cancelled > 0
    assert 60 < load.progress.issued < 300


# -- servers that are not there


def test_a_level_against_a_closed_port_ends_after_fifty_failures(tmp_path: Path) -> None:
    with nothing_left_open(), nobody() as url:
        load = Load(url, IMPATIENT, requests=1000, concurrency=4)
        took_s = load.run("user stamps")
    kept(tmp_path / "run", load.results, load.progress)

    assert set(load.kinds()) == {"connect"}
    assert load.progress.issued < 60
    assert took_s < GRACE_S


def test_a_level_against_a_full_listen_queue_ends_within_its_time_outs(tmp_path: Path) -> None:
    with nothing_left_open(), black_hole() as url:
        load = Load(url, seconds(connect=0.05), requests=20, concurrency=10)
        took_s = load.run("user stamps")
    kept(tmp_path / "run", load.results, load.progress)

    assert set(load.kinds()) == {"timeout_connect"}
    assert took_s < 22 * 0.05 + GRACE_S


class Mortal:
    """A server on the client's own loop that can be killed, and started again on its port."""

    def __init__(self) -> None:
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split()[0]))
                writer.write(WHOLE)
        writer.close()

    def kill(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()


@pytest.mark.parametrize("path", PATHS)
def test_a_server_that_is_killed_and_started_again_costs_the_requests_between(path: str, tmp_path: Path) -> None:
    server, tasks = Mortal(), set()

    def act(load: Load) -> None:
        kinds = load.kinds()
        if len(load.results) == 20:
            server.kill()
        elif kinds["connect"] == 5 and not tasks:
            tasks.add(asyncio.ensure_future(server.start()))

    async def run() -> Load:
        await server.start()
        load = Load(f"http://127.0.0.1:{server.port}", seconds(), 60, request_rate_per_s=100, on_result=act)
        try:
            await load.play(PATHS[path][0])
        finally:
            server.kill()
            await asyncio.sleep(0.01)
        return load

    with nothing_left_open(), asyncio.Runner(loop_factory=PATHS[path][1]) as runner:
        load = runner.run(run())
    kept(tmp_path / "run", load.results, load.progress)

    assert load.kinds()["connect"] >= 5
    assert set(load.kinds()) <= {None, "connect", "reset", "truncated"}
    assert [result.error for result in load.results[-5:]] == [None] * 5


# == the fault matrix in one place: what a server, a network or this machine does, and where it is played


TESTS = Path(__file__).parent
DOCUMENT = (TESTS.parent / "docs/faults.md").read_text(encoding="utf-8")

TABLES = {
    "answers": faulty_answers.TABLES,
    "streams": faulty_streams.TABLES,
    "tls": {**faulty_tls.ROWS, **faulty_tls.REFUSALS},
    "failures": faulty_answers.FAILURES,
    "timeouts": faulty_answers.TIMEOUTS,
    "successes": faulty_answers.SUCCESSES,
}

MATRIX = {
    "connection refused": "client::a_port_where_nobody_listens_is_a_connect_failure",
    "connections refused": "faults::a_level_against_a_closed_port_ends_after_fifty_failures",
    "a connection to itself": "faults_machine::a_connection_to_its_own_port_is_refused",
    "reset before headers": "failures: reset without a word",
    "reset after headers": "answers: reset after the headers",
    "reset in mid-stream": "failures: reset amid the stream",
    "half-closed without an answer": "answers: a write side closed without an answer",
    "half-closed in mid-stream": "streams: a write side closed in mid-stream",
    "black hole": "timeouts: no answer",
    "slow headers, in time": "answers: headers byte by byte, in time",
    "slow headers, too late": "answers: headers byte by byte, too slowly",
    "a byte at a time, total time-out": "streams: bytes one by one, each within the idle limit",
    "a byte at a time, idle time-out": "streams: bytes one by one, each beyond the idle limit",
    "stall in mid-stream": "timeouts: a stall",
    "stall after [DONE]": "streams: [DONE], and then silence",
    "cut in mid-event": "streams: a cut within an event",
    "cut in mid-chunk": "answers: a cut within a chunk",
    "chunk too long": "answers: a chunk longer than it says",
    "chunk too short": "answers: a chunk shorter than it says, then the end",
    "chunk not hex": "answers: a chunk of a length that is no hex",
    "chunk negative": "answers: a chunk of negative length",
    "chunk huge": "answers: a chunk of more than 2^64 bytes",
    "Content-Length too long": "failures: short of its content-length",
    "Content-Length too short": "answers: more bytes than Content-Length says",
    "Content-Length twice": "answers: two Content-Lengths",
    "header of 1 MB": "answers: a header of 1 MB",
    "10,000 headers": "answers: 10,000 headers",
    "trailers without end": "answers: trailers without end",
    "giant event": "streams: an event of more than 16 MiB",
    "endless stream": "streams: a stream without end",
    "junk instead of HTTP": "answers: binary junk instead of HTTP",
    "junk in the body": "answers: binary junk as a body",
    "100 before the answer": "answers: 100, 102 and 103 before the answer",
    "100 without end": "answers: 100 Continue without end",
    "101": "answers: 101 that nobody asked for",
    "redirects": "faults_machine::a_redirect_is_not_followed_and_no_key_goes_to_another_host",
    **{
        f"{status}, {body}": f"answers: {status} with {body}"
        for status in (401, 403, 404, 408, 413, 429, 500, 502, 503)
        for body in ("JSON", "HTML", "nothing")
    },
    "429 with Retry-After": "answers: 429 with Retry-After",
    "413 to half a request": "faults_machine::a_refusal_of_a_request_that_was_not_read_whole_is_the_failure",
    "error event in a stream": "streams: an error in mid-stream, and more text",
    "JSON of another shape": "streams: choices are a number, in one JSON",
    "gzip": "answers: gzip that nobody asked for",
    "deflate": "answers: deflate that nobody asked for",
    "a bomb of gzip": "faults_machine::a_bomb_of_gzip_takes_no_more_than_a_few_times_what_is_allowed",
    "HTTP/1.0": "answers: HTTP/1.0 until the end of the connection",
    "extra bytes behind the answer": "answers: an answer to no request behind the answer",
    "TLS: expired": "tls: a certificate that has expired",
    "TLS: wrong host": "tls: a certificate for another host",
    "TLS: self-signed": "client::a_certificate_that_nobody_vouches_for_is_a_tls_failure",
    "TLS: handshake stall": "tls: half a handshake and then silence",
    "TLS: plain HTTP": "tls: plain HTTP",
    "TLS: a certificate wanted": "tls: it wants a certificate too",
    "DNS failure": "client::a_name_that_does_not_exist_is_a_dns_failure",
    "server killed, restarted": "faults::a_server_that_is_killed_and_started_again_costs_the_requests_between",
    "listen queue full": "faults::a_level_against_a_full_listen_queue_ends_within_its_time_outs",
    "out of files": "faults_machine::requests_for_which_no_file_is_left_fail_and_do_not_end_the_run",
    "out of local ports": "faults_machine::requests_for_which_no_local_port_is_left_are_local_failures",
    "all of it at random": "faults::a_closed_loop_over_all_faults_counts_every_request_and_ends_in_time",
}
"""`table: row` is a row of a table above, `file::test` is `test_test` in `test_file.py`."""


@pytest.mark.parametrize("fault", MATRIX)
def test_each_fault_is_played_where_the_matrix_says(fault: str) -> None:
    place = MATRIX[fault]
    file, _, test = place.partition("::")
    table, _, row = place.partition(": ")

    assert (
        f"def test_{test}(" in (TESTS / f"test_{file}.py").read_text(encoding="utf-8") if test else row in TABLES[table]
    )


def test_the_document_of_faults_has_each_kind_of_failure_once() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (?:yes|no) \|", DOCUMENT, re.MULTILINE)

    assert sorted(rows) == sorted(ERROR_KINDS)
