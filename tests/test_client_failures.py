"""Every way a request can fail has its word, and nothing that was received is lost."""

import asyncio
import contextlib
import threading
import time

import pytest

from loadbench.client import Ask, Client, Parameters
from loadbench.scenario import Timeouts
from loadbench.store.record import Result
from loadbench.transport import Clock, Transport, tls_context
from tests.support.asking import PROMPT, ask, seconds
from tests.support.faulty_answers import FAILURES, TIMEOUTS
from tests.support.replay import CERTIFICATE, HOLD, RECEIVE, black_hole, nobody, serve
from tests.support.wire import HEAD, WHOLE, chunk, event, plain

CLOCKS: list[Clock] = ["kernel", "user"]


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
