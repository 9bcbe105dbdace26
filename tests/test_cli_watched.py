"""The measured server's process: whose it is, what is sampled of it, and whether a model will fit beside it."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from loadbench import telemetry
from loadbench.runner.watch import Watched
from loadbench.server import ModelFacts, Target
from tests.support.catalogues import serving

GB = 1_000_000_000
LOCAL = Target("http://127.0.0.1:9/v1", "openai")
REMOTE = Target("http://gpu-box:9/v1", "openai", pid=os.getpid())
NOT_STARTED = Target("", "openai", pid=os.getpid())
LARGE = ModelFacts("large", loaded=False, size_bytes=10 * GB, device="CPU")


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 8 GB free, and 2 GB on its GPU."""
    monkeypatch.setattr(telemetry, "free_memory_bytes", lambda: 8 * GB)
    monkeypatch.setattr(telemetry, "gpu_free_memory_bytes", lambda: 2 * GB)


# -- its process


@pytest.mark.parametrize(("server", "local"), [(LOCAL, True), (REMOTE, False), (NOT_STARTED, False)])
def test_a_server_is_local_if_it_runs_and_its_address_is_of_this_machine(server: Target, local: bool) -> None:
    assert Watched(server).local == local


def test_a_servers_own_word_of_its_pid_goes_first() -> None:
    assert Watched(replace(LOCAL, pid=4711)).pid == 4711


def test_a_server_that_tells_no_pid_is_found_by_its_port() -> None:
    with serving("openai") as service:
        assert Watched(Target(service.url + "/v1", "openai")).pid == os.getpid()


@pytest.mark.parametrize("server", [REMOTE, NOT_STARTED])
def test_a_pid_of_another_machine_is_none_of_this_one(server: Target) -> None:
    assert Watched(server).pid is None


# -- samples


def test_what_is_sampled_and_how_is_part_of_the_record() -> None:
    watched = Watched(replace(LOCAL, pid=os.getpid()))
    with watched.sampling() as sampler:
        facts = watched.facts(sampler)
        sample = sampler.sample()

    assert facts is not None
    assert (facts["interval_s"], facts["local"], facts["server_pid"]) == (1.0, True, os.getpid())
    assert {"gpu_source", "gpu_reason", "cpu_energy_source", "cpu_energy_reason"} <= set(facts)
    assert sample["server"]["memory_bytes"] > 1_000_000


def test_of_a_distant_server_this_client_and_machine_alone_are_sampled() -> None:
    watched = Watched(REMOTE)
    with watched.sampling() as sampler:
        facts = watched.facts(sampler)
        sample = sampler.sample()

    assert facts is not None
    assert (facts["local"], facts["server_pid"], sample["server"]) == (False, None, None)
    assert sample["client"]["memory_bytes"] > 1_000_000


def test_sampling_ends_with_its_context(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    monkeypatch.setattr(telemetry.Sampler, "close", lambda self: closed.append(self))
    with pytest.raises(KeyboardInterrupt), Watched(LOCAL).sampling():
        raise KeyboardInterrupt

    assert len(closed) == 1


# -- memory


def test_a_model_that_is_larger_than_the_free_memory_is_warned_of() -> None:
    warning = Watched(LOCAL).memory_warning(LARGE)

    assert warning is not None
    assert warning.startswith("large needs about 12.0 GB of memory")
    assert "8.0 GB are free" in warning


@pytest.mark.parametrize(("device", "warned"), [("CPU", False), ("GPU", True), ("GPU+CPU", True), (None, False)])
def test_a_model_for_the_gpu_has_to_fit_into_its_memory(device: str | None, warned: bool) -> None:
    facts = ModelFacts("m", loaded=False, size_bytes=4 * GB, device=device)

    assert (Watched(LOCAL).memory_warning(facts) is not None) == warned


def test_what_is_loaded_has_its_memory_already() -> None:
    assert Watched(LOCAL).memory_warning(replace(LARGE, loaded=True)) is None


def test_what_nobody_will_load_needs_no_memory() -> None:
    assert Watched(LOCAL).memory_warning(replace(LARGE, loaded=None)) is None


def test_this_machines_memory_is_not_that_of_a_distant_server() -> None:
    assert Watched(REMOTE).memory_warning(LARGE) is None
