"""Samples while a run goes on: of what, when, and of whose machine."""

from __future__ import annotations

import anyio
import pytest

from loadbench.runner.watch import INTERVAL_S, Watch
from tests.support.turns import Sampler, Story


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # samples are taken in a thread


@pytest.fixture
def story() -> Story:
    return Story(memory_bytes=7)


@pytest.mark.anyio
async def test_a_sample_says_when_it_was_taken_and_of_what(story: Story) -> None:
    times_s = iter((10.0, 12.5))
    watch = Watch(story, Sampler(story), now_s=lambda: next(times_s))
    memory = await watch.sample("level", model="m", level="m@c1", attempt=2)

    assert memory == 7
    assert story.samples == [
        {
            **{"at_s": 2.5, "phase": "level", "model": "m", "level": "m@c1", "attempt": 2},
            **{"server": {"memory_bytes": 7}, "gpus": [], "cpu_energy_j": 3.0, "metrics": None},
        }
    ]


@pytest.mark.anyio
async def test_a_server_on_another_machine_has_nothing_of_this_ones_gpus_and_energy(story: Story) -> None:
    await Watch(story, Sampler(story), local=False).sample("level")

    assert (story.samples[0]["gpus"], story.samples[0]["cpu_energy_j"]) == (None, None)


@pytest.mark.anyio
async def test_the_servers_own_metrics_stand_beside_a_sample(story: Story) -> None:
    async def scrape() -> dict[str, float] | None:
        return {"requests": 3.0}

    await Watch(story, Sampler(story), scrape).sample("level")

    assert story.samples[0]["metrics"] == {"requests": 3.0}


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
