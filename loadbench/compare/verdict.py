"""The word that an interval earns, the metrics that it can be about, and how much runs of the same differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import Literal

import numpy as np

from loadbench import figures
from loadbench.errors import UsageError
from loadbench.figures import PERCENTILES
from loadbench.stats import TAIL, Bounds, Estimate, student
from loadbench.stats.blocks import reach

# -- the metrics that a verdict can be about

Kind = Literal["typical", "percentile", "mean", "rate", "share"]
GAPS = "itl"
DEFAULT = ("ttft", "ttft_p95", "tpot", "e2e", "output_tokens_per_s", "failed")
"""What is judged unless --metric names others."""
OF_MODELS = ("ttft", "ttft_p95", "e2e", "characters_per_s", "output_tokens_per_s", "failed")
"""Between models: they cut text into tokens differently, so characters stand beside tokens, and TPOT is left out."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric with its statistic.

    Attributes:
        name: As written: "ttft" (paired by prompt), "ttft_p95", "itl_p99", "output_tokens_per_s", "failed".
        metric: Without the statistic.
        kind: How it is judged.
        p: The percentile as a fraction; None of other kinds.
        unit: "ms", "/s" or "share".

    >>> figure("ttft_p95")
    Figure(name='ttft_p95', metric='ttft', kind='percentile', p=0.95, unit='ms', more_is_better=False)
    """

    name: str
    metric: str
    kind: Kind
    p: float | None
    unit: str
    more_is_better: bool


def figure(name: str) -> Figure:
    """The metric of that name.

    Raises:
        UsageError: If there is none; one line that says what to write.
    """
    found = figures.named(name)
    kind: Kind | None = None
    if found is not None and "verdict" in found.figure.doors:
        if found.figure.unit == "share":
            kind = "share"
        elif found.figure.is_median:
            kind = "percentile"
        elif not found.figure.values:
            kind = "rate"
        elif found.statistic in PERCENTILES:
            kind = "percentile"
        elif found.figure.values == "requests" and found.statistic is None:
            kind = "typical"
        elif found.figure.values == "requests" and found.statistic == "mean":  # no verdict on the mean of all gaps
            kind = "mean"
    if found is None or kind is None:
        of_requests = [one.key for one in figures.of("verdict") if one.values == "requests" or one.is_median]
        examples = ", ".join((*of_requests, "ttft_p95", "itl_p99", "e2e_mean", *rates(), *shares()))
        raise UsageError(f"no verdict on {name!r}: write a metric with or without a statistic, as {examples}")
    one = found.figure
    p = None
    if kind == "percentile":
        p = PERCENTILES["p50" if one.is_median else found.statistic or ""]
    return Figure(name=name, metric=one.key, kind=kind, p=p, unit=one.unit, more_is_better=one.more_is_better)


def rates() -> tuple[str, ...]:
    """The rates in the steady window that a verdict can be about."""
    found = []
    for one in figures.of("verdict"):
        if not one.values and not one.is_median and one.unit != "share":
            found.append(one.key)
    return tuple(found)


def shares() -> tuple[str, ...]:
    """The shares that a verdict can be about."""
    return tuple(one.key for one in figures.of("verdict") if one.unit == "share")


# -- how much runs of the same differ

QUIET = 0.02
"""What runs of a machine left alone differ by (standard deviation of a logarithm): supposed until runs say more."""
SUPPOSED = 10.0
"""Degrees of freedom that this is worth. Where runs clearly differ by more, it is worth none."""
_MANY = 1000.0


@dataclass(frozen=True, slots=True)
class Runs:
    """What the runs of one metric of one level say of how much runs differ.

    Attributes:
        effect: Log of new / base.
        within: Variance of one run's logarithm (of one pair's log ratio) by what varies within it; None where unknown.
        part: What of one run's variance is left in the effect: 1/5 of five pairs, 1/3 + 1/2 of three runs against two.
        paired: Whether the unit is a pair of runs that took turns.
        residuals: How far each run or pair is from its mean, in the order of the runs; empty of one run a side.
        freedom: Degrees of freedom of the residuals.
    """

    effect: float
    within: float | None
    part: float
    paired: bool = False
    residuals: tuple[float, ...] = ()
    freedom: int = 0

    @property
    def variance(self) -> float:
        """Of one run or pair, by its residuals alone."""
        return math.fsum(one * one for one in self.residuals) / self.freedom

    @property
    def expected(self) -> float:
        """Of one run or pair, if runs differ by no more than they do on a quiet machine."""
        runs = 2 if self.paired else 1
        return (self.within or 0.0) + runs * QUIET**2


@dataclass(frozen=True, slots=True)
class _Common:
    """What metrics and levels have in common: the scale of their variances over the expected ones.

    Attributes:
        freedom: Degrees of freedom of the scale.
        alike: Those that one variance is drawn by towards it: fewer where variances differ by more than by chance.
    """

    scale: float
    freedom: float
    alike: float


def moderated(found: Sequence[Runs | None]) -> list[Estimate | None]:
    """The effects with their doubt, each variance drawn towards what all metrics and levels have in common.

    A variance of three runs has two degrees of freedom, and Student's quantile for so few is what hides differences.
    Metrics and levels are measured in the same runs, so that they are worth fewer than their number: as many as the
    correlations of their residuals leave.

    Returns:
        One for each; None where no run says how much runs differ.
    Source: Smyth 2004, Statistical Applications in Genetics and Molecular Biology 3:1 (limma).
    """
    doubts: list[Estimate | None] = [None] * len(found)
    for paired in (True, False):  # a pair's variance is that of two runs: they have nothing in common
        same = {place: one for place, one in enumerate(found) if one is not None and one.paired is paired}
        common = _common([one for one in same.values() if one.freedom and one.within is not None])
        for place, one in same.items():
            doubts[place] = _doubt(one, common)
    return doubts


def _doubt(one: Runs, common: _Common | None) -> Estimate | None:
    if common is None or one.within is None:
        if not one.freedom:
            return None
        return Estimate(one.effect, one.variance * one.part, one.freedom)
    variance = common.scale * one.expected
    if not one.freedom:
        return Estimate(one.effect, max(variance, one.within) * one.part, common.freedom)
    variance = (common.alike * variance + one.freedom * one.variance) / (common.alike + one.freedom)
    return Estimate(one.effect, variance * one.part, min(common.alike + one.freedom, common.freedom))


def _common(known: Sequence[Runs]) -> _Common | None:
    if not known:
        return None
    freedoms, found = [], []
    by_size: dict[int, list[tuple[float, ...]]] = {}
    for one in known:
        freedoms.append(one.freedom)
        found.append(one.variance / one.expected)
        by_size.setdefault(len(one.residuals), []).append(one.residuals)
    ratios = np.array(found)
    scale = float(ratios.mean())
    # The sum over all pairs of metrics of the squared correlation of their residuals; those of other runs count as 1.
    shared = 0.0
    for same in by_size.values():
        rows = np.array(same)
        lengths = np.sqrt(np.square(rows).sum(axis=1))
        unit = rows / np.where(lengths > 0, lengths, 1.0)[:, np.newaxis]
        squares = np.square(unit @ unit.T)
        squares[lengths == 0] = squares[:, lengths == 0] = 1.0
        shared += float(squares.sum()) + len(rows) * (len(known) - len(rows))
    freedom = max(freedoms) * len(known) ** 2 / shared
    if scale <= reach(freedom):
        scale = (SUPPOSED + freedom * scale) / (SUPPOSED + freedom)
        freedom += SUPPOSED
    # Smyth's d0: how much the logarithms of the variances spread beyond what the trigamma function allows to chance.
    alike = _MANY
    if len(ratios) >= 3 and ratios.min() > 0:
        chance = float(np.mean([_trigamma(each / 2) for each in freedoms]))
        beyond = float(np.log(ratios).var(ddof=1)) - chance
        if beyond > _trigamma(_MANY / 2):
            low, high = 1e-6, _MANY
            for _ in range(60):
                middle = math.sqrt(low * high)
                if _trigamma(middle) > beyond:
                    low = middle
                else:
                    high = middle
            alike = 2 * low
    return _Common(scale, freedom, min(alike, freedom))


def _trigamma(x: float) -> float:
    """The variance of the logarithm of a gamma variable of that shape (Abramowitz & Stegun 6.4.6 and 6.4.12)."""
    total = 0.0
    while x < 6:
        total += 1 / x**2
        x += 1
    return total + 1 / x + 1 / (2 * x**2) + 1 / (6 * x**3) - 1 / (30 * x**5) + 1 / (42 * x**7)


# -- words

Slight = Literal["slightly slower", "slightly faster", "slightly worse", "slightly better"]
Word = Literal["faster", "slower", "better", "worse", "same", Slight, "can't tell", "no verdict"]
GOOD: tuple[Word, ...] = ("faster", "better")
BAD: tuple[Word, ...] = ("slower", "worse")
WITHIN: tuple[Word, ...] = ("same", "slightly slower", "slightly faster", "slightly worse", "slightly better")
"""Within the margin: nobody would notice, though it may be sure which is slower."""
MARGIN = 0.1
"""A ratio within 1.1 either way is the same: what nobody would notice."""
SHARE_MARGIN = 0.01
"""A share within one percentage point is the same."""
_MOST_RUNS = 100_000
_SETTLED = 0.8
"""Share of comparisons that are to be settled by as many runs as a verdict asks for."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One metric of one level, NEW against BASE; docs/compare.md has every field.

    Attributes:
        unit: "ms", "/s" or "share"; "" of a mean over levels.
        base, new: The figure of each side, over all its runs; None where not measured.
        ratio: new / base; None for shares.
        low, high: Interval of the ratio, of shares of the difference new - base; None where it does not exist.
        runs_needed: About how many runs a side settle four comparisons of five whose true ratio is the one measured;
            None unless the word is "can't tell", and where it cannot be said.
        n_base, n_new: Requests (gaps, for those of gaps) that the figures rest on.
        confidence: Of the interval: 0.95, or more where several metrics are judged (Holm).
        by_run: NEW / BASE run by run, where there are as many; else empty.
        outliers_base, outliers_new: Requests far from the others of the same prompt: flagged, never dropped. None where
            there is no prompt to be far from.
        p_value: McNemar's, of shares on the same prompts.
        paired: Whether the runs took turns, so that each of `by_run` is of a pair that met the same machine.
        bounds, runs: The interval at any tail, and how much runs differ: for the mean over levels, not for the record.
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
    bounds: Callable[[float], Bounds | None] | None = field(default=None, compare=False, repr=False)
    runs: Runs | None = field(default=None, compare=False, repr=False)

    @property
    def bad(self) -> bool:
        """Whether NEW is worse, beyond the margin."""
        return self.word in BAD


