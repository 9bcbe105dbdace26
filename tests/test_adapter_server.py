"""The adapter's server on the wire: streams, counts, errors, the official client; hang-ups, slots and a full queue."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from loadbench.serve.adapter.echo import Echo
from loadbench.serve.adapter.server import Full, Gone, Slots
from loadbench.serve.chat import MAX_BODY_BYTES
from tests.support.adapters import BODY, Scripted, chat, serving, until


@pytest.fixture(scope="module")
def echo() -> Iterator[str]:
    with serving(Echo(), 4) as root:
        yield root


def events(response: httpx.Response) -> list[Any]:
    """What the events of a stream hold, [DONE] as it is."""
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


# -- answers


def test_a_stream_has_role_text_finish_usage_and_done(echo: str) -> None:
    role, *texts, finish, usage, done = events(chat(echo, stream=True, stream_options={"include_usage": True}))

    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [event["choices"][0]["delta"]["content"] for event in texts] == ["to", " be", " or", " not"]
    assert finish["choices"] == [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 4, "completion_tokens": 4, "total_tokens": 8}
    assert done == "[DONE]"


def test_usage_comes_in_a_stream_only_where_it_is_asked_for(echo: str) -> None:
    assert [event for event in events(chat(echo, stream=True)) if "usage" in event] == []


def test_without_counts_no_usage_is_invented() -> None:
    with serving(Scripted("a", "b")) as root:
        stream = chat(root, stream=True, stream_options={"include_usage": True})

        assert [event for event in events(stream) if "usage" in event] == []
        assert "usage" not in chat(root).json()


def test_an_answer_that_is_not_streamed_is_one_document(echo: str) -> None:
    answer = chat(echo, max_tokens=2).json()

    assert answer["object"] == "chat.completion"
    message = {"role": "assistant", "content": "to be"}
    assert answer["choices"] == [{"index": 0, "message": message, "finish_reason": "length"}]
    assert answer["usage"]["completion_tokens"] == 2


def test_every_piece_is_sent_as_it_comes() -> None:
    go = threading.Event()
    body = BODY | {"stream": True}
    with (
        serving(Scripted("first", go, "last")) as root,
        httpx.stream("POST", f"{root}/v1/chat/completions", json=body) as answer,
    ):
        lines = answer.iter_lines()
        while "first" not in next(lines):
            pass
        go.set()  # only now, when the first one is here

        assert any("last" in line for line in lines)


@pytest.mark.parametrize(
    ("pieces", "texts"),
    [
        *(([piece], [piece]) for piece in ('"quoted"\n', "日本🙂", "\u2028data: [DONE]\n\n")),
        (["a\ud83d"], ["a?"]),  # half a character does not break the stream
        (["", "a", ""], ["a"]),  # empty pieces are not sent
    ],
)
def test_any_text_arrives_as_it_was(pieces: list[str], texts: list[str]) -> None:
    with serving(Scripted(*pieces)) as root:
        _, *found, _, _ = events(chat(root, stream=True))

    assert [event["choices"][0]["delta"]["content"] for event in found] == texts


def test_text_parts_of_a_message_are_joined(echo: str) -> None:
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]

    assert chat(echo, messages=[{"role": "user", "content": parts}]).json()["choices"][0]["message"]["content"] == "a b"


def test_the_newer_name_of_the_limit_has_the_last_word(echo: str) -> None:
    assert chat(echo, max_tokens=3, max_completion_tokens=1).json()["usage"]["completion_tokens"] == 1


def test_the_model_is_listed_with_what_its_info_tells(echo: str) -> None:
    [row] = httpx.get(f"{echo}/v1/models").json()["data"]

    assert (row["id"], row["object"], row["device"], row["license"]) == ("echo", "model", "CPU", "MIT")


def test_a_connection_is_kept(echo: str) -> None:
    host = echo.removeprefix("http://")
    with contextlib.closing(http.client.HTTPConnection(host)) as connection:
        sockets = []
        for stream in (True, False, True):
            connection.request("POST", "/v1/chat/completions", json.dumps(BODY | {"stream": stream}))
            connection.getresponse().read()
            sockets.append(connection.sock)

    assert sockets[0] is not None
    assert len(set(map(id, sockets))) == 1


# -- the official client


def test_the_official_client_reads_a_stream_and_a_whole(echo: str) -> None:
    import openai  # not where the tests are collected: it takes a second

    asked: Any = {"model": "echo", "messages": BODY["messages"], "temperature": 0}
    with openai.OpenAI(base_url=f"{echo}/v1", api_key="none", max_retries=0) as client:
        with client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}) as stream:
            chunks = list(stream)
        whole = client.chat.completions.create(**asked)
        [model] = client.models.list().data

    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == whole.choices[0].message.content == "to be or not"
    assert chunks[-1].usage == whole.usage
    assert model.id == "echo"


def test_the_official_client_raises_its_own_errors() -> None:
    import openai

    with (
        serving(Scripted("a", ValueError("no layer"))) as root,
        openai.OpenAI(base_url=f"{root}/v1", api_key="none", max_retries=0) as client,
    ):
        asked: Any = {"model": "echo", "messages": BODY["messages"]}
        with pytest.raises(openai.BadRequestError, match="there is 'echo' alone"):
            client.chat.completions.create(**asked | {"model": "other"})
        with pytest.raises(openai.InternalServerError, match="ValueError: no layer"):
            client.chat.completions.create(**asked)
        with (
            pytest.raises(openai.APIError, match="ValueError: no layer"),
            client.chat.completions.create(**asked, stream=True) as stream,
        ):
            list(stream)


# -- errors


@pytest.mark.parametrize(
    ("changes", "param", "message"),
    [
        ({"model": "other"}, "model", "'model' is 'other': there is 'echo' alone."),
        ({"model": None}, "model", "'model' is required: a string."),
        ({"messages": []}, "messages", "'messages' is required"),
        ({"messages": ["hi"]}, "messages[0]", "must be an object with a 'role'"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0]", "must be a string or a list of text parts"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0]", "adapters take text"),
        ({"stream": "yes"}, "stream", "must be true or false"),
        ({"max_tokens": 0}, "max_tokens", "must be a whole number of 1 or more"),
        ({"n": 2}, "n", "there is one answer to a request"),
    ],
)
def test_a_bad_request_is_a_400_that_names_the_parameter(
    echo: str, changes: dict[str, Any], param: str, message: str
) -> None:
    response = chat(echo, **changes)
    error = response.json()["error"]

    assert (response.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert message in error["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff"])
def test_a_body_that_is_no_json_object_is_a_400(echo: str, body: bytes) -> None:
    assert httpx.post(f"{echo}/v1/chat/completions", content=body).status_code == 400


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1"), ("POST", "/v1/completions"), ("GET", "/v1/chat/completions")]
)
def test_another_path_is_a_404_that_lists_those_there_are(echo: str, method: str, path: str) -> None:
    response = httpx.request(method, echo + path)

    assert response.status_code == 404
    assert "POST /v1/chat/completions" in response.json()["error"]["message"]


def test_what_http_itself_refuses_is_json_too(echo: str) -> None:
    assert httpx.put(f"{echo}/v1/models").json()["error"]["message"] == "Unsupported method ('PUT')."


def test_a_body_that_is_too_long_is_a_413(echo: str) -> None:
    with contextlib.closing(http.client.HTTPConnection(echo.removeprefix("http://"))) as connection:
        connection.request("POST", "/v1/chat/completions", b" " * (MAX_BODY_BYTES + 1))  # all of it, before it reads
        response = connection.getresponse()
        document = json.load(response)

    assert response.status == 413
    assert str(MAX_BODY_BYTES) in document["error"]["message"]


def test_a_body_without_a_length_is_a_411(echo: str) -> None:
    assert httpx.post(f"{echo}/v1/chat/completions", content=iter([b"{}"])).status_code == 411


@pytest.mark.parametrize("stream", [True, False])
def test_a_failure_before_the_first_piece_is_a_500_with_one_line(stream: bool) -> None:
    with serving(Scripted(KeyError("layer\n7"))) as root:
        response = chat(root, stream=stream)

    assert response.status_code == 500
    assert "The adapter failed: KeyError: 'layer\\n7' (adapters.py:" in response.json()["error"]["message"]


def test_a_failure_in_a_stream_is_an_error_event_without_done() -> None:
    with serving(Scripted("a", OSError("backend gone"))) as root:
        response = chat(root, stream=True)

    assert response.status_code == 200
    *_, text, error = events(response)
    assert text["choices"][0]["delta"] == {"content": "a"}
    assert "OSError: backend gone" in error["error"]["message"]


def test_a_slot_is_free_after_a_failure() -> None:
    with serving(Scripted(ValueError())) as root:
        assert [chat(root).status_code for _ in range(3)] == [500] * 3


# -- hang-ups, slots and a full queue, on the wire


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


# -- the queue itself


def here() -> bool:
    return False


@contextlib.contextmanager
def waiting(slots: Slots, names: str, order: list[str]) -> Iterator[None]:
    """Threads that wait, one after the other, and note their names when they get a slot."""

    def wait(name: str) -> None:
        with slots.slot(here):
            order.append(name)

    threads = [threading.Thread(target=wait, args=(name,)) for name in names]
    for number, thread in enumerate(threads, slots.taken()[1] + 1):
        thread.start()
        while slots.taken()[1] < number:
            time.sleep(0.001)
    yield
    for thread in threads:
        thread.join(5)


def test_as_many_as_there_are_slots_hold_one_and_a_full_queue_refuses_at_once() -> None:
    slots = Slots(2, 0)
    with slots.slot(here), slots.slot(here):
        assert slots.taken() == (2, 0)
        assert not slots.drained(0.001)
        with pytest.raises(Full), slots.slot(here):
            pass

    assert slots.taken() == (0, 0)
    assert slots.drained(0.001)


def test_those_who_wait_get_their_turn_in_order() -> None:
    slots, order = Slots(1, 3), list[str]()
    held = slots.slot(here)
    held.__enter__()
    with waiting(slots, "abc", order):
        with pytest.raises(Full), slots.slot(here):
            pass
        held.__exit__(None, None, None)

    assert (order, slots.taken()) == (["a", "b", "c"], (0, 0))


def test_one_who_leaves_while_waiting_leaves_its_place() -> None:
    slots = Slots(1, 1, check_s=0.001)
    with slots.slot(here):
        with pytest.raises(Gone), slots.slot(lambda: True):
            pass

        assert slots.taken() == (1, 0)


def test_one_who_left_just_before_its_turn_gives_the_slot_on() -> None:
    slots, left = Slots(1, 1), threading.Event()
    held = slots.slot(here)
    held.__enter__()

    def wait() -> None:
        with contextlib.suppress(Gone), slots.slot(left.is_set):
            raise AssertionError("it got a slot")

    thread = threading.Thread(target=wait)
    thread.start()
    while slots.taken()[1] == 0:
        time.sleep(0.001)
    left.set()
    held.__exit__(None, None, None)
    thread.join(5)

    assert slots.taken() == (0, 0)
