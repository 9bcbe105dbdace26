"""Levels on a virtual clock: who starts when, what ends a level, and that every request is accounted for.

Trio's clock jumps to the next deadline, so a level of minutes takes milliseconds and every time in it is exact to
the rounding of a float.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import anyio
import numpy as np
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from loadbench.client import Ask
from loadbench.engine import FAILURES_IN_A_ROW, Limits, Progress, facts, pacer
from loadbench.engine.loop import _record as record
from loadbench.prompts import DEFAULT, Prompt
from loadbench.scenario import Level
from tests.support.played import (
    NS,
    ROUNDING_NS,
    Answer,
    Played,
    asked,
    closed,
    failing,
    level_of,
    opened,
    stopped_after,
    uneven,
)
from tests.support.streams import stream

pytestmark = pytest.mark.anyio
EITHER = pytest.mark.parametrize("level", [closed(3), opened(3.0)], ids=["closed", "open"])


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "trio", {"clock": MockClock(autojump_threshold=0)}


# -- closed loop


@pytest.mark.parametrize("concurrency", [1, 3, 16])
async def test_every_slot_is_filled_from_full_to_the_last_issue(concurrency: int) -> None:
    played = await level_of(closed(concurrency), uneven, requests=60).run()
    full_ns, last_ns = played.facts["full_ns"], played.facts["last_issue_ns"]

    overlap_ns = sum(max(0, min(one.end_ns, last_ns) - max(one.due_ns, full_ns)) for one in played.results)
    streams = overlap_ns / (last_ns - full_ns)

    assert streams == pytest.approx(concurrency, rel=1e-6)


async def test_slots_start_apart_by_the_pacer_on_connections_that_are_open() -> None:
    played = await level_of(closed(4), requests=10, max_streams=3).run()  # a cap of open loops alone
    first = sorted(one.due_ns for one in played.results)[:4]

    assert first == pytest.approx(pacer.start_offsets_ns(4), abs=ROUNDING_NS)
    assert played.server.warmed == [4]


async def test_a_freed_slot_is_due_at_once() -> None:
    played = await level_of(closed(2), Answer(ttft_s=1), requests=9, warmup=0).run()

    ends = sorted(one.end_ns for one in played.results)
    later = sorted(one.due_ns for one in played.results)[2:]

    assert later == ends[: len(later)]


@pytest.mark.parametrize(
    ("requests", "concurrency", "warmup"), [(1, 1, 1), (7, 3, 3), (3, 8, 0), (100, 10, 10), (5, 2, 3)]
)
async def test_exactly_the_requests_of_the_plan_are_measured_after_the_warm_up(
    requests: int, concurrency: int, warmup: int
) -> None:
    played = await level_of(closed(concurrency), uneven, requests=requests, warmup=warmup).run()
    marks = [one.warmup for one in sorted(played.results, key=lambda one: one.request)]

    assert marks == [True] * warmup + [False] * requests
    assert (played.facts["offered"], played.facts["warmup_requests"]) == (requests, warmup)
    assert (played.facts["measured_from_ns"] == 0) == (warmup == 0)
    assert (played.facts["full_ns"] is None) == (requests + warmup < concurrency)


async def test_warmup_hands_over_without_a_drain() -> None:
    played = await level_of(closed(4), uneven, requests=20, warmup=8).run()

    streams = played.in_flight_at(played.facts["measured_from_ns"])
    still_warm = sum(one.warmup and one.end_ns > played.facts["measured_from_ns"] for one in played.results)

    assert (streams, still_warm) == (4, 3)


# -- what ends a level


async def test_a_duration_counts_from_the_first_measured_request() -> None:
    played = await level_of(closed(3), uneven, duration_s=10.0, warmup=30).run()
    began_ns = played.facts["measured_from_ns"]

    dues = [one.due_ns - began_ns for one in played.measured]

    assert began_ns > 5 * NS, "the warm-up took its time"
    assert 9 * NS < max(dues) < 10 * NS


async def test_requests_in_flight_at_the_end_of_the_duration_run_to_their_own_end() -> None:
    played = await level_of(closed(3), Answer(ttft_s=7), duration_s=10.0).run()

    assert {one.error for one in played.results} == {None}
    assert played.progress.ended_ns - played.progress.began_ns == pytest.approx(21 * NS, rel=1e-3)


@pytest.mark.parametrize(("requests", "duration_s", "measured"), [(5, 100.0, 5), (500, 10.0, 10)])
async def test_whichever_limit_comes_first_ends_the_level(requests: int, duration_s: float, measured: int) -> None:
    played = await level_of(closed(1), requests=requests, duration_s=duration_s, warmup=0).run()

    assert len(played.measured) == measured


@EITHER
async def test_stop_starts_nothing_more_and_drains(level: Level) -> None:
    played = await stopped_after(level_of(level, Answer(ttft_s=3), duration_s=1000.0), 10)

    assert all(one.due_ns <= 10 * NS for one in played.results)
    assert any(one.end_ns > 10 * NS for one in played.results)
    assert {one.error for one in played.results} == {None}


async def test_stop_does_not_wait_for_the_next_due_time() -> None:
    level = level_of(opened(0.001), duration_s=1e6, arrivals="constant")  # due at 0 and 1000 s
    played = await stopped_after(level, 10)

    assert played.progress.ended_ns - played.progress.began_ns == pytest.approx(10 * NS, abs=ROUNDING_NS)


@pytest.mark.parametrize("level", [closed(3), opened(0.001)], ids=["closed", "open"])
async def test_a_level_that_has_enough_starts_nothing_more_and_the_next_one_runs(level: Level) -> None:
    played = level_of(level, Answer(ttft_s=3), duration_s=1e6, warmup=0, arrivals="constant")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(played.run)
        await anyio.sleep(10)
        played.engine.end_level(played.progress)
    following = Progress(closed(1), 1, Limits(2, None, 0))
    await played.engine.run(following)

    assert played.progress.ended_ns - played.progress.began_ns < 13 * NS
    assert facts(played.progress, stopped=False)["status"] == "complete"
    assert following.completed == 2


@EITHER
async def test_cancellation_hands_over_every_request_in_flight_as_cancelled(level: Level) -> None:
    played = level_of(level, Answer(ttft_s=4.5), duration_s=1000.0, warmup=2)

    with anyio.move_on_after(20):
        await played.run()
    progress = played.progress
    cancelled = [one for one in played.results if one.error == "cancelled"]

    assert len(played.results) == len(played.server.asked)
    assert {one.request for one in cancelled} == {one.request for one in played.results if one.end_ns >= 20 * NS - 1}
    assert progress.cancelled == len(cancelled) >= 3
    assert progress.in_flight == 0
    assert progress.issued == progress.completed + progress.failed + progress.cancelled
    assert progress.ended_ns - progress.began_ns == pytest.approx(20 * NS, abs=ROUNDING_NS)


@pytest.mark.parametrize(
    ("level", "law", "reason"),
    [
        (closed(4), failing, "no request completed; the last one: http_5xx: as the law says"),
        (opened(40.0), failing, "no request completed; the last one: http_5xx: as the law says"),
        (
            closed(4),
            lambda ask: Answer(ttft_s=0.1, error="connect" if ask.request > 200 else None),
            "the server went away in mid-level; the last request: connect: as the law says",
        ),
    ],
    ids=["only fails, closed", "only fails, open", "dies"],
)
async def test_a_server_that_is_gone_ends_the_level(level: Level, law: Callable[[Ask], Answer], reason: str) -> None:
    played = await level_of(level, law, requests=10_000).run()

    assert FAILURES_IN_A_ROW <= played.progress.failed < FAILURES_IN_A_ROW + 4
    assert (played.facts["status"], played.facts["reason"]) == ("failed", reason)


@pytest.mark.parametrize(
    "error_of",
    [
        lambda request: "connect" if request % FAILURES_IN_A_ROW else None,  # for a while
        *(lambda request, error=error: None if request == 2 else error for error in ("http_5xx", "truncated")),
        lambda request: None if request == 2 else "timeout_first_token",
    ],
)
async def test_a_server_that_answers_between_failures_or_at_all_is_not_gone(
    error_of: Callable[[int], str | None],
) -> None:
    played = await level_of(closed(1), lambda ask: Answer(ttft_s=0.01, error=error_of(ask.request)), requests=500).run()

    assert len(played.measured) == 500
    assert played.facts["status"] == "complete"


@pytest.mark.parametrize(("failing", "status"), [(2, "complete"), (3, "failed")])
async def test_a_server_that_went_away_just_before_the_end_fails_the_level(failing: int, status: str) -> None:
    def law(ask: Ask) -> Answer:
        return Answer(ttft_s=0.01, error="connect" if ask.request >= 20 - failing else None)

    played = await level_of(closed(1), law, requests=20, warmup=0).run()

    assert played.facts["status"] == status


async def test_a_full_server_that_turns_requests_away_is_not_gone() -> None:
    def law(ask: Ask) -> Answer:
        return Answer(ttft_s=0.5) if ask.request % 500 < 2 else Answer(ttft_s=0.001, error="http_429")

    played = await level_of(closed(32), law, duration_s=0.6, warmup=0).run()

    assert played.progress.completed > 2
    assert played.progress.failed > 1000
    assert played.facts["status"] == "complete"


# -- open loop


@pytest.mark.parametrize("arrivals", ["constant", "poisson"])
@pytest.mark.parametrize("ttft_s", [0.001, 2.0, 500.0], ids=["fast", "slow", "stuck"])
async def test_due_times_are_the_pacers_whatever_the_server_does(arrivals: str, ttft_s: float) -> None:
    played = await level_of(opened(5.0), Answer(ttft_s=ttft_s), requests=200, arrivals=arrivals, seed=4).run()
    starts = pacer.constant(5.0) if arrivals == "constant" else pacer.poisson(5.0, np.random.default_rng([4, 1]))

    assert [one.due_ns for one in played.measured] == list(islice(starts, 200))
    assert max(abs((one.sent_ns or 0) - one.due_ns) for one in played.results) <= ROUNDING_NS


@pytest.mark.parametrize(
    ("level", "ms"),
    [(opened(5.0), {"ttft": 250, "ttft_from_sent": 200}), (closed(1), {"ttft": 200})],
    ids=["open", "closed"],
)
def test_in_open_loop_ttft_is_recorded_from_due_and_from_sent(level: Level, ms: dict[str, float]) -> None:
    progress = Progress(level, 1, Limits(1, None, 0))

    record(progress, stream(queued=50, ttft=200), streamed=True)
    progress.count()

    found = {name: histogram.max for name, histogram in progress.histograms.items() if name.startswith("ttft")}
    assert found == pytest.approx({name: value * 1000 for name, value in ms.items()}, rel=2e-3)


async def test_what_is_due_beyond_max_streams_is_dropped_and_counted() -> None:
    # Due each second, each takes 10 s, 4 at once: in each ten seconds 4 are sent and 6 dropped.
    played = await level_of(
        opened(1.0), Answer(ttft_s=9.5), requests=100, max_streams=4, warmup=0, arrivals="constant"
    ).run()

    assert (played.facts["dropped"], played.facts["offered"], len(played.measured)) == (60, 100, 40)
    assert max(played.in_flight_at(one.due_ns) for one in played.results) == 4


async def test_what_is_dropped_while_warming_up_is_not_offered_and_keeps_its_number() -> None:
    # Each takes 2.5 s, one at a time: every third is sent, and the first five are warm-up.
    played = await level_of(
        opened(1.0), Answer(ttft_s=2.5), requests=10, max_streams=1, warmup=5, arrivals="constant"
    ).run()

    assert [one.request for one in played.results] == [0, 3, 6, 9, 12]
    assert all(one.request == round(one.due_ns / NS) for one in played.results)
    assert (played.facts["warmup_requests"], played.facts["offered"], played.facts["dropped"]) == (2, 10, 7)


async def test_an_open_loops_duration_holds_every_start_that_is_due_in_it() -> None:
    played = await level_of(opened(4.0), Answer(ttft_s=30), duration_s=10.0, warmup=3, arrivals="constant").run()

    assert [one.due_ns * 4 // NS for one in played.measured] == list(range(3, 43))


async def test_an_open_loop_that_drains_says_so() -> None:
    phases = []
    played = level_of(opened(4.0), Answer(ttft_s=5), duration_s=2.0, arrivals="constant")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(played.run)
        for _ in range(2):
            await anyio.sleep(1.1)
            phases.append(played.progress.phase)

    assert phases == ["measuring", "draining"]


async def test_an_open_loop_opens_no_more_connections_than_it_may_use() -> None:
    played = await level_of(opened(100.0), Answer(ttft_s=0.1), requests=5, warmup=100, max_streams=8).run()

    assert played.server.warmed == [8]


# -- accounting


@st.composite
def scripts(draw: st.DrawFn) -> Callable[[Ask], Answer]:
    """A server whose answers differ in length and fail at will."""
    errors = st.sampled_from([None, None, "http_5xx", "reset", "truncated"])
    answer = st.builds(
        Answer, ttft_s=st.floats(0.0, 5.0), events=st.integers(1, 3), itl_s=st.sampled_from([0.0, 0.3]), error=errors
    )
    answers = draw(st.lists(answer, min_size=1, max_size=12))
    return lambda ask: answers[ask.request % len(answers)]


@settings(max_examples=100, deadline=None)
@given(
    law=scripts(),
    level=st.one_of(st.integers(1, 9).map(closed), st.floats(0.5, 30).map(opened)),
    requests=st.integers(1, 40),
    limits=st.fixed_dictionaries({"warmup": st.integers(0, 12), "max_streams": st.integers(1, 10)}),
    stop_after_s=st.one_of(st.none(), st.floats(0, 20)),
    cancel_after_s=st.one_of(st.none(), st.floats(0, 20)),
)
def test_every_request_is_accounted_for(
    law: Callable[[Ask], Answer],
    level: Level,
    requests: int,
    limits: dict[str, int],
    stop_after_s: float | None,
    cancel_after_s: float | None,
) -> None:
    async def play() -> Played:
        played = level_of(level, law, requests=requests, **limits)
        with anyio.move_on_after(math.inf if cancel_after_s is None else cancel_after_s):
            await (played.run() if stop_after_s is None else stopped_after(played, stop_after_s))
        return played

    played = trio.run(play, clock=MockClock(autojump_threshold=0))
    progress, told = played.progress, played.facts
    kinds = Counter(one.error for one in played.measured)
    attempted = len(played.measured)

    assert told["offered"] == told["dropped"] + attempted
    assert attempted == progress.completed + progress.failed + progress.cancelled == progress.ended
    assert (progress.completed, progress.cancelled) == (kinds.pop(None, 0), kinds.pop("cancelled", 0))
    assert dict(progress.errors) == dict(kinds)
    assert told["warmup_requests"] == sum(one.warmup for one in played.results)
    assert progress.in_flight == 0
    assert told["offered"] <= requests
    if progress.cancelled == 0 and stop_after_s is None and cancel_after_s is None:
        assert told["offered"] == requests or progress.failed >= FAILURES_IN_A_ROW
    assert sorted(one.request for one in played.results) == [ask.request for ask in played.server.asked]


# -- what is asked


def ids(prompts: Sequence[Prompt]) -> list[str]:
    return [prompt.id for prompt in prompts]


async def test_each_level_asks_the_same_prompts_in_the_same_order_that_seed_and_repeat_decide() -> None:
    orders = [tuple(ids(await asked(closed(4, repeat), seed))) for seed, repeat in [(1, 1), (7, 1), (1, 2)]]

    assert len(set(orders)) == 3
    assert list(orders[0]) == ids(await asked(closed(9))) == ids(await asked(opened(3.0)))


async def test_another_repeat_has_other_poisson_arrivals() -> None:
    first, second = [await level_of(opened(2.0, repeat), requests=10).run() for repeat in (1, 2)]

    assert [one.due_ns for one in first.measured] != [one.due_ns for one in second.measured]


async def test_prompts_are_sent_as_written_unless_distinct_ones_are_asked_for() -> None:
    plain, unique = await asked(closed(4)), await asked(closed(4), distinct_prompts=True)

    assert set(map(id, plain)) == set(map(id, DEFAULT))
    assert len({str(prompt.messages) for prompt in unique}) == len(unique)
    assert ids(unique) == ids(plain)


async def test_distinct_prompts_of_two_levels_and_of_two_runs_differ() -> None:
    level = level_of(closed(2), requests=20, distinct_prompts=True, salt=1)
    other_run = await level_of(closed(2), requests=20, distinct_prompts=True, salt=500).run()

    await level.run()
    await level.engine.run(Progress(closed(2), 1, level.progress.limits))
    texts = {str(ask.prompt.messages) for ask in level.server.asked + other_run.server.asked}

    assert len(texts) == 66  # 22 each, warm-up too


# -- what is told while it runs and after


async def test_histograms_hold_what_the_results_of_measured_and_completed_requests_say() -> None:
    def law(ask: Ask) -> Answer:
        error = "truncated" if ask.request == 7 else None
        return Answer(ttft_s=0.2 + 0.01 * ask.request, itl_s=0.020, events=11, error=error)

    played = await level_of(closed(3), law, requests=20).run()
    good = [one for one in played.measured if one.error is None]
    in_us = {
        "ttft": [(one.first_token_ns - one.sent_ns) / 1000 for one in good],
        "e2e": [(one.last_token_ns - one.due_ns) / 1000 for one in good],
        "tpot": [20_000] * len(good),
        "itl": [20_000] * 10 * len(good),
    }

    assert len(good) == 19
    for name, expected in in_us.items():
        histogram = played.progress.histograms[name]
        assert histogram.count == len(expected), name
        assert [histogram.min, histogram.max] == pytest.approx([min(expected), max(expected)], abs=1), name


async def test_tokens_that_came_with_the_first_event_enter_no_time_per_token() -> None:
    played = await level_of(closed(1), Answer(itl_s=0.08, events=8, per_event=4), requests=3).run()
    tpot = played.progress.histograms["tpot"]

    assert (tpot.min, tpot.max) == (20_000, 20_000)


async def test_lags_of_the_level_alone_are_recorded() -> None:
    played = level_of(closed(1), Answer(ttft_s=3), requests=1, warmup=0)
    played.server.lags_ns = [999_000_000]  # of the probe, say

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(played.run)
        await anyio.sleep(1)
        played.server.lags_ns += [40_000, 60_000]
        await anyio.sleep(1.9)
        played.server.lags_ns += [1_000_000]

    assert played.facts["client_lag_us"] == {"n": 3, "p50": 60, "p99": 1000, "p999": 1000, "max": 1000}


async def test_there_is_a_tick_each_half_second() -> None:
    played = await level_of(closed(1), Answer(ttft_s=3.2), requests=1, warmup=0).run()

    assert played.tick_ns == pytest.approx([0.5e9 * i for i in range(1, 7)], abs=ROUNDING_NS)


async def test_what_a_tick_raises_ends_the_level_and_its_requests() -> None:
    async def full_disk(progress: Progress) -> None:
        raise OSError("no space")

    played = level_of(closed(2), Answer(ttft_s=30), requests=5)
    played.engine._on_tick = full_disk
    with pytest.RaisesGroup(OSError, flatten_subgroups=True):
        await played.run()

    assert [one.error for one in played.results] == ["cancelled"] * 2


async def test_facts_count_from_the_beginning_of_the_level() -> None:
    await anyio.sleep(1000)
    played = await level_of(closed(2), Answer(ttft_s=1), requests=6, warmup=2).run()

    assert played.facts == {
        "status": "complete",
        "reason": None,
        "duration_s": pytest.approx(4.00005, abs=1e-6),
        "measured_from_ns": pytest.approx(NS, abs=ROUNDING_NS),
        "full_ns": pytest.approx(50_000, abs=ROUNDING_NS),
        "last_issue_ns": pytest.approx(3 * NS + 50_000, abs=ROUNDING_NS),
        "offered": 6,
        "dropped": 0,
        "warmup_requests": 2,
        "requests_planned": 6,
        "duration_planned_s": None,
        "think_time_s": None,
        "client_cpu_s": pytest.approx(4, abs=0.001),
        "client_wait_share": pytest.approx(0.25, abs=0.001),
        "workers": None,
        "client_lag_us": None,  # no lags came, so none was measured
        "client_wait_us": {"n": 400, "p50": 2500, "p99": 2500, "p999": 2500, "max": 2500},
        "round_trip_ms": 0.25,
    }
    assert facts(played.progress, stopped=True)["status"] == "interrupted"


async def test_a_level_that_measured_nothing_names_no_time() -> None:
    played = level_of(closed(1), requests=2)
    played.engine.stop()
    await played.run()

    assert (played.facts["measured_from_ns"], played.facts["full_ns"], played.facts["last_issue_ns"]) == (None,) * 3
    assert (played.facts["status"], played.facts["offered"]) == ("failed", 0)


async def test_what_fell_due_while_the_client_was_frozen_is_offered_all_the_same() -> None:
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, MockClock)

    def law(ask: Ask) -> Answer:
        if ask.request == 5:
            clock.jump(0.9)  # a suspended process, say, over the end of the level
        return Answer(ttft_s=0.01)

    played = level_of(opened(10.0), law, duration_s=1.0, warmup=0, arrivals="constant")
    await played.run()

    assert [result.due_ns for result in played.measured] == pytest.approx([i * NS / 10 for i in range(10)], abs=100)


async def test_the_last_issue_is_the_last_due_request_though_it_was_dropped() -> None:
    played = level_of(opened(100.0), Answer(ttft_s=60.0), duration_s=3.0, warmup=0, arrivals="constant", max_streams=10)
    await played.run()

    assert (played.facts["offered"], played.facts["dropped"]) == (300, 290)
    assert played.facts["last_issue_ns"] == pytest.approx(2.99 * NS, abs=100)
