"""A level in shares: cut, begun together, put together; and what becomes of it when a worker is lost."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import anyio
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import loadbench
from loadbench import engine
from loadbench.engine import Limits, Share
from loadbench.errors import LoadbenchError
from loadbench.runner import pool as places
from loadbench.runner import spread, worker
from loadbench.runner.worker import Order
from loadbench.serve import simulator
from loadbench.serve.simulator import Simulator
from loadbench.store.histogram import Histogram
from loadbench.telemetry import Waited
from loadbench.transport import Transport
from tests.support import spreading
from tests.support.spreading import Failing, Threads, closed, opened, ready, route_to, run, running, threads, until

pytestmark = [pytest.mark.system, pytest.mark.anyio]

P = (0.0, 0.5, 0.9, 0.99, 0.999, 1.0)


@pytest.fixture(scope="module")
def server() -> Iterator[Simulator]:
    with simulator.start(ttft_ms=20, itl_ms=2) as running:
        yield running


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "LOST_S", 6.0)
    monkeypatch.setattr(spread, "ASK_S", 0.05)


# -- histograms


@given(st.lists(st.lists(st.integers(0, 5_000_000_000), max_size=40), min_size=1, max_size=6))
def test_histograms_of_shares_put_together_are_that_of_all_values(shares: list[list[int]]) -> None:
    pooled, merged = Histogram(), Histogram()
    for values in shares:
        pooled.record_many(values)
        own = Histogram()
        own.record_many(values)
        merged.merge(Histogram.unpacked(own.packed()))

    assert [merged.percentile(p) for p in P] == [pooled.percentile(p) for p in P]
    assert (merged.count, merged.min, merged.max, merged.sum) == (pooled.count, pooled.min, pooled.max, pooled.sum)
    assert merged.over == pooled.over
    assert np.array_equal(merged.counts, pooled.counts)


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-3], lambda b: b"", lambda b: b"\x00" + b, lambda b: b[:9] + b"\xff" * 9]
)
def test_a_packed_histogram_that_is_damaged_is_refused(damage: Any) -> None:
    whole = Histogram()
    whole.record_many([5, 70, 900_000])

    with pytest.raises(ValueError, match="damaged"):
        Histogram.unpacked(damage(whole.packed()))


# -- levels in shares


async def test_the_wait_for_a_core_is_that_of_the_worker_who_waited_most(
    server: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    paces = iter((0.5, 0.1))

    def waits() -> Callable[[], Waited]:
        pace = next(paces)
        return lambda: Waited(round(pace * time.perf_counter_ns()), round(100 * time.perf_counter()))

    monkeypatch.setattr(engine, "CoreWait", waits)
    ran = await run(threads(2), server, closed(4), Limits(8, None, 0))

    shares = sorted(one["wait_share"] for one in ran.workers)
    assert shares == pytest.approx([0.1, 0.5], rel=0.5)
    assert ran.facts["client_wait_share"] == pytest.approx(shares[1], abs=1e-3)


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_streams_are_shared_out_and_all_requests_are_made_once(server: Simulator, count: int) -> None:
    ran = await run(threads(count), server, closed(7), Limits(35, None, 7))

    assert ran.balanced()
    assert ran.facts["status"] == "complete"
    assert sorted(one.request for one in ran.results) == list(range(42))
    assert [one["streams"] for one in ran.workers] == [Share(index, count).part(7) for index in range(count)]
    assert ran.progress.histograms["ttft"].count == 35


async def test_a_rate_is_shared_out_and_arrivals_are_those_of_one_client(server: Simulator) -> None:
    ran = await run(threads(3), server, opened(60), Limits(45, None, 0))
    alone = await run(threads(1), server, opened(60), Limits(45, None, 0))

    def due(some: spreading.Ran) -> list[int]:
        return sorted(one.due_ns for one in some.results)

    assert due(ran) == due(alone)
    assert ran.workers[0]["request_rate_per_s"] == 20


async def test_there_are_no_more_shares_than_streams(server: Simulator) -> None:
    ran = await run(threads(4), server, closed(2), Limits(6, None, 0))

    assert [one["name"] for one in ran.workers] == ["w1", "w2"]


async def test_shares_begin_together(server: Simulator) -> None:
    ran = await run(threads(2), server, closed(4), Limits(8, None, 0))
    first = min(one.due_ns for one in ran.results if one.request % 2)

    assert all(one["late_ms"] == 0 for one in ran.workers)
    assert first < 200e6  # of a start that both agreed on


async def test_figures_of_the_level_are_those_of_its_records(server: Simulator) -> None:
    ran = await run(threads(2), server, closed(4), Limits(40, None, 4))
    ttft = Histogram()
    ttft.record_many([(one.first_token_ns - one.sent_ns + 500) // 1000 for one in ran.measured])  # type: ignore[operator]

    assert [ran.progress.histograms["ttft"].percentile(p) for p in P] == [ttft.percentile(p) for p in P]


async def test_a_stop_lets_what_is_in_flight_end(server: Simulator) -> None:
    ran = ready(threads(2), server, closed(4), Limits(None, 60.0, 0))
    async with running(ran):
        ran.spread.stop()

    assert ran.balanced()
    assert ran.progress.cancelled == 0
    assert ran.facts["status"] == "complete"  # the session knows that the user ended it


async def test_a_level_that_has_enough_ends_on_all_workers(server: Simulator) -> None:
    ran = ready(threads(2), server, opened(100), Limits(None, 60.0, 0))
    async with running(ran, lambda: len(ran.measured) >= 20):
        ran.spread.end_level(ran.progress)

    assert ran.balanced()


async def test_an_end_at_once_brings_the_records_of_what_was_cut_off() -> None:
    with simulator.start(ttft_ms=30_000) as slow:
        ran = ready(threads(2), slow, closed(4), Limits(None, 60.0, 0))
        async with running(ran, lambda: ran.progress.in_flight == 4) as group:
            group.cancel_scope.cancel()

    assert [one.error for one in ran.results] == ["cancelled"] * 4
    assert ran.balanced()


def test_reports_are_told_again_until_they_were_seen(server: Simulator) -> None:
    order = Order("again", route_to(server.url), *_told(), Share(), closed(1), 1, Limits(3, None, 0))
    worker.begin(order)
    told = worker.read_reports(worker.report("again", 0))
    while not told:
        told = worker.read_reports(worker.report("again", 0))
    worker.go("again", time.perf_counter_ns())
    while told[-1].state != "over":
        time.sleep(0.01)
        told = worker.read_reports(worker.report("again", 0))

    assert [one.request for said in told for one in said.records] == [0, 1, 2]
    assert worker.read_reports(worker.report("again", len(told))) == []


def _told() -> tuple[Any, ...]:
    from loadbench.engine import Settings
    from loadbench.prompts import DEFAULT, UNKNOWN

    return DEFAULT, UNKNOWN, Settings(seed=1)


async def test_a_share_that_nobody_asks_for_ends_by_itself(server: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "ABANDONED_S", 0.3)
    order = Order("left", route_to(server.url), *_told(), Share(), closed(1), 1, Limits(None, 600.0, 0))
    worker.begin(order)
    worker.go("left", time.perf_counter_ns())
    await until(lambda: worker._running["left"].over)

    assert worker.read_reports(worker.report("left", 0))[-1].cancelled <= 1


# -- workers that do not do


def after(calls: int, name: str = "report") -> Any:
    """Fails from the so-many-th call of this name on."""
    seen: list[str] = []

    def when(called: str) -> bool:
        seen.append(called)
        return seen.count(name) > calls

    return when


async def test_a_worker_that_hangs_is_lost_and_the_others_finish(server: Simulator) -> None:
    hangs = Failing(after(6))
    ran = await run(Threads.of(ThreadPoolExecutor(1), hangs), server, closed(4), Limits(400, None, 0))

    well, lost = ran.workers
    assert (well["status"], lost["status"]) == ("complete", "lost")
    assert well["completed"] == 200
    assert lost["reason"] == "no answer for 6 s"
    assert ran.facts["status"] == "incomplete"
    assert "worker w2 was lost" in ran.facts["reason"].replace(" (process", "") or "w2" in ran.facts["reason"]
    assert "2 of 4 streams are missing" in ran.facts["reason"]
    assert ran.balanced()


async def test_a_worker_whose_process_dies_is_lost_at_once(server: Simulator) -> None:
    dies = Failing(after(6), error=BrokenProcessPool())
    ran = await run(Threads.of(ThreadPoolExecutor(1), dies), server, closed(4), Limits(80, None, 0))

    assert ran.workers[1]["reason"] == "its process died"
    assert ran.workers[0]["completed"] == 40
    assert ran.balanced()


async def test_a_level_whose_workers_are_all_lost_is_over(server: Simulator) -> None:
    pool = Threads.of(*(Failing(after(6), error=BrokenProcessPool()) for _ in range(2)))
    ran = await run(pool, server, closed(4), Limits(None, 60.0, 0))

    assert ran.facts["status"] == "incomplete"
    assert ran.balanced()


async def test_a_worker_that_cannot_begin_is_lost_before_the_start(server: Simulator) -> None:
    broken = Failing(after(0, "begin"), error=ModuleNotFoundError("No module named 'loadbench'"))
    ran = await run(Threads.of(ThreadPoolExecutor(1), broken), server, closed(4), Limits(8, None, 0))

    assert "install the same loadbench there" in ran.workers[1]["reason"]
    assert ran.workers[0]["completed"] == 4


async def test_a_scheduler_without_loadbench_is_named_as_such() -> None:
    unread = RuntimeError("Error during deserialization of the task graph. This frequentlyoccurs if the Scheduler and")
    pool = Threads.of(Failing(after(0, "hello"), error=unread))

    with pytest.raises(LoadbenchError, match="install the same loadbench where the scheduler runs"):
        await places.greet(pool.places, None)


async def test_who_has_another_version_is_refused_by_name(server: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places.loadbench, "__version__", "9.9.9")
    theirs = worker.hello()
    monkeypatch.undo()
    monkeypatch.setattr(worker, "hello", lambda: theirs)
    pool = threads(2)

    with pytest.raises(LoadbenchError, match=rf"worker w1 .*has loadbench 9.9.9, this is {loadbench.__version__}"):
        await places.greet(pool.places, route_to(server.url))


async def test_who_does_not_reach_the_target_is_named() -> None:
    pool = threads(1)

    with pytest.raises(LoadbenchError, match=r"worker w1 .*does not reach the target: http://127.0.0.1:9/.*connect"):
        await places.greet(pool.places, route_to("http://127.0.0.1:9/v1"))


class Slow(ThreadPoolExecutor):
    """A worker behind a long way."""

    def submit(self, work: Any, /, *words: Any, **named: Any) -> Any:
        def later() -> Any:
            time.sleep(0.25)
            return work(*words, **named)

        return super().submit(later)


async def test_a_clock_that_cannot_be_known_is_refused(server: Simulator) -> None:
    pool = Threads.of(Slow(1))

    with pytest.raises(LoadbenchError, match=r"its clock is known to 12\d ms alone"):
        await places.greet(pool.places, route_to(server.url))


async def test_a_clock_is_known_within_half_a_round_trip() -> None:
    pool = threads(1)
    clock = await pool.places[0].clock()

    assert abs(clock.offset_ns) <= clock.uncertain_ns
    assert abs(clock.wall_offset_ns) <= 2 * clock.uncertain_ns + 1_000_000


async def test_our_own_cancellation_is_not_the_workers_loss() -> None:
    hangs = Failing(lambda name: True)
    pool = Threads.of(hangs)
    with anyio.move_on_after(0.1) as scope:
        await pool.places[0].call(worker.hello)

    assert scope.cancelled_caught
    assert pool.places[0].lost is None


async def test_a_cluster_that_takes_a_call_away_has_lost_the_worker() -> None:
    class Taken(Failing):
        def submit(self, work: Any, /, *words: Any, **named: Any) -> Any:
            future = super().submit(work)
            asyncio.get_running_loop().call_later(0.05, future.cancel)
            return future

    pool = Threads.of(Taken(lambda name: True))

    with pytest.raises(places.Lost, match="took it away"):
        await pool.places[0].call(worker.hello)


# -- what goes wrong on the way


class Late(ThreadPoolExecutor):
    """A worker that takes long to make ready."""

    def submit(self, work: Any, /, *words: Any, **named: Any) -> Any:
        def later() -> Any:
            if work.__name__ == "begin":
                time.sleep(1.0)
            return work(*words, **named)

        return super().submit(later)


async def test_a_share_that_is_ready_early_waits_for_the_others(
    server: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "ABANDONED_S", 1.5)
    ran = await run(Threads.of(ThreadPoolExecutor(1), Late(3)), server, closed(4), Limits(40, None, 0))

    assert [one["completed"] for one in ran.workers] == [20, 20]


async def test_a_share_that_ended_by_itself_is_missing(server: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = ready(threads(2), server, closed(4), Limits(None, 60.0, 0))
    async with running(ran):
        monkeypatch.setattr(worker, "ABANDONED_S", -1.0)  # as if this process had stood still

    assert ran.facts["status"] == "incomplete"
    assert "it ended by itself: nobody had asked for its reports" in ran.facts["reason"]
    assert ran.balanced()


class Babbling(ThreadPoolExecutor):
    """A worker whose reports are of another version from the so-many-th on."""

    def __init__(self, damage: Any) -> None:
        super().__init__(1)
        self._damage, self._reports = damage, 0

    def submit(self, work: Any, /, *words: Any, **named: Any) -> Any:
        def other() -> Any:
            said = work(*words, **named)
            if work.__name__ != "report" or not worker.read_reports(said):
                return said
            self._reports += 1
            return said if self._reports < 3 else self._damage(said)

        return super().submit(other)


def _other_histograms(said: bytes) -> bytes:
    reports = worker.read_reports(said)
    for one in reports:
        one.histograms = {"ttft": b"\x00"}
    return msgspec.msgpack.encode(reports)


@pytest.mark.parametrize("damage", [lambda said: b"\xc1", _other_histograms])
async def test_a_worker_that_cannot_be_understood_is_lost(server: Simulator, damage: Any) -> None:
    pool = Threads.of(ThreadPoolExecutor(1), Babbling(damage))
    ran = await run(pool, server, closed(4), Limits(400, None, 0))

    assert ran.workers[0]["completed"] == 200
    assert "what it says cannot be read" in ran.workers[1]["reason"]
    assert ran.balanced()


async def test_a_worker_that_began_anew_knows_nothing_of_its_share(
    server: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = ready(threads(1), server, closed(2), Limits(None, 60.0, 0))
    async with running(ran):
        monkeypatch.setattr(worker, "_running", {})

    assert "it knows nothing of its share" in ran.facts["reason"]
    assert ran.balanced()


async def test_a_level_that_no_worker_can_take_is_to_be_measured_again(server: Simulator) -> None:
    full = Failing(lambda name: True, error=OSError(11, "Resource temporarily unavailable"))
    ran = await run(Threads.of(full), server, closed(4), Limits(8, None, 0))

    assert ran.facts["status"] == "incomplete"
    assert "no worker could take a share (without worker w1: BlockingIOError" in ran.facts["reason"]


async def test_what_hangs_while_a_level_is_cut_short_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "CUT_S", 0.5)
    with simulator.start(ttft_ms=30_000) as slow:
        hangs = Failing(lambda name: ran.progress.in_flight == 4)
        ran = ready(Threads.of(ThreadPoolExecutor(1), hangs), slow, closed(4), Limits(None, 60.0, 0))
        async with running(ran, lambda: hangs.failed) as group:
            group.cancel_scope.cancel()

    assert [one.error for one in ran.results] == ["cancelled"] * 2
    assert ran.balanced()


async def test_what_breaks_in_a_worker_is_told_by_its_name(server: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object) -> None:
        raise ZeroDivisionError("of its own")

    monkeypatch.setattr("loadbench.engine.loop.LevelRun._ask", breaks)
    ran = await run(threads(1), server, closed(2), Limits(8, None, 0))

    assert ran.workers[0]["reason"] == "ZeroDivisionError: of its own"


async def test_a_share_whose_connections_do_not_close_is_over_all_the_same(
    server: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = Transport.aclose

    async def breaks(transport: Transport) -> None:
        await really(transport)
        raise OSError("not now")

    monkeypatch.setattr(Transport, "aclose", breaks)
    with anyio.fail_after(20):
        ran = await run(threads(1), server, closed(2), Limits(8, None, 0))

    assert ran.progress.completed == 8
    assert ran.workers[0]["reason"] == "OSError: not now"


async def test_a_worker_lets_go_of_the_levels_before(server: Simulator) -> None:
    pool, runs = threads(1), []
    for _ in range(3):
        await run(pool, server, closed(2), Limits(4, None, 0))
        runs += [weakref.ref(one) for one in worker._running.values()]
    gc.collect()  # as each level begins with, but in tests
    alive = [one() is not None for one in runs]
    await pool.places[0].call(worker.close)

    assert alive == [False, False, True]
    assert worker._running == {}


async def test_in_closed_loop_the_cap_of_streams_leaves_out_no_worker(server: Simulator) -> None:
    ran = await run(threads(2), server, closed(4), Limits(8, None, 0, max_streams=1))

    assert [one["streams"] for one in ran.workers] == [2, 2]
