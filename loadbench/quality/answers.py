"""What is scored: the answers that a run kept, each different one once; and the same question answered differently."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from loadbench.errors import ScenarioError, UsageError
from loadbench.scenario.items import items, name_of
from loadbench.store import Check, read_info, read_lines
from loadbench.text import printable

PROMPTS, ANSWERS = "prompts.json", "answers.jsonl"
EXAMPLES = 3
"""Prompts with different answers that are listed of a model."""


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt, as scoring sees it.

    Attributes:
        text: The prompt, as a person reads it; of several messages each behind its role.
        expected: Aspects that a good answer names.
        checks: Rules that an answer must pass, as the prompts file has them: `quality.checks` reads them.
    """

    id: str
    text: str
    expected: tuple[str, ...] = ()
    checks: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """A text that a model gave to a prompt, once or often.

    Attributes:
        row: Its name in sheets and records; made of prompt, model and text, so that it never changes.
        count: How many requests got exactly this text.
    """

    row: str
    prompt: str
    model: str
    text: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Scored:
    """A run, as scoring sees it.

    Attributes:
        info: run.json.
        questions: By the prompt's id, in the file's order.
        answers: In the order in which they were first given.
        unreadable_lines: Of answers.jsonl: a process died while it wrote.
        damage: Levels whose answers are not those that were written, and why.
    """

    path: Path
    info: dict[str, Any]
    questions: dict[str, Question]
    answers: tuple[Answer, ...]
    unreadable_lines: int = 0
    damage: tuple[str, ...] = ()

    @property
    def models(self) -> list[str]:
        """The models that answered, in the order of their first answer."""
        return list(dict.fromkeys(answer.model for answer in self.answers))


def row_id(prompt: str, model: str, text: str) -> str:
    """The name of an answer. It begins with a letter: spreadsheets make numbers of what looks like one.

    >>> row_id("capital", "phi", "Lisbon.")
    'rf4f533673391'
    """
    whole = "\0".join((model, prompt, text)).encode()
    return f"r{hashlib.blake2b(whole, digest_size=6).hexdigest()}"


def read(path: Path, prompts: Path | None = None) -> Scored:
    """The answers of a run folder and the prompts they answer.

    Args:
        prompts: A prompts file whose expected aspects and checks hold in place of those the run kept, by id.
    Raises:
        UsageError: The run kept no answers.
        StoreError: The folder cannot be read.
        ScenarioError: A prompts file cannot be.
    """
    info = read_info(path)
    answers, unreadable, damage = _answers(path / ANSWERS, _counted(info))
    questions = read_questions(path / PROMPTS) if (path / PROMPTS).exists() else {}
    declared = {} if prompts is None else read_questions(prompts)
    for name, question in declared.items():
        asked = questions.get(name)
        if asked is not None:  # it stays in the run's own words, with its system message
            question = replace(asked, expected=question.expected, checks=question.checks)
        questions[name] = question
    return Scored(path, info, questions, answers, unreadable, damage)


def read_questions(path: Path) -> dict[str, Question]:
    """The prompts of a file by id, with their expected aspects and checks.

    What only a run needs is passed over, so that prompts of another version can be scored too.

    Raises:
        ScenarioError: It cannot be read.
    """
    questions: dict[str, Question] = {}
    for item in items(path):
        for question in _questions(item.value(), f"p{item.number}", item.file):
            questions[question.id] = question
    return questions


def _questions(item: object, default: str, where: str) -> Iterator[Question]:
    """A prompt; of a conversation each turn, of which the last one has the expected aspects and checks."""
    if not isinstance(item, dict):
        yield Question(default, _conversation(item if isinstance(item, list) else [{"content": item}]))
        return
    name = name_of(item) or default
    turns = item.get("turns")
    turns = [turn for turn in turns if isinstance(turn, str)] if isinstance(turns, list) else []
    messages = item.get("messages")
    if not isinstance(messages, list):
        first = item.get("prompt")
        if "prompt" not in item and turns:
            first = turns.pop(0)
        messages = [{"role": "user", "content": first}]
    if isinstance(item.get("system"), str):
        messages = [{"role": "system", "content": item["system"]}, *messages]
    expected, checks = item.get("expected") or [], item.get("checks") or []
    if not isinstance(expected, list) or not all(isinstance(aspect, str) and aspect.strip() for aspect in expected):
        raise ScenarioError(f"{where}: {printable(name)}: expected must be a list of texts")
    if not isinstance(checks, list):
        raise ScenarioError(f'{where}: {printable(name)}: checks must be a list, as [{{"contains": "Lisbon"}}]')
    for number, turn in enumerate(turns, start=2):
        yield Question(name if number == 2 else f"{name}/{number - 1}", _conversation(messages))
        answer = {"role": "assistant", "content": "(what this model answered)"}
        messages = [*messages, answer, {"role": "user", "content": turn}]
    last = f"{name}/{len(turns) + 1}" if turns else name
    yield Question(last, _conversation(messages), tuple(dict.fromkeys(expected)), tuple(checks))


def _conversation(messages: Sequence[object]) -> str:
    """A conversation as text; a single message without its role."""
    spoken = [
        (str(message.get("role") or "user"), _content(message.get("content")))
        for message in messages
        if isinstance(message, Mapping)
    ]
    if len(spoken) == 1:
        return spoken[0][1]
    return "\n\n".join(f"[{role}]\n{text}" for role, text in spoken)


