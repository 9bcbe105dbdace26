"""Runs that are measured together: whose level is next, who is told to stop, and whose folder is closed."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from loadbench.errors import StoreError
from loadbench.runner.session import in_turns
from tests.support.spreading import until

pytestmark = pytest.mark.anyio


@dataclass
class Run:
    """A run of so many levels, which writes what happens to it into a story that all share."""

    name: str
    levels: int
    story: list[str]
    at: dict[int, Callable[[], object]] = field(default_factory=dict)
    interrupted: bool = False
    status: str | None = None
    _done: int = 0

    async def step(self) -> bool:
        if self.interrupted or self._done == self.levels:
            return False
        self._done += 1
        self.story.append(f"{self.name}{self._done}")
        if act := self.at.get(self._done):
            act()
            await until(lambda: self.interrupted)  # a signal takes a moment, on a busy machine a long one
        return True

    async def end(self) -> None:
        self.story.append(f"{self.name} ends")

    def stop(self) -> None:
        self.interrupted = True

    def close(self, status: str) -> None:
        self.status = status


@pytest.fixture
def story() -> list[str]:
    return []


@pytest.mark.parametrize(
    ("levels", "order"),
    [
        ((1, 1), "a1 b1"),
        ((3, 3), "a1 b1 b2 a2 a3 b3"),
        ((1, 3), "a1 b1 b2 b3"),  # one that is over leaves the turns to the other
        ((3, 0), "a1 a2 a3"),
        ((2,), "a1 a2"),
        ((2, 2, 2), "a1 b1 c1 c2 b2 a2"),
    ],
)
async def test_every_second_time_the_order_is_reversed(levels: tuple[int, ...], order: str, story: list[str]) -> None:
    runs = [Run(name, count, story) for name, count in zip("abc", levels, strict=False)]
    await in_turns(runs, story.append)

    assert story == [*order.split(), *(f"{run.name} ends" for run in runs)]
    assert {run.status for run in runs} == {"complete"}


async def test_a_folder_that_cannot_be_written_ends_all_and_closes_all(story: list[str]) -> None:
    def fail() -> None:
        raise StoreError("the disk is full")

    runs = [Run("a", 3, story, {2: fail}), Run("b", 3, story)]
    with pytest.raises(StoreError, match="the disk is full"):
        await in_turns(runs, story.append)

    assert story == ["a1", "b1", "b2", "a2"]
    assert [run.status for run in runs] == ["interrupted", "interrupted"]


async def test_one_folder_that_does_not_close_keeps_no_other_open(story: list[str]) -> None:
    class Broken(Run):
        def close(self, status: str) -> None:
            raise StoreError("the disk is full")

    runs = [Broken("a", 1, story), Run("b", 1, story)]
    with pytest.raises(StoreError):
        await in_turns(runs, story.append)

    assert runs[1].status == "complete"


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cancels at once there")
async def test_a_signal_stops_all_of_them_and_is_told_once(story: list[str]) -> None:
    runs = [Run("a", 3, story), Run("b", 3, story, {2: lambda: os.kill(os.getpid(), signal.SIGINT)})]
    await in_turns(runs, story.append)

    assert story[:4] == ["a1", "b1", "b2", "stopping: requests in flight run to their end; Ctrl-C again stops at once"]
    assert story[4:] == ["a ends", "b ends"]
    assert [run.status for run in runs] == ["interrupted", "interrupted"]
