"""Which model to ship: needs, the Pareto front, a weighted rank, and how firm it is. Pure functions but for `read`.

    runs = [select.read(folder) for folder in folders]
    record = select.choose(select.candidates(runs), runs, select.Terms(needs=[select.Need.parse("memory<4GB")]))

candidates.py  run folders with their scores; each model on each device at each server, over all runs
needs.py       each candidate's figures at a load, and how sure it is that they meet the needs
rank.py        what counts and how much, the Pareto front, the rank, how often the winner stays, what would change it
basis.py       a load, who is left at it, the rank, and what speaks against it
choice.py      all of it as one record; models.json, for a scenario or a router to read
docs/select.md says why it is reckoned so.
"""

from loadbench.scenario.bounds import Need
from loadbench.select.basis import Terms
from loadbench.select.candidates import Candidate, Measured, candidates, read
from loadbench.select.choice import Record, choose, summarise, summary, updated
from loadbench.select.needs import COMPARED
from loadbench.select.rank import DRAWS, NAMES, Policy, policy

__all__ = [
    "COMPARED",
    "DRAWS",
    "NAMES",
    "Candidate",
    "Measured",
    "Need",
    "Policy",
    "Record",
    "Terms",
    "candidates",
    "choose",
]
__all__ += ["policy", "read", "summarise", "summary", "updated"]
