"""What the recorder makes of a stream: arrivals, tokens of the first one, texts; no time is waited for."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterable
from itertools import accumulate, pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from loadbench.client import Ask, recorder
from loadbench.client.dialect import word_count
from loadbench.client.recorder import Recorder
from loadbench.prompts import Prompt
from loadbench.store.record import Result
from loadbench.transport import ExchangeError
from tests.support.wire import DONE, event

MS = 1_000_000
ASK = Ask("m@c1", 1, 0, "m", Prompt("p", ({"role": "user", "content": "Hi"},)), warmup=False, due_ns=0)


def recorded(*arrivals: tuple[int, bytes], kind: bytes = b"text/event-stream", several: bool = False) -> Result:
    """The Result of a whole body of this type whose pieces arrived at these times in ms."""
    recorder = Recorder(several=several)
    recorder.sent(0)
    recorder.headers(0, 200, [(b"content-type", kind)] if kind else [])
    for at_ms, body in arrivals:
        recorder.body(body, at_ms * MS)
    end_ns = recorder.close(None, arrivals[-1][0] * MS)
    return recorder.result(ASK, 0, end_ns)


def chunk(choice: object, **more: object) -> bytes:
    """An event with one choice of any shape."""
    return b"data: %s\n\n" % json.dumps({"choices": [choice], **more}).encode()


def each(every_ms: int, *events: bytes, begin_ms: int = 0) -> list[tuple[int, bytes]]:
    return [(begin_ms + every_ms * (i + 1), one) for i, one in enumerate(events)]


HEADED = b'data: {"choices":[{"index":0,"delta":{"content":"'
ODD = [
    *(
        b'\\"quoted\\"',
        b"back\\\\",
        b"end\\",
        b"",
        b'","',
        b'a","b',
        b',"b',
        b"line\nbreak",
        b"\\ud83d",
        b"\\ud83d\\ude00",
        b"\xff",
        b"\t",
    ),
    *("café".encode(), "line\u2028break".encode(), b"[DONE]", b'"}},{"index":1,"delta":{"content":"x'),
]
"""Insides of JSON strings, and what is none."""
TEXTS = st.one_of(st.sampled_from([b" word", b" more", b"Hi"]), st.sampled_from(ODD))


def headed(text: bytes) -> bytes:
    return HEADED + text + b'"}}]}\n\n'


OTHERS = [chunk({"delta": {"reasoning_content": "hm"}}), event("A"), event("B", "stop"), DONE, b": ping\n\n"]
PIECES = st.one_of(TEXTS.map(headed), TEXTS.map(headed), TEXTS.map(headed), st.sampled_from(OTHERS))
READS = st.lists(st.tuples(PIECES, st.sampled_from([0, 1, 1, 2]), st.sampled_from([False, False, True])), min_size=2)
"""A piece, how many ms after the one before it came, and whether it was the last one of those read together."""


def reads(*texts: bytes) -> list[tuple[bytes, int, bool]]:
    return [(headed(text), 1, False) for text in texts]


@given(READS)
@example(reads(b"Hi", b"end\\", b',"b'))
@example(reads(b"Hi", b'a","b', b" word"))
@example(reads(b"Hi", b" word", b"", b" word"))
@example([*reads(b"Hi", b" word"), (headed(b"Hi"), 1, True), (headed(b" more"), 0, False), *reads(b"Hi")])
@example([*reads(b"Hi", b" word"), (headed(b" more"), 0, False), *reads(b"Hi")])
def test_pieces_that_are_read_together_say_what_each_alone_says(read: list[tuple[bytes, int, bool]]) -> None:
    pieces = [piece for piece, _, _ in read]
    times = [at_ms * MS for at_ms in accumulate(step for _, step, _ in read)]
    cuts = [0, *(i + 1 for i, (_, _, last) in enumerate(read[:-1]) if last), len(read)]
    alone, together = Recorder(), Recorder()
    for sink in (alone, together):
        sink.sent(0)
        sink.headers(0, 200, [(b"content-type", b"text/event-stream")])

    for piece, at_ns in zip(pieces, times, strict=True):
        alone._head = None  # each is read as if it was the first of its kind
        alone.body(piece, at_ns)
    for start, end in pairwise(cuts):
        together.bodies(pieces[start:end], times[start:end])

    results = []
    for sink in (alone, together):
        end_ns = sink.close(None, times[-1])
        results.append((sink.result(ASK, 0, end_ns), sink.ending, sink.choices))
    assert results[0] == results[1]


def test_events_of_one_write_are_one_arrival_and_no_merger() -> None:
    result = recorded((10, event("A") + event("B")), (20, event("C", "stop") + DONE))

    assert (result.text_events, result.first_events, result.gaps_us) == (3, 2, [10_000])
    assert result.merged_arrivals == 0


def test_pieces_under_one_stamp_are_one_arrival_that_was_merged() -> None:
    result = recorded((10, event("A")), (20, event("B")), (20, event("C")), (20, event("D")), (30, event("E", "stop")))

    assert (result.text_events, result.gaps_us) == (5, [10_000, 10_000])
    assert result.merged_arrivals == 1


def test_the_first_arrivals_tokens_are_counted_up_to_it_and_not_beyond() -> None:
    usage = [{"completion_tokens": n} for n in (1, 2, 3, 4)]
    result = recorded(
        (10, event("A", usage=usage[0])),
        (20, event("", usage=usage[1])),
        (30, event("", usage=usage[2])),
        (40, event("B", "stop", usage=usage[3])),
    )

    assert (result.first_tokens, result.output_tokens) == (1, 4)


def test_a_usage_of_zeros_beside_text_is_no_count() -> None:
    result = recorded((10, event("A")), (20, event("B", "stop", usage={"completion_tokens": 0, "prompt_tokens": 3})))

    assert (result.output_tokens, result.input_tokens) == (None, 3)


@pytest.mark.parametrize(
    "more",
    [
        {"choices": [{"index": 0, "delta": {"content": "A"}}, {"index": 1, "delta": {"content": "xy"}}]},
        {"choices": [{"index": 0, "delta": {"content": "A", "reasoning_content": "xy"}}]},
    ],
)
def test_an_event_with_a_second_text_is_never_taken_for_one_with_a_single_text(more: dict[str, object]) -> None:
    body = b"data: %s\n\n" % json.dumps(more).encode()
    result = recorded((10, body), (20, body), (30, event(finish="stop")))

    assert (result.characters, result.text) == (6, "AA")


def test_events_that_differ_in_their_text_alone_are_read_alike_whatever_the_text() -> None:
    texts = ["plain", "tab\t", 'quote"', "back\\slash", "\u2028", "", "é", "🙂", "plain"]
    result = recorded(*((10 * i, event(text)) for i, text in enumerate(texts, 1)), (100, event(finish="stop")))

    assert result.text == "".join(texts)
    assert result.text_events == len(texts) - 1


# -- the first answer


def delta(**fields: object) -> bytes:
    return chunk({"delta": fields})


STOP = {"finish_reason": "stop"}
NDJSON = b'{"message": {"role": "assistant", "%s": "%s"}, "done": false}\n'
NDJSON_END = b'{"message": {"role": "assistant", "content": ""}, "done_reason": "stop", "done": true}\n'


@pytest.mark.parametrize(
    ("events", "answer_ms", "reasoning"),
    [
        ([event("A"), event("B")], 10, 0),
        ([delta(reasoning_content="hm"), delta(reasoning_content="so", content=None), event("A")], 30, 4),
        ([delta(reasoning="hm", reasoning_details=[{"type": "reasoning.text", "text": "hm"}]), event("A")], 20, 2),
        ([delta(content=[{"type": "thinking", "thinking": "hm"}]), delta(content=[{"text": "A"}])], 20, 2),
        ([delta(content="", reasoning_content="hm"), delta(content="", reasoning_content=""), event("A")], 30, 2),
        ([delta(reasoning_content="hm", content="A"), event("B")], 10, 2),
        # A tool call and a refusal are answers.
        ([delta(thinking="hm"), delta(tool_calls=[{"function": {"name": "f", "arguments": ""}}])], 20, 2),
        ([delta(reasoning="hm"), delta(refusal="no")], 20, 2),
        # Reasoning between answers is no second beginning.
        ([event("A"), delta(reasoning="hm"), event("B")], 10, 2),
        ([delta(reasoning="hm"), delta(reasoning="so")], None, 4),
        # Tags in the content are content: only the server could say what they are.
        ([event("<think>"), event("hm"), event("</think>"), event("A")], 10, 0),
        # A last message that repeats it all.
        ([delta(reasoning="hm"), event("A"), chunk({"message": {"reasoning": "hm", "content": "A"}})], 20, 2),
        (
            [
                delta(reasoning="h"),
                delta(reasoning="m"),
                chunk({"message": {"reasoning": "hm so", "content": "A"}, **STOP}),
            ],
            30,
            5,
        ),
        ([NDJSON % (b"thinking", b"hm"), NDJSON % (b"thinking", b"so"), NDJSON % (b"content", b"A")], 30, 4),
        ([b'data: {"choices": [{"text": "A"}]}\n\n', b'data: {"choices": [{"text": "B"}]}\n\n'], 10, 0),
    ],
)
def test_the_answer_begins_with_the_first_text_that_is_no_reasoning(
    events: list[bytes], answer_ms: int | None, reasoning: int
) -> None:
    is_lines = events[0].startswith(b"{")
    end = NDJSON_END if is_lines else event(finish="stop") + DONE
    result = recorded(*each(10, *events, end), kind=b"application/x-ndjson" if is_lines else b"text/event-stream")

    assert result.error is None
    assert result.first_token_ns == 10 * MS
    assert result.first_answer_ns == (None if answer_ms is None else answer_ms * MS)
    assert result.reasoning_characters == reasoning


def test_an_answer_that_was_not_streamed_begins_as_it_comes() -> None:
    message = {"message": {"role": "assistant", "reasoning_content": "hm", "content": "A"}, "finish_reason": "stop"}
    result = recorded((10, json.dumps({"choices": [message]}).encode()), kind=b"application/json")

    assert (result.first_answer_ns, result.reasoning_characters) == (10 * MS, 2)


# -- bounds


@pytest.mark.parametrize("count", [2**53 + 1, 2**64 - 1, 1e30])
def test_a_count_that_no_run_folder_holds_is_not_told(count: float) -> None:
    usage = {"completion_tokens": count, "prompt_tokens": count, "prompt_tokens_details": {"cached_tokens": count}}
    result = recorded((10, event("A")), (20, event("B", "stop", usage=usage)))

    assert (result.output_tokens, result.input_tokens, result.cached_tokens) == (None, None, None)


def peak_bytes(pieces: Iterable[bytes], kind: bytes) -> tuple[int, Result]:
    """How far this process grows while an answer in these pieces becomes a Result; what it came in was there before."""
    sink = Recorder()
    sink.headers(0, 200, [(b"content-type", kind)])
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here: proc(5)
    before = resident("VmRSS")
    for at_ns, piece in enumerate(pieces):
        sink.body(piece, at_ns)
    sink.close(None, 1 << 40)
    result = sink.result(ASK, 0, 1 << 40)
    return resident("VmHWM") - before, result


def resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(name)))


WORDS = "ab " * 20_000
STREAMED = [event(WORDS)] * 100 + [event("", "stop") + DONE]
WHOLE = json.dumps({"choices": [{"message": {"content": WORDS * 100}, "finish_reason": "stop"}]}).encode()


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.parametrize(
    ("pieces", "kind"),
    [
        (STREAMED, b"text/event-stream"),
        ([WHOLE[at : at + 65_536] for at in range(0, len(WHOLE), 65_536)], b"application/json"),
    ],
)
def test_an_answer_of_short_words_takes_at_most_three_times_its_size(pieces: list[bytes], kind: bytes) -> None:
    peak, result = peak_bytes(pieces, kind)

    assert (result.error, result.words, result.characters) == (None, 2_000_000, 6_000_000)
    assert peak <= 3 * sum(map(len, pieces))


def test_an_answer_of_more_text_than_any_model_writes_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "MAX_TEXT", 1 << 20)
    word = event("x" * 100)
    sink = Recorder()
    sink.headers(0, 200, [])

    def fed() -> None:
        for at_ns in range(20_000):
            sink.body(word, at_ns)

    with pytest.raises(ExchangeError, match="an answer of more than 1 million characters"):
        fed()

    whole = recorded((0, WHOLE), kind=b"application/json")
    assert sum(map(len, sink.answer)) <= (1 << 20) + 100
    assert (whole.error, whole.error_message) == ("protocol", "an answer of more than 1 million characters")


@pytest.mark.parametrize(
    "text", ["", " ", "a", "ab " * 50_000, "x" * 200_000, "\n" * 70_000 + "a", " a" * 32_768 + "b"]
)
def test_words_are_counted_as_they_would_be_in_a_list(text: str) -> None:
    assert word_count(text) == len(text.split())


# -- answers that were not streamed


def test_an_answer_that_was_not_streamed_ends_when_its_last_byte_arrived() -> None:
    recorder = Recorder()
    recorder.sent(0)
    recorder.headers(5 * MS, 200, [(b"content-type", b"application/json")])
    whole = json.dumps({"choices": [{"index": 0, "message": {"content": "A whole one."}, "finish_reason": "stop"}]})
    recorder.body(whole[:9].encode(), 5 * MS)
    recorder.body(whole[9:].encode(), 40 * MS)
    end_ns = recorder.close(None, 209 * MS)  # the process had to wait for a core
    result = recorder.result(ASK, 0, end_ns)

    assert (result.error, result.text) == (None, "A whole one.")
    assert (result.end_ns, result.first_token_ns, result.last_token_ns) == (40 * MS, 40 * MS, 40 * MS)


def test_one_that_breaks_off_ends_when_that_is_known() -> None:
    recorder = Recorder()
    recorder.sent(0)
    recorder.headers(5 * MS, 200, [(b"content-type", b"application/json")])
    recorder.body(b'{"choices"', 5 * MS)

    assert recorder.close(ExchangeError("truncated", "cut"), 50 * MS) == 50 * MS


# -- choices


@pytest.mark.parametrize("with_message", [False, True])
def test_an_index_that_counts_up_is_one_answer(with_message: bool) -> None:
    """https://github.com/microsoft/foundry-local/issues/263 and 144."""
    texts = [{"role": "assistant", "content": f" w{i}"} for i in range(10)]
    choices = [
        {"index": i, "delta": text, **({"message": text} if with_message else {})} for i, text in enumerate(texts)
    ]
    last = chunk({"index": 0, "delta": {}, "finish_reason": "stop"})
    result = recorded(*each(20, *map(chunk, choices), last + DONE))

    assert result.text == "".join(f" w{i}" for i in range(10))
    assert (result.text_events, result.characters, result.gaps_us) == (10, 30, [20_000] * 9)


