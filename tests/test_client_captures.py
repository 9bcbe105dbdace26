"""The client against what five real servers really sent: each captured exchange, cut in several ways."""

from dataclasses import dataclass

import pytest

from loadbench.store.record import Result
from loadbench.transport import Clock, tls_context
from tests.support.asking import ask
from tests.support.replay import CERTIFICATE, Cuts, capture, names, serve

try:
    from uvloop import new_event_loop
except ImportError:  # Windows
    from asyncio import new_event_loop

SEA = "The sea is a vast and mysterious realm, "


@dataclass(frozen=True, slots=True)
class Expected:
    """What the client must make of a response; usage is (input, output, cached) tokens as the server said."""

    begins: str = ""
    characters: int = 0
    text_events: int = 0
    usage: tuple[int | None, int | None, int | None] = (None, None, None)
    finish_reason: str | None = None
    error: str | None = None
    status: int = 200
    says: str = ""  # what the error message must contain


def failed(status: int, error: str, says: str) -> Expected:
    return Expected(status=status, error=error, says=says)


# Counted by hand from resp.bin, not by the client. Further choices (n=2) are in characters, not in the text.
TABLE = {
    # -- llama.cpp: usage in an event without choices, on request
    # the role event shares one HTTP chunk with the first token, finish and usage share another; 45 tokens, 44 events
    "llamacpp/stream_usage": Expected(SEA, 210, 44, (37, 45, 0), "stop"),
    # … else in the `timings` of its last event: prompt_n and cache_n are the input
    "llamacpp/stream_nousage": Expected(SEA, 77, 16, (37, 16, 22), "length"),
    "llamacpp/stream_emoji": Expected("🎉🎊你好世界！🎉🎊", 18, 18, (53, 40, 24), "length"),  # 40 tokens in 18 events
    "llamacpp/stream_n2": Expected("The sea is a", 76, 16, (37, 16, 36), "length"),  # 8 + 8, each with its own usage
    "llamacpp/stream_max_tokens_0": Expected("The", 3, 1, (37, 1, 36), "length"),
    "llamacpp/stream_max_tokens_1": Expected("The", 3, 1, (37, 1, 36), "length"),
    "llamacpp/stream_stop": Expected("The sea is a ", 13, 5, (37, 5, 36), "stop"),
    "llamacpp/stream_logprobs": Expected("The sea is a", 12, 4, (37, 4, 36), "length"),
    "llamacpp/stream_timings_per_token": Expected("The sea is a", 12, 4, (37, 4, 36), "length"),
    "llamacpp/stream_return_progress": Expected("The sea is a", 12, 4, (37, 4, 0), "length"),  # three role events
    "llamacpp/stream_ping_prefill": Expected("You've already started", 38, 8, (1233, 8, 0), "length"),  # 16 comments
    "llamacpp/stream_queued_ping": Expected(SEA, 77, 16, (37, 16, 25), "length"),
    "llamacpp/stream_keepalive_conn": Expected(SEA, 77, 16, (37, 16, 36), "length"),  # it says keep-alive and closes
    "llamacpp/completions_stream": Expected(", the city of New Haven", 23, 6, (4, 6, 0), "length"),
    "llamacpp/stream_ctx_exceeded_1": Expected(
        "The story of the brave and fea", 2032, 478, error="stream_error", says="Context size has been exceeded."
    ),
    "llamacpp/stream_server_killed": Expected("The city of Erebo", 141, 35, error="truncated"),
    # another API's events: never a completed request
    "llamacpp/responses_stream": Expected(usage=(32, 6, 24), error="truncated", says="without a finish event"),
    "llamacpp/nonstream": Expected(SEA, 210, 1, (37, 45, 36), "stop"),
    "llamacpp/nonstream_queued_ping": Expected(SEA, 210, 1, (37, 45, 36), "stop"),
    "llamacpp/err_unknown_model": Expected("Hello there! How", 16, 1, (31, 4, 0), "length"),  # any name will do
    "llamacpp/err_401_nokey": failed(401, "http_4xx", "Invalid API Key"),
    "llamacpp/err_404": failed(404, "http_4xx", "File Not Found"),
    "llamacpp/err_bad_type": failed(400, "http_4xx", "type must be number, but is string"),
    "llamacpp/err_invalid_json": failed(400, "http_4xx", "parse error at line 1, column 40"),
    "llamacpp/err_no_messages": failed(400, "http_4xx", "'messages' is required"),
    "llamacpp/err_prompt_too_long": failed(400, "http_4xx", "request (5632 tokens) exceeds"),
    "llamacpp/err_prompt_too_long_stream": failed(400, "http_4xx", "request (5632 tokens) exceeds"),
    "llamacpp/health_503_loading": failed(503, "http_5xx", "Loading model"),
    # -- llama-cpp-python: no usage, even when asked for
    "llama_cpp_python/stream_usage": Expected(SEA, 101, 19, finish_reason="stop"),
    "llama_cpp_python/stream_nousage": Expected(SEA, 86, 16, finish_reason="length"),
    "llama_cpp_python/stream_emoji": Expected("🎉🎊你好世界！\n\nThis is", 95, 30, finish_reason="length"),
    "llama_cpp_python/stream_n2": Expected("The sea is a vast and", 21, 6, finish_reason="length"),  # n is ignored
    "llama_cpp_python/stream_max_tokens_1": Expected("The", 3, 1, finish_reason="length"),
    "llama_cpp_python/stream_stop": Expected("The sea is a ", 13, 5, finish_reason="stop"),
    "llama_cpp_python/completions_stream": Expected(", the city of Nova Haven", 24, 6, finish_reason="length"),
    # [DONE], but no finish_reason and no last HTTP chunk: the next request had interrupted it
    "llama_cpp_python/stream_interrupted_1": Expected("Once upon a time, in the land ", 156, 41, error="truncated"),
    "llama_cpp_python/stream_interrupted_2": Expected("Once upon a time, there was", 775, 200, finish_reason="length"),
    # the error is in the server's own log alone
    "llama_cpp_python/err_prompt_too_long_stream": Expected(error="empty", says="without any text"),
    "llama_cpp_python/err_prompt_too_long": failed(400, "http_4xx", "maximum context length is 2048 tokens"),
    "llama_cpp_python/err_unknown_model": Expected("The sea is a", 12, 1, (37, 4, None), "length"),
    "llama_cpp_python/err_404": failed(404, "http_4xx", "Not Found"),
    "llama_cpp_python/err_invalid_json": failed(500, "http_5xx", "Internal Server Error"),  # plain text
    "llama_cpp_python/nonstream": Expected(SEA, 101, 1, (37, 19, None), "stop"),
    # -- litellm: the usage event has a choice, with an empty delta; error codes are strings
    "litellm/stream_usage": Expected(SEA, 210, 44, (37, 45, 0), "stop"),
    "litellm/stream_nousage": Expected(SEA, 77, 16, finish_reason="length"),
    "litellm/stream_emoji": Expected("🎉🎊你好世界！🎉🎊", 18, 18, (53, 40, 24), "length"),
    "litellm/stream_n2": Expected(
        "The sea is a vast and", 42, 12, (37, 6, 24), "length"
    ),  # it counts one choice of two
    "litellm/stream_max_tokens_1": Expected("The", 3, 1, (37, 1, 36), "length"),
    "litellm/stream_stop": Expected("The sea is a ", 13, 5, (37, 5, 36), "stop"),
    "litellm/completions_stream": Expected(", the city of New Haven", 23, 6, (4, 6, 0), "length"),
    "litellm/mock_stream_usage": Expected("The sea is wide and blue.", 42, 14, (14, 11, None), "stop"),
    "litellm/mock_nonstream": Expected("The sea is wide and blue.", 42, 1, (10, 20, None), "stop"),
    "litellm/nonstream": Expected(SEA, 210, 1, (37, 45, 36), "stop"),
    "litellm/err_401_nokey": failed(500, "http_5xx", "Internal Server Error"),  # its answer to a missing key
    "litellm/err_404": failed(404, "http_4xx", "Not Found"),
    "litellm/err_backend_down": failed(500, "http_5xx", "Connection error."),
    "litellm/err_backend_down_stream": failed(500, "http_5xx", "Connection error."),
    "litellm/err_bad_type": failed(400, "http_4xx", "type must be number, but is string"),
    "litellm/err_invalid_json": failed(400, "http_4xx", "Invalid JSON payload"),
    "litellm/err_no_messages": failed(400, "http_4xx", "Missing required parameter: 'messages'"),
    "litellm/err_prompt_too_long": failed(400, "http_4xx", "ContextWindowExceededError"),
    "litellm/err_prompt_too_long_stream": failed(400, "http_4xx", "ContextWindowExceededError"),
    "litellm/err_unknown_model": failed(400, "http_4xx", "Invalid model name passed in model=no-such-model"),
    # -- transformers serve: no [DONE]; usage on the finish event, asked for or not
    "transformers_serve/stream_usage": Expected(SEA, 234, 48, (37, 48, None), "length"),
    "transformers_serve/stream_nousage": Expected(SEA, 77, 16, (37, 16, None), "length"),
    "transformers_serve/stream_emoji": Expected("🎉🎊你好世界！🎉🎊", 18, 18, (53, 40, None), "length"),
    "transformers_serve/stream_n2": Expected("The sea is a vast and", 21, 6, (37, 6, None), "length"),  # n is ignored
    "transformers_serve/stream_max_tokens_1": Expected("The", 3, 1, (37, 1, None), "length"),
    "transformers_serve/stream_stop": Expected("The sea is a vast", 17, 5, (37, 5, None), "stop"),
    "transformers_serve/completions_stream": Expected(", the city of Nova Haven", 24, 6, (4, 6, None), "length"),
    "transformers_serve/nonstream": Expected(SEA, 234, 1, (37, 48, None), "length"),
    "transformers_serve/err_404": failed(404, "http_4xx", "Not Found"),
    "transformers_serve/err_bad_type": failed(500, "http_5xx", "Internal Server Error"),
    "transformers_serve/err_no_messages": failed(500, "http_5xx", "Internal Server Error"),
    "transformers_serve/err_invalid_json": failed(422, "http_4xx", "JSON decode error"),
    # -- Foundry Local 1.x: delta and message in each event, usage that counts along in each; errors are a cut body
    "foundry1/stream_usage": Expected(" word0 word1", 48, 8, (21, 8, None), "length"),
    "foundry1/stream_parallel": Expected(" word0 word1", 158, 24, (21, 24, None), "length"),
    "foundry1/nonstream": Expected(" word0 word1", 48, 1, (21, 8, None), "length"),
    "foundry1/err_not_loaded_stream": Expected(error="truncated"),
    "foundry1/stream_ctx_exceeded": Expected(error="truncated"),
}


