"""The verdicts of one level, and over several levels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from loadbench import stats
from loadbench.compare.estimates import mean, mean_of, percentile, rate, share, typical
from loadbench.compare.figures import DEFAULT, Figure, figure
from loadbench.compare.sides import Lap, Side, interleaved
from loadbench.compare.verdict import (
    MARGIN,
    QUIET,
    SHARE_MARGIN,
    Evidence,
    Finding,
    Runs,
    Verdict,
    Word,
    moderated,
    runs_needed,
    slight,
    word,
)
from loadbench.stats import TAIL, Bounds, Estimate

_At = Callable[[float], Finding | None]
"""What was found of a metric, with its interval at a tail."""


def judge(
    base: Side,
    new: Side,
    metrics: Sequence[str] = DEFAULT,
    *,
    margin: float = MARGIN,
    share_margin: float = SHARE_MARGIN,
) -> list[Verdict]:
    """One verdict a metric that was measured on both sides, in their order: `judge_levels` of one level."""
    return judge_levels([(base, new)], metrics, margin=margin, share_margin=share_margin)[0]


def judge_levels(
    levels: Sequence[tuple[Side, Side]],
    metrics: Sequence[str] = DEFAULT,
    *,
    margin: float = MARGIN,
    share_margin: float = SHARE_MARGIN,
) -> list[list[Verdict]]:
    """For each level one verdict a metric that was measured on both sides, in their order.

    Of the verdicts of a level one is wrong in 5 % of comparisons at most (Holm over those that can be judged). How much
    runs differ is what all levels and metrics say of it together (`spread.moderated`).

    Args:
        levels: The same level of both sides, BASE and NEW; all of the same runs.
        metrics: Names as `figures.figure` reads them.
        margin: A ratio within 1 + margin either way is the same.
        share_margin: A difference of shares within it is the same.

    Raises:
        UsageError: If a metric is unknown.
    """
    wanted = [figure(name) for name in dict.fromkeys(metrics)]
    rows = [(base, new, one, _found_at(one, base, new)) for base, new in levels for one in wanted]
    runs = [_with_repeats(one, base, new, at(TAIL)) for base, new, one, at in rows]
    doubts = moderated(runs)
    found: list[list[Verdict]] = []
    for number, (base, new) in enumerate(levels):
        some = slice(number * len(wanted), (number + 1) * len(wanted))
        known: dict[Figure, _At] = {}
        for (*_, one, at), own, doubt in zip(rows[some], runs[some], doubts[some], strict=True):
            if at(TAIL) is not None:
                known[one] = _doubted(at, own, doubt)
        limits = {one: share_margin if one.kind == "share" else margin for one in known}
        tails = _holm(known, limits)
        found.append(
            [
                _worded(one, at, base.runs, new.runs, limits[one], tails[one], one.unit, len(levels), _lost(base, new))
                for one, at in known.items()
            ]
        )
    return found


def over_levels(verdicts: Sequence[Verdict]) -> Verdict | None:
    """The geometric mean of one metric's ratios over several levels: `means` of one metric."""
    return means([verdicts])[0]


def means(metrics: Sequence[Sequence[Verdict]]) -> list[Verdict | None]:
    """For each metric the geometric mean of its ratios over several levels, with its interval and its word.

    Levels of one run share its machine. Where runs took turns and every level has as many, the mean is taken run by
    run; of other runs the levels count as if they rose and fell together, which is the worst that they can do. With one
    run a side what varies within a level is the level's own, and levels count as independent in it; by how much runs
    differ, as a closing level shows it, they count as rising and falling together. None of shares, of several metrics,
    of fewer than two levels, or without intervals.
    """
    rows = [_mean_at(verdicts) for verdicts in metrics]
    runs = [None if at is None else _runs_of(at(TAIL)) for at in rows]
    levels = [[v.evidence.runs for v in verdicts if v.evidence and v.evidence.runs] for verdicts in metrics]
    doubts = iter(moderated([*runs, *itertools.chain.from_iterable(levels)]))
    of_means = [next(doubts) for _ in runs]
    known: dict[Figure, _At] = {}
    for verdicts, at, own, doubt, each in zip(metrics, rows, runs, of_means, levels, strict=True):
        of_levels = [next(doubts) for _ in each]
        if at is None:
            continue
        name = figure(verdicts[0].metric)
        if own is not None and own.freedom:
            known[name] = _doubted(at, own, doubt)
        elif len(each) == len(verdicts) and _of_one_run(verdicts):
            known[name] = _doubted(at, each[0], _shared_by_levels(each, of_levels))
        else:
            known[name] = at
    limits = {figure(verdicts[0].metric): verdicts[0].margin for verdicts in metrics if verdicts}
    tails = _holm(known, limits)
    found: list[Verdict | None] = []
    for verdicts, row in zip(metrics, rows, strict=True):
        if row is None:
            found.append(None)
            continue
        one = figure(verdicts[0].metric)
        fewest = (min(v.runs_base for v in verdicts), min(v.runs_new for v in verdicts))
        found.append(_worded(one, known[one], *fewest, limits[one], tails[one], "", 1, ("", "")))
    return found


