"""Levels whose rate changes, replays, users who pause, conversations: on a virtual clock."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import anyio
import numpy as np
import pytest
from trio.testing import MockClock

from loadbench import prompts
from loadbench.client import Ask
from loadbench.engine import pacer
from loadbench.prompts import Prompt, Recipe
from loadbench.record import SPEECHLESS
from loadbench.scenario import Pause, Shape
from tests.support.played import (
    NS,
    REPLAY,
    ROUNDING_NS,
    THREE,
    Answer,
    Played,
    answering,
    closed,
    conversation,
    level_of,
    recorded,
    shaped,
    uneven,
)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "trio", {"clock": MockClock(autojump_threshold=0)}


def due_ns(played: Played) -> list[int]:
    return [one.due_ns for one in sorted(played.results, key=lambda one: one.request)]


# -- shapes


@pytest.mark.anyio
@pytest.mark.parametrize("text", ["ramp 1..8 over 20s", "steps 1,4,2 each 5s", "spike 1 to 10 at 5s for 3s"])
async def test_a_shape_starts_requests_when_its_pacer_says_and_ends_by_itself(text: str) -> None:
    played = await level_of(shaped(text), arrivals="constant").run()

    assert due_ns(played) == pytest.approx(list(pacer.shaped(Shape.parse(text).pieces)), abs=ROUNDING_NS)
    assert played.facts["status"] == "complete"


@pytest.mark.anyio
async def test_a_shape_has_random_starts_by_seed_and_repeat() -> None:
    level, again = shaped("ramp 1..8 over 20s"), shaped("ramp 1..8 over 20s", repeat=2)
    played = [due_ns(await level_of(one, seed=7).run()) for one in (level, level, again)]

    wanted = pacer.shaped_poisson(Shape.parse("ramp 1..8 over 20s").pieces, np.random.default_rng([7, 1]))
    assert played[0] == pytest.approx(list(wanted), abs=ROUNDING_NS)
    assert played[0] == pytest.approx(played[1], abs=ROUNDING_NS)
    assert played[0] != played[2]


@pytest.mark.anyio
async def test_a_duration_cuts_a_shape_short() -> None:
    played = await level_of(shaped("ramp 1..8 over 20s"), duration_s=5.0, arrivals="constant").run()

    assert 4.5 * NS < max(due_ns(played)) < 5 * NS


@pytest.mark.anyio
async def test_what_a_spike_brings_beyond_the_cap_of_streams_is_dropped_and_counted() -> None:
    answer = Answer(ttft_s=2.0)
    played = await level_of(shaped("spike 1 to 20 at 5s for 1s"), answer, arrivals="constant", max_streams=6).run()

    # Before it two are in flight, so the spike's first four start, and one more when each of those two ends.
    assert played.facts["offered"] == 30
    assert played.facts["dropped"] == 30 - len(played.results) > 10
    assert max(played.in_flight_at(one.due_ns) for one in played.results) == 6


@pytest.mark.anyio
async def test_stop_does_not_wait_for_the_rest_of_a_shape() -> None:
    played = level_of(shaped("steps 1,0,1 each 1000s"), arrivals="constant")
    assert played.engine is not None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(played.run)
        await anyio.sleep(1500)
        played.engine.stop()

    assert played.progress.ended_ns - played.progress.began_ns == pytest.approx(1500 * NS, abs=1_000_000)


# -- replays


@pytest.mark.anyio
async def test_a_replay_asks_what_the_trace_has_when_the_trace_has_it() -> None:
    trace = recorded(0, 0.5, 0.5, 40)
    played = await level_of(REPLAY, prompts=trace).run()

    assert [ask.prompt for ask in played.server.asked] == [prompts.written(one) for one in trace]
    assert due_ns(played) == pytest.approx([0, 0.5 * NS, 0.5 * NS, 40 * NS], abs=ROUNDING_NS)
    assert played.facts["status"] == "complete"


@pytest.mark.anyio
async def test_a_request_that_a_replay_drops_leaves_the_others_in_their_places() -> None:
    law = {"t1": Answer(ttft_s=5.0)}
    played = level_of(REPLAY, lambda ask: law.get(ask.prompt.id, Answer()), prompts=recorded(0, 1, 10), max_streams=1)
    await played.run()

    assert [ask.prompt.id for ask in played.server.asked] == ["t1", "t3"]
    assert (played.facts["offered"], played.facts["dropped"]) == (3, 1)


@pytest.mark.anyio
async def test_what_is_made_up_has_the_words_that_the_servers_count_asks_for() -> None:
    played = level_of(closed(1), requests=2, warmup=0, prompts=[])
    assert played.engine is not None
    played.engine.asks([Prompt("a", (), recipe=Recipe("tokens", (("a", 100),)))], prompts.Line(10.0, 1.5))
    await played.run()

    assert {len(ask.prompt.messages[0]["content"].split()) for ask in played.server.asked} == {60}


# -- users who pause


def pauses_ns(played: Played) -> list[int]:
    """From each end to the next start, of a level with one user."""
    ordered = sorted(played.results, key=lambda one: one.request)
    return [after.due_ns - before.end_ns for before, after in pairwise(ordered)]


@pytest.mark.anyio
async def test_a_user_pauses_after_each_answer_and_the_pause_lies_in_no_latency() -> None:
    played = await level_of(closed(1), Answer(ttft_s=1.0), requests=4, warmup=0, pause=Pause(2.0)).run()

    assert pauses_ns(played) == pytest.approx([2 * NS] * 3, abs=ROUNDING_NS)
    assert all(one.sent_ns == one.due_ns for one in played.results)


@pytest.mark.anyio
async def test_pauses_are_drawn_for_each_user_by_the_seed() -> None:
    options: dict[str, Any] = {"requests": 9, "warmup": 0, "pause": Pause(2.0, exponential=True)}
    one, again, other = [await level_of(closed(1), seed=seed, **options).run() for seed in (1, 1, 2)]

    assert pauses_ns(one) == pytest.approx(pauses_ns(again), abs=ROUNDING_NS)
    assert pauses_ns(one) != pytest.approx(pauses_ns(other), abs=ROUNDING_NS)
    assert len(set(pauses_ns(one))) == 8


@pytest.mark.anyio
async def test_users_who_pause_keep_to_the_interactive_response_time_law() -> None:
    # X = N / (R + Z): 12 users, answers of 1 s, pauses of 2 s.
    pause = Pause(2.0, exponential=True)
    played = await level_of(closed(12), Answer(ttft_s=1.0), duration_s=600, pause=pause).run()

    assert len(played.measured) / 600 == pytest.approx(12 / 3, rel=0.05)


@pytest.mark.anyio
async def test_the_load_of_users_who_pause_is_whole_when_each_has_begun() -> None:
    played = await level_of(closed(4), Answer(ttft_s=0.00001), requests=20, warmup=0, pause=Pause(5.0)).run()

    assert played.facts["full_ns"] == pytest.approx(pacer.start_offsets_ns(4)[-1], abs=ROUNDING_NS)
    assert played.facts["think_time_s"] == 5.0


@pytest.mark.anyio
async def test_without_pauses_no_think_time_is_told() -> None:
    assert (await level_of(closed(1), requests=1).run()).facts["think_time_s"] is None


@pytest.mark.anyio
async def test_a_level_does_not_wait_for_a_pause_that_ends_after_it() -> None:
    played = await level_of(closed(1), Answer(ttft_s=1.0), duration_s=10.0, warmup=0, pause=Pause(100.0)).run()

    assert played.progress.ended_ns - played.progress.began_ns == pytest.approx(1 * NS, abs=100_000)


@pytest.mark.anyio
async def test_stop_ends_a_pause_at_once() -> None:
    played = level_of(closed(1), Answer(ttft_s=1.0), requests=9, warmup=0, pause=Pause(600.0))
    assert played.engine is not None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(played.run)
        await anyio.sleep(5)
        played.engine.stop()

    assert played.progress.ended_ns - played.progress.began_ns == pytest.approx(5 * NS, abs=100_000)
    assert len(played.results) == 1


# -- conversations


def said(ask: Ask) -> list[str]:
    return [message["content"] for message in ask.prompt.messages]


@pytest.mark.anyio
async def test_a_slot_asks_all_turns_each_after_the_real_answers() -> None:
    played = answering()(level_of(closed(1), requests=3, warmup=0, prompts=[THREE]))
    await played.run()

    assert [ask.prompt.id for ask in played.server.asked] == ["a", "a/2", "a/3"]
    assert said(played.server.asked[2]) == ["One", "answer to 0", "Two", "answer to 1", "Three"]
    assert [one.prompt for one in played.measured] == ["a", "a/2", "a/3"]


@pytest.mark.anyio
async def test_the_next_conversation_begins_when_one_is_over() -> None:
    both = [THREE, conversation("b", "Eins", "Zwei")]
    played = await level_of(closed(1), requests=5, warmup=0, prompts=both).run()

    names = [ask.prompt.id for ask in played.server.asked]
    assert sorted(names) == ["a", "a/2", "a/3", "b", "b/2"]
    assert names.index("a/3") == names.index("a") + 2


@pytest.mark.anyio
async def test_slots_keep_their_conversations_apart() -> None:
    several = [conversation(name, *(f"{name}{turn}" for turn in range(4))) for name in "abcdef"]
    played = answering()(level_of(closed(3), uneven, requests=60, warmup=0, prompts=several))
    await played.run()

    for ask in played.server.asked:
        questions = said(ask)[::2]
        assert questions == [f"{ask.prompt.id[0]}{turn}" for turn in range(len(questions))]


@pytest.mark.anyio
async def test_a_turn_that_fails_ends_its_conversation_and_later_turns_are_not_counted() -> None:
    def law(ask: Ask) -> Answer:
        return Answer(error="http_5xx") if ask.request == 1 else Answer()

    played = await level_of(closed(1), law, requests=5, warmup=0, prompts=[THREE]).run()

    assert [ask.prompt.id for ask in played.server.asked] == ["a", "a/2", "a", "a/2", "a/3"]
    assert (played.facts["offered"], played.progress.failed) == (5, 1)


@pytest.mark.anyio
@pytest.mark.parametrize("text", ["", " \n"])
async def test_an_answer_without_text_ends_its_conversation_and_is_marked(text: str) -> None:
    def law(ask: Ask) -> Answer:
        return Answer(text=text) if ask.request == 1 else Answer()

    played = await level_of(closed(1), law, requests=5, warmup=0, prompts=[THREE]).run()

    assert [ask.prompt.id for ask in played.server.asked] == ["a", "a/2", "a", "a/2", "a/3"]
    assert [one.error_message for one in played.measured] == [None, SPEECHLESS, None, None, None]
    assert played.progress.failed == 0


@pytest.mark.anyio
async def test_a_last_answer_without_text_is_not_marked() -> None:
    played = await level_of(closed(1), lambda ask: Answer(text=""), requests=1, warmup=0).run()

    assert played.measured[0].error_message is None


@pytest.mark.anyio
async def test_a_turn_that_is_asked_again_goes_on() -> None:
    def law(ask: Ask) -> Answer:
        return Answer(error="http_5xx") if ask.request == 1 else Answer()

    played = await level_of(closed(1), law, requests=3, warmup=0, prompts=[THREE], retries=1).run()

    assert [ask.prompt.id for ask in played.server.asked] == ["a", "a/2", "a/2", "a/3"]


@pytest.mark.anyio
async def test_users_pause_between_turns_too() -> None:
    played = await level_of(closed(1), requests=3, warmup=0, prompts=[THREE], pause=Pause(2.0)).run()

    assert pauses_ns(played) == pytest.approx([2 * NS] * 2, abs=ROUNDING_NS)


@pytest.mark.anyio
async def test_all_turns_of_a_conversation_have_one_unique_prefix() -> None:
    played = await level_of(closed(1), requests=6, warmup=0, prompts=[THREE], distinct_prompts=True).run()

    firsts = [said(ask)[0] for ask in played.server.asked]
    assert Counter(Counter(firsts).values()) == {3: 2}


@pytest.mark.anyio
async def test_the_end_of_a_level_ends_conversations() -> None:
    played = await level_of(closed(1), Answer(ttft_s=1.0), duration_s=1.5, warmup=0, prompts=[THREE]).run()

    assert [ask.prompt.id for ask in played.server.asked] == ["a", "a/2"]
