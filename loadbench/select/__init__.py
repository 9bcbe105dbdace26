"""Which model to ship: needs, the Pareto front, a weighted rank, and how firm it is. Pure functions but for `read`.

    found = [select.read(folder) for folder in folders]
    record = select.choose(select.candidates(found), found, select.Terms(needs=[select.Need.parse("memory<4GB")]))

reading.py    run folders, with their scores
candidate.py  each model on each device at each server, over all runs
load.py       the load at which they are held against each other
figure.py     one figure over several runs
values.py     each candidate's figures at a load
need.py       hard needs, and how sure it is that they are met
weights.py    what counts and how much
pareto.py rank.py robust.py   the front, the rank, how often the winner stays
change.py     what would change it
doubts.py     what speaks against it
choice.py     all of it as one record
catalogue.py  models.json, for a scenario or a router to read
docs/select.md says why it is reckoned so.
"""

from loadbench.bounds import Need
from loadbench.select.candidate import Candidate, Measured, candidates
from loadbench.select.catalogue import updated
from loadbench.select.choice import Record, Terms, choose
from loadbench.select.figure import COMPARED, Figure
from loadbench.select.need import Met
from loadbench.select.reading import of_runs, read, summarise
from loadbench.select.weights import NAMES, Policy, policy

__all__ = [
    "COMPARED",
    "NAMES",
    "Candidate",
    "Figure",
    "Measured",
    "Met",
    "Need",
    "Policy",
    "Record",
    "Terms",
    "candidates",
    "choose",
    "of_runs",
    "policy",
    "read",
    "summarise",
    "updated",
]