def _of_one_run(verdicts: Sequence[Verdict]) -> bool:
    return all(min(v.runs_base, v.runs_new) < 2 for v in verdicts)


def _shared_by_levels(runs: Sequence[Runs], doubts: Sequence[Estimate | None]) -> Estimate | None:
    """The mean over the levels of one run a side, whose closing level says how much runs differ.

    What varies within a level is the level's own, and averages out. By what runs differ, they may differ in all their
    levels alike: that part does not average out.

    Returns:
        None where no level knows how much runs differ.
    """
    known = [doubt for doubt in doubts if doubt is not None]
    if len(known) < len(runs):
        return None
    within = [(one.within or 0.0) * one.part for one in runs]
    between = [math.sqrt(max(doubt.variance - own, 0.0)) for doubt, own in zip(known, within, strict=True)]
    count = len(runs)
    shared = (math.fsum(between) / count) ** 2
    variance = math.fsum(within) / count**2 + shared
    # Welch and Satterthwaite: only the part between runs rests on few values.
    freedom = min(doubt.freedom for doubt in known) * (variance / shared) ** 2 if shared else math.inf
    return Estimate(mean_of([doubt.value for doubt in known]), variance, freedom)


def _runs_of(finding: Finding | None) -> Runs | None:
    return None if finding is None else finding.runs


def _found_at(one: Figure, base: Side, new: Side) -> _At:
    pairs = interleaved(base, new)

    @cache
    def at(tail: float) -> Finding | None:
        match one.kind:
            case "typical":
                return typical(one.metric, base, new, pairs, tail)
            case "percentile":
                return percentile(one.metric, one.p or 0.5, base, new, pairs, tail)
            case "mean":
                return mean(one.metric, base, new, pairs, tail)
            case "rate":
                return rate(one.metric, base, new, pairs, tail)
            case "share":
                return share(one.metric, base, new, tail)

    return at


def _with_repeats(one: Figure, base: Side, new: Side, finding: Finding | None) -> Runs | None:
    """What the runs say of how much runs differ.

    Of one run a side it is what the same level says that was measured at another time: at the end of the run, and in
    earlier runs.
    """
    runs = _runs_of(finding)
    if runs is None or runs.freedom:
        return runs
    groups: list[tuple[Side, Sequence[Lap]]] = []
    for side in (base, new):
        groups += [(side, (lap, lap.again)) for lap in side.laps if lap.again is not None]
    # How they differ among themselves, not from this run: a server that changed since is what is to be found.
    known = {lap.run: lap for side in (base, new) for lap in side.earlier}
    groups.append((base, list(known.values())))
    residuals: list[float] = []
    freedom = 0
    for side, laps in groups:
        effects = _effects(one, side, laps)
        if len(effects) > 1:
            centre = mean_of(effects)
            residuals.extend(effect - centre for effect in effects)
            freedom += len(effects) - 1
    return replace(runs, residuals=tuple(residuals), freedom=freedom)


def _effects(one: Figure, side: Side, laps: Sequence[Lap]) -> list[float]:
    """The logarithm of the figure of each over that of the first."""
    effects: list[float] = []
    for lap in laps:
        pair = [replace(side, laps=(each,), earlier=()) for each in (laps[0], lap)]
        found = _found_at(one, *pair)(TAIL)
        if found is not None and found.effect is not None and math.isfinite(found.effect):
            effects.append(found.effect)
    return effects


