"""The tables of what servers write differently: each row, and others of its kind that no table names."""

from __future__ import annotations

from typing import Any

import dialect_page
import orjson
import pytest

from loadbench.client import dialect, tables
from loadbench.client.dialect import Texts, error_words, failure, finish, message_texts, read_json, usage
from loadbench.transport.exchange import GRACE_S, LESSONS

# -- text


@pytest.mark.parametrize("name", sorted(tables.TEXTS.keys() - {"audio"}))
def test_each_field_of_the_table_holds_text(name: str) -> None:
    found = message_texts({"role": "assistant", name: "word"})

    assert (found.answer or found.other, found.unknown) == ("word", ())
    assert bool(found.answer) == (tables.TEXTS[name][0] == "answer")


@pytest.mark.parametrize(
    ("content", "answer", "other"),
    [
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab", ""),
        (["a", {"type": "output_text", "text": "b"}], "ab", ""),
        ({"type": "text", "text": "a"}, "a", ""),
        # Mistral (BerriAI/litellm #16272)
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}], "", "hm"),
        ([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}], "a", "hm"),
        ([{"type": "reasoning", "text": "hm"}], "", "hm"),
        ([{"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}], "", "hm"),
        ([{"text": "hm", "thought": True}, {"text": "a"}], "a", "hm"),
        ([{"type": "refusal", "refusal": "no"}], "", "no"),
        ([{"type": "image_url", "image_url": {"url": "data:"}}], "", ""),
    ],
)
def test_content_may_be_parts_of_any_kind(content: Any, answer: str, other: str) -> None:
    assert message_texts({"content": content}) == Texts(answer, other, reasoning=len(other) if other == "hm" else 0)


@pytest.mark.parametrize(
    ("delta", "answer", "other"),
    [
        # StepFun (MoonshotAI/kimi-code #3928)
        ({"reasoning": "hm", "reasoning_content": "hm"}, "", "hm"),
        ({"reasoning": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]}, "", "hm"),
        ({"reasoning_content": "hm", "thinking_blocks": [{"type": "thinking", "thinking": "hm"}]}, "", "hm"),
        ({"content": [{"type": "thinking", "thinking": "hm"}], "reasoning_content": "hm"}, "", "hm"),
        ({"content": "a", "text": "a"}, "a", ""),
        ({"content": "a", "reasoning": "hm"}, "a", "hm"),
        ({"tool_calls": [{"function": {"arguments": "{"}}, {"function": {"arguments": "{"}}]}, "", "{{"),
        ({"tool_calls": [{"type": "custom", "custom": {"name": "f", "input": "x"}}]}, "", "fx"),
        ({"function_call": {"name": "f", "arguments": "{}"}}, "", "f{}"),
        ({"audio": {"id": "1", "data": "AAAA", "transcript": "hi"}}, "", "hi"),
    ],
)
def test_a_text_in_two_fields_counts_once(delta: Any, answer: str, other: str) -> None:
    assert message_texts(delta) == Texts(answer, other, reasoning=len(other) if other == "hm" else 0)


def test_a_field_with_text_that_no_table_knows_is_named() -> None:
    delta = {"analysis": "hm", "plan": [{"text": "a"}], "score": 3, "empty": "", "nothing": None, "content": "a"}

    assert message_texts(delta) == Texts("a", "", ("analysis", "plan"))


# -- counts


