"""What is scored: the answers that a run kept, each different one once; and the same question answered differently."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from loadbench.errors import ScenarioError, UsageError
from loadbench.scenario.files import is_list
from loadbench.scenario.items import items, name_of
from loadbench.store.files import Check, read_info, read_lines
from loadbench.text import printable

EXAMPLES = 3
"""Prompts with different answers that are listed of a model."""
Json = Mapping[str, Any]
"""A part of run.json."""


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
    """A text that a model gave to a prompt; `count` requests got exactly this one, `row` names it in sheets."""

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
    info: Json
    questions: dict[str, Question]
    answers: tuple[Answer, ...]
    unreadable_lines: int = 0
    damage: tuple[str, ...] = ()

    @property
    def models(self) -> list[str]:
        """The models that answered, in the order of their first answer."""
        return list(dict.fromkeys(answer.model for answer in self.answers))


def row_id(prompt: str, model: str, text: str) -> str:
    """The name of an answer, which never changes. It begins with a letter, or spreadsheets would read it as a number.

    >>> row_id("capital", "phi", "Lisbon.")
    'rf4f533673391'
    """
    # No name holds a NUL: no two answers run together into the same bytes.
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
    answers, unreadable, damage = _answers(path / "answers.jsonl", info["levels"])
    own = path / "prompts.json"
    questions = read_questions(own) if own.exists() else {}
    if prompts is not None:
        for name, question in read_questions(prompts).items():
            before = questions.get(name)
            if before is not None:  # it stays in the run's own words, with its system message
                question = replace(before, expected=question.expected, checks=question.checks)
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
    if isinstance(item, list):
        yield Question(default, _conversation(item))
        return
    if not isinstance(item, dict):
        yield Question(default, _conversation([{"content": item}]))
        return
    name = name_of(item) or default
    turns = item.get("turns")
    if not isinstance(turns, list):
        turns = []
    turns = [turn for turn in turns if isinstance(turn, str)]
    messages = item.get("messages")
    if not isinstance(messages, list):
        first = item.get("prompt")
        if "prompt" not in item and turns:
            first = turns.pop(0)
        messages = [{"role": "user", "content": first}]
    if isinstance(item.get("system"), str):
        messages = [{"role": "system", "content": item["system"]}, *messages]
    expected, checks = item.get("expected") or [], item.get("checks") or []
    if not is_list(expected, str) or not all(map(str.strip, expected)):
        raise ScenarioError(f"{where}: {printable(name)}: expected must be a list of texts")
    if not isinstance(checks, list):
        raise ScenarioError(f'{where}: {printable(name)}: checks must be a list, as [{{"contains": "Lisbon"}}]')
    # Turns have the names under which the run asked them: the first bare, the others with their number.
    turn_name = name
    for number, turn in enumerate(turns, start=2):
        yield Question(turn_name, _conversation(messages))
        answer = {"role": "assistant", "content": "(what this model answered)"}
        messages = [*messages, answer, {"role": "user", "content": turn}]
        turn_name = f"{name}/{number}"
    yield Question(turn_name, _conversation(messages), tuple(dict.fromkeys(expected)), tuple(checks))


def _conversation(messages: Sequence[object]) -> str:
    """A conversation as text; a single message without its role."""
    spoken = []
    for message in messages:
        if not isinstance(message, Mapping):
            continue
        content, text = message.get("content"), ""
        if isinstance(content, str):
            text = content
        elif isinstance(content, list):  # parts, as vision models take them; of images there is nothing to read
            for part in content:
                if isinstance(part, dict) and isinstance(part.get("text"), str):
                    text += part["text"]
        spoken.append((str(message.get("role") or "user"), text))
    if len(spoken) == 1:
        return spoken[0][1]
    return "\n\n".join(f"[{role}]\n{text}" for role, text in spoken)


class _Line(msgspec.Struct):
    level: str
    attempt: int
    prompt: str
    model: str
    text: str


def _answers(path: Path, levels: Sequence[Json]) -> tuple[tuple[Answer, ...], int, tuple[str, ...]]:
    """The answers of the attempts that count, the number of lines that are none, and what is not as it was written."""
    if not path.exists():
        raise UsageError(f"{path.parent}: holds no answers to score: none came, or the run was made with --no-answers")
    # Of each level the last complete attempt counts, else the last.
    counted: dict[str, Json] = {}
    for level in levels:
        before = counted.get(level["id"])
        if before is None or before["status"] != "complete" or level["status"] == "complete":
            counted[level["id"]] = level
    checks: dict[tuple[str, int], Check] = {}
    for level in counted.values():
        checks[level["id"], level["attempt"]] = Check((level.get("written") or {}).get("answers"))
    decoder = msgspec.json.Decoder(_Line)
    counts: Counter[tuple[str, str, str]] = Counter()
    unreadable = 0
    for _, line in read_lines(path):
        try:
            one = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            unreadable += 1
            continue
        check = checks.get((one.level, one.attempt))
        if check is not None:
            check.feed(line)
            # The same text is one answer, however often it came: nobody scores it twice.
            counts[one.prompt, one.model, one.text] += 1
    if not counts:
        raise UsageError(f"{path.parent}: holds no answers to score: no level that counts has any")
    answers = tuple(Answer(row_id(*key), *key, count=n) for key, n in counts.items())
    damage = []
    for (level_id, _), check in checks.items():
        fault = check.fault(path.name)
        if fault is not None:
            damage.append(f"{level_id}: {fault}")
    return answers, unreadable, tuple(damage)


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


class Against(msgspec.Struct, frozen=True):
    run: str
    reason: str | None
    settings_apart: list[str]
    models: list[Between] | None


class Determinism(msgspec.Struct, frozen=True):
    """Whether the same question got the same answer; `reason` says why answers may rightly differ."""

    reason: str | None
    within: list[Repeats] | None
    against: Against | None


def determinism(run: Scored, other: Scored | None) -> Determinism:
    """How far a run repeated itself, and another run it."""
    reason = drawn_at_random(run.info)
    within = repeats(run) if reason is None else None
    against = None
    if other is not None:
        why = reason or drawn_at_random(other.info)
        models = between_runs(run, other) if why is None else None
        against = Against(other.path.resolve().name, why, settings_apart(run.info, other.info), models)
    return Determinism(reason=reason, within=within, against=against)


def drawn_at_random(info: Json) -> str | None:
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


def _by_prompt(run: Scored, model: str) -> dict[str, list[Answer]]:
    groups: dict[str, list[Answer]] = {}
    for answer in run.answers:
        if answer.model == model:
            groups.setdefault(answer.prompt, []).append(answer)
    return groups


def repeats(run: Scored) -> list[Repeats]:
    """For each model that was asked something at least twice, how far it repeated itself."""
    compared = []
    for model in run.models:
        prompts = total = modal = 0
        differing: list[tuple[str, int, int]] = []
        for prompt, group in _by_prompt(run, model).items():
            counts = [answer.count for answer in group]
            if sum(counts) < 2:
                continue
            prompts += 1
            total += sum(counts)
            modal += max(counts)
            # Answers are in the order they came: the first two show where it begins to differ.
            if len(group) > 1:
                differing.append((prompt, len(group), _parting(group[0].text, group[1].text)))
        if prompts:
            examples = tuple(differing[:EXAMPLES])
            compared.append(Repeats(model, prompts, len(differing), total, total - modal, examples))
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
        here, there = _by_prompt(one, model), _by_prompt(other, model)
        same = differing = apart = changed = 0
        for prompt in here.keys() & there.keys():
            asked, asked_there = one.questions.get(prompt), other.questions.get(prompt)
            if getattr(asked, "text", None) != getattr(asked_there, "text", None):
                changed += 1
                continue
            same += 1
            # Sets, not counts: how often each was said is chance.
            a, b = {answer.text for answer in here[prompt]}, {answer.text for answer in there[prompt]}
            differing += a != b
            apart += a.isdisjoint(b)
        if same or changed:
            compared.append(Between(model, same, differing, apart, changed))
    return compared


def settings_apart(one: Json, other: Json) -> list[str]:
    """Settings of a request that two runs (their run.json) do not share, each as `max_tokens 64 and 128`."""
    a, b = one.get("scenario") or {}, other.get("scenario") or {}
    names = ("max_tokens", "temperature", "system", "extra_body")
    return [f"{name} {a.get(name)} and {b.get(name)}" for name in names if a.get(name) != b.get(name)]
