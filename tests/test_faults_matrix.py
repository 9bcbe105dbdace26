"""The fault matrix in one place: what a server, a network or this machine does, and where it is played."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from loadbench.record import ERROR_KINDS
from tests.support import faulty_answers, faulty_streams, faulty_tls

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
    "connection refused": "client_failures::a_port_where_nobody_listens_is_a_connect_failure",
    "connections refused": "faults_levels::a_level_against_a_closed_port_ends_after_fifty_failures",
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
    "TLS: self-signed": "client_failures::a_certificate_that_nobody_vouches_for_is_a_tls_failure",
    "TLS: handshake stall": "tls: half a handshake and then silence",
    "TLS: plain HTTP": "tls: plain HTTP",
    "TLS: a certificate wanted": "tls: it wants a certificate too",
    "DNS failure": "client_failures::a_name_that_does_not_exist_is_a_dns_failure",
    "server killed, restarted": "faults_levels::a_server_that_is_killed_and_started_again_costs_the_requests_between",
    "listen queue full": "faults_levels::a_level_against_a_full_listen_queue_ends_within_its_time_outs",
    "out of files": "faults_machine::requests_for_which_no_file_is_left_fail_and_do_not_end_the_run",
    "out of local ports": "faults_machine::requests_for_which_no_local_port_is_left_are_local_failures",
    "all of it at random": "faults_levels::a_closed_loop_over_all_faults_counts_every_request_and_ends_in_time",
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