@pytest.mark.parametrize(
    "place",
    [
        lambda counts: {"usage": counts},
        lambda counts: {"choices": [{"usage": counts}]},  # Moonshot (maximhq/bifrost #191)
        lambda counts: {"choices": [{"delta": {"usage": counts}}]},
        lambda counts: {"x_groq": {"id": "1", "usage": counts}},
        lambda counts: {"usage": None, "vendor": {"stats": {"usage": counts}}},
        lambda counts: {"usage": {"prompt_tokens": 0, "completion_tokens": 0}, "x": {"usage": counts}},
        lambda counts: {"metrics": counts},
    ],
)
@pytest.mark.parametrize(
    "counts",
    [
        {"prompt_tokens": 7, "completion_tokens": 20, "total_tokens": 27},
        {"prompt_tokens": 7.0, "completion_tokens": 20.0},
        {"prompt_tokens": "7", "completion_tokens": "20"},
        {"input_tokens": 7, "output_tokens": 20},
        {"promptTokens": 7, "completionTokens": 20},
        {"promptTokenCount": 7, "candidatesTokenCount": 20, "totalTokenCount": 27},
        {"prompt_eval_count": 7, "eval_count": 20},
        {"inputTokenCount": 7, "outputTokenCount": 20},
        {"num_prompt_tokens": 7, "num_generated_tokens": 20},
        {"total_input_tokens": 7, "total_output_tokens": 20},
        {"tokens_evaluated": 7, "tokens_predicted": 20},
        {"prompt_tokens": 7, "total_tokens": 27},
        {"completion_tokens": 20, "total_tokens": 27},
        {"prompt_tokens": 7, "completion_tokens": 20, "prompt_time": 3.0, "completion_time": 9, "total_time": 12},
    ],
)
def test_counts_are_found_in_every_place_under_every_name(place: Any, counts: dict[str, Any]) -> None:
    found = usage(place(counts))

    assert found is not None
    assert (found.input, found.output) == (7, 20)


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [
        ({"eval_count": 20, "prompt_eval_count": 7, "done": True}, (7, 20, None)),
        ({"usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 20}}, (7, 20, None)),
        ({"timings": {"prompt_n": 3, "cache_n": 4, "predicted_n": 20, "predicted_ms": 9.5}}, (7, 20, 4)),
        ({"timings": {"prompt_n": 7, "predicted_n": 20}}, (7, 20, None)),
        ({"tokens": {"input": 7, "output": 20}}, (7, 20, None)),
        ({"usage": {"input": 7, "output": 20}}, (7, 20, None)),
        ({"usage": {"prompt_tokens": 7, "completion_tokens": 20, "prompt_cache_hit_tokens": 4}}, (7, 20, 4)),
        ({"usage": {"input_tokens": 7, "output_tokens": 20, "input_tokens_details": {"cached_tokens": 4}}}, (7, 20, 4)),
    ],
)
def test_each_dialect_of_counts_is_read(chunk: Any, expected: tuple[int, int, int | None]) -> None:
    found = usage(chunk)

    assert found is not None
    assert (found.input, found.output, found.cached) == expected


@pytest.mark.parametrize(
    ("counts", "output"),
    [
        # xAI's leaves reasoning out (inspect_ai #5528, vercel/ai #12425), Gemini's too
        ({"prompt_tokens": 7, "completion_tokens": 10, "reasoning_tokens": 40, "total_tokens": 57}, 50),
        (
            {
                "prompt_tokens": 7,
                "completion_tokens": 10,
                "total_tokens": 57,
                "completion_tokens_details": {"reasoning_tokens": 40},
            },
            50,
        ),
        ({"promptTokenCount": 7, "candidatesTokenCount": 10, "thoughtsTokenCount": 40, "totalTokenCount": 57}, 50),
        ({"completion_tokens": 10, "completion_tokens_details": {"reasoning_tokens": 40}}, 50),
        # OpenAI's counts it in
        (
            {
                "prompt_tokens": 7,
                "completion_tokens": 50,
                "total_tokens": 57,
                "completion_tokens_details": {"reasoning_tokens": 40},
            },
            50,
        ),
        ({"completion_tokens": 50, "completion_tokens_details": {"reasoning_tokens": 50}}, 50),
    ],
)
def test_reasoning_is_in_the_output_whether_the_server_counts_it_in_or_not(counts: Any, output: int) -> None:
    found = usage({"usage": counts})

    assert found is not None
    assert found.output == output


@pytest.mark.parametrize(
    "value", [True, -1, 2.5, "many", "", "1e3", "9" * 30, 2**53 + 1, float("nan"), float("inf"), []]
)
def test_what_is_no_count_counts_nothing(value: object) -> None:
    assert dialect.count(value) is None


@pytest.mark.parametrize(
    "chunk",
    [
        {"choices": [{"delta": {"content": "a"}, "logprobs": {"content": [{"token": "a"}]}}]},
        {"usage": {"completion_time": 3, "prompt_time": 4, "max_output_tokens": 9, "output_tokens_per_second": 5}},
        {"limits": {"remaining_tokens": 5, "max_completion_tokens": 9}},
    ],
)
def test_what_only_resembles_a_count_is_none(chunk: Any) -> None:
    found = usage(chunk)

    assert found is None or (found.input, found.output) == (None, None)


def test_a_place_or_name_of_counts_that_no_table_knows_is_told() -> None:
    known, strange = usage({"usage": {"output_tokens": 3}}), usage({"stats": {"output_tokens": 3}})
    unread = usage({"usage": {"sent": 3, "got": 4}})

    assert known is not None
    assert strange is not None
    assert unread is not None
    assert (known.unknown, strange.unknown, unread.unknown) == (None, "usage in stats", "usage of got, sent")


# -- failures

LAST_EVENT = {
    "object": "chat.completion.chunk",
    "choices": [],
    "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"error": {"message": "no memory"}}, "no memory"),
        ({"error": "no memory"}, "no memory"),
        ({"error": ["no memory"]}, "no memory"),
        ([{"error": {"message": "no memory"}}], "no memory"),
        ({"errors": [{"message": "no memory"}]}, "no memory"),
        ({"Error": "no memory"}, "no memory"),
        ({"error_message": "no memory"}, "no memory"),
        ({"errorMessage": "no memory"}, "no memory"),
        ({"exception": "no memory"}, "no memory"),
        ({"code": 500, "message": "no memory"}, "no memory"),  # ragflow #15266
        ({"code": "500", "message": "no memory"}, "no memory"),
        ({"code": 10013, "message": "no memory", "sid": "x"}, "no memory"),
        ({"code": "rate_limit_exceeded", "message": "no memory"}, "no memory"),
        ({"detail": "no memory"}, "no memory"),
        ({"detail": [{"msg": "no memory", "loc": []}]}, "no memory"),
        ({"status": "error", "message": "no memory"}, "no memory"),
        ({"status": "failed", "reason": "no memory"}, "no memory"),
        ({"status": 503, "message": "no memory"}, "no memory"),
        ({"statusCode": 503, "message": "no memory"}, "no memory"),
        ({"success": False, "message": "no memory"}, "no memory"),
        ({"ok": False, "description": "no memory"}, "no memory"),
        ({"object": "error", "message": "no memory"}, "no memory"),
        ({"type": "error", "message": "no memory"}, "no memory"),
        ({"type": "response.failed", "response": {"error": {"message": "no memory"}}}, None),
        ({"type": "about:blank", "title": "Oops", "status": 500, "detail": "no memory"}, "no memory"),
        ({"base_resp": {"status_code": 1008, "status_msg": "no memory"}, "choices": None}, "no memory"),
        ({"data": {"code": 500, "message": "no memory"}}, "no memory"),
        ({**LAST_EVENT, "model": {"error": {"message": "no memory"}}}, "no memory"),
    ],
)
def test_an_error_is_one_in_whatever_spelling(document: Any, words: str | None) -> None:
    found = failure(b"", document)

    assert found is not None
    assert words is None or found == words


