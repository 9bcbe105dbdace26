"""What more load buys: each level against the lowest one, and where a curve bends (docs/statistics.md).

A knee is found by four rules with different answers, so each has its name and none is "the" knee: on one curve they may
say 16, > 32 and 8.4. Each is {"n", "relation"}: "=" at n streams (requests per second in open loop), ">" beyond the
highest load measured, "<" or "<=" below; None where it cannot be told.

A server that answers one request at a time, whatever it is offered, gives N streams the throughput of one, and each
request waits for the N-1 before it: TTFT grows by an answer a stream while TPOT looks perfect. A server
that shares its processor among streams gains nothing either, but its first tokens come soon and the others slowly:
that is no queue.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from loadbench.figures import PERCENTILES
from loadbench.scenario.bounds import Bound
from loadbench.stats import usl
from loadbench.store.summary import (
    NOTHING,
    Curve,
    CurveRow,
    Distribution,
    Knee,
    Knees,
    Law,
    Level,
    Objective,
    rounded,
    significant,
)


@dataclass(frozen=True, slots=True)
class Point:
    """One load; means over the repeats that ran to their end.

    Attributes:
        n: Streams, in open loop requests per second.
        in_flight: Mean number of requests in flight; n where nobody counted.
        x_per_s: Output tokens per second of the steady window.
        requests_per_s: Completed, in the steady window.
        r_ms, ttft_ms: Mean E2E; mean TTFT, None of whole answers.
        think_ms: Mean pause of a user between an answer and the next question, 0 where there is none.
        log_half: Half the width of the 95 % interval of ln x_per_s; None where no interval is known.
        levels: Its entries of summary.json.
    """

    n: float
    in_flight: float
    x_per_s: float
    requests_per_s: float | None
    r_ms: float | None
    ttft_ms: float | None
    think_ms: float
    log_half: float | None
    levels: tuple[Level, ...]


def _points(members: Sequence[Level]) -> list[Point]:
    """The loads that have a throughput, lowest first."""
    by_load: dict[float, list[Level]] = {}
    for level in members:
        if level.load is not None and level.is_whole and level.output_tokens_per_s:
            by_load.setdefault(level.load, []).append(level)
    points = []
    for n, same in sorted(by_load.items()):
        halves = [_log_half_of(level) for level in same]
        sure = [half for half in halves if half is not None]
        log_half = math.sqrt(sum(half**2 for half in sure)) / len(sure) if len(sure) == len(halves) else None
        point = Point(
            n=n,
            in_flight=_mean([level.in_flight_mean for level in same]) or n,
            x_per_s=fmean(level.output_tokens_per_s or 0.0 for level in same),
            requests_per_s=_mean([level.requests_per_s for level in same]),
            r_ms=_mean([(level.e2e_ms or NOTHING).mean for level in same]),
            ttft_ms=_mean([(level.ttft_ms or NOTHING).mean for level in same if level.streamed is not False]),
            think_ms=1000 * (_mean([level.think_time_s for level in same]) or 0.0),
            log_half=log_half,
            levels=tuple(same),
        )
        points.append(point)
    return points


def _mean(figures: Sequence[float | None]) -> float | None:
    """The mean of what is known; None where nothing is."""
    known = [figure for figure in figures if figure is not None]
    if not known:
        return None
    return fmean(known)


def _log_half_of(level: Level) -> float | None:
    """Half the width of the 95 % interval of ln X; None where no interval is known."""
    low, high = level.output_tokens_per_s_ci95 or (None, None)
    if not low or not high:
        return None
    return math.log(high / low) / 2


def scaling(levels: Sequence[Level]) -> list[Curve]:
    """One curve a model (and kind of loop), in the order of the run, its levels by load; closing levels left out.

    n is the concurrency, in open loop the request rate; x_per_s the output tokens per second of the steady window. With
    X and R (mean E2E) of a level, and X0, R0 those of `base_n`, the lowest load that has a throughput (mean over its
    repeats): efficiency (X/n)/(X0/n0), speed-up X/X0, stretch R/R0; the reference lines are X0*n/n0 (every stream gets
    what one of the lowest load gets) and X0 (a server that answers one by one). None where X or R is, and where the
    level did not run to its end: such a level is no base either. The law, the knees and `serial` are of closed loops
    alone.
    """
    curves: dict[tuple[str, str], list[Level]] = {}
    for level in levels:
        if level.load is not None and not level.closing:
            loop = "open" if level.is_open else "closed"
            curves.setdefault((str(level.model), loop), []).append(level)
    return [_curve(model, loop, members) for (model, loop), members in curves.items()]


def _curve(model: str, loop: str, members: Sequence[Level]) -> Curve:
    ordered = sorted(members, key=lambda level: (level.load or 0, level.repeat or 1))
    points = _points(ordered)
    base = base_n = None
    if points:
        base = points[0]
        base_n = base.n
    curve = Curve(model=model, loop=loop, base_n=base_n, levels=[_row(level, base) for level in ordered])
    if loop == "open":
        curve.knees = Knees(slo=slo(members))
        return curve
    curve.usl, curve.usl_reason = _law(points)
    curve.serial = serial(points)
    curve.saturated_n = saturated_n(points)
    curve.knees = knees(points, members)
    return curve


def _row(level: Level, base: Point | None) -> CurveRow:
    n, x = level.load, level.output_tokens_per_s
    if base is None or not n:
        return CurveRow(id=level.id, n=n, x_per_s=x)
    efficiency = speedup = stretch = factor = None
    if level.is_whole:
        r_ms, half = (level.e2e_ms or NOTHING).mean, _log_half_of(level)
        # What the ratio of both throughputs may be off by; the base itself is exactly 1 times itself.
        if base.log_half is not None and half is not None and all(level is not one for one in base.levels):
            factor = math.exp(math.hypot(half, base.log_half))
        if x is not None:
            speedup = x / base.x_per_s
            efficiency = speedup * base.n / n
        if r_ms is not None and base.r_ms:
            stretch = r_ms / base.r_ms
    return CurveRow(
        id=level.id,
        n=n,
        x_per_s=x,
        efficiency=rounded(efficiency, 4),
        efficiency_ci95=_around(efficiency, factor),
        speedup=rounded(speedup, 4),
        speedup_ci95=_around(speedup, factor),
        stretch=rounded(stretch, 4),
        ideal_x_per_s=rounded(base.x_per_s * n / base.n, 4),
        serial_x_per_s=rounded(base.x_per_s, 4),
    )


def _around(figure: float | None, factor: float | None) -> list[float] | None:
    if figure is None or factor is None:
        return None
    return [round(figure / factor, 4), round(figure * factor, 4)]


def _law(curve: Sequence[Point]) -> tuple[Law | None, str | None]:
    """The fitted law over what was in flight on average; else why there is none."""
    if len(curve) < usl.FEWEST_LOADS:
        return None, f"needs {usl.FEWEST_LOADS} loads or more, has {len(curve)}"
    streams, throughputs, log_halves = [], [], []
    for point in curve:
        for level in point.levels:
            streams.append(float(level.in_flight_mean or point.n))
            throughputs.append(float(level.output_tokens_per_s or 0))
            log_halves.append(_log_half_of(level))
    try:
        law = usl.fit(streams, throughputs)
    except ValueError as error:
        return None, str(error)
    if not usl.fits(law, streams, throughputs, log_halves):
        return None, f"does not fit these levels: it would be off by {100 * law.rms:.0f} % on average"
    peak_x_per_s = None
    if law.peak_n is not None:
        peak_x_per_s = significant(law.x_per_s(law.peak_n), 4)
    fitted = Law(
        lambda_per_s=significant(law.lambda_per_s, 4),
        sigma=significant(law.sigma, 4),
        kappa=significant(law.kappa, 4),
        peak_n=significant(law.peak_n, 4),
        peak_x_per_s=peak_x_per_s,
        measured_to=significant(law.measured_to, 4),
        rms=significant(law.rms, 4),
        ci95={name: [significant(low, 4), significant(high, 4)] for name, (low, high) in law.ci95.items()},
    )
    return fitted, None


# A speed-up within these is none.
MOST_GAIN, LEAST_GAIN = 1.1, 0.8
# The wait for a first token, over that of a perfect queue, which is this near to it.
WAIT = (0.7, 1.3)


def serial(curve: Sequence[Point]) -> bool | None:
    """True where every load beyond one stream gets what one stream gets, and waits as long as a queue takes.

    None where it cannot be told: one stream or more of them were not measured, users pause, or a gain may be none by
    its interval.

    Args:
        curve: A closed loop's loads that have a throughput, lowest first.
    """
    if len(curve) < 2 or curve[0].n != 1 or any(point.think_ms for point in curve):
        return None
    found: bool | None = True
    one = curve[0]
    for point in curve[1:]:
        gains, waits = _gains(point, one), _waits(point, one)
        if gains or waits is False:  # one load that is no queue decides
            return False
        if gains is None or waits is None:
            found = None
    return found


def _gains(point: Point, one: Point) -> bool | None:
    """Whether more streams change the throughput; None where a change may be noise."""
    speedup = point.x_per_s / one.x_per_s
    if LEAST_GAIN <= speedup <= MOST_GAIN:
        return False
    if _is_beyond(math.log(speedup), point, one):
        return True
    return None


def _waits(point: Point, one: Point) -> bool | None:
    """Whether the first token, of whole answers the answer, comes later by about R(1) for each further stream."""
    wait_ms, least_ms = point.ttft_ms, one.ttft_ms
    if least_ms is None:
        wait_ms, least_ms = point.r_ms, one.r_ms
    if wait_ms is None or least_ms is None or not one.r_ms:
        return None
    if point.in_flight <= 1:
        return False
    of_queue = (wait_ms - least_ms) / ((point.in_flight - 1) * one.r_ms)
    return WAIT[0] <= of_queue <= WAIT[1]


def _is_beyond(log_gain: float, point: Point, other: Point) -> bool:
    """Whether a difference of two throughputs is more than their intervals allow; so it is without intervals."""
    if point.log_half is None or other.log_half is None:
        return True
    return abs(log_gain) > math.hypot(point.log_half, other.log_half)


# Two points have no bend.
FEWEST_LOADS = 3
GAIN, LEAST_STEP = 0.05, 1.5
# The share of requests that must meet a bound on that statistic.
_SHARES_MET = {**PERCENTILES, "max": 1.0}

_Judged = tuple[Objective, Level]
_Slack = Callable[[Bound, Objective, Level], float | None]


def knees(curve: Sequence[Point], members: Sequence[Level]) -> Knees:
    """All four knees of one model's closed loop.

    Args:
        curve: Its loads that have a throughput, lowest first.
        members: Its levels, for their objectives.
    """
    if len(curve) < FEWEST_LOADS:
        return Knees(slo=slo(members))
    return Knees(power=power(curve), doubling=doubling(curve), corner=corner(curve), slo=slo(members))


def power(curve: Sequence[Point]) -> Knee | None:
    """The load with the most throughput per time in the system, X/R [Kleinrock 1979], of those measured."""
    n, most = curve[0].n, 0.0
    for point in curve:
        if not point.r_ms:
            return None
        if point.x_per_s / point.r_ms > most:
            n, most = point.n, point.x_per_s / point.r_ms
    if n == curve[-1].n:
        return Knee(n=n, relation=">=")
    if n == curve[0].n > 1:
        return Knee(n=n, relation="<=")
    return Knee(n=n, relation="=")


def doubling(curve: Sequence[Point]) -> Knee | None:
    """The load that the first doubling with a gain under 5 % leads to; steps of other sizes by the gain per doubling.

    Each load is held against the next one that is at least half as high again: what a smaller step gains is noise.
    """
    reached = None
    for i, lower in enumerate(curve):
        upper = next((point for point in curve[i + 1 :] if point.n >= LEAST_STEP * lower.n), None)
        if upper is None:
            break
        reached = upper.n
        gain = (upper.x_per_s / lower.x_per_s) ** (1 / math.log2(upper.n / lower.n)) - 1
        if gain < GAIN - 1e-9:  # exactly 5 % is a gain, whatever rounding makes of it
            return Knee(n=upper.n, relation="=", from_n=lower.n, gain=round(gain, 4))
    if reached is None:
        return None
    return Knee(n=reached, relation=">")


def saturated_n(curve: Sequence[Point]) -> float | None:
    """The lowest load above which throughput grows no more: no higher load has over 5 % more, beyond both intervals.

    One flat doubling is none where a later one gains: batches and slots fill in steps. None where it still grows.
    """
    if len(curve) < FEWEST_LOADS:
        return None
    for i, lower in enumerate(curve):
        if curve[-1].n < LEAST_STEP * lower.n:
            return None
        for point in curve[i + 1 :]:
            gain = math.log(point.x_per_s / lower.x_per_s)
            if gain >= math.log1p(GAIN) and _is_beyond(gain, lower, point):
                break
        else:  # none of the higher loads has more
            return lower.n
    return None


def corner(curve: Sequence[Point]) -> Knee | None:
    """X_max * R(1): streams that would keep the server as busy as it gets if none had to wait for another.

    Of users who pause for Z between two questions, X_max * (R(1) + Z).

    Where one stream alone was not measured, R of the lowest load stands in, which can only be longer: "<=".
    """
    lowest, most_per_s = curve[0], 0.0
    for point in curve:
        if point.requests_per_s is None:
            return None
        most_per_s = max(most_per_s, point.requests_per_s)
    if not lowest.r_ms:
        return None
    n = round(most_per_s * (lowest.r_ms + lowest.think_ms) / 1000, 2)
    relation = "=" if lowest.n == 1 else "<="
    return Knee(n=n, relation=relation)


def slo(members: Sequence[Level]) -> Knee | None:
    """The load at which the first bound is crossed, between two levels by a straight line over log2 of the load."""
    by_bound: dict[str, dict[float, list[_Judged]]] = {}
    for level in members:
        if level.load is None or not level.is_whole:
            continue
        for row in level.slo or ():
            by_bound.setdefault(row.bound, {}).setdefault(level.load, []).append((row, level))
    crossings = []
    for text, loads in by_bound.items():
        crossing = _crossing(Bound.parse(text), loads)
        if crossing is None:  # another bound may be crossed earlier
            return None
        crossings.append(crossing)
    order = {"<": 0, "=": 1, ">": 2}
    return min(crossings, key=lambda crossing: (order[crossing.relation], crossing.n), default=None)


def _crossing(bound: Bound, loads: Mapping[float, Sequence[_Judged]]) -> Knee | None:
    """Where one bound is crossed; a load keeps it if each of its repeats does. None where a level is undecided."""
    rows = sorted(loads.items())
    met = []
    for _, same in rows:
        attained = [row.attained for row, _ in same]
        if None in attained:
            return None
        met.append(all(attained))
    if not met[0]:
        return Knee(n=rows[0][0], relation="<", bound=bound.text)
    if all(met):
        return Knee(n=rows[-1][0], relation=">", bound=bound.text)
    at = met.index(False) - 1
    (low, within), (high, beyond) = rows[at], rows[at + 1]
    share = 0.0
    for slack in (_of_figure, _of_attainment):
        spare, lack = _worst(slack, bound, within), _worst(slack, bound, beyond)
        if spare is not None and lack is not None and spare >= 0 > lack:
            share = spare / (spare - lack)
            break
    n = low * (high / low) ** share
    return Knee(n=round(n, 2), relation="=", bound=bound.text, between=[low, high])


def _worst(slack: _Slack, bound: Bound, same: Sequence[_Judged]) -> float | None:
    worst = math.inf
    for row, level in same:
        value = slack(bound, row, level)
        if value is None:
            return None
        worst = min(worst, value)
    return worst


def _of_figure(bound: Bound, row: Objective, level: Level) -> float | None:
    """How far the bound's own figure is within it: times in logarithms, since they grow with the load."""
    if bound.figure.values:
        times: Distribution | None = getattr(level, f"{bound.metric}_ms")
        if bound.metric == "ttft" and level.is_open:
            times = level.ttft_from_due_ms
        value = (times or NOTHING).at(bound.statistic or "")
        if not value:
            return None
        return math.log(bound.value / value)
    figure: float | None = bound.figure.read(level)
    if figure is None:
        return None
    if bound.op.startswith(">"):
        return figure - bound.value
    return bound.value - figure


def _of_attainment(bound: Bound, row: Objective, level: Level) -> float | None:
    """How far the share of requests is above the one that the bound asks for; failed requests are in it."""
    target = _SHARES_MET.get(bound.statistic or "")
    if target is None and bound.metric == "success":
        target = bound.value
    if target is None or row.attainment is None:
        return None
    return row.attainment - target
