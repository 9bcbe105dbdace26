"""Runs that are measured together, a level each in turns (A B B A); one signal ends them all."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from typing import Protocol

import anyio

from loadbench.errors import LoadbenchError


class Steps(Protocol):
    """A run that is taken level by level; `Session` is one.

    Attributes:
        interrupted: Whether the user ended it.
    """

    interrupted: bool

    async def step(self) -> bool:
        """Its next level, measured or skipped; False where there is none."""

    async def end(self) -> None:
        """After its last level."""

    def stop(self) -> None:
        """The user ends it: no further request starts, those in flight run to their end."""

    def close(self, status: str) -> None:
        """Its folder takes no more."""


async def in_turns(runs: Sequence[Steps], note: Callable[[str], None]) -> None:
    """Take all runs to their ends; of two the first, the second, the second, the first, and so on.

    So each level of one lies right beside that of the other, and what drifts meanwhile meets both alike.

    Args:
        note: Told what the user's first signal does.
    Raises:
        LoadbenchError: If a folder cannot be written any more; what was written stays.
    """
    status = "interrupted"
    try:
        async with anyio.create_task_group() as group:
            if sys.platform != "win32":  # there, Ctrl-C cancels at once: what had ended is in the folder
                group.start_soon(_on_signals, runs, note, group.cancel_scope)
            group.start_soon(_levels, runs, group.cancel_scope)
        if not any(run.interrupted for run in runs):
            status = "complete"
    except BaseExceptionGroup as failures:
        raise _first_of_ours(failures) from failures
    finally:
        _close(runs, status)


async def _levels(runs: Sequence[Steps], scope: anyio.CancelScope) -> None:
    order = list(runs)
    while any([await run.step() for run in order]):  # each of them has its step
        order.reverse()
    for run in runs:
        await run.end()
    scope.cancel()


async def _on_signals(runs: Sequence[Steps], note: Callable[[str], None], scope: anyio.CancelScope) -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                if any(run.interrupted for run in runs):
                    scope.cancel()
                    return
                for run in runs:
                    run.stop()
                note("stopping: requests in flight run to their end; Ctrl-C again stops at once")
    finally:
        signal.signal(signal.SIGTERM, before)  # event loops give back the system's: death without a word


def _close(runs: Sequence[Steps], status: str) -> None:
    """Close all, whatever becomes of one."""
    if runs:
        try:
            runs[0].close(status)
        finally:
            _close(runs[1:], status)


def _first_of_ours(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error to show: ours if there is one, else the first."""

    def leaves(error: BaseException) -> list[BaseException]:
        return (
            [leaf for one in error.exceptions for leaf in leaves(one)]
            if isinstance(error, BaseExceptionGroup)
            else [error]
        )

    found = leaves(failures)
    return next((error for error in found if isinstance(error, LoadbenchError)), found[0])
