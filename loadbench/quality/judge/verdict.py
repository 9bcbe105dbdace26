"""A judge's reply, read strictly: the scores that were asked for, or none; nothing is guessed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from loadbench.quality.shape import parse
from loadbench.text import shown

_THOUGHT = re.compile(r"\s*<think>.*?</think>", re.DOTALL)


def read(reply: str, names: Sequence[str]) -> dict[str, int]:
    """The scores in a reply: one JSON object with a whole number from 1 to 5 for each name, and no other key.

    Around it may stand a code fence, and before it the thoughts that some models write between <think> tags.

    Raises:
        ValueError: It is anything else; says what, in one line.

    >>> read('{"a1": 4, "overall": 5}', ["a1", "overall"])
    {'a1': 4, 'overall': 5}
    >>> read('{"overall": "5"}', ["overall"])
    Traceback (most recent call last):
    ValueError: overall is "5": not a whole number from 1 to 5
    """
    try:
        thought = _THOUGHT.match(reply)
        value = parse(reply[thought.end() :] if thought else reply)
    except ValueError as error:
        raise ValueError(f"not JSON alone: {error}" if reply.strip() else "no text in it") from None
    if not isinstance(value, dict):
        raise ValueError(f"{shown(value)} is no JSON object")
    for name in names:
        if name not in value:
            raise ValueError(f"{name} is missing")
        score = value[name]
        if isinstance(score, bool) or not isinstance(score, int) or not 1 <= score <= 5:
            raise ValueError(f"{name} is {shown(score)}: not a whole number from 1 to 5")
    for name in value:
        if name not in names:
            raise ValueError(f"{shown(name)} was not asked for")
    return {name: value[name] for name in names}