@pytest.mark.parametrize("name", [b"error", b"exception", b"response.failed", b"stream_error"])
def test_an_event_may_be_an_error_by_its_name(name: bytes) -> None:
    assert failure(name, {"message": "no memory"}) == "no memory"


@pytest.mark.parametrize(
    "document",
    [
        {"choices": [{"delta": {"content": "error"}}]},
        {"choices": [], "prompt_filter_results": [{"index": 0}]},
        {"choices": [], "error": None, "errors": [], "error_code": 0, "code": 0, "message": "Success"},
        {"choices": [], "base_resp": {"status_code": 0, "status_msg": ""}},
        {"code": 200, "message": "ok"},
        {"code": "success", "message": "ok", "success": True},
        {"type": "ping"},
        {"status": "processing", "message": "loading the model"},
        {"usage": {"completion_tokens": 3}},
        {"message": {"role": "assistant", "content": "an error"}, "done": False},
        {"response": "it failed", "done": False},
    ],
)
def test_what_names_no_error_is_none(document: Any) -> None:
    assert failure(b"", document) is None


def test_an_error_of_several_parts_is_told_whole() -> None:
    assert error_words({"detail": ["first", "second"]}) == '["first","second"]'


@pytest.mark.parametrize(
    ("reason", "means"),
    [
        ("stop", "ends"),
        ("length", "ends"),
        ("STOP", "ends"),
        ("FinishReason.MAX_TOKENS", "ends"),
        ("FINISH_REASON_STOP", "ends"),
        ("tool_calls", "goes on"),
        ("null", "none"),
        ("abort", "failed"),  # vllm #57082
        ("aborted", "failed"),
        ("error", "failed"),
        ("cancelled", "failed"),
        ("network_error", "failed"),
        ("insufficient_system_resource", "failed"),
        ("MALFORMED_FUNCTION_CALL", "failed"),
        ("vendor_thing", "unknown"),
    ],
)
def test_a_finish_reason_is_good_bad_or_unknown(reason: str, means: str) -> None:
    assert finish(reason) == means


# -- JSON


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", '"\\ud83d"', "[1, 2]", '"\ufeff"'])
def test_json_that_every_python_client_reads_is_read(text: str) -> None:
    read_json(b'{"a": %s}' % text.encode())


@pytest.mark.parametrize("payload", [b"{oops", b"\xff", b"[" * 100_000, b"1" * 5000 + b"x", b""])
def test_what_is_no_json_is_a_value_error(payload: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_json(payload)


def test_names_that_servers_make_up_fill_no_memory() -> None:
    for number in range(5000):
        usage({"usage": {f"name{number}": 1}, f"other{number}": {"x": 1}})

    assert dialect._words.cache_info().currsize <= 1024
    assert dialect._role.cache_info().currsize <= 1024


def test_an_event_of_very_many_objects_is_not_searched_to_its_end() -> None:
    deep: Any = {"x": 1}
    for _ in range(900):
        deep = {"a": deep}
    wide = {f"k{number}": {"x": 1} for number in range(50_000)}

    assert usage(orjson.loads(orjson.dumps({"w": wide}))) is None
    assert usage({"d": deep}) is None


# -- the page


def test_the_page_is_up_to_date_with_the_tables() -> None:
    page = dialect_page.PAGE.read_text(encoding="utf-8")

    assert dialect_page.written(page) == page


def test_the_page_has_the_grace_that_is_given() -> None:
    page = dialect_page.PAGE.read_text(encoding="utf-8")

    assert f"\n{GRACE_S:g} s;" in page
    assert LESSONS == 3
