"""Two runs, or two groups of runs: which is faster, and how sure that is (docs/statistics.md). Pure functions.

    record = compare.compare_runs(compare.gather([run, …]), compare.gather([other, …]), compare.Terms(margin=0.05))

sides.py        levels of one side, run by run, from run folders
verdict.py      the metrics, the word that an interval earns, how many runs it takes, how much runs differ
estimates.py    how much each kind of metric changed, with its doubt
judging.py      the verdicts of a level, and of a metric over levels
differences.py  what makes sides incomparable
record.py       runs that count as one side, and the whole comparison as plain values
"""

from loadbench.compare.differences import MEANT, NAMES, Difference, between, differences
from loadbench.compare.judging import judge_levels, means
from loadbench.compare.record import Group, Terms, compare_models, compare_runs, document, gather, summary
from loadbench.compare.sides import Flow, Lap, Outcomes, Side, against, interleaved, matched, sides
from loadbench.compare.verdict import BAD, DEFAULT, MARGIN, OF_MODELS, SHARE_MARGIN, Verdict, figure, withheld

__all__ = [
    "BAD",
    "DEFAULT",
    "MARGIN",
    "MEANT",
    "NAMES",
    "OF_MODELS",
    "SHARE_MARGIN",
    "Difference",
    "Flow",
    "Group",
    "Lap",
]
__all__ += ["Outcomes", "Side", "Terms", "Verdict", "against", "between", "compare_models", "compare_runs"]
__all__ += ["differences", "document", "figure", "gather", "interleaved", "judge_levels", "matched", "means", "sides"]
__all__ += ["summary", "withheld"]
