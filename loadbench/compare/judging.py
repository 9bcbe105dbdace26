"""The verdicts of one level, and over several levels."""

from __future__ import annotations

import math
from collections.abc import Sequence

from loadbench import intervals
from loadbench.compare.figures import DEFAULT, Figure, figure
from loadbench.compare.flows import mean, rate
from loadbench.compare.inference import mean_of
from loadbench.compare.outcomes import share
from loadbench.compare.percentiles import percentile
from loadbench.compare.side import Side, interleaved
from loadbench.compare.typical import typical
from loadbench.compare.verdict import (
    MARGIN,
    SHARE_MARGIN,
    Finding,
    Verdict,
    Word,
    runs_needed,
    runs_needed_by_run,
    word,
)
from loadbench.intervals import TAIL


def judge(
    base: Side,
    new: Side,
    metrics: Sequence[str] = DEFAULT,
    *,
    margin: float = MARGIN,
    share_margin: float = SHARE_MARGIN,
) -> list[Verdict]:
    """One verdict a metric that was measured on both sides, in their order.

    Each interval misses 5 % over as many metrics as can be judged (Bonferroni), so that all of them together hold 95 %.

    Args:
        base, new: The same level of both sides.
        metrics: Names as `figures.figure` reads them.
        margin: A ratio within 1 + margin either way is the same.
        share_margin: A difference of shares within it is the same.

    Raises:
        UsageError: If a metric is unknown.
    """
    wanted = [figure(name) for name in dict.fromkeys(metrics)]
    pairs = interleaved(base, new)
    first = {one: _find(one, base, new, pairs, TAIL) for one in wanted}
    judged = sum(finding is not None and finding.low is not None for finding in first.values())
    tail = TAIL / max(judged, 1)
    verdicts = []
    for one, finding in first.items():
        adjusted = finding if finding is None or finding.low is None else _find(one, base, new, pairs, tail)
        if adjusted is not None:
            limit = share_margin if one.kind == "share" else margin
            verdicts.append(_worded(one, adjusted, base.runs, new.runs, limit, tail, one.unit))
    return verdicts


def over_levels(verdicts: Sequence[Verdict]) -> Verdict | None:
    """The geometric mean of one metric's ratios over several levels, with its interval and its word.

    Levels of one run share its machine. Where runs took turns and every level has as many, the mean is taken run by
    run; of other runs the levels count as if they rose and fell together, which is the worst that they can do. With one
    run a side the intervals are of what varies within a level, and levels count as independent. None of shares, of
    several metrics, of fewer than two levels, or without intervals.
    """
    first = verdicts[0] if verdicts else None
    if first is None or len(verdicts) < 2 or len({verdict.metric for verdict in verdicts}) > 1:
        return None
    known = [v for v in verdicts if v.ratio is not None and v.low is not None and v.high is not None]
    if len(known) < len(verdicts):
        return None
    effects = [math.log(v.ratio or 1.0) for v in known]
    tail = (1 - max(v.confidence for v in known)) / 2
    by_run = _by_run(known)
    sample = intervals.one_sample([math.log(ratio) for ratio in by_run])
    if sample is not None:
        half = intervals.student(sample.freedom, tail) * math.sqrt(sample.variance)
        low, high = sample.value - half, sample.value + half
        method = f"geometric mean of {len(known)} levels, run by run"
    else:
        bounds = [(math.log(v.low or 0.0), math.log(v.high or 0.0)) for v in known]
        if all(min(v.runs_base, v.runs_new) < 2 for v in known):
            low, high = intervals.mover(effects, bounds, [1 / len(known)] * len(known))
            method = f"geometric mean of {len(known)} levels as if independent"
        else:
            low, high = (mean_of(ends) for ends in zip(*bounds, strict=True))
            method = f"geometric mean of {len(known)} levels as if they rose and fell together"
    effect = mean_of(effects)
    totals = _totals(known)
    logs = tuple(map(math.log, by_run))
    finding = Finding(None, None, effect, low, high, method, *totals, logs, paired=bool(logs))
    one = figure(first.metric)
    return _worded(
        one, finding, min(v.runs_base for v in known), min(v.runs_new for v in known), first.margin, tail, ""
    )


def _find(one: Figure, base: Side, new: Side, pairs: bool, tail: float) -> Finding | None:
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


def _worded(
    one: Figure, finding: Finding, runs_base: int, runs_new: int, margin: float, tail: float, unit: str
) -> Verdict:
    is_share = one.kind == "share"
    edge = margin if is_share else math.log1p(margin)
    low, high, effect = finding.low, finding.high, finding.effect
    said, needed = _word_of(one, low, high, edge), None
    if said == "can't tell" and effect is not None and low is not None and high is not None:
        needed = (
            runs_needed_by_run(finding.by_run, edge, tail)
            if len(finding.by_run) > 1
            else runs_needed(effect, low, high, edge, min(runs_base, runs_new))
        )
    return Verdict(
        metric=one.name,
        unit=unit,
        base=finding.base,
        new=finding.new,
        ratio=None if is_share else _exp(effect),
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
        note=finding.note,
        paired=finding.paired,
    )


def _word_of(one: Figure, low: float | None, high: float | None, edge: float) -> Word:
    if low is None or high is None:
        return "can't tell"
    return word(low, high, edge, more_is_better=one.more_is_better, share=one.kind == "share")


def _exp(log: float | None) -> float | None:
    return None if log is None else math.exp(log)


def _by_run(verdicts: Sequence[Verdict]) -> list[float]:
    """The geometric mean over levels of each pair of runs; empty where they are no pairs, or not equally many."""
    runs = {len(v.by_run) for v in verdicts}
    if not all(v.paired for v in verdicts) or len(runs) > 1 or not runs or max(runs) < 2:
        return []
    return [math.exp(mean_of([math.log(v.by_run[i]) for v in verdicts])) for i in range(max(runs))]


def _totals(verdicts: Sequence[Verdict]) -> tuple[int, int]:
    return sum(v.n_base for v in verdicts), sum(v.n_new for v in verdicts)