ALTERNATING = [chunk({"index": i % 2, "delta": {"content": "ab"[i % 2]}}) for i in range(6)]
COUNTED_UP = [chunk({"index": i, "delta": {"content": f"{i}"}}) for i in range(3)]
TWO_AT_ONCE = [{"index": i, "message": {"content": "ab"[i]}, "finish_reason": "stop"} for i in range(2)]


@pytest.mark.parametrize(
    ("bodies", "several", "text", "characters"),
    [
        ([*COUNTED_UP, DONE], True, "0", 3),  # that were requested, even in turn
        ([*ALTERNATING, DONE], False, "aaa", 6),
        ([json.dumps({"choices": TWO_AT_ONCE}).encode()], False, "a", 2),
    ],
)
def test_several_choices_stay_apart(bodies: list[bytes], several: bool, text: str, characters: int) -> None:
    result = recorded(*each(10, *bodies), several=several)

    assert (result.text, result.characters) == (text, characters)


# -- text


def test_the_first_thought_in_parts_is_the_first_token() -> None:
    """Mistral's: https://github.com/BerriAI/litellm/issues/16272."""
    thought = chunk({"delta": {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "thnk "}]}]}})
    events = [thought] * 20 + [event("word ")] * 5
    usage = event(finish="stop", usage={"prompt_tokens": 7, "completion_tokens": 25})
    result = recorded(*each(20, *events, usage + DONE, begin_ms=80))

    assert (result.first_token_ns, result.last_token_ns) == (100 * MS, 580 * MS)
    assert (result.characters, result.text_events, result.output_tokens) == (125, 25, 25)
    assert result.text == "word " * 5


