"""Workers that are processes of this machine, each with an interpreter of its own."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from loadbench.errors import LoadbenchError
from loadbench.machine import keep_working_folder_out
from loadbench.runner.spread import worker
from loadbench.runner.spread.place import Lost, Place
from loadbench.runner.spread.pool import greet

CLOSE_S = 5.0


class Processes:
    """So many processes, each an executor with one worker: one that dies takes no other one with it."""

    def __init__(self, count: int) -> None:
        self.kind = "processes"
        self.places = [_place(f"w{number}") for number in range(1, count + 1)]

    @property
    def gone(self) -> None:
        """A process can always be begun again."""

    async def renew(self) -> list[str]:
        """A new process for each that was lost, meanwhile too."""
        await asyncio.gather(*(_try(place) for place in self.places))
        done, begun = [], []
        for at, place in enumerate(self.places):
            if place.lost is not None:
                _kill(place)
                done.append(f"{place.told} was lost ({place.lost}): a new process takes its place")
                self.places[at] = _place(place.name)
                begun.append(self.places[at])
        try:
            await greet(begun, None)
        except LoadbenchError as error:  # the level is shared by the others, and the next one tries again
            done.append(str(error))
        return done

    async def close(self) -> None:
        """End all: those that answer by themselves, the others are killed."""
        await asyncio.gather(*(_end(place) for place in self.places))


def _place(name: str) -> Place:
    keep_working_folder_out()
    spawn = multiprocessing.get_context("spawn")
    return Place(name, ProcessPoolExecutor(1, mp_context=spawn, initializer=worker.started))


async def _try(place: Place) -> None:
    with contextlib.suppress(Lost):
        await place.call(worker.clock)


async def _end(place: Place) -> None:
    await place.end(CLOSE_S)
    if place.lost is not None:
        _kill(place)
    await asyncio.to_thread(_shutdown, place.executor)


def _shutdown(executor: object) -> None:
    assert isinstance(executor, ProcessPoolExecutor)
    with contextlib.suppress(BrokenProcessPool, OSError):
        executor.shutdown(wait=True, cancel_futures=True)


def _kill(place: Place) -> None:
    assert isinstance(place.executor, ProcessPoolExecutor)
    # No public way before Python 3.14, which has kill_workers().
    for process in list((place.executor._processes or {}).values()):
        process.kill()
    place.executor.shutdown(wait=False, cancel_futures=True)
