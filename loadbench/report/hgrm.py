"""`.hgrm`: a histogram by percentile, as HdrHistogram's own `outputPercentileDistribution` of Java prints it.

Plotters of HdrHistogram read it. Values are in ms: the highest one that its slot stands for, to 3 digits, so that the
last may lie above the exact maximum that other reports print. Mean and deviation are those of the slots, as Java has
them.

Source: `PercentileIterator` and `AbstractHistogram` in HdrHistogram/HdrHistogram 2.2.2 (public domain).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal

from loadbench.store.histogram import Histogram

TICKS_PER_HALF_DISTANCE = 5
BUCKETS, SUB_BUCKETS = 22, 2048
"""Of all our histograms: 1 us to 1 h at 3 significant digits."""
US_PER_MS = 1000.0


def render(histogram: Histogram) -> str:
    """The text: a line a tick of the percentiles, then the footer."""
    lines = [f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}", ""]
    for value_us, level, total in ticks(histogram):
        share = level / 100.0
        line = f"{_fixed(value_us / US_PER_MS, 3):>12} {_fixed(share, 12)} {total:>10}"
        lines.append(line if level == 100.0 else f"{line} {_fixed(1 / (1.0 - share), 2):>14}")
    mean, deviation, highest = _moments(histogram)
    lines += [
        f"#[Mean    = {_fixed(mean / US_PER_MS, 3):>12}, StdDeviation   = {_fixed(deviation / US_PER_MS, 3):>12}]",
        f"#[Max     = {_fixed(highest / US_PER_MS, 3):>12}, Total count    = {histogram.count:>12}]",
        f"#[Buckets = {BUCKETS:>12}, SubBuckets     = {SUB_BUCKETS:>12}]",
    ]
    return "\n".join(lines) + "\n"


def ticks(histogram: Histogram) -> Iterator[tuple[int, float, int]]:
    """Value in us, percentile from 0 to 100, and how many values are at most that, tick by tick.

    Each half of the distance that is left to 100 % has 5 ticks; a value that reaches several of them has them all, but
    the highest value only the next one, and then 100 %.

    >>> histogram = Histogram()
    >>> histogram.record_many([10, 20])
    >>> [tick[:2] for tick in ticks(histogram)][-3:]
    [(10, 50.0), (20, 55.0), (20, 100.0)]
    """
    level, total = 0.0, 0
    for _, highest_us, count in histogram.slots():
        total += count
        while 100.0 * total / histogram.count >= level:
            yield highest_us, level, total
            halves = int(math.log(100.0 / (100.0 - level)) / math.log(2)) + 1
            level += 100.0 / (TICKS_PER_HALF_DISTANCE * 2**halves)
            if total == histogram.count:
                yield highest_us, 100.0, total
                return


def _moments(histogram: Histogram) -> tuple[float, float, float]:
    """Mean, standard deviation and highest value in us, of the middles of the slots; zeros when empty, as in Java."""
    slots = [(low + (high - low + 1) // 2, high, count) for low, high, count in histogram.slots()]
    if not slots:
        return 0.0, 0.0, 0.0
    mean = sum(middle * float(count) for middle, _, count in slots) / histogram.count
    squares = sum((middle - mean) * (middle - mean) * count for middle, _, count in slots)
    return mean, math.sqrt(squares / histogram.count), float(slots[-1][1])


def _fixed(value: float, decimals: int) -> str:
    """With so many decimals, halves rounded up as Java does: Python rounds the binary value, halves to even.

    >>> _fixed(2.625, 2), f"{2.625:.2f}"
    ('2.63', '2.62')
    """
    rounded = Decimal(repr(value)).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP)
    return f"{rounded:f}"  # str() would write 0E-12