def word(low: float, high: float, edge: float, *, more_is_better: bool, share: bool = False) -> Word:
    """The word that an interval earns: wholly outside of ± edge, wholly inside, or neither.

    >>> word(0.12, 0.3, 0.0953, more_is_better=False), word(-0.05, 0.08, 0.0953, more_is_better=False)
    ('slower', 'same')
    >>> word(0.05, 0.2, 0.0953, more_is_better=False), word(0.012, 0.05, 0.01, more_is_better=False, share=True)
    ("can't tell", 'worse')
    """
    if low > edge or high < -edge:
        words = GOOD if (low > edge) == more_is_better else BAD
        return words[share]
    if low > -edge and high < edge:
        return "same"
    return "can't tell"


def slight(low: float, high: float, *, more_is_better: bool, share: bool = False) -> Word:
    """The word for what lies within the margin: which way it surely goes, else "same".

    >>> slight(0.01, 0.05, more_is_better=False), slight(-0.01, 0.05, more_is_better=False)
    ('slightly slower', 'same')
    """
    if low <= 0 <= high:
        return "same"
    if (low > 0) == more_is_better:
        return "slightly better" if share else "slightly faster"
    return "slightly worse" if share else "slightly slower"


def runs_needed(
    effect: float, variance: float, runs: int, edge: float, tail: float = TAIL, freedom: float = math.inf
) -> int | None:
    """About how many runs a side settle four comparisons of five whose true effect is the one measured here.

    Settled is where the interval lies on one side of the edges: with the number of runs it gets narrower, Student's
    quantile smaller, and the estimate steadier.

    Args:
        effect, variance: Of these runs.
        runs: How many they are a side.
        edge: Of the margin.
        tail: Of the interval.
        freedom: Degrees of freedom of the variance; so few make it likely to be too small.

    >>> runs_needed(0.02, 0.002, 5, 0.0953), runs_needed(0.25, 0.002, 1, 0.0953)
    (15, 2)
    """
    unit = variance * runs
    if freedom < math.inf:
        # The mean of a variance that is known by few values, over that by many (an inverse chi-squared's).
        unit *= freedom / (freedom - 2) if freedom > 3 else 3.0

    def settles(many: int) -> bool:
        """Whether the interval of this many runs lies on one side of the edges often enough."""
        spread = math.sqrt(unit / many)
        half = student(freedom * many / runs, tail) * spread
        estimate = NormalDist(effect, spread or 1e-12)
        settled = estimate.cdf(-edge - half) + 1 - estimate.cdf(edge + half)
        if half < edge:
            settled += estimate.cdf(edge - half) - estimate.cdf(half - edge)
        return settled >= _SETTLED

    # Half as many more each time, then bisection: each look costs a quantile of Student's.
    few, many = runs, runs + 1
    while not settles(many):
        few, many = many, math.ceil(many * 1.5)
        if many > _MOST_RUNS:
            return _MOST_RUNS
    while many - few > 1:
        middle = (few + many) // 2
        if settles(middle):
            many = middle
        else:
            few = middle
    return many


def withheld(verdict: Verdict, reason: str) -> Verdict:
    """The same figures without a verdict: what a red gate does."""
    return replace(verdict, word="no verdict", runs_needed=None, note=reason)
