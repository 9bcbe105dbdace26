"""What is scored: the answers that a run kept, each different one once, and the questions they answer."""

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
    checks: tuple[Any, ...] = ()


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
    for name, told in ({} if prompts is None else read_questions(prompts)).items():
        asked = questions.get(name)  # in the run's own words, with its system message
        questions[name] = told if asked is None else replace(asked, expected=told.expected, checks=told.checks)
    return Scored(path, info, questions, answers, unreadable, damage)


def read_questions(path: Path) -> dict[str, Question]:
    """The prompts of a file by id, with their expected aspects and checks.

    What only a run needs is passed over, so that prompts of another version can be scored too.

    Raises:
        ScenarioError: It cannot be read.
    """
    found: dict[str, Question] = {}
    for item in items(path):
        found |= {question.id: question for question in _questions(item.value(), f"p{item.number}", item.file)}
    return found


def _questions(item: object, default: str, where: str) -> Iterator[Question]:
    """A prompt; of a conversation each turn, of which the last one has the expected aspects and checks."""
    if not isinstance(item, dict):
        yield Question(default, _said(item if isinstance(item, list) else [{"content": item}]))
        return
    name = name_of(item) or default
    told = item.get("turns")
    turns = [turn for turn in told if isinstance(turn, str)] if isinstance(told, list) else []
    messages = item.get("messages")
    if not isinstance(messages, list):
        first = item["prompt"] if "prompt" in item else turns.pop(0) if turns else None
        messages = [{"role": "user", "content": first}]
    if isinstance(item.get("system"), str):
        messages = [{"role": "system", "content": item["system"]}, *messages]
    expected, checks = item.get("expected") or [], item.get("checks") or []
    if not isinstance(expected, list) or not all(isinstance(aspect, str) and aspect.strip() for aspect in expected):
        raise ScenarioError(f"{where}: {printable(name)}: expected must be a list of texts")
    if not isinstance(checks, list):
        raise ScenarioError(f'{where}: {printable(name)}: checks must be a list, as [{{"contains": "Lisbon"}}]')
    for number, turn in enumerate(turns, start=2):
        yield Question(name if number == 2 else f"{name}/{number - 1}", _said(messages))
        answered = {"role": "assistant", "content": "(what this model answered)"}
        messages = [*messages, answered, {"role": "user", "content": turn}]
    last = f"{name}/{len(turns) + 1}" if turns else name
    yield Question(last, _said(messages), tuple(dict.fromkeys(expected)), tuple(checks))


def _said(messages: Sequence[object]) -> str:
    """What a conversation says; a single message of the user's without its role."""
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
    counted: dict[str, Mapping[str, Any]] = {}
    for level in info["levels"]:
        before = counted.get(level["id"])
        if before is None or before["status"] != "complete" or level["status"] == "complete":
            counted[level["id"]] = level
    return list(counted.values())


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
    answers = tuple(
        Answer(row_id(prompt, model, text), prompt, model, text, n) for (prompt, model, text), n in counts.items()
    )
    faults = ((level, check.fault(path.name)) for (level, _), check in checks.items())
    return answers, unreadable, tuple(f"{level}: {fault}" for level, fault in faults if fault is not None)
