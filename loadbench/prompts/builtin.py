"""The prompts for when nobody says what to ask."""

from __future__ import annotations

from loadbench.prompts.prompt import Prompt


def _default() -> tuple[Prompt, ...]:
    texts = {
        "capital": "What is the capital of Portugal, and on which river does it lie?",
        "haiku": "Write a haiku about a train that leaves a station at dawn.",
        "translate": "Translate into French: The library opens at nine and closes at six, except on Sundays.",
        "list": "List five vegetables that grow well in a shady garden, with one line of advice for each.",
        "explain": "Explain to a ten-year-old why the sky is blue and why sunsets are red.",
        "code": "Write a Python function that returns the second largest number of a list, and say how it treats "
        "duplicates.",
        "email": "Write a short, polite email that asks a supplier to confirm the delivery date of order 4711, which "
        "was due last Friday, and that offers two time slots for a call this week.",
        "compare": "Compare a bicycle and a bus for a commute of six kilometres in a hilly town. Consider cost, time, "
        "weather and health, and end with a recommendation.",
        "sort": "A warehouse holds 120 boxes. 45 are shipped on Monday, 30 arrive on Tuesday, and a third of the rest "
        "is shipped on Wednesday. How many boxes are left? Show each step.",
        "classify": 'Is the mood of this review positive, negative or mixed? Say why in one sentence. "The battery '
        'lasts for days and the screen is bright, but the speaker crackles and the support team never answered."',
        "recipe": "I have rice, two eggs, an onion, frozen peas and soy sauce. Suggest a dinner for two people, with "
        "the steps in order and the time each one takes.",
        "summary": "Summarise in two sentences: Rivers carry sediment from the mountains to the sea. Where the current "
        "slows, at a river mouth, the sediment settles and builds a delta. A delta grows as long as the river brings "
        "more than waves and tides take away. Dams upstream hold the sediment back, so many deltas now shrink, and the "
        "towns built on them sink while the sea rises.",
    }
    return tuple(Prompt(name, ({"role": "user", "content": text},), group="built-in") for name, text in texts.items())


DEFAULT: tuple[Prompt, ...] = _default()
"""Twelve short prompts of 10 to 80 words, for when nobody says what to ask."""
