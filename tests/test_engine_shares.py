"""A level in shares: together they are the level as one client would make it."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock

from loadbench.engine import Share
from loadbench.scenario import Level, Pause
from tests.support.played import (
    ALIKE,
    REPLAY,
    ROUNDING_NS,
    Answer,
    Played,
    closed,
    level_of,
    opened,
    recorded,
    shaped,
    uneven,
)

COUNTS = [1, 2, 3, 5]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "trio", {"clock": MockClock(autojump_threshold=0)}


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
