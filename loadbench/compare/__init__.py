"""Two runs, or two groups of runs: which is faster, and how sure that is (METRICS.md §5). Pure functions.

    base, new = (compare.sides([store.read(path)]) for path in (before, after))
    for one, other in compare.matched(base, new):
        doubts = compare.differences(…) + compare.between(one, other)
        verdicts = compare.judge(one, other, margin=0.1)

reading.py      from run folders to sides
side.py         one level of one side, run by run
figures.py      the metrics that a verdict can be about
judging.py      the verdicts of a level, and of a metric over levels
typical.py percentiles.py flows.py outcomes.py   each kind of metric: its estimate and its doubt
inference.py    from each run's logarithm to the interval of the ratio
spread.py       how much runs differ, by what all metrics and levels say of it
verdict.py      the word, and how many runs it takes
differences.py  what makes sides incomparable
group.py        runs that count as one side, and the gates that spoke against them
record.py       all of it as plain values; overall.py the word that it comes to
models.py       the models of one run against its first, for summary.json

    record = compare.compare_runs(compare.gather([run, …]), compare.gather([other, …]), compare.Terms(margin=0.05))
docs/statistics.md has each formula in words and the simulation that checks it.
"""

from loadbench.compare.differences import NAMES, Difference, between, differences
from loadbench.compare.figures import DEFAULT, OF_MODELS, Figure, figure
from loadbench.compare.group import Group, gather
from loadbench.compare.judging import judge, judge_levels, means, over_levels
from loadbench.compare.models import summarise
from loadbench.compare.reading import against, lap, matched, sides
from loadbench.compare.record import Terms, compare_models, compare_runs, document
from loadbench.compare.side import Flow, Lap, Outcomes, Side, interleaved
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
