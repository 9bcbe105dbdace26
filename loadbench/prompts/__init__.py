"""What is asked: prompts from a file, from texts, made up or built in; their order; a unique prefix against caches.

prompt.py     a prompt; order, unique prefixes, the next turn of a conversation
reading.py    files of several formats
shapes.py     what a row of them asks: the keys of data sets and tools
draw.py       a sample of a large file
recipe.py     texts of wanted lengths, and how a server counts them
trace.py      recorded traffic
workload.py   the prompts of a scenario
builtin.py    those for when nobody says what to ask
"""

from loadbench.prompts.builtin import DEFAULT
from loadbench.prompts.prompt import Prompt, answered, distinct, order, with_system
from loadbench.prompts.reading import from_texts, read, to_json
from loadbench.prompts.recipe import UNKNOWN, Line, Recipe, fit
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
