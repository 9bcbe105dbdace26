"""How many slow streams one process carries, and what each costs: chats as people read them, 20, 5 and 1 tokens/s.

Answers differ in length and pace, so that the streams do not march in step; what a request costs beside its tokens is
in the CPU per token. Cores are those of the client at full load: CPU per token times tokens/s of all streams.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench import loads
from bench.loads import Figures, Load
from bench.table import aligned, number, off

STREAMS = {20: (250, 500, 1000), 5: (1000, 2000, 4000), 1: (1000, 5000, 10_000)}
"""By tokens/s of a stream."""
TOKENS = {20: (50, 150), 5: (30, 70), 1: (15, 35)}
"""Of an answer, by the same."""
ROUNDS = 3
BUSY = 0.8
"""Of a core: beyond it a client is late."""


@dataclass(frozen=True, slots=True)
class Row:
    """One load: tokens/s of a stream, and what the client took."""

    rate_per_s: int
    figures: Figures

    @property
    def cores(self) -> float:
        """Of the client, at full load."""
        return self.figures.cpu_us_per_token * self.rate_per_s * self.figures.load.streams / 1e6

    @property
    def carried(self) -> int:
        """Streams at which the client would fill BUSY of a core, by its CPU per token."""
        return round(BUSY * 1e6 / (self.figures.cpu_us_per_token * self.rate_per_s))


def load(rate_per_s: int, streams: int) -> Load:
    """So many streams of so many tokens/s; the first token takes as long as four others."""
    shortest, longest = TOKENS[rate_per_s]
    gap_ms = 1000 / rate_per_s
    return Load(streams, ROUNDS, longest, ttft_ms=min(1000, 4 * gap_ms), itl_ms=gap_ms, jitter=0.2, shortest=shortest)


def measured(client: str, wanted: dict[int, Sequence[int]]) -> Iterator[Row]:
    """Each load in turn, slowest streams last."""
    for rate_per_s, numbers in wanted.items():
        for streams in numbers:
            yield Row(rate_per_s, loads.run(client, load(rate_per_s, streams)))


HEAD = (
    *("tokens/s a stream", "streams", "failed", "cores", "us/token", "streams/core", "RSS MB", "kB/stream", "lag p99"),
    *("merged", "TTFT p50", "off", "TTFT p99", "off", "gap p99", "off", "others", "V3"),
)


def table(rows: Sequence[Row], base_mb: float | None) -> str:
    """A load a line.

    Args:
        base_mb: Peak memory with a single stream; memory per stream is what comes on top.
    """
    cells = [HEAD]
    for row in rows:
        found = row.figures
        streams, rss = found.load.streams, found.peak_rss_mb
        each = "-" if rss is None or base_mb is None else f"{1000 * (rss - base_mb) / streams:.1f}"
        errors = [
            cell
            for name in ("ttft_p50", "ttft_p99", "gap_p99")
            for cell in (number(found.ms[name], 1), off(found.error(name)))
        ]
        cells.append(
            (
                *(str(row.rate_per_s), f"{streams:,}", str(found.failed), f"{row.cores:.2f}"),
                *(
                    f"{found.cpu_us_per_token:.1f}",
                    f"{row.carried:,}",
                    number(rss, 0),
                    each,
                    number(found.lag_p99_ms, 1),
                ),
                *("-" if found.merged_share is None else f"{100 * found.merged_share:.3f} %", *errors),
                *(f"{found.others_cores:.2f}", "doubted" if found.v3 else "green"),
            )
        )
    return aligned(cells)