def test_a_thought_in_two_fields_counts_once() -> None:
    """StepFun's: https://github.com/MoonshotAI/kimi-code/issues/3928."""
    thought = chunk({"delta": {"reasoning": "thnk ", "reasoning_content": "thnk "}})
    result = recorded(*each(20, *[thought] * 8, *[event("word ")] * 4, event(finish="stop") + DONE))

    assert (result.characters, result.text, result.text_events) == (60, "word " * 4, 12)


WHOLE_AGAIN = {
    "beside an empty delta": {"delta": {}, "message": {"role": "assistant", "content": "one two three "}},
    "beside a delta that is null": {"delta": None, "message": {"content": "one two three "}},
    "beside an empty text": {"delta": {"content": ""}, "message": {"content": "one two three "}},
    "without a delta": {"message": {"content": "one two three "}},
    "trimmed": {"delta": {}, "message": {"content": "one two three"}},
    "as the last delta": {"delta": {"content": "one two three "}},
    "as text": {"delta": {}, "text": "one two three "},
}


@pytest.mark.parametrize("name", WHOLE_AGAIN)
@pytest.mark.parametrize("at_once", [True, False])
def test_the_whole_text_again_at_the_end_counts_once(name: str, at_once: bool) -> None:
    texts = [event("one "), event("two "), event("three ")]
    again = WHOLE_AGAIN[name] | ({"finish_reason": "stop"} if at_once or name == "as the last delta" else {})
    result = recorded(*each(10, *texts, chunk(again), event(finish="stop") + DONE))

    assert (result.text, result.characters, result.text_events) == ("one two three ", 14, 3)


