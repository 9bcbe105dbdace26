"""What is asked: prompts from a file, from texts, made up or built in; their order; a unique prefix against caches.

prompt.py     a prompt; order, unique prefixes, the next turn of a conversation; texts of given lengths
reading.py    files of several formats, and a sample of a large one
trace.py      recorded traffic
workload.py   the prompts of a scenario
"""

from loadbench.prompts.prompt import (
    DEFAULT,
    UNKNOWN,
    Line,
    Prompt,
    Recipe,
    answered,
    distinct,
    fit,
    order,
    with_system,
)
from loadbench.prompts.reading import from_texts, read, to_json
from loadbench.prompts.workload import calibration, for_scenario, longest_in_tokens, made_up, written

__all__ = [
    "DEFAULT",
    "UNKNOWN",
    "Line",
    "Prompt",
    "Recipe",
    "answered",
    "calibration",
    "distinct",
    "fit",
    "for_scenario",
    "from_texts",
    "longest_in_tokens",
    "made_up",
    "order",
    "read",
    "to_json",
    "with_system",
    "written",
]
