"""Histograms: slot by slot HdrHistogram's, its percentiles Java's, its logs read by both."""

import gc
import sys
from fractions import Fraction
from math import ceil
from pathlib import Path

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from hypothesis import given, settings
from hypothesis import strategies as st

from loadbench.errors import LoadbenchError, StoreError
from loadbench.store.histogram import HIGHEST_US, Histogram, log_header, read_log

GOLDEN = Path(__file__).parent / "golden"
# Made with Java's HdrHistogram 2.2.2. histogram_java.hlog: its HistogramLogWriter, the values below in two intervals
# tagged "steady", then 0 and 3,600,000,000 without a tag, maxima in ms. histogram_java.hgrm: its HistogramLogProcessor
# (-tag steady -outputValueUnitRatio 1) on a log of the same values that `log_header` and `log_line` wrote.
JAVA_VALUES = [1 + i * i * 7919 % 2_000_000 for i in range(5000)]

TOP_US = 2**32 - 1
durations = st.one_of(st.integers(0, 5000), st.integers(0, HIGHEST_US), st.integers(0, TOP_US))
many_durations = st.lists(durations, max_size=60)
fractions = st.one_of(st.sampled_from([0.0, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0]), st.floats(0, 1))


def of(values) -> Histogram:
    histogram = Histogram()
    histogram.record_many(values)
    return histogram


def hdr(values) -> HdrHistogram:
    histogram = HdrHistogram(1, HIGHEST_US, 3)
    for value in values:
        assert histogram.record_value(value)
    return histogram


def state(histogram: Histogram) -> tuple[object, ...]:
    exact = (histogram.count, histogram.min, histogram.max, histogram.sum, histogram.over)
    return histogram.counts.tolist(), *exact


# -- recording


@settings(max_examples=40)
@given(many_durations)
def test_every_slot_counts_what_hdrhistogram_counts_and_extremes_and_mean_are_exact(values):
    histogram, one_by_one = of(values), Histogram()
    for value in values:
        one_by_one.record(value)

    assert np.array_equal(histogram.counts, np.frombuffer(hdr(values).counts, np.int64))
    assert state(one_by_one) == state(histogram)
    extremes = (min(values, default=None), max(values, default=None))
    assert (histogram.count, histogram.min, histogram.max) == (len(values), *extremes)
    assert histogram.mean == (sum(values) / len(values) if values else None)


@pytest.mark.parametrize("bits", range(33))
def test_the_slots_meet_hdrhistograms_at_every_power_of_two(bits):
    values = [value for value in (2**bits - 1, 2**bits, 2**bits + 1) if value <= TOP_US]

    assert np.array_equal(of(values).counts, np.frombuffer(hdr(values).counts, np.int64))


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint32, np.uint16, list, tuple, range])
def test_whole_numbers_of_any_kind_are_recorded(kind):
    values = {list: [1, 2, 3], tuple: (1, 2, 3), range: range(1, 4)}.get(kind)
    histogram = of(np.array([1, 2, 3], dtype=kind) if values is None else values)

    assert (histogram.count, histogram.sum) == (3, 6)


@pytest.mark.parametrize(
    ("record", "error"),
    [
        (lambda h: h.record(-1), "-1 us"),
        (lambda h: h.record_many([5, -1]), "-1 us"),
        (lambda h: h.record_many([1.5]), "whole numbers, not float64"),
    ],
)
def test_what_is_no_duration_is_refused_and_nothing_is_counted(record, error):
    histogram = Histogram()
    with pytest.raises((ValueError, TypeError), match=error):
        record(histogram)

    assert state(histogram) == state(Histogram())


def test_a_value_over_the_range_is_counted_and_keeps_its_exact_maximum():
    histogram, absurd = of([1000, 10**13]), Histogram()
    for _ in range(3):
        absurd.record(2**62)

    assert (histogram.count, histogram.over, histogram.max) == (2, 1, 10**13)
    assert histogram.counts[-1] == 1
    assert (histogram.percentile(0.5), histogram.percentile(1)) == (1000, 10**13)
    assert state(absurd) == state(of([2**62] * 3))
    assert absurd.sum == 3 * 2**62, "it does not wrap around"


# -- percentiles