def test_what_a_last_message_adds_counts() -> None:
    last = {"delta": {}, "message": {"content": "one two three"}, "finish_reason": "stop"}
    result = recorded(*each(10, event("one "), event("two "), chunk(last), DONE))

    assert (result.text, result.text_events) == ("one two three", 3)


def test_the_halves_of_a_utf_16_pair_meet_though_they_come_in_two_events() -> None:
    halves = [b'data: {"choices": [{"delta": {"content": "\\u%s"}}]}\n\n' % half for half in (b"d83d", b"de00")]
    result = recorded(*each(10, event("Hi "), *halves, event("!"), event(finish="stop") + DONE))

    assert (result.text, result.text_events, result.characters, result.error) == ("Hi 😀!", 4, 5, None)


def test_half_a_utf_16_pair_waits_for_the_other_and_becomes_a_replacement_character_without_it() -> None:
    half = b'data: {"choices": [{"delta": {"content": "a\\ud83d"}}]}\n\n'
    recorder = Recorder()
    recorder.headers(0, 200, [])
    recorder.body(half, MS)

    assert recorder.texts(final=False) == ("", "a")
    assert recorded((10, half), (20, DONE)).text == "a\ufffd"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_does_not_have_are_read_as_every_python_client_does(number: str) -> None:
    logprobs = event("A").replace(b'"finish_reason": null', b'"logprobs": [%s]' % number.encode())
    result = recorded((10, logprobs), (20, logprobs), (30, event(finish="stop") + DONE))

    assert (result.text, result.error) == ("AA", None)


