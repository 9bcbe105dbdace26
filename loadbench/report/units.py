"""Numbers for readers: three significant figures, thousands separators, no scientific notation, "-" for null."""

from __future__ import annotations

import math
from collections.abc import Iterable

ABSENT = "-"
"""Not measured. Never 0."""


def figure(value: float | None) -> str:
    """Three significant figures, every digit before the point kept.

    >>> [figure(x) for x in (1204.3, 99.96, 52.13, 0.01234, 3, None)]
    ['1,204', '100', '52.1', '0.0123', '3', '-']
    """
    if value is None or not math.isfinite(value):
        return ABSENT
    if value == 0 or isinstance(value, int):
        return f"{value:,.0f}"
    decimals = max(2 - math.floor(math.log10(abs(value))), 0)
    rounded = round(value, decimals)
    # Rounding may carry into a new digit (99.96 -> 100.0), which then has one decimal too many.
    decimals = max(2 - math.floor(math.log10(abs(rounded))), 0)
    return f"{rounded:,.{decimals}f}"


def with_unit(value: float | None, unit: str | None) -> str:
    """A figure with its unit: ms, bytes, share, points (of 5), per_s; of any other its name must stand elsewhere.

    >>> with_unit(1204.0, "ms"), with_unit(0.9, "share"), with_unit(25.5, "per_s"), with_unit(3, None)
    ('1.20 s', '90%', '25.5/s', '3')
    """
    if value is None:
        return ABSENT
    match unit:
        case "ms":
            return span(value)
        case "bytes":
            return size(value)
        case "share":
            return share(value)
        case "points":
            return f"{value:.2f} of 5"
        case "per_s":
            return f"{figure(value)}/s"
    return figure(value)


def count(value: float | None) -> str:
    """A whole number.

    >>> count(12345), count(None)
    ('12,345', '-')
    """
    return ABSENT if value is None else f"{value:,.0f}"


def span(ms: float | None) -> str:
    """A time in words: ms below 1 s, s above, minutes from two of them on.

    >>> [span(x) for x in (0.214, 210.4, 1904.0, 200_000.0, 7_380_000.0)]
    ['0.214 ms', '210 ms', '1.90 s', '3 min 20 s', '2 h 3 min']
    """
    if ms is None or not math.isfinite(ms):
        return ABSENT
    if abs(ms) < 999.5:
        return f"{figure(float(ms))} ms"
    if abs(ms) < 120_000:
        return f"{figure(ms / 1000)} s"
    minutes, seconds = divmod(round(ms / 1000), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    return f"{minutes // 60:,} h {minutes % 60} min"


def share(fraction: float | None) -> str:
    """A fraction in per cent; what is not all or nothing never reads 100% or 0%.

    >>> [share(x) for x in (0.391, 0.052, 0.9996, 0.99999, 1.0, 0.00001, 0.0, 1.04)]
    ['39%', '5.2%', '99.96%', '> 99.99%', '100%', '< 0.01%', '0%', '104%']
    """
    if fraction is None or not math.isfinite(fraction):
        return ABSENT
    percent = 100 * fraction
    if 0 < percent < 0.01:
        return "< 0.01%"
    if 99.99 < percent < 100:
        return "> 99.99%"
    if 0 < percent < 1 or 99 < percent < 100:
        return f"{percent:.2f}".rstrip("0").rstrip(".") + "%"
    if 0 < percent < 10:
        return f"{percent:.1f}".removesuffix(".0") + "%"
    return f"{percent:,.0f}%"


def percent(ratio: float | None) -> str:
    """A ratio in whole per cent, where 99.9% and 100% are the same to a reader.

    >>> percent(0.391), percent(0.9985), percent(1.04)
    ('39%', '100%', '104%')
    """
    return ABSENT if ratio is None or not math.isfinite(ratio) else f"{100 * ratio:,.0f}%"


def size(n_bytes: float | None) -> str:
    """Bytes in decimal units.

    >>> size(144_811_968), size(8_260_000_000)
    ('145 MB', '8.26 GB')
    """
    if n_bytes is None:
        return ABSENT
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= scale:
            return f"{figure(n_bytes / scale)} {unit}"
    return f"{n_bytes:,.0f} B"


def plural(n: int, noun: str) -> str:
    """A count and its noun.

    >>> plural(1, "stream"), plural(1200, "request")
    ('1 stream', '1,200 requests')
    """
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def listed(words: Iterable[str], last: str = "or") -> str:
    """Words in a row.

    >>> listed(["1", "2", "4"]), listed(["1"])
    ('1, 2 or 4', '1')
    """
    *before, end = words
    return f"{', '.join(before)} {last} {end}" if before else end
