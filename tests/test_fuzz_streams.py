"""What a server sends, damaged in any way and cut anywhere: one Result, the same whatever the cuts, and no surprise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.client import recorder, sse
from loadbench.client.sse import Decoder, EventTooLarge
from tests.support.fuzzed import decoded, exchanged, recorded
from tests.support.mutations import damaged, edited, examples, pieces
from tests.support.replay import capture, names

RESPONSES = [response for name in names() if len(response := capture(name).response) < 12_000]
STREAMS = [response.partition(b"\r\n\r\n")[2] for response in RESPONSES if b"text/event-stream" in response.lower()]
CHUNK = {
    "id": "c1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "delta": {"role": "assistant", "content": "hi"}, "finish_reason": None}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 1}},
}


@examples(120)
@given(damaged(*STREAMS), st.data())
def test_the_cuts_of_a_damaged_stream_change_none_of_its_events(stream: bytes, data: st.DataObject) -> None:
    chunks = data.draw(pieces(stream))

    assert decoded(chunks) == decoded([stream])


@examples(120)
@given(damaged(*STREAMS), st.sampled_from([200, 400, 500]), st.data())
def test_a_damaged_body_has_one_result_whatever_the_cuts(body: bytes, status: int, data: st.DataObject) -> None:
    chunks = data.draw(pieces(body))

    assert recorded(chunks, status) == recorded([body], status)


@examples(120)
@given(st.lists(edited(CHUNK, ("error", "choices", "usage", "object")), min_size=1, max_size=4), st.data())
def test_events_of_any_shape_have_one_result_whatever_the_cuts(events: list[object], data: st.DataObject) -> None:
    import json

    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    chunks = data.draw(pieces(body))

    found = recorded(chunks)

    assert found == recorded([body])
    assert found.error is not None or found.first_token_ns is not None
    assert all(count is None or count >= 0 for count in (found.input_tokens, found.output_tokens, found.cached_tokens))


@examples(120)
@given(damaged(*RESPONSES), st.data())
def test_a_damaged_response_has_one_result_whatever_the_cuts(response: bytes, data: st.DataObject) -> None:
    chunks = data.draw(pieces(response))

    assert exchanged(chunks) == exchanged([response])


@pytest.mark.parametrize("name", names())
def test_a_captured_response_that_is_cut_short_anywhere_is_never_taken_for_a_whole_one(name: str) -> None:
    response = capture(name).response
    whole = exchanged([response])
    step = max(1, len(response) // 40)

    for end in range(0, len(response) - 1, step):
        found = exchanged([response[:end]])
        assert found.error is not None or found == whole


def test_an_event_without_end_is_left_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 1000)
    decoder = Decoder()
    for _ in range(15):
        decoder.feed(b"data: " + b"x" * 60 + b"\n")

    with pytest.raises(EventTooLarge):
        decoder.feed(b"data: " + b"x" * 200 + b"\n")


def test_a_stream_without_end_is_left_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "MAX_STREAM_BYTES", 1 << 20)
    event = b'data: {"choices": [{"index": 0, "delta": {"content": "word "}}]}\n\n'

    found = recorded([event] * 20_000)

    assert (found.error, found.error_message) == ("protocol", "a stream of more than 1 MiB")
    assert found.text_events < 20_000
