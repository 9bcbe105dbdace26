"""The workers of a run, kept warm from level to level."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

import loadbench
from loadbench.client.route import Route
from loadbench.errors import LoadbenchError
from loadbench.runner.spread import worker
from loadbench.runner.spread.place import MOST_UNCERTAIN_NS, Place

BEGIN_S = 60.0
"""For the first answer: a worker has Python and its libraries to load."""


class Pool(Protocol):
    """Where shares run.

    Attributes:
        kind: processes, or the address of a cluster.
        places: The workers that are still there.
    """

    kind: str
    places: list[Place]

    async def renew(self) -> list[str]:
        """Before a level: replace what was lost, where that can be done; what was done, in words."""

    @property
    def gone(self) -> str | None:
        """Why there can be no worker any more; None while there can."""

    async def close(self) -> None:
        """End the workers that this pool began."""


async def greet(places: Sequence[Place], route: Route | None) -> None:
    """Ask all workers who they are, whether they fit, and whether they reach the target.

    Raises:
        LoadbenchError: Some do not; all of them are named.
    """
    problems = [problem for problem in await asyncio.gather(*(_greet(one, route) for one in places)) if problem]
    if problems:
        raise LoadbenchError("; ".join(problems))


async def _greet(place: Place, route: Route | None) -> str | None:
    """What keeps a worker from taking part; None where nothing does."""
    try:
        place.hello = await place.call_within(BEGIN_S, worker.hello)
        if place.hello.version != loadbench.__version__:
            return (
                f"worker {place.told} has loadbench {place.hello.version}, this is {loadbench.__version__}: "
                "install the same version on all"
            )
        clock = await place.clock()
        if clock.uncertain_ns > MOST_UNCERTAIN_NS:
            return (
                f"worker {place.told}: its clock is known to {clock.uncertain_ns / 1e6:.0f} ms alone, as calls take so "
                "long; shares cannot begin together: use workers that are nearer, or less busy"
            )
        if route is not None and (problem := await place.call(worker.reach, route)) is not None:
            return f"worker {place.told} does not reach the target: {problem}"
    except LoadbenchError as error:
        return f"worker {place.told}: {error}"
    return None
