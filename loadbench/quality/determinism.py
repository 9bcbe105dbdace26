"""Answers that differ where the same was asked at temperature 0: within a run, and between two runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loadbench.quality.answers import Answer, Scored

Key = tuple[str, str]
"""Model and prompt."""


@dataclass(frozen=True, slots=True)
class Repeats:
    """How often a model repeated itself within a run.

    Attributes:
        prompts: Asked at least twice.
        prompts_differing: Of those, with more than one answer.
        answers: To those prompts.
        answers_differing: Of those, other than their prompt's most frequent one.
        examples: Prompts that differ, each with how many different answers it got and the first character (from 1)
            where two of them part.
    """

    model: str
    prompts: int
    prompts_differing: int
    answers: int
    answers_differing: int
    examples: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class Between:
    """How far a model said the same in two runs.

    Attributes:
        prompts: Asked in both, in the same words.
        prompts_differing: Of those, where one run gave an answer that the other did not.
        prompts_apart: Of those, where the runs share no answer at all.
        prompts_changed: With the same id and other words: not compared.
    """

    model: str
    prompts: int
    prompts_differing: int
    prompts_apart: int
    prompts_changed: int


EXAMPLES = 3


def grouped(answers: Sequence[Answer]) -> dict[Key, list[Answer]]:
    """The different answers by model and prompt."""
    groups: dict[Key, list[Answer]] = {}
    for answer in answers:
        groups.setdefault((answer.model, answer.prompt), []).append(answer)
    return groups


def drawn_at_random(info: Mapping[str, Any]) -> str | None:
    """Why answers of a run may differ by right; None where the same was asked each time at temperature 0."""
    scenario = info.get("scenario") or {}
    temperature = scenario.get("temperature", 0.0)
    if temperature != 0:
        return f"temperature {temperature:g}: answers differ by right"
    if scenario.get("distinct_prompts"):
        return "each prompt was made distinct by a prefix: no two requests asked the same"
    return None


def within(answers: Sequence[Answer]) -> list[Repeats]:
    """For each model that was asked something at least twice, how far it repeated itself."""
    found = []
    groups = {key: group for key, group in grouped(answers).items() if sum(one.count for one in group) > 1}
    for model in dict.fromkeys(model for model, _ in groups):
        own = {prompt: group for (name, prompt), group in groups.items() if name == model}
        differing = {prompt: group for prompt, group in own.items() if len(group) > 1}
        examples = tuple(
            (prompt, len(group), _parting(group[0].text, group[1].text))
            for prompt, group in list(differing.items())[:EXAMPLES]
        )
        total = sum(one.count for group in own.values() for one in group)
        modal = sum(max(one.count for one in group) for group in own.values())
        found.append(Repeats(model, len(own), len(differing), total, total - modal, examples))
    return found


def _parting(one: str, other: str) -> int:
    """The first character, from 1, where two different texts part."""
    together = (index for index, (a, b) in enumerate(zip(one, other, strict=False), start=1) if a != b)
    return next(together, min(len(one), len(other)) + 1)


def between(one: Scored, other: Scored) -> list[Between]:
    """For each model of both runs, how far it said the same."""
    here, there = grouped(one.answers), grouped(other.answers)
    found = []
    for model in one.models:
        prompts = [prompt for name, prompt in here if name == model and (model, prompt) in there]
        changed = [prompt for prompt in prompts if _words(one, prompt) != _words(other, prompt)]
        texts = [
            ({answer.text for answer in here[model, prompt]}, {answer.text for answer in there[model, prompt]})
            for prompt in prompts
            if prompt not in changed
        ]
        if prompts:
            differing = sum(a != b for a, b in texts)
            found.append(Between(model, len(texts), differing, sum(not a & b for a, b in texts), len(changed)))
    return found


def _words(run: Scored, prompt: str) -> str | None:
    question = run.questions.get(prompt)
    return None if question is None else question.text


def settings_apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Settings of a request that two runs do not share, each as `max_tokens 64 and 128`."""
    a, b = one.get("scenario") or {}, other.get("scenario") or {}
    names = ("max_tokens", "temperature", "system", "extra_body")
    return [f"{name} {a.get(name)} and {b.get(name)}" for name in names if a.get(name) != b.get(name)]
