"""Samples while a run goes on, whether this process could run all the time, and servers that say nothing."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
import trio
from trio.testing import MockClock

from loadbench.runner.watch import BEAT_S, INTERVAL_S, Pulse, Silence, Watch, waiting_for
from loadbench.scenario import Scenario, Timeouts
from loadbench.scenario.bounds import Duration
from tests.support.turns import Sampler, Story

FIRST = "no byte for 10 s: waiting for the first token, at most 5m from sending (timeouts.first_token)"


# -- samples


@pytest.fixture
def story() -> Story:
    return Story(memory_bytes=7)


@pytest.mark.anyio
async def test_a_sample_says_when_it_was_taken_and_of_what(story: Story) -> None:
    async def scrape() -> dict[str, float] | None:
        return {"requests": 3.0}

    times_s = iter((10.0, 12.5))
    watch = Watch(story, Sampler(story), scrape, now_s=lambda: next(times_s))
    memory = await watch.sample("level", model="m", level="m@c1", attempt=2)

    assert memory == 7
    assert story.samples == [
        {
            **{"at_s": 2.5, "phase": "level", "model": "m", "level": "m@c1", "attempt": 2},
            **{"server": {"memory_bytes": 7}, "gpus": [], "cpu_energy_j": 3.0, "metrics": {"requests": 3.0}},
        }
    ]


@pytest.mark.anyio
async def test_a_server_on_another_machine_has_nothing_of_this_ones_gpus_and_energy(story: Story) -> None:
    await Watch(story, Sampler(story), local=False).sample("level")

    assert (story.samples[0]["gpus"], story.samples[0]["cpu_energy_j"]) == (None, None)


@pytest.mark.anyio
async def test_without_a_sampler_nothing_is_kept(story: Story) -> None:
    watch = Watch(story, None)
    await watch.each_second("level")

    assert await watch.sample("level") is None
    assert story.samples == []


@pytest.mark.anyio
async def test_samples_come_each_second_until_cancelled(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadbench.runner.watch.INTERVAL_S", INTERVAL_S / 100)
    watch = Watch(story, Sampler(story))
    with anyio.move_on_after(0.055):
        await watch.each_second("idle", model="m")

    assert 2 <= len(story.samples) <= 5
    assert {sample["phase"] for sample in story.samples} == {"idle"}


# -- pauses of this process


@pytest.mark.parametrize(
    ("jumps_s", "after_s", "longest_s", "began_s"),
    [
        ((), 10, 0, None),
        ((0.3, 2.0, 0.5), 1 - BEAT_S / 2, 2.0, 0.3 + 2 * (1 - BEAT_S / 2)),
        ((5,), BEAT_S / 2, 5, None),  # right before the end
    ],
)
def test_the_longest_pause_is_told_with_when_it_began(
    jumps_s: tuple[float, ...], after_s: float, longest_s: float, began_s: float | None
) -> None:
    jumped_s = 0.0

    async def run() -> Pulse:
        nonlocal jumped_s
        pulse = Pulse(lambda: trio.current_time() + jumped_s)  # a suspended process sees its clock jump
        async with anyio.create_task_group() as group:
            group.start_soon(pulse.beat)
            for jump_s in jumps_s:
                await anyio.sleep(after_s)
                jumped_s += jump_s
            if len(jumps_s) != 1:
                await anyio.sleep(1)
            group.cancel_scope.cancel()
        return pulse

    found = trio.run(run, clock=MockClock(autojump_threshold=0)).facts()

    assert found["client_pause_s"] == pytest.approx(longest_s, abs=BEAT_S if jumps_s else 0)
    if began_s is not None:
        assert found["client_pause_at_s"] == pytest.approx(began_s, abs=BEAT_S)


# -- silence


@pytest.mark.parametrize(
    ("moments", "noted"),
    [
        ([(0, 0, 0), (5, 0, 0), (9.9, 0, 0), (10, 0, 0), (11, 0, 0), (60, 0, 0)], [10]),  # once
        ([(0, 0, 0), (8, 1, 0), (17, 1, 0), (18, 1, 0)], [18]),  # the end of a request breaks it
        ([(0, 0, 0), (8, 0, 5), (17, 0, 5), (18, 0, 5)], [18]),  # tokens too
        ([(0, 0, 0), (10, 0, 0), (12, 1, 9), (22, 1, 9)], [10, 22]),  # a second silence
    ],
)
def test_after_ten_seconds_of_silence_it_is_told_once(
    moments: list[tuple[float, int, int]], noted: list[float]
) -> None:
    assert [at_s for at_s, text in looks(*moments) if text] == noted


def looks(*moments: tuple[float, int, int], in_flight: int = 4, begun: bool = False) -> list[tuple[float, str | None]]:
    """What is said at each moment: seconds, requests ended, tokens so far."""
    now_s = [0.0]
    silence = Silence(Scenario(), lambda: now_s[0])
    said = []
    for now_s[0], ended, tokens in moments:
        said.append((now_s[0], silence.look(in_flight=in_flight, ended=ended, tokens=tokens, begun=begun)))
    return said


def test_nobody_waits_where_nothing_is_in_flight() -> None:
    assert looks((0, 0, 0), (30, 0, 0), in_flight=0)[1][1] is None


@pytest.mark.parametrize(
    ("asked", "begun", "text"),
    [
        ({}, False, f"{FIRST}; a server that cannot stream may answer with --no-stream"),
        ({}, True, "no token for 10 s; an answer may stand still for 2m (timeouts.idle)"),
        (
            {"stream": False, "timeouts": Timeouts(total=Duration(60))},
            False,
            "no byte for 10 s: waiting for a whole answer, at most 1m from sending (timeouts.total)",
        ),
    ],
)
def test_it_is_said_what_is_waited_for_and_until_when(asked: dict[str, Any], begun: bool, text: str) -> None:
    assert waiting_for(Scenario(**asked), begun=begun) == text