def assert_expected(result: Result, expected: Expected) -> None:
    found = Expected(
        begins=result.text[: len(expected.begins)],
        characters=result.characters,
        text_events=result.text_events,
        usage=(result.input_tokens, result.output_tokens, result.cached_tokens),
        finish_reason=result.finish_reason,
        error=result.error,
        status=result.status or 0,
        says=expected.says if expected.says in (result.error_message or "") else result.error_message or "",
    )
    assert found == expected


def assert_marks_ascend(result: Result) -> None:
    marks = [result.due_ns, result.sent_ns, result.headers_ns]
    marks += [result.first_event_ns, result.first_token_ns, result.last_token_ns, result.end_ns]
    happened = [mark for mark in marks if mark is not None]

    assert happened == sorted(happened)


# Event loop and clock vary along with the cuts: each is met by each capture once.
MODES = {
    "as recorded": (None, None),
    "in one write": ("user", new_event_loop),
}


@pytest.mark.parametrize("cuts", MODES)
@pytest.mark.parametrize("name", TABLE)
def test_a_captured_exchange_is_read_for_what_it_is(name: str, cuts: Cuts) -> None:
    clock, loop = MODES[cuts]
    with serve(capture(name).script(cuts)) as server:
        result = ask(server.url, clock=clock, loop=loop)

    assert_expected(result, TABLE[name])
    assert_marks_ascend(result)
    assert sum(result.gaps_us) == ((result.last_token_ns or 0) - (result.first_token_ns or 0) + 500) // 1000