@settings(max_examples=100)
@given(many_durations.filter(bool), fractions)
def test_a_percentile_is_the_nearest_rank_to_three_digits(values, p):
    rank = max(ceil(Fraction(repr(p)) * len(values)), 1)
    exact = sorted(values)[rank - 1]

    assert exact <= of(values).percentile(p) <= min(exact * 1.001 + 1, max(values))


# p, n and the rank ceil(p * n): each product of the floats rounds up to beyond a whole number, or down to it
RANKS = [
    (0.07, 100, 7),  # 7.000000000000001
    (0.57, 100, 57),  # 56.99999999999999
    (0.55, 100, 55),  # 55.00000000000001
    (0.99, 160, 159),  # hdrh rounds 158.4 down to 158
    (0.95, 20, 19),
    (0.999, 1000, 999),
    (0.999, 1001, 1000),
    (0.5, 1, 1),
    (0.5, 2, 1),
    (0.5, 3, 2),
    (0.0, 5, 1),
    (1e-300, 5, 1),
    (1.0, 5, 5),
    (1 - 2**-53, 5, 5),
]


@pytest.mark.parametrize(("p", "n", "rank"), RANKS)
def test_a_rank_is_that_of_the_fraction_as_it_is_written(p, n, rank):
    assert of(range(1, n + 1)).percentile(p) == rank


def test_a_percentile_is_the_highest_value_of_its_slot_up_to_the_maximum_of_what_is_recorded_by_now():
    histogram = of([10_000, 50_001])

    assert (histogram.percentile(0.5), histogram.percentile(0.99)) == (10_007, 50_001)
    histogram.record_many([1] * 9)
    assert histogram.percentile(0.5) == 1
    assert Histogram().percentile(0.5) is None
    for p in (-0.1, 1.1, 99, float("nan")):
        with pytest.raises(ValueError, match="between 0 and 1"):
            histogram.percentile(p)


def test_java_prints_the_percentiles_that_we_answer():
    histogram = of(JAVA_VALUES)
    rows = [line.split() for line in (GOLDEN / "histogram_java.hgrm").read_text().splitlines()[3:]]
    rows = [row for row in rows if row and not row[0].startswith("#")]
    java = [min(float(row[0]), max(JAVA_VALUES)) for row in rows]  # Java's own may exceed the maximum

    assert len(rows) > 60
    assert [histogram.percentile(float(row[1])) for row in rows] == java


# -- merging


@settings(max_examples=40)
@given(many_durations, many_durations)
def test_merged_histograms_are_the_pooled_one_with_fresh_percentiles(a, b):
    merged, other = of(a), of(b)
    merged.percentile(0.5)
    merged.merge(other)

    assert state(merged) == state(of(a + b))
    assert merged.percentile(0.5) == of(a + b).percentile(0.5)
    assert state(other) == state(of(b)), "it is left as it was"


# -- the encoded form


@settings(max_examples=40)
@given(many_durations)
def test_an_encoded_histogram_comes_back_with_every_count_to_us_and_to_hdrh(values):
    back, theirs = Histogram.decode(of(values).encode()), HdrHistogram.decode(of(values).encode())

    assert np.array_equal(back.counts, of(values).counts)
    assert back.count == theirs.get_total_count() == len(values)
    assert np.array_equal(Histogram.decode(hdr(values).encode()).counts, of(values).counts)
    if values:
        exact = (min(values), max(values), sum(values) / len(values))

        assert (back.min, back.max, back.mean) == pytest.approx(exact, rel=0.001, abs=1), "to three digits"


def test_a_histogram_of_a_wider_range_keeps_its_count():
    wide = HdrHistogram(1, 10**12, 3)
    wide.record_value(1000)
    wide.record_value(10**11)
    back = Histogram.decode(wide.encode())

    assert (back.count, back.over, int(back.counts.sum())) == (2, 1, 2)
    assert back.max == pytest.approx(10**11, rel=0.001)


def test_a_histogram_of_another_precision_is_refused():
    with pytest.raises(ValueError, match="2 digits"):
        Histogram.decode(HdrHistogram(1, HIGHEST_US, 2).encode().decode())


@pytest.mark.parametrize("damage", ["", "HIST", "not base64!", "HISTFAAAAAR4nAMAAAAAAQ==", "AAAA" * 10])
def test_a_damaged_encoding_is_refused(damage):
    with pytest.raises(ValueError, match="damaged"):
        Histogram.decode(damage)


