"""What the recorder makes of a stream: arrivals, tokens of the first one, texts; no time is waited for."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from wire import DONE, event

from loadbench.client import Ask, recorder
from loadbench.client.dialect import word_count
from loadbench.client.recorder import Recorder
from loadbench.prompts import Prompt
from loadbench.result import Result
from loadbench.transport import ExchangeError

MS = 1_000_000
ASK = Ask("m@c1", 1, 0, "m", Prompt("p", ({"role": "user", "content": "Hi"},)), warmup=False, due_ns=0)


def recorded(*arrivals: tuple[int, bytes]) -> Result:
    """The Result of a whole stream whose pieces of body arrived at these times in ms."""
    recorder = Recorder()
    recorder.sent(0)
    recorder.headers(0, 200, [(b"content-type", b"text/event-stream")])
    for at_ms, body in arrivals:
        recorder.body(body, at_ms * MS)
    end_ns = arrivals[-1][0] * MS
    recorder.close(None, end_ns)
    return recorder.result(ASK, 0, end_ns, retried=False)


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
    result = sink.result(ASK, 0, 1 << 40, retried=False)
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

    assert sum(map(len, sink.answer)) <= (1 << 20) + 100


def test_so_is_one_that_is_not_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "MAX_TEXT", 1 << 20)

    sink = Recorder()
    sink.headers(0, 200, [(b"content-type", b"application/json")])
    sink.body(WHOLE, 0)
    sink.close(None, 1)
    result = sink.result(ASK, 0, 1, retried=False)

    assert (result.error, result.error_message) == ("protocol", "an answer of more than 1 million characters")


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
    result = recorder.result(ASK, 0, end_ns, retried=False)

    assert (result.error, result.text) == (None, "A whole one.")
    assert (result.end_ns, result.first_token_ns, result.last_token_ns) == (40 * MS, 40 * MS, 40 * MS)


def test_one_that_breaks_off_ends_when_that_is_known() -> None:
    recorder = Recorder()
    recorder.sent(0)
    recorder.headers(5 * MS, 200, [(b"content-type", b"application/json")])
    recorder.body(b'{"choices"', 5 * MS)

    assert recorder.close(ExchangeError("truncated", "cut"), 50 * MS) == 50 * MS
