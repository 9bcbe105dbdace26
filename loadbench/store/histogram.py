"""HDR histograms of durations in us: 1 us to 1 h at 3 significant digits, 188 kB each, merged without loss; their logs.

The counts lie exactly as HdrHistogram's, in a numpy array, so that recording costs tens of ns and needs only numpy.
The library `hdrh` is imported when a histogram is encoded or decoded, and only then: it has no wheel for some machines.
Percentiles are HdrHistogram's of Java (nearest rank, ceil(p * n)), not those of `hdrh`, which rounds the rank.

A log holds a run's histograms of one metric, a line each; standard tools read it.
"""

from __future__ import annotations

import base64
import io
import re
import struct
import time
import urllib.parse
import zlib
from collections.abc import Container, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from loadbench.errors import LoadbenchError, StoreError
from loadbench.scenario.files import open_file

HIGHEST_US = 3_600_000_000
SIGNIFICANT_DIGITS = 3

# HdrHistogram's layout for these limits. Bucket b holds values in steps of 2**b us: 2048 steps from 0 in bucket 0, the
# upper 1024 of 2048 in each later one.
_STEPS_BITS = 11
_HALF_STEPS = 1024
_BUCKETS = 22
_COUNTS = (_BUCKETS + 1) * _HALF_STEPS
# The highest value that has a place of its own, 71 min: whole buckets reach beyond HIGHEST_US.
TOP_US = (1 << (_STEPS_BITS + _BUCKETS - 1)) - 1

_packing = msgspec.msgpack.Decoder(tuple[int, int | None, int | None, str, int, bytes, bytes])
_LARGEST_BYTES = 1 << 20  # of an inflated histogram: 9 bytes for each slot, and twice as many slots as ours
_MOST_VALUES = 1 << 50
_WRAPPING_BYTES = 8
_SETTINGS = struct.Struct(">12xIQQ")  # of the inflated header: digits, lowest and highest value
_MAX_UNITS_PER_US = 1000  # the log's third column is in ms, written to the us


