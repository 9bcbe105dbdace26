"""Every way a request can fail has its word, and nothing that was received is lost."""

import asyncio
import contextlib
import threading
import time

import pytest

from loadbench.client import Ask, Client, Parameters
from loadbench.record import Result
from loadbench.scenario import Timeouts
from loadbench.transport import Clock, Transport, tls_context
from tests.support.asking import PROMPT, ask, seconds
from tests.support.replay import CERTIFICATE, HALF_CLOSE, HOLD, RECEIVE, RESET, Step, black_hole, nobody, serve
from tests.support.wire import DONE, HEAD, WHOLE, answer, chunk, event, plain

CLOCKS: list[Clock] = ["kernel", "user"]


# script, kind of failure, part of what the message says, text that was received
FAILURES: dict[str, tuple[list[Step], str, str, str]] = {
    "closed without a word": ([RECEIVE], "reset", "before any byte", ""),
    "closed before the request was read": ([], "reset", "", ""),
    "reset without a word": ([RECEIVE, RESET], "reset", "", ""),
    "reset amid the stream": ([RECEIVE, HEAD + chunk(event("A")), RESET], "reset", "", "A"),
    "closed amid the headers": ([RECEIVE, HEAD[:30]], "truncated", "", ""),
    "closed after the headers": ([RECEIVE, HEAD], "truncated", "", ""),
    "closed amid the stream": ([RECEIVE, HEAD + chunk(event("A"))], "truncated", "", "A"),
    "half closed amid the stream": ([RECEIVE, HEAD + chunk(event("A")), HALF_CLOSE, HOLD], "truncated", "", "A"),
    "closed amid a chunk": ([RECEIVE, HEAD + chunk(event("A")) + chunk(event("B"))[:20]], "truncated", "", "A"),
    "no finish and no [DONE]": ([RECEIVE, answer(event("A"))], "truncated", "without a finish event", "A"),
    "short of its content-length": ([RECEIVE, b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"], "truncated", "", ""),
    "an error event": (
        [RECEIVE, answer(event("A"), b'data: {"error": {"message": "out of\\nmemory"}}\n\n', DONE)],
        "stream_error",
        "out of memory",
        "A",
    ),
    "an error event by name": (
        [RECEIVE, answer(b'event: error\ndata: "overloaded"\n\n')],
        "stream_error",
        "overload",
        "",
    ),
    "an error and a cut": (
        [RECEIVE, HEAD + chunk(b'data: {"error": "worker died"}\n\n'), RESET],
        "stream_error",
        "worker died",
        "",
    ),
    "an error object instead of a stream": (
        [RECEIVE, plain("200 OK", b'{"error": {"message": "no"}}', b"Content-Type: application/json\r\n")],
        "stream_error",
        "no",
        "",
    ),
    "only a role and a finish": ([RECEIVE, answer(event(""), event(finish="stop"), DONE)], "empty", "", ""),
    "only [DONE]": ([RECEIVE, answer(DONE)], "empty", "", ""),
    "nothing at all": ([RECEIVE, answer()], "empty", "", ""),
    "events that are no JSON": (
        [RECEIVE, answer(event("A"), b"data: {oops\n\n", DONE)],
        "protocol",
        "not UTF-8 JSON",
        "A",
    ),
    "a choice that is no object": ([RECEIVE, answer(b'data: {"choices": [7]}\n\n', DONE)], "protocol", "no object", ""),
    "not HTTP": ([RECEIVE, b"SSH-2.0-OpenSSH_9.6\r\n"], "protocol", "not HTTP", ""),
    "a chunk without a length": ([RECEIVE, HEAD + b"xyz\r\n"], "protocol", "not HTTP", ""),
    "endless headers": ([RECEIVE, b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000, HOLD], "protocol", "", ""),
    "a switch of protocols": (
        [RECEIVE, b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"],
        "protocol",
        "",
        "",
    ),
    "a compression that is broken": (
        [RECEIVE, plain("200 OK", b"no gzip", b"Content-Encoding: gzip\r\n")],
        "protocol",
        "broken compression",
        "",
    ),
    "a compression unknown here": ([RECEIVE, plain("200 OK", b"?", b"Content-Encoding: br\r\n")], "protocol", "br", ""),
    "a redirect": ([RECEIVE, plain("307 Moved", b"", b"Location: /x\r\n")], "redirect", "HTTP 307", ""),
    "an empty success": ([RECEIVE, b"HTTP/1.1 204 No Content\r\n\r\n"], "protocol", "HTTP 204", ""),
    "bad request": ([RECEIVE, plain("400 Bad Request", b'{"detail": [{"msg": "bad"}]}')], "http_4xx", "bad", ""),
    "too many requests": ([RECEIVE, plain("429 Too Many Requests", b"slow down")], "http_429", "slow down", ""),
    "a gateway's page": (
        [RECEIVE, plain("502 Bad Gateway", b"<h1>502</h1>")],
        "http_5xx",
        "HTTP 502: <h1>502</h1>",
        "",
    ),
    "an error page cut short": ([RECEIVE, plain("500 Oops", b"x" * 90)[:-50]], "http_5xx", "HTTP 500", ""),
}


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_has_its_word_and_keeps_what_came(name: str, clock: Clock) -> None:
    script, kind, says, text = FAILURES[name]
    with serve(script) as server:
        result = ask(server.url, clock=clock, timeouts=seconds())

    assert (result.error, result.text) == (kind, text)
    assert says in (result.error_message or "")
    assert "\n" not in (result.error_message or "\n")


# -- no connection


def test_a_port_where_nobody_listens_is_a_connect_failure() -> None:
    with nobody() as url:
        result = ask(url)

    assert (result.error, result.sent_ns, result.status) == ("connect", None, None)


def test_a_name_that_does_not_exist_is_a_dns_failure() -> None:
    assert ask("http://no-such-host.invalid").error == "dns"


# -- time-outs; the shortest waits that a busy machine still tells apart


def test_a_connect_that_hangs_times_out() -> None:
    with black_hole() as url:
        result = ask(url, timeouts=seconds(connect=0.05))

    assert result.error == "timeout_connect"


TIMEOUTS: dict[str, tuple[list[Step], Timeouts, str, str]] = {
    "no answer": ([RECEIVE, HOLD], seconds(first_token=0.05), "timeout_first_token", ""),
    "headers alone": ([RECEIVE, HEAD, HOLD], seconds(first_token=0.05), "timeout_first_token", ""),
    "events without text": (
        [RECEIVE, HEAD + chunk(event("")) + chunk(b": ping\n\n"), HOLD],
        seconds(first_token=0.05),
        "timeout_first_token",
        "",
    ),
    "a stall": ([RECEIVE, HEAD + chunk(event("A")), HOLD], seconds(idle=0.05), "timeout_idle", "A"),
    "no end": ([RECEIVE, HEAD + chunk(event("A")), HOLD], seconds(total=0.05), "timeout_total", "A"),
    "no TLS at all": ([HOLD], seconds(connect=0.05), "timeout_connect", ""),
}


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("name", TIMEOUTS)
def test_silence_times_out_by_what_was_missing(name: str, clock: Clock) -> None:
    script, timeouts, kind, text = TIMEOUTS[name]
    with serve(script) as server:
        url = server.url.replace("http:", "https:") if "TLS" in name else server.url
        result = ask(url, clock=clock, timeouts=timeouts)

    assert (result.error, result.text) == (kind, text)
    assert 45e6 < result.end_ns < 5e9


# -- TLS


def test_a_certificate_that_nobody_vouches_for_is_a_tls_failure() -> None:
    with serve([RECEIVE, WHOLE], tls=True) as server:
        result = ask(server.url)

    assert result.error == "tls"
    assert "certificate" in (result.error_message or "")


def test_a_server_without_tls_is_a_tls_failure() -> None:
    with serve([plain("400 Bad Request")]) as server:
        result = ask(server.url.replace("http:", "https:"))

    assert result.error == "tls"


@pytest.mark.parametrize("clock", CLOCKS)
def test_insecure_accepts_any_certificate(clock: Clock) -> None:
    with serve([RECEIVE, WHOLE], tls=True) as server:
        result = ask(server.url, clock=clock, tls=tls_context(insecure=True))

    assert (result.error, result.text) == (None, "AB")


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_stream_cut_under_tls_is_truncated(clock: Clock) -> None:
    with serve([RECEIVE, HEAD + chunk(event("A"))], tls=True) as server:
        result = ask(server.url, clock=clock, tls=tls_context(ca_file=str(CERTIFICATE)))

    assert (result.error, result.text) == ("truncated", "A")


# -- cancelled


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_cancelled_request_has_its_result_with_what_came(clock: Clock) -> None:
    written = threading.Event()
    results: list[Result] = []

    async def run(url: str) -> None:
        transport = Transport(clock=clock)
        client = Client(
            transport,
            f"{url}/v1/chat/completions",
            headers={},
            parameters=Parameters(max_tokens=8, temperature=0.0, extra_body={}),
            timeouts=Timeouts(),
            now_ns=time.perf_counter_ns,
        )
        task = asyncio.create_task(client.chat(Ask("level", 1, 0, "m", PROMPT, False, 0), 0, results.append))
        await asyncio.to_thread(written.wait)
        while not client.text_events_in_flight():  # noqa: ASYNC110 - what the client has read is no event of ours
            await asyncio.sleep(0.001)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await transport.aclose()

    with serve([RECEIVE, HEAD + chunk(event("A")), written, HOLD]) as server:
        asyncio.run(run(server.url))

    [result] = results
    assert (result.error, result.text) == ("cancelled", "A")
