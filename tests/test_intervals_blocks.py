"""Intervals of requests that depend on each other: coverage by simulation, floors, widths, speed."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench import stats
from loadbench.stats.blocks import (
    block_length,
    independent_requests,
    is_dependent,
    mean_interval,
    mean_variance,
    neighbours,
    percentile_interval,
    percentile_worth,
    rate_interval,
    rate_variance,
    ratio_interval,
    share_interval,
)
from loadbench.stats.shares import wilson
from tests.support import simulations

TRIALS = 2000
DOUBT = 0.015
"""Three standard errors of a coverage of 95 % over 2,000 trials."""

COVERAGE = [
    # law, n, p, at least: 0.95 where it is reached, else what is
    ("independent", 60, 0.5, 0.95),
    ("independent", 1000, 0.5, 0.95),
    ("independent", 200, 0.95, 0.95),
    ("independent", 1000, 0.99, 0.95),
    ("AR(1) 0.5", 60, 0.5, 0.95),
    ("AR(1) 0.5", 200, 0.5, 0.95),
    ("AR(1) 0.5", 1000, 0.95, 0.95),
    ("queue at 50 %", 200, 0.5, 0.94),
    ("queue at 50 %", 1000, 0.5, 0.94),
    ("queue at 50 %", 1000, 0.95, 0.91),
    ("queue at 80 %", 1000, 0.5, 0.86),
    ("lognormal", 60, 0.5, 0.95),
    ("lognormal", 200, 0.95, 0.95),
    ("lognormal", 1000, 0.99, 0.95),
    ("ties", 60, 0.5, 0.95),
    ("ties", 1000, 0.95, 0.95),
]


@pytest.mark.endurance
@pytest.mark.parametrize(("law", "n", "p", "least"), COVERAGE)
def test_intervals_of_percentiles_hold_the_truth_as_often_as_they_say(law: str, n: int, p: float, least: float) -> None:
    assert simulations.coverage_of_percentile(law, n, p, TRIALS) >= least - DOUBT


@pytest.mark.endurance
@pytest.mark.parametrize(("n", "p"), [(60, 0.5), (200, 0.5), (200, 0.95), (1000, 0.99)])
def test_independent_requests_are_covered_at_least_as_discreteness_allows(n: int, p: float) -> None:
    exact = simulations.exact_coverage(n, p)
    plain = simulations.coverage_of_percentile("independent", n, p, TRIALS, blocks=False)

    assert exact is not None
    assert plain == pytest.approx(exact, abs=DOUBT)
    assert simulations.coverage_of_percentile("independent", n, p, TRIALS) >= exact - DOUBT


def test_treated_as_independent_requests_that_depend_on_each_other_are_covered_too_rarely() -> None:
    assert simulations.coverage_of_percentile("AR(1) 0.5", 200, 0.5, TRIALS, blocks=False) < 0.87
    assert simulations.coverage_of_percentile("queue at 80 %", 1000, 0.5, TRIALS, blocks=False) < 0.4


MEANS = [
    ("independent", 60, 0.95),
    ("AR(1) 0.5", 60, 0.95),
    ("AR(1) 0.5", 1000, 0.95),
    ("queue at 50 %", 1000, 0.91),
    ("queue at 80 %", 1000, 0.81),
    ("lognormal", 60, 0.93),
    ("ties", 200, 0.95),
]


@pytest.mark.parametrize(("law", "n", "least"), MEANS)
def test_intervals_of_means_hold_the_truth_as_often_as_they_say(law: str, n: int, least: float) -> None:
    assert simulations.coverage_of_mean(law, n, TRIALS) >= least - DOUBT


@pytest.mark.endurance
@pytest.mark.parametrize(("sigma", "seconds", "least"), [(0.3, 60, 0.95), (0.3, 20, 0.93), (1.0, 60, 0.92)])
def test_intervals_of_rates_hold_the_truth_as_often_as_they_say(sigma: float, seconds: float, least: float) -> None:
    assert simulations.coverage_of_rate(sigma, seconds, TRIALS) >= least - DOUBT


@given(st.lists(st.floats(0, 1e6), min_size=6, max_size=200), st.sampled_from([0.1, 0.5, 0.9]))
def test_an_interval_by_blocks_is_never_narrower_than_the_one_by_order_statistics(
    values: list[float], p: float
) -> None:
    found, floor = percentile_interval(np.array(values), p), simulations.plain(np.array(values), p)

    assert found is None or (floor is not None and found[0] <= floor[0] and found[1] >= floor[1])


@given(st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=100))
def test_the_interval_of_a_mean_is_never_narrower_than_that_of_independent_values(values: list[float]) -> None:
    found = mean_interval(np.array(values))
    n = len(values)
    half = stats.student(n - 1) * float(np.std(values, ddof=1)) / math.sqrt(n)

    assert found is not None
    assert (found[1] - found[0]) / 2 >= half * (1 - 1e-6) - 1e-6


def test_a_dependence_that_blocks_alone_see_has_the_variance_of_a_moving_block_bootstrap() -> None:
    # Neighbours hardly resemble each other, but the level moves slowly: blocks of 30 see it, their memory does not.
    generator = np.random.default_rng(1)
    values = generator.standard_normal(1000) + np.repeat(generator.normal(0, 0.5, 50), 20)
    length = block_length(len(values))
    starts = generator.integers(0, len(values) - length + 1, (4000, len(values) // length))
    resampled = values[starts[:, :, None] + np.arange(length)].reshape(4000, -1).mean(axis=1)

    found = mean_variance(values)

    assert found is not None
    assert found.variance == pytest.approx(resampled.var(), rel=0.1)
    assert found.freedom == pytest.approx(1.5 * (1000 / length - 1))
    assert found.variance > 2 * values.var() / len(values)


@pytest.mark.parametrize(("law", "n", "near"), [("AR(1) 0.5", 60, 0.15), ("independent", 200, 0.1)])
def test_the_variance_of_a_series_is_known_from_few_values(law: str, n: int, near: float) -> None:
    rows = simulations.series(law, TRIALS, n)
    true = rows.mean(axis=1).var() if law != "independent" else 1 / n

    found = [mean_variance(row) for row in rows]

    assert np.median([one.variance for one in found if one is not None]) == pytest.approx(true, rel=near)


def test_at_least_four_blocks_fit() -> None:
    assert [n for n in range(4, 200) if 4 * block_length(n) > n] == []


@pytest.mark.parametrize("n", [0, 3, 5])
def test_a_handful_of_requests_is_worth_nothing(n: int) -> None:
    values = np.arange(float(n))

    assert independent_requests(values, 0.5) == 0
    assert percentile_interval(values, 0.5) is None
    assert (mean_interval(values) is None) == (n < 4)


@pytest.mark.parametrize(("p", "n"), [(0.5, 6), (0.9, 36), (0.95, 72), (0.99, 368)])
def test_the_published_number_of_requests_has_an_interval_where_they_are_independent(p: float, n: int) -> None:
    rows = simulations.series("independent", 200, n)

    given = [percentile_interval(row, p) is not None for row in rows]

    assert sum(given) / len(given) > 0.92  # what looks dependent at a chance of 5 % has its lower end alone
    assert not any(percentile_interval(row[1:], p) for row in rows)


def test_values_that_are_worth_too_few_for_an_interval_have_its_lower_end() -> None:
    values = simulations.series("AR(1) 0.5", 400, 72)

    found = [stats.ends(np.sort(row), 0.95, independent_requests(row, 0.95)) for row in values]

    truth = simulations.LAWS["AR(1) 0.5"].quantile(0.95)
    assert sum(high is None for _, high in found) > 300
    assert sum(low is not None and low <= truth for low, _ in found) / 400 > 0.96


@pytest.mark.parametrize("n", [72, 400])
def test_independent_values_are_seldom_said_to_depend_on_each_other(n: int) -> None:
    rows = simulations.series("independent", 400, n)

    said = sum(percentile_worth(row, 0.95).requests < n for row in rows)

    assert said / 400 < 0.08


def test_an_interval_is_in_doubt_where_all_values_and_those_beyond_the_percentile_do_not_agree() -> None:
    # Clearly a series that remembers; but by chance the slowest of it are spread evenly.
    values = np.repeat([1.0, 2.0], 10).tolist() * 10
    for i in range(0, 200, 20):
        values[i] = 9.0
    spread = np.array(values)

    found = percentile_worth(spread, 0.96)

    assert is_dependent(spread)
    assert found.doubtful


def test_the_correlation_of_neighbours_is_that_of_the_series() -> None:
    found = [neighbours(row) for row in simulations.series("AR(1) 0.5", 200, 1000)]

    assert np.mean([one for one in found if one is not None]) == pytest.approx(0.5, abs=0.02)
    assert neighbours(np.array([1.0, np.inf, np.nan])) is None


def test_the_mean_over_all_tokens_has_an_interval_that_holds_it_as_often_as_it_says() -> None:
    generator, held = np.random.default_rng(1), 0
    for _ in range(1000):
        sizes = generator.integers(1, 200, 100)
        amounts = sizes * (20.0 + 4 * generator.standard_normal(100))
        held += simulations.holds(ratio_interval(amounts, sizes), 20.0)

    assert held / 1000 > 0.93
    assert ratio_interval(np.zeros(0), np.zeros(0, dtype=np.int64)) is None


def test_equal_values_at_the_top_that_come_together_are_worth_few() -> None:
    # The slowest all wait for one tick of a clock: no value lies above it, and below it the share says it all.
    together = np.repeat([1.0, 2.0], [480, 20])
    spread = np.random.default_rng(1).permutation(together)

    assert independent_requests(together, 0.99) < 20
    assert independent_requests(spread, 0.99) > 300


def test_a_smaller_tail_makes_every_interval_wider() -> None:
    values = simulations.series("AR(1) 0.5", TRIALS, 200)[0]

    for of in (mean_interval, lambda row, tail: percentile_interval(row, 0.5, tail)):
        (low, high), (wide_low, wide_high) = of(values, tail=0.025), of(values, tail=0.005)

        assert wide_low < low < high < wide_high


def test_a_share_of_failures_that_come_together_is_less_certain() -> None:
    together, spread = np.arange(400) < 40, np.arange(400) % 10 == 0

    wide, narrow = share_interval(together), share_interval(spread)

    assert wide is not None
    assert narrow is not None
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])
    assert share_interval(np.zeros(40, dtype=np.bool_))[1] >= wilson(0, 40)[1]  # type: ignore[index]
    assert share_interval(np.zeros(0, dtype=np.bool_)) is None


def test_a_rate_needs_four_blocks_that_are_longer_than_a_request_and_is_never_below_nothing() -> None:
    amounts = np.random.default_rng(1).poisson(100, 64).astype(np.float64)
    once = np.zeros(64)
    once[5] = 1.0

    assert rate_variance(amounts, 64.0, dependent_s=16.0) is not None
    assert rate_variance(amounts, 64.0, dependent_s=17.0) is None
    assert rate_interval(amounts[:3], 64.0) is None
    assert rate_interval(once, 64.0)[0] == 0.0  # type: ignore[index]
