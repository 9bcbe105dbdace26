"""The simulator's law as numbers: options, draws and percentiles."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.serve import chat
from loadbench.serve.simulator import Law, answer
from loadbench.serve.simulator.law import SIZE, Ask, Draws, ask
from loadbench.serve.simulator.stream import summary


def asked(words: str = "Hi", **fields: Any) -> Ask:
    body = {"model": "simulator", "messages": [{"role": "user", "content": words}]} | fields
    return ask(chat.read(json.dumps(body).encode()))


def test_a_law_survives_the_way_to_the_child_process() -> None:
    unusual = Law(
        ttft_ms=12.5,
        ttft_per_prompt_token_ms=0.03,
        itl_ms=0.1,
        itl_per_stream_ms=1e-3,
        slots=3,
        jitter=0.2,
        jitter_shape="uniform",
        length=(3, 9),
        default_max_tokens=7,
        tokens_per_event=2,
        reasoning_tokens=5,
        role="early",
        ping_ms=15.0,
        usage="continuous",
        prompt_cache=True,
        stall_ms=20.0,
        faults={"429": 0.25, "cut": 0.125},
        seed=9,
    )

    assert Law.from_builtins(json.loads(json.dumps(unusual.to_builtins()))) == unusual


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"ttft_ms": -1}, "ttft_ms is -1: it must be 0 or more"),
        ({"itl_ms": math.nan}, "itl_ms is nan"),
        ({"slots": 0}, "slots is 0: it must be 1 or more"),
        ({"ping_ms": 0}, "ping_ms is 0"),
        ({"length": (5, 4)}, "its bounds must be 1 or more, and ascend"),
        ({"jitter": 2, "jitter_shape": "uniform"}, "a uniform one is at most 1"),
        ({"jitter": 2, "jitter_shape": "exponential"}, "an exponential one is at most 1"),
        ({"faults": {"curt": 0.1}}, "no fault is named 'curt': there are stall, cut"),
        ({"faults": {"200": 0.1}}, "no fault is named '200'"),
        ({"faults": {"cut": 1.5}}, "must lie in 0 to 1"),
        ({"faults": {"cut": 0.6, "stall": 0.6}}, "add up to 1.2"),
    ],
)
def test_an_impossible_law_is_refused_with_its_value(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Law(**fields)


def test_prompt_tokens_are_words_plus_a_template() -> None:
    parts = [{"type": "text", "text": "one two"}, {"type": "image_url", "image_url": {"url": "x"}}]
    two = asked(messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}])

    assert two.prompt_tokens == 3 + (4 + 2) + (4 + 2)
    assert asked("").prompt_tokens == 3 + 4


def test_lengths_follow_from_seed_and_prompt_and_fill_their_bounds() -> None:
    one, other = Draws(Law(length=(5, 9))), Draws(Law(length=(5, 9), seed=2))
    prompts = [asked(f"prompt {number}") for number in range(200)]

    lengths = [one.length(prompt) for prompt in prompts]

    assert {length for length, _ in lengths} == {5, 6, 7, 8, 9}
    assert lengths == [one.length(prompt) for prompt in prompts]
    assert lengths != [other.length(prompt) for prompt in prompts]


@pytest.mark.parametrize(
    ("own", "fields", "expected"),
    [
        (None, {"max_tokens": 7}, (7, "length")),
        (None, {}, (128, "length")),
        (None, {"max_tokens": 7, "max_completion_tokens": 9}, (9, "length")),
        ((300, 300), {}, (300, "stop")),
        ((5, 5), {"max_tokens": 7}, (5, "stop")),
        ((9, 9), {"max_tokens": 7}, (7, "length")),
        ((5, 5), {"max_tokens": 7, "ignore_eos": True}, (7, "length")),
    ],
)
def test_an_answer_ends_by_itself_or_at_its_limit(
    own: tuple[int, int] | None, fields: dict[str, Any], expected: tuple[int, str]
) -> None:
    assert Draws(Law(length=own)).length(asked(**fields)) == expected


def test_faults_strike_by_seed_and_rate() -> None:
    rates = {"429": 0.1, "cut": 0.05}
    first, same, other = (Draws(Law(faults=rates, seed=seed)) for seed in (1, 1, 2))

    struck = [first.fault() for _ in range(10_000)]

    assert struck == [same.fault() for _ in range(10_000)]
    assert struck != [other.fault() for _ in range(10_000)]
    assert Counter(struck)["429"] == pytest.approx(1000, abs=120)  # four standard deviations
    assert Counter(struck)["cut"] == pytest.approx(500, abs=90)


def test_jitter_keeps_the_median_of_a_lognormal_and_the_bounds_of_a_uniform() -> None:
    lognormal = Draws(Law(jitter=0.3))
    uniform = Draws(Law(jitter=0.3, jitter_shape="uniform"))

    logs = [math.log(lognormal.jittered_ns(1_000_000_000, draw) / 1e9) for draw in range(SIZE)]

    assert statistics.median(logs) == pytest.approx(0, abs=0.02)
    assert statistics.stdev(logs) == pytest.approx(0.3, rel=0.05)
    assert 0.7 <= min(uniform.factors) / 65536 < 0.71
    assert 1.29 < max(uniform.factors) / 65536 <= 1.3
    assert Draws(Law()).jittered_ns(123, 5) == 123


def test_exponential_jitter_has_the_mean_and_the_tail_of_its_law() -> None:
    whole = Draws(Law(jitter=1, jitter_shape="exponential"))
    half = Draws(Law(jitter=0.5, jitter_shape="exponential"))
    factors = [factor / 65536 for factor in whole.factors]

    assert statistics.fmean(factors) == pytest.approx(1, abs=0.04)
    assert sum(factor > 3 for factor in factors) / len(factors) == pytest.approx(math.exp(-3), abs=0.01)
    assert min(half.factors) / 65536 >= 0.5


def test_latencies_grow_with_the_prompt_and_the_batch() -> None:
    drawn = Draws(Law(ttft_ms=50, ttft_per_prompt_token_ms=0.5, itl_ms=10, itl_per_stream_ms=2))

    assert [drawn.itl_ns(active) for active in (0, 1, 2, 8)] == [10_000_000, 10_000_000, 12_000_000, 24_000_000]
    assert [drawn.ttft_ns(tokens, 0) for tokens in (0, 100)] == [50_000_000, 100_000_000]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=300))
def test_percentiles_are_the_nearest_rank(values: list[int]) -> None:
    found = summary(Counter(values))

    ascending = sorted(values)
    for name, share in (("p50", 500), ("p90", 900), ("p95", 950), ("p99", 990), ("p999", 999)):
        assert found[name] == ascending[-(-share * len(values) // 1000) - 1]
    assert (found["n"], found["min"], found["max"]) == (len(values), ascending[0], ascending[-1])
    assert found["mean"] == pytest.approx(statistics.fmean(values), abs=1e-3)


def test_without_values_a_summary_says_nothing() -> None:
    assert {value for name, value in summary({}).items() if name != "n"} == {None}


@pytest.mark.parametrize("tokens", [1, 3, 64, 65])
def test_ready_made_frames_are_the_events_that_encoding_gives(tokens: int) -> None:
    chunks = answer.Events("chatcmpl-1", 1, 'a "model"')
    middle = chunks.middle("content")
    sizes, ends = answer.frames(len(middle), tokens)

    for first in range(answer.COUNT):
        data = sizes[first] + middle + ends[first]
        size, _, rest = data.partition(b"\r\n")
        assert data == chunks.text("content", first, tokens, role=False, usage=None)
        assert len(rest) == int(size, 16) + 2
        value = json.loads(rest.removeprefix(b"data: "))
        assert value["choices"][0]["delta"] == {"content": answer.text(first, tokens)}
        assert value["model"] == 'a "model"'


def test_there_are_64_words_so_that_the_hot_loop_can_go_round_by_a_mask() -> None:
    assert answer.COUNT == 64
    assert all(answer.WORDS)
