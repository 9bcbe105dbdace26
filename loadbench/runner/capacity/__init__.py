"""The highest load within an SLO: found by doubling and bisection, each load measured until an interval decides.

grid.py      the loads, and which one is tried next: a pure function of what was tried
rule.py      how many requests decide, by Wilson's intervals at a few fixed sizes
backlog.py   open loop: whether each request waits longer than the one before
probe.py     one load while it is measured: from its requests to a verdict
search.py    the schedule of a run: it asks the grid, gives levels, and keeps every step in run.json
words.py     a step and an answer as a person reads them
"""

from loadbench.runner.capacity.grid import Grid
from loadbench.runner.capacity.rule import Rule
from loadbench.runner.capacity.search import Search, begun, check, grid_of, level_of, searching
from loadbench.runner.capacity.words import line

__all__ = ["Grid", "Rule", "Search", "begun", "check", "grid_of", "level_of", "line", "searching"]
