"""Shares and their differences: published examples, coverage by enumeration and simulation; ratios of two estimates."""

import math

import numpy as np
import pytest

from loadbench.stats import Estimate, difference, mover, normal, one_sample, percentile, student
from loadbench.stats.blocks import percentile_interval
from loadbench.stats.shares import mcnemar, newcombe, newcombe_paired, wilson
from tests.support.simulations import series

NEWCOMBE = [
    # (hits, n) of two groups, interval of first - second: Newcombe 1998, table II, method 10
    ((56, 70), (48, 80), (0.0524, 0.3339)),
    ((9, 10), (3, 10), (0.1705, 0.8090)),
    ((6, 7), (2, 7), (0.0582, 0.8062)),
    ((5, 56), (0, 29), (-0.0381, 0.1926)),
    ((0, 10), (0, 20), (-0.1611, 0.2775)),
    ((10, 10), (0, 10), (0.6075, 1.0000)),
]


@pytest.mark.parametrize(("new", "base", "expected"), NEWCOMBE)
def test_the_difference_of_two_shares_has_the_published_interval(
    new: tuple[int, int], base: tuple[int, int], expected: tuple[float, float]
) -> None:
    assert newcombe(base, new) == pytest.approx(expected, abs=6e-5)


def _mass(n: int, p: float) -> np.ndarray:
    return np.array([math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)])


@pytest.mark.parametrize("p", [0.02, 0.1, 0.3, 0.5])
def test_wilsons_interval_covers_about_what_it_says(p: float) -> None:
    mass = _mass(100, p)
    held = [low <= p <= high for low, high in (wilson(k, 100) for k in range(101))]

    assert mass[held].sum() >= 0.93  # it wavers about 95 %: Brown, Cai & DasGupta 2001


@pytest.mark.parametrize(("p", "q"), [(0.02, 0.02), (0.02, 0.1), (0.5, 0.6)])
def test_the_interval_of_a_difference_covers_what_it_says(p: float, q: float) -> None:
    n = 60
    mass = np.outer(_mass(n, p), _mass(n, q))
    bounds = [[newcombe((i, n), (j, n)) for j in range(n + 1)] for i in range(n + 1)]
    held = np.array([[low <= q - p <= high for low, high in row] for row in bounds])

    assert mass[held].sum() >= 0.94


def test_outcomes_that_go_together_make_the_difference_more_certain() -> None:
    assert wilson(0, 0) is newcombe((0, 0), (1, 2)) is None
    low, high = newcombe((90, 100), (88, 100))
    paired_low, paired_high = newcombe_paired((90, 100), (88, 100), phi=0.8)

    assert low < paired_low < -0.02 < paired_high < high
    assert newcombe_paired((90, 100), (88, 100), phi=0.0) == (low, high)


def test_outcomes_that_are_the_same_leave_only_what_wilsons_bounds_are_askew() -> None:
    low, high = wilson(30, 100)

    assert newcombe_paired((30, 100), (30, 100), phi=1.0) == pytest.approx(
        (-abs((high - 0.3) - (0.3 - low)), abs((high - 0.3) - (0.3 - low)))
    )


def test_the_paired_interval_covers_what_it_says_where_the_unpaired_one_is_too_wide() -> None:
    generator = np.random.default_rng(5)
    n, trials, difference_of = 100, 2000, 0.05
    # 80 % fail or pass together; of the others a few more got worse.
    both, worse, better = 0.8, 0.125, 0.075
    counts = generator.multinomial(n, [both * 0.9, both * 0.1, worse, better], trials)
    held = 0
    for passed, failed, got_worse, got_better in counts:
        base, new = failed + got_better, failed + got_worse  # failures
        cross = passed * failed - got_worse * got_better
        phi = cross / math.sqrt(base * (n - base) * new * (n - new)) if base and new else 0.0
        low, high = newcombe_paired((base, n), (new, n), phi)
        held += low <= difference_of <= high

    assert held / trials >= 0.94


@pytest.mark.parametrize(("worse", "better", "p"), [(0, 0, 1.0), (6, 0, 2 / 64), (0, 6, 2 / 64), (3, 3, 1.0)])
def test_mcnemar_asks_only_the_prompts_that_changed(worse: int, better: int, p: float) -> None:
    assert mcnemar(worse, better) == pytest.approx(p)


def test_the_difference_of_two_estimates_is_welchs() -> None:
    # Variances of the means 4 and 1, 9 and 4 degrees of freedom: Satterthwaite has 25 / (16/9 + 1/4) = 12.33.
    low, high = difference(Estimate(10.0, 4.0, 9), Estimate(12.0, 1.0, 4))
    half = student(25 / (16 / 9 + 1 / 4)) * math.sqrt(5)

    assert (low, high) == (pytest.approx(2 - half), pytest.approx(2 + half))


def test_estimates_without_any_doubt_have_a_difference_without_any() -> None:
    assert difference(Estimate(1.0, 0.0, 5), Estimate(3.0, 0.0, 5)) == (2.0, 2.0)


def test_runs_are_one_sample() -> None:
    found = one_sample([1.0, 2.0, 3.0, 6.0])

    assert found == Estimate(3.0, pytest.approx(14 / 3 / 4), 3)
    assert one_sample([1.0]) is None


def test_an_interval_made_of_intervals_is_the_ordinary_one_where_both_are_symmetric() -> None:
    bounds = mover([1.0, 3.0], [(0.7, 1.3), (2.6, 3.4)], (-1, 1))

    assert bounds == (pytest.approx(1.5), pytest.approx(2.5))


def test_the_upper_end_of_a_difference_rests_on_the_lower_end_of_what_is_taken_off() -> None:
    # 10 in [7, 10.5] less 4 in [4, 8]: up 0.5 and 0, down 3 and 4.
    assert mover([4.0, 10.0], [(4.0, 8.0), (7.0, 10.5)], (-1, 1)) == (1.0, 6.5)


def test_the_interval_of_a_ratio_of_two_percentiles_covers_what_it_says() -> None:
    base, new = np.split(series("AR(1) 0.5", 2000, 200), 2)  # logarithms of lognormal times; both sides alike
    held = given = 0
    for b, n in zip(base, new, strict=True):
        values = [percentile(np.sort(side), 0.5) for side in (b, n)]
        low, high = mover(values, [percentile_interval(b, 0.5), percentile_interval(n, 0.5)], (-1, 1))
        held, given = held + (low <= 0 <= high), given + 1

    assert held / given >= 0.94


def test_the_normal_quantile_is_what_wilson_rests_on() -> None:
    z = normal(0.005)

    assert wilson(0, 10, tail=0.005)[1] == pytest.approx(z * z / (10 + z * z))


@pytest.mark.parametrize(("hits", "n"), [(1, 3), (5, 10), (19, 20), (999, 1000)])
def test_the_ends_of_wilsons_interval_are_the_shares_that_the_score_test_just_accepts(hits: int, n: int) -> None:
    for end in wilson(hits, n):
        score = abs(hits / n - end) / math.sqrt(end * (1 - end) / n)

        assert score == pytest.approx(1.959964, abs=1e-6)


def test_a_share_of_none_or_all_is_open_to_one_side() -> None:
    # 10 of 10: n / (n + z^2) = 10 / 13.8415
    assert wilson(0, 10) == (0.0, pytest.approx(0.277533, abs=1e-6))
    assert wilson(10, 10) == (pytest.approx(0.722467, abs=1e-6), 1.0)
