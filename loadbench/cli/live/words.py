"""Words and figures of a view: what happens, in few of them, and harmless to a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loadbench.engine import Progress
    from loadbench.store.histogram import Histogram


def milliseconds(us: int | None) -> str:
    """As `43 ms`; from a second on as `1.20 s`."""
    if us is None:
        return "-"
    if us < 1000:
        return f"{us / 1000:.1f} ms"
    return f"{us / 1000:,.0f} ms" if us < 1_000_000 else f"{us / 1e6:,.2f} s"


def pair(low_us: int | None, high_us: int | None) -> str:
    """Two times in one unit.

    >>> pair(269_000, 481_000), pair(269_000, 1_204_000), pair(None, None)
    ('269 / 481 ms', '0.27 / 1.20 s', '-')
    """
    if low_us is None or high_us is None:
        return "-"
    unit, divisor, digits = ("ms", 1e3, 0) if high_us < 1_000_000 else ("s", 1e6, 2 if high_us < 100_000_000 else 0)
    if high_us < 10_000:
        digits = 1
    return f"{low_us / divisor:.{digits}f} / {high_us / divisor:.{digits}f} {unit}"


def clock(seconds: float) -> str:
    """As `1:05`; from an hour on as `1:02:05`.

    >>> clock(4.6), clock(59.7), clock(3725)
    ('0:05', '1:00', '1:02:05')
    """
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def timed(progress: Progress) -> tuple[str, Histogram]:
    """What tells how long answers took: TTFT; E2E where answers are asked for whole."""
    name = "ttft" if progress.histograms["ttft"].count or not progress.histograms["e2e"].count else "e2e"
    return name.upper(), progress.histograms[name]


def took(progress: Progress) -> str:
    """As `TTFT p50 43 ms, p95 44 ms`."""
    name, times = timed(progress)
    return f"{name} p50 {milliseconds(times.percentile(0.5))}, p95 {milliseconds(times.percentile(0.95))}"


def failures(progress: Progress) -> list[str]:
    """How many requests failed, by kind, and how many were dropped."""
    words = [f"{n} {kind}" for kind, n in sorted(progress.errors.items())]
    return words + ([f"{progress.dropped} dropped"] if progress.dropped else [])


def state(progress: Progress, per_s: float) -> str:
    """How a level goes, as a plain line says it."""
    done = f"{progress.ended}/{progress.limits.requests}" if progress.limits.requests else str(progress.ended)
    words = [progress.phase, f"{progress.in_flight} in flight", f"{done} done", f"{per_s:,.0f} tokens/s"]
    return ", ".join([*words, took(progress), *failures(progress)])


def is_news(probe: Mapping[str, Any]) -> bool:
    """Whether a person wants to see it now: that a model answers, or that it does not any more."""
    return probe["purpose"] == "first" or bool(probe["error"])


def probe_line(probe: Mapping[str, Any]) -> str:
    """What came of a probe, in words."""
    if probe["error"]:
        return f"{probe['model']}: does not answer: {probe['error']}: {probe['error_message']}"
    if probe["ttft_ms"] is None:
        return f"{probe['model']}: answers, whole after {milliseconds(round(probe['e2e_ms'] * 1000))}"
    return f"{probe['model']}: answers, first token after {milliseconds(round(probe['ttft_ms'] * 1000))}"
