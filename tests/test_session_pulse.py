"""Whether this process could run all the time."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
import trio
from trio.testing import MockClock

from loadbench.runner.watch import BEAT_S, Pulse


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "trio", {"clock": MockClock(autojump_threshold=0)}


class Clock:
    """The virtual clock, which a suspended process sees jump."""

    def __init__(self) -> None:
        self.jumped_s = 0.0

    def __call__(self) -> float:
        return trio.current_time() + self.jumped_s


@pytest.mark.anyio
async def test_a_process_that_runs_all_the_time_has_no_pause() -> None:
    pulse = Pulse(Clock())
    with anyio.move_on_after(10):
        await pulse.beat()

    assert pulse.facts()["client_pause_s"] == 0


@pytest.mark.anyio
async def test_the_longest_pause_is_told_with_when_it_began() -> None:
    clock = Clock()
    pulse = Pulse(clock)
    async with anyio.create_task_group() as group:
        group.start_soon(pulse.beat)
        for pause_s in (0.3, 2.0, 0.5):
            await anyio.sleep(1 - BEAT_S / 2)
            clock.jumped_s += pause_s
        await anyio.sleep(1)
        group.cancel_scope.cancel()
    facts = pulse.facts()

    assert facts["client_pause_s"] == pytest.approx(2.0, abs=BEAT_S)
    assert facts["client_pause_at_s"] == pytest.approx(0.3 + 2 * (1 - BEAT_S / 2), abs=BEAT_S)


@pytest.mark.anyio
async def test_a_pause_right_before_the_end_is_told() -> None:
    clock = Clock()
    pulse = Pulse(clock)
    async with anyio.create_task_group() as group:
        group.start_soon(pulse.beat)
        await anyio.sleep(BEAT_S / 2)
        clock.jumped_s += 5
        group.cancel_scope.cancel()

    assert pulse.facts()["client_pause_s"] == pytest.approx(5, abs=BEAT_S)
