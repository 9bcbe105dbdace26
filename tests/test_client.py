"""Whole answers complete however they are framed, every failure has its word, endpoints take turns."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import socket
import threading
import time
from collections import Counter
from contextlib import ExitStack
from math import gcd

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from loadbench.client import Ask, Client, Endpoint, Parameters, cycle
from loadbench.client.recorder import Recorder
from loadbench.scenario import Timeouts
from loadbench.store.record import Result
from loadbench.transport import Clock, Transport, reader_built, tls_context
from loadbench.transport.connection import Connection
from loadbench.transport.exchange import Origin, Patience
from loadbench.transport.wire import KernelWires
from tests.support.asking import PROMPT, ask, ask_many, seconds
from tests.support.faulty_answers import FAILURES, SUCCESSES, TIMEOUTS
from tests.support.replay import CERTIFICATE, HALF_CLOSE, HOLD, RECEIVE, RESET, Server, Step, black_hole, nobody, serve
from tests.support.wire import DONE, HEAD, LAST, WHOLE, answer, chunk, event, plain

CLOCKS: list[Clock] = [*(["thread"] if reader_built() else []), "kernel", "user"]  # type: ignore[list-item]


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("name", SUCCESSES)
def test_a_whole_answer_completes(name: str, clock: Clock) -> None:
    with serve(SUCCESSES[name]) as server:
        result = ask(server.url, clock=clock, timeouts=seconds())

    assert (result.error, result.error_message, result.text) == (None, None, "AB")


# -- connections kept alive


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_connection_serves_one_request_after_another(clock: Clock) -> None:
    with serve([RECEIVE, WHOLE] * 3 + [HOLD]) as server:
        results = ask_many(server.url, 3, clock=clock)

    assert [result.text for result in results] == ["AB"] * 3
    assert server.connections == 1
    assert [bool(result.connect_ns) for result in results] == [True, False, False]


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("ending", [[], [RESET]])
def test_a_reused_connection_that_dies_unheard_is_retried_once_and_counted(clock: Clock, ending: list[Step]) -> None:
    with serve([RECEIVE, WHOLE, RECEIVE, *ending], [RECEIVE, WHOLE, HOLD]) as server:
        first, second = ask_many(server.url, 2, clock=clock)

    assert (first.retries, second.retries) == (0, 1)
    assert (second.error, second.text) == (None, "AB")
    assert (second.sent_ns or 0) > second.due_ns


def test_a_retry_that_dies_too_is_a_failure() -> None:
    with serve([RECEIVE, WHOLE, RECEIVE], [RECEIVE]) as server:
        _, second = ask_many(server.url, 2)

    assert (second.error, second.retries, server.connections) == ("reset", 1, 2)


def test_a_reused_connection_that_dies_after_its_first_byte_is_not_retried() -> None:
    with serve([RECEIVE, WHOLE, RECEIVE, HEAD]) as server:
        _, second = ask_many(server.url, 2)

    assert (second.error, second.retries, server.connections) == ("truncated", 0, 1)


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_connection_that_was_closed_while_idle_is_not_used(clock: Clock) -> None:
    script = [RECEIVE, answer(event("A"), event("B", "stop"))]
    with serve(script) as server:
        results = ask_many(server.url, 5, clock=clock)

    assert [result.text for result in results] == ["AB"] * 5
    assert server.connections == 5


def test_a_connection_that_closes_as_it_is_taken_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """llama.cpp closes after each stream; the end may come between the last look at the connection and its use."""
    take = Transport._take

    def closing(self: Transport, origin: Origin) -> Connection | None:
        connection = take(self, origin)
        if connection is not None:
            connection.close()
        return connection

    monkeypatch.setattr(Transport, "_take", closing)
    with serve([RECEIVE, WHOLE, HOLD]) as server:
        results = ask_many(server.url, 3)

    assert [(result.error, result.text) for result in results] == [(None, "AB")] * 3
    assert server.connections == 3


@pytest.mark.parametrize(
    "head",
    [
        HEAD.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        HEAD.replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
)
def test_a_connection_that_will_close_is_not_reused(head: bytes) -> None:
    with serve([RECEIVE, WHOLE.replace(HEAD, head), HOLD]) as server:
        results = ask_many(server.url, 2)

    assert [(result.error, result.text, result.retries) for result in results] == [(None, "AB", 0)] * 2
    assert server.connections == 2


def test_bytes_after_the_end_of_an_answer_spoil_the_connection_alone() -> None:
    with serve([RECEIVE, WHOLE + b"HTTP/1.1 408 Request Timeout\r\n\r\n", HOLD], [RECEIVE, WHOLE, HOLD]) as server:
        results = ask_many(server.url, 2)

    assert [(result.error, result.text) for result in results] == [(None, "AB")] * 2
    assert server.connections == 2


# -- an answer that is over before its body is: https://github.com/agentscope-ai/agentscope-java/issues/2073

FINISHED = HEAD + chunk(event("A")) + chunk(event("B", "stop"))
USAGE = event(usage={"completion_tokens": 2, "prompt_tokens": 7})
LINGERING: dict[str, list[Step]] = {
    "[DONE]": [RECEIVE, FINISHED + chunk(DONE), HOLD],
    "[DONE] in a body without framing": [
        RECEIVE,
        HEAD.replace(b"Transfer-Encoding: chunked\r\n", b"") + event("A") + event("B", "stop") + DONE,
        HOLD,
    ],
    "a finish reason, and heartbeats": [RECEIVE, FINISHED, *[0.01, chunk(b": ping\n\n")] * 200, HOLD],
    "a finish reason and usage": [RECEIVE, FINISHED, chunk(USAGE), HOLD],
}


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("name", LINGERING)
def test_a_request_does_not_wait_for_a_body_that_goes_on_after_its_answer(name: str, clock: Clock) -> None:
    with serve(LINGERING[name]) as server:
        results = ask_many(server.url, 6, clock=clock, timeouts=seconds())

    assert [(result.error, result.text) for result in results] == [(None, "AB")] * 6
    assert all(result.end_ns - (result.last_token_ns or 0) < 10e9 for result in results)
    assert server.connections == 6


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_usage_that_comes_a_moment_after_the_finish_reason_is_read_each_time(clock: Clock) -> None:
    with serve([RECEIVE, FINISHED, 0.02, chunk(USAGE), HOLD]) as server:
        results = ask_many(server.url, 6, clock=clock, timeouts=seconds())

    assert [result.output_tokens for result in results] == [2] * 6


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_connection_whose_body_ends_a_moment_after_done_is_reused(clock: Clock) -> None:
    with serve([RECEIVE, FINISHED + chunk(DONE), 0.02, LAST] * 6 + [HOLD]) as server:
        results = ask_many(server.url, 6, clock=clock, timeouts=seconds())

    assert [result.error for result in results] == [None] * 6
    assert server.connections == 1


def test_what_never_came_is_not_waited_for_any_more_and_what_came_is() -> None:
    patience, origin = Patience(), ("http", "h", 80)
    before = patience.seconds(origin, "end")
    for _ in range(3):
        patience.learn(origin, "end")

    assert (before > 0, patience.seconds(origin, "end")) == (True, 0)
    assert patience.seconds(origin, "usage") == before
    assert patience.seconds(("http", "other", 80), "end") == before

    patience.learn(origin, None)

    assert patience.seconds(origin, "end") == before


# -- times


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_pause_of_the_server_is_a_gap_of_the_result(clock: Clock) -> None:
    gate = asyncio.Event()
    with serve([RECEIVE, HEAD, chunk(event("")), chunk(event("A")), gate, chunk(event("B", "stop")) + LAST]) as server:
        threading.Timer(0.1, server.open, [gate]).start()
        result = ask(server.url, clock=clock)

    *_, first_ns, last_ns = server.written_ns
    assert result.text_events == 2
    # The server's own stamps are user space's: as late as its thread is on a busy machine.
    assert result.gaps_us == [pytest.approx((last_ns - first_ns) / 1000, abs=40_000)]
    assert (result.first_event_ns or 0) <= (result.first_token_ns or 0) < (result.last_token_ns or 0)


def test_a_server_that_never_keeps_its_promise_to_keep_alive_is_not_asked_to_again() -> None:
    script = [RECEIVE, WHOLE, RECEIVE]  # promises keep-alive, then closes unheard
    with serve(*[script] * 12) as server:
        results = ask_many(server.url, 8)

    assert [result.error for result in results] == [None] * 8
    assert sum(result.retries for result in results) == 3
    assert server.connections == 8


def test_a_connection_that_dies_long_after_its_request_was_sent_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadbench.transport.RETRY_NS", 0)
    with serve([RECEIVE, WHOLE, RECEIVE], [RECEIVE, WHOLE, HOLD]) as server:
        _, second = ask_many(server.url, 2)

    assert (second.error, second.retries, server.connections) == ("reset", 0, 1)


@pytest.mark.parametrize("step_s", [-3600, 3600])
def test_a_step_of_the_wall_clock_moves_no_arrival_out_of_its_request(step_s: int) -> None:
    steps = itertools.cycle([0, step_s])
    with serve(*[[RECEIVE, WHOLE] * 5 + [HOLD]] * 2) as server:
        results = ask_many(server.url, 5, clock="kernel", wall_ns=lambda: time.time_ns() + next(steps) * 1_000_000_000)

    for result in results:
        assert result.sent_ns is not None
        assert result.first_token_ns is not None
        assert result.sent_ns <= result.first_token_ns <= result.end_ns


@pytest.mark.parametrize("step_s", [-3600, -1, 1, 3600])
@pytest.mark.parametrize("calls", [1, 2])
def test_a_step_of_the_wall_clock_makes_no_arrival_early(step_s: int, calls: int) -> None:
    steps = itertools.chain([0], itertools.cycle([step_s] * calls + [0] * calls))
    with serve([RECEIVE, 0.05, WHOLE] * 5 + [HOLD]) as server:
        results = ask_many(server.url, 5, clock="kernel", wall_ns=lambda: time.time_ns() + next(steps) * 1_000_000_000)
    ttfts_ns = [(result.first_token_ns or 0) - (result.sent_ns or 0) for result in results]

    assert min(ttfts_ns) >= 45_000_000


@pytest.mark.parametrize("ahead_s", [-3600, -5, 5, 3600])
def test_under_a_wall_clock_that_is_not_the_kernels_the_client_stamps_and_says_so(ahead_s: int) -> None:
    assert Transport(wall_ns=lambda: time.time_ns() + ahead_s * 1_000_000_000).clock == "user"


@pytest.mark.parametrize("ahead_s", [-3600, 3600])
def test_a_stamp_before_its_request_was_sent_is_no_stamp(ahead_s: int) -> None:
    def wall_ns() -> int:
        return time.time_ns() + ahead_s * 1_000_000_000

    with serve([RECEIVE, 0.05, WHOLE] * 3 + [HOLD]) as server:
        results = ask_many(server.url, 3, clock="kernel", wall_ns=wall_ns)
    ttfts_ns = [(result.first_token_ns or 0) - (result.sent_ns or 0) for result in results]

    assert min(ttfts_ns) >= 45_000_000


def test_reading_leaves_the_event_loop_its_turn_and_goes_on_with_the_sockets_that_waited() -> None:
    """Sixty-four streams of one-byte chunks kept Ctrl-C waiting for half a minute."""

    class Slow:
        """A connection whose every read takes a second."""

        began_ns = arrival_ns = stamp = 0
        wire: object = None

        def __init__(self, name: int) -> None:
            self.name = name

        def received(self, data: memoryview, at_ns: int) -> None:
            nonlocal now_ns
            now_ns += 1_000_000_000
            read.append(self.name)

    now_ns = 0
    read: list[int] = []
    with contextlib.ExitStack() as stack:
        loop = stack.enter_context(contextlib.closing(asyncio.new_event_loop()))
        wires = KernelWires(loop, lambda: now_ns, lambda: now_ns, [])
        stack.callback(wires.close)
        for name in range(4):
            near, far = (stack.enter_context(sock) for sock in socket.socketpair())
            wires.open(near, Slow(name))  # type: ignore[arg-type]
            near.setblocking(False)
            far.sendall(b"x" * 100_000)
        turns = []
        for _ in range(4):
            wires.look()
            turns.append(len(read))

    assert turns == [2, 4, 6, 8]
    assert sorted(read[:4]) == [0, 1, 2, 3]


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_server_that_closes_before_it_is_asked_is_told_at_once(clock: Clock) -> None:
    with serve([b"SSH-2.0-OpenSSH_9.2\r\n"]) as server:
        result = ask(server.url, clock=clock, loop=uvloop.new_event_loop, timeouts=seconds(first_token=5))

    assert result.error in ("reset", "protocol", "truncated")
    assert result.end_ns < 1e9


# -- memory


@pytest.mark.parametrize("steps", [[RECEIVE, WHOLE, HALF_CLOSE], [RECEIVE, HEAD], [RECEIVE, HEAD, RESET], [RECEIVE]])
def test_a_request_and_its_connection_leave_no_circle_of_objects(steps: list[Step]) -> None:
    gc.collect()
    gc.disable()
    others = {id(one): one for one in gc.get_objects() if isinstance(one, Recorder | Connection)}  # of other tests
    try:
        with serve(steps) as server:
            ask(server.url, timeouts=seconds())
        left = [one for one in gc.get_objects() if isinstance(one, Recorder | Connection) and id(one) not in others]
    finally:
        gc.enable()

    assert not left


# == every way a request can fail has its word, and nothing that was received is lost


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
        one = client(Endpoint(f"{url}/v1/chat/completions"), clock=clock)
        task = asyncio.create_task(one.chat(Ask("level", 1, 0, "m", PROMPT, False, 0), 0, results.append))
        await asyncio.to_thread(written.wait)
        while not one.text_events_in_flight():  # noqa: ASYNC110 - what the client has read is no event of ours
            await asyncio.sleep(0.001)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await one.transport.aclose()

    with serve([RECEIVE, HEAD + chunk(event("A")), written, HOLD]) as server:
        asyncio.run(run(server.url))

    [result] = results
    assert (result.error, result.text) == ("cancelled", "A")


# == which endpoint of several a conversation goes to, and how a client gets there

WEIGHTS = st.lists(st.integers(1, 20), min_size=1, max_size=5)


@given(WEIGHTS)
def test_a_round_has_each_endpoint_as_often_as_its_weight(weights: list[int]) -> None:
    found = Counter(cycle(weights))

    assert [found[place] for place in range(len(weights))] == [weight // gcd(*weights) for weight in weights]


@given(WEIGHTS, st.integers(0, 40), st.integers(1, 200))
def test_no_stretch_of_turns_is_far_from_the_weights(weights: list[int], first: int, turns: int) -> None:
    round_ = cycle(weights)
    found = Counter(round_[number % len(round_)] for number in range(first, first + turns))

    assert all(abs(found[at] - turns * part / sum(weights)) < len(weights) for at, part in enumerate(weights))


def client(*endpoints: Endpoint, clock: Clock | None = None) -> Client:
    return Client(
        Transport(clock=clock, tls=tls_context(ca_file=str(CERTIFICATE))),
        *endpoints,
        headers={},
        parameters=Parameters(max_tokens=8, temperature=0.0, extra_body={}),
        timeouts=Timeouts(),
        now_ns=time.perf_counter_ns,
    )


def at(server: Server, weight: int = 1) -> Endpoint:
    return Endpoint(f"{server.url}/v1/chat/completions", {"own": f"{server.url}/own/v1/chat/completions"}, weight)


def asked(one: Client, *asks: Ask) -> list[Result]:
    """Ask one after the other, and close."""
    results: list[Result] = []

    async def run() -> None:
        for turn in asks:
            await one.chat(turn, 0, results.append)
        await one.transport.aclose()

    asyncio.run(run())
    return results


def turn(conversation: int, model: str = "m", endpoint: int | None = None) -> Ask:
    about = ("level", 1, conversation, model, PROMPT)
    return Ask(*about, warmup=False, due_ns=0, conversation=conversation, endpoint=endpoint)


def test_http_and_https_take_turns_and_each_record_says_who_answered() -> None:
    with serve([RECEIVE, WHOLE] * 4) as plain, serve([RECEIVE, WHOLE] * 4, tls=True) as secure:
        results = asked(client(at(plain, 3), at(secure)), *map(turn, range(4)))

    assert [(one.endpoint, one.error, one.text) for one in results] == [(at, None, "AB") for at in (0, 0, 1, 0)]
    assert (len(plain.requests), len(secure.requests)) == (3, 1)
    assert f"host: {secure.url.partition('://')[2]}".encode() in secure.requests[0].lower()


def test_a_model_with_an_address_of_its_own_has_one_on_each_endpoint() -> None:
    with serve([RECEIVE, WHOLE]) as first, serve([RECEIVE, WHOLE]) as second:
        asked(client(at(first), at(second)), turn(0, "own"), turn(1, "own"))

    assert [server.requests[0].split()[1] for server in (first, second)] == [b"/own/v1/chat/completions"] * 2


def test_a_request_may_name_its_endpoint() -> None:
    with serve([RECEIVE, WHOLE]) as first, serve([RECEIVE, WHOLE] * 2) as second:
        results = asked(client(at(first), at(second)), turn(0, endpoint=1), turn(2, endpoint=1))

    assert [one.endpoint for one in results] == [1, 1]


def test_connections_are_opened_ahead_to_each_endpoint_in_proportion() -> None:
    async def run(one: Client) -> None:
        await one.warm(6)
        await one.transport.aclose()

    with ExitStack() as stack:
        servers = [stack.enter_context(serve([HOLD])) for _ in range(2)]
        asyncio.run(run(client(at(servers[0], 2), at(servers[1]))))

    assert [server.connections for server in servers] == [4, 2]


@pytest.mark.parametrize("conversation", [0, 1, 5, 10**12])
def test_one_endpoint_alone_has_all_turns(conversation: int) -> None:
    assert client(Endpoint("http://127.0.0.1:1/v1/chat/completions")).endpoint_of(conversation) == 0
