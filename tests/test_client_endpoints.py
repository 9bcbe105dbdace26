"""Which endpoint of several a conversation goes to, and how a client gets there."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import ExitStack
from math import gcd

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.client import Ask, Client, Endpoint, Parameters, cycle
from loadbench.prompts import Prompt
from loadbench.scenario import Timeouts
from loadbench.store.record import Result
from loadbench.transport import Transport, tls_context
from tests.support.replay import CERTIFICATE, HOLD, RECEIVE, Server, serve
from tests.support.wire import WHOLE

WEIGHTS = st.lists(st.integers(1, 20), min_size=1, max_size=5)
PROMPT = Prompt("sea", ({"role": "user", "content": "Write two sentences about the sea."},))


@given(WEIGHTS)
def test_a_round_has_each_endpoint_as_often_as_its_weight(weights: list[int]) -> None:
    found = Counter(cycle(weights))

    assert [found[place] for place in range(len(weights))] == [weight // gcd(*weights) for weight in weights]


@given(WEIGHTS, st.integers(0, 40), st.integers(1, 200))
def test_no_stretch_of_turns_is_far_from_the_weights(weights: list[int], first: int, turns: int) -> None:
    round_ = cycle(weights)
    found = Counter(round_[number % len(round_)] for number in range(first, first + turns))

    assert all(abs(found[at] - turns * part / sum(weights)) < len(weights) for at, part in enumerate(weights))


def client(*endpoints: Endpoint) -> Client:
    return Client(
        Transport(tls=tls_context(ca_file=str(CERTIFICATE))),
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
        for ask in asks:
            await one.chat(ask, 0, results.append)
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
