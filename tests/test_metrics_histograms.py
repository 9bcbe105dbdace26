"""A level's histograms, from its logs and from its records."""

from __future__ import annotations

import pytest

from loadbench.metrics.level import histograms
from loadbench.store import LevelData
from loadbench.store.histogram import Histogram
from loadbench.store.record import Results
from tests.support.streams import facts, stream

OPENED = {"concurrency": None, "request_rate_per_s": 5.0}


def largest_ms(**changes: object) -> dict[str, float]:
    """The largest TTFT of each histogram, of a level whose log was written by a version that counted from `sent`."""
    results = [stream(queued=50, ttft=200)]
    old = Histogram()
    old.record(200_000)
    data = LevelData(facts(results, **changes), Results.from_results(results), {"ttft": old}, True)
    return {name: one.max / 1000 for name, one in histograms(data).items() if name.startswith("ttft")}


def test_an_older_log_of_an_open_loop_is_made_again_from_the_records() -> None:
    assert largest_ms(**OPENED) == pytest.approx({"ttft": 250, "ttft_from_sent": 200}, rel=2e-3)


def test_a_closed_loop_has_one_ttft() -> None:
    assert largest_ms() == pytest.approx({"ttft": 200}, rel=2e-3)
