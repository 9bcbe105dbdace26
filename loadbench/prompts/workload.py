"""The prompts of a scenario: its texts, its file, its trace, what it wants made up, or the built-in set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from loadbench.errors import ScenarioError
from loadbench.prompts import trace
from loadbench.prompts.prompt import DEFAULT, UNKNOWN, Line, Prompt, Recipe, with_system
from loadbench.prompts.reading import MOST, Draw, Note, from_texts, read

if TYPE_CHECKING:
    from loadbench.scenario import Scenario
    from loadbench.scenario.loads import Length

MADE_UP = 200  # prompts in a set that is made up, unless they are so long that memory speaks against it
_MOST_IN_ALL = 4_000_000  # of words, characters or tokens
_INPUTS, _OUTPUTS = 1, 2  # streams of chance of one seed


def for_scenario(scenario: Scenario, note: Note = lambda _: None) -> list[Prompt]:
    """The scenario's prompts, with its system message, its answer lengths and its number of turns.

    Raises:
        ScenarioError: If they cannot be read, or are conversations of several turns in an open loop.
    """
    prompts = [with_system(prompt, scenario.system) for prompt in _prompts(scenario, note)]
    if scenario.turns is not None:
        prompts = [replace(prompt, turns=prompt.turns[: scenario.turns - 1]) for prompt in prompts]
    for load in ("request_rate", "shape"):
        if getattr(scenario, load) is not None and any(prompt.turns for prompt in prompts):
            raise ScenarioError(
                f"prompts: conversations of several turns need a closed loop: give concurrency instead of {load}, or "
                "turns = 1 to ask the first turn alone"
            )
    return _with_outputs(prompts, scenario)


def _prompts(scenario: Scenario, note: Note) -> Sequence[Prompt]:
    asked = scenario.requests or 0
    if scenario.trace is not None:
        most = max(trace.MOST, asked)
        try:
            return trace.read(
                Path(scenario.trace), scenario.trace_speed, most=most, seed=scenario.seed, note=_named("trace", note)
            )
        except ScenarioError as error:
            raise ScenarioError(f"trace: {error}") from None
    if (length := scenario.lengths[0]) is not None:
        return made_up(length, scenario.shared_prefix, scenario.seed)
    if isinstance(scenario.prompts, str):
        try:
            draw = Draw(max(MOST, asked), scenario.seed)
            return read(Path(scenario.prompts), draw, _named("prompts", note))
        except ScenarioError as error:
            raise ScenarioError(f"prompts: {error}") from None
    if scenario.prompts is None:
        return DEFAULT
    return from_texts(scenario.prompts)


def _named(what: str, note: Note) -> Note:
    return lambda text: note(f"{what}: {text}")


def made_up(length: Length, shared: float, seed: int) -> list[Prompt]:
    """Prompts of wanted lengths, all of one seed alike.

    Args:
        shared: The part of each that all have in common, in [0, 1].
    """
    import numpy as np

    count = max(1, min(MADE_UP, int(_MOST_IN_ALL / length.a)))
    prompts = []
    for number, whole in enumerate(length.draw(np.random.default_rng([seed, _INPUTS]), count), start=1):
        alike = round(shared * whole)
        pieces, common = [], 0
        if alike:
            pieces.append((f"s{seed}", alike))
            common = 1
        if alike < whole:
            pieces.append((f"s{seed}p{number}", whole - alike))
        recipe = Recipe(length.unit, tuple(pieces), common)
        prompts.append(Prompt(f"p{number}", (), group=f"made up, {length.unit}", recipe=recipe))
    return prompts


def _with_outputs(prompts: list[Prompt], scenario: Scenario) -> list[Prompt]:
    """The prompts, each with a limit of its own where the scenario draws them and it has none."""
    import numpy as np

    if (length := scenario.lengths[1]) is None:
        return prompts
    limits = length.draw(np.random.default_rng([scenario.seed, _OUTPUTS]), len(prompts))
    limited = []
    for prompt, limit in zip(prompts, limits, strict=True):
        if prompt.max_tokens is None:
            prompt = replace(prompt, max_tokens=limit)
        limited.append(prompt)
    return limited


def written(prompt: Prompt, line: Line = UNKNOWN) -> Prompt:
    """The prompt with its message, where that is to be made up."""
    if prompt.recipe is None:
        return prompt
    text, shared = prompt.recipe.text(line)
    message = {"role": "user", "content": text}
    return replace(prompt, messages=(*prompt.messages, message), recipe=None, shared_characters=shared)


def longest_in_tokens(prompts: Iterable[Prompt]) -> int | None:
    """Tokens of the longest prompt that is to have so many; None where none is."""
    longest = None
    for one in prompts:
        if one.recipe is not None and one.recipe.unit == "tokens":
            longest = max(longest or 0, one.recipe.length)
    return longest


def calibration(words: int, number: int, others: Sequence[Prompt]) -> Prompt:
    """A prompt of this many words, for the server to count its tokens, with the system message of the others."""
    messages = others[0].messages if others else ()
    return Prompt("calibration", messages, max_tokens=1, recipe=Recipe("words", ((f"calibration{number}", words),)))
