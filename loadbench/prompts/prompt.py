"""A prompt; the order in which prompts go out; a prefix of its own against caches."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from loadbench.errors import UsageError
from loadbench.prompts.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Prompt:
    """One conversation to send.

    Attributes:
        id: Unique within the set.
        messages: As the chat API takes them: `{"role": "user", "content": "..."}`.
        group: What it stands for, as "meeting notes"; None where nobody said.
        expected: Aspects that a good answer names; scoring reads them.
        checks: Rules that an answer must pass, as the file has them; scoring reads them.
        max_tokens: Most tokens of this answer; None leaves it to the scenario.
        turns: What the user says next, a text an answer.
        recipe: How the user's message is to be made up; None where `messages` is all there is. See `written`.
        shared_characters: The beginning of the last message that other prompts have too.
        at_s: When it is due in a replay, in seconds since the level began.
    """

    id: str
    messages: tuple[dict[str, Any], ...]
    group: str | None = None
    expected: tuple[str, ...] = ()
    max_tokens: int | None = None
    turns: tuple[str, ...] = ()
    recipe: Recipe | None = None
    shared_characters: int = 0
    at_s: float | None = None
    checks: tuple[dict[str, Any], ...] = ()

    @property
    def characters(self) -> int:
        """Length of all texts of all messages, in characters."""
        return sum(len(text) for message in self.messages for text in texts_of(message))


def texts_of(message: dict[str, Any]) -> Iterator[str]:
    content = message.get("content")
    if isinstance(content, str):
        yield content
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            yield part["text"]


def with_system(prompt: Prompt, system: str | None) -> Prompt:
    """The prompt with a system message first, unless it has one."""
    if system is None or any(message["role"] in ("system", "developer") for message in prompt.messages[:1]):
        return prompt
    return replace(prompt, messages=({"role": "system", "content": system}, *prompt.messages))


def order(prompts: Sequence[Prompt], seed: int, repeat: int = 1) -> Iterator[Prompt]:
    """Endless: every prompt once per cycle, each cycle in another order that seed and repeat decide.

    Args:
        repeat: From 1. No repeat of one seed has the orders of another seed.
    Raises:
        UsageError: If there are no prompts.
    """
    if not prompts:
        raise UsageError("no prompts: give at least one")
    return _order(list(prompts), random.Random(seed if repeat == 1 else f"{seed}/{repeat}"))


def _order(prompts: list[Prompt], chance: random.Random) -> Iterator[Prompt]:
    while True:
        chance.shuffle(prompts)
        yield from tuple(prompts)


def distinct(prompt: Prompt, number: int) -> Prompt:
    """The prompt behind a prefix of its own, so that no prompt cache answers; the id stays.

    The prefix stands at the very start (before a system message too), has the same length for every number, and
    differs from its first characters on, as caches match beginnings. Where prompts are to share their beginning, it
    stands right after that.

    Args:
        number: Never the same twice on one server, so it is not to start from 0 in each run.
    """
    mark = f"[{hashlib.blake2b(str(number).encode(), digest_size=8).hexdigest()}] "
    if shared := prompt.shared_characters:
        *before, last = prompt.messages
        content = last["content"]
        return replace(prompt, messages=(*before, {**last, "content": content[:shared] + mark + content[shared:]}))
    first, *rest = prompt.messages
    content = first.get("content")
    content = [{"type": "text", "text": mark}, *content] if isinstance(content, list) else mark + (content or "")
    return replace(prompt, messages=({**first, "content": content}, *rest))


def answered(prompt: Prompt, answer: str, turn: int) -> Prompt:
    """The conversation with its answer and the user's next turn.

    Args:
        prompt: As it was asked.
        turn: Number of the turn that is asked now, from 2; the id tells it.
    """
    said = ({"role": "assistant", "content": answer}, {"role": "user", "content": prompt.turns[0]})
    first = prompt.id if turn == 2 else prompt.id.rpartition("/")[0]
    return replace(prompt, id=f"{first}/{turn}", messages=(*prompt.messages, *said), turns=prompt.turns[1:])