def _content(content: object) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))


def _counted(info: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The attempt of each level that counts: the last complete one, else the last."""
    by_level: dict[str, Mapping[str, Any]] = {}
    for level in info["levels"]:
        before = by_level.get(level["id"])
        if before is None or before["status"] != "complete" or level["status"] == "complete":
            by_level[level["id"]] = level
    return list(by_level.values())


class _Line(msgspec.Struct):
    level: str
    attempt: int
    prompt: str
    model: str
    text: str


def _answers(path: Path, levels: Sequence[Mapping[str, Any]]) -> tuple[tuple[Answer, ...], int, tuple[str, ...]]:
    """The answers of the attempts that count, the number of lines that are none, and what is not as it was written."""
    if not path.exists():
        raise UsageError(f"{path.parent}: holds no answers to score: none came, or the run was made with --no-answers")
    decoder = msgspec.json.Decoder(_Line)
    checks = {(level["id"], level["attempt"]): Check((level.get("written") or {}).get("answers")) for level in levels}
    counts: dict[tuple[str, str, str], int] = {}
    unreadable = 0
    for _, line in read_lines(path):
        try:
            one = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            unreadable += 1
            continue
        if (check := checks.get((one.level, one.attempt))) is not None:
            check.feed(line)
            key = one.prompt, one.model, one.text
            counts[key] = counts.get(key, 0) + 1
    if not counts:
        raise UsageError(f"{path.parent}: holds no answers to score: no level that counts has any")
    answers = [Answer(row_id(*key), *key, count=n) for key, n in counts.items()]
    damage = []
    for (level, _), check in checks.items():
        if (fault := check.fault(path.name)) is not None:
            damage.append(f"{level}: {fault}")
    return tuple(answers), unreadable, tuple(damage)


# -- the same question at temperature 0


class Repeats(msgspec.Struct, frozen=True):
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


class Between(msgspec.Struct, frozen=True):
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


def _by_prompt(answers: Sequence[Answer], model: str) -> dict[str, list[Answer]]:
    """A model's different answers to each prompt."""
    groups: dict[str, list[Answer]] = {}
    for answer in answers:
        if answer.model == model:
            groups.setdefault(answer.prompt, []).append(answer)
    return groups


def drawn_at_random(info: Mapping[str, Any]) -> str | None:
    """Why a run's answers to one prompt may rightly differ; None where the same was asked each time at temperature 0.

    Args:
        info: run.json.
    """
    scenario = info.get("scenario") or {}
    temperature = scenario.get("temperature", 0.0)
    if temperature != 0:
        return f"temperature {temperature:g}: answers differ by right"
    if scenario.get("distinct_prompts"):
        return "each prompt was made distinct by a prefix: no two requests asked the same"
    return None


def repeats(run: Scored) -> list[Repeats]:
    """For each model that was asked something at least twice, how far it repeated itself."""
    compared = []
    for model in run.models:
        total = modal = 0
        differing: list[tuple[str, int, int]] = []
        again = 0
        for prompt, group in _by_prompt(run.answers, model).items():
            counts = [answer.count for answer in group]
            if sum(counts) < 2:
                continue
            again += 1
            total += sum(counts)
            modal += max(counts)
            if len(group) > 1:
                differing.append((prompt, len(group), _parting(group[0].text, group[1].text)))
        if again:
            compared.append(
                Repeats(
                    model=model,
                    prompts=again,
                    prompts_differing=len(differing),
                    answers=total,
                    answers_differing=total - modal,
                    examples=tuple(differing[:EXAMPLES]),
                )
            )
    return compared


def _parting(one: str, other: str) -> int:
    """The first character, from 1, where two different texts part."""
    for index, (a, b) in enumerate(zip(one, other, strict=False), start=1):
        if a != b:
            return index
    return min(len(one), len(other)) + 1


def between_runs(one: Scored, other: Scored) -> list[Between]:
    """For each model of both runs, how far it said the same."""
    compared = []
    for model in one.models:
        here, there = _by_prompt(one.answers, model), _by_prompt(other.answers, model)
        both = [prompt for prompt in here if prompt in there]
        same_words = [prompt for prompt in both if _words(one, prompt) == _words(other, prompt)]
        differing = apart = 0
        for prompt in same_words:
            a, b = {answer.text for answer in here[prompt]}, {answer.text for answer in there[prompt]}
            differing += a != b
            apart += a.isdisjoint(b)
        if both:
            compared.append(
                Between(
                    model=model,
                    prompts=len(same_words),
                    prompts_differing=differing,
                    prompts_apart=apart,
                    prompts_changed=len(both) - len(same_words),
                )
            )
    return compared


def _words(run: Scored, prompt: str) -> str | None:
    question = run.questions.get(prompt)
    return None if question is None else question.text


def settings_apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Settings of a request that two runs (their run.json) do not share, each as `max_tokens 64 and 128`."""
    a, b = one.get("scenario") or {}, other.get("scenario") or {}
    names = ("max_tokens", "temperature", "system", "extra_body")
    return [f"{name} {a.get(name)} and {b.get(name)}" for name in names if a.get(name) != b.get(name)]
