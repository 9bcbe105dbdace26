"""Workers that are processes: one that is killed, one that hangs, one whose asker dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import anyio
import psutil
import pytest

from loadbench.engine import Limits
from loadbench.runner import pool as places
from loadbench.runner import pool as pools
from loadbench.runner.pool import Processes
from loadbench.serve import simulator
from loadbench.serve.simulator import Simulator
from tests.support.spreading import closed, ready, route_to, run, running

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.system,
    pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX systems"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Simulator]:
    with simulator.start(ttft_ms=20, itl_ms=2) as running:
        yield running


@pytest.fixture
async def pool(server: Simulator) -> AsyncIterator[Processes]:
    processes = Processes(2)
    await pools.greet(processes.places, route_to(server.url))
    yield processes
    await processes.close()


def pids(pool: Processes) -> list[int]:
    return [place.hello.pid for place in pool.places if place.hello is not None]


async def test_processes_stay_for_the_next_level(pool: Processes, server: Simulator) -> None:
    before = pids(pool)
    first = await run(pool, server, closed(4), Limits(16, None, 0))
    second = await run(pool, server, closed(4), Limits(16, None, 0))

    assert [one["pid"] for one in first.workers] == [one["pid"] for one in second.workers] == before
    assert first.balanced()
    assert second.facts["status"] == "complete"


async def test_a_process_that_is_killed_is_told_and_replaced(pool: Processes, server: Simulator) -> None:
    first = ready(pool, server, closed(4), Limits(200, None, 0))
    killed = pids(pool)[1]
    async with running(first):
        os.kill(killed, signal.SIGKILL)
    again = await run(pool, server, closed(4), Limits(16, None, 0))

    assert [one["status"] for one in first.workers] == ["complete", "lost"]
    assert first.workers[1]["reason"] == "its process died"
    assert first.workers[0]["completed"] == 100
    assert first.balanced()
    assert any("a new process takes its place" in note for note in again.notes)
    assert again.facts["status"] == "complete"
    assert killed not in pids(pool)


async def test_a_process_that_hangs_is_given_up_and_killed(
    pool: Processes, server: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "LOST_S", 3.0)
    ran = ready(pool, server, closed(4), Limits(400, None, 0))
    hung = pids(pool)[0]
    async with running(ran):
        os.kill(hung, signal.SIGSTOP)
    await pool.renew()

    assert ran.workers[0]["reason"] == "no answer for 3 s"
    assert ran.workers[1]["completed"] == 200
    assert ran.balanced()
    assert not psutil.pid_exists(hung) or psutil.Process(hung).status() == psutil.STATUS_ZOMBIE


@pytest.mark.endurance
async def test_a_process_that_stood_still_for_a_moment_goes_on(pool: Processes, server: Simulator) -> None:
    ran = ready(pool, server, closed(4), Limits(200, None, 0))
    async with running(ran):
        os.kill(pids(pool)[0], signal.SIGSTOP)
        await anyio.sleep(1)
        os.kill(pids(pool)[0], signal.SIGCONT)

    assert ran.facts["status"] == "complete"
    assert ran.progress.completed == 200


async def test_workers_do_not_hear_the_signals_of_a_terminal(pool: Processes, server: Simulator) -> None:
    for pid in pids(pool):
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
    ran = await run(pool, server, closed(2), Limits(4, None, 0))

    assert ran.facts["status"] == "complete"


_ASKER = """
import anyio, sys
from loadbench.runner import pool as pools

async def main():
    pool = pools.Processes(2)
    await pools.greet(pool.places, None)
    print(*(place.hello.pid for place in pool.places), flush=True)
    await anyio.sleep_forever()

if __name__ == "__main__":
    anyio.run(main)
"""


def test_workers_end_with_the_one_who_asked() -> None:
    asker = subprocess.Popen([sys.executable, "-c", _ASKER], stdout=subprocess.PIPE, text=True)
    assert asker.stdout is not None
    workers = [psutil.Process(int(pid)) for pid in asker.stdout.readline().split()]
    asker.kill()
    asker.wait()
    asker.stdout.close()
    _, alive = psutil.wait_procs(workers, timeout=10)

    assert len(workers) == 2
    assert alive == []


@pytest.mark.endurance
async def test_a_process_that_dies_between_levels_is_replaced(pool: Processes, server: Simulator) -> None:
    for pid in pids(pool):
        os.kill(pid, signal.SIGKILL)
    ran = await run(pool, server, closed(4), Limits(16, None, 0))

    assert ran.facts["status"] == "complete"
    assert len(ran.workers) == 2


@pytest.mark.endurance
async def test_where_no_process_takes_its_place_the_others_share_the_level(
    pool: Processes, server: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    os.kill(pids(pool)[1], signal.SIGKILL)
    monkeypatch.setattr("concurrent.futures.process.ProcessPoolExecutor._spawn_process", refused)
    ran = await run(pool, server, closed(4), Limits(16, None, 0))
    monkeypatch.undo()
    again = await run(pool, server, closed(4), Limits(16, None, 0))

    assert [one["name"] for one in ran.workers] == ["w1"]
    assert ran.facts["status"] == "complete"
    assert any("worker w2: BlockingIOError" in note for note in ran.notes)
    assert [one["name"] for one in again.workers] == ["w1", "w2"]
