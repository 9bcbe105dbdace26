"""Prompts from a file or from texts, and back into a file; a fault is one line that names file and place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import orjson

from loadbench.errors import ScenarioError
from loadbench.prompts import shapes
from loadbench.prompts.draw import Draw
from loadbench.prompts.prompt import Prompt, with_system
from loadbench.scenario.files import check
from loadbench.scenario.items import PROMPTS, Item, ending, items
from loadbench.text import printable, shown

Note = Callable[[str], object]


def to_json(prompts: Sequence[Prompt]) -> bytes:
    """The prompts as a file that `read` reads back to the same."""
    plain = [
        {
            "id": prompt.id,
            "messages": prompt.messages or None,
            "turns": prompt.turns or None,
            "recipe": None if prompt.recipe is None else str(prompt.recipe),
            "group": prompt.group,
            "expected": prompt.expected or None,
            "checks": prompt.checks or None,
            "max_tokens": prompt.max_tokens,
            "at_s": prompt.at_s,
        }
        for prompt in prompts
    ]
    kept = [{key: value for key, value in item.items() if value is not None} for item in plain]
    return orjson.dumps(kept, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def from_texts(texts: Iterable[str], system: str | None = None) -> list[Prompt]:
    """Prompts p1, p2, ... of one user message each.

    >>> from_texts(["Hello"])[0].messages
    ({'role': 'user', 'content': 'Hello'},)
    """
    data = list(texts)
    check(data, "prompts")
    found = [Item(number, "prompts", text, kind="text") for number, text in enumerate(data, start=1)]
    return [with_system(prompt, system) for prompt in _prompts(found, "prompts", Draw(), lambda _: None)]


def read(path: Path, draw: Draw | None = None, note: Note = lambda _: None) -> list[Prompt]:
    """Read a prompts file; `.gz` may follow its ending.

    .json: a list of texts or objects (id, prompt or messages or turns, system, group, expected, checks, max_tokens);
    .jsonl: a list of messages, an object or a text per line; .csv and .tsv: a row each, with such columns; .txt: a text
    per line. Without an id: p1, p2, ... by position. `turns` are texts of the user, asked one after the other (after
    `messages`, where there are both). `shapes.SHAPES` has the keys of other tools' files; keys that say nothing here
    are passed over.

    Args:
        draw: Keeps a sample of a large file; unset, all is kept.
        note: Told in a line what was not used.

    Raises:
        ScenarioError: One line that names the file, the place in it, the value, and what to do.
    """
    path = Path(path)
    where = printable(str(path))
    if ending(str(path)) not in PROMPTS:
        kinds = f"{', '.join(PROMPTS[:-1])} or {PROMPTS[-1]}"
        raise ScenarioError(f'{where}: a prompts file ends in {kinds}; a text goes into a list: ["..."]')
    return _prompts(items(path), where, draw or Draw(), note)


def _prompts(found: Iterable[Item], where: str, draw: Draw, note: Note) -> list[Prompt]:
    remarks = shapes.Remarks()
    seen: dict[str, int] = {}
    for item in found:
        if not draw.wants():
            continue
        value = item.value()
        try:
            if item.kind == "row":
                value = shapes.of_cells(value)
            prompt = shapes.prompt(value, f"p{item.number}", remarks)
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
