"""`--workers` and `--cluster`: which workers share the load of a run, and what is told of them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from loadbench.errors import UsageError

if TYPE_CHECKING:
    from loadbench.client.route import Route
    from loadbench.runner.job import Sharing
    from loadbench.runner.session import Drive
    from loadbench.runner.spread import Pool


def asked_for(sharing: Sharing, info: Mapping[str, Any] | None, *, local: bool) -> int | str | None:
    """How many processes, or which cluster; None for this process alone.

    Args:
        info: run.json of a run that goes on: as it began, unless the settings say otherwise.
        local: Whether the server is on this machine, and needs cores too.
    Raises:
        UsageError: Both are given.
    """
    workers, cluster = sharing.workers, sharing.cluster
    if workers is not None and cluster is not None:
        raise UsageError("--workers and --cluster are both given: keep one")
    if workers is None and cluster is None and info is not None:
        began = info.get("spread") or {}
        workers, cluster = began.get("asked_workers"), began.get("asked_cluster")
    if workers == "auto":
        from loadbench import telemetry

        cores = telemetry.cores() or 1
        workers = max(1, cores // 2) if local else cores
    found: int | str | None = cluster if cluster is not None else workers
    return found


@dataclass(frozen=True, slots=True)
class Workers:
    """Workers that are there.

    Attributes:
        drive: Makes what makes a session's load.
    """

    pool: Pool
    drive: Drive

    def pids(self) -> list[int]:
        """Of those on this machine."""
        here = socket.gethostname()
        hellos = [one.hello for one in self.pool.places if one.hello is not None]
        return [one.pid for one in hellos if one.host == here]

    def facts(self, sharing: Sharing) -> dict[str, Any]:
        """What run.json says of them."""
        return {
            "kind": self.pool.kind,
            "asked_workers": sharing.workers,
            "asked_cluster": sharing.cluster,
            "workers": [
                {"name": one.name, "address": one.address, **asdict(one.hello)}
                for one in self.pool.places
                if one.hello is not None
            ],
        }


async def begin(asked: int | str, route: Route, note: Callable[[str], None], stack: AsyncExitStack) -> Workers:
    """Begin the workers, and look at them; they end with the stack.

    Raises:
        LoadbenchError: Some do not answer, have another version, or do not reach the target: all are named.
    """
    from loadbench.runner.spread import Processes, Spread, greet

    pool: Pool
    if isinstance(asked, int):
        pool = Processes(asked)
    else:
        import anyio.to_thread

        from loadbench.runner.spread import cluster

        pool = await anyio.to_thread.run_sync(cluster.connect, asked)
    stack.push_async_callback(pool.close)
    await greet(pool.places, route)
    return Workers(pool, partial(Spread, pool, route, note))
