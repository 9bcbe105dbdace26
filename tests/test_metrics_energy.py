"""The energy of a level: counted, integrated or declared, and told as what it is."""

from __future__ import annotations

from typing import Any

import pytest

from loadbench.metrics.machine import measured_energy, typed
from tests.support.plain import energy
from tests.support.samples import gpu, sample


def of(*samples: dict[str, Any], gpus: tuple[int, ...] = (0,), **asked: Any) -> dict[str, Any]:
    """Of a level of 60 s that cost 2,000 tokens."""
    return energy(samples, gpus, asked, duration_s=60.0, tokens=2000)


def counters(*joules: float | None) -> list[dict[str, Any]]:
    return [sample(i, gpus=[gpu(energy_j=j)]) for i, j in enumerate(joules)]


def test_a_gpu_that_counts_its_energy_is_taken_at_its_word() -> None:
    assert measured_energy(typed(counters(500.0, 650.0, 900.0)), [0]) == (400.0, "gpu")


def test_a_gpu_that_tells_its_power_alone_is_integrated_by_trapezoids() -> None:
    samples = [sample(at, gpus=[gpu(power_w=watts)]) for at, watts in ((0.0, 100.0), (1.0, 300.0), (3.0, 100.0))]

    assert measured_energy(typed(samples), [0]) == (200.0 + 400.0, "gpu")


def test_a_counter_that_was_reset_gives_way_to_the_power() -> None:
    samples = [sample(at, gpus=[gpu(power_w=50.0, energy_j=joules)]) for at, joules in ((0.0, 900.0), (2.0, 10.0))]

    assert measured_energy(typed(samples), [0]) == (100.0, "gpu")


def test_cpu_and_gpu_are_added_and_both_are_named() -> None:
    samples = [sample(at, gpus=[gpu(energy_j=at * 100.0)], cpu_energy_j=7 + at * 30.0) for at in (1.0, 3.0)]

    assert measured_energy(typed(samples), [0]) == (260.0, "gpu+cpu")


def test_without_gpus_it_is_the_cpus() -> None:
    assert measured_energy(typed([sample(0, cpu_energy_j=7.0), sample(1, cpu_energy_j=37.0)]), []) == (30.0, "cpu")


def test_of_two_gpus_one_alone_is_no_figure() -> None:
    samples = [sample(at, gpus=[gpu(0, energy_j=at), gpu(1)]) for at in (0.0, 5.0)]

    assert measured_energy(typed(samples), [0, 1]) == (None, None)
    assert measured_energy(typed(samples), [0]) == (5.0, "gpu")


UNKNOWN = [
    pytest.param([], id="no samples"),
    pytest.param(counters(500.0), id="one sample"),
    pytest.param(counters(500.0, 100.0), id="a reset, no power"),
    pytest.param(counters(None, 500.0, 600.0), id="known from the middle on"),
    pytest.param([sample(0, gpus=[gpu(power_w=50.0)]), sample(1)], id="a power that ends"),
    pytest.param([sample(0), sample(1)], id="no GPU, no RAPL"),
    pytest.param([sample(0), *(sample(at, cpu_energy_j=at) for at in (1.0, 2.0))], id="RAPL from the middle on"),
]


@pytest.mark.parametrize("samples", UNKNOWN)
def test_what_was_not_measured_over_the_whole_level_is_unknown_and_never_0(samples: list[dict[str, Any]]) -> None:
    gpus = (0,) if any(one["gpus"] for one in samples) else ()

    assert set(of(*samples, gpus=gpus, price_per_kwh=0.3).values()) == {None}


@pytest.mark.parametrize("samples", UNKNOWN)
def test_declared_watts_stand_in_where_nothing_was_measured(samples: list[dict[str, Any]]) -> None:
    figures = of(*samples, declared_watts=65.0)

    assert (figures["energy_j"], figures["energy_source"]) == (3900.0, "declared")


def test_declared_watts_give_way_to_what_was_measured() -> None:
    figures = of(*counters(500.0, 900.0), declared_watts=65.0)

    assert (figures["energy_j"], figures["energy_source"]) == (400.0, "gpu")


def test_energy_and_cost_are_told_per_1000_tokens() -> None:
    figures = of(*counters(0.0, 14_400.0), price_per_kwh=0.5)

    assert (figures["j_per_1000_tokens"], figures["wh_per_1000_tokens"]) == (7200.0, 2.0)
    assert figures["cost_per_1000_tokens"] == pytest.approx(0.001)


@pytest.mark.parametrize("tokens", [None, 0])
def test_without_tokens_there_is_energy_but_none_per_token(tokens: int | None) -> None:
    figures = energy(counters(0.0, 100.0), [0], {"price_per_kwh": 0.5}, duration_s=60.0, tokens=tokens)

    assert figures["energy_j"] == 100.0
    assert {figures[name] for name in figures if "per_1000" in name} == {None}


def test_without_a_price_there_is_no_cost() -> None:
    assert of(*counters(0.0, 100.0))["cost_per_1000_tokens"] is None
