"""Levels whose rate changes, replays, users who pause, conversations: on a virtual clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import anyio
import numpy as np
import pytest
from trio.testing import MockClock

from loadbench import prompts
from loadbench.client import Ask
from loadbench.engine import Share, pacer
from loadbench.prompts import Prompt, Recipe
from loadbench.scenario import Level, Pause, Shape
from loadbench.store.record import SPEECHLESS
from tests.support.played import (
    ALIKE,
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
    opened,
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


# == retries: new requests with marks of their own, never inside a latency


def failing_at(*numbers: int, error: str = "http_5xx") -> Callable[[Ask], Answer]:
    """Answers of a second; the requests of these numbers fail after half of one."""

    def law(ask: Ask) -> Answer:
        return Answer(ttft_s=0.5, error=error) if ask.request in numbers else Answer(ttft_s=1.0)

    return law


def retries_of(played: Played) -> list[tuple[int, int | None]]:
    return [(one.request, one.retry_of) for one in played.measured]


@pytest.mark.anyio
async def test_a_failed_request_is_asked_again_under_a_number_of_its_own() -> None:
    played = await level_of(closed(1), failing_at(1), requests=3, warmup=0, retries=1).run()

    assert retries_of(played) == [(0, None), (1, None), (2, 1), (3, None)]
    assert [ask.prompt for ask in played.server.asked[1:3]] == [played.server.asked[1].prompt] * 2


@pytest.mark.anyio
async def test_without_retries_a_failure_is_left_alone() -> None:
    played = await level_of(closed(1), failing_at(1), requests=3, warmup=0).run()

    assert retries_of(played) == [(0, None), (1, None), (2, None)]


@pytest.mark.anyio
async def test_the_back_off_doubles_and_lies_inside_no_latency() -> None:
    played = await level_of(closed(1), failing_at(0, 1), requests=1, warmup=0, retries=2, retry_backoff_s=3.0).run()

    # Fails at 0.5 s, waits 3 s, fails after 0.5 s more, waits 6 s.
    assert [one.due_ns for one in played.measured] == pytest.approx([0, 3.5 * NS, 10 * NS], abs=ROUNDING_NS)
    assert played.measured[2].sent_ns == played.measured[2].due_ns


@pytest.mark.anyio
async def test_a_failure_stays_a_failure_and_every_request_is_counted() -> None:
    progress = (await level_of(closed(1), failing_at(1), requests=3, warmup=0, retries=1).run()).progress

    assert (progress.issued, progress.failed, progress.completed) == (4, 1, 3)


@pytest.mark.anyio
async def test_no_more_is_asked_again_than_was_said() -> None:
    played = await level_of(closed(1), failing_at(*range(9)), requests=1, warmup=0, retries=2).run()

    assert retries_of(played) == [(0, None), (1, 0), (2, 1)]


@pytest.mark.anyio
@pytest.mark.parametrize("error", ["http_4xx", "redirect", "local"])
async def test_what_asking_again_does_not_mend_is_not_asked_again(error: str) -> None:
    played = await level_of(closed(1), failing_at(0, error=error), requests=2, warmup=0, retries=3).run()

    assert retries_of(played) == [(0, None), (1, None)]


@pytest.mark.anyio
async def test_a_warm_up_request_is_not_repeated() -> None:
    played = await level_of(closed(1), failing_at(0), requests=2, warmup=1, retries=3).run()

    assert [one.retry_of for one in played.results] == [None] * 3


@pytest.mark.anyio
async def test_a_retry_that_would_start_after_the_end_does_not() -> None:
    played = await level_of(closed(1), failing_at(0), duration_s=3.0, warmup=0, retries=1, retry_backoff_s=5.0).run()

    assert retries_of(played) == [(0, None)]


@pytest.mark.anyio
async def test_a_stop_ends_the_back_off_at_once() -> None:
    played = level_of(closed(1), failing_at(0), requests=2, warmup=0, retries=1, retry_backoff_s=600.0)
    assert played.engine is not None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(played.run)
        await anyio.sleep(1)
        played.engine.stop()

    assert played.progress.ended_ns - played.progress.began_ns == pytest.approx(1 * NS, abs=100_000)


@pytest.mark.anyio
async def test_in_open_loop_others_start_while_one_waits_to_be_asked_again() -> None:
    law = failing_at(0)
    played = await level_of(opened(1.0), law, requests=4, warmup=0, arrivals="constant", retries=1).run()

    # 0 fails at 0.5 s; its retry, due at 1.5 s, is numbered after the request that was due at 1 s.
    assert retries_of(played) == [(0, None), (1, None), (2, 0), (3, None), (4, None)]


@pytest.mark.anyio
async def test_a_retry_beyond_the_cap_of_streams_is_dropped_and_counted() -> None:
    def law(ask: Ask) -> Answer:
        return Answer(ttft_s=0.5, error="http_5xx") if ask.request == 0 else Answer(ttft_s=60.0)

    level = level_of(opened(1.0), law, requests=2, warmup=0, arrivals="constant", retries=1, max_streams=1)
    progress = (await level.run()).progress

    # 1 holds the only stream from 1 s on, as the retry falls due at 1.5 s.
    assert (progress.issued, progress.dropped, progress.retried) == (2, 1, 1)


@pytest.mark.anyio
async def test_of_whole_answers_no_first_token_and_no_gap_is_recorded() -> None:
    answer = Answer(ttft_s=1.0, itl_s=0.1, events=5)  # of a token each
    streamed = await level_of(closed(1), answer, requests=2, warmup=0).run()
    whole = await level_of(closed(1), answer, requests=2, warmup=0, streamed=False).run()

    counts = [
        {name: each.progress.histograms[name].count for name in ("ttft", "itl", "e2e")} for each in (streamed, whole)
    ]
    assert (streamed.progress.text_events, whole.progress.text_events) == (10, 10)
    assert counts == [{"ttft": 2, "itl": 8, "e2e": 2}, {"ttft": 0, "itl": 0, "e2e": 2}]


# == which turn of the endpoints a request is, on a virtual clock


def of_turns(asks: list[Ask]) -> list[int]:
    return [ask.conversation for ask in asks]


@pytest.mark.anyio
async def test_requests_take_turns_in_the_order_of_their_start() -> None:
    played = await level_of(closed(3), uneven, requests=20).run()

    assert of_turns(played.server.asked) == list(range(23))


@pytest.mark.anyio
async def test_all_turns_of_a_conversation_stay_with_one_endpoint() -> None:
    played = answering()(level_of(closed(1), requests=6, warmup=0, prompts=[THREE]))
    await played.run()

    # By the requests' numbers conversations of two turns would all begin at the same one of two endpoints.
    assert of_turns(played.server.asked) == [0, 0, 0, 1, 1, 1]


@pytest.mark.anyio
async def test_a_retry_is_a_turn_of_its_own_and_the_conversation_stays_where_it_was() -> None:
    def law(ask: Ask) -> Answer:
        return Answer(error="http_5xx" if ask.request == 1 else None)

    played = answering()(level_of(closed(1), law, requests=3, warmup=0, prompts=[THREE], retries=1))
    await played.run()

    assert [ask.retry_of for ask in played.server.asked] == [None, None, 1, None]
    assert of_turns(played.server.asked) == [0, 0, 1, 0]


@pytest.mark.anyio
async def test_shares_of_a_level_meet_each_endpoint_as_the_whole_does() -> None:
    shares = [level_of(closed(2), uneven, requests=40, warmup=0, share=Share(index, 2)) for index in range(2)]
    asked = [[one.conversation % 2 for one in (await share.run()).server.asked] for share in shares]

    assert [Counter(each) for each in asked] == [{0: 10, 1: 10}] * 2
    assert [each[0] for each in asked] == [0, 1]


# == a level in shares: together they are the level as one client would make it


COUNTS = [1, 2, 3, 5]


async def shares(level: Level, of: int, law: object = ALIKE, **options: object) -> list[Played]:
    return [await level_of(level, law, share=Share(index, of), **options).run() for index in range(of)]  # type: ignore[call-arg, arg-type]


@pytest.mark.anyio
@pytest.mark.parametrize("of", COUNTS)
@pytest.mark.parametrize("arrivals", ["poisson", "constant"])
async def test_shares_of_a_rate_start_when_the_whole_would(of: int, arrivals: str) -> None:
    level = opened(20.0)
    whole = (await shares(level, 1, requests=101, arrivals=arrivals))[0]

    parts = await shares(level, of, requests=101, arrivals=arrivals)
    due = sorted(one.due_ns for part in parts for one in part.results)

    assert due == pytest.approx(sorted(one.due_ns for one in whole.results), abs=ROUNDING_NS)


@pytest.mark.anyio
@pytest.mark.parametrize("of", COUNTS)
async def test_a_share_asks_at_each_time_what_the_whole_would(of: int) -> None:
    whole = (await shares(opened(20.0), 1, requests=60))[0]

    parts = await shares(opened(20.0), of, requests=60)
    asked = {one.request: one.prompt for part in parts for one in part.results}

    assert asked == {one.request: one.prompt for one in whole.results}


@pytest.mark.anyio
@pytest.mark.parametrize("of", COUNTS)
async def test_shares_of_streams_make_all_requests_under_numbers_of_their_own(of: int) -> None:
    parts = await shares(closed(7), of, uneven, requests=53, warmup=7)
    numbers = [one.request for part in parts for one in part.results]

    assert len(numbers) == len(set(numbers)) == 60
    assert sum(one.warmup for part in parts for one in part.results) == 7
    assert sum(max(part.in_flight_at(one.due_ns) for one in part.results) for part in parts) == 7


@pytest.mark.anyio
async def test_shares_start_their_streams_between_each_other() -> None:
    whole = (await shares(closed(6), 1, requests=6))[0]

    parts = await shares(closed(6), 3, requests=6)
    due = sorted(one.due_ns for part in parts for one in part.results)

    assert due == pytest.approx([one.due_ns for one in whole.results], abs=ROUNDING_NS)


@pytest.mark.anyio
async def test_a_share_is_full_at_its_own_streams() -> None:
    part = (await shares(closed(5), 2, Answer(ttft_s=1), requests=20))[1]

    assert part.facts["full_ns"] == pytest.approx(150_000, abs=ROUNDING_NS)  # the fourth of five


@pytest.mark.anyio
async def test_users_of_shares_pause_as_those_of_the_whole() -> None:
    pause = Pause.parse("exponential 2s")
    whole = (await shares(closed(4), 1, Answer(ttft_s=1), requests=12, pause=pause))[0]

    parts = await shares(closed(4), 2, Answer(ttft_s=1), requests=12, pause=pause)
    second = sorted(one.due_ns for part in parts for one in part.results)[4:6]

    assert second == pytest.approx(sorted(one.due_ns for one in whole.results)[4:6], abs=ROUNDING_NS)


@pytest.mark.anyio
async def test_prefixes_of_shares_are_those_of_the_whole() -> None:
    whole = (await shares(opened(20.0), 1, requests=30, distinct_prompts=True, salt=5))[0]

    parts = await shares(opened(20.0), 3, requests=30, distinct_prompts=True, salt=5)
    asked = {str(ask.prompt.messages) for part in parts for ask in part.server.asked}

    assert len(asked) == 30
    assert asked == {str(ask.prompt.messages) for ask in whole.server.asked}


@pytest.mark.anyio
@pytest.mark.parametrize("of", COUNTS)
@pytest.mark.parametrize("warmup", [0, 3])
async def test_shares_of_a_rate_end_when_the_whole_would(of: int, warmup: int) -> None:
    whole = (await shares(opened(0.5), 1, duration_s=20.0, warmup=warmup))[0]

    parts = await shares(opened(0.5), of, duration_s=20.0, warmup=warmup)
    due = sorted(one.due_ns for part in parts for one in part.results)

    assert due == pytest.approx(sorted(one.due_ns for one in whole.results), abs=ROUNDING_NS)


@pytest.mark.anyio
@pytest.mark.parametrize("of", COUNTS)
async def test_no_share_waits_beyond_the_levels_end(of: int) -> None:
    parts = await shares(opened(0.1), of, duration_s=15.0, arrivals="constant", warmup=0)

    assert sorted(one.due_ns for part in parts for one in part.results) == pytest.approx([0, 10e9], abs=ROUNDING_NS)
    assert max(part.facts["duration_s"] for part in parts) == pytest.approx(15, abs=0.1)


@pytest.mark.anyio
@pytest.mark.parametrize("of", COUNTS)
async def test_shares_of_a_replay_ask_what_the_trace_has_when_the_trace_has_it(of: int) -> None:
    trace = recorded(0, 0.5, 0.5, 40)  # of five shares one has nothing to do

    parts = await shares(REPLAY, of, prompts=trace)
    asked = {one.request: (one.prompt, one.due_ns) for part in parts for one in part.results}

    assert [asked[number][0] for number in range(4)] == ["t1", "t2", "t3", "t4"]
    assert [asked[n][1] for n in range(4)] == pytest.approx([0, 0.5e9, 0.5e9, 40e9], abs=ROUNDING_NS)


@pytest.mark.anyio
@pytest.mark.parametrize("of", COUNTS)
async def test_shares_of_a_shape_start_when_the_whole_would_and_end(of: int) -> None:
    level = shaped("ramp 1..8 over 20s")
    whole = (await shares(level, 1))[0]

    parts = await shares(level, of)
    due = sorted(one.due_ns for part in parts for one in part.results)

    assert due == pytest.approx(sorted(one.due_ns for one in whole.results), abs=ROUNDING_NS)
