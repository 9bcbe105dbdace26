"""Ranks as others publish them: MLPerf's counts, HdrHistogram's percentiles of 1..160; Student's quantiles."""

import itertools
import math

import numpy as np
import pytest

from loadbench.stats import flawless, interval_ranks, needed, needed_within, normal, percentile, student

MLPERF = [
    # Inferences that MLPerf asks for: percentile, margin, count (arXiv:1911.02549, table IV; 99 % confidence)
    (0.90, 0.005, 23_886),
    (0.95, 0.0025, 50_425),
    (0.99, 0.0005, 262_742),
]


@pytest.mark.parametrize(("p", "margin", "count"), MLPERF)
def test_a_percentile_within_a_margin_needs_what_mlperf_publishes(p: float, margin: float, count: int) -> None:
    assert needed_within(p, margin, tail=0.005) == count


ROUNDED = [
    # … and as its rules round them up, to "keep the numbers nice" (inference_rules.adoc, appendix Number of Queries)
    (0.90, 24_576),
    (0.95, 57_344),
    (0.99, 270_336),
]


@pytest.mark.parametrize(("p", "count"), ROUNDED)
def test_the_counts_of_mlperfs_rules_are_these_rounded_up_to_multiples_of_two_to_the_thirteenth(
    p: float, count: int
) -> None:
    assert -(-needed_within(p, (1 - p) / 20, tail=0.005) // 2**13) * 2**13 == count


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
