"""Whether a server answers one request at a time, whatever it is offered.

Then N streams get the throughput of one, and each request waits for the N-1 before it: TTFT grows by an answer a
stream while TPOT looks perfect (METRICS.md §4). A server that shares its processor among streams gains nothing either,
but its first tokens come soon and the others slowly: that is no queue.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from loadbench.stats.scaling.points import Point

MOST_GAIN, LEAST_GAIN = 1.1, 0.8
"""A speed-up within these is none."""
WAIT = (0.7, 1.3)
"""The wait for a first token, over that of a perfect queue, which is this near to it."""


def serial(curve: Sequence[Point]) -> bool | None:
    """True where every load beyond one stream gets what one stream gets, and waits as long as a queue takes.

    None where it cannot be told: one stream or more of them were not measured, users pause, or a gain may be none by
    its interval.

    Args:
        curve: A closed loop's loads that have a throughput, lowest first.
    """
    if len(curve) < 2 or curve[0].n != 1 or any(point.think_ms for point in curve):
        return None
    waits = [_waits(point, curve[0]) for point in curve[1:]]
    gains = [_gains(point, curve[0]) for point in curve[1:]]
    if False in waits or True in gains:
        return False
    return None if None in waits or None in gains else True


def _gains(point: Point, one: Point) -> bool | None:
    """Whether more streams change the throughput; None where a change may be noise."""
    speedup = point.x_per_s / one.x_per_s
    if LEAST_GAIN <= speedup <= MOST_GAIN:
        return False
    if point.log_half is None or one.log_half is None:
        return True
    return None if abs(math.log(speedup)) <= math.hypot(point.log_half, one.log_half) else True


def _waits(point: Point, one: Point) -> bool | None:
    """Whether the first token, of whole answers the answer, comes later by about R(1) for each further stream."""
    times = (point.ttft_ms, one.ttft_ms) if one.ttft_ms is not None else (point.r_ms, one.r_ms)
    if times[0] is None or times[1] is None or not one.r_ms:
        return None
    of_queue = (times[0] - times[1]) / ((point.in_flight - 1) * one.r_ms) if point.in_flight > 1 else 0.0
    return WAIT[0] <= of_queue <= WAIT[1]
