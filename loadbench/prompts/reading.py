"""Prompts from a file or from texts, and back into a file, whatever the tool that wrote it called its keys.

A fault is one line that names file and place. Of a large file a sample is kept, drawn in one pass by a seed.
"""

from __future__ import annotations

import heapq
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from loadbench.errors import ScenarioError
from loadbench.prompts.prompt import Message, Prompt, Recipe, Rule, texts_of, with_system
from loadbench.prompts.trace import has_lengths, of_lengths
from loadbench.scenario.files import check, is_list
from loadbench.scenario.items import LONGEST_NAME, PROMPTS, SPEAKER, Item, ending, items, name_of
from loadbench.text import at, nearest, printable, shown

Note = Callable[[str], object]
Row = Mapping[str, Any]  # an object of a file, with whatever keys its tool writes

# -- files


def to_json(prompts: Sequence[Prompt]) -> bytes:
    """The prompts as a file that `read` reads back to the same."""
    rows = []
    for prompt in prompts:
        row = {
            "id": prompt.id,
            "messages": prompt.messages or None,
            "turns": prompt.turns or None,
            "recipe": prompt.recipe and str(prompt.recipe),
            "group": prompt.group,
            "expected": prompt.expected or None,
            "checks": prompt.checks or None,
            "max_tokens": prompt.max_tokens,
            "at_s": prompt.at_s,
        }
        rows.append({key: value for key, value in row.items() if value is not None})
    return orjson.dumps(rows, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def from_texts(texts: Iterable[str], system: str | None = None) -> list[Prompt]:
    """Prompts p1, p2, ... of one user message each.

    >>> from_texts(["Hello"])[0].messages
    ({'role': 'user', 'content': 'Hello'},)
    """
    data = list(texts)
    check(data, "prompts")
    found = [Item(number, "prompts", text, kind="text") for number, text in enumerate(data, start=1)]
    return [with_system(prompt, system) for prompt in _read(found, "prompts", Draw(), lambda _: None)]


def read(path: Path, draw: Draw | None = None, note: Note = lambda _: None) -> list[Prompt]:
    """Read a prompts file; `.gz` may follow its ending.

    .json: a list of texts or objects (id, prompt or messages or turns, system, group, expected, checks, max_tokens);
    .jsonl: a list of messages, an object or a text per line; .csv and .tsv: a row each, with such columns; .txt: a text
    per line. Without an id: p1, p2, ... by position. `turns` are texts of the user, asked one after the other (after
    `messages`, where there are both). `SHAPES` has the keys of other tools' files; keys that say nothing here
    are passed over.

    Args:
        draw: Keeps a sample of a large file; unset, all is kept.

    Raises:
        ScenarioError: One line that names the file, the place in it, the value, and what to do.
    """
    path = Path(path)
    where = printable(str(path))
    if ending(str(path)) not in PROMPTS:
        kinds = f"{', '.join(PROMPTS[:-1])} or {PROMPTS[-1]}"
        raise ScenarioError(f'{where}: a prompts file ends in {kinds}; a text goes into a list: ["..."]')
    return _read(items(path), where, draw or Draw(), note)


def _read(found: Iterable[Item], where: str, draw: Draw, note: Note) -> list[Prompt]:
    remarks = _Remarks()
    seen: dict[str, int] = {}
    for item in found:
        if not draw.wants():
            continue
        value = item.value()
        try:
            if item.kind == "row":
                cells = value
                value = {key: cell for key, cell in cells.items() if cell.strip() or key in SHAPES}
                if "expected" in value:
                    value["expected"] = list(filter(None, map(str.strip, cells["expected"].split(";"))))
                if "checks" in value:
                    value["checks"] = _parsed(cells["checks"])
            prompt = _prompt_of(value, f"p{item.number}", remarks)
        except ValueError as error:
            if item.kind == "object":
                raise ScenarioError(f"{where}: must be a list of prompts, not {shown(value)}") from None
            raise ScenarioError(f"{item.place}{error}") from None
        if prompt is None:
            continue
        if prompt.id in seen and isinstance(value, dict) and not isinstance(value.get("id"), str):
            prompt = replace(prompt, id=f"p{item.number}")  # a number that comes again names no prompt
        if prompt.id in seen:
            place = f"{item.place}: the id {shown(prompt.id)}"
            raise ScenarioError(f"{place} is that of prompt {seen[prompt.id]}: rename one")
        seen[prompt.id] = item.number
        draw.add(prompt)
    if not draw.seen:
        raise ScenarioError(f"{where}: no prompts in it: give at least one")
    prompts = draw.prompts()
    if not prompts:
        raise ScenarioError(f"{where}: no conversation in it has a turn of the human's: give at least one")
    if draw.gave_up:
        note(f"{where}: {len(prompts)} of {draw.seen} prompts, drawn by the seed ({draw.seed})")
    if words := remarks.words():
        note(f"{where}: not used: {words}")
    return prompts


# -- a sample: each item as likely as any other

MOST = 10_000  # prompts of a file that are kept, unless more requests are asked for
MOST_CHARACTERS = 16_000_000  # of all of them: a file of books gives fewer


class Draw:
    """The prompts of a file that are kept: those that drew the lowest numbers.

    Args:
        most: How many; None for all, however long they are.
    """

    def __init__(self, most: int | None = None, seed: int = 1) -> None:
        self.seen = 0
        self.seed = seed
        self._most = most
        self._chance = random.Random(f"{seed}/draw")
        self._below = 1.0
        self._rank = 0.0
        self._kept: list[tuple[float, int, Prompt]] = []  # the highest number first
        self._characters = 0

    def wants(self) -> bool:
        """Whether the next one may be kept: of a large file most need not even be parsed."""
        self.seen += 1
        self._rank = self._chance.random()
        return self._rank < self._below

    def add(self, prompt: Prompt) -> None:
        """Keep the last one that was wanted, and give up others where there are too many."""
        heapq.heappush(self._kept, (-self._rank, self.seen, prompt))
        self._characters += _length(prompt)
        if self._most is None:
            return
        while len(self._kept) > self._most or (self._characters > MOST_CHARACTERS and len(self._kept) > 1):
            rank, _, given_up = heapq.heappop(self._kept)
            self._characters -= _length(given_up)
            self._below = -rank

    @property
    def gave_up(self) -> bool:
        """Whether there were too many."""
        return self._below < 1

    def prompts(self) -> list[Prompt]:
        """What was kept, in its order."""
        return [prompt for _, _, prompt in sorted(self._kept, key=lambda one: one[1])]


def _length(prompt: Prompt) -> int:
    return prompt.characters + sum(map(len, prompt.turns))


# -- what a row asks

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
KEYS = ("id", "prompt", "messages", "turns", "system", "group", "expected", "checks", "max_tokens")
"""Of a file that was written for loadbench."""
OURS = ("recipe", "at_s")  # keys of the file that a run keeps, beside KEYS
MOST_TOKENS = 1_000_000

SPEAKERS = {
    **dict.fromkeys(("user", "human", "prompter", "customer", "question"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "model", "ai", "chatgpt", "chatbot", "agent", "answer"), "assistant"),
    "system": "system",
    "developer": "system",
}
"""Who says what in a conversation, in small letters; whoever else speaks is not asked."""
SAID = ("content", "value", "text", "message", "utterance", "parts")  # keys of what is said in a turn
SYSTEMS = ("system", "system_prompt", "system_message", "instructions")
LIMITS = ("max_completion_tokens", "max_tokens", "max_new_tokens", "max_output_tokens", "output_tokens")
BELOW = ("input", "context", "passage", "document")  # keys of what a question is about, which is asked below it
WRAPPERS = ("body", "params", "request", "modelInput", "row")
"""Keys of an object around the row: of batch files (OpenAI's, Anthropic's, Gemini's, Bedrock's), of a hub's rows."""
_ENVELOPE = ("method", "url", "row_idx", "truncated_cells")  # keys beside those, which say nothing about what is asked
_OF_A_MESSAGE = {
    *("role", "content", "name", "tool_calls", "tool_call_id", "function_call", "refusal", "audio", "annotations"),
    *("prefix", "partial", "reasoning", "reasoning_content", "thinking", "cache_control", "images", "channel", "type"),
}
"""Keys of a message that servers take; data sets have more (`weight`, `language`), which some servers refuse."""
_TYPOS = ("expected", "checks", "max_tokens")
"""A key that is nearly one of these is refused: without it the prompt would be asked, and be judged otherwise."""


@dataclass(slots=True)
class _Remarks:
    """What of a file was not used, to be told in a word."""

    keys: Counter[str] = field(default_factory=Counter)
    answers: int = 0
    silent: int = 0
    cut: int = 0

    def words(self) -> str:
        """As "the keys category, answer; 3 items that ask nothing"; empty where all was used."""
        parts = []
        if self.keys:
            names = [at((key,)) for key, _ in self.keys.most_common(5)]
            noun = "key" if len(self.keys) == 1 else "keys"
            parts.append(f"the {noun} {', '.join(names)}")
            if len(self.keys) > len(names):
                parts[0] += f" and {len(self.keys) - len(names)} more"
        if self.answers:
            parts.append(f"the answers at the end of {_items(self.answers)}")
        if self.cut:
            parts.append(f"what follows an empty answer in {_items(self.cut)}")
        if self.silent:
            asks = "asks" if self.silent == 1 else "ask"
            parts.append(f"{_items(self.silent)} that {asks} nothing")
        return "; ".join(parts)


def _items(n: int) -> str:
    return "1 item" if n == 1 else f"{n} items"


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a key's value asks: messages as they are sent, or the user's turns, each after an answer."""

    messages: tuple[Message, ...] = ()
    turns: tuple[str, ...] = ()
    system: str | None = None


def _prompt_of(value: object, default: str, remarks: _Remarks) -> Prompt | None:
    """The prompt that a row is; None for one that asks nothing.

    Args:
        default: Its id where it has none.

    Raises:
        ValueError: It is none: says where in it and why, to stand behind its place.
    """
    if isinstance(value, str):
        return Prompt(default, (_message({"role": "user", "content": value}, "", remarks),))
    if isinstance(value, list):
        asked = _listed(value, "", remarks)
        return _begun(Prompt(default, asked.messages, turns=asked.turns), asked.system, remarks)
    if not isinstance(value, dict):
        raise ValueError(f" is {shown(value)}: must be a text, a list of messages, or an object")
    for key in WRAPPERS:
        if isinstance(inside := value.get(key), dict):
            return _wrapped(value, key, inside, default, remarks)
    speaker = _speaker(value)
    if speaker is not None and speaker != "user":
        remarks.silent += 1
        return None
    return _row(value, default, remarks)


def _wrapped(value: Row, key: str, inside: Row, name: str, remarks: _Remarks) -> Prompt | None:
    """A line of a batch file: its request is sent as it is, an answer at its end too."""
    try:
        found = _row(inside, name_of(value) or name, remarks, as_it_is=key != "row")
    except ValueError as error:
        raise ValueError(f".{key}{error}") from None
    remarks.keys.update(set(value) - {key, *_ENVELOPE} - _names(value))
    return found


def _names(value: Row) -> set[str]:
    """The keys of it that name it."""
    return {key for key in value if name_of({key: value[key]}) is not None}


def _row(value: Row, default: str, remarks: _Remarks, *, as_it_is: bool = False) -> Prompt | None:
    for key in value:
        if key in KEYS or key in LIMITS:
            continue
        if close := get_close_matches(key[:100], _TYPOS, n=1, cutoff=0.8):
            raise ValueError(f": unknown key {at((key,))}; did you mean {close[0]}?")
    if has_lengths(value) and not value.keys() & SHAPES.keys():
        try:  # a line of a trace, asked when the load says so: a text of its length
            row = of_lengths(value, "", default)
        except ScenarioError as error:
            raise ValueError(str(error)) from None
        if row is None:
            remarks.silent += 1
            return None
        return Prompt(default, (), recipe=row[1], max_tokens=row[2])
    _no_two(value)
    key, asked = _asked(value, remarks, as_it_is=as_it_is)
    used = {key, "id", "group", "expected", "checks", *OURS} | _names(value)
    turns = asked.turns
    if key == "messages" and isinstance(value.get("turns"), list):
        used.add("turns")
        turns = _turns(value["turns"])
    for about in BELOW:
        if key == about or not _is_text(value.get(about)):
            continue
        if not asked.messages and len(turns) == 1 and (key != "prompt" or about != "input"):
            used.add(about)
            turns = (f"{turns[0]}\n\n{value[about]}",)
        break
    system, max_tokens = asked.system, None
    for name in SYSTEMS:
        if _is_text(value.get(name)):
            used.add(name)
            system = value[name]
            break
    for name in LIMITS:
        if value.get(name) is not None:
            used.add(name)
            max_tokens = _max_tokens(value[name], name)
            break
    own = None
    if key not in CONVERSATIONS or asked.messages:
        own = _name(value)
    remarks.keys.update(name for name, one in value.items() if name not in used and one not in (None, ""))
    prompt = Prompt(
        own or default,
        asked.messages,
        group=_group(value.get("group")),
        expected=_expected(value.get("expected")),
        checks=_checks(value.get("checks")),
        max_tokens=max_tokens,
        turns=turns,
        recipe=_recipe(value),
        at_s=_at_s(value.get("at_s")),
    )
    return _begun(prompt, system, remarks)


def _no_two(value: Row) -> None:
    """Refuse two keys of which each is the prompt; some data sets repeat the first message as `prompt`."""
    if "prompt" not in value:
        return
    if isinstance(messages := value.get("messages"), list):
        texts: list[str] = []
        for message in messages:
            if isinstance(message, dict):
                texts.extend(texts_of(message))
        if value["prompt"] not in texts and value["prompt"] != messages[: -1 or None]:
            raise ValueError(": give either prompt or messages, not both")
    if isinstance(value.get("turns"), list):
        raise ValueError(": give either prompt or turns, not both")


def _asked(value: Row, remarks: _Remarks, *, as_it_is: bool) -> tuple[str, _Asked]:
    """The key of a row that says what is asked, and what that is."""
    fault: ValueError | None = None
    for key, read in SHAPES.items():
        if value.get(key) is None and key not in KEYS:
            continue
        if key not in value:
            continue
        try:
            if key == "messages" and as_it_is:
                return key, _Asked(_messages(value[key], ".messages", remarks))
            return key, read(value[key], f".{key}", remarks)
        except ValueError as error:
            fault = fault or error
    if fault is not None:
        raise fault
    if "recipe" in value:
        return "recipe", _Asked()
    for key in value:
        if key not in KEYS + OURS:
            raise ValueError(f": unknown key {at((key,))}{nearest(key, KEYS)}")
    raise ValueError(": give either prompt or messages")


def _begun(prompt: Prompt, system: str | None, remarks: _Remarks) -> Prompt | None:
    """The prompt with something to send: its messages, or the first of the user's turns; None where it has neither."""
    if not prompt.messages and prompt.turns:
        first = {"role": "user", "content": prompt.turns[0]}
        prompt = replace(prompt, messages=(first,), turns=prompt.turns[1:])
    if not prompt.messages and prompt.recipe is None:
        remarks.silent += 1
        return None
    return with_system(prompt, system)


# -- how the values of keys are read


def _listed(value: object, place: str, remarks: _Remarks) -> _Asked:
    """Messages as the chat API takes them; turns of a conversation where they are written so."""
    value = _parsed(value)
    if isinstance(value, list):
        for one in value[:2]:  # the first may be the system's
            if isinstance(one, dict) and "role" not in one and _speaker(one) is not None:
                return _conversation(value, place, remarks)
    messages = list(_messages(value, place, remarks))
    for index, message in enumerate(messages):
        holds = any(map(str.strip, texts_of(message))) or message.get("tool_calls") or message.get("function_call")
        if message["role"] == "assistant" and not holds:  # servers refuse an empty answer that is sent to them
            remarks.cut += index < len(messages) - 1
            del messages[index:]
            break
    answered = len(messages)
    while messages and messages[-1]["role"] == "assistant" and not (messages[-1].keys() & {"prefix", "partial"}):
        messages.pop()
    remarks.answers += len(messages) < answered
    return _Asked(tuple(messages))


def _conversation(value: object, place: str, remarks: _Remarks, *, alternate: bool = False) -> _Asked:
    """What the user says in a conversation, turn by turn; the answers are to come from the server.

    Args:
        alternate: Turns may be plain texts: the user's, an answer, the user's …
    """
    value = _parsed(value)
    if not isinstance(value, list):
        raise ValueError(f'{place} is {shown(value)}: must be a list, as [{{"from": "human", "value": "..."}}]')
    texts: dict[str, list[str]] = {"user": [], "system": [], "assistant": []}
    for number, entry in enumerate(value):
        turns = list(_turns_in(entry, number, alternate=alternate))
        if not turns:
            raise ValueError(
                f'{place}[{number}] is {shown(entry)}: must be a turn, as {{"from": "human", "value": "..."}}'
            )
        for speaker, text in turns:
            if text.strip():
                texts[speaker].append(text)
    return _Asked(turns=tuple(texts["user"]), system=next(iter(texts["system"]), None))


def _turns_in(entry: object, number: int, *, alternate: bool) -> Iterator[tuple[str, str]]:
    """Who says what in an entry of a conversation: one turn, or a question with its answer."""
    if isinstance(entry, str) and alternate:
        yield "assistant" if number % 2 else "user", entry
    elif is_list(entry, str):
        yield from zip(("user", "assistant"), entry, strict=False)
    elif isinstance(entry, dict):
        for key in SPEAKER:
            if isinstance(entry.get(key), str):
                if (text := _said(entry)) is not None:
                    yield SPEAKERS.get(entry[key].lower(), "assistant"), text
                return
        for key, text in entry.items():
            if key.lower() in SPEAKERS and isinstance(text, str):
                yield SPEAKERS[key.lower()], text


def _said(entry: Row) -> str | None:
    """The text of a turn; None where it has none."""
    for key in SAID:
        if isinstance(text := entry.get(key), str):
            return text
        if isinstance(text, list):
            parts = [{"text": one} if isinstance(one, str) else one for one in text]
            return "".join(texts_of({"content": parts}))
    if entry.keys().isdisjoint(SAID):
        return None
    return ""


def _texts(value: object, place: str, remarks: _Remarks) -> _Asked:
    """The user's turns, as texts."""
    value = _parsed(value)
    if value and is_list(value, dict):
        if any(map(_speaker, value)):
            return _conversation(value, place, remarks)
        value = list(map(_said, value))
    return _Asked(turns=_turns(value))


def _text_or_more(value: object, place: str, remarks: _Remarks) -> _Asked:
    """One text; a list of them is asked turn by turn, a list of messages is sent."""
    if place == ".prompt" and not isinstance(value, list):
        _message({"role": "user", "content": value}, place, remarks)
    if isinstance(value, str):
        turns = (value,) if value.strip() else ()
        return _Asked(turns=turns)
    if isinstance(value, list) and value and all(map(_is_text, value)):
        return _Asked(turns=tuple(value))
    if isinstance(value, list) and any(isinstance(one, dict) for one in value):
        return _listed(value, place, remarks)
    raise ValueError(f"{place} is {shown(value)}: must be a text")


_alternating = partial(_conversation, alternate=True)

SHAPES: dict[str, Callable[[object, str, _Remarks], _Asked]] = {
    "messages": _listed,  # the chat API, fine-tuning, UltraChat 200k
    "conversations": _conversation,  # ShareGPT
    "conversation": _alternating,  # WildChat, LMSYS-Chat-1M
    "conversation_a": _conversation,  # Chatbot Arena
    "items": _conversation,  # ShareGPT, as it was first exported
    "turns": _texts,  # MT-bench, Spec-Bench
    "dialogue": _alternating,
    "dialog": _alternating,
    "chat": _alternating,
    "data": _alternating,  # UltraChat
    "contents": _conversation,  # Gemini
    "prompt": _text_or_more,  # HumanEval, IFEval, completions, preferences
    "instruction": _text_or_more,  # Alpaca, Dolly
    "question": _text_or_more,  # GSM8K, SQuAD, OpenOrca
    "query": _text_or_more,
    "problem": _text_or_more,  # MATH
    "text_input": _text_or_more,  # GenAI-Perf
    "user": _text_or_more,
    "input": _text_or_more,  # LongBench, the Responses API
    "inputs": _text_or_more,  # text-generation-inference
    "text": _text_or_more,  # Vicuna, MBPP, OpenAssistant
    "content": _text_or_more,
    "goal": _text_or_more,
}
"""How the value of a key is read, the first that a row has: what is known as which data set stands beside it."""
CONVERSATIONS = tuple(key for key, read in SHAPES.items() if read in (_conversation, _alternating))
"""Their ids are those of conversations, which some files have in parts of one id: they are numbered instead."""


def _speaker(value: Row) -> str | None:
    """Whose turn it is that an object is; None where it is none."""
    if not any(isinstance(value.get(key), str | list) for key in SAID):
        return None
    for key in SPEAKER:
        if isinstance(value.get(key), str):
            return SPEAKERS.get(value[key].lower())
    return None


def _parsed(value: object) -> object:
    """A list that is written as JSON in a text, as a cell of a table has it."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _turns(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(map(_is_text, value)):
        raise ValueError(
            f".turns is {shown(value)}: must be a list of texts, as the user says them one after the other"
        )
    return tuple(value)


def _messages(value: object, place: str, remarks: _Remarks) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError(
            f'{place} is {shown(value)}: must be a list of messages, as {{"role": "user", "content": ...}}'
        )
    return tuple(_message(message, f"{place}[{index}]", remarks) for index, message in enumerate(value))


def _message(value: object, place: str, remarks: _Remarks) -> Message:
    if not isinstance(value, dict) or not isinstance(value.get("role"), str):
        raise ValueError(f'{place} is {shown(value)}: must be a message, as {{"role": "user", "content": "..."}}')
    role = value["role"]
    if role not in ROLES:
        role = SPEAKERS.get(role.lower())
    if role is None:
        raise ValueError(f"{place}.role is {shown(value['role'])}{nearest(value['role'], ROLES)}")
    if role == "user" and not any(map(str.strip, texts_of(value))):
        if place and not place.endswith("prompt"):
            place = f"{place}.content"
        raise ValueError(f"{place} is {shown(value.get('content'))}: a prompt must hold text")
    if value["role"] == role and value.keys() <= _OF_A_MESSAGE:
        return value
    remarks.keys.update(value.keys() - _OF_A_MESSAGE)
    message = {key: one for key, one in value.items() if key in _OF_A_MESSAGE}
    message["role"] = role
    return message


# -- what stands beside it


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _name(value: Row) -> str | None:
    own = value.get("id")
    if own is not None and name_of({"id": own}) is None:
        if not _is_text(own):
            raise ValueError(f".id is {shown(own)}: must be a text, not empty")
        raise ValueError(f".id is {shown(own)}: must be one line of at most {LONGEST_NAME} characters")
    return name_of(value)


def _group(value: object) -> str | None:
    if value is not None and not _is_text(value):
        raise ValueError(f".group is {shown(value)}: must be a text, not empty")
    if value is None:
        return None
    return str(value)


def _expected(value: object) -> tuple[str, ...]:
    if isinstance(value, list) and all(map(_is_text, value)):
        return tuple(value)
    if value is not None:
        raise ValueError(f".expected is {shown(value)}: must be a list of texts")
    return ()


def _checks(value: object) -> tuple[Rule, ...]:
    if is_list(value, dict):
        return tuple(value)
    if value is not None:
        raise ValueError(f'.checks is {shown(value)}: must be a list, as [{{"contains": "Lisbon"}}]')
    return ()


def _max_tokens(value: object, key: str) -> int:
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdecimal():
        value = int(value.strip()[:9])  # a cell of a table
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_TOKENS:
        raise ValueError(f".{key} is {shown(value)}: must be a whole number, 1 to {MOST_TOKENS}")
    return value


def _recipe(value: Row) -> Recipe | None:
    written = value.get("recipe")
    if written is None:
        return None
    try:
        return Recipe.parse(written if isinstance(written, str) else "")
    except ValueError:
        raise ValueError(f".recipe is {shown(written)}: must be as a run wrote it, as words p1*200") from None


def _at_s(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ValueError(f".at_s is {shown(value)}: must be a number of seconds, at least 0")
    return float(value)