class Histogram:
    """Counts of durations in us, with the exact lowest, highest and sum beside them.

    Attributes:
        count: Number of values recorded.
        min: Lowest value in us, exact; None when empty.
        max: Highest value in us, exact; None when empty.
        sum: Of all values in us, exact.
        over: Values too high for any bucket; they are counted in the last one, and `max` stays exact.
        counts: Count of each of HdrHistogram's slots, int64. Reading is fine; record only through the methods.

    After `decode` (not after `merge`) min, max and sum are as exact as the slots: to 3 digits.

    >>> ttft = Histogram()
    >>> ttft.record_many([200_000, 210_000, 1_000_000])
    >>> ttft.percentile(0.5), ttft.max, ttft.mean
    (210047, 1000000, 470000.0)
    """

    __slots__ = ("_cumulative", "count", "counts", "max", "min", "over", "sum")

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(_COUNTS, dtype=np.int64)
        self.count = 0
        self.min: int | None = None
        self.max: int | None = None
        self.sum = 0
        self.over = 0
        self._cumulative: NDArray[np.int64] | None = None

    def record(self, us: int) -> None:
        """Count one duration in us. For many at once use `record_many`, which is faster from about ten values on.

        Raises:
            ValueError: If it is negative, which means a broken clock.
        """
        us = int(us)
        if us < 0:
            raise ValueError(f"a duration of {us} us: time does not run backwards")
        self.over += us > TOP_US
        self.counts[_slot_of(min(us, TOP_US))] += 1
        self._note(1, us, us, us)

    def record_many(self, us: ArrayLike) -> None:
        """Count durations in us: whole numbers, any shape and order, possibly none.

        Raises:
            ValueError: If one is negative, which means a broken clock; then none is counted.
            TypeError: If they are not whole numbers.
        """
        values = np.asarray(us)
        if not values.size:
            return
        if not np.can_cast(values.dtype, np.int64, "safe"):
            raise TypeError(f"durations in us are whole numbers, not {values.dtype}")
        values = values.astype(np.int64, copy=False).ravel()
        low, high = int(values.min()), int(values.max())
        if low < 0:
            raise ValueError(f"a duration of {low} us: time does not run backwards")
        placed = values
        if high > TOP_US:
            self.over += int(np.count_nonzero(values > TOP_US))
            placed = np.minimum(values, TOP_US)
        # frexp's exponent is the bit length, exactly, for whole numbers below 2**53.
        bucket = np.maximum(np.frexp(placed.astype(np.float64))[1] - _STEPS_BITS, 0)
        slots = np.bincount((placed >> bucket) + bucket * _HALF_STEPS)
        self.counts[: slots.size] += slots
        # Sums in int64 hold 292,000 years of us, but one absurd value must not wrap them around.
        total_us = int(values.sum()) if high < 1 << 40 else sum(map(int, values))
        self._note(values.size, low, high, total_us)

    def _note(self, n: int, low: int, high: int, total_us: int) -> None:
        self.count += n
        self.sum += total_us
        self.min = low if self.min is None else min(self.min, low)
        self.max = high if self.max is None else max(self.max, high)
        self._cumulative = None

    @property
    def mean(self) -> float | None:
        """Mean in us, of the exact sum; None when empty."""
        return self.sum / self.count if self.count else None

    def percentile(self, p: float) -> int | None:
        """The value in us at nearest rank ceil(p * n): the highest one that its slot stands for, at most `max`.

        None when empty. A fraction is taken as it is written: 0.07 of 100 values is rank 7, although the product of the
        floats is 7.000000000000001. 0 gives `min`.

        Raises:
            ValueError: If p is not in [0, 1].
        Source: `getValueAtPercentile` in HdrHistogram/HdrHistogram, from 2.1.11 on.

        >>> histogram = Histogram()
        >>> histogram.record_many(range(1, 161))
        >>> histogram.percentile(0.99)
        159
        """
        if not 0 <= p <= 1:
            raise ValueError(f"a percentile of {p}: give a fraction between 0 and 1")
        if self.min is None or self.max is None:
            return None
        exact = Decimal(repr(float(p))) * self.count
        rank = int(exact.to_integral_value(rounding="ROUND_CEILING"))
        if rank < 1:
            return self.min
        if rank > self.count - self.over:
            return self.max  # of values over the range nothing else is known
        if self._cumulative is None:
            self._cumulative = np.cumsum(self.counts)
        return min(_highest_us(int(np.searchsorted(self._cumulative, rank))), self.max)

    def above(self, us: int) -> int:
        """How many values are above this one, as far as slots tell them apart.

        >>> histogram = Histogram()
        >>> histogram.record_many([1, 2, 3, 70])
        >>> histogram.above(2), histogram.above(70)
        (2, 0)
        """
        return int(self.counts[_slot_of(min(us, TOP_US)) + 1 :].sum()) if us < TOP_US else self.over

    def slots(self) -> Iterator[tuple[int, int, int]]:
        """The slots that hold values, ascending: lowest and highest value in us that each stands for, and its count.

        >>> histogram = Histogram()
        >>> histogram.record_many([3, 3, 5000])
        >>> list(histogram.slots())
        [(3, 3, 2), (5000, 5003, 1)]
        """
        for slot in map(int, np.flatnonzero(self.counts)):
            yield _lowest_us(slot), _highest_us(slot), int(self.counts[slot])

    def merge(self, other: Histogram) -> None:
        """Add another's values to these, as though all had been recorded here."""
        if other.min is None or other.max is None:
            return
        self.counts += other.counts
        self.over += other.over
        self._note(other.count, other.min, other.max, other.sum)

    def packed(self) -> bytes:
        """All of it in a few kB, exact `min`, `max`, `sum` and `over` too: what workers send."""
        slots = np.flatnonzero(self.counts)
        columns = slots.astype("<i4").tobytes(), self.counts[slots].astype("<i8").tobytes()
        return msgspec.msgpack.encode((self.count, self.min, self.max, str(self.sum), self.over, *columns))

    @classmethod
    def unpacked(cls, packed: bytes) -> Histogram:
        """Read `packed`'s form.

        Raises:
            ValueError: If it is damaged.

        >>> ttft = Histogram()
        >>> ttft.record_many([200_000, 210_000, 1_000_000])
        >>> Histogram.unpacked(ttft.packed()).sum
        1410000
        """
        histogram = cls()
        try:
            count, low, high, total, histogram.over, slots, counts = _packing.decode(packed)
            histogram.counts[np.frombuffer(slots, "<i4")] = np.frombuffer(counts, "<i8")
        except (msgspec.DecodeError, IndexError, ValueError) as error:
            raise ValueError(f"a damaged histogram: {error}") from None
        if int(histogram.counts.sum()) != count:
            raise ValueError("a damaged histogram: its counts do not add up")
        histogram.count, histogram.min, histogram.max, histogram.sum = count, low, high, int(total)
        return histogram

    def encode(self) -> str:
        """HdrHistogram's portable form: base64 of the compressed V2 encoding. It keeps every count, not `over`.

        Raises:
            LoadbenchError: If the package hdrhistogram is not installed.
        """
        target = _hdrh().HdrHistogram(1, HIGHEST_US, SIGNIFICANT_DIGITS)
        np.frombuffer(target.counts, dtype=np.int64)[:] = self.counts
        target.total_count = self.count
        # Only slots up to the one of max_value are written.
        target.max_value = min(self.max or 0, TOP_US)
        encoded: bytes = target.encode()
        target.encoder = None  # the two hold each other: 180 kB that only the collector of garbage would find
        return encoded.decode("ascii")

    @classmethod
    def decode(cls, encoded: str) -> Histogram:
        """Read `encode`'s form, whoever wrote it; min, max and sum come back to 3 digits.

        Raises:
            ValueError: If it is damaged, or has another precision.
            LoadbenchError: If the package hdrhistogram is not installed.
        """
        hdrh = _hdrh()
        from hdrh import codec

        refused = (codec.HdrCookieException, codec.HdrLengthException, codec.HdrHistogramSettingsException)
        try:
            _check_size(encoded)
            source = hdrh.HdrHistogram.decode(encoded)
        except (ValueError, OverflowError, zlib.error, struct.error, *refused) as error:
            raise ValueError(f"a damaged histogram: {error or type(error).__name__}") from error
        counts = np.frombuffer(source.counts, dtype=np.int64)
        source.encoder = None  # as above
        slots = np.flatnonzero(counts)
        histogram = cls()
        if not slots.size:
            return histogram
        if counts.min() < 0 or counts.sum(dtype=np.float64) > _MOST_VALUES:
            raise ValueError("a damaged histogram: more values than anybody recorded")
        inside, above = counts[:_COUNTS], counts[_COUNTS:]  # a wider range only appends slots
        histogram.counts[: inside.size] = inside
        histogram.over = int(above.sum())
        histogram.counts[-1] += histogram.over
        # The middle of a slot stands for its values, as in HdrHistogram's own mean.
        total_us = sum(
            int(counts[slot]) * ((_lowest_us(slot) + _highest_us(slot) + 1) // 2) for slot in map(int, slots)
        )
        histogram._note(int(counts.sum()), _lowest_us(int(slots[0])), _highest_us(int(slots[-1])), total_us)
        return histogram

    def log_line(self, tag: str, start_s: float, duration_s: float) -> str:
        """One line, its end included, of an HdrHistogram log.

        Args:
            tag: What the histogram is of, e.g. ``smollm2-135m@c4``.
            start_s: When its first value was recorded, in s since the start that `log_header` names.
            duration_s: How long it was recorded.
        Raises:
            LoadbenchError: If the package hdrhistogram is not installed.
        """
        # The format has no room for commas and blanks in a tag. Java's reader takes whatever is neither; % is quoted
        # so that reading undoes it.
        quoted = [urllib.parse.quote(c, safe="") if c in ",%" or c.isspace() else c for c in tag]
        high_ms = (self.max or 0) / _MAX_UNITS_PER_US
        times = f"{max(start_s, 0.0):.3f},{max(duration_s, 0.0):.3f},{high_ms:.3f}"
        return f"Tag={''.join(quoted)},{times},{self.encode()}\n"


def _check_size(encoded: str) -> None:
    """Refuse what is no histogram of ours before the library makes room for it: a few bytes may inflate to GBs."""
    inflating = zlib.decompressobj()
    inflated = inflating.decompress(base64.b64decode(encoded)[_WRAPPING_BYTES:], _LARGEST_BYTES)
    if inflating.unconsumed_tail:
        raise ValueError("larger than any histogram")
    digits, lowest, highest = _SETTINGS.unpack_from(inflated)
    if (lowest, digits) != (1, SIGNIFICANT_DIGITS):
        raise ValueError(f"a histogram from {lowest} at {digits} digits; read are those from 1 at {SIGNIFICANT_DIGITS}")
    if not 2 <= highest < 1 << 62:
        raise ValueError(f"a histogram up to {highest}")


def _slot_of(us: int) -> int:
    """Where a value in [0, TOP_US] is counted."""
    bucket = max(us.bit_length() - _STEPS_BITS, 0)
    return (us >> bucket) + bucket * _HALF_STEPS


def _lowest_us(slot: int) -> int:
    bucket = max(slot // _HALF_STEPS - 1, 0)
    return (slot - bucket * _HALF_STEPS) << bucket


def _highest_us(slot: int) -> int:
    return _lowest_us(slot + 1) - 1


def _hdrh() -> Any:
    try:
        import hdrh.histogram
    except ImportError:
        raise LoadbenchError(
            "histogram logs (.hlog) need the package hdrhistogram, which is not installed; "
            "`pip install hdrhistogram` where it has a wheel or a C compiler is at hand. All else works without it"
        ) from None
    return hdrh.histogram


_NUMBER = r"\d{1,18}(?:\.\d{0,18})?"
_LINE = re.compile(
    rf"(?:Tag=(?P<tag>[^,]*),)?{_NUMBER},{_NUMBER},(?P<max>{_NUMBER}),(?P<counts>[A-Za-z0-9+/=]+)\s*", re.ASCII
)
_LONGEST_LINE = 1 << 20


def log_header(start_s: float, comment: str = "loadbench: durations in us, maximum in ms") -> str:
    """The first lines of an HdrHistogram log whose lines count from `start_s`, in s since the epoch."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(start_s))
    return (
        f"#[{comment}]\n"
        "#[Histogram log format version 1.3]\n"
        f"#[StartTime: {start_s:.3f} (seconds since epoch), {stamp}]\n"
        f"#[BaseTime: {start_s:.3f} (seconds since epoch)]\n"
        '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"\n'
    )


def read_log(path: Path, tags: Container[str] | None = None) -> dict[str, Histogram]:
    """The histograms of an HdrHistogram log by tag, lines of one tag merged; "" for lines without a tag.

    A last line that a killed process left unfinished is passed over.

    Args:
        tags: Those that are wanted; all by default.

    Raises:
        StoreError: If the file cannot be read or a line is no histogram.
        LoadbenchError: If the package hdrhistogram is not installed.
    """
    histograms: dict[str, Histogram] = {}
    try:
        with io.TextIOWrapper(open_file(path), encoding="utf-8") as file:
            number = 0
            while line := file.readline(_LONGEST_LINE):
                number += 1
                if len(line) == _LONGEST_LINE:
                    raise StoreError(f"{path}, line {number}: is longer than that of any histogram")
                if line.startswith(("#", '"')) or not line.strip():
                    continue
                try:
                    tag, histogram = _read_line(line, tags)
                except ValueError as error:
                    if not line.endswith("\n"):
                        break
                    raise StoreError(f"{path}, line {number}: {error}") from error
                if histogram is not None:
                    histograms.setdefault(tag, Histogram()).merge(histogram)
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: cannot be read: {error}") from error
    return histograms


def _read_line(line: str, tags: Container[str] | None) -> tuple[str, Histogram | None]:
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError("not a line of a histogram log")
    tag = urllib.parse.unquote(match["tag"] or "")
    if tags is not None and tag not in tags:
        return tag, None
    histogram = Histogram.decode(match["counts"])
    # The log's third column has the exact maximum, where it is one: others write it in other units.
    logged_us = int(Decimal(match["max"]) * _MAX_UNITS_PER_US)
    if histogram.max is not None and _slot_of(min(logged_us, TOP_US)) == _slot_of(min(histogram.max, TOP_US)):
        histogram.max = logged_us
        if logged_us > TOP_US:
            histogram.over = max(histogram.over, 1)  # how many more, the log does not say
    return tag, histogram
