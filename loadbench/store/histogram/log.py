"""HdrHistogram logs: the files of a run's histograms, a line each; standard tools read them."""

from __future__ import annotations

import io
import re
import time
import urllib.parse
from collections.abc import Container, Iterator
from decimal import Decimal
from pathlib import Path

from loadbench.errors import StoreError
from loadbench.scenario.files import open_file
from loadbench.store.histogram.values import MAX_UNITS_PER_US, TOP_US, Histogram, slot_of

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
    for number, line in _log_lines(path):
        if line.startswith(("#", '"')) or not line.strip():
            continue
        try:
            match = _LINE.fullmatch(line)
            if match is None:
                raise ValueError("not a line of a histogram log")
            tag = urllib.parse.unquote(match["tag"] or "")
            if tags is not None and tag not in tags:
                continue
            histogram = Histogram.decode(match["counts"])
            _restore_max(histogram, match["max"])
        except ValueError as error:
            if not line.endswith("\n"):
                break
            raise StoreError(f"{path}, line {number}: {error}") from error
        if tag in histograms:
            histograms[tag].merge(histogram)
        else:
            histograms[tag] = histogram
    return histograms


def _log_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a log with their numbers.

    Raises:
        StoreError: If it cannot be read, or a line is longer than that of any histogram.
    """
    try:
        with io.TextIOWrapper(open_file(path), encoding="utf-8") as file:
            number = 0
            while line := file.readline(_LONGEST_LINE):
                number += 1
                if len(line) == _LONGEST_LINE:
                    raise StoreError(f"{path}, line {number}: is longer than that of any histogram")
                yield number, line
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: cannot be read: {error}") from error


def _restore_max(histogram: Histogram, logged_ms: str) -> None:
    """Take the exact maximum from the log's third column, where it is one: others write it in other units."""
    if histogram.max is None:
        return
    logged_us = int(Decimal(logged_ms) * MAX_UNITS_PER_US)
    if slot_of(min(logged_us, TOP_US)) == slot_of(min(histogram.max, TOP_US)):
        histogram.max = logged_us
        if logged_us > TOP_US:
            histogram.over = max(histogram.over, 1)  # how many more, the log does not say
