"""Levels whose rate changes, replays, users who pause, conversations, retries, shares: on a virtual clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

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
    stopped_after,
    uneven,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "trio", {"clock": MockClock(autojump_threshold=0)}


def due_ns(played: Played) -> list[int]:
    return [one.due_ns for one in sorted(played.results, key=lambda one: one.request)]


def failing_at(*numbers: int, error: str = "http_5xx") -> Callable[[Ask], Answer]:
    """Answers of a second; the requests of these numbers fail after half of one."""
    return lambda ask: Answer(ttft_s=0.5, error=error) if ask.request in numbers else Answer(ttft_s=1.0)


@pytest.mark.parametrize(
    ("level", "options", "after_s", "requests"),
    [
        (shaped("steps 1,0,1 each 1000s"), {"arrivals": "constant"}, 1500, 1000),
        (closed(1), {"requests": 9, "pause": Pause(600.0)}, 5, 1),
        (closed(1), {"law": failing_at(0), "requests": 2, "retries": 1, "retry_backoff_s": 600.0}, 1, 1),
    ],
    ids=["the rest of a shape", "a pause", "a back-off"],
)
async def test_stop_waits_for_nothing_that_is_to_come(
    level: Level, options: dict[str, Any], after_s: float, requests: int
) -> None:
    played = await stopped_after(level_of(level, warmup=0, **options), after_s)

    assert played.progress.ended_ns - played.progress.began_ns == pytest.approx(after_s * NS, abs=1_000_000)
    assert len(played.results) == requests


# -- shapes


@pytest.mark.parametrize("text", ["ramp 1..8 over 20s", "steps 1,4,2 each 5s", "spike 1 to 10 at 5s for 3s"])
async def test_a_shape_starts_requests_when_its_pacer_says_and_ends_by_itself(text: str) -> None:
    played = await level_of(shaped(text), arrivals="constant").run()

    assert due_ns(played) == pytest.approx(list(pacer.shaped(Shape.parse(text).pieces)), abs=ROUNDING_NS)
    assert played.facts["status"] == "complete"


async def test_a_shape_has_random_starts_by_seed_and_repeat() -> None:
    level, again = shaped("ramp 1..8 over 20s"), shaped("ramp 1..8 over 20s", repeat=2)
    played = [due_ns(await level_of(one, seed=7).run()) for one in (level, level, again)]

    wanted = pacer.shaped_poisson(Shape.parse("ramp 1..8 over 20s").pieces, np.random.default_rng([7, 1]))
    assert played[0] == pytest.approx(list(wanted), abs=ROUNDING_NS)
    assert played[0] == pytest.approx(played[1], abs=ROUNDING_NS)
    assert played[0] != played[2]


async def test_a_duration_cuts_a_shape_short() -> None:
    played = await level_of(shaped("ramp 1..8 over 20s"), duration_s=5.0, arrivals="constant").run()

    assert 4.5 * NS < max(due_ns(played)) < 5 * NS


async def test_what_a_spike_brings_beyond_the_cap_of_streams_is_dropped_and_counted() -> None:
    answer = Answer(ttft_s=2.0)
    played = await level_of(shaped("spike 1 to 20 at 5s for 1s"), answer, arrivals="constant", max_streams=6).run()

    # Before it two are in flight, so the spike's first four start, and one more when each of those two ends.
    assert played.facts["offered"] == 30
    assert played.facts["dropped"] == 30 - len(played.results) > 10
    assert max(played.in_flight_at(one.due_ns) for one in played.results) == 6


# -- replays, prompts that are made up


async def test_a_replay_asks_what_the_trace_has_when_the_trace_has_it() -> None:
    trace = recorded(0, 0.5, 0.5, 40)
    played = await level_of(REPLAY, prompts=trace).run()

    assert [ask.prompt for ask in played.server.asked] == [prompts.written(one) for one in trace]
    assert due_ns(played) == pytest.approx([0, 0.5 * NS, 0.5 * NS, 40 * NS], abs=ROUNDING_NS)
    assert played.facts["status"] == "complete"


async def test_a_request_that_a_replay_drops_leaves_the_others_in_their_places() -> None:
    law = {"t1": Answer(ttft_s=5.0)}
    played = level_of(REPLAY, lambda ask: law.get(ask.prompt.id, Answer()), prompts=recorded(0, 1, 10), max_streams=1)
    await played.run()

    assert [ask.prompt.id for ask in played.server.asked] == ["t1", "t3"]
    assert (played.facts["offered"], played.facts["dropped"]) == (3, 1)


async def test_what_is_made_up_has_the_words_that_the_servers_count_asks_for() -> None:
    played = level_of(closed(1), requests=2, warmup=0, prompts=[])
    played.engine.asks([Prompt("a", (), recipe=Recipe("tokens", (("a", 100),)))], prompts.Line(10.0, 1.5))
    await played.run()

    assert {len(ask.prompt.messages[0]["content"].split()) for ask in played.server.asked} == {60}


# -- users who pause


def pauses_ns(played: Played) -> list[int]:
    """From each end to the next start, of a level with one user."""
    ordered = sorted(played.results, key=lambda one: one.request)
    return [after.due_ns - before.end_ns for before, after in pairwise(ordered)]


@pytest.mark.parametrize("asked", [{"requests": 4}, {"requests": 3, "prompts": [THREE]}], ids=["prompts", "turns"])
async def test_a_user_pauses_after_each_answer_and_the_pause_lies_in_no_latency(asked: dict[str, Any]) -> None:
    played = await level_of(closed(1), warmup=0, pause=Pause(2.0), **asked).run()

    assert pauses_ns(played) == pytest.approx([2 * NS] * (asked["requests"] - 1), abs=ROUNDING_NS)
    assert all(one.sent_ns == one.due_ns for one in played.results)


async def test_pauses_are_drawn_for_each_user_by_the_seed() -> None:
    options: dict[str, Any] = {"requests": 9, "warmup": 0, "pause": Pause(2.0, exponential=True)}
    one, again, other = [await level_of(closed(1), seed=seed, **options).run() for seed in (1, 1, 2)]

    assert pauses_ns(one) == pytest.approx(pauses_ns(again), abs=ROUNDING_NS)
    assert pauses_ns(one) != pytest.approx(pauses_ns(other), abs=ROUNDING_NS)
    assert len(set(pauses_ns(one))) == 8


async def test_users_who_pause_keep_to_the_interactive_response_time_law() -> None:
    # X = N / (R + Z): 12 users, answers of 1 s, pauses of 2 s.
    pause = Pause(2.0, exponential=True)
    played = await level_of(closed(12), Answer(ttft_s=1.0), duration_s=600, pause=pause).run()

    assert len(played.measured) / 600 == pytest.approx(12 / 3, rel=0.05)


async def test_the_load_of_users_who_pause_is_whole_when_each_has_begun() -> None:
    played = await level_of(closed(4), Answer(ttft_s=0.00001), requests=20, warmup=0, pause=Pause(5.0)).run()

    assert played.facts["full_ns"] == pytest.approx(pacer.start_offsets_ns(4)[-1], abs=ROUNDING_NS)
    assert played.facts["think_time_s"] == 5.0


async def test_a_level_does_not_wait_for_a_pause_that_ends_after_it() -> None:
    played = await level_of(closed(1), Answer(ttft_s=1.0), duration_s=10.0, warmup=0, pause=Pause(100.0)).run()

    assert played.progress.ended_ns - played.progress.began_ns == pytest.approx(1 * NS, abs=100_000)


# -- conversations


def said(ask: Ask) -> list[str]:
    return [message["content"] for message in ask.prompt.messages]


def without_text_at_1(ask: Ask) -> Answer:
    return Answer(text=" \n") if ask.request == 1 else Answer()


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({"requests": 3}, ["a", "a/2", "a/3"]),
        ({"requests": 5, "law": failing_at(1)}, ["a", "a/2", "a", "a/2", "a/3"]),  # a turn that fails ends it
        ({"requests": 5, "law": without_text_at_1}, ["a", "a/2", "a", "a/2", "a/3"]),
        ({"requests": 3, "law": failing_at(1), "retries": 1}, ["a", "a/2", "a/2", "a/3"]),
        ({"duration_s": 1.5, "law": Answer(ttft_s=1.0)}, ["a", "a/2"]),  # the end of a level
    ],
)
async def test_the_turns_of_a_conversation_are_asked_until_one_fails_or_is_empty(
    options: dict[str, Any], asked: list[str]
) -> None:
    played = await level_of(closed(1), warmup=0, prompts=[THREE], **options).run()

    assert [ask.prompt.id for ask in played.server.asked] == asked
    assert played.progress.failed == sum(one.error is not None for one in played.measured)


async def test_a_slot_asks_all_turns_each_after_the_real_answers() -> None:
    played = answering()(level_of(closed(1), requests=3, warmup=0, prompts=[THREE]))
    await played.run()

    assert said(played.server.asked[2]) == ["One", "answer to 0", "Two", "answer to 1", "Three"]
    assert [one.prompt for one in played.measured] == ["a", "a/2", "a/3"]


async def test_the_next_conversation_begins_when_one_is_over() -> None:
    both = [THREE, conversation("b", "Eins", "Zwei")]
    played = await level_of(closed(1), requests=5, warmup=0, prompts=both).run()

    names = [ask.prompt.id for ask in played.server.asked]
    assert sorted(names) == ["a", "a/2", "a/3", "b", "b/2"]
    assert names.index("a/3") == names.index("a") + 2


async def test_slots_keep_their_conversations_apart() -> None:
    several = [conversation(name, *(f"{name}{turn}" for turn in range(4))) for name in "abcdef"]
    played = answering()(level_of(closed(3), uneven, requests=60, warmup=0, prompts=several))
    await played.run()

    for ask in played.server.asked:
        questions = said(ask)[::2]
        assert questions == [f"{ask.prompt.id[0]}{turn}" for turn in range(len(questions))]


@pytest.mark.parametrize("text", ["", " \n"])
async def test_an_answer_without_text_that_ends_a_conversation_is_marked_but_not_the_last_one(text: str) -> None:
    law = lambda ask: Answer(text=text) if ask.request in (1, 4) else Answer()  # noqa: E731
    played = await level_of(closed(1), law, requests=5, warmup=0, prompts=[THREE]).run()

    assert [one.error_message for one in played.measured] == [None, SPEECHLESS, None, None, None]
    assert played.progress.failed == 0


async def test_all_turns_of_a_conversation_have_one_unique_prefix() -> None:
    played = await level_of(closed(1), requests=6, warmup=0, prompts=[THREE], distinct_prompts=True).run()

    firsts = [said(ask)[0] for ask in played.server.asked]
    assert Counter(Counter(firsts).values()) == {3: 2}


# -- retries: new requests with marks of their own, never inside a latency


@pytest.mark.parametrize(
    ("law", "options", "retries"),
    [
        (failing_at(1), {"requests": 3, "retries": 1}, [(0, None), (1, None), (2, 1), (3, None)]),
        (failing_at(1), {"requests": 3}, [(0, None), (1, None), (2, None)]),
        (failing_at(*range(9)), {"requests": 1, "retries": 2}, [(0, None), (1, 0), (2, 1)]),  # no more than that
        # What asking again does not mend is not asked again.
        (failing_at(0, error="http_4xx"), {"requests": 2, "retries": 3}, [(0, None), (1, None)]),
        (failing_at(0, error="redirect"), {"requests": 2, "retries": 3}, [(0, None), (1, None)]),
        (failing_at(0, error="local"), {"requests": 2, "retries": 3}, [(0, None), (1, None)]),
        (failing_at(0), {"requests": 2, "retries": 3, "warmup": 1}, [(1, None), (2, None)]),
        (failing_at(0), {"duration_s": 3.0, "retries": 1, "retry_backoff_s": 5.0}, [(0, None)]),  # after the end
    ],
)
async def test_a_failed_request_is_asked_again_under_a_number_of_its_own(
    law: Callable[[Ask], Answer], options: dict[str, Any], retries: list[tuple[int, int | None]]
) -> None:
    played = await level_of(closed(1), law, **{"warmup": 0, **options}).run()
    progress = played.progress
    prompts_by_number = {ask.request: ask.prompt for ask in played.server.asked}

    assert [(one.request, one.retry_of) for one in played.measured] == retries
    assert all(prompts_by_number[number] == prompts_by_number[of] for number, of in retries if of is not None)
    assert progress.issued == progress.failed + progress.completed == len(retries)  # a failure stays one


async def test_the_back_off_doubles_and_lies_inside_no_latency() -> None:
    played = await level_of(closed(1), failing_at(0, 1), requests=1, warmup=0, retries=2, retry_backoff_s=3.0).run()

    # Fails at 0.5 s, waits 3 s, fails after 0.5 s more, waits 6 s.
    assert [one.due_ns for one in played.measured] == pytest.approx([0, 3.5 * NS, 10 * NS], abs=ROUNDING_NS)
    assert played.measured[2].sent_ns == played.measured[2].due_ns


async def test_in_open_loop_others_start_while_one_waits_to_be_asked_again() -> None:
    law = failing_at(0)
    played = await level_of(opened(1.0), law, requests=4, warmup=0, arrivals="constant", retries=1).run()

    # 0 fails at 0.5 s; its retry, due at 1.5 s, is numbered after the request that was due at 1 s.
    retries = [(one.request, one.retry_of) for one in played.measured]
    assert retries == [(0, None), (1, None), (2, 0), (3, None), (4, None)]


async def test_a_retry_beyond_the_cap_of_streams_is_dropped_and_counted() -> None:
    def law(ask: Ask) -> Answer:
        return Answer(ttft_s=0.5, error="http_5xx") if ask.request == 0 else Answer(ttft_s=60.0)

    level = level_of(opened(1.0), law, requests=2, warmup=0, arrivals="constant", retries=1, max_streams=1)
    progress = (await level.run()).progress

    # 1 holds the only stream from 1 s on, as the retry falls due at 1.5 s.
    assert (progress.issued, progress.dropped, progress.retried) == (2, 1, 1)


@pytest.mark.parametrize(("streamed", "counts"), [(True, (2, 8, 2)), (False, (0, 0, 2))])
async def test_of_whole_answers_no_first_token_and_no_gap_is_recorded(
    streamed: bool, counts: tuple[int, int, int]
) -> None:
    answer = Answer(ttft_s=1.0, itl_s=0.1, events=5)  # of a token each
    progress = (await level_of(closed(1), answer, requests=2, warmup=0, streamed=streamed).run()).progress

    assert progress.text_events == 10
    assert tuple(progress.histograms[name].count for name in ("ttft", "itl", "e2e")) == counts


# -- which turn of the endpoints a request is


@pytest.mark.parametrize(
    ("level", "options", "turns"),
    [
        (closed(3), {"law": uneven, "requests": 17, "warmup": 3}, list(range(20))),
        # By the requests' numbers conversations of two turns would all begin at the same one of two endpoints.
        (closed(1), {"requests": 6, "prompts": [THREE]}, [0, 0, 0, 1, 1, 1]),
        # A retry is a turn of its own, and the conversation stays where it was.
        (closed(1), {"law": failing_at(1), "requests": 3, "prompts": [THREE], "retries": 1}, [0, 0, 1, 0]),
    ],
)
async def test_conversations_take_turns_in_the_order_of_their_start(
    level: Level, options: dict[str, Any], turns: list[int]
) -> None:
    played = answering()(level_of(level, **{"warmup": 0, **options}))
    await played.run()

    assert [ask.conversation for ask in played.server.asked] == turns


async def test_shares_of_a_level_meet_each_endpoint_as_the_whole_does() -> None:
    parts = await shares(closed(2), 2, law=uneven, requests=40, warmup=0)
    asked = [[ask.conversation % 2 for ask in part.server.asked] for part in parts]

    assert [Counter(each) for each in asked] == [{0: 10, 1: 10}] * 2
    assert [each[0] for each in asked] == [0, 1]


# -- a level in shares: together they are the level as one client would make it


async def shares(level: Level, of: int, **options: Any) -> list[Played]:
    return [await level_of(level, share=Share(index, of), **options).run() for index in range(of)]


SAME_STARTS: dict[str, tuple[Level, dict[str, Any]]] = {
    "a poisson rate": (opened(20.0), {"requests": 101}),
    "a constant rate": (opened(20.0), {"requests": 101, "arrivals": "constant"}),
    "a rate to its end": (opened(0.5), {"duration_s": 20.0, "warmup": 0}),
    "a rate to its end after a warm-up": (opened(0.5), {"duration_s": 20.0, "warmup": 3}),
    "streams": (closed(6), {"requests": 6}),
    "users who pause": (closed(4), {"law": Answer(ttft_s=1), "requests": 12, "pause": Pause(2.0, exponential=True)}),
    "a shape": (shaped("ramp 1..8 over 20s"), {}),
    "unique prefixes": (opened(20.0), {"requests": 30, "distinct_prompts": True, "salt": 5}),
    "a replay": (REPLAY, {"prompts": recorded(0, 0.5, 0.5, 40)}),  # of five shares one has nothing to do
}


@pytest.mark.parametrize("of", [2, 3, 5])
@pytest.mark.parametrize("case", SAME_STARTS)
async def test_shares_ask_what_the_whole_would_when_the_whole_would(case: str, of: int) -> None:
    level, options = SAME_STARTS[case]
    [whole] = await shares(level, 1, **options)
    parts = await shares(level, min(of, level.concurrency or of), **options)
    due = sorted(one.due_ns for part in parts for one in part.results)
    first = (level.concurrency or len(due)) + 2  # in closed loop the last starts depend on who ends when

    assert due[:first] == pytest.approx(sorted(one.due_ns for one in whole.results)[:first], abs=ROUNDING_NS)
    if level.concurrency is None:
        asked = {ask.request: ask.prompt for part in parts for ask in part.server.asked}
        assert asked == {ask.request: ask.prompt for ask in whole.server.asked}


@pytest.mark.parametrize("of", [1, 2, 3, 5])
async def test_shares_of_streams_make_all_requests_under_numbers_of_their_own(of: int) -> None:
    parts = await shares(closed(7), of, law=uneven, requests=53, warmup=7)
    numbers = [one.request for part in parts for one in part.results]

    assert len(numbers) == len(set(numbers)) == 60
    assert sum(one.warmup for part in parts for one in part.results) == 7
    assert sum(max(part.in_flight_at(one.due_ns) for one in part.results) for part in parts) == 7


async def test_a_share_is_full_at_its_own_streams() -> None:
    part = (await shares(closed(5), 2, law=Answer(ttft_s=1), requests=20))[1]

    assert part.facts["full_ns"] == pytest.approx(150_000, abs=ROUNDING_NS)  # the fourth of five


@pytest.mark.parametrize("of", [1, 2, 3, 5])
async def test_no_share_waits_beyond_the_levels_end(of: int) -> None:
    parts = await shares(opened(0.1), of, duration_s=15.0, arrivals="constant", warmup=0)

    assert sorted(one.due_ns for part in parts for one in part.results) == pytest.approx([0, 10e9], abs=ROUNDING_NS)
    assert max(part.facts["duration_s"] for part in parts) == pytest.approx(15, abs=0.1)
