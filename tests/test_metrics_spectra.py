"""Whole distributions on HdrHistogram's axis, and a level's samples as columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from loadbench.metrics.distribution import spectrum, spectrum_of_histogram
from loadbench.store.histogram import Histogram
from loadbench.store.summary import Spectrum
from tests.support.plain import sampled
from tests.support.samples import sample


def test_a_spectrum_holds_nearest_ranks_and_ends_with_the_maximum_at_one_in_n() -> None:
    found = spectrum(np.arange(1, 101)[::-1] * 1e6)

    assert found is not None
    at = dict(zip(found.one_in, found.ms, strict=True))
    assert (at[1.0], at[2.0], at[20.0], at[100.0]) == (1.0, 50.0, 95.0, 100.0)


def test_undefined_values_are_left_out_and_nothing_has_no_spectrum() -> None:
    assert spectrum(np.array([np.nan, 2e6, np.nan])) == Spectrum(one_in=[1.0], ms=[2.0])
    assert spectrum(np.array([np.nan])) is None
    assert spectrum_of_histogram(Histogram()) is None


def test_a_million_requests_have_as_few_points_as_a_reader_can_tell_apart() -> None:
    found = spectrum(np.arange(1_000_000, dtype=np.float64))

    assert found is not None
    assert len(found.one_in) == len(found.ms) <= 85
    assert found.ms == sorted(found.ms)


def test_gaps_kept_in_a_histogram_alone_have_the_spectrum_of_its_percentiles() -> None:
    values = np.arange(1, 1001) * 1000
    histogram = Histogram()
    histogram.record_many(values)

    found, exact = spectrum_of_histogram(histogram), spectrum(values, 1000.0)

    assert found is not None
    assert exact is not None
    assert found.one_in == exact.one_in
    assert np.allclose(found.ms, exact.ms, rtol=1e-3)


def seconds(n: int, **facts: Any) -> list[dict[str, Any]]:
    return [
        sample(10 + i, server={"cpu_s": 1.5 * i, "memory_bytes": 100 + i}, **{k: v * i for k, v in facts.items()})
        for i in range(n)
    ]


def test_the_course_counts_from_the_levels_first_sample_and_turns_counters_into_rates() -> None:
    found = sampled(seconds(3, cpu_energy_j=20.0), {})["course"]

    assert found is not None
    assert (found["t_s"], found["server_memory_bytes"]) == ([0.0, 1.0, 2.0], [100.0, 101.0, 102.0])
    assert (found["server_cores"], found["power_w"]) == ([None, 1.5, 1.5], [None, 20.0, 20.0])
    assert found["gpu_utilisation"] is None


def test_two_hours_of_samples_become_120_rows_with_the_last_among_them() -> None:
    found = sampled(seconds(7_200), {})["course"]

    assert found is not None
    assert len(found["t_s"]) <= 120
    assert found["t_s"][-1] == 7_199.0


def test_there_is_no_course_without_samples_or_of_a_server_elsewhere() -> None:
    assert sampled([], {})["course"] is None
    assert sampled(seconds(3), {"telemetry": {"local": False}})["course"] is None
    assert sampled([sample(1, server=None)], {})["course"] is None
