"""Nearest ranks, order-statistic intervals, gaps that come in clusters, outliers, Student's quantiles."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.stats import interval, interval_ranks, needed, needed_within, normal, outliers, percentile, rank, student
from loadbench.stats.blocks import independent_gaps
from loadbench.stats.shares import flawless
from tests.support.simulations import ar1

RANKS = [
    # p, n, ceil(p*n) as integers have it; the float products of some are a hair above a whole number
    (0.95, 20, 19),
    (0.07, 100, 7),
    (0.99, 160, 159),  # a rank that is rounded says 158
    (0.999, 1000, 999),
    (0.29, 100, 29),
    (0.5, 3, 2),
    (0.5, 1, 1),
    (0.001, 10, 1),
    (1.0, 7, 7),
    (0.999, 20_000_000, 19_980_000),
]


@pytest.mark.parametrize(("p", "n", "expected"), RANKS)
def test_the_rank_is_the_ceiling_of_p_times_n(p: float, n: int, expected: int) -> None:
    assert rank(p, n) == expected


@pytest.mark.parametrize(("p", "n"), [(0.0, 5), (1.1, 5), (0.5, 0)])
def test_there_is_no_rank_without_values_or_outside_of_them(p: float, n: int) -> None:
    assert percentile(np.array([]), 0.5) is None
    with pytest.raises(ValueError, match="no rank"):
        rank(p, n)


@pytest.mark.parametrize(("p", "n"), [(0.5, 6), (0.9, 36), (0.1, 36), (0.95, 72), (0.99, 368), (0.999, 3688)])
def test_an_interval_exists_from_the_published_number_of_values_on(p: float, n: int) -> None:
    assert needed(p) == n
    assert interval_ranks(p, n) is not None
    assert interval_ranks(p, n - 1) is None


@pytest.mark.parametrize("p", [0.5, 0.9, 0.95, 0.99])
def test_the_ranks_are_the_tightest_that_the_exact_binomial_allows(p: float) -> None:
    for n in (6, 20, 36, 73, 150, 400):
        mass = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
        below = [0.0, *np.cumsum(mass)]  # below[k] = P(successes < k)
        lowers = [low for low in range(1, n + 1) if below[low] <= 0.025]
        uppers = [up for up in range(1, n + 1) if below[up] >= 0.975]
        expected = (max(lowers), min(uppers)) if lowers and uppers else None

        assert interval_ranks(p, n) == expected


def test_the_ranks_of_twenty_million_values_are_those_of_the_normal_approximation() -> None:
    lower, upper = interval_ranks(0.999, 20_000_000)
    half = 1.96 * math.sqrt(20_000_000 * 0.999 * 0.001)

    assert lower == pytest.approx(19_980_000 - half, abs=3)
    assert upper == pytest.approx(19_980_000 + half, abs=3)


@given(st.lists(st.floats(0, 1e6), min_size=6, max_size=200))
def test_an_interval_encloses_its_percentile(values: list[float]) -> None:
    ascending = np.sort(values)

    low, high = interval(ascending, 0.5)

    assert low <= percentile(ascending, 0.5) <= high


def test_an_interval_of_values_that_are_worth_fewer_is_wider() -> None:
    ascending = np.arange(1000.0)

    low, high = interval(ascending, 0.5)
    wide_low, wide_high = interval(ascending, 0.5, independent=100)

    assert wide_low < low < high < wide_high
    # Ranks 40 and 61 of 100 (qbinom), as shares of 1000, outward: the 391st and the 610th value.
    assert (interval_ranks(0.5, 100), wide_low, wide_high) == ((40, 61), 390.0, 609.0)
    assert interval(ascending, 0.5, independent=5) is None


def _coverage(sizes: np.ndarray, between: float, p: float, *, clustered: bool) -> float:
    """Share of 300 simulated runs whose interval holds the true percentile; each gap normal with variance 1."""
    truth = {0.5: 0.0, 0.9: 1.2815515655446004}[p]
    generator = np.random.default_rng(3)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    hits = 0
    for _ in range(300):
        shared = generator.normal(0, math.sqrt(between), len(sizes))
        gaps = shared[owner] + generator.normal(0, math.sqrt(1 - between), len(owner))
        at = percentile(np.sort(gaps), p)
        below, at_most = (np.bincount(owner, hits, len(sizes)).astype(np.int64) for hits in (gaps < at, gaps <= at))
        worth = independent_gaps(below, at_most, sizes) if clustered else None
        bounds = interval(np.sort(gaps), p, worth)
        hits += bounds is not None and bounds[0] <= truth <= bounds[1]
    return hits / 300


@pytest.mark.parametrize("p", [0.5, 0.9])
def test_intervals_of_gaps_hold_what_they_promise_though_gaps_of_a_request_resemble_each_other(p: float) -> None:
    sizes = np.full(60, 30)

    assert _coverage(sizes, 0.5, p, clustered=True) >= 0.92
    assert _coverage(sizes, 0.5, p, clustered=False) < 0.7  # what docs/statistics.md warns of


@pytest.mark.endurance
def test_intervals_of_gaps_hold_what_they_promise_though_requests_resemble_their_neighbours() -> None:
    generator = np.random.default_rng(3)
    sizes, owner = np.full(200, 20), np.repeat(np.arange(200), 20)
    held = alone = 0
    for request in ar1(generator, 1000, 200):
        gaps = math.sqrt(0.5) * (request[owner] + generator.standard_normal(4000))
        below = np.bincount(owner, gaps < np.median(gaps), 200).astype(np.int64)
        shuffled = generator.permutation(below)  # without its order: as if requests were independent
        bounds, narrow = (
            interval(np.sort(gaps), 0.5, independent_gaps(each, each, sizes)) for each in (below, shuffled)
        )
        held += bounds[0] <= 0 <= bounds[1]
        alone += narrow[0] <= 0 <= narrow[1]

    assert held / 1000 >= 0.935
    assert alone / 1000 < 0.85


def test_gaps_that_are_independent_lose_little_and_those_of_few_requests_much() -> None:
    at_most = np.random.default_rng(1).binomial(30, 0.5, 100)
    alike = np.array([100, 0] * 10)  # equal within each request

    assert independent_gaps(at_most, at_most, np.full(100, 30)) > 2000
    assert independent_gaps(alike, alike, np.full(20, 100)) <= 20
    assert independent_gaps(np.full(5, 500), np.full(5, 500), np.full(5, 1000)) == 0


def test_gaps_are_never_worth_more_than_they_are_nor_few_requests_as_much_as_many() -> None:
    # Every request has exactly its half at or below: no variance at all between requests.
    few, many = (independent_gaps(np.full(n, 50), np.full(n, 50), np.full(n, 100)) for n in (6, 600))

    assert few == pytest.approx(600 * (1.960 / 2.571) ** 2, rel=0.03)  # Student's t of 5 degrees of freedom
    assert many == pytest.approx(60_000, rel=0.01)
    assert many < 60_000


@pytest.mark.parametrize("tied_at_the_top", [True, False])
def test_equal_gaps_of_few_requests_are_worth_no_more_than_different_ones(tied_at_the_top: bool) -> None:
    # 2 of 100 requests are slow by a clock, 98 quick: the percentile is the one value or the other, an end of all.
    sizes, none, slow = np.full(100, 100), np.zeros(100, np.int64), np.repeat([0, 100], [2, 98])

    worth = independent_gaps(slow, sizes, sizes) if tied_at_the_top else independent_gaps(none, slow, sizes)

    assert worth < 100


OUTLIERS = [
    pytest.param([], [], id="none"),
    pytest.param([1.0], [], id="one value"),
    pytest.param([3.0] * 9, [], id="all equal"),
    pytest.param([10, 11, 9, 10.5, 9.5, 40], [5], id="one far above"),
    pytest.param([10, 11, 9, 10.5, 9.5, -20], [5], id="one far below"),
    pytest.param([5.0] * 19 + [6.0], [19], id="most equal: the mean deviation stands in"),
    # Median 5, MAD 1: z = 0.6745 * |x - 5|, so that 3.5 lies at 5.189 from the median.
    pytest.param([4, 4, 5, 5, 6, 6, 10.18], [], id="just below"),
    pytest.param([4, 4, 5, 5, 6, 6, 10.19], [6], id="just above"),
]


@pytest.mark.parametrize(("values", "flagged"), OUTLIERS)
def test_outliers_are_those_beyond_three_and_a_half_modified_deviations(
    values: list[float], flagged: list[int]
) -> None:
    assert np.flatnonzero(outliers(np.array(values, dtype=np.float64))).tolist() == flagged


# -- as others publish them: MLPerf's counts, HdrHistogram's percentiles, tables of Student's quantiles

MLPERF = [
    # Inferences that MLPerf asks for: percentile, margin, count (arXiv:1911.02549, table IV; 99 % confidence), and as
    # its rules round them up, to "keep the numbers nice" (inference_rules.adoc, appendix Number of Queries)
    (0.90, 0.005, 23_886, 24_576),
    (0.95, 0.0025, 50_425, 57_344),
    (0.99, 0.0005, 262_742, 270_336),
]


@pytest.mark.parametrize(("p", "margin", "count", "nice"), MLPERF)
def test_a_percentile_within_a_margin_needs_what_mlperf_publishes(
    p: float, margin: float, count: int, nice: int
) -> None:
    assert needed_within(p, margin, tail=0.005) == count
    assert -(-count // 2**13) * 2**13 == nice


EARLY_STOPPING = [
    # LoadGen's early stopping at 99 % confidence: queries of which so many may be over the percentile's estimate.
    # Reference values of loadgen/early_stopping.cc, as mlcommons/endpoints#417 lists them.
    (0.99, 0, 459),
    (0.90, 1, 64),
    (0.99, 1, 662),
]
DISCARDED = [
    # Queries at the 90th percentile, and how many LoadGen says that it discards, in logs of submitted results. It takes
    # the t-th highest where t may be over (loadgen/results.cc), so that it discards one fewer than may be.
    (2048, 172),
    (2116, 178),
    (2145, 181),
]


@pytest.mark.parametrize(("p", "over", "queries"), EARLY_STOPPING)
def test_the_upper_rank_is_that_of_mlperfs_early_stopping(p: float, over: int, queries: int) -> None:
    def upper(n: int) -> int | None:
        ranks = interval_ranks(p, n, tail=0.01)
        return None if ranks is None else n - ranks[1]

    assert upper(queries) == over
    assert upper(queries - 1) == (None if over == 0 else over - 1)


@pytest.mark.parametrize(("queries", "discarded"), DISCARDED)
def test_submitted_logs_of_mlperf_discard_as_many_as_the_upper_rank_leaves_out(queries: int, discarded: int) -> None:
    ranks = interval_ranks(0.90, queries, tail=0.01)

    assert ranks is not None
    assert queries - ranks[1] == discarded + 1


HDR = [
    # HdrHistogram (Java, from 2.1.11 on): getValueAtPercentile of the values 1..160 is the value of rank ceil(p*n).
    (0.5, 80),
    (0.75, 120),
    (0.9, 144),
    (0.95, 152),
    (0.99, 159),  # 158.4: the next rank; a rounded one says 158
    (0.999, 160),
    (1.0, 160),
]


@pytest.mark.parametrize(("p", "value"), HDR)
def test_percentiles_are_those_of_the_java_histogram(p: float, value: int) -> None:
    assert percentile(np.arange(1, 161), p) == value


def test_a_smaller_tail_needs_more_values() -> None:
    assert needed(0.95, tail=0.005) == math.ceil(math.log(0.005) / math.log(0.95)) == 104
    assert interval_ranks(0.95, 104, tail=0.005) is not None
    assert interval_ranks(0.95, 103, tail=0.005) is None


def test_flawless_requests_are_those_from_which_wilsons_bound_holds() -> None:
    z = normal()

    for share in (0.9, 0.95, 0.99, 0.999):
        n = flawless(share)

        assert n / (n + z * z) >= share
        assert (n - 1) / (n - 1 + z * z) < share


STUDENT = [
    # Tables of Student's t: degrees of freedom, tail, quantile
    (1, 0.025, 12.706),
    (2, 0.025, 4.303),
    (3, 0.005, 5.841),
    (4, 0.025, 2.776),
    (5, 0.0005, 6.869),
    (9, 0.025, 2.262),
    (10, 0.005, 3.169),
    (30, 0.025, 2.042),
    (120, 0.005, 2.617),
    (199, 0.025, 1.972),
    (1000, 0.025, 1.962),
]


@pytest.mark.parametrize(("freedom", "tail", "quantile"), STUDENT)
def test_students_quantiles_are_those_of_the_tables(freedom: int, tail: float, quantile: float) -> None:
    assert student(freedom, tail) == pytest.approx(quantile, abs=6e-4)


def test_students_quantiles_fall_from_whole_to_whole_without_a_jump() -> None:
    quantiles = [student(freedom) for freedom in np.arange(1.0, 210.0, 0.25)]

    assert all(after < before for before, after in itertools.pairwise(quantiles))
    assert student(0.3) == student(1)


def test_the_normal_quantile_of_a_tail_is_exact() -> None:
    assert normal(0.005) == pytest.approx(2.5758293035, abs=1e-9)
