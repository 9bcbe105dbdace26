"""Which turn of the endpoints a request is, on a virtual clock."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from trio.testing import MockClock

from loadbench.client import Ask
from loadbench.engine import Share
from tests.support.played import THREE, Answer, answering, closed, level_of, uneven


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "trio", {"clock": MockClock(autojump_threshold=0)}


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
