"""Start times: each kind of arrivals keeps its own law, to the nanosecond where it has no chance in it."""

from itertools import islice, pairwise, takewhile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadbench.pacer import constant, poisson, start_offsets_ns

S = 1_000_000_000
rates = st.floats(0.01, 5000, allow_nan=False)
seeds = st.integers(0, 2**32)


def first(starts, n: int) -> list[int]:
    return list(islice(starts, n))


def gaps(starts, n: int) -> np.ndarray:
    return np.diff(np.array(first(starts, n + 1)))


# -- constant


@pytest.mark.parametrize(
    ("rate_per_s", "number", "due_ns"),
    [
        (1, 0, 0),
        (1, 3, 3 * S),
        (0.5, 1, 2 * S),  # slower than one a second
        (4, 1, S // 4),
        (3, 1, 333_333_333),
        (3, 2, 666_666_667),
        (3, 3, S),  # the thirds do not drift
        (3, 3000, 1000 * S),
        (7, 70_000, 10_000 * S),
        (0.1, 1000, 10_000 * S),
        (0.3, 300, 1000 * S),
    ],
)
def test_a_constant_start_lies_where_its_number_says(rate_per_s, number, due_ns):
    assert first(constant(rate_per_s), number + 1)[-1] == due_ns


@given(rates)
def test_constant_gaps_differ_by_rounding_alone(rate_per_s):
    found = gaps(constant(rate_per_s), 200)

    assert found.max() - found.min() <= 1
    assert found.std() / found.mean() < 1e-4  # the coefficient of variation of exponential gaps is 1


@given(rates, st.integers(1, 300))
def test_constant_starts_keep_the_exact_mean(rate_per_s, number):
    assert first(constant(rate_per_s), number + 1)[-1] == pytest.approx(number * S / rate_per_s, abs=0.6, rel=1e-15)


@pytest.mark.parametrize("rate_per_s", [1, 2.5, 100])
def test_a_constant_rate_starts_that_many_in_any_whole_number_of_periods(rate_per_s):
    in_ten_seconds = takewhile(lambda due_ns: due_ns < 10 * S, constant(rate_per_s))

    assert len(list(in_ten_seconds)) == 10 * rate_per_s


# -- poisson


@given(rates, seeds)
@settings(max_examples=30)
def test_poisson_starts_ascend_from_the_beginning_in_whole_ns(rate_per_s, seed):
    starts = first(poisson(rate_per_s, np.random.default_rng(seed)), 2100)  # more than two blocks

    assert starts[0] >= 0
    assert all(a <= b for a, b in pairwise(starts))
    assert all(type(start) is int for start in starts)


@given(rates, seeds)
@settings(max_examples=10)
def test_the_same_seed_gives_the_same_starts_and_another_one_others(rate_per_s, seed):
    starts = [first(poisson(rate_per_s, np.random.default_rng(s)), 50) for s in (seed, seed, seed + 1)]

    assert starts[0] == starts[1]
    assert starts[0] != starts[2]


@pytest.mark.parametrize("rate_per_s", [0.2, 4, 1000])
def test_poisson_gaps_are_exponential(rate_per_s):
    found = np.sort(gaps(poisson(rate_per_s, np.random.default_rng(1)), 20_000)) * rate_per_s / S
    # Kolmogorov and Smirnov's greatest distance to the law; at n = 20,000 chance exceeds 0.0115 once in 100.
    ranks = np.arange(1, found.size + 1) / found.size
    distance = np.abs(ranks - (1 - np.exp(-found))).max()

    assert distance < 0.0115
    assert found.mean() == pytest.approx(1, abs=0.02)
    assert found.std() / found.mean() == pytest.approx(1, abs=0.03)


def test_the_first_poisson_start_is_exponential_too():
    firsts = [next(poisson(1, np.random.default_rng(seed))) / S for seed in range(500)]

    assert np.mean(firsts) == pytest.approx(1, abs=0.15)


def test_poisson_counts_vary_as_much_as_their_mean():
    starts = np.array(first(poisson(20, np.random.default_rng(2)), 20_000)) // S
    a_second = np.bincount(starts)[:-1]

    assert a_second.mean() == pytest.approx(20, rel=0.03)
    assert a_second.var() == pytest.approx(20, rel=0.2)


# -- both


@pytest.mark.parametrize("rate_per_s", [0, -1, float("nan"), float("inf")])
@pytest.mark.parametrize("starts", [constant, lambda rate: poisson(rate, np.random.default_rng(0))])
def test_a_rate_that_is_no_rate_is_refused_at_once(starts, rate_per_s):
    with pytest.raises(ValueError, match="above 0"):
        starts(rate_per_s)


# -- closed loop


@pytest.mark.parametrize(
    ("slots", "offsets"),
    [
        (0, []),
        (1, [0]),  # nothing to spread
        (2, [0, 50_000]),
        (3, [0, 50_000, 100_000]),
    ],
)
def test_few_slots_start_50_us_apart(slots, offsets):
    assert start_offsets_ns(slots) == offsets


@given(st.integers(1, 20_000))
@settings(max_examples=30)
def test_slots_start_one_after_the_other_at_equal_gaps_within_100_ms(slots):
    offsets = start_offsets_ns(slots)
    steps = {b - a for a, b in pairwise(offsets)}

    assert len(offsets) == slots
    assert offsets[0] == 0
    assert offsets[-1] < 100_000_000
    assert not steps or (min(steps) > 0 and max(steps) - min(steps) <= 1)