# -- counts


COUNTS = {"prompt_tokens": 7, "completion_tokens": 20, "total_tokens": 27}
MOONSHOTS = chunk({"index": 0, "delta": {}, "finish_reason": "stop", "usage": COUNTS})


@pytest.mark.parametrize(
    "bodies",
    [
        [MOONSHOTS, DONE],  # https://github.com/maximhq/bifrost/issues/191
        [event(finish="stop") + DONE, b'data: {"choices": [], "usage": %s}\n\n' % json.dumps(COUNTS).encode()],
        [
            event(finish="stop", usage=COUNTS),  # timings do not replace it
            b'data: {"choices": [], "timings": {"prompt_n": 1, "predicted_n": 2}}\n\n' + DONE,
        ],
    ],
)
def test_a_usage_is_the_count_wherever_it_comes(bodies: list[bytes]) -> None:
    result = recorded(*each(10, event("A"), *bodies))

    assert (result.input_tokens, result.output_tokens, result.unknown, result.error) == (7, 20, None, None)


def test_reasoning_that_the_output_leaves_out_is_added() -> None:
    """xAI's: https://github.com/UKGovernmentBEIS/inspect_ai/issues/5528, https://github.com/vercel/ai/issues/12425."""
    thought, usage = (
        chunk({"delta": {"reasoning_content": "hm "}}),
        {
            "prompt_tokens": 7,
            "completion_tokens": 10,
            "total_tokens": 57,
            "completion_tokens_details": {"reasoning_tokens": 40},
        },
    )
    result = recorded(*each(10, *[thought] * 40, *[event("word ")] * 10, event(finish="stop", usage=usage) + DONE))

    assert (result.output_tokens, result.reasoning_tokens, result.text_events) == (50, 40, 50)


