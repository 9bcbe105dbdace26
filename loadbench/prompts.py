"""What is asked: prompts from a file, from texts or built in; their order; a unique prefix against caches."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from loadbench.errors import ScenarioError, UsageError
from loadbench.scenario import Scenario
from loadbench.scenario.files import at, check, nearest, parse_json, printable, read_text, shown

ROLES = ("system", "developer", "user", "assistant", "tool")
KEYS = ("id", "prompt", "messages", "system", "group", "expected", "max_tokens")
MOST_TOKENS = 1_000_000


@dataclass(frozen=True, slots=True)
class Prompt:
    """One conversation to send.

    Attributes:
        id: Unique within the set.
        messages: As the chat API takes them: `{"role": "user", "content": "..."}`.
        group: What it stands for, as "meeting notes"; None where nobody said.
        expected: Aspects that a good answer names; scoring reads them.
        max_tokens: Most tokens of this answer; None leaves it to the scenario.
    """

    id: str
    messages: tuple[dict[str, Any], ...]
    group: str | None = None
    expected: tuple[str, ...] = ()
    max_tokens: int | None = None

    @property
    def characters(self) -> int:
        """Length of all texts of all messages, in characters."""
        return sum(len(text) for message in self.messages for text in _texts(message))


def _texts(message: dict[str, Any]) -> Iterator[str]:
    content = message.get("content")
    if isinstance(content, str):
        yield content
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            yield part["text"]


def to_json(prompts: Sequence[Prompt]) -> bytes:
    """The prompts as a file that `read` reads back to the same."""
    items = [
        {
            "id": prompt.id,
            "messages": prompt.messages,
            "group": prompt.group,
            "expected": prompt.expected or None,
            "max_tokens": prompt.max_tokens,
        }
        for prompt in prompts
    ]
    kept = [{key: value for key, value in item.items() if value is not None} for item in items]
    return orjson.dumps(kept, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def for_scenario(scenario: Scenario) -> list[Prompt]:
    """The scenario's prompts: its texts, its file, or the built-in set, with its system message.

    Raises:
        ScenarioError: If they cannot be read.
    """
    if scenario.prompts is None:
        return [with_system(prompt, scenario.system) for prompt in DEFAULT]
    if isinstance(scenario.prompts, str):
        try:
            prompts = read(Path(scenario.prompts))
        except ScenarioError as error:
            raise ScenarioError(f"prompts: {error}") from None
        return [with_system(prompt, scenario.system) for prompt in prompts]
    return from_texts(scenario.prompts, scenario.system)


def from_texts(texts: Iterable[str], system: str | None = None) -> list[Prompt]:
    """Prompts p1, p2, ... of one user message each.

    >>> from_texts(["Hello"])[0].messages
    ({'role': 'user', 'content': 'Hello'},)
    """
    data = list(texts)
    check(data, "prompts")
    places = [f"prompts{at((index,))}" for index in range(len(data))]
    return [with_system(prompt, system) for prompt in _prompts(data, places, "prompts")]


def with_system(prompt: Prompt, system: str | None) -> Prompt:
    """The prompt with a system message first, unless it has one."""
    if system is None or prompt.messages[0]["role"] in ("system", "developer"):
        return prompt
    return replace(prompt, messages=({"role": "system", "content": system}, *prompt.messages))


def read(path: Path) -> list[Prompt]:
    """Read a prompts file.

    .json: a list of texts or objects (id, prompt or messages, system, group, expected, max_tokens); .jsonl: a list of
    messages, an object or a text per line; .txt: a text per line. Without an id: p1, p2, ... by position.

    Raises:
        ScenarioError: One line that names the file, the place in it, the value, and what to do.
    """
    path = Path(path)
    where = printable(str(path))
    kind = path.suffix.lower()
    if kind not in (".json", ".jsonl", ".txt"):
        raise ScenarioError(f'{where}: a prompts file ends in .json, .jsonl or .txt; a text goes into a list: ["..."]')
    text = read_text(path)
    if kind == ".json":
        data = parse_json(text, where)
        if isinstance(data, dict) and isinstance(data.get("prompts"), list):
            data = data["prompts"]
        if not isinstance(data, list):
            raise ScenarioError(f"{where}: must be a list of prompts, not {shown(data)}")
        return _prompts(data, [f"{where}: {at((index,))}" for index in range(len(data))], where)
    # Only line feeds end a line: a text may hold U+2028 and others that splitlines cuts at.
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    places = [f"{where}, line {number}: item" for number, _ in lines]
    if kind == ".txt":
        return _prompts([line for _, line in lines], places, where)
    return _prompts([parse_json(line, where, number) for number, line in lines], places, where)


def _prompts(data: Sequence[Any], places: Sequence[str], where: str) -> list[Prompt]:
    if not data:
        raise ScenarioError(f"{where}: no prompts in it: give at least one")
    prompts: list[Prompt] = []
    seen: dict[str, int] = {}
    for number, (value, place) in enumerate(zip(data, places, strict=True), start=1):
        try:
            prompt = _prompt(value, f"p{number}")
        except ValueError as error:
            raise ScenarioError(f"{place}{error}") from None
        if prompt.id in seen:
            raise ScenarioError(f"{place}: the id {shown(prompt.id)} is that of prompt {seen[prompt.id]}: rename one")
        seen[prompt.id] = number
        prompts.append(prompt)
    return prompts


def _prompt(value: object, default: str) -> Prompt:
    if isinstance(value, str):
        return Prompt(default, (_message({"role": "user", "content": value}, ""),))
    if isinstance(value, list):
        return Prompt(default, _messages(value, ""))
    if not isinstance(value, dict):
        raise ValueError(f" is {shown(value)}: must be a text, a list of messages, or an object")
    for key in value:
        if key not in KEYS:
            raise ValueError(f": unknown key {at((key,))}{nearest(key, KEYS)}")
    if ("prompt" in value) == ("messages" in value):
        raise ValueError(": give either prompt or messages" + (", not both" if "prompt" in value else ""))
    if "prompt" in value:
        messages: tuple[dict[str, Any], ...] = (_message({"role": "user", "content": value["prompt"]}, ".prompt"),)
    else:
        messages = _messages(value["messages"], ".messages")
    prompt = Prompt(
        id=_text(value, "id") or default,
        messages=messages,
        group=_text(value, "group"),
        expected=_expected(value.get("expected")),
        max_tokens=_max_tokens(value.get("max_tokens")),
    )
    return with_system(prompt, _text(value, "system"))


def _messages(value: object, place: str) -> tuple[dict[str, Any], ...]:
    if not isinstance(value, list) or not value:
        raise ValueError(
            f'{place} is {shown(value)}: must be a list of messages, as {{"role": "user", "content": ...}}'
        )
    return tuple(_message(message, f"{place}[{index}]") for index, message in enumerate(value))


def _message(value: object, place: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not isinstance(value.get("role"), str):
        raise ValueError(f'{place} is {shown(value)}: must be a message, as {{"role": "user", "content": "..."}}')
    if value["role"] not in ROLES:
        raise ValueError(f"{place}.role is {shown(value['role'])}{nearest(value['role'], ROLES)}")
    if value["role"] == "user" and not any(text.strip() for text in _texts(value)):
        content = "" if place.endswith("prompt") or not place else ".content"
        raise ValueError(f"{place}{content} is {shown(value.get('content'))}: a prompt must hold text")
    return value


def _text(value: dict[str, Any], key: str) -> str | None:
    text = value.get(key)
    if text is None:
        return None
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f".{key} is {shown(text)}: must be a text, not empty")
    if key == "id" and (len(text) > 200 or not text.isprintable()):
        raise ValueError(f".id is {shown(text)}: must be one line of at most 200 characters")
    return text


def _expected(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(aspect, str) and aspect.strip() for aspect in value):
        raise ValueError(f".expected is {shown(value)}: must be a list of texts")
    return tuple(value)


def _max_tokens(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_TOKENS:
        raise ValueError(f".max_tokens is {shown(value)}: must be a whole number, 1 to {MOST_TOKENS}")
    return value


def order(prompts: Sequence[Prompt], seed: int) -> Iterator[Prompt]:
    """Endless: every prompt once per cycle, each cycle in another order that the seed decides.

    Raises:
        UsageError: If there are no prompts.
    """
    if not prompts:
        raise UsageError("no prompts: give at least one")
    return _order(list(prompts), random.Random(seed))


def _order(prompts: list[Prompt], chance: random.Random) -> Iterator[Prompt]:
    while True:
        chance.shuffle(prompts)
        yield from tuple(prompts)


def distinct(prompt: Prompt, number: int) -> Prompt:
    """The prompt behind a prefix of its own, so that no prompt cache answers; the id stays.

    The prefix stands at the very start (before a system message too), has the same length for every number, and
    differs from its first characters on, as caches match beginnings.

    Args:
        number: Never the same twice on one server, so it is not to start from 0 in each run.
    """
    mark = f"[{hashlib.blake2b(str(number).encode(), digest_size=8).hexdigest()}] "
    first, *rest = prompt.messages
    content = first.get("content")
    content = [{"type": "text", "text": mark}, *content] if isinstance(content, list) else mark + (content or "")
    return replace(prompt, messages=({**first, "content": content}, *rest))


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
