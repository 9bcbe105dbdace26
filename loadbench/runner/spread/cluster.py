"""Workers of a Dask cluster, on whatever it runs: SSH, Kubernetes, Slurm, this machine."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Any

from loadbench.errors import LoadbenchError, UsageError, how_to_install
from loadbench.machine import keep_working_folder_out
from loadbench.runner.spread.place import Place

CONNECT_S, CLOSE_S = 15.0, 2.0
MOST_LOCAL = 256
_LOCAL = re.compile(r"local:(\d+)")


class Cluster:
    """The workers that a Dask scheduler has when the run begins. Make one with `connect`."""

    def __init__(self, kind: str, client: Any, close: Callable[[], None]) -> None:
        self.kind = kind
        self._client, self._close = client, close
        self.places = [
            Place(f"w{number}", _executor(client, address), address)
            for number, address in enumerate(sorted(client.scheduler_info(n_workers=-1)["workers"]), start=1)
        ]

    @property
    def gone(self) -> str | None:
        """Why there is no worker any more."""
        if self._client.status not in ("running", "connecting"):
            return f"the scheduler at {self.kind} went away"
        if all(place.lost is not None for place in self.places):
            return f"all workers of {self.kind} were lost"
        return None

    async def renew(self) -> list[str]:
        """Leave out what was lost: a cluster has its own ways of beginning workers, which know nothing of this run."""
        lost = [place for place in self.places if place.lost is not None]
        self.places = [place for place in self.places if place.lost is None]
        return [
            f"{place.told} was lost ({place.lost}): the run goes on with {len(self.places)} workers" for place in lost
        ]

    async def close(self) -> None:
        """Let go of the cluster; one that was begun for this run ends."""
        await asyncio.gather(*(place.end(CLOSE_S) for place in self.places if self.gone is None))
        await asyncio.to_thread(self._close)


def connect(address: str) -> Cluster:
    """The workers of a scheduler; it blocks for some seconds.

    Args:
        address: tcp://HOST:PORT or tls://HOST:PORT of a scheduler, or local:N for N worker processes of this machine.
            TLS certificates are those of Dask's own configuration.
    Raises:
        UsageError: It is no such address.
        LoadbenchError: `distributed` is not installed, nobody answers, or the scheduler has no workers.
    """
    try:
        import distributed
    except ImportError:
        raise LoadbenchError(
            f"--cluster needs Dask's distributed, which is not installed, here and on the workers: "
            f"{how_to_install('cluster')}"
        ) from None
    if local := _LOCAL.fullmatch(address):
        if not 1 <= int(local[1]) <= MOST_LOCAL:
            raise UsageError(f"--cluster {address}: give 1 to {MOST_LOCAL} workers, as local:2")
        try:
            return _local(distributed, address, int(local[1]))
        except (OSError, RuntimeError) as error:
            raise LoadbenchError(f"--cluster {address}: its workers cannot be begun: {_line(error)}") from None
    if not re.fullmatch(r"(tcp|tls|ws|wss|ucx)://\S+", address):
        raise UsageError(f"--cluster {address}: give tcp://HOST:PORT of a Dask scheduler, or local:N")
    try:
        dask: Any = distributed  # it has types for a part of itself alone
        client = dask.Client(address, timeout=CONNECT_S, set_as_default=False, name="loadbench")
    except (OSError, TimeoutError, ValueError, RuntimeError) as error:
        raise LoadbenchError(
            f"--cluster {address}: no Dask scheduler answers there within {CONNECT_S:.0f} s: {_line(error)}"
        ) from None
    cluster = Cluster(address, client, client.close)
    if not cluster.places:
        client.close()
        raise LoadbenchError(f"--cluster {address}: the scheduler has no workers: start some, as dask worker {address}")
    return cluster


def _local(distributed: Any, address: str, count: int) -> Cluster:
    import dask

    for name in ("distributed", "bokeh", "tornado"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters of them, this run says itself
    keep_working_folder_out()
    with dask.config.set(_QUIET):
        local = distributed.LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # it has one in any case; no other port warns where Dask runs already
            scheduler_kwargs={"dashboard": False},
            memory_limit=None,
            silence_logs=logging.CRITICAL,
        )
        client = distributed.Client(local, set_as_default=False, name="loadbench")

    def close() -> None:
        client.close()
        local.close()

    return Cluster(address, client, close)


_QUIET = {
    "distributed.worker.profile.enabled": False,  # it looks at all threads a hundred times a second
    "distributed.logging.distributed": "critical",
    "distributed.admin.system-monitor.gil.enabled": False,
}
"""Of Dask's configuration, for workers that measure."""


def _executor(client: Any, address: str) -> Any:
    """Runs each call on this worker and no other, once."""
    return client.get_executor(workers=[address], allow_other_workers=False, pure=False, retries=0)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
