"""What is said of one metric of one level, NEW against BASE: faster, slower, same, or that nobody can tell yet."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from loadbench.intervals import TAIL, one_sample, student

Word = Literal["faster", "slower", "better", "worse", "same", "can't tell", "no verdict"]
BAD: tuple[Word, ...] = ("slower", "worse")
MARGIN = 0.1
"""A ratio within 1.1 either way is the same: what nobody would notice."""
SHARE_MARGIN = 0.01
"""A share within one percentage point is the same."""
_MOST_RUNS = 100_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """One metric of one level, NEW against BASE.

    Attributes:
        metric: As in METRICS.md, with its statistic: "ttft", "ttft_p95", "output_tokens_per_s", "failed".
        unit: "ms", "/s" or "share"; "" of a mean over levels.
        base, new: The figure of each side, over all its runs; None where not measured.
        ratio: new / base; None for shares.
        low, high: Interval of the ratio, of shares of the difference new - base; None where it does not exist.
        word: By the interval and the margin. "better" and "worse" are those of shares.
        runs_needed: About how many runs a side it takes until the interval lies on one side of the nearer edge of the
            margin; None unless the word is "can't tell", and where the estimate lies on that edge.
        method: How the interval was made, in words.
        n_base, n_new: Requests (gaps, for those of gaps) that the figures rest on.
        runs_base, runs_new: Runs a side. With one the interval knows what varies within it, not between runs.
        margin: Of the ratio, of shares of the difference.
        confidence: Of the interval: 0.95, or more where several metrics are judged (Bonferroni).
        by_run: NEW / BASE run by run, where there are as many; else empty.
        paired: Whether the runs took turns, so that each of `by_run` is of a pair that met the same machine.
        outliers_base, outliers_new: Requests far from the others of the same prompt: flagged, never dropped. None where
            nobody looked.
        p_value: McNemar's, of shares on the same prompts.
        note: What a reader should know; "" for nothing.
    """

    metric: str
    unit: str
    base: float | None
    new: float | None
    ratio: float | None
    low: float | None
    high: float | None
    word: Word
    runs_needed: int | None
    method: str
    n_base: int
    n_new: int
    runs_base: int
    runs_new: int
    margin: float
    confidence: float
    by_run: tuple[float, ...] = ()
    outliers_base: int | None = None
    outliers_new: int | None = None
    p_value: float | None = None
    note: str = ""
    paired: bool = False

    @property
    def bad(self) -> bool:
        """Whether NEW is worse, beyond the margin."""
        return self.word in BAD


@dataclass(frozen=True, slots=True)
class Finding:
    """A log ratio (of shares: a difference) with its interval, before a word is given to it.

    Attributes:
        base, new: The figures.
        effect: Log of new / base, or the difference of shares.
        low, high: Its interval; None where it does not exist.
        method: In words.
        n_base, n_new: What the figures rest on.
        by_run: Effects run by run.
        outliers_base, outliers_new, p_value, note, paired: As of the Verdict.
    """

    base: float | None
    new: float | None
    effect: float | None
    low: float | None
    high: float | None
    method: str
    n_base: int
    n_new: int
    by_run: tuple[float, ...] = ()
    outliers_base: int | None = None
    outliers_new: int | None = None
    p_value: float | None = None
    note: str = ""
    paired: bool = False


def word(low: float, high: float, edge: float, *, more_is_better: bool, share: bool = False) -> Word:
    """The word that an interval earns: wholly outside of ± edge, wholly inside, or neither.

    >>> word(0.12, 0.3, 0.0953, more_is_better=False), word(-0.05, 0.08, 0.0953, more_is_better=False)
    ('slower', 'same')
    >>> word(0.05, 0.2, 0.0953, more_is_better=False), word(0.012, 0.05, 0.01, more_is_better=False, share=True)
    ("can't tell", 'worse')
    """
    if low > edge or high < -edge:
        good = (low > edge) == more_is_better
        return ("better" if good else "worse") if share else ("faster" if good else "slower")
    return "same" if low > -edge and high < edge else "can't tell"


def runs_needed(effect: float, low: float, high: float, edge: float, runs: int) -> int | None:
    """About how many runs a side: runs * (half-width / distance from the estimate to the nearer edge)^2.

    >>> runs_needed(0.02, -0.18, 0.22, 0.0953, 5)
    36
    """
    distance = min(abs(effect - edge), abs(effect + edge))
    if not distance > 0:
        return None
    needed = math.ceil(runs * ((high - low) / 2 / distance) ** 2 - 1e-9)
    return max(needed, runs + 1)


def runs_needed_by_run(effects: tuple[float, ...], edge: float, tail: float = TAIL) -> int | None:
    """The same where the spread between runs is known: Student's quantile shrinks too as runs are added."""
    known = one_sample(effects)
    if known is None:
        return None
    spread = math.sqrt(known.variance * len(effects))
    distance = min(abs(known.value - edge), abs(known.value + edge))
    if not distance > 0:
        return None
    runs = max(len(effects) + 1, math.ceil((student(10**6, tail) * spread / distance) ** 2))
    while runs < _MOST_RUNS and student(runs - 1, tail) * spread / math.sqrt(runs) > distance:
        runs = runs + 1 if runs < 1000 else math.ceil(runs * 1.001)
    return runs


def withheld(verdict: Verdict, reason: str) -> Verdict:
    """The same figures without a verdict: what a red gate does."""
    return replace(verdict, word="no verdict", runs_needed=None, note=reason)
