"""What is wrong within a stream: events, their JSON, their pace."""

from __future__ import annotations

from loadbench.client.sse import MAX_EVENT_BYTES
from tests.support.asking import seconds
from tests.support.faults import Endless, Fault, begun, fine
from tests.support.replay import HALF_CLOSE, HOLD, RECEIVE, Step
from tests.support.wire import DONE, HEAD, LAST, WHOLE, answer, chunk, event, plain

NEXT: list[Step] = [RECEIVE, WHOLE, HOLD]

A = HEAD + chunk(event("A"))

HALF = event("B")[:-10]

CLOSE_DELIMITED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"

JSON = b"Content-Type: application/json\r\n"

PACES: dict[str, Fault] = {
    "a write side closed in mid-stream": begun([RECEIVE, A, HALF_CLOSE, HOLD], "truncated"),
    "a stall within an event": begun([RECEIVE, A + chunk(HALF), HOLD], "timeout_idle", timeouts=seconds(idle=0.05)),
    "a cut within an event": begun(
        [RECEIVE, A + chunk(HALF) + LAST, *NEXT], "truncated", "within an event", reused=True
    ),
    "bytes one by one, each within the idle limit": begun(
        Endless([RECEIVE, A], [chunk(b":"), 0.02]), "timeout_total", timeouts=seconds(idle=0.6, total=0.8)
    ),
    "bytes one by one, each beyond the idle limit": begun(
        Endless([RECEIVE, A], [0.5, chunk(b":")]), "timeout_idle", timeouts=seconds(idle=0.1)
    ),
    "bytes one by one before the first text": Fault(
        Endless([RECEIVE, HEAD], [chunk(b":"), 0.02]), "timeout_first_token", timeouts=seconds(first_token=0.2)
    ),
    "a stream without end": begun(
        Endless([RECEIVE, HEAD], [chunk(event("A")) * 10, 0.001]),
        "timeout_total",
        text=None,
        timeouts=seconds(total=0.3),
    ),
    "a stream without end, as fast as it goes": begun(
        Endless([RECEIVE, HEAD], [chunk(event("A")) * 1000]), "timeout_total", text=None, timeouts=seconds(total=0.3)
    ),
    "[DONE], and then silence": fine([RECEIVE, WHOLE[: -len(LAST)], HOLD], reused=False),
    "[DONE], and then silence for longer than the idle limit": fine(
        [RECEIVE, WHOLE[: -len(LAST)], HOLD], reused=False, timeouts=seconds(idle=0.05)
    ),
    "a finish reason, and then heartbeats": fine(
        Endless([RECEIVE, A + chunk(event("B", "stop"))], [chunk(b": ping\n\n"), 0.02]), reused=False
    ),
    "[DONE] in a body without framing, and then silence": fine(
        [RECEIVE, CLOSE_DELIMITED + event("A") + event("B", "stop") + DONE, HOLD], reused=False
    ),
    "events without text, and then silence": Fault(
        [RECEIVE, HEAD + chunk(event("")), HOLD],
        "timeout_first_token",
        marks="sent headers event",
        timeouts=seconds(first_token=0.05),
    ),
}

EVENTS: dict[str, Fault] = {
    "an event of more than 16 MiB": begun(
        [RECEIVE, A + chunk(event("B" * MAX_EVENT_BYTES)), HOLD], "protocol", "16 MiB"
    ),
    "an event without end": begun(
        Endless([RECEIVE, A + chunk(b"data: ")], [chunk(b"B" * 2**16)]), "protocol", "16 MiB"
    ),
    "an event of many lines without end": begun(
        Endless([RECEIVE, A], [chunk(b"data: BBBBBBBBBBBBBBBBBBBBBBBBBBB\n" * 2**11)]), "protocol", "16 MiB"
    ),
    "one JSON of more than 16 MiB": Fault(
        [RECEIVE, plain("200 OK", b'"' + b"x" * MAX_EVENT_BYTES + b'"', JSON), HOLD], "protocol", "16 MiB"
    ),
    "binary junk between the events": fine(
        [RECEIVE, answer(event("A"), b"\xff\xfe\0junk\n\n", event("B"), DONE), *NEXT]
    ),
    "binary junk as an event": begun(
        [RECEIVE, answer(event("A"), b"data: \xff\xfe\0\n\n", event("B"), DONE), *NEXT],
        "protocol",
        "not UTF-8 JSON",
        text="AB",
        reused=True,
    ),
    "an error in mid-stream, and more text": begun(
        [RECEIVE, answer(event("A"), b'data: {"error": {"message": "no memory"}}\n\n', event("B"), DONE), *NEXT],
        "stream_error",
        "no memory",
        text="AB",
        reused=True,
    ),
    "an error of 1 MB": begun(
        [RECEIVE, answer(event("A"), b'data: {"error": "%s"}\n\n' % (b"long " * 200_000)), *NEXT],
        "stream_error",
        "long long",
        reused=True,
    ),
    "an error of a thousand levels": begun(
        [RECEIVE, answer(event("A"), b"data: " + b'{"error":' * 1000 + b"1" + b"}" * 1000 + b"\n\n"), *NEXT],
        "stream_error",
        reused=True,
    ),
}

MISSHAPEN = {
    "choices are a number": b'{"choices": 7}',
    "choices are an object": b'{"choices": {"a": 1}}',
    "a choice is a list": b'{"choices": [[]]}',
    "a delta is a text": b'{"choices": [{"delta": "B"}]}',
    "a delta is a list": b'{"choices": [{"delta": ["B"]}]}',
    "content is a number": b'{"choices": [{"delta": {"content": 5}}]}',
    "content is an object": b'{"choices": [{"delta": {"content": {"a": 1}}}]}',
    "tool calls are a number": b'{"choices": [{"delta": {"tool_calls": 5}}]}',
    "tool calls are texts": b'{"choices": [{"delta": {"tool_calls": ["B"]}}]}',
    "a function is a text": b'{"choices": [{"delta": {"tool_calls": [{"function": "B"}]}}]}',
}
"""Events that are JSON and no chat completion's."""

SHAPES: dict[str, Fault] = {
    **{
        f"{name}, streamed": begun(
            [RECEIVE, answer(event("A"), b"data: " + body + b"\n\n", DONE), *NEXT], "protocol", reused=True
        )
        for name, body in MISSHAPEN.items()
    },
    **{
        f"{name}, in one JSON": Fault(
            [RECEIVE, plain("200 OK", body.replace(b"delta", b"message"), JSON), *NEXT],
            "protocol",
            marks="sent headers event",
            reused=True,
        )
        for name, body in MISSHAPEN.items()
    },
    "usage is a text": fine([RECEIVE, answer(event("A", usage="much"), event("B", "stop"), DONE), *NEXT]),
    "more tokens than a number holds": fine(
        [
            RECEIVE,
            answer(event("A", usage={"completion_tokens": 10**30, "prompt_tokens": -1}), event("B", "stop")),
            *NEXT,
        ]
    ),
    "a finish reason of 1 MB": fine([RECEIVE, answer(event("A"), event("B", "stop\n" * 200_000), DONE), *NEXT]),
    **{
        f"one JSON that is {body.decode()}": Fault(
            [RECEIVE, plain("200 OK", body, JSON), *NEXT], error, marks="sent headers event", reused=True
        )
        for body, error in {b"null": "stream_error", b"[]": "stream_error", b'{"a"': "protocol", b"{}": "empty"}.items()
    },
}

TABLES = {**PACES, **EVENTS, **SHAPES}
