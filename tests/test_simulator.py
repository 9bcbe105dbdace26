"""The simulator as a server: what it promises over HTTP, and whether its truth is true."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from loadbench import machine
from loadbench.errors import LoadbenchError
from loadbench.serve import simulator
from loadbench.serve.simulator import answer

pytestmark = pytest.mark.system

QUICK: dict[str, Any] = {"ttft_ms": 2.0, "itl_ms": 0.5}


@pytest.fixture(scope="module")
def running() -> Iterator[simulator.Simulator]:
    with simulator.start(**QUICK) as plain:
        yield plain


class Client:
    """One connection, whose requests are chat completions unless said otherwise."""

    def __init__(self, running: simulator.Simulator) -> None:
        self.model = running.model
        self.http = http.client.HTTPConnection(urlsplit(running.url).netloc, timeout=10)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def body(self, **fields: Any) -> bytes:
        plain = {"model": self.model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 6, "stream": True}
        return json.dumps(plain | fields).encode()

    def send(self, **fields: Any) -> None:
        self.http.request("POST", "/v1/chat/completions", self.body(**fields))

    def chat(self, **fields: Any) -> tuple[int, bytes]:
        self.send(**fields)
        response = self.http.getresponse()
        return response.status, response.read()

    def events(self, **fields: Any) -> list[Any]:
        """The events of a stream; [DONE] is the string, a comment is None."""
        status, body = self.chat(**fields)
        assert status == 200
        return events(body)


def events(body: bytes) -> list[Any]:
    found: list[Any] = []
    for part in body.decode().split("\n\n")[:-1]:
        data = part.removeprefix("data: ")
        found.append(None if part.startswith(":") else data if data == "[DONE]" else json.loads(data))
    return found


def deltas(found: list[Any]) -> list[dict[str, str]]:
    return [event["choices"][0]["delta"] for event in found if isinstance(event, dict) and event["choices"]]


def text(found: list[Any], name: str = "content") -> str:
    return "".join(delta.get(name, "") for delta in deltas(found))


def at_once(running: simulator.Simulator, streams: int, **fields: Any) -> list[bytes]:
    """The bodies of requests that are all sent before the first answer is read."""
    clients = [Client(running) for _ in range(streams)]
    for client in clients:
        client.send(**fields)
    bodies = [client.http.getresponse().read() for client in clients]
    for client in clients:
        client.http.close()
    return bodies


# The form of an answer


def test_a_stream_is_a_role_event_text_events_a_finish_event_and_done(running: simulator.Simulator) -> None:
    with Client(running) as client:
        found = client.events(max_tokens=70)
        words = text(client.events(max_tokens=64))

    assert set('\n\t"\\\u2028🙂é語') <= set(words), "the traps that real answers hold"
    assert "data: [DONE]" in words
    assert sorted(words) == sorted("".join(answer.WORDS))

    assert deltas(found)[0] == {"role": "assistant", "content": ""}
    assert all(list(delta) == ["content"] and delta["content"] for delta in deltas(found)[1:-1])
    assert len(deltas(found)) == 72
    assert (deltas(found)[-1], found[-2]["choices"][0]["finish_reason"], found[-1]) == ({}, "length", "[DONE]")
    assert len({(event["id"], event["created"], event["model"], event["object"]) for event in found[:-1]}) == 1


def test_the_same_prompt_has_the_same_answer_streamed_or_not(running: simulator.Simulator) -> None:
    with Client(running) as client:
        words = text(client.events(max_tokens=20))
        status, body = client.chat(max_tokens=20, stream=False)

    whole = json.loads(body)
    assert (status, whole["object"], whole["choices"][0]["finish_reason"]) == (200, "chat.completion", "length")
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": words}
    assert whole["usage"] == {"prompt_tokens": 8, "completion_tokens": 20, "total_tokens": 28}


@pytest.mark.parametrize(
    ("mode", "options", "with_usage"),
    [
        ("on", {}, 0),
        ("on", {"include_usage": True}, 1),  # one event without choices, before [DONE]
        ("on", {"include_usage": True, "continuous_usage_stats": True}, 6 + 1 + 1),  # texts, finish, the last one
        ("off", {"include_usage": True}, 0),
        ("continuous", {}, 6 + 1 + 1),
    ],
)
def test_usage_comes_as_the_law_says(mode: str, options: dict[str, bool], with_usage: int) -> None:
    with simulator.start(**QUICK, usage=mode) as running, Client(running) as client:
        found = client.events(stream_options=options)

    usages = [event["usage"] for event in found if isinstance(event, dict) and "usage" in event]
    assert len(usages) == with_usage
    if usages:
        assert usages[-1] == {"prompt_tokens": 8, "completion_tokens": 6, "total_tokens": 14}
        assert (found[-2]["choices"], usages[0]["completion_tokens"]) == ([], 6 if with_usage == 1 else 1)


def test_tokens_per_event_are_bundled_and_the_last_event_takes_the_rest() -> None:
    with simulator.start(ttft_ms=5, itl_ms=10, tokens_per_event=4) as running, Client(running) as client:
        found = client.events(max_tokens=17)
        whole = json.loads(client.chat(max_tokens=17, stream=False)[1])
        truth = simulator.truth(running.url)

    assert len([delta for delta in deltas(found) if delta.get("content")]) == 5
    assert text(found) == whole["choices"][0]["message"]["content"]
    assert (truth["tokens"], truth["events"], truth["gap_us"]["n"]) == (34, 5, 4)
    assert truth["ttft_us"]["min"] >= 5_000 + 3 * 10_000  # due with the last token an event carries
    assert 5_000 + 16 * 10_000 <= truth["e2e_us"]["min"] < 5_000 + 18 * 10_000 + truth["late_us"]["max"]


def test_the_first_tokens_may_be_reasoning() -> None:
    with simulator.start(**QUICK, reasoning_tokens=4, usage="continuous") as running, Client(running) as client:
        thoughtful = client.events(max_tokens=9)
        brief = client.events(max_tokens=3)
    with simulator.start(**QUICK, reasoning_tokens=4) as running, Client(running) as client:
        quick = client.events(max_tokens=9)

    assert text(thoughtful, "reasoning_content") == text(quick, "reasoning_content")
    assert text(quick, "reasoning_content") + text(quick) == text(thoughtful, "reasoning_content") + text(thoughtful)
    assert len([delta for delta in deltas(quick) if "reasoning_content" in delta]) == 4
    assert (text(brief), thoughtful[-2]["usage"]["completion_tokens_details"]) == ("", {"reasoning_tokens": 4})


def test_an_early_role_and_pings_come_before_the_first_token() -> None:
    with simulator.start(ttft_ms=60, itl_ms=15, ping_ms=25, role="early") as running, Client(running) as client:
        client.send()
        response = client.http.getresponse()
        first = response.read1()
        rest = response.read()

    assert deltas(events(first)) == [{"role": "assistant", "content": ""}]
    assert events(rest)[:2] == [None, None]
    assert None not in events(rest)[2:]
    assert text(events(rest)) != ""


def test_without_a_role_event_the_first_text_names_the_role() -> None:
    with simulator.start(**QUICK, role="none") as running, Client(running) as client:
        found = client.events(max_tokens=3)

    assert [list(delta) for delta in deltas(found)] == [["role", "content"], ["content"], ["content"], []]


def test_a_prompt_seen_before_is_cached_unless_the_request_forbids_it() -> None:
    law = simulator.Law(ttft_ms=1, ttft_per_prompt_token_ms=1, itl_ms=1, prompt_cache=True)
    messages = [{"role": "user", "content": "word " * 93}]
    with simulator.start(law) as running, Client(running) as client:
        cached = []
        for fields in ({}, {}, {"cache_prompt": False}):
            usage = json.loads(client.chat(stream=False, messages=messages, **fields)[1])["usage"]
            cached.append(usage["prompt_tokens_details"]["cached_tokens"])
        client.events(messages=messages)
        truth = simulator.truth(running.url)

    assert cached == [0, 99, 0]
    assert (truth["prompt_tokens"], truth["cached_tokens"]) == (400, 198)
    assert truth["ttft_us"]["max"] < 50_000 + truth["late_us"]["max"]  # 2 ms by the law, 101 if it were not cached


# Time


def test_nothing_is_sent_before_it_is_due_and_the_client_sees_no_less_than_the_truth() -> None:
    with simulator.start(ttft_ms=20, itl_ms=5) as running, Client(running) as client:
        client.http.connect()
        began = time.perf_counter_ns()
        client.send(max_tokens=11)
        client.http.getresponse().read()
        took_us = (time.perf_counter_ns() - began) // 1000
        truth = simulator.truth(running.url)

    assert truth["ttft_us"]["min"] >= 20_000
    assert truth["gap_us"]["n"] == 10
    assert truth["gap_us"]["mean"] == pytest.approx((truth["e2e_us"]["max"] - truth["ttft_us"]["max"]) / 10, abs=1)
    assert 70_000 <= truth["e2e_us"]["max"] <= took_us


def test_a_whole_answer_comes_when_its_last_token_would_and_prompt_tokens_delay_the_first() -> None:
    with simulator.start(ttft_ms=1, ttft_per_prompt_token_ms=0.5, itl_ms=5) as running, Client(running) as client:
        client.events(messages=[{"role": "user", "content": "word " * 93}])
        truth = simulator.truth(running.url)
        began = time.perf_counter()
        client.chat(max_tokens=11, stream=False)
        took_s = time.perf_counter() - began

    assert truth["prompt_tokens"] == 100
    assert truth["ttft_us"]["min"] >= 51_000
    assert took_s >= 0.055


def test_requests_beyond_the_slots_wait_first_come_first_served() -> None:
    with simulator.start(ttft_ms=40, itl_ms=2, slots=1) as running:
        at_once(running, 4, max_tokens=6)
        truth = simulator.truth(running.url)

    # By the law each holds the slot for 50 ms, so they wait 0, 50, 100 and 150 ms less what they came later.
    assert (truth["queue_us"]["n"], truth["queue_us"]["min"], truth["most_active"]) == (4, 0, 1)
    assert truth["queue_us"]["max"] <= 150_000
    assert truth["queue_us"]["max"] > truth["queue_us"]["p50"]
    assert truth["ttft_us"]["max"] >= truth["queue_us"]["max"] + 40_000


def test_more_streams_in_the_batch_slow_each_other() -> None:
    with simulator.start(ttft_ms=50, itl_ms=1, itl_per_stream_ms=2) as running:
        at_once(running, 4, max_tokens=11)
        truth = simulator.truth(running.url)

    assert truth["most_active"] == 4
    assert truth["gap_us"]["mean"] > 3_000  # 7 ms while all four run, 1 ms for one alone


@pytest.mark.skipif(sys.platform != "linux", reason="kernel receive stamps are Linux's")
def test_a_request_arrives_when_the_kernel_has_it_not_when_the_server_reads_it() -> None:
    with simulator.start(ttft_ms=20, itl_ms=1) as running, Client(running) as client:
        client.http.connect()
        client.events()
        simulator.reset(running.url)
        os.kill(running.pid, signal.SIGSTOP)
        try:
            client.send()
            time.sleep(0.1)
        finally:
            os.kill(running.pid, signal.SIGCONT)
        client.http.getresponse().read()
        truth = simulator.truth(running.url)

    assert truth["clock"] == "kernel"
    assert truth["ttft_us"]["min"] >= 95_000


def test_a_request_in_parts_arrives_with_its_last_one(running: simulator.Simulator) -> None:
    simulator.reset(running.url)
    with Client(running) as client:
        client.http.connect()
        body = client.body()
        began = time.perf_counter_ns()
        client.http.putrequest("POST", "/v1/chat/completions")
        client.http.putheader("Content-Length", str(len(body)))
        client.http.endheaders(body[:20])
        time.sleep(0.05)
        client.http.send(body[20:])
        client.http.getresponse().read()
        took_us = (time.perf_counter_ns() - began) // 1000

    assert simulator.truth(running.url)["e2e_us"]["max"] <= took_us - 49_000


# Connections


def test_connections_are_kept_and_pipelined_requests_answered_in_order(running: simulator.Simulator) -> None:
    simulator.reset(running.url)
    host = urlsplit(running.url)
    with Client(running) as client, socket.create_connection((host.hostname, host.port), timeout=10) as sock:
        requests = []
        for tokens in (3, 1, 2):
            body = client.body(max_tokens=tokens, stream=tokens != 1)
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
            requests.append(head.encode() + (b"\r\n" if tokens != 2 else b"Connection: close\r\n\r\n") + body)
        sock.sendall(b"".join(requests))
        with sock.makefile("rb") as stream:
            received = stream.read()
        truth = simulator.truth(running.url)

    assert received.count(b"HTTP/1.1 200 OK\r\nServer: loadbench-simulator/") == 3
    assert received.index(b'"object":"chat.completion",') > received.index(b"[DONE]")
    assert (truth["requests"], truth["completed"], truth["tokens"], truth["connections"]) == (3, 3, 6, 2)


def test_a_thousand_pipelined_requests_do_not_nest(running: simulator.Simulator) -> None:
    host = urlsplit(running.url)
    with socket.create_connection((host.hostname, host.port), timeout=10) as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\n\r\n" * 999 + b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n")
        with sock.makefile("rb") as stream:
            received = stream.read()

    assert received.count(b'{"status":"ok"}') == 1000


def test_many_streams_at_once_all_end_well(running: simulator.Simulator) -> None:
    simulator.reset(running.url)
    lengths = {len(deltas(events(body))) for body in at_once(running, 200, max_tokens=20)}
    truth = simulator.truth(running.url)

    assert lengths == {22}
    assert (truth["completed"], truth["tokens"], truth["connections"]) == (200, 4000, 201)


def test_a_client_that_reads_late_gets_everything() -> None:
    with simulator.start(ttft_ms=1, itl_ms=0.001, faults={"close": 1.0}) as running, Client(running) as client:
        client.http.connect()
        client.http.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 17)
        client.send(max_tokens=40_000)
        deadline = time.monotonic() + 10
        while not simulator.truth(running.url)["blocked"] and time.monotonic() < deadline:
            time.sleep(0.01)
        found = events(client.http.getresponse().read())
        after = client.http.sock.recv(1)
        truth = simulator.truth(running.url)

    assert truth["blocked"] > 0
    assert after == b""  # closed, but not before all was sent
    assert len(text(found)) == truth["characters"]
    assert (len(found), truth["tokens"], truth["completed"]) == (40_003, 40_000, 1)


def test_a_client_that_leaves_frees_its_slot_and_is_counted() -> None:
    with simulator.start(ttft_ms=5, itl_ms=5, slots=1) as running:
        with Client(running) as leaver, Client(running) as waiter, Client(running) as queued:
            leaver.send(max_tokens=100_000)
            leaver.http.getresponse().read1()
            queued.send()
            waiter.send()
            queued.http.close()
            leaver.http.close()
            body = waiter.http.getresponse().read()
        truth = simulator.truth(running.url)

    assert body.endswith(b"[DONE]\n\n")
    assert (truth["requests"], truth["completed"], truth["disconnected"]) == (3, 1, 2)
    assert (truth["active"], truth["queued"]) == (0, 0)
    assert 1 <= truth["tokens"] - 6 < 1000


# Faults


@pytest.mark.parametrize(
    ("fault", "ending", "completed"),
    [
        ("stall", b"data: [DONE]\n\n", 1),
        ("garbage", b"data: [DONE]\n\n", 1),
        ("burst", b"data: [DONE]\n\n", 1),
        ("close", b"data: [DONE]\n\n", 1),
        ("empty", b"data: [DONE]\n\n", 0),
        ("no_end", b'"finish_reason":null}]}\n\n', 0),
        ("error_event", b"}}\n\n", 0),
        ("cut", None, 0),
        ("reset", None, 0),
        ("drop", None, 0),
        ("hang", None, 0),
    ],
)
def test_a_fault_does_what_it_says_and_is_counted(fault: str, ending: bytes | None, completed: int) -> None:
    with simulator.start(**QUICK, faults={fault: 1.0}, stall_ms=100) as running, Client(running) as client:
        client.http.timeout = 0.2 if fault == "hang" else 10
        received: bytes | type[Exception]
        try:
            received = client.chat(max_tokens=10)[1]
        except (http.client.HTTPException, OSError) as error:
            received = type(error)
        truth = simulator.truth(running.url)

    if ending is None:
        expected = {"cut": http.client.IncompleteRead, "hang": TimeoutError, "drop": http.client.RemoteDisconnected}
        assert received is expected.get(fault, ConnectionResetError)
    else:
        assert isinstance(received, bytes)
        assert received.endswith(ending)
    assert (truth["faults"], truth["requests"], truth["completed"]) == ({fault: 1}, 1, completed)
    tokens = {"empty": 0, "drop": 0, "hang": 0, "cut": 5, "reset": 5, "error_event": 5}.get(fault, 10)
    assert (truth["tokens"], truth["active"]) == (tokens, 0)
    assert truth["gap_us"]["n"] == (0 if fault == "burst" else max(0, tokens - 1))
    assert fault != "stall" or truth["e2e_us"]["min"] >= 2_000 + 9 * 500 + 100_000


def test_the_fault_close_breaks_the_promise_of_keep_alive_and_a_status_has_an_error_in_its_body() -> None:
    with simulator.start(**QUICK, faults={"close": 1.0}) as running, Client(running) as client:
        client.send()
        response = client.http.getresponse()
        response.read()
        after = client.http.sock.recv(1)
    with simulator.start(**QUICK, faults={"429": 1.0}) as running, Client(running) as client:
        status, body = client.chat()
        truth = simulator.truth(running.url)

    assert (response.headers["Connection"], after) == (None, b"")
    assert (status, json.loads(body)["error"]["type"]) == (429, "rate_limit_error")
    assert (truth["faults"], truth["requests"], truth["tokens"]) == ({"429": 1}, 1, 0)


# Requests that are refused


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b"{", 400, None),
        (b"[]", 400, None),
        (b"\xff", 400, None),
        (b"[" * 100_000, 400, None),
        (b'{"messages": [{"role": "user", "content": "Hi"}]}', 400, "model"),
        (b'{"model": "other", "messages": [{"role": "user", "content": "Hi"}]}', 404, "model"),
        (b'{"model": "simulator", "messages": ["Hi"]}', 400, "messages[0]"),
    ],
)
def test_what_is_malformed_gets_an_error_that_names_it(
    running: simulator.Simulator, body: bytes, status: int, param: str | None
) -> None:
    with Client(running) as client:
        client.http.request("POST", "/v1/chat/completions", body)
        response = client.http.getresponse()
        error = json.loads(response.read())["error"]
        good = client.events(max_tokens=1)

    assert (response.status, error["param"], error["type"]) == (status, param, "invalid_request_error")
    assert good[-1] == "[DONE]"  # the connection lives on


def test_other_paths_bad_http_and_missing_keys_are_refused() -> None:
    with simulator.start(**QUICK, api_key="secret") as running, Client(running) as client:
        statuses = [client.chat()[0]]
        for path in ("/v1/models", "/nope", "/v1/chat/completions", "/health"):
            client.http.request("GET", path)
            response = client.http.getresponse()
            response.read()
            statuses.append(response.status)
        with socket.create_connection((client.http.host, client.http.port), timeout=10) as sock:
            sock.sendall(b"\x16\x03\x01 this is TLS, or nonsense\r\n\r\n")
            bad = sock.recv(4096)

    assert statuses == [401, 401, 404, 404, 200]
    assert bad.startswith(b"HTTP/1.1 400 ")


# The official client


def test_the_official_client_streams_and_lists_models() -> None:
    with (
        simulator.start(**QUICK, models=("one", "two"), api_key="key", prompt_cache=True) as running,
        openai.OpenAI(base_url=running.url, api_key="key", max_retries=0) as client,
    ):
        models = [model.id for model in client.models.list()]
        chunks = list(
            client.chat.completions.create(
                model="two",
                messages=[{"role": "user", "content": "How are you?"}],
                max_completion_tokens=70,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        whole = client.chat.completions.create(
            model="one", messages=[{"role": "user", "content": "How are you?"}], max_tokens=70
        )
        with pytest.raises(openai.NotFoundError, match="there is one, two"):
            client.chat.completions.create(model="three", messages=[{"role": "user", "content": "Hi"}])
        truth = simulator.truth(running.url, "key")

    words = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert (running.model, models) == ("one", ["one", "two"])
    assert words == whole.choices[0].message.content
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.completion_tokens, chunks[-1].usage.prompt_tokens) == (70, 3 + 4 + 3)
    assert whole.usage is not None
    assert whole.usage.prompt_tokens_details is not None
    assert whole.usage.prompt_tokens_details.cached_tokens == 9
    assert (truth["characters"], truth["tokens"], truth["rejected"]) == (2 * len(words), 140, 1)


# The process


def test_a_reset_starts_the_truth_anew_even_in_the_middle_of_a_stream() -> None:
    with simulator.start(ttft_ms=1, itl_ms=5) as running, Client(running) as client:
        client.send(max_tokens=20)
        response = client.http.getresponse()
        response.read1()
        before = simulator.truth(running.url)
        simulator.reset(running.url)
        response.read()
        after = simulator.truth(running.url)

    assert (before["requests"], before["active"]) == (1, 1)
    assert (after["requests"], after["completed"], after["ttft_us"]["n"]) == (0, 1, 0)
    assert 0 < after["tokens"] <= 20 - before["tokens"]


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "stdin"])
def test_a_signal_or_the_end_of_stdin_ends_it(how: str) -> None:
    with machine.Child(machine.python("loadbench.serve", "simulator")) as child:
        child.send({"law": simulator.Law().to_builtins()})
        ready = json.loads(child.first_line(20) or b"")
        if how == "stdin":
            child.hang_up()
        else:
            child.process.send_signal(getattr(signal, how))
        code = child.process.wait(5)

    assert code == 0
    assert ready == {"url": ready["url"], "pid": child.process.pid, "model": "simulator"}
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v1", ready["url"])


def test_start_ends_it_even_while_streams_run_and_says_why_it_could_not_start() -> None:
    threads = threading.active_count()
    with simulator.start() as running, Client(running) as client:
        client.send(max_tokens=100_000)
        port = urlsplit(running.url).port
        assert port is not None
        with pytest.raises(LoadbenchError, match=f"cannot listen on 127.0.0.1:{port}"), simulator.start(port=port):
            pass

    with pytest.raises(ProcessLookupError):
        os.kill(running.pid, 0)
    assert threading.active_count() == threads
