"""Prompts from a file or from texts, and back into a file; a fault is one line that names file and place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import orjson

from loadbench.errors import ScenarioError
from loadbench.prompts.prompt import Prompt, texts_of, with_system
from loadbench.prompts.recipe import Recipe
from loadbench.scenario.files import at, check, nearest, parse_json, printable, read_text, shown

ROLES = ("system", "developer", "user", "assistant", "tool")
KEYS = ("id", "prompt", "messages", "turns", "system", "group", "expected", "max_tokens")
OURS = ("recipe", "at_s")
"""Keys of the file that a run keeps, beside KEYS."""
MOST_TOKENS = 1_000_000
SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
"""Who says what in a ShareGPT conversation."""


def to_json(prompts: Sequence[Prompt]) -> bytes:
    """The prompts as a file that `read` reads back to the same."""
    items = [
        {
            "id": prompt.id,
            "messages": prompt.messages or None,
            "turns": prompt.turns or None,
            "recipe": None if prompt.recipe is None else str(prompt.recipe),
            "group": prompt.group,
            "expected": prompt.expected or None,
            "max_tokens": prompt.max_tokens,
            "at_s": prompt.at_s,
        }
        for prompt in prompts
    ]
    kept = [{key: value for key, value in item.items() if value is not None} for item in items]
    return orjson.dumps(kept, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def from_texts(texts: Iterable[str], system: str | None = None) -> list[Prompt]:
    """Prompts p1, p2, ... of one user message each.

    >>> from_texts(["Hello"])[0].messages
    ({'role': 'user', 'content': 'Hello'},)
    """
    data = list(texts)
    check(data, "prompts")
    places = [f"prompts{at((index,))}" for index in range(len(data))]
    return [with_system(prompt, system) for prompt in _prompts(data, places, "prompts")]


def read(path: Path) -> list[Prompt]:
    """Read a prompts file.

    .json: a list of texts or objects (id, prompt or messages or turns, system, group, expected, max_tokens); .jsonl: a
    list of messages, an object or a text per line; .txt: a text per line. Without an id: p1, p2, ... by position.
    `turns` are texts of the user, asked one after the other (after `messages`, where there are both).
    In both, objects may also be lines of an OpenAI batch file (its messages and max_tokens are taken) and ShareGPT
    conversations (what the human says is asked, turn by turn; conversations in which none speaks are left out).

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
            prompt = _any(value, f"p{number}")
        except ValueError as error:
            raise ScenarioError(f"{place}{error}") from None
        if prompt is None:
            continue
        if prompt.id in seen:
            raise ScenarioError(f"{place}: the id {shown(prompt.id)} is that of prompt {seen[prompt.id]}: rename one")
        seen[prompt.id] = number
        prompts.append(prompt)
    if not prompts:
        raise ScenarioError(f"{where}: no conversation in it has a turn of the human's: give at least one")
    return prompts


def _any(value: object, default: str) -> Prompt | None:
    """A prompt of whatever format; None for a conversation that asks nothing."""
    if isinstance(value, dict) and "conversations" in value:
        return _conversation(value, default)
    if isinstance(value, dict) and isinstance(value.get("body"), dict):
        return _batch_line(value, default)
    return _prompt(value, default)


def _conversation(value: dict[str, Any], default: str) -> Prompt | None:
    """One of ShareGPT: `{"id": …, "conversations": [{"from": "human", "value": …}, {"from": "gpt", …}]}`."""
    entries = value["conversations"]
    if not isinstance(entries, list):
        raise ValueError(
            f'.conversations is {shown(entries)}: must be a list, as [{{"from": "human", "value": "..."}}]'
        )
    said: dict[str, list[str]] = {"user": [], "system": [], "assistant": []}
    for number, entry in enumerate(entries):
        place = f".conversations[{number}]"
        if not isinstance(entry, dict) or not isinstance(entry.get("value"), str):
            raise ValueError(f'{place} is {shown(entry)}: must be a turn, as {{"from": "human", "value": "..."}}')
        speaker = SPEAKERS.get(str(entry.get("from")), "assistant")
        if entry["value"].strip():
            said[speaker].append(entry["value"])
    if not said["user"]:
        return None
    system = [{"role": "system", "content": text} for text in said["system"][:1]]
    first, *later = said["user"]
    return Prompt(default, (*system, {"role": "user", "content": first}), turns=tuple(later))


