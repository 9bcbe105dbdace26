"""What the requests of a probe say at one look: a pure function, which simulations ask too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadbench import stats
from loadbench.runner.capacity.backlog import is_steady
from loadbench.runner.capacity.rule import EARLIEST, Rule
from loadbench.store.summary import Verdict

UNSTEADY = "requests stay longer and longer, or ever more are in flight: the load is not steady yet"
ALMOST = 0.95
"""Of the seconds that a window needs: what counts as that long where chance decides when requests come."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Requests in the order of start.

    Attributes:
        due_s: When each was due.
        stay_s: From then to its end; NaN where it did not complete.
        met: Which bounds it met, one column for each.
    """

    due_s: NDArray[np.float64]
    stay_s: NDArray[np.float64]
    met: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.due_s)

    def after(self, n: int) -> Sample:
        """Without the first n."""
        return Sample(self.due_s[n:], self.stay_s[n:], self.met[n:])


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look says.

    Attributes:
        hits: Requests that met each bound, of `requests`; `worth` is how many independent ones those are.
    """

    verdict: Verdict
    requests: int
    hits: tuple[int, ...]
    worth: tuple[float, ...]
    reason: str | None = None


def looked(rule: Rule, sample: Sample, *, at: int | None = None, dropped: int = 0, last: bool = False) -> Looked:
    """What the requests say: of all of them *not met*, of those after the warm-up *met*.

    A probe at a rate begins with an empty queue, so that *not met* of all its requests is safe to say, and *met* is
    not.

    Args:
        at: The number of requests that the look was due at; unset, as many as there are. At a rate only *not met* may
            be said before the rule's first size.
        dropped: Requests that were due and not sent: they met no bound.
        last: No request follows, however few there are.
    """
    due_at, queues = at or len(sample), bool(rule.least_s)
    # A queue has busy spells: up to the first look one of them may be most of what was seen.
    tail = _early_tail(rule, due_at) if queues and due_at <= rule.sizes[0] else None
    whole = _judged(rule, sample, dropped, tail=tail, last=last)
    if whole.verdict == "not met":
        return whole
    if queues and due_at < rule.sizes[0] and not last:
        return _open(whole)
    skipped = _warm_up(rule, sample) if queues else 0
    found = _judged(rule, sample.after(skipped), dropped, last=last) if queues else whole
    if found.verdict == "not met":  # but for the warm-up it would be: of the whole probe that is not sure
        return _open(found)
    if not queues or found.verdict != "met":
        return found
    lasted_s = float(sample.due_s[-1] - sample.due_s[skipped])
    is_as_planned = due_at >= rule.sizes[0] and skipped == rule.skipped(len(sample))
    if not is_as_planned and lasted_s < ALMOST * rule.least_s:
        return _open(
            found, f"{lasted_s:.3g} s after the warm-up are too short to see whether a queue grows; allow more with -n"
        )
    ended = ~np.isnan(sample.stay_s)
    if not is_steady(sample.due_s[ended], sample.stay_s[ended], int(ended[:skipped].sum())):
        return _open(found, UNSTEADY)
    return found


def _warm_up(rule: Rule, sample: Sample) -> int:
    """How many of the requests are warm-up: until the first ones end, ever more are in flight."""
    stays_s = sample.stay_s[~np.isnan(sample.stay_s)]
    if not len(stays_s):
        return rule.skipped(len(sample))
    filled_s = sample.due_s[0] + np.quantile(stays_s, 0.95)
    filled = int(np.searchsorted(sample.due_s, filled_s))
    return max(rule.skipped(len(sample)), min(filled, len(sample) - 1))


def _open(found: Looked, reason: str | None = None) -> Looked:
    return Looked("undecided", found.requests, found.hits, found.worth, reason)


def _judged(rule: Rule, sample: Sample, dropped: int, *, tail: float | None = None, last: bool = False) -> Looked:
    n = len(sample) + dropped
    hits = tuple(int(hit) for hit in sample.met.sum(axis=0))
    worth = _worth(sample, n, tail or rule.tail)
    verdict: Verdict = rule.judged(hits, n, worth=worth, last=last, tail=tail) if n else "undecided"
    return Looked(verdict, n, hits, worth)


def _worth(sample: Sample, n: int, tail: float) -> tuple[float, ...]:
    """As many as the requests that were sent are worth; those that were not sent alike."""
    columns: Sequence[NDArray[np.bool_]] = list(sample.met.T)
    if not len(sample):
        return (float(n),) * len(columns)
    return tuple(stats.independent_flags(flags, tail) * n / len(sample) for flags in columns)


def _early_tail(rule: Rule, n: int) -> float:
    """Half of a look's for the first one, then half of that, and so on: all together one look's."""
    return float(rule.tail / 2 ** max(1, (n // EARLIEST).bit_length()))


def independent(sample: Sample) -> int:
    """How many independent requests a queue's are worth, by the times that they stay.

    Where none missed a bound, nothing else tells that one busy spell would have made hundreds miss it.
    """
    return max(1, stats.independent_requests(sample.stay_s[~np.isnan(sample.stay_s)], 0.5))
