"""Gaps in blocks: the cut between blocks must not show."""

import numpy as np
import pytest

from loadbench.metrics import distribution as gaps
from loadbench.store.record import Results
from tests.support.streams import stream, summed

RESULTS = Results.from_results(
    [
        stream(0, tokens=4, per_token=1.0),
        stream(1, tokens=1),
        stream(2, tokens=9, per_token=2.0),
        stream(3, tokens=1),
        stream(4, tokens=2, per_token=3.0),
        stream(5, tokens=1),
    ]
)


@pytest.mark.parametrize("block", [1, 2, 3, 5, 11, 12, 1000])
def test_sums_are_per_request_however_the_blocks_are_cut(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaps, "BLOCK", block)

    assert gaps.gap_sums(RESULTS, lambda gaps_us: gaps_us).tolist() == [3000, 0, 16_000, 0, 3000, 0]
    assert gaps.gap_sums(RESULTS, lambda gaps_us: gaps_us >= 2000).tolist() == [0, 0, 8, 0, 1, 0]


def test_the_chosen_gaps_come_sorted_and_leave_the_columns_as_they_were() -> None:
    before = RESULTS.gaps_us.copy()

    assert gaps.ascending_gaps(RESULTS, np.array([True, True, False, True, True, True])).tolist() == [1000] * 3 + [3000]
    assert gaps.ascending_gaps(RESULTS, np.ones(6, dtype=np.bool_)).tolist() == [1000] * 3 + [2000] * 8 + [3000]
    assert (RESULTS.gaps_us == before).all()


def test_no_requests_have_no_gaps() -> None:
    nothing = Results.from_results([])

    assert gaps.gap_sums(nothing, lambda gaps_us: gaps_us).tolist() == []
    assert gaps.ascending_gaps(nothing, np.zeros(0, dtype=np.bool_)).tolist() == []


def test_a_percentile_that_two_slow_requests_own_has_no_upper_end_though_they_are_slow_by_a_clock() -> None:
    slow = {"per_token": 500.0}

    itl = summed([stream(i, tokens=101, **(slow if i < 2 else {})) for i in range(100)])["itl_ms"]

    assert (itl["n"], itl["p99"], itl["ci95"]["p99"]) == (10_000, 500.0, [20.0, None])
    assert itl["ci95"]["p50"] == [20.0, 20.0]