def _batch_line(value: dict[str, Any], default: str) -> Prompt:
    """One of OpenAI's batch files: `{"custom_id": …, "body": {"messages": […], "max_tokens": …}}`."""
    body = value["body"]
    limit = "max_tokens" if body.get("max_completion_tokens") is None else "max_completion_tokens"
    try:
        messages, most = _messages(body.get("messages"), ".messages"), _max_tokens(body.get(limit), limit)
    except ValueError as error:
        raise ValueError(f".body{error}") from None
    return Prompt(_text(value, "custom_id") or default, messages, max_tokens=most)


def _prompt(value: object, default: str) -> Prompt:
    if isinstance(value, str):
        return Prompt(default, (_message({"role": "user", "content": value}, ""),))
    if isinstance(value, list):
        return Prompt(default, _messages(value, ""))
    if not isinstance(value, dict):
        raise ValueError(f" is {shown(value)}: must be a text, a list of messages, or an object")
    for key in value:
        if key not in KEYS + OURS:
            raise ValueError(f": unknown key {at((key,))}{nearest(key, KEYS)}")
    if "prompt" in value and "messages" in value:
        raise ValueError(": give either prompt or messages, not both")
    if "prompt" in value and "turns" in value:
        raise ValueError(": give either prompt or turns, not both")
    if not value.keys() & {"prompt", "messages", "turns", "recipe"}:
        raise ValueError(": give either prompt or messages")
    messages: tuple[dict[str, Any], ...] = ()
    turns = _turns(value.get("turns"))
    if "prompt" in value:
        messages = (_message({"role": "user", "content": value["prompt"]}, ".prompt"),)
    elif "messages" in value:
        messages = _messages(value["messages"], ".messages")
    elif turns:
        messages, turns = ({"role": "user", "content": turns[0]},), turns[1:]
    prompt = Prompt(
        id=_text(value, "id") or default,
        messages=messages,
        group=_text(value, "group"),
        expected=_expected(value.get("expected")),
        max_tokens=_max_tokens(value.get("max_tokens"), "max_tokens"),
        turns=turns,
        recipe=_recipe(value.get("recipe")),
        at_s=_at_s(value.get("at_s")),
    )
    return with_system(prompt, _text(value, "system"))


def _turns(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not value or not all(isinstance(turn, str) and turn.strip() for turn in value):
        raise ValueError(
            f".turns is {shown(value)}: must be a list of texts, as the user says them one after the other"
        )
    return tuple(value)


def _recipe(value: object) -> Recipe | None:
    if value is None:
        return None
    try:
        return Recipe.parse(value if isinstance(value, str) else "")
    except ValueError:
        raise ValueError(f".recipe is {shown(value)}: must be as a run wrote it, as words p1*200") from None


def _at_s(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ValueError(f".at_s is {shown(value)}: must be a number of seconds, at least 0")
    return float(value)


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
    if value["role"] == "user" and not any(text.strip() for text in texts_of(value)):
        content = "" if place.endswith("prompt") or not place else ".content"
        raise ValueError(f"{place}{content} is {shown(value.get('content'))}: a prompt must hold text")
    return value


def _text(value: dict[str, Any], key: str) -> str | None:
    text = value.get(key)
    if text is None:
        return None
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f".{key} is {shown(text)}: must be a text, not empty")
    if key in ("id", "custom_id") and (len(text) > 200 or not text.isprintable()):
        raise ValueError(f".{key} is {shown(text)}: must be one line of at most 200 characters")
    return text


def _expected(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(aspect, str) and aspect.strip() for aspect in value):
        raise ValueError(f".expected is {shown(value)}: must be a list of texts")
    return tuple(value)


def _max_tokens(value: object, key: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_TOKENS:
        raise ValueError(f".{key} is {shown(value)}: must be a whole number, 1 to {MOST_TOKENS}")
    return value
