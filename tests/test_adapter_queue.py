"""Hang-ups, slots and a full queue, on the wire."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import threading
from typing import Any

import httpx
import pytest

from tests.support.adapters import BODY, Scripted, chat, serving, until


def hung(root: str) -> None:
    """Ask, and be left without an answer."""
    with contextlib.suppress(httpx.HTTPError):
        chat(root)


@pytest.mark.parametrize("stream", [True, False])
def test_a_hang_up_closes_the_generator_and_frees_the_slot(stream: bool) -> None:
    hung_up = threading.Event()
    adapter = Scripted("a", hung_up, *["b"] * 10_000)
    with serving(adapter) as root:
        with contextlib.closing(http.client.HTTPConnection(root.removeprefix("http://"))) as connection:
            connection.request("POST", "/v1/chat/completions", json.dumps(BODY | {"stream": stream}))
            until(root, in_flight=1)
            if stream:
                connection.getresponse().fp.readline()
        hung_up.set()
        until(root, in_flight=0)

        assert adapter.closed.is_set()
        assert adapter.yielded == 2, "the hang-up shows at the next piece"


def test_one_who_hangs_up_in_the_queue_is_never_generated_for() -> None:
    go = threading.Event()
    adapter = Scripted(go, "a")
    with serving(adapter) as root:
        first = threading.Thread(target=chat, args=(root,))
        first.start()
        until(root, in_flight=1)
        with contextlib.closing(http.client.HTTPConnection(root.removeprefix("http://"))) as connection:
            connection.request("POST", "/v1/chat/completions", json.dumps(BODY))
            until(root, waiting=1)
        until(root, waiting=0)
        go.set()
        first.join(5)

        assert adapter.calls == 1


def test_a_full_queue_is_a_429_that_says_when_to_come_again() -> None:
    go = threading.Event()
    with serving(Scripted(go, "a"), slots=1, queue=1) as root:
        answers: list[httpx.Response] = []
        threads = [threading.Thread(target=lambda: answers.append(chat(root))) for _ in range(2)]
        for thread in threads:
            thread.start()
        until(root, in_flight=1, waiting=1)
        refused = chat(root)
        go.set()
        for thread in threads:
            thread.join(5)

    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert [answer.status_code for answer in answers] == [200, 200]


def test_slots_generate_at_once() -> None:
    both = threading.Barrier(2)

    class Meeting(Scripted):
        def generate(self, messages: Any) -> str:
            both.wait(5)
            return "met"

    with serving(Meeting(), slots=2) as root:
        threads = [threading.Thread(target=chat, args=(root,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(5)

    assert not both.broken


def test_a_server_that_stops_closes_the_generators() -> None:
    adapter = Scripted()
    adapter.script = itertools.repeat("a")
    with serving(adapter) as root:
        asking = threading.Thread(target=hung, args=(root,))
        asking.start()
        until(root, in_flight=1)
    asking.join(5)

    assert adapter.closed.is_set()
