"""A server's own metrics, in lines as llama.cpp and vLLM send them."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import pytest

from loadbench.server import calls, open_http, scrape
from loadbench.server.calls import MAX_NAME, MAX_NAMES, read_metrics
from tests.support.scripted import Answer, scripted

LLAMA_CPP = """\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed, excluding cached tokens
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 315
# HELP llamacpp:predicted_tokens_seconds Average generation throughput in tokens/s
# TYPE llamacpp:predicted_tokens_seconds gauge
llamacpp:predicted_tokens_seconds 121.5
# HELP llamacpp:n_busy_slots_per_decode Average number of busy slots per llama_decode() call
# TYPE llamacpp:n_busy_slots_per_decode gauge
llamacpp:n_busy_slots_per_decode nan
"""
VLLM = """\
# HELP python_gc_objects_collected_total Objects collected during gc
# TYPE python_gc_objects_collected_total counter
python_gc_objects_collected_total{generation="0"} 11046.0
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="Qwen/Qwen3-4B"} 5.0
vllm:num_requests_running{engine="1",model_name="Qwen/Qwen3-4B"} 3.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="Qwen/Qwen3-4B"} 0.5
vllm:kv_cache_usage_perc{engine="1",model_name="Qwen/Qwen3-4B"} 0.25
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",cache_dtype="auto",engine="0"} 1.0
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="Qwen/Qwen3-4B"} 4.5476058e+07
# TYPE vllm:prompt_tokens_created gauge
vllm:prompt_tokens_created{engine="0",model_name="Qwen/Qwen3-4B"} 1.7619e+09
# TYPE vllm:request_success_total counter
vllm:request_success_total{engine="0",finished_reason="stop",model_name="Qwen/Qwen3-4B"} 7.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="Qwen/Qwen3-4B"} 2.0
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.001",model_name="Qwen/Qwen3-4B"} 0.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="Qwen/Qwen3-4B"} 9.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="Qwen/Qwen3-4B"} 9.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="Qwen/Qwen3-4B"} 0.81
"""


def test_llama_cpps_lines_are_read_and_what_is_no_number_now_left_out() -> None:
    assert read_metrics(LLAMA_CPP) == {
        "llamacpp:prompt_tokens_total": 315.0,
        "llamacpp:predicted_tokens_seconds": 121.5,
    }


def test_vllms_engines_are_added_up_and_what_says_nothing_of_the_model_is_left_out() -> None:
    metrics = read_metrics(VLLM)

    assert metrics == {
        "vllm:num_requests_running": 8.0,
        "vllm:kv_cache_usage_perc": 0.375,  # of shares the mean
        "vllm:prompt_tokens_total": 45_476_058.0,
        'vllm:request_success_total{finished_reason="stop"}': 7.0,
        'vllm:request_success_total{finished_reason="length"}': 2.0,
        "vllm:time_to_first_token_seconds_count": 9.0,
        "vllm:time_to_first_token_seconds_sum": 0.81,
    }


@pytest.mark.parametrize(
    ("line", "metrics"),
    [
        ("a 1 1395066363000", {"a": 1.0}),  # with a time
        ("a{} 1", {"a": 1.0}),
        ('a{x="b c} \\"d"} 1', {'a{x="b c} \\"d"}': 1.0}),
        ("a +Inf", {}),
        ("a", {}),
        ("<html>", {}),
        ("a 1 # {trace_id=x} 1", {}),
        ("a 1e19", {}),
        ("a -1e19\nb 1", {"b": 1.0}),
        ("a 1e308\na 1e308", {}),
        ("a 1e18\na 1e18", {}),  # each of them would do
        ('a{x="' + "b" * MAX_NAME + '"} 1', {}),
        ("m{" + "a" * 60_000 + "} 1\nb 1", {"b": 1.0}),
    ],
)
def test_lines_at_the_edge_of_the_format(line: str, metrics: dict[str, float]) -> None:
    assert read_metrics(line) == metrics


def test_lines_that_come_as_a_json_string_are_unpacked() -> None:
    assert read_metrics(json.dumps(LLAMA_CPP)) == read_metrics(LLAMA_CPP)


def test_the_number_of_names_is_bounded() -> None:
    text = "\n".join(f"m{number} 1" for number in range(MAX_NAMES + 50))

    assert len(read_metrics(text)) == MAX_NAMES


def test_two_megabytes_of_one_line_or_of_many_cost_no_more_than_their_length() -> None:
    def took_ns(text: str) -> int:
        began = time.thread_time_ns()
        read_metrics(text)
        return time.thread_time_ns() - began

    plain = took_ns("m 1\n" * 500_000)

    assert took_ns("m{" + "a" * 1_999_990 + "} 1") < plain
    assert took_ns(("m{" + "a" * 1_900 + "} 1\n") * 1_050) < 10 * plain


async def _scraped(answer: Answer) -> dict[str, float] | None:
    async with scripted({"/metrics": answer}) as fake, open_http(fake.url) as http:
        return await scrape(http, fake.url)


@pytest.mark.parametrize(
    ("answer", "metrics"),
    [
        (Answer(b"a 1\n"), {"a": 1.0}),
        (Answer({"error": {"message": "This server does not support metrics endpoint."}}, 501), None),
        (Answer(b"<html>no metrics here</html>"), None),
        (Answer(b"x" * 2_000_001), None),
    ],
)
def test_a_server_without_metrics_gives_none(answer: Answer, metrics: dict[str, float] | None) -> None:
    assert asyncio.run(_scraped(answer)) == metrics


def test_a_server_that_is_gone_gives_none() -> None:
    async def run() -> dict[str, float] | None:
        async with open_http("http://127.0.0.1:9") as http:
            return await scrape(http, "http://127.0.0.1:9")

    assert asyncio.run(run()) is None


def test_lines_are_read_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[Any] = []
    monkeypatch.setattr(calls, "read_metrics", lambda text: threads.append(threading.current_thread()))

    asyncio.run(_scraped(Answer(b"a 1\n")))

    assert threads != [threading.main_thread()]
    assert len(threads) == 1


@pytest.mark.parametrize("depth", [500, 5_000])
def test_a_json_string_that_is_none_but_nested_deep_is_left_out(depth: int) -> None:
    assert read_metrics('"' + "[" * depth) == {}