def _doubted(at: _At, runs: Runs | None, doubt: Estimate | None) -> _At:
    """The same with the interval of what is known of the differences between runs, where something is."""
    if doubt is None or runs is None:
        return at

    def with_runs(tail: float) -> Finding | None:
        finding = at(TAIL)
        if finding is None:
            return None
        half = stats.student(doubt.freedom, tail) * math.sqrt(doubt.variance)
        method = finding.method
        if method.startswith("within one run a side") or method.endswith("as if independent"):
            method = f"{method}, and how much runs differ"
        return replace(
            finding,
            low=doubt.value - half,
            high=doubt.value + half,
            freedom=doubt.freedom,
            method=method,
            note="",
            runs=runs,
        )

    return with_runs


def _holm(known: Mapping[Figure, _At], limits: Mapping[Figure, float]) -> dict[Figure, float]:
    """The tail at which each is judged: the 5 % are shared by those that are still open (Holm 1979).

    All at once have TAIL/m. Those that have a word by that leave their part to the others, step by step.
    """
    judged = [one for one, at in known.items() if _bounds(at(TAIL)) is not None]
    tails = dict.fromkeys(known, TAIL / max(len(judged), 1))
    while judged:
        tail = TAIL / len(judged)
        left = []
        for one in judged:
            tails[one] = tail
            if _word_of(one, _bounds(known[one](tail)), limits[one]) == "can't tell":
                left.append(one)
        if len(left) == len(judged):
            break
        judged = left
    return tails


def _bounds(finding: Finding | None) -> Bounds | None:
    if finding is None or finding.low is None or finding.high is None:
        return None
    return finding.low, finding.high


def _worded(
    one: Figure,
    at: _At,
    runs_base: int,
    runs_new: int,
    margin: float,
    tail: float,
    unit: str,
    levels: int,
    lost: tuple[str, str],
) -> Verdict:
    finding = at(tail)
    assert finding is not None
    is_share = one.kind == "share"
    bounds = _bounds(finding)
    said, needed, note = _word_of(one, bounds, margin), None, finding.note
    if said == "same":
        # Which way it goes within the margin is said of any of all levels wrongly in 5 % at most.
        sure = _bounds(at(tail / levels))
        said = said if sure is None else slight(*sure, more_is_better=one.more_is_better, share=is_share)
    if said == "can't tell" and bounds is not None and finding.effect is not None and math.isfinite(finding.effect):
        needed = _runs_needed(finding, bounds, min(runs_base, runs_new), _edge(one, margin), tail, is_share)
    if one.kind in ("typical", "mean") or one.metric == "itl":
        # Their figures are of what completed: that of a side which fails more is no better than it looks.
        for why, good in zip(lost, ("slower", "faster"), strict=True):
            if why and said not in (good, "can't tell"):
                said, needed, note = "can't tell", None, why
    low, high = bounds or (None, None)
    return Verdict(
        metric=one.name,
        unit=unit,
        base=finding.base,
        new=finding.new,
        ratio=None if is_share else _exp(finding.effect),
        low=low if is_share else _exp(low),
        high=high if is_share else _exp(high),
        word=said,
        runs_needed=needed,
        method=finding.method,
        n_base=finding.n_base,
        n_new=finding.n_new,
        runs_base=runs_base,
        runs_new=runs_new,
        margin=margin,
        confidence=1 - 2 * tail,
        by_run=tuple(math.exp(effect) for effect in finding.by_run),
        outliers_base=finding.outliers_base,
        outliers_new=finding.outliers_new,
        p_value=finding.p_value,
        note=note,
        paired=finding.paired,
        evidence=Evidence(lambda other: _bounds(at(other)), finding.runs),
    )


def _runs_needed(finding: Finding, bounds: Bounds, runs: int, edge: float, tail: float, is_share: bool) -> int | None:
    """How many runs a side, with the doubt of the verdict; of one run, runs are supposed to differ a little too."""
    half = (bounds[1] - bounds[0]) / 2
    if not math.isfinite(half):
        return None
    variance = (half / stats.student(finding.freedom, tail)) ** 2
    if finding.freedom == math.inf and not is_share:
        variance += 2 * QUIET**2 / runs
    return runs_needed(finding.effect or 0.0, variance, runs, edge, tail, finding.freedom)