# One of each dialect and of each way to fail: short ones, as every byte is a write of its own.
BYTE_BY_BYTE = [
    "llamacpp/stream_stop",
    "llamacpp/stream_n2",
    "llamacpp/stream_ping_prefill",
    "llamacpp/nonstream",
    "llamacpp/err_401_nokey",
    "llama_cpp_python/stream_emoji",
    "llama_cpp_python/stream_interrupted_1",
    "llama_cpp_python/err_prompt_too_long_stream",
    "litellm/stream_emoji",
    "transformers_serve/stream_emoji",
    "foundry1/stream_usage",
]


@pytest.mark.parametrize("name", BYTE_BY_BYTE)
def test_a_captured_exchange_that_comes_byte_by_byte_says_the_same(name: str) -> None:
    with serve(capture(name).script("byte by byte")) as server:
        result = ask(server.url)

    assert_expected(result, TABLE[name])
    assert_marks_ascend(result)


@pytest.mark.parametrize("clock", ["kernel", "user"])
@pytest.mark.parametrize(
    "name",
    [
        "llamacpp/stream_usage",
        "llamacpp/stream_server_killed",
        "llamacpp/err_401_nokey",
        "llama_cpp_python/stream_interrupted_1",
        "transformers_serve/stream_usage",
    ],
)
def test_a_captured_exchange_over_tls_says_the_same(name: str, clock: Clock) -> None:
    with serve(capture(name).script(), tls=True) as server:
        result = ask(server.url, clock=clock, tls=tls_context(ca_file=str(CERTIFICATE)))

    assert_expected(result, TABLE[name])
    assert_marks_ascend(result)


def test_every_capture_is_in_the_table() -> None:
    assert sorted(TABLE) == names()
