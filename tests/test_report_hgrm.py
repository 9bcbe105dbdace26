"""The .hgrm text: to the byte what Java's HdrHistogram 2.2.2 prints of the same values.

golden/hgrm/ holds what its `outputPercentileDistribution(stream, 1000.0)` printed of the values below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loadbench.report import exports
from loadbench.store.histogram import Histogram, read_log

GOLDEN = Path(__file__).parent / "golden"


def of(values: list[int]) -> Histogram:
    histogram = Histogram()
    histogram.record_many(values)
    return histogram


def drawn() -> Iterator[int]:
    """300,000 values with a long tail, by a generator that any language repeats."""
    x = 1
    for _ in range(300_000):
        x = x * 48_271 % 2_147_483_647
        y = x % 1000 + 1
        yield y * y * y // (x % 7 + 1)


HISTOGRAMS: dict[str, Callable[[], Histogram]] = {
    "empty": Histogram,
    "one": lambda: of([123_456]),
    "many": lambda: of(list(drawn())),
    "ends": lambda: of([0, 3_600_000_000]),
    "steady": lambda: read_log(GOLDEN / "histogram_java.hlog")["steady"],  # written by Java too
}


@pytest.mark.parametrize("name", HISTOGRAMS)
def test_it_prints_what_java_prints(name: str) -> None:
    rendered = exports.hgrm(HISTOGRAMS[name]())

    assert rendered == (GOLDEN / "hgrm" / f"{name}.hgrm").read_bytes().decode()


def test_each_half_of_the_way_to_100_percent_has_five_ticks() -> None:
    levels = [level for _, level, _ in exports.ticks(of(list(range(1, 2001))))]

    assert [sum(low <= level < high for level in levels) for low, high in ((0, 50), (50, 75), (75, 87.5))] == [5, 5, 5]


def test_the_last_line_is_100_percent_of_all_values() -> None:
    *_, last = exports.ticks(of([10, 20, 20]))

    assert last == (20, 100.0, 3)