def _lost(base: Side, new: Side) -> tuple[str, str]:
    """Why NEW may not be called better by what completed, and why BASE may not: it fails more; "" where it does not."""
    shares = [_unanswered(side) for side in (base, new)]
    text = (
        f"{100 * shares[0]:.3g} % of BASE and {100 * shares[1]:.3g} % of NEW failed or were dropped: they have no end"
    )
    return text if shares[1] > shares[0] + SHARE_MARGIN else "", text if shares[0] > shares[1] + SHARE_MARGIN else ""


def _unanswered(side: Side) -> float:
    """Share of the requests that were due that failed or were dropped."""
    lost = sum(int(np.isinf(lap.due_values["e2e"]).sum()) for lap in side.laps if lap.due_values)
    due = sum(len(lap.due_values["e2e"]) if lap.due_values else len(lap.prompts) for lap in side.laps)
    return lost / due if due else 0.0


def _edge(one: Figure, margin: float) -> float:
    return margin if one.kind == "share" else math.log1p(margin)


def _word_of(one: Figure, bounds: Bounds | None, margin: float) -> Word:
    if bounds is None:
        return "can't tell"
    return word(*bounds, _edge(one, margin), more_is_better=one.more_is_better, share=one.kind == "share")


def _exp(log: float | None) -> float | None:
    return None if log is None else math.exp(log)


def _mean_at(verdicts: Sequence[Verdict]) -> _At | None:
    """The mean over levels, with its interval at a tail."""
    if len(verdicts) < 2 or len({verdict.metric for verdict in verdicts}) > 1:
        return None
    evidence = [v.evidence for v in verdicts if v.evidence is not None and v.low is not None]
    if len(evidence) < len(verdicts) or any(v.ratio is None or not 0 < v.ratio < math.inf for v in verdicts):
        return None
    effect = mean_of([math.log(v.ratio or 1.0) for v in verdicts])
    n = len(verdicts)
    by_run, runs = _run_by_run(verdicts)

    def at(tail: float) -> Finding | None:
        known = [bounds for bounds in (one.bounds(tail) for one in evidence) if bounds is not None]
        if runs is not None:
            low, high, how = None, None, "run by run"
        elif len(known) < n:
            low, high, how = None, None, "of which one has no interval"
        elif _of_one_run(verdicts):
            effects = [math.log(v.ratio or 1.0) for v in verdicts]
            low, high = stats.mover(effects, known, [1 / n] * n)
            how = "as if independent"
        else:
            low, high = (mean_of(ends) for ends in zip(*known, strict=True))
            how = "as if they rose and fell together"
        comma = ", " if how.startswith(("run", "of")) else " "
        return Finding(
            base=None,
            new=None,
            effect=effect,
            low=low,
            high=high,
            method=f"geometric mean of {n} levels{comma}{how}",
            n_base=sum(v.n_base for v in verdicts),
            n_new=sum(v.n_new for v in verdicts),
            by_run=by_run,
            paired=bool(by_run),
            runs=runs,
        )

    return at


def _run_by_run(verdicts: Sequence[Verdict]) -> tuple[tuple[float, ...], Runs | None]:
    """The mean over levels of each pair of runs; nothing where they are no pairs, or not equally many."""
    runs = [v.evidence.runs for v in verdicts if v.evidence is not None and v.evidence.runs is not None]
    if len(runs) < len(verdicts) or not all(v.paired for v in verdicts) or len({one.freedom for one in runs}) > 1:
        return (), None
    effect = mean_of([one.effect for one in runs])
    residuals = tuple(mean_of(each) for each in zip(*(one.residuals for one in runs), strict=True))
    within = [one.within for one in runs if one.within is not None]
    mean_within = math.fsum(within) / len(runs) ** 2 if len(within) == len(runs) else None
    by_run = tuple(effect + residual for residual in residuals)
    return by_run, replace(runs[0], effect=effect, within=mean_within, residuals=residuals)