# -- failures and what nobody knows


@pytest.mark.parametrize(
    ("last", "says"),
    [
        # https://github.com/vllm-project/vllm/issues/57082
        (event(finish="abort"), "finish_reason abort"),
        (event(finish="error"), "finish_reason error"),
        # https://github.com/infiniflow/ragflow/issues/15266
        (b'data: {"code":500,"message":"failed to encode response"}\n\n', "failed to encode response"),
        (b'data: {"status":"error","detail":"no memory"}\n\n', "no memory"),
        (b"event: error\ndata: no memory\n\n", "no memory"),
        (chunk({"delta": {"content": ""}, "finish_reason": "error", "error": {"message": "no memory"}}), "no memory"),
    ],
)
def test_a_failure_after_some_words_is_one_with_the_servers_words(last: bytes, says: str) -> None:
    result = recorded(*each(10, *[event("word ")] * 4, last, DONE))

    assert result.error == "stream_error"
    assert says in (result.error_message or "")
    assert result.text == "word " * 4


@pytest.mark.parametrize(
    ("strange", "told"),
    [
        (event(finish="weird"), "finish_reason weird"),
        (chunk({"delta": {"analysis": "hm"}}), "text in delta.analysis"),
        (b'data: {"type": "status", "note": "x"}\n\n', "event status"),
        (b'event: progress\ndata: {"n": 1}\n\n', "event progress"),
        (b'data: {"a": 1, "b": 2}\n\n', "event of a, b"),
        (b'data: {"choices": [], "stats": {"output_tokens": 3}}\n\n', "usage in stats"),
    ],
)
def test_what_no_table_knows_is_told_and_fails_nothing(strange: bytes, told: str) -> None:
    result = recorded(*each(10, event("A"), strange, event("B", "stop") + DONE))

    assert (result.text, result.error, result.unknown) == ("AB", None, told)


def test_events_that_only_keep_the_connection_are_not_told() -> None:
    pings = b'data: {"type": "ping"}\n\ndata: {}\n\nevent: ping\ndata: {"a": 1}\n\n'
    result = recorded((10, pings), (20, event("A", "stop") + DONE))

    assert result.unknown is None


def test_little_is_kept_of_much_that_is_unknown() -> None:
    strange = [chunk({"delta": {f"{'x' * 200}{i};": "hm"}}) for i in range(50)]
    result = recorded(*each(1, *strange, event("A", "stop") + DONE))

    assert len(result.unknown or "") < 300


HIDDEN = {"completion_tokens": 50, "completion_tokens_details": {"reasoning_tokens": 50}}


@pytest.mark.parametrize(
    ("first", "last", "says"),
    [
        (chunk({"delta": {"analysis": "hm"}}), event(finish="stop"), "text in delta.analysis"),
        (event(""), event(finish="length", usage=HIDDEN), "50 tokens went into hidden reasoning"),
    ],
)
def test_an_answer_without_text_says_what_it_had(first: bytes, last: bytes, says: str) -> None:
    result = recorded((10, first), (20, last + DONE))

    assert result.error == "empty"
    assert says in (result.error_message or "")


# -- what a body is called

DOCUMENT = json.dumps({"choices": [{"message": {"content": "AB"}, "finish_reason": "stop"}]}).encode()
KINDS = [b"application/json", b"text/event-stream", b"text/plain", b"application/octet-stream", b"text/html", b""]