@pytest.mark.parametrize(
    "use", [lambda: of([1]).encode(), lambda: of([1]).log_line("x", 0, 1), lambda: Histogram.decode("")]
)
def test_without_hdrhistogram_only_the_export_fails_and_says_why(monkeypatch, use):
    for name in ("hdrh", "hdrh.histogram", "hdrh.codec"):
        monkeypatch.setitem(sys.modules, name, None)
    assert of([1, 2, 3]).percentile(0.5) == 2

    with pytest.raises(LoadbenchError, match="hdrhistogram, which is not installed"):
        use()


# -- logs


def test_java_written_logs_are_read_their_intervals_merged_by_tag():
    logs = read_log(GOLDEN / "histogram_java.hlog")

    assert set(logs) == {"steady", ""}
    assert np.array_equal(logs["steady"].counts, of(JAVA_VALUES).counts)
    assert logs["steady"].max == pytest.approx(max(JAVA_VALUES), rel=0.001)  # its writer logs the top of the slot
    assert np.array_equal(logs[""].counts, of([0, HIGHEST_US]).counts)


def test_a_log_comes_back_by_tag_with_its_exact_maxima(tmp_path):
    path = tmp_path / "ttft.hlog"
    path.write_text(
        log_header(1_700_000_000.5)
        + of([100_001, 200_003]).log_line("m@c1", 0, 30)
        + Histogram().log_line("m@c2", 30.5, 0)
        + of([10**13]).log_line("m@c1", 40, 30)
    )
    logs = read_log(path)

    assert {tag: (h.count, h.max, h.over) for tag, h in logs.items()} == {"m@c1": (3, 10**13, 1), "m@c2": (0, None, 0)}
    assert logs["m@c1"].percentile(1) == 10**13


@pytest.mark.parametrize(
    "tag", ["model@c4#2", "a model, two", "50%", "50%2C", "line\nfeed\u2028and\ttab", 'a "name"', "é", ""]
)
def test_any_tag_survives_and_its_line_stays_one_line(tmp_path, tag):
    line = of([1]).log_line(tag, 0, 1)
    (tmp_path / "x.hlog").write_text(log_header(0) + line, encoding="utf-8")

    assert len(line.splitlines()) == 1
    assert line.split(",")[0].split() == [line.split(",")[0]]
    assert list(read_log(tmp_path / "x.hlog")) == [tag]


def test_the_python_reader_of_hdrhistogram_reads_our_log(tmp_path):
    path = tmp_path / "ttft.hlog"
    path.write_text(log_header(1_700_000_000.5) + of([1, 5000]).log_line("m@c1", 2, 30))
    reader = HistogramLogReader(str(path), HdrHistogram(1, HIGHEST_US, 3))
    read = reader.get_next_interval_histogram()
    reader.close()

    assert (read.get_tag(), read.get_total_count()) == ("m@c1", 2)
    assert (read.get_start_time_stamp(), read.get_end_time_stamp()) == (1_700_000_002_500, 1_700_000_032_500)


def test_a_line_that_a_killed_process_left_unfinished_is_passed_over(tmp_path):
    path = tmp_path / "ttft.hlog"
    line = of([1, 5000]).log_line("m@c1", 0, 30)
    whole = log_header(0) + line

    for cut in range(len(line)):
        path.write_text(whole + line[:cut])
        assert read_log(path)["m@c1"].count == (4 if cut == len(line) - 1 else 2)


def test_a_damaged_line_and_a_missing_log_are_named(tmp_path):
    path = tmp_path / "ttft.hlog"
    path.write_text(log_header(0) + "Tag=x,0.000,1.000,0.001,HISTFAAAAA\n")

    with pytest.raises(StoreError, match=r"ttft\.hlog, line 6: a damaged histogram"):
        read_log(path)
    with pytest.raises(StoreError, match=r"nowhere\.hlog: cannot be read"):
        read_log(tmp_path / "nowhere.hlog")


def test_what_was_written_to_a_log_is_let_go() -> None:
    gc.collect()
    gc.disable()
    try:
        Histogram.decode(of([1000, 2_000_000]).encode())
        left = [one for one in gc.get_objects() if isinstance(one, HdrHistogram)]
    finally:
        gc.enable()

    assert not left
