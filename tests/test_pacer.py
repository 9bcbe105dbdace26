"""Start times: each kind of arrivals keeps its own law, to the nanosecond where it has no chance in it."""

from itertools import islice, pairwise, takewhile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadbench.engine.pacer import constant, poisson, replay, shaped, shaped_poisson, start_offsets_ns
from loadbench.scenario import Shape
from loadbench.scenario.loads import Piece

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


# -- shapes


def numbers_due(shape: Shape, starts, points: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """At so many times: how many requests were due until then, and the integral of the rate, done anew by sums."""
    times = np.linspace(0, shape.duration_s, points)
    due = np.searchsorted(np.array(list(starts)), times * S, side="left")
    grid = np.linspace(0, shape.duration_s, 200_001)
    rates = np.array([rate_at(shape, at) for at in (grid[1:] + grid[:-1]) / 2])
    wanted = np.interp(times, grid, np.concatenate(([0.0], np.cumsum(rates * np.diff(grid)))))
    return due, wanted


def rate_at(shape: Shape, at_s: float) -> float:
    for piece in shape.pieces:
        if at_s < piece.duration_s:
            return piece.from_per_s + (piece.to_per_s - piece.from_per_s) * at_s / piece.duration_s
        at_s -= piece.duration_s
    return 0.0


SHAPES = [
    "ramp 1..8 over 2m",
    "ramp 8..1 over 2m",
    "ramp 0..5 over 30s",  # from nothing
    "ramp 5..0 over 30s",  # to nothing
    "ramp 3..3 over 30s",  # no ramp at all
    "steps 1,2,4 each 30s",
    "steps 4,0,1.5 each 10s",  # a pause
    "spike 1 to 10 at 30s for 10s",
    "spike 0 to 50 at 5s for 1s over 20s",
]


@pytest.mark.parametrize("text", SHAPES)
def test_starts_at_equal_shares_follow_the_integral_of_the_rate_to_one_request(text):
    shape = Shape.parse(text)
    due, wanted = numbers_due(shape, shaped(shape.pieces))

    assert np.all(due - wanted < 1.01)
    assert np.all(due - wanted > -0.01)  # the sums have steps of their own


@pytest.mark.parametrize("text", SHAPES)
def test_poisson_starts_of_a_shape_follow_the_integral_on_average_and_vary_as_much_as_it(text):
    shape = Shape.parse(text)
    counts = np.array(
        [numbers_at(shape, shaped_poisson(shape.pieces, np.random.default_rng(seed))) for seed in range(400)]
    )
    wanted = numbers_due(shape, [], points=5)[1]

    # Of a Poisson count with mean m over 400 runs: the mean lies within 4 sqrt(m/400), the variance within 30 %.
    assert np.all(np.abs(counts.mean(axis=0) - wanted) <= 4 * np.sqrt(wanted / 400) + 1e-9)
    assert counts[:, -1].var() == pytest.approx(wanted[-1], rel=0.3)


def numbers_at(shape: Shape, starts) -> np.ndarray:
    return np.searchsorted(np.array(list(starts)), np.linspace(0, shape.duration_s, 5) * S, side="left")


def test_poisson_gaps_of_a_shape_are_exponential_on_the_scale_of_its_integral():
    [ramp] = Shape.parse("ramp 1..100 over 3m").pieces
    at_s = np.array(list(shaped_poisson([ramp], np.random.default_rng(3)))) / S
    passed = at_s + (99 / 180) * at_s**2 / 2
    found = np.sort(np.diff(passed))
    ranks = np.arange(1, found.size + 1) / found.size

    # Kolmogorov and Smirnov's greatest distance: beyond 1.63/sqrt(n) once in 100.
    assert np.abs(ranks - (1 - np.exp(-found))).max() < 1.63 / np.sqrt(found.size)


@pytest.mark.parametrize(
    ("text", "due_s"),
    [
        ("ramp 0..4 over 2s", [0, 1, 2**0.5, 3**0.5]),  # the integral is t squared
        ("steps 1,0,2 each 2s", [0, 1, 4, 4.5, 5, 5.5]),
        ("spike 0 to 4 at 1s for 1s", [1, 1.25, 1.5, 1.75]),
    ],
)
def test_a_start_of_a_shape_lies_where_the_integral_says(text, due_s):
    assert list(shaped(Shape.parse(text).pieces)) == [round(at_s * S) for at_s in due_s]


@given(st.lists(st.tuples(st.floats(0.1, 20), st.floats(0, 30), st.floats(0, 30)), min_size=1, max_size=4), seeds)
@settings(max_examples=60, deadline=None)
def test_starts_of_any_shape_ascend_within_its_time_and_the_seed_decides(stretches, seed):
    pieces = [Piece(*stretch) for stretch in stretches]
    end_ns = sum(piece.duration_s for piece in pieces) * S
    even = list(shaped(pieces))
    chance = [list(shaped_poisson(pieces, np.random.default_rng(seed))) for _ in range(2)]

    assert chance[0] == chance[1]
    assert abs(len(even) - sum(piece.requests for piece in pieces)) < 1 + 1e-6
    for starts in (even, chance[0]):
        assert all(0 <= a <= b for a, b in pairwise(starts))
        assert not starts or starts[-1] <= end_ns + 1


def test_a_constant_shape_is_the_constant_rate():
    assert list(shaped([Piece(10.0, 3.0, 3.0)])) == first(constant(3), 30)


def test_a_replay_starts_when_the_trace_says():
    assert list(replay([0, 0.5, 0.5, 86_400])) == [0, S // 2, S // 2, 86_400 * S]
