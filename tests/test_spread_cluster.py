"""Workers of a Dask cluster: local ones, ones that die, a scheduler that goes away, certificates."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from importlib.util import find_spec

import anyio
import pytest

from loadbench.engine import Limits
from loadbench.errors import LoadbenchError, UsageError
from loadbench.runner import pool as places
from loadbench.runner.pool import connect
from loadbench.serve import simulator
from loadbench.serve.simulator import Simulator
from tests.support.spreading import closed, ready, route_to, run, running

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.system,
    pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX systems"),
    pytest.mark.skipif(find_spec("distributed") is None, reason="Dask is not installed"),
    pytest.mark.filterwarnings("default"),  # Dask's own are not ours
]


@pytest.fixture(scope="module")
def server() -> Iterator[Simulator]:
    with simulator.start(ttft_ms=20, itl_ms=2) as running:
        yield running


async def test_a_local_cluster_shares_a_level_and_ends(server: Simulator) -> None:
    cluster = await anyio.to_thread.run_sync(connect, "local:2")
    await places.greet(cluster.places, route_to(server.url))
    ran = await run(cluster, server, closed(4), Limits(40, None, 4))
    await cluster.close()

    assert ran.balanced()
    assert ran.facts["status"] == "complete"
    assert [one["address"][:6] for one in ran.workers] == ["tcp://"] * 2
    assert sorted(one.request for one in ran.results) == list(range(44))


@pytest.mark.endurance
async def test_a_worker_that_is_killed_is_lost_and_left_out_of_the_next_level(
    server: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "LOST_S", 3.0)
    cluster = await anyio.to_thread.run_sync(connect, "local:2")
    await places.greet(cluster.places, route_to(server.url))
    ran = ready(cluster, server, closed(4), Limits(400, None, 0))
    async with running(ran):
        assert cluster.places[0].hello is not None
        os.kill(cluster.places[0].hello.pid, signal.SIGKILL)
    again = await run(cluster, server, closed(4), Limits(16, None, 0))
    await cluster.close()

    assert [one["status"] for one in ran.workers] == ["lost", "complete"]
    assert ran.balanced()
    assert [one["name"] for one in again.workers] == ["w2"]
    assert again.facts["status"] == "complete"


@pytest.mark.endurance
async def test_a_scheduler_that_goes_away_ends_the_level_with_what_was_collected(
    server: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "LOST_S", 3.0)
    import distributed  # takes most of a second, which every worker would spend as it collects the tests

    local = distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None, silence_logs=50)
    cluster = await anyio.to_thread.run_sync(connect, local.scheduler_address)
    await places.greet(cluster.places, route_to(server.url))
    ran = ready(cluster, server, closed(4), Limits(None, 60.0, 0))
    async with running(ran, lambda: len(ran.measured) >= 4):
        await anyio.to_thread.run_sync(local.close)
    await cluster.close()

    assert ran.facts["status"] == "incomplete"
    assert ran.progress.completed >= 4
    assert ran.balanced()
    assert ran.spread.gone is not None


@pytest.mark.parametrize("address", ["here", "local:0", "local:100000", "http://127.0.0.1:8786", "tcp://"])
def test_what_is_no_address_of_a_cluster_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="--cluster"):
        connect(address)


def test_where_no_scheduler_answers_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadbench.runner.pool.CONNECT_S", 1.0)

    with pytest.raises(LoadbenchError, match=r"tcp://127.0.0.1:9: no Dask scheduler answers there within 1 s"):
        connect("tcp://127.0.0.1:9")
