"""Two runs, or two groups of runs: which is faster, and how sure that is (METRICS.md §5). Pure functions.

    base, new = (compare.sides([store.read(path)]) for path in (before, after))
    for one, other in compare.matched(base, new):
        doubts = compare.differences(…) + compare.between(one, other)
        verdicts = compare.judge(one, other, margin=0.1)

sides.py        levels of one side, run by run, from run folders
figures.py      the metrics that a verdict can be about
estimates.py    how much each kind of metric changed, with its doubt
verdict.py      how much runs differ; the word that an interval earns, and how many runs it takes
judging.py      the verdicts of a level, and of a metric over levels
differences.py  what makes sides incomparable
record.py       runs that count as one side, and the whole comparison as plain values

    record = compare.compare_runs(compare.gather([run, …]), compare.gather([other, …]), compare.Terms(margin=0.05))
docs/statistics.md has each formula in words and the simulation that checks it.
"""

from loadbench.compare.differences import NAMES, Difference, between, differences
from loadbench.compare.figures import DEFAULT, OF_MODELS, Figure, figure
from loadbench.compare.judging import judge, judge_levels, means, over_levels
from loadbench.compare.record import Group, Terms, compare_models, compare_runs, document, gather, summarise
from loadbench.compare.sides import Flow, Lap, Outcomes, Side, against, interleaved, lap, matched, sides
from loadbench.compare.verdict import BAD, MARGIN, SHARE_MARGIN, Verdict, withheld

__all__ = [
    "BAD",
    "DEFAULT",
    "MARGIN",
    "NAMES",
    "OF_MODELS",
    "SHARE_MARGIN",
    "Difference",
    "Figure",
    "Flow",
    "Group",
    "Lap",
    "Outcomes",
    "Side",
    "Terms",
    "Verdict",
    "against",
    "between",
    "compare_models",
    "compare_runs",
    "differences",
    "document",
    "figure",
    "gather",
    "interleaved",
    "judge",
    "judge_levels",
    "lap",
    "matched",
    "means",
    "over_levels",
    "sides",
    "summarise",
    "withheld",
]
