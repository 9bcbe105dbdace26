"""When a probe has seen enough: Wilson's interval of each bound's attainment, at a few sizes that are fixed before.

A probe that is looked at again and again until an interval happens to decide errs far more often than the interval
says. So it is looked at up to LOOKS times, and the looks share the chance of error among them (Bonferroni): with three
looks each interval is one of 98.3 %. That a load is hopeless needs no chance: too many have missed the bound for the
last look, whatever follows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loadbench import intervals
from loadbench.errors import UsageError
from loadbench.metrics.distribution import PERCENTILES
from loadbench.metrics.slo import OF_REQUESTS
from loadbench.scenario import Bound, Level

LOOKS = 3
ROUNDS = 20
"""Least requests of a probe per stream, or least seconds of an open loop, where nobody says how many."""
FEWEST = 100
"""Least requests of a probe without a share that can be decided: a maximum, a mean, a rate."""

Verdict = Literal["met", "not met", "undecided"]


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
    """

    shares: tuple[float, ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, bounds: Sequence[Bound], level: Level, requests: int | None = None) -> Rule:
        """The rule for a level.

        Args:
            requests: Most requests of a probe; unset, four times as many as a load without a miss needs.
        Raises:
            UsageError: So few requests can never show that the bounds are met.
        """
        shares = tuple(share for share in map(wanted, bounds) if share is not None)
        if requests is None:
            a_second = level.concurrency or level.request_rate_per_s or 1
            requests = max(FEWEST, 2 ** (LOOKS - 1) * _least(shares, LOOKS), math.ceil(ROUNDS * a_second))
        elif requests < _least(shares, 1):
            strictest = max(share for share in shares if share < 1)
            raise UsageError(
                f"{requests} requests a probe can never show that {100 * strictest:g} % meet the SLO: that takes "
                f"{_least(shares, 1)} without a miss; give -n {_least(shares, 1)} or more, or none"
            )
        looks = next((n for n in range(LOOKS, 1, -1) if 2 ** (n - 1) * _least(shares, n) <= requests), 1)
        return cls(shares, tuple(requests // 2**n for n in reversed(range(looks if shares else 1))))

    @property
    def tail(self) -> float:
        """What each side of one look's interval may miss."""
        return intervals.TAIL / len(self.sizes)

    @property
    def confidence(self) -> float:
        """Of one look's interval."""
        return 1 - 2 * self.tail

    def judged(self, hits: Sequence[int], n: int, *, last: bool = False) -> Verdict:
        """What a look at n requests says, where `hits` of them met each bound; *met* is of the shares alone.

        Args:
            last: No request follows: the end of the probe came before its last size.
        """
        end = n if last else self.sizes[-1]
        verdicts = [self._one(share, hit, n, end) for share, hit in zip(self.shares, hits, strict=True)]
        if "not met" in verdicts:
            return "not met"
        return "undecided" if "undecided" in verdicts else "met"

    def is_hopeless(self, misses: Sequence[int]) -> bool:
        """Whether so many missed a bound that no look to come can say *met*, whatever follows."""
        most = self.sizes[-1]
        return any(
            self._one(share, max(most - missed, 0), most, most) != "met"
            for share, missed in zip(self.shares, misses, strict=True)
        )

    def _one(self, share: float, hits: int, n: int, end: int) -> Verdict:
        if share >= 1:  # all of them: no interval ever says so
            return "not met" if hits < n else "met" if n >= end else "undecided"
        bounds = intervals.wilson(hits, n, self.tail)
        if bounds is None:
            return "undecided"
        return "met" if bounds[0] >= share else "not met" if bounds[1] < share else "undecided"


def _least(shares: Sequence[float], looks: int) -> int:
    """Requests without a miss that the strictest share needs."""
    return max((intervals.flawless(share, intervals.TAIL / looks) for share in shares if share < 1), default=0)
