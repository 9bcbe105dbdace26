"""How good the answers are, beside how fast they came: rules, scores by hand or by a judge, agreement, determinism.

docs/quality.md says how to score a run and what each figure means. All of it is computed from the run folder.

answers.py      the answers that a run kept, each different one once
checks.py       rules that a prompt declares, with numbers.py (numbers in a text) and shape.py (JSON and its schema)
sheet.py        sheets to fill in by hand
scores.py       the scores that were given: scores.jsonl
agreement.py    weighted kappa of two who scored the same
determinism.py  answers that differ where the same was asked
summary.py      scores.json
"""

from loadbench.quality.answers import Answer, Question, Scored, read, read_questions
from loadbench.quality.scores import Score, append, latest
from loadbench.quality.scores import read as read_scores
from loadbench.quality.summary import FILE, summarise

__all__ = [
    "FILE",
    "Answer",
    "Question",
    "Score",
    "Scored",
    "append",
    "latest",
    "read",
    "read_questions",
    "read_scores",
    "summarise",
]
