"""A judge model scores the answers of a run, over any OpenAI endpoint: 1 to 5 for each expected aspect and overall.

Each answer is judged alone, so that there is no order of answers to balance. docs/quality.md has the limits.

rubric.py    what the judge is told
verdict.py   its reply, read strictly
court.py     case after case, with retries, tokens and cost
"""

from loadbench.quality.judge.court import Ask, Court, Prices, to_come
from loadbench.quality.judge.rubric import Case, cases

__all__ = ["Ask", "Case", "Court", "Prices", "cases", "to_come"]
