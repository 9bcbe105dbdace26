"""How good the answers are, beside how fast they came: rules, scores by people or by a judge model, agreement.

docs/quality.md says how to score a run and what each figure means. All of it is computed from the run folder.

    answers.py    the answers that a run kept and their questions; the same asked twice
    scores.py     scores.jsonl; raters who scored the same answers
    checks.py     rules that a prompt declares
    sheet.py      sheets that people fill in
    judge.py      a judge model
    summary.py    scores.json
"""

from loadbench.quality.answers import Answer, Question, Scored, read, read_questions
from loadbench.quality.scores import Score, append
from loadbench.quality.scores import read as read_scores
from loadbench.quality.summary import FILE, Summary, summarise

__all__ = ["FILE", "Answer", "Question", "Score", "Scored", "Summary", "append", "read", "read_questions"]
__all__ += ["read_scores", "summarise"]
