"""Retries: new requests with marks of their own, never inside a latency."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest
from trio.testing import MockClock

from loadbench.client import Ask
from tests.support.played import NS, ROUNDING_NS, Answer, Played, closed, level_of, opened


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "trio", {"clock": MockClock(autojump_threshold=0)}


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
