"""When a probe has seen enough: an interval of each bound's attainment, at a few sizes that are fixed before.

A probe that is looked at again and again until an interval happens to decide errs far more often than the interval
says. So it is looked at up to LOOKS times, and the looks share the chance of error among them (Bonferroni): with three
looks each interval is one of 98.3 %. That a load is hopeless needs no chance: too many have missed the bound for the
last look, whatever follows.

At a rate a queue decides, and a queue takes time. A probe begins with an empty one, so its first quarter is warm-up and
at least 20 s after it must show that queues do not grow before a load may be called met. The probe that confirms the
answer lasts 60 s, or as long as a queue at the very limit of the server takes to wander across the bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from loadbench import stats
from loadbench.errors import UsageError
from loadbench.figures import PERCENTILES
from loadbench.metrics.slo import OF_REQUESTS
from loadbench.scenario import Level
from loadbench.scenario.bounds import Bound
from loadbench.store.summary import Verdict

LOOKS = 3
CONFIRM_LOOKS = 2
"""At a rate, where a look comes as late as a queue needs."""
ROUNDS = 20
"""Least requests of a probe per stream where nobody says how many."""
FEWEST = 100
"""Least requests of a probe without a share that can be decided: a maximum, a mean, a rate."""
WARMUP = 0.25
"""Of a probe at a rate: while its queue fills."""
STEADY_S, CONFIRM_S, LONGEST_S = 20.0, 60.0, 300.0
"""Seconds after the warm-up, at a rate: least before a load is met, least of a probe that confirms it, and most that a
bound may lengthen it to."""
WANDERS = 4.0
"""Times that a queue at its limit takes on average to wander across the bound: by then 99 of 100 have."""
EARLIEST = 10
"""Requests after which a rate may first be said to be missed."""

_OF_QUEUES = ("ttft", "e2e", "client_queue")


def wanted(bound: Bound) -> float | None:
    """The share of requests that a bound wants to meet it; None where it is about a figure of the whole level.

    >>> [wanted(Bound.parse(text)) for text in ("ttft_p95=800ms", "success=99%", "failed<5%", "goodput>3")]
    [0.95, 0.99, 0.95, None]
    """
    match bound.metric:
        case "success":
            return bound.value if bound.op in (">", ">=") else None
        case "failed":
            return round(1 - bound.value, 9) if bound.op in ("<", "<=") else None
    if bound.metric not in OF_REQUESTS or bound.statistic == "mean":
        return None
    return PERCENTILES.get(bound.statistic or "max", 1.0)


@dataclass(frozen=True, slots=True)
class Rule:
    """How one probe is decided.

    Attributes:
        shares: Of requests that must meet each bound.
        sizes: Requests after which it is looked at; the last one is its end.
        least_s: At a rate, how long its window must be after the warm-up; 0 in closed loop, which has none.
    """

    shares: tuple[float, ...]
    sizes: tuple[int, ...]
    least_s: float = 0.0

    @classmethod
    def of(cls, bounds: Sequence[Bound], level: Level, requests: int | None = None, *, confirms: bool = False) -> Rule:
        """The rule for a level.

        Args:
            requests: Most requests of a probe; unset, four times as many as a load without a miss needs. At a rate a
                probe is never shorter than its queue needs.
            confirms: The load met the SLO before.
        Raises:
            UsageError: So few requests can never show that the bounds are met.
        """
        shares = tuple(share for share in map(wanted, bounds) if share is not None)
        rate_per_s = level.request_rate_per_s
        least_s = 0.0 if rate_per_s is None else _lasts_s(bounds, rate_per_s, confirms=confirms)

        def first(looks: int) -> int:
            if rate_per_s is None:
                return _least(shares, looks)
            return math.ceil(max(_least(shares, looks), least_s * rate_per_s) / (1 - WARMUP))

        fewest = _least(shares, 1) if rate_per_s is None else math.ceil(_least(shares, 1) / (1 - WARMUP))
        most = LOOKS if shares else 1
        if rate_per_s is not None and confirms:
            most = min(most, CONFIRM_LOOKS)
        if requests is None:
            rounds = math.ceil(ROUNDS * (level.concurrency or 1))
            requests = max(FEWEST, 2 ** (most - 1) * first(most), rounds)
        elif requests < fewest:
            strictest = max(share for share in shares if share < 1)
            raise UsageError(
                f"{requests} requests a probe can never show that {100 * strictest:g} % meet the SLO: that takes "
                f"{fewest} without a miss; give -n {fewest} or more, or none"
            )
        requests = max(requests, first(1))
        looks = next((n for n in range(most, 1, -1) if 2 ** (n - 1) * first(n) <= requests), 1)
        return cls(shares, tuple(requests // 2**n for n in reversed(range(looks))), least_s)

    def skipped(self, n: int) -> int:
        """How many of the first n requests are warm-up for the word *met*."""
        return math.floor(n * WARMUP) if self.least_s else 0

    @property
    def warmed_up_s(self) -> float:
        """Seconds that a probe at a rate takes until it may be met, its warm-up among them."""
        return self.least_s / (1 - WARMUP)

    @property
    def early(self) -> tuple[int, ...]:
        """Requests, fewer than the first look's, after which a rate may be said to be missed."""
        if not self.least_s:
            return ()
        return tuple(EARLIEST * 2**n for n in range(64) if EARLIEST * 2**n < self.sizes[0])

    @property
    def tail(self) -> float:
        """What each side of one look's interval may miss."""
        return stats.TAIL / len(self.sizes)

    @property
    def confidence(self) -> float:
        """Of one look's interval."""
        return 1 - 2 * self.tail

    def judged(
        self,
        hits: Sequence[int],
        n: int,
        *,
        worth: Sequence[float] | None = None,
        last: bool = False,
        tail: float | None = None,
    ) -> Verdict:
        """What a look at n requests says, where `hits` of them met each bound; *met* is of the shares alone.

        Args:
            worth: How many independent requests those n are worth, for each bound; unset, all.
            last: No request follows: the end of the probe came before its last size.
            tail: What each side of the interval may miss; unset, a look's.
        """
        # The warm-up is no part of the n that are judged last.
        end = n if last else self.sizes[-1] - self.skipped(self.sizes[-1])
        worths = [float(n)] * len(self.shares) if worth is None else worth
        verdicts = [
            self._one(share, hit, n, end, of, tail or self.tail)
            for share, hit, of in zip(self.shares, hits, worths, strict=True)
        ]
        if "not met" in verdicts:
            return "not met"
        return "undecided" if "undecided" in verdicts else "met"

    def is_hopeless(self, misses: Sequence[int], dropped: int = 0) -> bool:
        """Whether so many missed a bound that no look to come can say *met*, whatever follows.

        Args:
            misses: Of the requests that were sent.
            dropped: Requests that were not: streams were all taken, which is no matter of warm-up.
        """
        spare = self.skipped(self.sizes[-1])  # they may all have been in the warm-up
        most = self.sizes[-1] - spare
        return any(
            self._one(share, max(most - max(missed - spare, 0) - dropped, 0), most, most, most, self.tail) != "met"
            for share, missed in zip(self.shares, misses, strict=True)
        )

    def _one(self, share: float, hits: int, n: int, end: int, worth: float, tail: float) -> Verdict:
        if share >= 1:  # all of them: no interval ever says so
            if hits < n:
                return "not met"
            return "met" if n >= end else "undecided"
        if not n or (bounds := stats.wilson(hits / n * worth, worth, tail)) is None:
            return "undecided"
        if bounds[0] >= share:
            return "met"
        return "not met" if bounds[1] < share else "undecided"


def _lasts_s(bounds: Sequence[Bound], rate_per_s: float, *, confirms: bool) -> float:
    """How long a probe's window must be at a rate, in seconds.

    A server that is just as fast as requests come has a queue that wanders: the time that a request waits spreads by
    2/rate s² each second (both arrivals and service by chance), so that it takes bound² * rate / 2 s to leave [0,
    bound]. Until then nobody can tell such a server from one that keeps up.
    """
    if not confirms:
        return STEADY_S
    times_s = [bound.value / 1000 for bound in bounds if bound.metric in _OF_QUEUES]
    wanders_s = WANDERS * min(times_s, default=0.0) ** 2 * rate_per_s / 2
    return max(CONFIRM_S, min(wanders_s, LONGEST_S))


def _least(shares: Sequence[float], looks: int) -> int:
    """Requests without a miss that the strictest share needs."""
    return max((stats.flawless(share, stats.TAIL / looks) for share in shares if share < 1), default=0)
