"""Counters and gauges of a level: how far they went, and when nobody can say."""

from __future__ import annotations

import pytest

from loadbench.metrics.machine import Growth, by_level, column, growth, mean, typed, within
from loadbench.store.schema import Sample
from tests.support.samples import sample


def grown(samples: list[Sample]) -> Growth | None:
    return growth(samples, column(samples, "server", "cpu_s"))


def counted(*values: float | None) -> list[Sample]:
    """A sample a second; None where the server was not found."""
    return typed(sample(i, server=None if v is None else {"cpu_s": v}) for i, v in enumerate(values))


GROWTHS = [
    # values, a second apart; amount, seconds, from the start, to the end
    pytest.param((10.0, 11.5, 14.0), (4.0, 2.0, True, True), id="a counter that goes on"),
    pytest.param((10.0, 10.0), (0.0, 1.0, True, True), id="one that stands still has a growth of 0"),
    pytest.param((None, 10.0, 14.0), (4.0, 1.0, False, True), id="found late"),
    pytest.param((10.0, 14.0, None, None), (4.0, 1.0, True, False), id="a server that died"),
    pytest.param((10.0, None, 16.0), (6.0, 2.0, True, True), id="one sample that failed"),
]


@pytest.mark.parametrize(("values", "expected"), GROWTHS)
def test_a_counter_grew_from_its_first_to_its_last_sample(
    values: tuple[float | None, ...], expected: tuple[float, float, bool, bool]
) -> None:
    assert grown(counted(*values)) == Growth(*expected)


@pytest.mark.parametrize("values", [(), (10.0,), (None, 10.0), (None, None)])
def test_fewer_than_two_values_are_no_growth(values: tuple[float | None, ...]) -> None:
    assert grown(counted(*values)) is None


@pytest.mark.parametrize("values", [(10.0, 2.0), (10.0, 2.0, 30.0)])
def test_a_counter_that_was_begun_anew_has_no_growth(values: tuple[float, ...]) -> None:
    assert grown(counted(*values)) is None


def test_two_samples_of_one_moment_are_no_growth() -> None:
    assert grown(typed([sample(3.0, server={"cpu_s": 1.0}), sample(3.0, server={"cpu_s": 2.0})])) is None


def test_means_are_of_what_is_known() -> None:
    assert (mean([1.0, None, 4.0]), mean([]), mean([None])) == (2.5, None, None)


def test_the_samples_before_and_after_a_level_are_not_within_it() -> None:
    three, two = counted(1.0, 2.0, 3.0), counted(1.0, 2.0)

    assert within(three) == three[1:2]
    assert within(two) == two


def test_samples_belong_to_an_attempt_of_a_level() -> None:
    level = [sample(0, attempt=1), sample(1, attempt=2), sample(2, level="m@c2")]
    first, again, other, idle = typed([*level, {**sample(3), "phase": "idle", "level": None}])

    found = by_level([first, again, other, idle])

    assert found == {("m@c1", 1): [first], ("m@c1", 2): [again], ("m@c2", 1): [other]}