@pytest.mark.parametrize("kind", KINDS)
def test_an_event_stream_is_one_whatever_it_is_called(kind: bytes) -> None:
    result = recorded(*each(10, event("A"), event("B"), event(finish="stop") + DONE), kind=kind)

    assert (result.text, result.text_events, result.gaps_us, result.error) == ("AB", 2, [10_000], None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "body", [DOCUMENT, b"\n  \n" + DOCUMENT + b"\n", json.dumps(json.loads(DOCUMENT), indent=1).encode()]
)
def test_a_json_document_is_one_whatever_it_is_called(kind: bytes, body: bytes) -> None:
    whole = recorded((10, body), kind=kind)
    in_bytes = recorded(*((10, body[i : i + 1]) for i in range(len(body))), kind=kind)

    assert (whole.text, whole.text_events, whole.error) == ("AB", 1, None)
    assert whole == in_bytes


@pytest.mark.parametrize("kind", [b"application/json", b"text/event-stream", b""])
def test_an_error_document_is_a_failure_whatever_it_is_called(kind: bytes) -> None:
    result = recorded((10, b'{"error": {"message": "no memory"}}'), kind=kind)

    assert (result.error, result.error_message) == ("stream_error", "no memory")


def test_a_document_a_line_is_a_stream() -> None:
    texts = [json.dumps({"message": {"role": "assistant", "content": text}, "done": False}) for text in ("A", "B")]
    last = json.dumps({"done": True, "done_reason": "stop", "prompt_eval_count": 7, "eval_count": 2, "response": ""})
    result = recorded(*each(10, *(line.encode() + b"\n" for line in (*texts, last))), kind=b"application/x-ndjson")

    assert (result.text, result.text_events, result.gaps_us, result.error) == ("AB", 2, [10_000], None)
    assert (result.input_tokens, result.output_tokens, result.finish_reason) == (7, 2, "stop")


def test_lines_of_json_that_end_within_one_are_truncated() -> None:
    line = json.dumps({"choices": [{"delta": {"content": "A"}}]}).encode() + b"\n"
    result = recorded((10, line), (20, line), (30, line[:20]), kind=b"")

    assert (result.error, result.text) == ("truncated", "AA")


# -- the end


def test_a_request_ends_at_done_and_not_with_its_body_and_text_after_it_is_none_of_the_answer() -> None:
    beating = recorded((10, event("A")), (20, event("B", "stop") + DONE), (4000, b": heartbeat\n\n"))
    going_on = recorded((10, event("A", "stop") + DONE), (20, event("B")))

    assert beating.end_ns == 20 * MS
    assert (going_on.text, going_on.end_ns) == ("A", 10 * MS)


def endings(*bodies: bytes) -> list[str | None]:
    """What may still follow after each of these pieces of body."""
    recorder, found = Recorder(), []
    recorder.headers(0, 200, [(b"content-type", b"text/event-stream")])
    for body in bodies:
        recorder.body(body, MS)
        found.append(recorder.ending)
    return found


def test_an_answer_is_over_with_its_finish_reason_and_its_usage_or_with_done() -> None:
    usage = b'data: {"choices": [], "usage": {"completion_tokens": 1}}\n\n'
    counted = event("A", usage={"completion_tokens": 1})

    assert endings(event("A"), event(finish="stop"), b": ping\n\n", usage) == [None, "usage", "usage", "end"]
    assert endings(counted, event(finish="stop")) == [None, "usage"]
    assert endings(event("A"), event(finish="stop", usage={"completion_tokens": 1})) == [None, "end"]
    assert endings(event("A"), event(finish="stop"), DONE, usage) == [None, "usage", "usage", "end"]
    assert endings(event("A"), DONE) == [None, "usage"]


def test_an_answer_that_goes_on_after_a_finish_reason_is_not_over() -> None:
    assert endings(event("A", "stop"), event("B", "stop"), event("C")) == ["usage", "usage", None]
    assert endings(event("A"), event(finish="tool_calls")) == [None, None]


def test_several_choices_are_over_with_the_last_one() -> None:
    texts = [chunk({"index": i % 2, "delta": {"content": "a"}}) for i in range(4)]
    ends = [chunk({"index": i, "delta": {}, "finish_reason": "stop"}) for i in range(2)]

    assert endings(*texts, *ends) == [None] * 5 + ["usage"]
