"""The verdicts of one level, and over several levels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain, islice

import numpy as np

from loadbench import stats
from loadbench.compare.estimates import ESTIMATORS, Change, mean_of
from loadbench.compare.sides import Lap, Side
from loadbench.compare.verdict import (
    DEFAULT,
    MARGIN,
    QUIET,
    SHARE_MARGIN,
    Figure,
    Runs,
    Verdict,
    Word,
    figure,
    moderated,
    runs_needed,
    slight,
    word,
)
from loadbench.stats import TAIL, Bounds, Estimate

At = Callable[[float], Change | None]
"""How much a metric changed, with its interval at a tail; None where a side did not measure it."""


@dataclass(slots=True, eq=False)
class _Judged:
    """A metric on its way to its word; the margin is of the ratio, of shares of the difference."""

    figure: Figure
    at: At
    margin: float
    tail: float = TAIL

    @property
    def is_share(self) -> bool:
        return self.figure.kind == "share"

    @property
    def edge(self) -> float:
        return self.margin if self.is_share else math.log1p(self.margin)

    def bounds(self, tail: float) -> Bounds | None:
        change = self.at(tail)
        if change is None:
            return None
        return change.bounds

    def word(self, tail: float) -> Word:
        bounds = self.bounds(tail)
        if bounds is None:
            return "can't tell"
        return word(*bounds, self.edge, more_is_better=self.figure.more_is_better, share=self.is_share)


def judge_levels(
    levels: Sequence[tuple[Side, Side]],
    metrics: Sequence[str] = DEFAULT,
    *,
    margin: float = MARGIN,
    share_margin: float = SHARE_MARGIN,
) -> list[list[Verdict]]:
    """For each level one verdict a metric that was measured on both sides, in their order.

    Of the verdicts of a level one is wrong in 5 % of comparisons at most (Holm over those that can be judged). How much
    runs differ is what all levels and metrics say of it together (`verdict.moderated`).

    Args:
        levels: The same level of both sides, BASE and NEW; all of the same runs.
        metrics: Names as `verdict.figure` reads them.
        margin: A ratio within 1 + margin either way is the same.
        share_margin: A difference of shares within it is the same.

    Raises:
        UsageError: If a metric is unknown.
    """
    figures = [figure(name) for name in dict.fromkeys(metrics)]
    judged: list[list[_Judged]] = []
    runs: list[Runs | None] = []
    for base, new in levels:
        of_level = []
        for one in figures:
            found = _Judged(one, _at(one, base, new), margin)
            if found.is_share:
                found.margin = share_margin
            if found.at(TAIL) is not None:
                of_level.append(found)
                runs.append(_with_repeats(found, base, new))
        judged.append(of_level)
    # All at once: three runs of one metric alone know too little of how much runs differ.
    doubts = iter(zip(runs, moderated(runs), strict=True))
    verdicts: list[list[Verdict]] = []
    for (base, new), of_level in zip(levels, judged, strict=True):
        for found in of_level:
            found.at = _doubted(found.at, *next(doubts))
        _holm(of_level)
        lost = _lost(base, new)
        sizes = base.runs, new.runs
        verdicts.append([_worded(one, sizes, one.figure.unit, len(levels), lost) for one in of_level])
    return verdicts


def _at(one: Figure, base: Side, new: Side) -> At:
    return cache(partial(ESTIMATORS[one.kind], one, base, new))


def _with_repeats(found: _Judged, base: Side, new: Side) -> Runs | None:
    """What the runs say of how much runs differ.

    Of one run a side it is what the same level says that was measured at another time: at the end of the run, and in
    earlier runs.
    """
    change = found.at(TAIL)
    if change is None or change.runs is None:
        return None
    runs = change.runs
    if runs.freedom:  # several runs a side say it themselves
        return runs
    groups: list[tuple[Side, Sequence[Lap]]] = []
    for side in (base, new):
        groups += [(side, (lap, lap.again)) for lap in side.laps if lap.again is not None]
    # How they differ among themselves, not from this run: a server that changed since is what is to be found.
    by_run = {lap.run: lap for lap in (*base.earlier, *new.earlier)}
    groups.append((base, list(by_run.values())))
    residuals: list[float] = []
    freedom = 0
    for side, laps in groups:
        effects: list[float] = []
        for lap in laps:
            first = replace(side, laps=(laps[0],), earlier=())
            repeated = _at(found.figure, first, replace(first, laps=(lap,)))(TAIL)
            if repeated is not None and repeated.effect is not None and math.isfinite(repeated.effect):
                effects.append(repeated.effect)
        if len(effects) > 1:
            centre = mean_of(effects)
            residuals += [effect - centre for effect in effects]
            freedom += len(effects) - 1
    return replace(runs, residuals=tuple(residuals), freedom=freedom)


def _doubted(at: At, runs: Runs | None, doubt: Estimate | None) -> At:
    """The same with the interval of how much runs differ, where any run says it."""
    if doubt is None or runs is None:
        return at

    def with_runs(tail: float) -> Change | None:
        change = at(TAIL)
        if change is None:
            return None
        half = stats.student(doubt.freedom, tail) * math.sqrt(doubt.variance)
        low, high, method = doubt.value - half, doubt.value + half, change.method
        if method.startswith("within one run a side") or method.endswith("as if independent"):
            method = f"{method}, and how much runs differ"
        return replace(change, low=low, high=high, freedom=doubt.freedom, method=method, note="", runs=runs)

    return with_runs


def _holm(judged: Sequence[_Judged]) -> None:
    """The tail at which each is judged: the 5 % are shared by those that are still open (Holm 1979).

    All at once have TAIL/m. Those that have a word by that leave their part to the others, step by step.
    """
    rest = [one for one in judged if one.bounds(TAIL) is not None]
    for one in judged:
        one.tail = TAIL / max(len(rest), 1)
    while rest:
        left = []
        for one in rest:
            one.tail = TAIL / len(rest)
            if one.word(one.tail) == "can't tell":
                left.append(one)
        if len(left) == len(rest):
            return
        rest = left


def _worded(one: _Judged, runs: tuple[int, int], unit: str, levels: int, lost: tuple[str, str]) -> Verdict:
    change = one.at(one.tail)
    assert change is not None
    bounds, earned, note = change.bounds, one.word(one.tail), change.note
    needed = None
    if earned == "same":
        # Which way it goes within the margin is said of any of all levels wrongly in 5 % at most.
        sure = one.bounds(one.tail / levels)
        if sure is not None:
            earned = slight(*sure, more_is_better=one.figure.more_is_better, share=one.is_share)
    elif earned == "can't tell" and bounds is not None and all(map(math.isfinite, bounds)):
        variance = ((bounds[1] - bounds[0]) / 2 / stats.student(change.freedom, one.tail)) ** 2
        if change.freedom == math.inf and not one.is_share:
            variance += 2 * QUIET**2 / min(runs)  # of one run, runs are supposed to differ a little too
        needed = runs_needed(change.effect or 0.0, variance, min(runs), one.edge, one.tail, change.freedom)
    if one.figure.kind in ("typical", "mean") or one.figure.metric == "itl":
        # Their figures are of what completed: that of a side which fails more is no better than it looks.
        for why, good in zip(lost, ("slower", "faster"), strict=True):
            if why and earned not in (good, "can't tell"):
                earned, needed, note = "can't tell", None, why
    low, high = bounds or (None, None)
    ratio = None
    if not one.is_share:
        ratio, low, high = _exp(change.effect), _exp(low), _exp(high)
    return Verdict(
        metric=one.figure.name,
        unit=unit,
        base=change.base,
        new=change.new,
        ratio=ratio,
        low=low,
        high=high,
        word=earned,
        runs_needed=needed,
        method=change.method,
        n_base=change.n_base,
        n_new=change.n_new,
        runs_base=runs[0],
        runs_new=runs[1],
        margin=one.margin,
        confidence=1 - 2 * one.tail,
        by_run=tuple(map(math.exp, change.by_run)),
        outliers_base=change.outliers_base,
        outliers_new=change.outliers_new,
        p_value=change.p_value,
        note=note,
        paired=change.paired,
        bounds=one.bounds,
        runs=change.runs,
    )


def _exp(log: float | None) -> float | None:
    return None if log is None else math.exp(log)


def _lost(base: Side, new: Side) -> tuple[str, str]:
    """Why NEW may not be called better by what completed, and why BASE may not: it fails more; "" where it does not."""
    shares = []
    for side in (base, new):
        lost = due = 0
        for lap in side.laps:
            if lap.due_values:
                lost += int(np.isinf(lap.due_values["e2e"]).sum())
                due += len(lap.due_values["e2e"])
            else:  # all completed
                due += len(lap.prompts)
        shares.append(lost / max(due, 1))
    both = f"{100 * shares[0]:.3g} % of BASE and {100 * shares[1]:.3g} % of NEW failed or were dropped"
    text = f"{both}: they count as infinitely long"
    if shares[1] > shares[0] + SHARE_MARGIN:
        return text, ""
    if shares[0] > shares[1] + SHARE_MARGIN:
        return "", text
    return "", ""


# -- over several levels


def means(metrics: Sequence[Sequence[Verdict]]) -> list[Verdict | None]:
    """For each metric the geometric mean of its ratios over several levels, with its interval and its word.

    Levels of one run share its machine. Where runs took turns and every level has as many, the mean is taken run by
    run; of other runs the levels count as if they rose and fell together, which is the worst that they can do. With one
    run a side what varies within a level is the level's own, and levels count as independent in it; by how much runs
    differ, as a closing level shows it, they count as rising and falling together. None of shares, of several metrics,
    of fewer than two levels, or without intervals.
    """
    # What the mean of each metric says of how much runs differ, and each of its levels.
    rows, of_means = [], []
    of_levels: list[list[Runs]] = []
    for verdicts in metrics:
        at = _mean_at(verdicts)
        rows.append(at)
        of_means.append(None if at is None else at(TAIL).runs)
        of_levels.append([v.runs for v in verdicts if v.bounds is not None and v.runs is not None])
    # All are moderated together, and come back in the same order.
    doubts = moderated([*of_means, *chain.from_iterable(of_levels)])
    doubts_of_levels = iter(doubts[len(of_means) :])
    judged: list[_Judged | None] = []
    for verdicts, at, own, doubt, each in zip(metrics, rows, of_means, doubts, of_levels, strict=False):
        of_each = list(islice(doubts_of_levels, len(each)))
        if at is None:
            judged.append(None)
            continue
        one = _Judged(figure(verdicts[0].metric), at, verdicts[0].margin)
        if own is not None and own.freedom:
            one.at = _doubted(at, own, doubt)
        # One run a side: only repeats of a level say how much runs differ.
        elif len(each) == len(verdicts) and _of_one_run(verdicts):
            one.at = _doubted(at, each[0], _shared_by_levels(each, of_each))
        judged.append(one)
    _holm(list(filter(None, judged)))
    found: list[Verdict | None] = []
    for verdicts, mean in zip(metrics, judged, strict=True):
        if mean is None:
            found.append(None)
        else:
            fewest = min(v.runs_base for v in verdicts), min(v.runs_new for v in verdicts)
            found.append(_worded(mean, fewest, "", 1, ("", "")))
    return found


def _of_one_run(verdicts: Sequence[Verdict]) -> bool:
    return max(min(v.runs_base, v.runs_new) for v in verdicts) < 2


def _shared_by_levels(runs: Sequence[Runs], doubts: Sequence[Estimate | None]) -> Estimate | None:
    """The mean over the levels of one run a side, whose closing level says how much runs differ.

    What varies within a level is the level's own, and averages out. By what runs differ, they may differ in all their
    levels alike: that part does not average out.

    Returns:
        None where no level says how much runs differ.
    """
    count, fewest = len(runs), math.inf
    values, within, between = [], [], []
    for one, doubt in zip(runs, doubts, strict=True):
        if doubt is None:
            return None
        fewest = min(fewest, doubt.freedom)
        values.append(doubt.value)
        within.append((one.within or 0.0) * one.part)
        between.append(math.sqrt(max(doubt.variance - within[-1], 0.0)))
    shared = (math.fsum(between) / count) ** 2
    variance = math.fsum(within) / count**2 + shared
    freedom = math.inf
    if shared:
        # Welch and Satterthwaite: only the part between runs rests on few values.
        freedom = fewest * (variance / shared) ** 2
    return Estimate(mean_of(values), variance, freedom)


def _mean_at(verdicts: Sequence[Verdict]) -> Callable[[float], Change] | None:
    """The mean over levels, with its interval at a tail; None where a level has no ratio with an interval."""
    n, logs, intervals = len(verdicts), [], []
    n_base = n_new = 0
    for v in verdicts:
        if v.bounds is None or v.low is None or v.metric != verdicts[0].metric:
            return None
        if v.ratio is None or not 0 < v.ratio < math.inf:
            return None
        logs.append(math.log(v.ratio))
        intervals.append(v.bounds)
        n_base += v.n_base
        n_new += v.n_new
    if n < 2:
        return None
    # What a level shows of the machine in one run, the next shows too: the mean of each run takes that out.
    # Run by run, where they are pairs and equally many in every level.
    runs: Runs | None = None
    by_run: tuple[float, ...] = ()
    of_levels, residuals, within = [], [], []
    for v in verdicts:
        if v.runs is not None and v.paired:
            of_levels.append(v.runs)
            residuals.append(v.runs.residuals)
            if v.runs.within is not None:
                within.append(v.runs.within)
    if len(of_levels) == n and len(set(map(len, residuals))) == 1:
        means = tuple(map(mean_of, zip(*residuals, strict=True)))
        of_all = mean_of([one.effect for one in of_levels])
        mean_within = math.fsum(within) / n**2 if len(within) == n else None
        runs = replace(of_levels[0], effect=of_all, within=mean_within, residuals=means)
        by_run = tuple(of_all + residual for residual in means)

    def at(tail: float) -> Change:
        known = list(filter(None, (each(tail) for each in intervals)))
        low = high = None
        if runs is not None:
            how = ", run by run"
        elif len(known) < n:
            how = ", of which one has no interval"
        elif _of_one_run(verdicts):
            low, high = stats.mover(logs, known, [1 / n] * n)
            how = " as if independent"
        else:
            low, high = map(mean_of, zip(*known, strict=True))
            how = " as if they rose and fell together"
        return Change(
            base=None,
            new=None,
            effect=mean_of(logs),
            low=low,
            high=high,
            method=f"geometric mean of {n} levels{how}",
            n_base=n_base,
            n_new=n_new,
            by_run=by_run,
            paired=bool(by_run),
            runs=runs,
        )

    return at
